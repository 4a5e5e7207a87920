"""Any filesystem that fsspec knows, through its public methods."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from fsspec.callbacks import Callback
from fsspec.core import url_to_fs

from holdfast import disk, layout
from holdfast.backends import tree
from holdfast.backends.base import MOST_READ, Entry, Moved, Traits, unwatched
from holdfast.backends.fsspec import directories, failures
from holdfast.backends.fsspec.clients import Clients
from holdfast.backends.fsspec.kinds import DEFAULTS, Kind
from holdfast.backends.translating import Reaction, redact, storage_errors
from holdfast.errors import AlreadyExists, InvalidInputError, NotFoundError, StorageError

#: Bytes in one range of an object that is read in parts.
_RANGE_BYTES = 4 * 1024 * 1024
#: Where filesystems put the time of writing in what they tell of an object.
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")

#: Puts content at a path; takes the `mode` of fsspec.
_Put = Callable[..., object]


class FsspecBackend:
    """
    Objects in an fsspec filesystem.

    Each is put as well as the filesystem can:

    - by the server's own put-if-absent, on Azure;
    - under a name that begins with `~`, then renamed, where a filesystem renames on the server. No
      part of an object is seen under its key;
    - elsewhere straight under its key, after a look. The server decides what others see meanwhile.

    Where neither a put nor a rename refuses a taken key, of many callers one gets it only if they
    are threads of one process. No listing comes from a cache.

    Parameters:
        fs (AbstractFileSystem): its cache of listings is switched off.
        root (str): what the filesystem calls the place.
        url (str): what the place is called, without credentials.
        options (Mapping[str, Any] | None): what the filesystem was opened with; cut from messages.
        again (Callable[[], AbstractFileSystem] | None): makes another filesystem like it, for calls
            at the same time and for forked children. None shares the one among all.
    """

    _creating: ClassVar[dict[tuple[int, str], threading.Lock]] = {}

    def __init__(
        self,
        fs: Any,
        root: str,
        url: str,
        options: Mapping[str, Any] | None = None,
        again: Callable[[], Any] | None = None,
    ) -> None:
        self.url = url
        self._clients = Clients(fs, again)
        self._root = root.rstrip("/")
        self._options: Mapping[str, Any] = options or {}
        self._kind = Kind.of(fs)
        self.traits = Traits(exclusive=self._kind.refuses or self._kind.in_memory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """
        The backend for a URL.

        Raises:
            ImportError: the filesystem's library is missing.
            InvalidInputError: the options do not fit.
            StorageError: the place could not be reached.
        """
        given = {**DEFAULTS.get(url.partition(":")[0], {}), **options}
        try:
            with storage_errors("open", url, options, react=cls._react):
                fs, root = cls._filesystem(url, given)
        except StorageError as error:
            if isinstance(error.__cause__, ImportError):
                raise error.__cause__ from error.__cause__.__cause__
            if isinstance(error.__cause__, TypeError | ValueError):
                raise InvalidInputError(
                    f"the storage_options {', '.join(options)} do not fit {url}; nothing was "
                    f"touched. {redact(str(error.__cause__), options)}"
                ) from error
            raise
        return cls(fs, root, url, options, again=lambda: cls._filesystem(url, given)[0])

    def free_bytes(self) -> int | None:
        """How many bytes still fit there; None where there is no bound, or the place tells none."""
        return None

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""

        def put(fs: Any, path: str, **mode: str) -> None:
            fs.pipe_file(path, data, **mode)

        with self._errors("create", key), self._clients.one() as fs, self._alone():
            self._put(fs, key, put, look=not self._kind.refuses)

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        with self._errors("read", key, may_be_missing=True), self._clients.one() as fs:
            return bytes(fs.cat_file(self._path(key), 0, MOST_READ))

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key; what arrived is compared by size."""
        with disk.disk_errors("read", source):
            size = source.stat().st_size

        def put(fs: Any, path: str, **mode: str) -> None:
            if self._kind.in_memory:
                fs.pipe_file(path, source.read_bytes(), **mode)
                return
            try:
                fs.put_file(str(source), path, callback=_Progress(moved), **mode)
            except Exception:
                if not mode:
                    with contextlib.suppress(Exception):
                        # The path was free when this began, so a part that lies there is ours;
                        # unless this was given up, and then this raises.
                        moved(0)
                        fs.rm_file(path)
                raise

        try:
            with self._errors("upload", key), self._clients.one() as fs:
                self._put(fs, key, put)
        except AlreadyExists:
            if not self._has_content_of(source, size, key, moved):
                raise
            return
        with self._errors("confirm", key), self._clients.one() as fs:
            found = self._find(fs, key)
        if found is None or found.get("size") not in (None, size):
            raise StorageError(
                f"{self.url}/{key} did not arrive whole: it should have {size:,} bytes. What is "
                "committed is untouched. The file is still where it was; save again."
            )

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet."""
        with disk.disk_errors("download to", target):
            disk.write_new(target, b"")
        try:
            if self._kind.in_memory:
                with disk.disk_errors("download to", target), target.open("wb") as file:
                    for part in self._parts(key):
                        file.write(part)
                        moved(len(part))
            else:
                missing = self._errors("download", key, may_be_missing=True)
                with missing, self._clients.one() as fs:
                    fs.get_file(self._path(key), str(target), callback=_Progress(moved))
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, in order."""
        if self._kind.finds:
            found: Iterable[tuple[str, Mapping[str, Any]]] = self._all_below(prefix)
            found = (each for each in found if each[0].startswith(prefix) and each[0] > after)
        else:
            found = tree.walk(self._names, prefix, after)
        for key, info in found:
            yield Entry(key, int(info.get("size") or 0), _modified(info))

    def delete(self, *keys: str) -> None:
        """Remove objects, and the directories that they leave empty; a missing key is fine."""
        for key in keys:
            with self._errors("delete", key), self._clients.one() as fs:
                try:
                    fs.rm_file(self._path(key))
                except Exception:
                    if self._find(fs, key) is not None:
                        raise
                if self._kind.renames:  # others might remove what still lies in a directory
                    path, levels = self._path(key), key.count("/") - 1
                    directories.remove_empty(fs, path, levels=levels)

    @staticmethod
    def _filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
        """A filesystem of its own for a URL, and what it calls the place."""
        return url_to_fs(url, **options, skip_instance_cache=True)  # type: ignore[no-any-return]

    @staticmethod
    def _react(error: Exception) -> Reaction | None:
        """What is known of the filesystem's failures."""
        return failures.react(error)

    def _alone(self) -> contextlib.AbstractContextManager[object]:
        """Keeps the threads of this process apart, where the place does not."""
        if self._kind.refuses:
            return contextlib.nullcontext()
        # Asked for each time: a forked child may have been born while a thread held the parent's.
        return self._creating.setdefault((os.getpid(), self.url), threading.Lock())

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _errors(
        self, action: str, key: str, *, may_be_missing: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        place = f"{self.url}/{key}"
        return storage_errors(
            action, place, self._options, may_be_missing=may_be_missing, react=self._react
        )

    def _names(self, directory: str) -> list[tuple[str, dict[str, Any]]]:
        path = self._path(directory).rstrip("/")
        missing = self._errors("list", directory, may_be_missing=True)
        with contextlib.suppress(NotFoundError), missing, self._clients.one() as fs:
            fs.invalidate_cache()  # of filesystems that keep one of their own
            try:
                found = fs.ls(path, detail=True)
            except NotADirectoryError:
                return []
            return [
                (_name(info) + "/" * (info["type"] == "directory"), info)
                for info in found
                # Some list a directory, or a file that was taken for one, as if it were in itself.
                if info["name"].strip("/") != path.strip("/")
                and info["type"] in ("file", "directory")
            ]
        self._refuse_missing_container()
        return []

    def _all_below(self, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        directory = prefix[: prefix.rfind("/") + 1]
        with self._errors("list", directory), self._clients.one() as fs:
            fs.invalidate_cache()
            found = fs.find(self._path(directory).rstrip("/"), detail=True)
        if not found:
            self._refuse_missing_container()
        start = len(self._root.strip("/")) + 1
        pairs = [(path.strip("/")[start:], info) for path, info in found.items()]
        return sorted(pair for pair in pairs if pair[1]["type"] == "file")

    def _refuse_missing_container(self) -> None:
        """Tell an empty place from one that does not exist, which look the same in a listing."""
        if not self._kind.has_container:
            return
        container = self._root.strip("/").partition("/")[0]
        with self._errors("look at", ""), self._clients.one() as fs:
            try:
                fs.info(container)
            except FileNotFoundError as error:
                raise StorageError(
                    f"the container {container!r} of {self.url} does not exist. Nothing was "
                    "touched. Make it, or give the right name.",
                    errno=errno.ENOENT,
                    lasting=True,
                ) from error

    def _find(self, fs: Any, key: str) -> dict[str, Any] | None:
        return directories.find(fs, self._path(key))

    def _put(self, fs: Any, key: str, put: _Put, *, look: bool = True) -> None:
        """
        Put content under a key that is not taken, as well as the filesystem can.

        A look beforehand spares a transfer, and is all there is where nothing refuses.
        """
        path = self._path(key)
        if self._kind.creates:
            put(fs, path, mode="create")
            return
        if look and self._find(fs, key) is not None:
            raise FileExistsError(key)
        if not self._kind.has_directories:
            put(fs, path)
        elif not self._kind.renames:
            directories.with_parent(fs, path, lambda: put(fs, path))
        else:
            self._put_and_rename(fs, key, put)

    def _put_and_rename(self, fs: Any, key: str, put: _Put) -> None:
        path = self._path(key)
        beside = f"{path.rpartition('/')[0]}/{layout.PARTIAL}{disk.new_name()}"
        renaming = False
        try:
            directories.with_parent(fs, beside, lambda: put(fs, beside))
            renaming = True
            fs.mv(beside, path)
        except Exception as error:
            with contextlib.suppress(Exception):
                fs.rm_file(beside)
            # A refusal is not told from any other failure of a rename.
            if renaming and self._find(fs, key) is not None:
                raise FileExistsError(key) from error
            raise

    def _parts(self, key: str) -> Iterator[bytes]:
        start = 0
        while True:
            missing = self._errors("read", key, may_be_missing=True)
            with missing, self._clients.one() as fs:
                part = bytes(fs.cat_file(self._path(key), start, start + _RANGE_BYTES))
            yield part
            if len(part) < _RANGE_BYTES:
                return
            start += len(part)

    def _has_content_of(self, source: Path, size: int, key: str, moved: Moved) -> bool:
        with self._errors("compare", key):
            with self._clients.one() as fs:
                found = self._find(fs, key)
            if found is None or found["type"] != "file" or found.get("size") not in (None, size):
                return False
            with contextlib.suppress(NotFoundError), source.open("rb") as file:
                for part in self._parts(key):
                    moved(0)  # it takes its time, and does not stand still
                    if part != file.read(len(part)):
                        return False
                return not file.read(1)
            return False  # deleted since


class _Progress(Callback):  # type: ignore[misc]  # fsspec ships no types
    """Tells of bytes where fsspec tells of them."""

    def __init__(self, moved: Moved) -> None:
        super().__init__()
        self._moved = moved

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self._moved(inc)

    def absolute_update(self, value: int) -> None:
        self._moved(value - self.value)
        super().absolute_update(value)


def _name(info: Mapping[str, Any]) -> str:
    return str(info["name"]).rstrip("/").rpartition("/")[2]


def _modified(info: Mapping[str, Any]) -> datetime | None:
    for value in (info.get(name) for name in _TIMES):
        with contextlib.suppress(ValueError, OverflowError, OSError):  # not a time
            if isinstance(value, int | float):
                return datetime.fromtimestamp(value, UTC)
            moment = datetime.fromisoformat(value) if isinstance(value, str) else value
            if isinstance(moment, datetime):
                return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None
