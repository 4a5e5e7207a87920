"""A file gets a name that nobody else has, in whichever way the mount can, and none is left."""

import ctypes
import errno
import fcntl
import os
from functools import partial
from pathlib import Path

import pytest

from holdfast import disk
from holdfast.backends import naming
from tests.unit.descriptors import open_below

WAYS = [naming.link, naming.rename, naming.take_turn, naming.claim]
RENAME = Path.rename


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def failing(number, *_, **__):
    raise OSError(number, os.strerror(number))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target"


@pytest.fixture
def temporary(tmp_path):
    path = tmp_path / "~temporary"
    path.write_bytes(b"content")
    return path


write = partial(disk.write_new, data=b"content")


@pytest.mark.parametrize("way", WAYS)
def test_each_way_names_the_file(way, target):
    assert naming.name_new(target, write, [way])

    assert target.read_bytes() == b"content"
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_leaves_a_taken_name_alone(way, target):
    target.write_bytes(b"somebody else's")

    assert not naming.name_new(target, write, [way])

    assert target.read_bytes() == b"somebody else's"
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("way", WAYS)
def test_a_link_to_nowhere_is_a_taken_name(way, target):
    target.symlink_to("nowhere")

    assert not naming.name_new(target, write, [way])

    assert target.is_symlink()
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("number", sorted(naming.UNSUPPORTED))
def test_the_next_way_is_taken_where_a_mount_has_no_such_call(target, number):
    assert naming.name_new(target, write, [partial(failing, number), naming.link])

    assert target.read_bytes() == b"content"
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ENOENT])
def test_a_call_that_fails_otherwise_ends_it(target, number):
    tried = []

    with pytest.raises(OSError, match=os.strerror(number)):
        naming.name_new(target, write, [partial(failing, number), lambda *_: tried.append(1)])

    assert not tried
    assert names(target.parent) == []


def test_where_no_way_is_left_the_last_one_tells_why(target):
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        naming.name_new(
            target, write, [partial(failing, errno.EPERM), partial(failing, errno.EINVAL)]
        )

    assert names(target.parent) == []


def test_what_cannot_be_written_is_not_named(target):
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        naming.name_new(target, partial(failing, errno.ENOSPC), [naming.link])

    assert names(target.parent) == []


def test_only_on_drive_those_of_a_machine_take_turns():
    assert naming.ways(on_drive=True) == (
        naming.link,
        naming.rename,
        naming.take_turn,
        naming.claim,
    )
    assert naming.ways(on_drive=False) == (naming.link, naming.rename, naming.claim)


def is_free(directory):
    """Whether nobody has the turn in a directory."""
    number = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(number)
    return True


def test_who_has_the_turn_has_it_alone_and_gives_it_back(target, temporary, monkeypatch):
    opened, seen, open_ = [], [], os.open

    def open_twice(*given):
        number = open_(*given)
        opened.append(os.dup(number))  # as a child has it that is forked meanwhile
        return number

    def rename(path, to):
        monkeypatch.setattr(os, "open", open_)
        seen.append(is_free(target.parent))
        return RENAME(path, to)

    monkeypatch.setattr(os, "open", open_twice)
    monkeypatch.setattr(Path, "rename", rename)

    naming.take_turn(temporary, target)

    assert seen == [False]
    assert is_free(target.parent)
    os.close(*opened)
    assert open_below(target.parent) == []


# A reply that is lost.


def link_and_fail(source, target, link=os.link):
    link(source, target)
    failing(errno.EIO)


def rename_and_fail(path, target):
    RENAME(path, target)
    failing(errno.EIO)


def renameat2_and_fail(patch):
    """A C library whose call renames and then says that it failed."""

    class Library:
        def renameat2(self, _, old, __, new, flags):
            assert flags == 1, "a taken name has to be refused"
            RENAME(Path(os.fsdecode(old)), os.fsdecode(new))
            ctypes.set_errno(errno.EIO)
            return -1

    patch.setattr(ctypes, "CDLL", lambda *_, **__: Library())


@pytest.mark.parametrize("way", WAYS)
def test_a_name_that_was_given_though_the_call_failed_counts(way, target, monkeypatch):
    monkeypatch.setattr(os, "link", link_and_fail)
    monkeypatch.setattr(Path, "rename", rename_and_fail)
    renameat2_and_fail(monkeypatch)

    assert naming.name_new(target, write, [way])

    assert target.read_bytes() == b"content"
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("way", [naming.link, naming.take_turn, naming.claim])
def test_a_call_that_failed_leaves_no_name(way, target, monkeypatch):
    monkeypatch.setattr(os, "link", partial(failing, errno.EIO))
    monkeypatch.setattr(Path, "rename", partial(failing, errno.EIO))

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        naming.name_new(target, write, [way])

    assert names(target.parent) == []


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_claim_that_is_interrupted_ends_all_the_same(is_renamed, target, temporary, monkeypatch):
    def interrupted(path, target):
        if is_renamed:
            RENAME(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)

    with pytest.raises(KeyboardInterrupt):
        naming.claim(temporary, target)

    assert names(target.parent) == ["target" if is_renamed else "~temporary"]


def test_who_takes_turns_lets_the_next_one_in(target, temporary):
    naming.take_turn(temporary, target)
    again = target.with_name("~again")
    again.write_bytes(b"again")
    next_one = target.with_name("next")

    naming.take_turn(again, next_one)

    assert next_one.read_bytes() == b"again"


# The call that refuses a taken name.


def test_a_system_without_that_call_says_so(target, temporary, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())

    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)) as caught:
        naming.rename(temporary, target)

    assert caught.value.errno in naming.UNSUPPORTED
    assert names(target.parent) == ["~temporary"]


def test_that_call_tells_which_name_was_taken(target, temporary):
    target.write_bytes(b"somebody else's")

    with pytest.raises(FileExistsError, match=str(target)):
        naming.rename(temporary, target)

    assert names(target.parent) == ["target", "~temporary"]
