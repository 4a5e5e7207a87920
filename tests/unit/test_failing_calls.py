"""
Every call that a verb, a workspace or a download makes of the system fails once.

What that costs a user is tried by striking real processes; here it is seen that each failure is
told by its type and its number, that nothing stays open, and that the same may be done again.
"""

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast import hashing
from holdfast.backends.local import LocalBackend
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import AlreadyExists, CheckpointWarning, StorageError
from holdfast.fetching import CheckpointContents
from holdfast.staging import Draft, Workspace
from holdfast.testing import MemoryBackend
from holdfast.writer import Turn
from tests.unit.descriptors import open_below

#: The calls of the system that are made on files.
CALLS = [
    *("open", "close", "fsync", "stat", "lstat", "scandir", "statvfs", "utime"),
    *("link", "rename", "mkdir", "unlink", "rmdir", "write", "fstat"),
]
ID = CheckpointId(1, 7, "0a0b0c0d")
MOMENT = datetime(2026, 1, 5, tzinfo=UTC)
CONTENT = b"weights"

#: Given an empty directory, prepares what is to be done there; that is struck.
Scene = Callable[[Path], Callable[[], object]]


class Struck:
    """
    Calls of the system below a directory, of which one fails.

    Attributes:
        made (list[str]): which were made.
        at (int): which one fails, from 1.
    """

    def __init__(self, below: Path, at: int) -> None:
        self.made: list[str] = []
        self.at = at
        self._below = str(below)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._around(name, getattr(os, name)))
            yield

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*given: Any, **more: Any) -> Any:
            if not _path_of(given[0]).startswith(self._below):
                return call(*given, **more)
            self.made.append(name)
            if len(self.made) != self.at:
                return call(*given, **more)
            if name == "close":  # which lets go of the number all the same
                call(*given, **more)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return acting


def _path_of(given: object) -> str:
    return str(Path(f"/proc/self/fd/{given}").readlink() if isinstance(given, int) else given)


def _verb(act: Callable[[LocalBackend, Path], object]) -> Scene:
    """A verb on a directory that holds an object, with a file to send."""

    def prepare(place: Path) -> Callable[[], object]:
        source = place / "source"
        source.write_bytes(CONTENT)
        backend = LocalBackend(place / "store")
        backend.create("files/here/model", CONTENT)
        return lambda: act(backend, source)

    return prepare


def _begun(workspace: Workspace) -> Draft:
    draft = workspace.draft(step=7, metrics={}, metadata={}, turn=Turn(0, 7, "0a0b0c0d"))
    (draft.directory / "sub").mkdir()
    (draft.directory / "sub" / "model").write_bytes(CONTENT)
    return draft


def _sealed(draft: Draft) -> Draft:
    draft.seal(ID, writer="host:1:x", parent=None, created_at=MOMENT)
    return draft


def _staging(act: Callable[[Workspace], object]) -> Scene:
    """Work in a workspace in which another process has left a sealed draft."""

    def prepare(place: Path) -> Callable[[], object]:
        workspace = Workspace(place / "workspace")
        _sealed(_begun(workspace)).release()
        return lambda: act(workspace)

    return prepare


def _of_a_draft(act: Callable[[Draft], object]) -> Scene:
    """Something done to a draft, which lets go of it."""

    def prepare(place: Path) -> Callable[[], object]:
        draft = _begun(Workspace(place / "workspace"))

        def acting() -> None:
            try:
                act(draft)
            finally:
                draft.release()

        return acting

    return prepare


def _fetching(act: Callable[[CheckpointContents, Checkpoint], object], *, local: bool) -> Scene:
    """Read a checkpoint of one file, in place or by way of a workspace."""

    def prepare(place: Path) -> Callable[[], object]:
        backend = LocalBackend(place / "store") if local else MemoryBackend()
        (place / "source").write_bytes(CONTENT)
        backend.upload(place / "source", f"files/{ID}/sub/model")
        digest = hashing.hash_file(place / "source")
        checkpoint = Checkpoint(ID, MOMENT, (File("sub/model", len(CONTENT), digest),))

        def acting() -> None:
            contents = CheckpointContents(checkpoint, backend, Workspace(place / "workspace"))
            contents.lend(lambda lent: act(lent, checkpoint))

        return acting

    return prepare


def _look_for_drafts(workspace: Workspace) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # one that cannot be read is left
        for draft in workspace.abandoned():
            draft.release()


SCENES: dict[str, Scene] = {
    "create": _verb(lambda backend, source: backend.create("files/a/b/c", CONTENT)),
    "read": _verb(lambda backend, source: backend.read("files/here/model")),
    "upload": _verb(lambda backend, source: backend.upload(source, "files/a/b/c")),
    "upload again": _verb(lambda backend, source: backend.upload(source, "files/here/model")),
    "download": _verb(
        lambda backend, source: backend.download("files/here/model", source.with_name("target"))
    ),
    "open_file": _verb(lambda backend, source: backend.open_file("files/here/model").close()),
    "scan": _verb(lambda backend, source: list(backend.scan(""))),
    "delete": _verb(lambda backend, source: backend.delete("files/here/model", "files/no/x")),
    "sync_name": _verb(lambda backend, source: backend.sync_name("files/here/model")),
    "free_bytes": _verb(lambda backend, source: backend.free_bytes()),
    "open": _verb(lambda backend, source: LocalBackend(backend.root)),
    "scratch": _staging(lambda workspace: workspace.scratch().discard()),
    "abandoned": _staging(_look_for_drafts),
    "sealed": _staging(lambda workspace: workspace.sealed()),
    "newest_session": _staging(lambda workspace: workspace.newest_session(but="")),
    "seal": _of_a_draft(_sealed),
    "assign": _of_a_draft(lambda draft: draft.assign(b"noted")),
    "assigned": _of_a_draft(lambda draft: draft.assigned()),
    "directory, in place": _fetching(lambda lent, _: lent.directory(), local=True),
    "directory, brought": _fetching(lambda lent, _: lent.directory(), local=False),
    "read, in place": _fetching(lambda lent, _: lent.read("sub/model"), local=True),
    "read, brought": _fetching(lambda lent, _: lent.read("sub/model"), local=False),
    "check, in place": _fetching(lambda lent, saved: lent.check(*saved.files), local=True),
    "check, brought": _fetching(lambda lent, saved: lent.check(*saved.files), local=False),
}


@pytest.mark.parametrize("scene", SCENES)
def test_every_call_that_fails_is_told_and_may_be_repeated(scene: str, tmp_path: Path) -> None:
    told = at = 0
    while True:
        at += 1
        place = tmp_path / str(at)
        place.mkdir()
        act = SCENES[scene](place)
        struck, raised = Struck(place, at), None
        held = open_below(place)
        with struck.at_work():
            try:
                act()
            except StorageError as error:
                raised = error
        if len(struck.made) < at:
            break
        which = f"{struck.made[at - 1]}, call {at}: {raised}"
        assert {*open_below(place)} <= {*held}, which
        assert raised is None or raised.errno == errno.EIO, which
        told += raised is not None
        (place / "target").unlink(missing_ok=True)
        with suppress(AlreadyExists):  # it was there when the call failed
            act()

    assert told >= 1
