"""The way back: verify what lies in the store, and hand it on with every byte hashed."""

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from holdfast import disk, hashing, layout, manifest
from holdfast.backends.base import Backend, OpensFiles
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import CorruptionError, FormatError, NotFoundError, StorageFull
from holdfast.manifest import Tombstone
from holdfast.parallel import in_parallel
from holdfast.staging import Scratch, Workspace
from holdfast.state import check_held, check_size

#: How often a file is fetched, or read where it lies, before the difference is believed to lie in
#: the store.
_TRIES, _TRIES_IN_PLACE = 3, 2

_MISSING = "missing"

T = TypeVar("T")


@dataclass(frozen=True)
class Damage:
    """
    One file that is not as its manifest says.

    Attributes:
        checkpoint (CheckpointId): whose file.
        path (str): where it lies inside the checkpoint; the key of a manifest that is unreadable.
        what (str): missing, of another size, or of other content.
    """

    checkpoint: CheckpointId
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.checkpoint} {self.path}: {self.what}"


@dataclass(frozen=True)
class Report:
    """
    What a verification found.

    Attributes:
        checked (tuple[Checkpoint, ...]): what was looked at, in the order of training.
        damage (tuple[Damage, ...]): what is not as it should be.
        deep (bool): whether every byte was hashed; else presence and sizes only.
    """

    checked: tuple[Checkpoint, ...]
    damage: tuple[Damage, ...]
    deep: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage


