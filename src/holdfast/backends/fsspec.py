"""Any filesystem that fsspec knows, through its public methods."""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from fsspec.dircache import DirCache

from holdfast import disk
from holdfast.backends import tree
from holdfast.backends.base import Entry, Moved, Traits, unwatched
from holdfast.backends.translating import is_bucket_missing, redact, storage_errors
from holdfast.errors import (
    AlreadyExists,
    InvalidInputError,
    NotFoundError,
    StorageError,
)

#: Bytes in one range of an object that is read in parts.
_RANGE_BYTES = 8 * 1024 * 1024
#: Whose `mode="create"` asks the server for put-if-absent. Elsewhere fsspec only looks first.
_CREATING = frozenset({"s3", "s3a", "gs", "gcs"})
#: Where there are no directories to make, and trying may make a bucket.
_BUCKETS = _CREATING | {"abfs", "abfss", "adl", "az", "hf", "oci", "oss", "tos", "tosfs", "memory"}
#: Where filesystems put the time of writing in what they tell of an object.
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """
    A filesystem of its own for a URL, and what the filesystem calls the place.

    Raises:
        ImportError: its library is missing.
        InvalidInputError: the options do not fit.
        StorageError: it could not be reached.
    """
    try:
        with storage_errors("open", url, options):
            return url_to_fs(url, **options, skip_instance_cache=True)  # type: ignore[no-any-return]
    except StorageError as error:
        if isinstance(error.__cause__, ImportError):
            raise error.__cause__ from error.__cause__.__cause__
        if isinstance(error.__cause__, TypeError | ValueError):
            raise InvalidInputError(
                f"the storage_options {', '.join(options)} do not fit {url}; nothing was touched. "
                f"{redact(str(error.__cause__), options)}"
            ) from error
        raise


class FsspecBackend:
    """
    Objects in an fsspec filesystem.

    Nothing is written through an open file: closing one publishes what it holds, also when the
    writing failed. No listing comes from a cache. Put-if-absent is the server's on S3 and GCS; on
    every other filesystem it holds among the threads of one process only.

    Parameters:
        fs (AbstractFileSystem): its cache of listings is switched off.
        root (str): what the filesystem calls the place.
        url (str): what the place is called, without credentials.
    """

    _creating: ClassVar[dict[tuple[int, str], threading.Lock]] = {}

    def __init__(self, fs: Any, root: str, url: str) -> None:
        self.url = url
        self._fs = fs
        self._root = root.rstrip("/")
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
        self._creates = bool(protocols & _CREATING)
        self.traits = Traits(exclusive=self._creates)
        self._has_directories = not protocols & _BUCKETS
        # Its open files write and read through one position that all threads share.
        self._in_memory = "memory" in protocols
        if isinstance(cache := getattr(fs, "dircache", None), DirCache):
            cache.use_listings_cache = False
            cache.clear()
        self._lock = self._creating.setdefault((os.getpid(), url), threading.Lock())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def free_bytes(self) -> int | None:
        """How many bytes still fit there; None where there is no bound, or the place tells none."""
        return None

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""
        with self._errors("create", key):
            if self._creates:
                self._fs.pipe_file(self._path(key), data, mode="create")
                return
            with self._lock:
                if self._find(key) is not None:
                    raise FileExistsError(key)
                self._make_directory(key)
                self._fs.pipe_file(self._path(key), data)

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        with self._errors("read", key, may_be_missing=True):
            return bytes(self._fs.cat_file(self._path(key)))

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key; what arrived is compared by size."""
        with disk.disk_errors("read", source):
            size = source.stat().st_size
        try:
            self._put(source, key, moved)
        except AlreadyExists:
            with self._errors("compare", key):
                same = self._has_content_of(source, size, key)
            if not same:
                raise
            return
        with self._errors("confirm", key):
            found = self._find(key)
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
            if self._in_memory:
                with disk.disk_errors("download to", target), target.open("wb") as file:
                    for part in self._parts(key):
                        file.write(part)
                        moved(len(part))
            else:
                with self._errors("download", key, may_be_missing=True):
                    self._fs.get_file(self._path(key), str(target), callback=_Progress(moved))
            with disk.disk_errors("download to", target):
                disk.sync_file(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, in order."""
        for key, info in tree.walk(self._names, prefix, after):
            yield Entry(key, int(info.get("size") or 0), _modified(info))

    def delete(self, *keys: str) -> None:
        """Remove objects; a key that is missing is fine."""
        for key in keys:
            gone = self._errors("delete", key, may_be_missing=True)
            with contextlib.suppress(NotFoundError), gone:
                self._fs.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _errors(
        self, action: str, key: str, *, may_be_missing: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        options = getattr(self._fs, "storage_options", {})
        place = f"{self.url}/{key}"
        return storage_errors(action, place, options, may_be_missing=may_be_missing)

    def _names(self, directory: str) -> list[tuple[str, dict[str, Any]]]:
        path = self._path(directory).rstrip("/")
        missing = self._errors("list", directory, may_be_missing=True)
        with contextlib.suppress(NotFoundError), missing:
            self._fs.invalidate_cache()  # of filesystems that keep one of their own
            try:
                found = self._fs.ls(path, detail=True)
            except NotADirectoryError:
                return []
            return [
                (_name(info) + "/" * (info["type"] == "directory"), info)
                for info in found
                # Some list a directory, or a file that was taken for one, as if it were in itself.
                if info["name"].strip("/") != path.strip("/")
                and info["type"] in ("file", "directory")
            ]
        return []

    def _find(self, key: str) -> dict[str, Any] | None:
        """What there is to know of an object; None if it is missing. `exists` hides failures."""
        self._fs.invalidate_cache()
        try:
            found: dict[str, Any] = self._fs.info(self._path(key))
        except FileNotFoundError as error:
            if is_bucket_missing(error):
                raise
            return None
        return found

    def _make_directory(self, key: str) -> None:
        if self._has_directories:
            self._fs.makedirs(self._path(key).rpartition("/")[0], exist_ok=True)

    def _put(self, source: Path, key: str, moved: Moved) -> None:
        path = self._path(key)
        with self._errors("upload", key):
            if self._creates:
                self._fs.put_file(str(source), path, callback=_Progress(moved), mode="create")
                return
            if self._find(key) is not None:
                raise FileExistsError(key)
            self._make_directory(key)
            if self._in_memory:
                self._fs.pipe_file(path, source.read_bytes())
                return
            try:
                self._fs.put_file(str(source), path, callback=_Progress(moved))
            except Exception:
                # It was not there when we began, so the part that is there now is ours.
                with contextlib.suppress(Exception):
                    self._fs.rm_file(path)
                raise

    def _parts(self, key: str) -> Iterator[bytes]:
        start = 0
        while True:
            with self._errors("read", key, may_be_missing=True):
                part = bytes(self._fs.cat_file(self._path(key), start, start + _RANGE_BYTES))
            yield part
            if len(part) < _RANGE_BYTES:
                return
            start += len(part)

    def _has_content_of(self, source: Path, size: int, key: str) -> bool:
        found = self._find(key)
        if found is None or found.get("type") != "file" or found.get("size") not in (None, size):
            return False
        with contextlib.suppress(NotFoundError), source.open("rb") as file:
            same = all(part == file.read(len(part)) for part in self._parts(key))
            return same and not file.read(1)
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
