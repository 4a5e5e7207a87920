"""
A directory as a place: what it makes durable, and in which order, and what it compares.

That the syncs suffice is tried by power cuts; here it is seen that each is still made.
"""

import os
from pathlib import Path

import pytest

from holdfast import disk
from holdfast.backends.local import LocalBackend
from holdfast.errors import AlreadyExists, StorageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def backend(root: Path) -> LocalBackend:
    return LocalBackend(root)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").write_bytes(b"weights")
    return tmp_path / "source"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is synced from here on, by its name; of temporary names the first character."""
    found: list[str] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)
        found.append(str(path.parent / "~" if path.name.startswith("~") else path))

    monkeypatch.setattr(os, "fsync", note)
    return found


def test_a_create_syncs_the_content_and_every_name_above_it(
    backend: LocalBackend, synced: list[str]
) -> None:
    backend.create("files/a/model", b"weights")

    assert synced == [
        *(".", "store"),  # the root, and the directory of marks in it
        "store/files/a/~",
        *("store/files/a", "store/files", "store"),
    ]


def test_an_upload_syncs_the_source_and_every_name_above_it(
    backend: LocalBackend, source: Path, synced: list[str]
) -> None:
    backend.create("files/a/first", b"")
    synced.clear()

    backend.upload(source, "files/a/model")

    assert synced == ["source", "store/files/a", "store/files", "store"]


def test_an_upload_that_has_to_copy_syncs_the_copy_before_its_name(
    backend: LocalBackend, source: Path, tmp_path: Path, synced: list[str]
) -> None:
    backend.create("files/a/first", b"")
    (tmp_path / "another name").hardlink_to(source)
    synced.clear()

    backend.upload(source, "files/a/model")

    assert synced == ["source", "store/files/a/~", "store/files/a", "store/files", "store"]


def test_a_name_that_is_there_is_changed_and_synced_anew(
    backend: LocalBackend, synced: list[str]
) -> None:
    backend.create("manifests/a", b"")
    synced.clear()

    backend.sync_name("manifests/a")

    assert synced == ["store/manifests", "store"]
    assert os.listdir(backend.root / "manifests") == ["a"]  # noqa: PTH208


def test_a_delete_syncs_what_it_leaves_from_the_innermost_out(
    backend: LocalBackend, synced: list[str]
) -> None:
    for key in ("files/a/b/model", "files/a/other", "manifests/a"):
        backend.create(key, b"")
    synced.clear()

    backend.delete("files/a/b/model", "manifests/a")

    assert synced == ["store/manifests", "store/files/a", "store/files"]


def test_a_directory_is_made_durable_in_its_parent(tmp_path: Path, synced: list[str]) -> None:
    disk.make_directory(tmp_path / "a" / "b" / "c")
    disk.make_directory(tmp_path / "a" / "b" / "c")

    assert synced == [".", "a", "a/b"]


def test_a_file_is_replaced_in_an_order_that_a_power_cut_cannot_spoil(
    tmp_path: Path, synced: list[str]
) -> None:
    (tmp_path / "old").write_bytes(b"old")

    disk.replace(tmp_path / "old", b"new", temporary="~new")

    assert synced == ["~", "."]
    assert (tmp_path / "old").read_bytes() == b"new"


def test_a_directory_is_moved_with_all_that_is_in_it(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "new" / "sub").mkdir(parents=True)
    (tmp_path / "new" / "sub" / "file").touch()

    disk.move_directory(tmp_path / "new", tmp_path / "there")

    assert synced[:3] == ["new/sub/file", "new", "new/sub"]
    assert "." in synced[3:]


@pytest.mark.parametrize("names", [1, 2])
def test_an_upload_compares_what_is_there_and_sends_nothing(
    names: int, backend: LocalBackend, source: Path, tmp_path: Path
) -> None:
    """A source of two names would be copied: somebody may go on writing to it."""
    backend.create("files/a/same", b"weights")
    backend.create("files/a/other", b"another")
    moved: list[int] = []
    if names == 2:
        (tmp_path / "another name").hardlink_to(source)

    backend.upload(source, "files/a/same", moved.append)
    with pytest.raises(AlreadyExists, match="other content"):
        backend.upload(source, "files/a/other", moved.append)

    assert moved == []
    assert backend.read("files/a/other") == b"another"


def test_what_nobody_can_mend_by_trying_again_says_so(tmp_path: Path) -> None:
    """That spares the tries."""
    there = tmp_path / "there"
    backend = LocalBackend(there)
    backend.create("files/a/model", b"weights")
    (there / "files" / "link").symlink_to(tmp_path)
    (there / "files" / "a" / "sub").mkdir()

    failures = []
    for act in (
        lambda: backend.read("files/link/x"),
        lambda: backend.read("files/a/sub"),
        lambda: there.rename(tmp_path / "elsewhere") and backend.read("files/a/model"),
    ):
        with pytest.raises(StorageError) as caught:
            act()
        failures.append(caught.value)

    assert [failure.lasting for failure in failures] == [True, True, True]


def test_a_place_that_is_refused_is_refused_before_its_first_verb(tmp_path: Path) -> None:
    def refuse(root: Path) -> None:
        raise StorageError(f"{root} is not mounted")

    with pytest.raises(StorageError, match="not mounted"):
        LocalBackend(tmp_path / "new", refuse_absent=refuse)
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="not mounted"):
        LocalBackend(tmp_path / "there", refuse_absent=refuse)
