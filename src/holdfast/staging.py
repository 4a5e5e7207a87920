"""
The workspace: where snapshots become sealed, hashed files, and are found again after a crash.

    <workspace>/<name>/
    ├── lock            held by the process that works here
    ├── files/…         what the framework wrote, or what is being downloaded
    ├── seal.json       the draft is whole: step, metrics, files with their hashes
    └── manifest.json   the manifest that it is being committed with

A directory whose lock is free belonged to a process that has died, or that has given the draft up
for now. Without a seal it is deleted at the next start; with one, `recover` publishes it.
"""

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from holdfast import disk, hashing, layout, manifest, record
from holdfast.backends import mounts
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import CheckpointWarning, FormatError, InvalidInputError
from holdfast.version import __version__
from holdfast.writer import Turn

_SEAL = "seal.json"
_MANIFEST = "manifest.json"
#: What the two are written under at first.
_NEW_SEAL, _NEW_MANIFEST = "~seal", "~manifest"
_FILES = "files"
_LOCK = "lock"
#: What may lie beside the lock.
_MADE = frozenset({_SEAL, _MANIFEST, _FILES, _NEW_SEAL, _NEW_MANIFEST})
#: What `disk.new_name` makes. Anything else in a workspace is somebody else's.
_NAME = re.compile(r"[0-9a-f]{16}")


def default_workspace(url: str) -> Path:
    """
    Where the drafts for a place are staged unless the caller says otherwise.

    For a local store it lies inside the store, so that staged files are linked into place and not
    copied. For any other place, and for one on a mounted Google Drive, it is a directory of this
    user's cache (XDG Base Directory Specification), which outlives the process, named after the
    place.
    """
    inside = _inside(url)
    return _in_cache(url) if inside is None else inside


def workspace_for(url: str, given: Path | None) -> "Workspace":
    """The workspace for a place: the one that is given, which it may share, or its own."""
    if given is None or (url.startswith("file://") and given == default_workspace(url)):
        return Workspace(default_workspace(url))
    return Workspace(given, url)


def downloads_for(url: str, workspace: "Workspace") -> "Workspace":
    """
    Where downloads go: into the workspace, or into the cache where one may only read the store.

    Drafts never go there: the next start, which may write, would not look for them.
    """
    root = workspace.path.parent
    if workspace.path == _inside(url) and root.is_dir() and not os.access(root, os.W_OK):
        return Workspace(_in_cache(url))
    return workspace


def _inside(url: str) -> Path | None:
    """The workspace in a local store; None where it cannot lie in the store."""
    root = Path(url.removeprefix("file://"))
    if not url.startswith("file://") or mounts.is_on_drive(root):
        return None
    return root / layout.WORKSPACE


