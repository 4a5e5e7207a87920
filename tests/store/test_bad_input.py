"""A wrong call says what is wrong and what is right, and touches nothing."""

import os
from decimal import Decimal

import numpy as np
import pytest

from holdfast import (
    CheckpointStore,
    Files,
    InvalidInputError,
    KeepLast,
    NotFoundError,
    StorageError,
    hashing,
    open_store,
)
from tests.store import checks

HUGE = "x" * 200


@pytest.fixture
def untouched(backend, workspace):
    """Nothing was sent, and nothing is left in the workspace."""
    yield
    assert not backend.objects
    assert not workspace.exists() or not list(workspace.iterdir())


@pytest.mark.parametrize(
    "step",
    [
        *(-1, -(10**12), 10**12, 1.0, 1.5, "1", "", None, True, False, b"1", [1], int),
        *(Decimal(1), np.float64(3), np.bool_(True), np.array([1, 2]), float("nan"), ...),
    ],
    ids=repr,
)
def test_a_step_that_is_none(store, file, untouched, step):
    with pytest.raises(InvalidInputError, match=r"(a step is a whole number|a step lies between)"):
        store.save(file, step=step)


@pytest.mark.parametrize("value", ["0.5", b"1", None, True, [0.5], {}, 1j, object(), 10**400])
def test_a_metric_that_is_no_number(store, file, untouched, value):
    with pytest.raises(InvalidInputError, match=r"'loss' is not a number.*nothing was saved"):
        store.save(file, step=1, metrics={"loss": value})


@pytest.mark.parametrize("name", [1, None, ("a", "b")])
def test_a_metric_without_a_name(store, file, untouched, name):
    with pytest.raises(InvalidInputError, match="name is a text"):
        store.save(file, step=1, metrics={name: 0.5})


@pytest.mark.parametrize("metrics", [0.5, "loss", [("loss", 0.5)], {"loss"}])
def test_metrics_that_are_no_mapping(store, file, untouched, metrics):
    with pytest.raises(InvalidInputError, match="the metrics are a mapping"):
        store.save(file, step=1, metrics=metrics)


@pytest.mark.parametrize("metadata", [0.5, "note", [("note", "x")]])
def test_metadata_that_are_no_mapping(store, file, untouched, metadata):
    with pytest.raises(InvalidInputError, match="the metadata is a mapping"):
        store.save(file, step=1, metadata=metadata)


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, b"x", 1j, float("nan"), float("inf"), 2**53, object(), np.zeros(2)]
)
def test_metadata_that_is_not_flat(store, file, untouched, value):
    with pytest.raises(InvalidInputError, match=r"metadata 'note' .*nothing was saved"):
        store.save(file, step=1, metadata={"note": value})


@pytest.mark.parametrize("note", ["\ud800", "x\udfff"])
def test_a_text_that_is_no_text(store, file, untouched, note):
    with pytest.raises(InvalidInputError, match="not valid Unicode"):
        store.save(file, step=1, metadata={"note": note})


def test_more_than_a_manifest_can_hold(store, file, untouched):
    with pytest.raises(InvalidInputError, match="Save fewer files"):
        store.save(file, step=1, metadata={"note": "x" * 2**20})


@pytest.mark.parametrize("state", [None, 5, [1], {"w": 1}, object(), b"path"])
def test_what_is_neither_a_state_nor_a_path(store, untouched, state):
    with pytest.raises(InvalidInputError, match=r"cannot be saved.*Nothing was saved"):
        store.save(state, step=1)


def test_a_path_that_is_not_there(store, untouched, tmp_path):
    with pytest.raises(InvalidInputError, match=r"no file or directory .*missing"):
        store.save(tmp_path / "missing", step=1)


def test_an_empty_directory(store, untouched, tmp_path):
    (tmp_path / "empty" / "below").mkdir(parents=True)

    with pytest.raises(InvalidInputError, match="no file lies below"):
        store.save(tmp_path / "empty", step=1)


def test_an_empty_draft(store, untouched):
    def stage_nothing():
        with store.stage(step=1):
            pass

    with pytest.raises(InvalidInputError, match="step 1 has no files"):
        stage_nothing()


@pytest.mark.parametrize("kind", ["a link", "a dangling link", "a link to a directory", "a pipe"])
def test_a_link_or_a_special_file(store, untouched, tmp_path, kind):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    odd = model / "odd"
    if kind == "a pipe":
        os.mkfifo(odd)
    else:
        target = {"a link": "weights", "a dangling link": "missing"}.get(kind, "..")
        odd.symlink_to(target)

    with pytest.raises(InvalidInputError, match=r"odd is neither a file nor a directory"):
        store.save(model, step=1)


def test_a_link_written_into_a_draft(store, untouched, file):
    def stage_a_link():
        with store.stage(step=1) as draft:
            (draft.directory / "model").symlink_to(file)

    with pytest.raises(InvalidInputError, match="neither a file nor a directory"):
        stage_a_link()


def test_a_link_in_the_place_of_the_file(store, untouched, file, tmp_path):
    (tmp_path / "link").symlink_to(file)

    with pytest.raises(InvalidInputError, match="or it is a link"):
        store.save(tmp_path / "link", step=1)


