"""Objects in a bucket of Google Cloud Storage."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Self

import google_crc32c
from fsspec.asyn import sync

from holdfast import disk
from holdfast.backends.base import MOST_READ, Entry, Moved, Traits, unwatched
from holdfast.backends.forking import PerProcess
from holdfast.backends.gcs.client import GcsClient
from holdfast.backends.gcs.credentials import client_options, new_client
from holdfast.backends.gcs.failures import react
from holdfast.backends.gcs.upload import CHUNK_BYTES, ChunkedUpload, checksum_of, shown
from holdfast.backends.ranges import Put, download_ranges
from holdfast.backends.translating import storage_errors
from holdfast.errors import AlreadyExists, InvalidInputError, NotFoundError, StorageError
from holdfast.parallel import in_parallel

_OBJECT, _OBJECTS = "storage/v1/b/{}/o/{}", "storage/v1/b/{}/o"
_URL = re.compile(r"g(?:c)?s://([a-z0-9][a-z0-9_.-]{1,220}[a-z0-9])(?:/(.*))?", re.DOTALL)
#: A file below this size is sent in one request, and held in memory meanwhile.
_SMALL_BYTES = 8 * 1024 * 1024
#: Bytes that are handed on at once, so that it is seen whether the other side takes them.
_PIECE_BYTES = 256 * 1024
#: How many objects are deleted at once.
_DELETES = 16
#: The options whose values are cut from messages.
_SECRET = ("token", "session_kwargs")
#: Separates the parts of an upload in one request; what is sent is made of other bytes.
_BOUNDARY = "holdfast-7c1f0d5be9a24b0f9d0c6a3f3d1e8b52"


class GcsBackend:
    """
    Objects below a prefix of a bucket of Google Cloud Storage.

    Every object is put on the condition that its name is free, which the server judges; what
    arrives is compared by the server with the crc32c that is announced to it. Downloads come in
    ranges of one generation. No right to delete is needed but for `delete`, and none on the bucket.

    Parameters:
        url (str): `gs://bucket`, or `gs://bucket/prefix` without a closing slash.
        connect (Callable[[], GcsClient]): makes a client; called again in a forked child.
        secrets (Mapping[str, Any]): options whose values are cut from messages.
        chunk_bytes (int): in one request of a large upload; a multiple of 256 KiB.

    Raises:
        InvalidInputError: the URL names no bucket.

    Attributes:
        url (str): what the place is called, without credentials.
    """

    def __init__(
        self,
        url: str,
        connect: Callable[[], GcsClient],
        *,
        secrets: Mapping[str, Any] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        found = _URL.fullmatch(url)
        if not found:
            raise InvalidInputError(
                f"{url} names no bucket; those have 3 or more small letters, digits, dots, dashes "
                "and underscores. Nothing was touched. Write gs://bucket/path."
            )
        self._bucket = found[1]
        self._root = f"{found[2]}/" if found[2] else ""
        self.url = f"gs://{self._bucket}/{self._root}".rstrip("/")
        self.traits = Traits(parallel=8)
        self._secrets = dict(secrets or {})
        self._chunk_bytes = chunk_bytes
        self._clients = PerProcess(connect)
        self._clients.get()  # so that options that do not fit are told now

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """
        The backend for a URL; nothing is asked of the bucket.

        Parameters:
            url (str): `gs://…` or `gcs://…`.
            options (Mapping[str, Any]): as gcsfs takes them, such as `token` and `project`. Without
                a token the credentials are Google's default ones; with `STORAGE_EMULATOR_HOST`, or
                an `endpoint_url` without TLS, there are none.

        Raises:
            InvalidInputError: the URL or the options are wrong.
            AccessDenied: there are no credentials, or they do not work.
        """
        secrets = {name: options[name] for name in _SECRET if name in options}
        chosen = client_options(url, options)
        return cls(url, lambda: new_client(url, chosen, secrets), secrets=secrets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} holds credentials, which are not pickled: open it again there.")

    def free_bytes(self) -> int | None:
        """How many bytes still fit there: a bucket has no bound."""
        return None

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""
        with self._errors("create", key):
            self._insert(key, data)

    def read(self, key: str) -> bytes:
        """All bytes of a small object, compared with the checksum that came with them."""
        with self._errors("read", key, may_be_missing=True):
            client = self._clients.get()
            reply = client.ask(
                "GET",
                client.target(_OBJECT, self._bucket, self._root + key, alt="media"),
                headers={"Accept-Encoding": "gzip"},  # else what is stored so is decompressed
                at_most=MOST_READ,
            )
        if len(reply.body) == MOST_READ:  # not all of it, and no record
            return reply.body
        hashes = ",".join(reply.headers.getall("X-Goog-Hash", []))
        told = re.search(r"crc32c=([\w+/]+=*)", hashes)
        if not told or told[1] != shown(google_crc32c.value(reply.body)):
            raise StorageError(
                f"cannot read {self.url}/{key}: no checksum says that what came is what was sent. "
                "What is committed is untouched. The call may be repeated."
            )
        return reply.body

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key; what arrived is compared by size and checksum."""
        with disk.disk_errors("read", source):
            size = source.stat().st_size
            small = source.read_bytes() if size < _SMALL_BYTES else None
        try:
            with self._errors("upload", key):
                if small is not None:
                    self._insert(key, small, moved)
                    return
                name = self._root + key
                made, checksum = ChunkedUpload(
                    self._clients.get(), self._bucket, name, source, moved, self._chunk_bytes
                ).run()
                self._confirm(key, made, size, checksum)
        except AlreadyExists:
            if not self._has_content_of(source, size, key, moved):
                raise

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet, several ranges at once."""
        with self._errors("download", key, may_be_missing=True):
            found = self._describe(key, "size,generation")
            client = self._clients.get()
            object_ = client.target(
                _OBJECT,
                self._bucket,
                self._root + key,
                alt="media",
                generation=found["generation"],
            )

            async def get(start: int, end: int, put: Put) -> None:
                pieces = client.stream(object_, start, end)
                async with contextlib.aclosing(pieces):
                    with self._errors("download", key, may_be_missing=True):
                        async for piece in pieces:
                            put(piece)

            sync(
                client.loop,
                download_ranges,
                get,
                int(found["size"]),
                target,
                moved=moved,
                slots=client.slots,
            )

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, page by page."""
        query = {
            "prefix": self._root + prefix,
            "startOffset": self._root + after,
            "fields": "kind,nextPageToken,items(name,size,updated)",
        }
        more = True
        while more:
            with self._errors("list", prefix):
                client = self._clients.get()
                page = client.ask("GET", client.target(_OBJECTS, self._bucket, **query)).json()
                if page.get("kind") != "storage#objects":
                    raise ValueError("the answer is no listing")
                entries = [
                    Entry(
                        item["name"].removeprefix(self._root),
                        int(item["size"]),
                        datetime.fromisoformat(item["updated"]),
                    )
                    for item in page.get("items", [])
                    if not item["name"].endswith("/")  # a folder, as the console shows them
                ]
            yield from (entry for entry in entries if entry.key > after)
            query["pageToken"] = page.get("nextPageToken", "")
            more = bool(query["pageToken"])

    def delete(self, *keys: str) -> None:
        """Remove objects, several at once; a key that is missing is fine."""
        in_parallel(self._delete, keys, at_once=_DELETES)

    def _delete(self, key: str) -> None:
        missing = self._errors("delete", key, may_be_missing=True)
        with contextlib.suppress(NotFoundError), missing:
            client = self._clients.get()
            reply = client.ask("DELETE", client.target(_OBJECT, self._bucket, self._root + key))
            if reply.body.strip() not in (b"", b"{}"):
                raise ValueError("it did not say that this was deleted")

    def _errors(
        self, action: str, key: str, *, may_be_missing: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        place = f"{self.url}/{key}"
        return storage_errors(
            action, place, self._secrets, may_be_missing=may_be_missing, react=react(action)
        )

    def _insert(self, key: str, data: bytes, moved: Moved = unwatched) -> None:
        """Put bytes under a key that is not taken, with their checksum, in one request."""
        client = self._clients.get()
        checksum = shown(google_crc32c.value(data))
        about = {"name": self._root + key, "crc32c": checksum}
        head = (
            f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(about)}\r\n"
            f"--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        reply = client.ask(
            "POST",
            client.target(
                f"upload/{_OBJECTS}", self._bucket, uploadType="multipart", ifGenerationMatch="0"
            ),
            headers={"Content-Type": f"multipart/related; boundary={_BOUNDARY}"},
            body=_framed(head, data, tail, moved),
            length=len(head) + len(data) + len(tail),
        )
        self._confirm(key, reply.json(), len(data), checksum)

    def _confirm(self, key: str, made: Mapping[str, Any], size: int, checksum: str) -> None:
        if int(made["size"]) != size or made.get("crc32c", checksum) != checksum:
            raise StorageError(
                f"{self.url}/{key} did not arrive whole: the place shows {int(made['size']):,} "
                f"bytes in the place of {size:,}, or others. What is committed is untouched. The "
                "file is still where it was; save again."
            )

    def _describe(self, key: str, fields: str) -> dict[str, Any]:
        client = self._clients.get()
        target = client.target(_OBJECT, self._bucket, self._root + key, fields=fields)
        return client.ask("GET", target).json()

    def _has_content_of(self, source: Path, size: int, key: str, moved: Moved) -> bool:
        try:
            with self._errors("compare", key, may_be_missing=True):
                found = self._describe(key, "size,crc32c")
        except NotFoundError:
            return False  # deleted since
        return int(found["size"]) == size and found.get("crc32c") == checksum_of(source, moved)


def _framed(head: bytes, data: bytes, tail: bytes, moved: Moved) -> Iterator[bytes]:
    yield head
    for start in range(0, len(data), _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        yield piece
        moved(len(piece))
    yield tail
