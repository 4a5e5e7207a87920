"""Files as a state: copied when they are captured, put back whole, and nothing is left lying."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

from holdfast.errors import FormatError, InvalidInputError, StorageError
from holdfast.state import DirectoryContents, Files, ReadsContents, State


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary directory, empty and of this test alone."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "kept"
    path.mkdir()
    return path


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


def plant(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_files_are_a_state():
    assert isinstance(Files("anything"), State)
    assert not isinstance(Path("anything"), State)


def test_a_path_may_be_a_text():
    assert Files("runs/model").path == Path("runs/model")


def test_a_file_is_kept_under_its_own_name(tmp_path, kept):
    plant(tmp_path, model="weights")

    Files(tmp_path / "model").snapshot().write_to(kept)

    assert tree(kept) == {"model": "weights"}


def test_a_directory_s_files_are_kept_under_their_paths(tmp_path, kept):
    source = plant(tmp_path / "model", a="1", b__c="2", b__d__e="3")
    (source / "empty").mkdir()

    Files(source).snapshot().write_to(kept)

    assert tree(kept) == {"a": "1", "b/c": "2", "b/d/e": "3"}
    assert not (kept / "empty").exists()


def test_what_is_written_after_the_capture_is_not_kept(tmp_path, kept):
    source = plant(tmp_path / "model", a="1")
    snapshot = Files(source).snapshot()
    plant(source, a="2", b="2")

    snapshot.write_to(kept)

    assert tree(kept) == {"a": "1"}


def test_a_snapshot_that_was_written_leaves_nothing(tmp_path, kept, temporary):
    snapshot = Files(plant(tmp_path / "model", a="1")).snapshot()

    snapshot.write_to(kept)

    assert list(temporary.iterdir()) == []


def test_a_snapshot_that_is_dropped_leaves_nothing(tmp_path, temporary):
    snapshot = Files(plant(tmp_path / "model", a="1")).snapshot()
    assert len(list(temporary.iterdir())) == 1

    del snapshot
    gc.collect()

    assert list(temporary.iterdir()) == []


def missing(path):
    pass


def a_link(path):
    path.symlink_to(__file__)


def a_link_to_a_directory(path):
    path.symlink_to(Path(__file__).parent)


def a_link_inside(path):
    path.mkdir()
    (path / "link").symlink_to(__file__)


def a_pipe_inside(path):
    path.mkdir()
    os.mkfifo(path / "pipe")


def an_empty_directory(path):
    path.mkdir()


def only_empty_directories(path):
    (path / "a" / "b").mkdir(parents=True)


@pytest.mark.parametrize(
    "make",
    [
        missing,
        a_link,
        a_link_to_a_directory,
        a_link_inside,
        a_pipe_inside,
        an_empty_directory,
        only_empty_directories,
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(tmp_path, temporary, make):
    make(tmp_path / "model")

    with pytest.raises(InvalidInputError, match="nothing was saved"):
        Files(tmp_path / "model").snapshot()

    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_file_is_put_back(tmp_path, kept):
    plant(tmp_path, model="later")
    plant(kept, model="kept")

    Files(tmp_path / "model").restore(kept)

    assert (tmp_path / "model").read_text() == "kept"
    assert tree(kept) == {"model": "kept"}


def test_a_directory_is_put_back_whole(tmp_path, kept):
    source = plant(tmp_path / "model", a="later", gone="later", b__c="later")
    plant(kept, a="kept", b__d="kept")

    Files(source).restore(kept)

    assert tree(source) == {"a": "kept", "b/d": "kept"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "model"]


def test_where_nothing_is_yet_one_file_of_the_same_name_becomes_a_file(tmp_path, kept):
    plant(kept, model="kept")

    Files(tmp_path / "new" / "model").restore(kept)

    assert tree(tmp_path / "new") == {"model": "kept"}


@pytest.mark.parametrize("names", [["other"], ["model", "other"], ["model__model"]])
def test_where_nothing_is_yet_anything_else_becomes_a_directory(tmp_path, kept, names):
    plant(kept, **dict.fromkeys(names, "kept"))

    Files(tmp_path / "new" / "model").restore(kept)

    assert tree(tmp_path / "new" / "model") == tree(kept)


def test_a_directory_stays_one_though_a_single_file_of_its_name_was_kept(tmp_path, kept):
    source = plant(tmp_path / "model", model="later")
    plant(kept, model="kept")

    Files(source).restore(kept)

    assert tree(source) == {"model": "kept"}


@pytest.mark.parametrize("names", [["other"], ["model", "other"], ["model__model"], []])
def test_a_file_is_not_replaced_by_anything_else(tmp_path, kept, names):
    plant(tmp_path, model="mine")
    plant(kept, **dict.fromkeys(names, "kept"))

    with pytest.raises(InvalidInputError):
        Files(tmp_path / "model").restore(kept)

    assert (tmp_path / "model").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "model"]


def test_a_directory_is_not_replaced_by_nothing(tmp_path, kept):
    source = plant(tmp_path / "model", a="mine")

    with pytest.raises(InvalidInputError, match="as it was"):
        Files(source).restore(kept)

    assert tree(source) == {"a": "mine"}


def test_a_link_among_what_was_kept_is_refused(tmp_path, kept):
    plant(kept, a="kept")
    (kept / "link").symlink_to(__file__)

    with pytest.raises(InvalidInputError, match="link is neither"):
        Files(tmp_path / "model").restore(kept)

    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["model", "weights"])
def test_a_disk_that_fails_leaves_the_files_as_they_were(tmp_path, kept, monkeypatch, name):
    plant(tmp_path, model="mine")
    plant(tmp_path / "weights", a="mine")
    plant(kept, **{name: "kept"})

    write = os.write

    def fail(descriptor, data):
        write(descriptor, data[:1])
        raise OSError("no room")

    monkeypatch.setattr("os.write", fail)
    with pytest.raises(StorageError, match="no room"):
        Files(tmp_path / name).restore(kept)

    assert tree(tmp_path) == {"model": "mine", "weights/a": "mine", f"kept/{name}": "kept"}


def test_a_directory_whose_successor_cannot_be_moved_there_stays(tmp_path, kept, monkeypatch):
    plant(tmp_path / "weights", a="mine")
    plant(kept, a="kept")
    rename = Path.rename

    def fail(self, target):
        if self.name.startswith("~") and (self / "a").read_text() == "kept":
            raise OSError("no room")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StorageError, match="no room"):
        Files(tmp_path / "weights").restore(kept)

    assert tree(tmp_path) == {"weights/a": "mine", "kept/a": "kept"}


def test_only_a_state_that_can_reads_contents():
    class Reading(Files):
        def restore_from(self, contents): ...

    assert isinstance(Reading("model"), ReadsContents)
    assert not isinstance(Files("model"), ReadsContents)


def test_a_directory_is_read_as_contents(kept):
    plant(kept, model="0123456789", deep__er="", b="2")
    first, last = bytearray(2), bytearray(3)

    contents = DirectoryContents(kept)
    contents.read_into("model", [(7, memoryview(last)), (1, memoryview(first))])

    assert contents.paths() == ["b", "deep/er", "model"]
    assert contents.directory() == kept
    assert (contents.read("b"), contents.read("deep/er")) == (b"2", b"")
    assert (first, last) == (b"12", b"789")


def test_what_a_directory_does_not_hold_is_not_read(kept, tmp_path):
    plant(kept, model="0123456789")
    plant(tmp_path, secret="secret")
    contents = DirectoryContents(kept)

    for path in ("other", "../secret", str(tmp_path / "secret"), ""):
        with pytest.raises(FileNotFoundError):
            contents.read(path)
        with pytest.raises(FileNotFoundError):
            contents.read_into(path, [])
    with pytest.raises(EOFError):
        contents.read_into("model", [(9, memoryview(bytearray(2)))])
    with pytest.raises(ValueError, match="twice"):
        contents.read_into("model", [(0, memoryview(bytearray(2))), (1, memoryview(bytearray(2)))])


def test_a_directory_that_is_missing_is_an_error_of_storage(tmp_path):
    with pytest.raises(StorageError, match="cannot look into"):
        DirectoryContents(tmp_path / "missing")


def test_a_file_that_is_larger_than_it_may_be_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    contents = DirectoryContents(tmp_path)

    assert contents.read("file", at_most=5) == b"12345"
    with pytest.raises(FormatError, match="file has 5 bytes, and may have 4"):
        contents.read("file", at_most=4)


@pytest.mark.parametrize("kind", ["a link", "a dangling link", "a pipe"])
def test_what_is_neither_a_file_nor_a_directory_is_replaced_and_not_followed(tmp_path, kept, kind):
    plant(kept, a="kept", b="kept")
    plant(tmp_path / "theirs", mine="theirs")
    place = tmp_path / "place"
    if kind == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / ("theirs" if kind == "a link" else "missing"))

    Files(place).restore(kept)

    assert sorted(path.name for path in place.iterdir()) == ["a", "b"]
    assert not place.is_symlink()
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["mine"]
    assert not list(tmp_path.glob("~*"))