@pytest.mark.parametrize(
    "name",
    ["a b", "-rf", "ä", "a.", "con", "NUL.txt", "~x", "a:b", "a*b", "a\nb", "x" * 129, "\udcff"],
)
def test_a_name_that_is_not_portable(store, untouched, tmp_path, name):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    (model / name).write_bytes(b"2")

    with pytest.raises(InvalidInputError, match="Rename it"):
        store.save(model, step=1)


@pytest.mark.parametrize("is_directory", [True, False])
def test_a_name_is_refused_before_anything_is_copied(
    store, untouched, tmp_path, monkeypatch, is_directory
):
    model = tmp_path / "model"
    model.mkdir()
    (model / "a").write_bytes(b"1")
    (model / "z?").write_bytes(b"2")
    monkeypatch.setattr(hashing, "copy_hashed", None)

    with pytest.raises(InvalidInputError, match="Rename it"):
        store.save(model if is_directory else model / "z?", step=1)


def test_names_that_are_equal_where_case_is_ignored(store, untouched, tmp_path):
    model = tmp_path / "model"
    (model / "Layer").mkdir(parents=True)
    (model / "layer").mkdir()
    (model / "Layer" / "a").write_bytes(b"1")
    (model / "layer" / "b").write_bytes(b"2")

    with pytest.raises(InvalidInputError, match="equal when case is ignored"):
        store.save(model, step=1)


def test_a_tree_that_is_too_deep(store, untouched, tmp_path):
    deep = tmp_path / "model" / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    (deep / "i").write_bytes(b"1")

    with pytest.raises(InvalidInputError, match="too long"):
        store.save(tmp_path / "model", step=1)


def test_a_directory_that_holds_the_workspace(store, backend, workspace, file, tmp_path):
    with pytest.raises(InvalidInputError, match="saved into itself"):
        store.save(tmp_path, step=1)

    assert not backend.objects
    assert not list(workspace.iterdir())


def test_a_state_that_is_none_is_not_restored_into(store, file, tmp_path):
    store.save(file, step=1)

    for state in (str(tmp_path / "x"), tmp_path / "x", None, {}):
        with pytest.raises(InvalidInputError, match=r"cannot be restored into.*download"):
            store.restore(state)

    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("checkpoint", [1200, 1.5, "1200", "x", "", b"x", ("a",), object()])
def test_what_names_no_checkpoint(store, file, tmp_path, checkpoint):
    store.save(file, step=1)
    calls = (
        lambda: store.restore(Files(tmp_path / "x"), checkpoint),
        lambda: store.download(checkpoint),
        lambda: store.verify(checkpoint),
        lambda: store.pin(checkpoint, "paper"),
    )

    for call in calls:
        with pytest.raises(InvalidInputError, match="is no id of a checkpoint"):
            call()

    assert store.pins() == {}


@pytest.mark.parametrize("rule", ["KeepLast(3)", KeepLast, 3])
def test_a_retention_that_is_no_rule(store, process, rule):
    for call in (lambda: process(retention=rule), lambda: store.prune(rule)):
        with pytest.raises(InvalidInputError, match="a retention is a rule such as"):
            call()


@pytest.mark.parametrize("name", [3, None, b"latest"])
def test_a_name_that_is_no_text(store, name):
    with pytest.raises(InvalidInputError, match="is no text"):
        store.find(name)


@pytest.mark.parametrize("place", [None, 3, b"run", ["run"]])
def test_a_place_that_is_none(place):
    with pytest.raises(InvalidInputError, match=r"is no place|is not a path"):
        open_store(place)


@pytest.mark.parametrize("step", ["x", 1.5, None, -1, True])
def test_what_is_no_step_to_look_for(store, file, step):
    store.save(file, step=1)

    with pytest.raises(InvalidInputError):
        store[step]
    with pytest.raises(NotFoundError, match="no checkpoint of step 2"):
        store[2]


def test_a_store_of_a_newer_format(tmp_path):
    checks.a_newer_format_is_not_passed_over(tmp_path)


# ------------------------------------------------------------- places


@pytest.mark.parametrize("place", ["", " ", "\t"])
def test_an_empty_place(place):
    with pytest.raises(InvalidInputError, match=r"empty.*[Nn]othing was touched"):
        open_store(place)


def test_a_place_that_is_a_file(file):
    before = file.read_bytes()

    with pytest.raises(InvalidInputError, match="is a file"):
        open_store(file)
    with pytest.raises(InvalidInputError, match="is a file"):
        open_store(file / "below")

    assert file.read_bytes() == before


def test_a_workspace_that_is_a_file(backend, file):
    before = file.read_bytes()

    with pytest.raises(InvalidInputError, match="not a directory"):
        CheckpointStore(backend, workspace=file).save(file, step=1)
    with pytest.raises(StorageError, match="cannot make the workspace"):
        CheckpointStore(backend, workspace=file / "below").save(file, step=1)

    assert file.read_bytes() == before
    assert not backend.objects


def test_a_store_amid_other_files_leaves_them_alone(tmp_path, file):
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "files").mkdir()
    mine = {"notes.txt": "a", "data/train.csv": "b", "files/thesis.tex": "c"}
    for path, text in mine.items():
        (home / path).write_text(text)
    with checks.quiet():
        store = open_store(home, retention=KeepLast(1))

    for step in (1, 2, 3):
        store.save(file, step=step)
    store.sweep(older_than=checks.NOW)
    store.recover()

    assert {path: (home / path).read_text() for path in mine} == mine
    assert [one.step for one in open_store(home)] == [3]
