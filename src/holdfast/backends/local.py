"""A directory on a disk of this machine, or on one that is mounted here."""

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from holdfast import disk, layout
from holdfast.backends import mounts, naming, tree
from holdfast.backends.base import MOST_READ, Entry, Moved, unwatched
from holdfast.errors import AlreadyExists, InvalidInputError, NotFoundError, StorageError

#: Bytes in one read of a copy.
_BLOCK_BYTES = 1024 * 1024
#: How the system says that it opened no file: a link, a socket; and `disk.open_file`, a pipe.
_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EINVAL})
#: How often a directory is made anew that somebody else's delete takes away as empty.
_TRIES = 10


class LocalBackend:
    """
    Objects as files below a directory, which is made by the first write.

    A file gets its name by `link`, once its content is durable, so a name is never seen with part
    of its content, and of many callers one gets it. Where a mount has no `link` (FUSE) `renameat2`
    does it, and where there is none either, whoever creates the name exclusively renames the
    content over it: there the file may be seen empty for a moment. On a mounted Google Drive, where
    no call keeps another machine out, those of this machine take turns, and the moment is spared.

    Links below the directory are not followed. `.workspace` in it is no part of the store.

    Parameters:
        root (Path | str): the directory; `~` is this user's home.
        refuse_absent (Callable[[Path], None]): raises if the disk that the path should lie on is
            not mounted.

    Raises:
        InvalidInputError: the path is empty, or a file.
        StorageError: the disk is not mounted, or cannot be looked at; nothing was written.

    Attributes:
        root (Path): absolute, with no links in it.
        url (str): `file://` and the root, as it stands.
    """

    def __init__(
        self, root: Path | str, *, refuse_absent: Callable[[Path], None] = mounts.refuse_absent
    ) -> None:
        self.root = _resolve(root)
        self.url = f"file://{self.root}"
        self.traits = mounts.traits(self.root)
        self._on_drive = mounts.is_on_drive(self.root)
        self._refuse_absent = refuse_absent
        self._disk: tuple[int, Path] | None = None  # its device and mount point, once seen
        with disk.disk_errors("look at", self.root):
            for place in (self.root, *self.root.parents):
                if place.exists() and not place.is_dir():
                    raise InvalidInputError(
                        f"{place} is a file; checkpoints are kept in a directory. Nothing was "
                        "touched. Give another path."
                    )
        self._look()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    def free_bytes(self) -> int | None:
        """How many bytes this user may still write to the disk."""
        with disk.disk_errors("look at", self.root):
            there = next(place for place in (self.root, *self.root.parents) if place.exists())
            return shutil.disk_usage(there).free

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""
        target = self._place(key)
        with disk.disk_errors("create", target):
            write = partial(disk.write_new, data=data)
            if not self._put(target, lambda: naming.name_new(target, write, self._ways())):
                raise AlreadyExists(f"{target} exists already; what lies there is unchanged.")

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        place = self._place(key)
        with disk.disk_errors("read", place), _open(place) as file:
            return file.read(MOST_READ)

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key: a link to it on the same disk, else a copy."""
        target = self._place(key)
        with disk.disk_errors("read", source):
            if _has_one_name(source):
                with contextlib.suppress(OSError):  # somebody else's file
                    os.utime(source)  # an object is as old as its upload, for a sweep by age
            disk.sync_file(source)
        with disk.disk_errors("upload to", target):
            if self._put(target, lambda: _link_or_copy(source, target, moved, self._ways())):
                return
            if not _same_content(source, target):
                raise AlreadyExists(f"{target} has other content, which is unchanged.")

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet."""
        place = self._place(key)
        read, write = disk.disk_errors("read", place), disk.disk_errors("download to", target)
        with read, _open(place) as file, write:
            _copy(file, target, moved, durable=False)

    def open_file(self, key: str) -> io.FileIO:
        """Open an object for reading, where it lies."""
        place = self._place(key)
        with disk.disk_errors("read", place):
            return _open_raw(place)

    def sync_name(self, key: str) -> None:
        """Make a name durable that is there already, whoever has put it there."""
        place = self._place(key)
        with disk.disk_errors("sync", place):
            # A directory whose sync has failed counts as synced until it is changed again.
            temporary = place.with_name(layout.PARTIAL + disk.new_name())
            with disk.new_file(temporary, durable=False):
                pass
            temporary.unlink()
            self._sync(place.parent, self.root)

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, in order."""
        self._place(prefix[: prefix.rfind("/") + 1] + "~")
        for key, found in tree.walk(self._names, prefix, after):
            with disk.disk_errors("look at", found.path):
                try:
                    status = found.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted since it was listed
            if stat.S_ISREG(status.st_mode):
                yield Entry(key, status.st_size, _modified(status))
        self._look()  # a disk that went away in between looks as if all else had been deleted

    def delete(self, *keys: str) -> None:
        """Remove objects, and the directories that they leave empty; a missing key is fine."""
        left: set[Path] = set()
        try:
            for key in keys:
                left.add(self._take_away(key))
        finally:  # what is gone before one that fails is gone for good too
            with disk.disk_errors("delete from", self.root):
                self._sync(*left)

    def _place(self, key: str) -> Path:
        """Where a key lies; refuses what could lead outside the root."""
        parts = key.split("/")
        if {"", ".", ".."} & {*parts} or "\0" in key:
            raise InvalidInputError(f"{key!r} is not a key; nothing was touched.")
        self._look()
        with disk.disk_errors("look at", self.root / key):
            place = self.root
            for part in parts[:-1]:
                place /= part
                if place.is_symlink():
                    raise StorageError(
                        f"{place} is a link, and links in a store are not followed, since they "
                        "may lead anywhere. Nothing was touched. Put the directory itself there.",
                        lasting=True,
                    )
        return self.root / key

    def _take_away(self, key: str) -> Path:
        """Remove a name, and the directories that it leaves empty; where a name went last."""
        place = self._place(key)
        top = self.root / key.partition("/")[0]
        with disk.disk_errors("delete", place):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                place.unlink()
            directory = place.parent
            while directory.is_relative_to(top) and directory != top:
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    break  # something else lies there, or we may not
                directory = directory.parent
            return directory

    def _look(self) -> None:
        """Make sure that the root is on the disk where it was first seen, if it was seen yet."""
        seen = self._disk  # before looking, since another thread may make the root just now
        with disk.disk_errors("look at", self.root):
            try:
                device = self.root.stat().st_dev
            except FileNotFoundError:
                if seen is not None:
                    raise StorageError(
                        f"{self.root} is gone: its disk is no longer mounted, or the directory was "
                        "removed. Nothing was touched. Mount it and repeat the call, or open the "
                        "store anew.",
                        lasting=True,
                    ) from None
                self._refuse_absent(self.root)
                return
            if seen is None:
                self._refuse_absent(self.root)
            elif device == seen[0]:
                return
            # A disk that was mounted again may have another number than before.
            elif seen[1] == seen[1].parent or not mounts.is_mount(seen[1]):
                raise StorageError(
                    f"{self.root} now lies on another disk than when it was opened: the one "
                    f"mounted at {seen[1]} is gone, or another was mounted over it. What "
                    "was saved there is safe. Mount it as it was, then repeat the call.",
                    lasting=True,
                )
            self._disk = (device, mounts.mount_point(self.root))

    def _names(self, directory: str) -> list[tuple[str, os.DirEntry[str]]]:
        place = self.root / directory
        with disk.disk_errors("list", place):
            try:
                with os.scandir(place) as found:
                    return [
                        (entry.name + "/" * entry.is_dir(follow_symlinks=False), entry)
                        for entry in found
                        if directory or entry.name != layout.WORKSPACE
                    ]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def _put(self, target: Path, put: Callable[[], bool]) -> bool:
        """
        Make the directory, put something there, and make the name durable; False if it is taken.

        A name that is taken is made durable too: whoever put it there may have died before that,
        and the caller may find that it is his own.
        """
        disk.make_directory(self.root)
        # Made while there is room, so that a prune asks a full disk for none.
        disk.make_directory(self.root / layout.DOOMED)
        left = _TRIES
        while True:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                done = put()
                break
            except (FileNotFoundError, FileExistsError):  # there, and gone a moment later
                left -= 1
                if not left:
                    raise
        self._sync(target.parent, self.root)
        self._look()  # had the disk gone in between, this would lie where it was mounted
        return done

    def _ways(self) -> Sequence[naming.Way]:
        return naming.ways(on_drive=self._on_drive)

    def _sync(self, *directories: Path) -> None:
        """
        Make the names in directories durable, and their own, up to one right below the root.

        Their own too, since another process may have made or removed one and not have come to sync
        that. What lies right below the root is made and never removed: if its name is lost, so is
        what was deleted there, and only who puts something has to sync the root.
        """
        places = {*directories}
        for directory in directories:
            places |= {above for above in directory.parents if self.root in above.parents}
        for place in sorted(places, reverse=True):
            # Deleted since, or never there.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                disk.sync_directory(place)


def _resolve(root: Path | str) -> Path:
    if not str(root).strip():
        raise InvalidInputError("the path is empty. Nothing was touched. Give a directory.")
    try:
        return Path(os.path.realpath(Path(root).expanduser()))
    except (ValueError, RuntimeError) as error:  # a zero byte; a user without a home
        raise InvalidInputError(f"{root!r} is not a path: {error}. Nothing was touched.") from error


def _has_one_name(source: Path) -> bool:
    """Whether nobody can write to the file under another name."""
    return source.lstat().st_nlink == 1


def _link_or_copy(source: Path, target: Path, moved: Moved, ways: Sequence[naming.Way]) -> bool:
    if _has_one_name(source):
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        except OSError as error:
            if os.path.lexists(target) and os.path.samestat(source.lstat(), target.lstat()):
                return True  # made, and the reply was lost
            if error.errno not in naming.UNSUPPORTED:
                raise
        else:
            return True
    if os.path.lexists(target):
        return False  # spares the copy

    def write(temporary: Path) -> None:
        with _open(source) as file:
            _copy(file, temporary, moved, durable=True)

    return naming.name_new(target, write, ways)


def _open(place: Path) -> io.BufferedReader:
    return io.BufferedReader(_open_raw(place))


def _open_raw(place: Path) -> io.FileIO:
    try:
        return disk.open_file(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no {place}") from error
    except OSError as error:
        if error.errno in _NO_FILE:
            raise StorageError(
                f"{place} is not a file. Nothing was touched. Remove it.", lasting=True
            ) from error
        raise


def _copy(file: io.BufferedReader, target: Path, moved: Moved, *, durable: bool) -> None:
    """Copy into a new file; of a copy that failed nothing is left."""
    with disk.new_file(target, durable=durable) as write:
        while block := file.read(_BLOCK_BYTES):
            write(block)
            moved(len(block))


def _same_content(one: Path, other: Path) -> bool:
    if other.is_symlink() or not other.is_file():
        return False
    with _open(one) as left, _open(other) as right:
        statuses = os.fstat(left.fileno()), os.fstat(right.fileno())
        if os.path.samestat(*statuses):
            return True
        if statuses[0].st_size != statuses[1].st_size:
            return False
        while block := left.read(_BLOCK_BYTES):
            if block != right.read(_BLOCK_BYTES):
                return False
        return True


def _modified(status: os.stat_result) -> datetime | None:
    try:
        return datetime.fromtimestamp(status.st_mtime, UTC)
    except (OverflowError, ValueError, OSError):  # a time that no calendar has
        return None
