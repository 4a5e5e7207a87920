"""
Files on a local disk that survive a power cut: the one set of file operations under everything.

After any failed write, close or fsync the file in question is discarded and never synced again:
the kernel may have dropped its pages and answers "done" the second time.
"""

import contextlib
import errno
import fcntl
import io
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from holdfast.errors import AccessDenied, InvalidInputError, StorageError, StorageFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM})
#: Bytes in one read of a copy.
_BLOCK_BYTES = 1024 * 1024


@contextlib.contextmanager
def disk_errors(action: str, place: Path | str) -> Iterator[None]:
    """
    Translate what the operating system reports into our errors, once.

    Parameters:
        action (str): what was tried, as it follows `cannot`, such as `write`.
        place (Path | str): the file or directory.

    Raises:
        StorageFull: no space, a quota is used up, or the file is too large for the place.
        AccessDenied: no right.
        StorageError: anything else, with its errno.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        what = f"cannot {action} {place}: {error.strerror or error}"
        safe = "What is committed is untouched."
        if error.errno in _FULL:
            cure = "Make room there, then repeat the call."
            raise StorageFull(f"{what}. {safe} {cure}", errno=error.errno) from error
        if error.errno in _DENIED:
            cure = "Grant this user the right, then repeat the call."
            raise AccessDenied(f"{what}. {safe} {cure}", errno=error.errno) from error
        if error.errno == errno.EROFS:
            cure = "Mount it for writing, then repeat the call."
        else:
            cure = "The call may be repeated."
        raise StorageError(f"{what}. {safe} {cure}", errno=error.errno) from error


@contextlib.contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[Callable[[bytes], None]]:
    """
    Write a file that must not exist yet; where anything fails, nothing of it is left.

    Parameters:
        path (Path): its name, which is not durable yet afterwards.
        durable (bool): whether its content is.

    Yields:
        Callable[[bytes], None]: puts bytes at the end, all of them.

    Raises:
        OSError: it exists, or could not be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    try:
        try:
            yield write
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)  # a full disk may show only here
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_new(path: Path, data: bytes) -> None:
    """Write a small file as `new_file`, durably."""
    with new_file(path) as write:
        write(data)


def copy_new(source: Path, target: Path) -> None:
    """Copy a file's content into a new one, as `new_file`; it is not durable yet."""
    with source.open("rb", buffering=0) as file, new_file(target, durable=False) as write:
        while block := file.read(_BLOCK_BYTES):
            write(block)


def copy_tree(source: Path, target: Path) -> None:
    """
    Copy the files below a directory to below another one, as `copy_new`.

    Raises:
        InvalidInputError, OSError: as `walk` and `copy_new`; a part may have been copied.
    """
    for path in [path for path, _ in walk(source)]:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        copy_new(source / path, target / path)


def replace(path: Path, data: bytes, *, temporary: str) -> None:
    """Put a file in the place of what is there, whole and durably, by way of a temporary name."""
    beside = path.with_name(temporary)
    beside.unlink(missing_ok=True)
    write_new(beside, data)
    beside.rename(path)
    sync_directory(path.parent)


def open_file(path: Path) -> io.FileIO:
    """
    Open a regular file for reading: no link, and nothing that would keep us waiting, as a pipe.

    Raises:
        OSError: it is missing, something else, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        opened.pop_all()
    return io.FileIO(descriptor)


def read_small(path: Path, at_most: int) -> bytes:
    """
    The content of a small file; of a larger one its first bytes, by one more than it may have.

    Raises:
        OSError: as `open_file`.
    """
    parts: list[bytes] = []
    left = at_most + 1
    with open_file(path) as file:
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE filesystems cannot sync a directory, and say so with these two.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Make the files below a directory durable, and all names in it."""
    for path, _ in walk(directory):
        sync_file(directory / path)
    for folder, _, _ in os.walk(directory):
        sync_directory(Path(folder))


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Make a directory and its missing parents; each new name is durable."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    sync_directory(path.parent)


