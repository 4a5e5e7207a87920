"""What can be kept: State, Snapshot and Contents, and files on a disk as the simplest state."""

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from holdfast import disk, hashing, layout
from holdfast.errors import FormatError, InvalidInputError


class Snapshot(Protocol):
    """A copy of a state that later training steps do not show in."""

    def write_to(self, directory: Path) -> Mapping[str, str] | None:
        """
        Write the copy as files into an empty directory. Runs on a worker thread, once.

        Parameters:
            directory (Path): exists, is empty, and lies in the workspace.

        Returns:
            Mapping[str, str] | None: by path, the hashes of files that are durable and were hashed
                as they were written, as `holdfast.hashing.HashedFile` does. The store syncs and
                hashes the others.
        """


@runtime_checkable
class BorrowingSnapshot(Snapshot, Protocol):
    """A snapshot over memory that its owners copy before they change it."""

    def detach(self) -> None:
        """
        Copy what is borrowed, so that the owners need not.

        Called once, right after the snapshot was taken, and only where they go on while it is
        written: else nothing has to be copied.
        """


@runtime_checkable
class State(Protocol):
    """Live objects that can be captured and read back."""

    def snapshot(self) -> Snapshot:
        """Copy the state. Training waits for this and for nothing else."""

    def restore(self, directory: Path) -> None:
        """
        Load the files of a snapshot into the live objects.

        A state compares all names and shapes before it assigns the first value, and raises where
        one is missing; it runs no stored code.

        Parameters:
            directory (Path): verified files; they may be gone after the call.
        """


class Contents(Protocol):
    """
    The files of a checkpoint, every byte of which is hashed before it is believed.

    It is open for the length of one `restore_from`, and read by one thread at a time.

    Every method may raise `CorruptionError`, where the stored bytes differ from the manifest, and
    `NotFoundError`, where the checkpoint was removed meanwhile: hand both on as they are, so that
    the store goes on to another one. `StorageError` means that the place or the disk failed.
    """

    def paths(self) -> Sequence[str]:
        """The paths of all files, with `/` between their parts, sorted."""

    def directory(self) -> Path:
        """
        All files, verified, in a private directory, which is made by the first call.

        Returns:
            Path: the directory; it is gone after the restore.
        """

    def read(self, path: str, *, at_most: int | None = None) -> bytes:
        """
        A small file, verified.

        Parameters:
            path (str): which file.
            at_most (int | None): how many bytes it may have.

        Raises:
            FileNotFoundError: the checkpoint has no such file.
            FormatError: it is larger; nothing of it was read.
        """

    def read_into(self, path: str, into: Sequence[tuple[int, memoryview]]) -> None:
        """
        Bring stretches of a file into memory; the whole file is read once, and hashed.

        Parameters:
            path (str): which file.
            into (Sequence[tuple[int, memoryview]]): where in the file each stretch begins, and the
                contiguous memory that it goes to; in any order, none over another. After an error
                the memory holds anything.

        Raises:
            FileNotFoundError: the checkpoint has no such file.
            EOFError: a stretch does not lie within the file.
            ValueError: one stretch lies over another.
        """


@runtime_checkable
class ReadsContents(State, Protocol):
    """A state that takes what it needs straight from the store, with no files on a disk between."""

    def restore_from(self, contents: Contents) -> None:
        """
        Load a checkpoint into the live objects, as `restore` does from a directory.

        It assigns nothing before all that it needs was read: where a file turns out to be damaged
        it is called again with an older checkpoint.

        Parameters:
            contents (Contents): the checkpoint's files.
        """


