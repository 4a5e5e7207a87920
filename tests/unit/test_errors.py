"""The tree of errors is as drawn, and an error survives the way through another process."""

import copy
import errno
import inspect
import pickle
import re

import pytest

from holdfast import errors
from holdfast.errors import AlreadyExists, CheckpointError, FormatError, StorageError, StorageFull

LINE = re.compile(
    r"^ {4}(?P<stem>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +\((?P<builtin>\w+)\))?(?P<rest>.*)$"
)
ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, CheckpointError)
}


def drawn():
    """The tree in the module's docstring: each name with its parent and its built-in base."""
    tree, above = {}, {}
    for line in errors.__doc__.splitlines():
        if match := LINE.match(line):
            depth = len(match["stem"]) // 4
            above[depth] = match["name"]
            tree[match["name"]] = (above.get(depth - 1) if depth else None, match["builtin"])
    return tree


def test_every_error_is_drawn_and_every_drawn_one_is_there():
    assert drawn().keys() == ERRORS.keys()
    assert len(ERRORS) == 12


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_bases_that_are_drawn(name):
    parent, builtin = drawn()[name]

    bases = {base.__name__ for base in ERRORS[name].__bases__}

    assert bases == {parent or "Exception", *([builtin] if builtin else [])}


@pytest.mark.parametrize("kind", [*ERRORS.values(), errors.CheckpointWarning])
def test_an_error_says_what_it_is_for(kind):
    assert kind.__dict__["__doc__"].strip()


@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
@pytest.mark.parametrize("kind", [*ERRORS.values(), errors.CheckpointWarning])
def test_a_pickled_error_is_of_the_same_type_and_text(kind, again):
    error = again(kind("it failed; all is safe."))

    assert type(error) is kind
    assert str(error) == "it failed; all is safe."


@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_a_pickled_error_keeps_what_it_knows(again):
    full = StorageFull("full", errno=errno.ENOSPC)
    full.add_note("seen on host 3")

    assert again(FormatError("later", newer=True)).newer
    assert again(full).errno == errno.ENOSPC
    assert again(full).__notes__ == ["seen on host 3"]
    assert again(StorageError("no answer")).errno is None


def test_the_number_does_not_change_the_text_or_the_type():
    error = AlreadyExists("taken", errno=errno.EEXIST)

    assert str(error) == "taken"
    assert isinstance(error, OSError)
    assert error.errno == errno.EEXIST


def test_a_warning_is_no_error():
    assert issubclass(errors.CheckpointWarning, UserWarning)
    assert not issubclass(errors.CheckpointWarning, CheckpointError)