class CheckpointContents:
    """
    The files of a checkpoint as they lie in the store: a `holdfast.state.Contents`.

    Where the backend opens files they are read in place. From any other place the first call brings
    all of them into the workspace, several at a time, and they are hashed as they are read there.

    Parameters:
        checkpoint (Checkpoint): whose files.
        backend (Backend): where they lie.
        workspace (Workspace): where to bring them.

    Attributes:
        failure (CorruptionError | NotFoundError | None): what was raised here. An error of these
            kinds that is not this one is the state's own.
    """

    def __init__(self, checkpoint: Checkpoint, backend: Backend, workspace: Workspace) -> None:
        self.failure: CorruptionError | NotFoundError | None = None
        self._checkpoint = checkpoint
        self._files = {file.path: file for file in checkpoint.files}
        self._backend = backend
        self._workspace = workspace
        self._opener = backend if isinstance(backend, OpensFiles) else None
        self._scratch: Scratch | None = None
        self._is_verified = False  # all files lie in the scratch directory, and were hashed there

    def lend(self, take: Callable[[Self], T]) -> T:
        """
        Let a function take what it needs, once the sizes were compared; what was brought goes then.

        Raises:
            NotFoundError: the checkpoint was removed meanwhile.
            CorruptionError: a file is missing, or differs from the manifest.
            StorageFull: the workspace has no room for the files.
            StorageError: the place or the workspace failed.
            BaseException: whatever the function raises.
        """
        try:
            self._check_sizes()
            return take(self)
        finally:
            self._discard()

    def paths(self) -> Sequence[str]:
        """The paths of all files, sorted."""
        return list(self._files)

    def directory(self) -> Path:
        """
        All files, verified, in a private directory.

        Raises:
            NotFoundError, CorruptionError, StorageFull, StorageError: as `lend`.
        """
        with self._noted():
            if not self._is_verified:
                self._make_room()
                self._for_all(self._copy if self._opener else self._hash)
                self._is_verified = True
            return self._place()

    def hand_over(self) -> Scratch:
        """
        All files, verified, in a directory that is the caller's from now on, as `directory`.

        Returns:
            Scratch: holds the files; the caller discards it.
        """
        self.directory()
        scratch, self._scratch = self._scratch, None
        assert scratch is not None  # noqa: S101 - the directory is in it
        return scratch

    def read(self, path: str, *, at_most: int | None = None) -> bytes:
        """A small file, verified."""
        check_held(path, self._files)
        check_size(path, self._files[path].size, at_most)
        memory = bytearray(self._files[path].size)
        self.read_into(path, [(0, memoryview(memory))])
        return bytes(memory)

    def read_into(self, path: str, into: Sequence[tuple[int, memoryview]]) -> None:
        """Bring stretches of a file into memory; the whole file is read once, and hashed."""
        check_held(path, self._files)
        file = self._files[path]
        stretches = hashing.in_order(into, file.size)
        with self._noted():
            if self._opener is None and self._scratch is None:
                self._make_room()
                self._for_all(self._bring)
            self._read(file, lambda opened: hashing.read_hashed(opened, stretches))

    def check(self, file: File) -> None:
        """
        Hash one file, and bring no other for it.

        Raises:
            NotFoundError, CorruptionError, StorageError: as `lend`.
        """
        try:
            self._hash(file)
        finally:
            self._discard()

    def _discard(self) -> None:
        if self._scratch is not None:
            self._scratch.discard()
            self._scratch = None

    def _check_sizes(self) -> None:
        with self._noted():
            sizes = _sizes_below(layout.files_prefix(self._checkpoint.id), self._backend)
            for damage in _verify(self._checkpoint, sizes, self._backend, workspace=None):
                if damage.what == _MISSING and not self._backend.traits.fresh:
                    continue  # the listing may lag behind: it is missed when it cannot be read
                _check_not_removed(self._checkpoint, self._backend)
                raise _corrupt(self._checkpoint, damage.path, damage.what)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except (CorruptionError, NotFoundError) as error:
            self.failure = error
            raise

    def _for_all(self, call: Callable[[File], object]) -> None:
        in_parallel(call, self._checkpoint.files, at_once=self._backend.traits.parallel)

    def _hash(self, file: File) -> None:
        self._read(file, hashing.read_hashed)

    def _read(self, file: File, read: Callable[[io.FileIO], str]) -> None:
        """Have a file read and hashed, again while the hash differs: it may have been the way."""
        what = f"{file.path} of {self._checkpoint}"
        for _ in range(_TRIES_IN_PLACE if self._opener else _TRIES):
            with self._open(file) as opened, disk.disk_errors("read", what):
                try:
                    found = read(opened)
                except EOFError as error:
                    found = str(error)
            if found == file.hash:
                return
            if not self._opener:
                with disk.disk_errors("remove", what):
                    (self._place() / file.path).unlink()
        raise _corrupt(
            self._checkpoint, file.path, f"its content has {found} in the place of {file.hash}"
        )

    def _open(self, file: File) -> io.FileIO:
        if self._opener is None:
            place = self._bring(file)
            with disk.disk_errors("read", place):
                return io.FileIO(place)
        with self._missing_is_damage(file):
            return self._opener.open_file(layout.file_key(self._checkpoint.id, file.path))

    def _bring(self, file: File) -> Path:
        """Where a file lies in the scratch directory, after a download if it does not lie there."""
        target = self._target(file)
        with disk.disk_errors("look at", target):
            is_there = target.exists()
        if not is_there:
            with self._missing_is_damage(file):
                self._backend.download(layout.file_key(self._checkpoint.id, file.path), target)
        return target

    def _copy(self, file: File) -> None:
        target = self._target(file)

        def copy(opened: io.FileIO) -> str:
            with disk.disk_errors("copy to", target):
                target.unlink(missing_ok=True)  # of the try before
                return hashing.copy_hashed(opened, target, durable=False)

        self._read(file, copy)

    def _target(self, file: File) -> Path:
        target = self._place() / file.path
        with disk.disk_errors("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _place(self) -> Path:
        if self._scratch is None:
            self._scratch = self._workspace.scratch()
        return self._scratch.directory

    def _make_room(self) -> None:
        if self._scratch is not None:
            return  # what lies there already must not be asked room for again
        directory = self._place()
        with disk.disk_errors("look for room in", directory):
            free = shutil.disk_usage(directory).free
        if free < self._checkpoint.size:
            raise StorageFull(
                f"{self._checkpoint} has {self._checkpoint.size:,} bytes and the workspace "
                f"{directory} has room for {free:,}: {os.strerror(errno.ENOSPC)}. The store is "
                "untouched. Make room, or open the store with another `workspace`.",
                errno=errno.ENOSPC,
            )

    @contextlib.contextmanager
    def _missing_is_damage(self, file: File) -> Iterator[None]:
        try:
            yield
        except NotFoundError as error:
            _check_not_removed(self._checkpoint, self._backend)
            raise _corrupt(self._checkpoint, file.path, _MISSING) from error


def report(
    records: Mapping[CheckpointId, Checkpoint | Tombstone | FormatError],
    backend: Backend,
    workspace: Workspace | None,
) -> Report:
    """
    Compare what is stored with the manifests; what was removed meanwhile is not in the report.

    Parameters:
        records (Mapping): what lies at the manifests' keys; one that cannot be read is damage.
        backend (Backend): where they lie.
        workspace (Workspace | None): where to bring files to be hashed; None compares sizes only.
    """
    one = next(iter(records)) if len(records) == 1 else None
    sizes = _sizes_below(layout.files_prefix(one) if one else layout.FILES, backend)
    checked: list[Checkpoint] = []
    damage: list[Damage] = []
    for id, found in records.items():
        if isinstance(found, FormatError):
            damage.append(Damage(id, layout.manifest_key(id), str(found)))
        elif isinstance(found, Checkpoint):
            with contextlib.suppress(NotFoundError):
                wrong = list(_verify(found, sizes, backend, workspace))
                if wrong:
                    _check_not_removed(found, backend)
                checked.append(found)
                damage += wrong
    return Report(tuple(checked), tuple(damage), deep=workspace is not None)


def _verify(
    checkpoint: Checkpoint, sizes: dict[str, int], backend: Backend, workspace: Workspace | None
) -> Iterator[Damage]:
    """
    Every way in which a checkpoint's files differ from its manifest.

    Parameters:
        checkpoint (Checkpoint): what to look at.
        sizes (dict[str, int]): the sizes by key that a scan has shown.
        backend (Backend): where it lies.
        workspace (Workspace | None): where to bring files to be hashed; None compares sizes only.
    """
    for file in checkpoint.files:
        size = sizes.get(layout.file_key(checkpoint.id, file.path))
        if size is None:
            yield Damage(checkpoint.id, file.path, _MISSING)
        elif size != file.size:
            what = f"{size:,} bytes in the place of {file.size:,}"
            yield Damage(checkpoint.id, file.path, what)
        elif workspace is not None:
            try:
                CheckpointContents(checkpoint, backend, workspace).check(file)
            except CorruptionError:
                yield Damage(checkpoint.id, file.path, "other content")


def _sizes_below(prefix: str, backend: Backend) -> dict[str, int]:
    return {entry.key: entry.size for entry in backend.scan(prefix)}


def _check_not_removed(checkpoint: Checkpoint, backend: Backend) -> None:
    """
    Tell a checkpoint that is damaged from one that is being removed: that lost its manifest first.

    Raises:
        NotFoundError: it was removed.
    """
    data = backend.read(layout.manifest_key(checkpoint.id))
    with contextlib.suppress(FormatError):  # damaged too, but there
        if isinstance(manifest.read(data, checkpoint.id), Tombstone):
            raise NotFoundError(f"{checkpoint} was removed, and what was left of it was swept.")


def _corrupt(checkpoint: Checkpoint, path: str, what: str) -> CorruptionError:
    return CorruptionError(
        f"{checkpoint} is damaged in the store: {path}: {what}. Nothing was loaded, and every "
        "other checkpoint is untouched. Restore an older one; restore() without a checkpoint "
        "takes the newest good one by itself."
    )