class DirectoryContents:
    """
    The files below a directory as contents; they are taken as they are, and not hashed.

    A state that reads contents restores from a directory by way of it.

    Parameters:
        directory (Path): stays whose it is.

    Raises:
        InvalidInputError: something in it is a link or special.
        StorageError: it cannot be looked into.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with disk.disk_errors("look into", directory):
            self._sizes = {path: status.st_size for path, status in disk.walk(directory)}

    def paths(self) -> Sequence[str]:
        """The paths of all files."""
        return list(self._sizes)

    def directory(self) -> Path:
        """The directory."""
        return self._directory

    def read(self, path: str, *, at_most: int | None = None) -> bytes:
        """All bytes of a file."""
        check_held(path, self._sizes)
        check_size(path, self._sizes[path], at_most)
        with disk.disk_errors("read", self._directory / path):
            return (self._directory / path).read_bytes()

    def read_into(self, path: str, into: Sequence[tuple[int, memoryview]]) -> None:
        """Bring stretches of a file into memory; nothing else of it is read."""
        check_held(path, self._sizes)
        place = self._directory / path
        with disk.disk_errors("read", place), place.open("rb", buffering=0) as file:
            for start, memory in hashing.in_order(into, self._sizes[path]):
                file.seek(start)
                hashing.fill(file, [memory])


def check_held(path: str, paths: Container[str]) -> None:
    """
    Refuse a path that is not among those of a checkpoint.

    Raises:
        FileNotFoundError: it is not.
    """
    if path not in paths:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def check_size(path: str, size: int, at_most: int | None) -> None:
    """
    Refuse a file that is larger than it may be.

    Raises:
        FormatError: it is.
    """
    if at_most is not None and size > at_most:
        raise FormatError(
            f"{path} has {size:,} bytes, and may have {at_most:,}. Nothing was loaded. Restore "
            "another checkpoint."
        )


class Files:
    """
    A file, or the files below a directory, as a state.

    A file is kept under its own name, a directory's files under their paths below it. Links and
    special files are refused; empty directories are not kept.

    Parameters:
        path (Path | str): the file or the directory.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def snapshot(self) -> "FilesSnapshot":
        """
        Copy the files into the system's temporary directory.

        Raises:
            InvalidInputError: the path is missing, or something in it is a link or special.
            StorageError: they could not be read, or that directory has no room.
        """
        with disk.disk_errors("copy for a snapshot", self.path):
            snapshot = FilesSnapshot(Path(tempfile.mkdtemp(prefix="holdfast-")))
            copy_files(self.path, snapshot.copy)
            return snapshot

    def restore(self, directory: Path) -> None:
        """
        Put the kept files in the place of those at the path.

        Where nothing is at the path yet, a single kept file of the same name becomes a file, and
        anything else a directory.

        Raises:
            InvalidInputError: nothing was kept, or the path is a file and none of that name was.
            StorageError: the disk failed. What was at the path is still there.
        """
        with disk.disk_errors("restore into", self.path):
            self._restore(directory)

    def _restore(self, directory: Path) -> None:
        kept = [path for path, _ in disk.walk(directory)]
        if not kept:
            raise InvalidInputError(f"no file lies below {directory}; {self.path} is as it was.")
        is_file = not self.path.is_dir() and kept == [self.path.name]
        if self.path.is_file() and not is_file:
            raise InvalidInputError(
                f"no file {self.path.name!r} was kept to put in the place of {self.path}; kept "
                f"were {', '.join(kept)}. Nothing was changed. Give a directory."
            )
        disk.make_directory(self.path.parent)
        fresh = self.path.with_name(f"~{disk.new_name()}")
        try:
            if is_file:
                disk.copy_new(directory / self.path.name, fresh)
                fresh.replace(self.path)
                return
            disk.copy_tree(directory, fresh)
            if os.path.lexists(self.path):
                _take_the_place(fresh, self.path)
            else:
                fresh.rename(self.path)
        except BaseException:
            _drop(fresh)
            raise


class FilesSnapshot:
    """
    Files in a temporary directory, which goes with the object.

    Attributes:
        copy (Path): the directory.
    """

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        self._remove = weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)

    def write_to(self, directory: Path) -> None:
        """Move the copies into the directory."""
        for child in self.copy.iterdir():
            shutil.move(child, directory / child.name)
        self._remove()


def write_state(state: State | str | os.PathLike[str], directory: Path) -> Mapping[str, str]:
    """
    Write a state, or copy a file or directory, into a draft's empty directory.

    Returns:
        Mapping[str, str]: hashes that are known already, as `Snapshot.write_to`.

    Raises:
        InvalidInputError: it is neither a state nor the path of something that can be kept.
        StorageError: the workspace failed.
    """
    with disk.disk_errors("stage into", directory):
        if isinstance(state, State):
            return state.snapshot().write_to(directory) or {}
        if isinstance(state, str | os.PathLike):
            if directory.resolve().is_relative_to(Path(state).resolve()):
                raise InvalidInputError(
                    f"{os.fspath(state)!r} holds the workspace of this store, and so would be "
                    "saved into itself; nothing was saved. Save a directory of its own."
                )
            hashes: dict[str, str] = {}
            for path, source, target in _copies(Path(state), directory):
                with source.open("rb", buffering=0) as file:
                    hashes[path] = hashing.copy_hashed(file, target, durable=True)
            return hashes
        raise InvalidInputError(
            f"{type(state).__name__} cannot be saved: it is no path and has no snapshot() and "
            "restore(). Nothing was saved. Give the path of a file, or a state such as "
            "holdfast.keras.KerasState(model)."
        )


def copy_files(source: Path, into: Path) -> None:
    """
    Copy a file, or the files below a directory, into an empty directory.

    Raises:
        InvalidInputError: the source is missing or empty, holds a link or something special, or a
            path that `layout.check_paths` refuses.
    """
    for _, file, target in _copies(source, into):
        disk.copy_new(file, target)


def _copies(source: Path, into: Path) -> Iterator[tuple[str, Path, Path]]:
    """Each file with its path and where its copy belongs, in a directory that is there."""
    if source.is_symlink() or not source.exists():
        raise InvalidInputError(
            f"there is no file or directory {source}, or it is a link; nothing was saved. "
            "Give the path of what was written."
        )
    if source.is_file():
        layout.check_paths([source.name])
        yield source.name, source, into / source.name
        return
    paths = [path for path, _ in disk.walk(source)]
    if not paths:
        raise InvalidInputError(f"no file lies below {source}; nothing was saved.")
    layout.check_paths(paths)  # before the first is copied
    for path in paths:
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        yield path, source / path, target


def _take_the_place(fresh: Path, path: Path) -> None:
    """Move a directory to where another one is, which goes; if it cannot be moved, that stays."""
    old = path.rename(path.with_name(f"~{disk.new_name()}"))
    try:
        fresh.rename(path)
    except OSError:
        old.rename(path)
        raise
    _drop(old)


def _drop(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        disk.remove(path)
    else:
        path.unlink(missing_ok=True)