def _in_cache(url: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "holdfast" / hashlib.sha256(url.encode()).hexdigest()[:16]


class Scratch:
    """
    A private directory in the workspace that goes when its process goes.

    Attributes:
        directory (Path): empty at first; write here.
        root (Path): what it lies in, with the lock.
    """

    def __init__(self, root: Path, lock: disk.Lock) -> None:
        self.root = root
        self.directory = root / _FILES
        self.lock = lock
        self._pid = os.getpid()

    def discard(self) -> bool:
        """
        Remove the directory with all that is in it; repeating it is fine.

        Returns:
            bool: False where the disk did not let go of all of it; the next start removes the rest.
        """
        if os.getpid() != self._pid:
            return True  # a forked child that ends: the directory is still its parent's
        try:
            self._remove()
        except OSError:
            return False
        else:
            return True
        finally:
            self.lock.release()

    def _remove(self) -> None:
        # The lock goes last: what has none, and is not empty, is no directory of ours. It is let go
        # before, since NFS keeps a directory for as long as a file in it is open.
        disk.remove(self.root, but=_LOCK)
        self.lock.release()
        disk.remove(self.root)

    def release(self) -> None:
        """Give the directory up without removing it."""
        self.lock.release()


class Draft(Scratch):
    """
    A checkpoint that is not committed yet: write its files into `directory`.

    Attributes:
        directory (Path): empty at first; the framework writes here.
        step (int): the training step.
        metrics (dict[str, float]): may be added to until the draft is sealed.
        metadata (dict): likewise.
        turn (Turn | None): its place in this process's series; None for one that was recovered.
        hashes (dict[str, str]): by path, the hashes of those files that are durable already and
            were hashed as they were written; the others are hashed when the draft is sealed.
        sealed (Checkpoint | None): what it will be, once it is whole. Where no number was taken
            yet, the session in its id is the one that it would get now, as far as that is known.
        checkpoint (Checkpoint | None): what it has become, once it is committed.
    """

    def __init__(
        self,
        scratch: Scratch,
        *,
        step: int,
        metrics: Mapping[str, float],
        metadata: Mapping[str, Any],
        turn: Turn | None = None,
    ) -> None:
        super().__init__(scratch.root, scratch.lock)
        self.step = step
        self.metrics = dict(metrics)
        self.metadata = dict(metadata)
        self.turn = turn
        self.hashes: dict[str, str] = {}
        self.sealed: Checkpoint | None = None
        self.checkpoint: Checkpoint | None = None

    def seal(
        self,
        checkpoint: CheckpointId,
        *,
        writer: str,
        parent: CheckpointId | None,
        created_at: datetime,
    ) -> Checkpoint:
        """
        Make the draft whole: hash and sync its files, then write the seal, durably.

        Raises:
            InvalidInputError: there is no file, a name is not portable, a link lies among them, or
                the metrics or the metadata cannot be recorded.
            StorageError: the workspace failed.
        """
        with disk.disk_errors(f"stage step {self.step:,} in", self.root):
            files = tuple(self._files())
            if not files:
                raise InvalidInputError(
                    f"step {self.step:,} has no files; nothing was saved. "
                    f"Write at least one into {self.directory}."
                )
            sealed = Checkpoint(
                id=checkpoint,
                created_at=created_at,
                files=files,
                metrics=manifest.check_metrics(self.metrics),
                metadata=manifest.check_metadata(self.metadata),
                writer=writer,
                parent=parent,
                version=__version__,
            )
            seal = manifest.write(sealed, kind="draft")
            disk.replace(self.root / _SEAL, seal, temporary=_NEW_SEAL)
            disk.sync_directory(self.root.parent)
        self.sealed = sealed
        return sealed

    def assign(self, data: bytes) -> None:
        """Note durably which manifest the draft is about to be committed with."""
        with disk.disk_errors("write into", self.root):
            disk.replace(self.root / _MANIFEST, data, temporary=_NEW_MANIFEST)

    def assigned(self) -> bytes | None:
        """The manifest that the draft was about to be committed with, if it came so far."""
        with disk.disk_errors("read", self.root):
            try:
                return disk.read_small(self.root / _MANIFEST, record.MAX_BYTES)
            except FileNotFoundError:
                return None

    def _remove(self) -> None:
        # The seal goes first: what is left of a draft without one can never be published.
        with contextlib.suppress(FileNotFoundError):
            (self.root / _SEAL).unlink()
            disk.sync_directory(self.root)
        super()._remove()

    def _files(self) -> Iterator[File]:
        found = sorted(disk.walk(self.directory))
        layout.check_paths(path for path, _ in found)
        folders = {self.directory}
        for path, status in found:
            file = self.directory / path
            found_hash = self.hashes.get(path)
            if found_hash is None:
                disk.sync_file(file)
                found_hash = hashing.hash_file(file)
            yield File(path, status.st_size, found_hash)
            folders.update(parent for parent in file.parents if parent.is_relative_to(self.root))
        for folder in sorted(folders):
            disk.sync_directory(folder)


class Workspace:
    """
    The local directory for drafts and for downloads in progress, private to this user.

    Parameters:
        path (Path): the directory; it is made when it is first needed.
        url (str): the place that the drafts are for, where other places may share the directory:
            their drafts are told apart by name, and each place sees its own.
    """

    def __init__(self, path: Path, url: str = "") -> None:
        self.path = path
        self._ours = hashlib.sha256(url.encode()).hexdigest()[:8] + "-" if url else ""

    def scratch(self) -> Scratch:
        """
        Make a private directory; it is deleted at the next start if this process dies.

        Raises:
            InvalidInputError: the workspace is no directory, somebody else's, or open to others.
            StorageError: it cannot be made.
        """
        with disk.disk_errors("make the workspace", self.path):
            disk.make_private(self.path)
            while True:
                root = self.path / f"{self._ours}{disk.new_name()}"
                root.mkdir(0o700)
                # A process that cleans up at this very moment takes the lock first, or not at all.
                with contextlib.suppress(FileNotFoundError):
                    if lock := _lock(root):
                        scratch = Scratch(root, lock)
                        try:
                            scratch.directory.mkdir()
                        except OSError:
                            scratch.discard()
                            raise
                        return scratch

    def draft(
        self,
        *,
        step: int,
        metrics: Mapping[str, float] | None,
        metadata: Mapping[str, Any] | None,
        turn: Turn,
    ) -> Draft:
        """
        Begin a draft.

        Raises:
            InvalidInputError, StorageError: as `scratch`.
        """
        scratch = self.scratch()
        return Draft(scratch, step=step, metrics=metrics or {}, metadata=metadata or {}, turn=turn)

    def abandoned(self) -> list[Draft]:
        """
        The sealed drafts that nobody works on, in the order of training and locked for the caller.

        Unfinished work of dead processes is deleted on the way. A draft with a damaged seal is
        left where it is, and so is whatever was not made here.

        Raises:
            StorageError: the workspace cannot be read.
        """
        drafts: list[tuple[CheckpointId, Draft]] = []
        with disk.disk_errors("look into the workspace", self.path):
            for root in self._roots():
                with contextlib.suppress(OSError):
                    root.rmdir()  # its process died before it took the lock
                # No directory of ours, or somebody else cleaned it up.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    # Who works in a directory makes its lock first and removes it last, so what
                    # lies there without one is what a power cut has left.
                    names = {path.name for path in root.iterdir()}
                    if lock := disk.Lock.take(root / _LOCK, make=set() < names <= _MADE):
                        drafts.extend(_reopened(Scratch(root, lock)))
        return [draft for _, draft in sorted(drafts, key=itemgetter(0))]

    def sealed(self) -> int:
        """How many sealed drafts lie here, whoever works on them; nothing is touched."""
        with disk.disk_errors("look into the workspace", self.path):
            return sum((root / _SEAL).exists() for root in self._roots())

    def _roots(self) -> list[Path]:
        """The directories here that are ours by their names; a workspace of others has none."""
        try:
            disk.check_private(self.path)
        except FileNotFoundError:
            return []
        except InvalidInputError as error:
            warnings.warn(f"no draft is looked for: {error}", CheckpointWarning, stacklevel=2)
            return []
        with os.scandir(self.path) as found:
            return [
                Path(entry.path)
                for entry in found
                if self._is_ours(entry.name) and entry.is_dir(follow_symlinks=False)
            ]

    def newest_session(self, *, but: str) -> int:
        """The highest session of the drafts that others than this writer have sealed; 0: none."""
        with disk.disk_errors("look into the workspace", self.path):
            roots = self._roots()
        sealed = [found for root in roots if (found := _sealed_in(root)) and found.writer != but]
        return max(map(first_session, sealed), default=0)

    def _is_ours(self, name: str) -> bool:
        return name.startswith(self._ours) and bool(_NAME.fullmatch(name.removeprefix(self._ours)))


def first_session(sealed: Checkpoint) -> int:
    """The session of a sealed draft, or the first it can be in where it has no number yet."""
    return sealed.session or (sealed.parent.session if sealed.parent else 0) + 1


def _lock(root: Path) -> disk.Lock | None:
    """Take the lock in a new directory, or leave nothing of it."""
    try:
        return disk.Lock.take(root / _LOCK)
    except OSError:
        with contextlib.suppress(OSError):
            root.rmdir()
        raise


def _sealed_in(root: Path) -> Checkpoint | None:
    with contextlib.suppress(FormatError, OSError):  # not sealed, or damaged, or gone by now
        return _read_seal(root)
    return None


def _read_seal(root: Path) -> Checkpoint:
    return manifest.read_staged(disk.read_small(root / _SEAL, record.MAX_BYTES), "draft")


def _reopened(scratch: Scratch) -> Iterator[tuple[CheckpointId, Draft]]:
    try:
        sealed = _read_seal(scratch.root)
        draft = Draft(scratch, step=sealed.step, metrics=sealed.metrics, metadata=sealed.metadata)
        draft.sealed = sealed = _attempted(draft, sealed)
    except FileNotFoundError:
        scratch.discard()
        return
    except (FormatError, OSError) as error:
        scratch.release()
        warnings.warn(
            f"the draft in {scratch.root} cannot be published: {error}. It is left where it is, "
            "and what is committed is untouched. store.recover() tries it again; remove the "
            "directory when its files are of no more use.",
            CheckpointWarning,
            stacklevel=2,
        )
        return
    yield replace(sealed.id, session=first_session(sealed)), draft


def _attempted(draft: Draft, sealed: Checkpoint) -> Checkpoint:
    """What is sealed, under the id of the last attempt to commit it, if there was one."""
    data = draft.assigned()
    if data is None:
        return sealed
    attempt = manifest.read_staged(data, "checkpoint")
    if manifest.write(attempt) != manifest.write(replace(sealed, id=attempt.id)):
        raise FormatError("its seal and its manifest are of two checkpoints")
    return attempt
