"""New files: each made once, however often it is tried, and compared with what was sent."""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import requests

from holdfast import disk
from holdfast.backends.base import Moved, unwatched
from holdfast.backends.gdrive.client import Body, Client
from holdfast.backends.gdrive.failures import Refusal
from holdfast.backends.gdrive.folders import Folders, made_once, split
from holdfast.backends.gdrive.items import Item
from holdfast.backends.gdrive.known import Attempt, Known
from holdfast.backends.gdrive.room import Room
from holdfast.errors import StorageError

#: Up to so many bytes a file goes in one request (Drive's docs, "Perform a multipart upload").
SMALL_BYTES = 5 * 1024 * 1024
#: Bytes in one part of a larger one: a multiple of 256 KiB ("Perform a resumable upload").
_PART_BYTES = 8 * 1024 * 1024
#: Bytes that are hashed at a time.
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Content:
    """
    What a file is to hold.

    Attributes:
        size (int): bytes.
        md5 (Callable[[], str]): tells its MD5.
        send (Callable[[str, str, Attempt], Item]): makes a file of it, given the name, the id of
            its folder, and the attempt.
    """

    size: int
    md5: Callable[[], str]
    send: Callable[[str, str, Attempt], Item]

    def is_in(self, item: Item) -> bool:
        """Whether a file holds it."""
        return item.size == self.size and item.md5 == self.md5()


class Uploads:
    """
    Makes files.

    Parameters:
        client (Client): makes the calls.
        folders (Folders): finds and makes the folders.
        room (Room): how much still fits.
        known (Known): what this process has done.
    """

    def __init__(self, client: Client, folders: Folders, room: Room, known: Known) -> None:
        self._client = client
        self._folders = folders
        self._room = room
        self._known = known

    def of_bytes(self, data: bytes, moved: Moved = unwatched) -> Content:
        """A content that is sent in one request."""

        def md5() -> str:
            return hashlib.md5(data, usedforsecurity=False).hexdigest()

        def send(name: str, parent: str, attempt: Attempt) -> Item:
            return self._client.put(name, parent, attempt.id, data, moved)

        return Content(len(data), md5, send)

    def of_file(self, source: Path, size: int, moved: Moved) -> Content:
        """A content that is sent in parts, and gone on with where an earlier try broke off."""

        @functools.cache
        def md5() -> str:
            digest = hashlib.md5(usedforsecurity=False)
            with disk.disk_errors("read", source), source.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    moved(0)  # it takes its time, but it goes on
            return digest.hexdigest()

        def send(name: str, parent: str, attempt: Attempt) -> Item:
            arrived = self._arrived(attempt.address, size) if attempt.address else None
            if isinstance(arrived, Item):
                return arrived
            if arrived is None:
                attempt.address = self._client.begin(name, parent, attempt.id, size)
            try:
                return self._send_parts(source, size, attempt.address, arrived or 0, moved)
            except Refusal as refusal:
                if not _is_forgotten(refusal):
                    raise
                attempt.address = ""
                raise StorageError(
                    f"Drive has forgotten what had arrived of {source}. What is committed is "
                    "untouched. The call may be repeated, and begins anew."
                ) from refusal

        return Content(size, md5, send)

    def put(self, path: str, content: Content) -> Item | None:
        """
        Make a file under a path that is not taken.

        Returns:
            Item | None: what has the path already; None if the file was made.

        Raises:
            StorageError: something else arrived than was sent, and was removed.
        """
        with self._known.writing(split(path)[0]):
            return self._put(path, content)

    def _put(self, path: str, content: Content) -> Item | None:
        directory, name = split(path)
        parents = self._folders.twins(directory)
        if path not in self._known.attempts:
            for item in self._folders.look(path, parents=parents):
                if self._folders.is_there(item):
                    return item
            self._room.take(content.size)
        try:
            parents = parents or self._folders.make(directory)
            made, is_new = made_once(
                self._client,
                self._known,
                path,
                lambda attempt: content.send(name, parents[0], attempt),
            )
        except Refusal as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND and self._folders.doubt(directory):
                raise _moved_away(path) from refusal
            raise
        if made.trashed:
            self._discard(path, made)
            self._folders.doubt(directory)
            raise _moved_away(path)
        if is_new and not content.is_in(made):
            self._discard(path, made)
            raise StorageError(
                f"{path} arrived in Drive with other bytes than were sent, and was removed there. "
                "What is committed is untouched. The call may be repeated."
            )
        taken = self._earlier(path, made, parents)
        if taken is None and not content.is_in(made):
            taken = made  # by an earlier caller, who was not told that he had the path
        self._known.attempts.pop(path, None)
        return taken

    def _earlier(self, path: str, made: Item, parents: list[str]) -> Item | None:
        """What somebody else has made under the path, if it was before us; then ours goes."""
        self._known.wrote(path, made)
        for item in self._folders.look(path, parents=parents):
            if item.rank < made.rank and self._folders.is_there(item):
                # Where that fails it stays behind the earlier one, and nobody takes it for that.
                with contextlib.suppress(Refusal, requests.RequestException):
                    self._discard(path, made)
                return item
        return None

    def _discard(self, path: str, made: Item) -> None:
        """Remove what we have made."""
        self._folders.remove(made.id, trash=False)
        self._known.attempts.pop(path, None)

    def _send_parts(
        self, source: Path, size: int, address: str, arrived: int, moved: Moved
    ) -> Item:
        with disk.disk_errors("read", source):
            file = source.open("rb", buffering=0)

        def part() -> bytes:
            with disk.disk_errors("read", source):
                file.seek(arrived)
                return file.read(_PART_BYTES)

        with file:
            while True:
                # The part has no name here, so that there is one of them in memory and not two.
                found = self._send(address, Body(part(), moved), arrived, size)
                if isinstance(found, Item):
                    return found
                if found <= arrived:
                    raise StorageError(
                        f"Drive takes no more of {source} after {arrived:,} of {size:,} bytes. "
                        "What is committed is untouched. The call may be repeated."
                    )
                arrived = found

    def _send(self, address: str, part: Body, start: int, size: int) -> Item | int:
        """Send a part; one that broke off is gone on with as long as more arrives each time."""
        if not len(part):
            return self._client.progress(address, size)
        try:
            return self._client.send(address, part, start, size)
        except (requests.RequestException, Refusal) as error:
            if isinstance(error, Refusal) and error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            found = self._client.progress(address, size)
            if isinstance(found, int) and found <= start:
                raise
            return found

    def _arrived(self, address: str, size: int) -> Item | int | None:
        """What has arrived of an earlier try; None if Drive does not know of it any more."""
        try:
            return self._client.progress(address, size)
        except Refusal as refusal:
            if not _is_forgotten(refusal):
                raise
            return None


def _is_forgotten(refusal: Refusal) -> bool:
    return refusal.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


def _moved_away(path: str) -> StorageError:
    return StorageError(
        f"the folder of {path} was removed or put into the trash while it was written. What is "
        "committed elsewhere is untouched. The call may be repeated."
    )
