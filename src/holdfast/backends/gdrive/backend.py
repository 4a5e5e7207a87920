"""The six verbs, on Google Drive."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self
from urllib.parse import urlsplit

from google.auth.credentials import Credentials

from holdfast import disk
from holdfast.backends.base import MOST_READ, Entry, Moved, Traits, unwatched
from holdfast.backends.forking import PerProcess
from holdfast.backends.gdrive.client import Client
from holdfast.backends.gdrive.credentials import WAYS, sign_in
from holdfast.backends.gdrive.failures import react
from holdfast.backends.gdrive.folders import split
from holdfast.backends.gdrive.known import Known
from holdfast.backends.gdrive.objects import PARALLEL, Objects
from holdfast.backends.gdrive.places import Place
from holdfast.backends.gdrive.uploads import SMALL_BYTES
from holdfast.backends.translating import storage_errors
from holdfast.errors import AlreadyExists, InvalidInputError

_ENDPOINT = "https://www.googleapis.com"
_OPTIONS = (*WAYS, "endpoint", "trash")


class GdriveBackend:
    """
    Objects as files in folders of Google Drive, under the names that a person sees there.

    In Drive a name can be there many times. Each file is made under an id that was made beforehand,
    so a call whose answer was lost is never made twice; of files of one name that several processes
    made at once the earliest is meant, everywhere. So put-if-absent is exact among the threads of
    one process, and as good as the listings are among several.

    Listings lag. What this process has written or removed in the last minutes it remembers, and
    asks for by its id.

    Parameters:
        place (Place): where in Drive.
        credentials (Credentials): who signs in.
        endpoint (str): where the API is.
        trash (bool): what is removed goes into the trash, which counts against the quota.
        clock (Callable[[], float]): seconds since any fixed moment.

    Attributes:
        url (str): `gdrive://` and the place.
        traits (Traits): how Drive behaves.
    """

    _known: ClassVar[dict[tuple[int, str, str], Known]] = {}

    def __init__(
        self,
        place: Place,
        credentials: Credentials,
        endpoint: str = _ENDPOINT,
        *,
        trash: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = place.url
        self.traits = Traits(parallel=PARALLEL, exclusive=False, fresh=False)
        self._place = place
        self._trash = trash
        self._endpoint = endpoint
        self._clock = clock
        self._client = Client(credentials, endpoint)
        self._objects = PerProcess(self._open)

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """
        The backend for a URL; nothing is called yet.

        Parameters:
            url (str): `gdrive://My Drive/…`, `gdrive://Shared drives/<name>/…` or
                `gdrive://<folder id>/…`.
            options (Mapping[str, Any]): one of `credentials` (of google-auth), `auth` (a GoogleAuth
                of PyDrive2), `token_file`, `service_account_file`, or none for what this machine
                has; `trash`; `endpoint`.

        Raises:
            InvalidInputError: the URL or the options do not fit.
            AccessDenied: there are no credentials.
        """
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise InvalidInputError(
                f"gdrive:// takes no {', '.join(map(repr, unknown))} in storage_options, only "
                f"{', '.join(_OPTIONS)}. Nothing was touched."
            )
        place = Place.of(url)
        endpoint = str(options.get("endpoint", _ENDPOINT)).rstrip("/")
        parts = urlsplit(endpoint)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
            raise InvalidInputError(
                "the endpoint has to begin with https://, since credentials are sent there. "
                "Nothing was touched."
            )
        return cls(place, sign_in(options), endpoint, trash=bool(options.get("trash", False)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} holds credentials, which are not pickled: open it again there.")

    def free_bytes(self) -> int | None:
        """How many bytes still fit there; None where there is no bound, or the place tells none."""
        with self._errors("look for room in", ""):
            return self._objects.get().room.free()

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""
        with self._errors("create", key):
            objects, path = self._objects.get(), self._path(key)
            with objects.known.creating(path):
                taken = objects.uploads.put(path, objects.uploads.of_bytes(data))
            if taken is not None:
                raise AlreadyExists(f"{self.url}/{key} exists; what lies there is unchanged.")

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        data = bytearray()
        with contextlib.closing(self._content("read", key)) as blocks:
            for block in blocks:
                data += block
                if len(data) >= MOST_READ:  # not all of it, and no record
                    break
        return bytes(data[:MOST_READ])

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key; size and MD5 of what arrived are compared."""
        with disk.disk_errors("read", source):
            size = source.stat().st_size
            data = source.read_bytes() if size <= SMALL_BYTES else b""
        with self._errors("upload", key):
            uploads = self._objects.get().uploads
            if size <= SMALL_BYTES:
                content = uploads.of_bytes(data, moved)
            else:
                content = uploads.of_file(source, size, moved)
            taken = uploads.put(self._path(key), content)
            if taken is not None and not content.is_in(taken):
                raise AlreadyExists(f"{self.url}/{key} has other content, which is unchanged.")

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet."""
        write = partial(disk.disk_errors, "download to", target)
        with write():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            file = os.fdopen(os.open(target, flags, 0o666), "wb", buffering=0)
        try:
            with file:
                for block in self._content("download", key):
                    with write():
                        file.write(block)
                    moved(len(block))
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, in order."""
        with self._errors("list", prefix):
            root = self._place.below
            for path, item in self._objects.get().files(root + prefix, root + after):
                yield Entry(path.removeprefix(root), item.size, item.created)

    def delete(self, *keys: str) -> None:
        """Remove objects, and the folders of checkpoints that are then empty."""
        names: dict[str, list[str]] = {}
        for key in keys:
            directory, name = split(self._path(key))
            names.setdefault(directory, []).append(name)
        for directory, inside in names.items():
            with self._errors("delete from", directory.removeprefix(self._place.below)):
                self._objects.get().remove(directory, inside, trash=self._trash)

    def _open(self) -> Objects:
        key = (os.getpid(), self._endpoint, self.url)
        return Objects(self._client, self._place, self._known.setdefault(key, Known(self._clock)))

    def _content(self, action: str, key: str) -> Generator[bytes, None, None]:
        with self._errors(action, key):
            yield from self._objects.get().content(self._path(key))

    def _path(self, key: str) -> str:
        return self._place.below + key

    def _errors(self, action: str, key: str) -> contextlib.AbstractContextManager[None]:
        return storage_errors(action, f"{self.url}/{key}".rstrip("/"), {}, react=react)