def walk(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """
    Every regular file below a directory with its status, by path, in order; links are not followed.

    Raises:
        InvalidInputError: something is neither a file nor a directory: a link, a socket, a device.
    """
    waiting = _inside(directory, "")
    while waiting:
        path, entry = waiting.pop()
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            waiting += _inside(entry, f"{path}/")
        elif stat.S_ISREG(status.st_mode):
            yield path, status
        else:
            raise InvalidInputError(
                f"{entry.path} is neither a file nor a directory; nothing was saved. "
                "Links and special files are not kept: replace it by what it stands for."
            )


def _inside(directory: os.PathLike[str], above: str) -> list[tuple[str, os.DirEntry[str]]]:
    """What lies in a directory, the last first."""
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name, reverse=True)
    return [(above + entry.name, entry) for entry in found]


def remove(path: Path, *, but: str | None = None) -> None:
    """
    Remove a directory with all that is in it; what is missing already is fine.

    Parameters:
        path (Path): the directory.
        but (str | None): a name in it that stays, and so does the directory.
    """
    with contextlib.suppress(FileNotFoundError):
        if but is None:
            shutil.rmtree(path)
            return
        for child in path.iterdir():
            if child.is_dir() and not child.is_symlink():
                remove(child)
            elif child.name != but:
                child.unlink(missing_ok=True)


def move_directory(source: Path, target: Path) -> None:
    """
    Move a directory to a name that is free or an empty directory; it appears there whole, durably.

    Raises:
        OSError: it could not be moved; the target is as it was.
    """
    make_directory(target.parent)
    sync_tree(source)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f"~{new_name()}")
        try:
            copy_tree(source, beside)
            sync_tree(beside)
            beside.rename(target)
        except BaseException:
            remove(beside)
            raise
    sync_directory(target.parent)


def make_private(path: Path) -> None:
    """
    Make a directory that only this user can enter, or make sure that it is one.

    Raises:
        InvalidInputError: it belongs to somebody else, or others may write into it.
    """
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
        sync_directory(path.parent)
    check_private(path)


def check_private(path: Path) -> None:
    """
    Make sure that a directory is one that only this user can write to.

    Raises:
        InvalidInputError: as `make_private`.
        FileNotFoundError: it is missing.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidInputError(
            f"the workspace {path} is not a directory; nothing was touched. Give another one."
        )
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInputError(
            f"the workspace {path} belongs to another user, or others may write into it, so what "
            f"is staged there could be changed. Nothing was touched. Run: chmod 700 {path}, or "
            "give another workspace."
        )


def new_name() -> str:
    """A name that nobody else uses."""
    return secrets.token_hex(8)


class Lock:
    """
    A lock on a file that ends with the process that holds it, however that process ends.

    A POSIX record lock: a forked child does not inherit it, so an orphaned data loader cannot keep
    a dead trainer's drafts locked. The kernel does not keep two holders in one process apart; a
    table in this module does.
    """

    _held: dict[tuple[int, Path], int] = {}  # noqa: RUF012 - one table per process, on purpose
    #: Reentrant, since a finalizer may let go of a lock while its thread takes another one.
    _guard = threading.RLock()

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def after_fork(cls) -> None:
        """A thread of the parent may have held the guard; the child has no such thread."""
        cls._guard = threading.RLock()

    @classmethod
    def take(cls, path: Path, *, make: bool = True) -> Self | None:
        """
        Take the lock; None if anybody holds it.

        Parameters:
            path (Path): the file.
            make (bool): make it if it is missing.

        Raises:
            OSError: the file is missing, or cannot be made or locked.
        """
        path = Path(os.path.realpath(path.parent), path.name)  # one file, however it is spelled
        key = (os.getpid(), path)
        with cls._guard:
            if key in cls._held:
                return None
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if make else 0)
            descriptor = os.open(path, flags, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return None
                raise
            cls._held[key] = descriptor
        return cls(path)

    def release(self) -> None:
        """Let go; repeating it is fine."""
        with self._guard:
            descriptor = self._held.pop((os.getpid(), self.path), None)
            if descriptor is not None:
                with contextlib.suppress(OSError):  # closed all the same, and nothing was written
                    os.close(descriptor)


os.register_at_fork(after_in_child=Lock.after_fork)
