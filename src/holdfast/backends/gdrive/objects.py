"""Files under paths of one place in Drive, as one process sees them."""

import contextlib
import hashlib
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus

import requests

from holdfast import layout
from holdfast.backends.gdrive.client import Client
from holdfast.backends.gdrive.failures import Refusal
from holdfast.backends.gdrive.folders import Folders
from holdfast.backends.gdrive.items import Item
from holdfast.backends.gdrive.known import Known
from holdfast.backends.gdrive.listing import Listing
from holdfast.backends.gdrive.places import Place
from holdfast.backends.gdrive.room import Room
from holdfast.backends.gdrive.uploads import Uploads
from holdfast.errors import NotFoundError
from holdfast.parallel import in_parallel

#: How many calls are made at once, where there are many of one kind.
PARALLEL = 4


class Objects:
    """
    What one process needs for one place.

    Parameters:
        client (Client): makes the calls.
        place (Place): where in Drive; it is looked for at once.
        known (Known): what this process has done there.

    Attributes:
        known (Known): as given.
        room (Room): how much still fits.
        uploads (Uploads): makes files.
    """

    def __init__(self, client: Client, place: Place, known: Known) -> None:
        base = place.find(client)
        self.known = known
        self.room = Room(client, base, known)
        self._client = client
        self._root = place.below
        self._folders = Folders(client, base, known)
        self.uploads = Uploads(client, self._folders, self.room, known)

    def content(self, path: str) -> Iterator[bytes]:
        """
        The content of a file as it comes in, gone on with where it is cut.

        Only at its end is it known to be what Drive has.

        Raises:
            NotFoundError: there is no such file.
            Refusal: other bytes came than Drive has.
        """
        found = self._folders.glance(path)
        if not found:
            raise NotFoundError(f"there is no {path} in Drive.")
        item, size = found[0], 0
        digest = hashlib.md5(usedforsecurity=False)  # the one that Drive tells
        for block in self._blocks(path, item):
            size += len(block)
            digest.update(block)
            yield block
        if size != item.size:
            raise Refusal(HTTPStatus.OK, "", f"{size:,} bytes in place of {item.size:,}")
        if digest.hexdigest() != item.md5:
            raise Refusal(HTTPStatus.OK, "", "the bytes that came differ from those it has")

    def _blocks(self, path: str, item: Item) -> Iterator[bytes]:
        """The content of an item, block by block, gone on with where it is cut."""
        start = 0
        while start < item.size:
            begun = start
            try:
                with self._client.content(item.id, start) as blocks:
                    for block in blocks:
                        start += len(block)
                        yield block
            except requests.RequestException:
                if start == begun:
                    raise
            except Refusal as refusal:
                if refusal.status == HTTPStatus.NOT_FOUND:  # removed since it was looked for
                    self._folders.check_sight()
                    raise NotFoundError(f"there is no {path} in Drive.") from refusal
                raise
            else:
                break

    def files(self, prefix: str, after: str) -> Iterator[tuple[str, Item]]:
        """Every file whose path starts with the prefix and sorts after `after`, in order."""
        return Listing(self._folders, self.known, self._root).files(prefix, after)

    def remove(self, directory: str, names: list[str], *, trash: bool) -> None:
        """Remove all files of some names in a folder; missing ones are fine."""
        parents = self._folders.twins(directory)
        doomed = {item.id for item in self._folders.among(parents, names)}
        for name in names:
            if (mine := self.known.written(directory + name)) is not None:
                doomed.add(mine.id)
            # A try that nobody heard of may have made it, and no listing show it yet.
            if (attempt := self.known.attempts.get(directory + name)) is not None:
                doomed.add(attempt.id)
        in_parallel(partial(self._folders.remove, trash=trash), doomed, at_once=PARALLEL)
        for name in names:
            self.known.attempts.pop(directory + name, None)
        # Nothing is lost by a folder that stays.
        with contextlib.suppress(Refusal, requests.RequestException):
            self._tidy(directory, parents, trash=trash)

    def _tidy(self, directory: str, parents: list[str], *, trash: bool) -> None:
        """
        Remove the folders of a checkpoint that have nothing in them.

        No others: a folder takes with it what listings do not show yet, and only those of a
        checkpoint have no other writer.
        """
        top = self._root + layout.FILES
        while directory.startswith(top) and directory != top:
            with self.known.making:
                if self.known.is_used(directory):
                    return
                for parent in parents:
                    # For good it would take along what somebody has put into the trash.
                    if not self._folders.is_empty(parent, trash_too=not trash):
                        return
                    self._folders.remove(parent, trash=trash)
            directory = directory[: directory.rstrip("/").rfind("/") + 1]
            parents = self._folders.twins(directory) if directory != top else []
