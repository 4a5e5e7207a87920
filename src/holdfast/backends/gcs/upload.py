"""A large file sent in chunks, each of which goes on where it broke off."""

import base64
import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import google_crc32c

from holdfast import disk
from holdfast.backends.base import Moved
from holdfast.backends.gcs.client import GcsClient, RefusedError, Reply
from holdfast.backends.retrying import wished_pause
from holdfast.errors import StorageError

#: Bytes in one request of an upload: a multiple of 256 KiB, as Cloud Storage wants it. They are
#: read while they are sent, so memory does not grow with them, and each costs a round trip.
CHUNK_BYTES = 64 * 1024 * 1024
#: Bytes that are read from the file at once.
_PIECE_BYTES = 1024 * 1024
#: How often one upload goes on after a failure, and the longest pause before the first time.
_RESUMPTIONS, _FIRST_PAUSE_S = 5, 0.5


def checksum_of(source: Path, moved: Moved) -> str:
    """The crc32c of a file, as Cloud Storage writes it; tells that it goes on."""
    with disk.disk_errors("read", source), source.open("rb") as file:
        total = 0
        while piece := file.read(_PIECE_BYTES):
            total = google_crc32c.extend(total, piece)
            moved(0)
    return shown(total)


def shown(checksum: int) -> str:
    """A crc32c as Cloud Storage writes it."""
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


class ChunkedUpload:
    """
    One file on its way under one name, if that is not taken.

    Where a reply was lost or a request broke off, the server is asked how much it has, and the
    upload goes on from there. The last chunk carries the checksum of the whole, so that what was
    damaged on the way never becomes an object.

    Parameters:
        client (GcsClient): sends.
        bucket (str): its name.
        name (str): of the object.
        source (Path): the file, of at least one byte.
        moved (Callable[[int], None]): told of bytes as they are handed on; if it raises, that ends
            the upload.
        chunk_bytes (int): in one request.
    """

    def __init__(
        self,
        client: GcsClient,
        bucket: str,
        name: str,
        source: Path,
        moved: Moved,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._name = name
        self._source = source
        self._moved = moved
        self._chunk_bytes = chunk_bytes
        self._checksum = 0
        self._hashed = 0

    def run(self) -> tuple[dict[str, Any], str]:
        """
        Send it.

        Returns:
            tuple[dict[str, Any], str]: what the server says of the object, and the crc32c that it
            should have.
        """
        with disk.disk_errors("read", self._source):
            descriptor = os.open(self._source, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            session = self._begin(size)
            try:
                return self._send(session, descriptor, size), shown(self._checksum)
            except BaseException:
                with contextlib.suppress(Exception):  # it ends by itself within a week
                    self._client.ask("DELETE", session)
                raise
        finally:
            os.close(descriptor)

    def _begin(self, size: int) -> str:
        reply = self._client.ask(
            "POST",
            self._client.target(
                "upload/storage/v1/b/{}/o",
                self._bucket,
                uploadType="resumable",
                name=self._name,
                ifGenerationMatch="0",
            ),
            headers={"X-Upload-Content-Length": str(size)},
        )
        # Of the address only what stands behind the host: the data go where the store was opened.
        session = urlsplit(reply.headers["Location"])
        return f"{session.path.lstrip('/')}?{session.query}"

    def _send(self, session: str, descriptor: int, size: int) -> dict[str, Any]:
        kept, failures, in_doubt = 0, 0, False
        while True:
            try:
                if in_doubt:
                    headers = {"Content-Range": f"bytes */{size}"}
                    reply = self._client.ask("PUT", session, headers=headers, goes_on=True)
                else:
                    reply = self._send_chunk(session, descriptor, kept, size)
            except (aiohttp.ClientError, OSError, RefusedError) as error:
                failures += 1
                if isinstance(error, RefusedError) and error.status in (404, 410):
                    raise RefusedError(410, "", "the upload was forgotten", None) from error
                if not _may_go_on(error) or failures > _RESUMPTIONS:
                    raise
                pause_s = random.uniform(0, _FIRST_PAUSE_S * 2 ** (failures - 1))  # noqa: S311
                time.sleep(max(pause_s, wished_pause(error)))
                in_doubt = True
                continue
            if reply.status != 308:
                return reply.json()
            now_kept = _kept(reply)
            if now_kept > kept:
                failures = 0
            elif not in_doubt:
                failures += 1
            if now_kept > min(self._hashed, size - 1) or failures > _RESUMPTIONS:
                raise StorageError(
                    f"cannot upload {self._name}: the server says that it has {now_kept:,} of "
                    f"{size:,} bytes, and does not go on from there. What is committed is "
                    "untouched. The call may be repeated."
                )
            kept, in_doubt = now_kept, False

    def _send_chunk(self, session: str, descriptor: int, start: int, size: int) -> Reply:
        end = min(start + self._chunk_bytes, size)
        # Read once to be hashed, and then, from the page cache, to be sent.
        for piece in self._pieces(descriptor, self._hashed, end):
            self._checksum = google_crc32c.extend(self._checksum, piece)
            self._hashed += len(piece)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        if end == size:
            headers["X-Goog-Hash"] = f"crc32c={shown(self._checksum)}"
        return self._client.ask(
            "PUT",
            session,
            headers=headers,
            body=self._watched(self._pieces(descriptor, start, end)),
            length=end - start,
            goes_on=True,
        )

    def _watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self._moved(len(piece))

    def _pieces(self, descriptor: int, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            with disk.disk_errors("read", self._source):
                piece = os.pread(descriptor, min(_PIECE_BYTES, end - start), start)
            if not piece:
                raise StorageError(
                    f"{self._source} became shorter while it was sent. What is committed is "
                    "untouched. Save again, and leave staged files alone."
                )
            start += len(piece)
            yield piece


def _may_go_on(error: Exception) -> bool:
    """Whether the session may still be there after a failure; what is ours is final."""
    if isinstance(error, StorageError):
        return False
    return not isinstance(error, RefusedError) or error.is_passing


def _kept(reply: Reply) -> int:
    """How many bytes a session has."""
    said = reply.headers.get("Range", "")
    return int(said.rpartition("-")[2]) + 1 if said else 0
