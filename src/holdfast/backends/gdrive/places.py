"""Where a URL leads: the folder that it begins with, and the path below it."""

import errno
import re
from dataclasses import dataclass
from typing import Self

from holdfast.backends.gdrive.client import Client
from holdfast.errors import InvalidInputError, StorageError

_MINE = frozenset({"My Drive", "MyDrive"})
_SHARED = frozenset({"Shared drives", "Shareddrives"})
#: Ids have 19 letters and more; a shorter first name is somebody's folder, spelled wrong.
_ID = re.compile(r"[\w-]{15,}", re.ASCII)


@dataclass(frozen=True)
class Base:
    """
    The folder that a URL begins with.

    Attributes:
        id (str): its id; `root` for My Drive.
        drive (str | None): the shared drive that it is in.
        is_whole (bool): a query that names several folders finds all that is in them. In folders
            that other accounts have shared Drive leaves some out, and does not say so.
    """

    id: str
    drive: str | None
    is_whole: bool

    def check(self, client: Client) -> None:
        """
        Tell a base in which nothing lies from one that is gone.

        Raises:
            StorageError: it is in the trash, or this account does not see it any more.
        """
        if self.id not in ("root", self.drive):
            item = client.get(self.id)
            if item is None or item.trashed:
                raise _absent(f"no folder with the id {self.id} any more")


@dataclass(frozen=True)
class Place:
    """
    What a URL names.

    Attributes:
        first (str): `My Drive`, `Shared drives`, or the id of a folder.
        drive (str): the name of the shared drive; else empty.
        below (str): the path from there, empty or ending with `/`.
    """

    first: str
    drive: str
    below: str

    @classmethod
    def of(cls, url: str) -> Self:
        """
        What a URL names.

        Raises:
            InvalidInputError: it begins with something else.
        """
        first, *parts = url.removeprefix("gdrive://").split("/")
        drive = ""
        if first in _MINE:
            first = "My Drive"
        elif first in _SHARED:
            first = "Shared drives"
            drive = parts.pop(0) if parts else ""
            if not drive:
                raise InvalidInputError(f"{url} names no shared drive. Nothing was touched.")
        elif not _ID.fullmatch(first):
            raise InvalidInputError(
                f"{url} does not say where in Drive. Nothing was touched. Write gdrive://My Drive/…"
                ", gdrive://Shared drives/<name>/…, or begin with the id of a folder, which is the "
                "last part of its address in the browser."
            )
        if "" in parts:
            raise InvalidInputError(f"{url} has an empty name in it. Nothing was touched.")
        return cls(first, drive, "".join(f"{part}/" for part in parts))

    @property
    def url(self) -> str:
        """The one way to write it."""
        drive = f"/{self.drive}" if self.drive else ""
        return f"gdrive://{self.first}{drive}/{self.below}".rstrip("/")

    def find(self, client: Client) -> Base:
        """
        The folder that it begins with.

        Raises:
            StorageError: there is none that this account sees.
            InvalidInputError: several shared drives have the name.
        """
        if self.first == "My Drive":
            return Base("root", None, is_whole=True)
        if self.drive:
            ids = [id for id, name in client.drives() if name == self.drive]
            if len(ids) > 1:
                raise InvalidInputError(
                    f"{len(ids)} shared drives have the name {self.drive!r}. Nothing was touched. "
                    f"Write the id of the one that is meant: {' or '.join(ids)}."
                )
            if not ids:
                raise _absent(f"no shared drive {self.drive!r} that this account is a member of")
            return Base(ids[0], ids[0], is_whole=True)
        item = client.get(self.first)
        if item is None or not item.is_folder:
            raise _absent(f"no folder with the id {self.first} that this account sees")
        if item.trashed:
            raise _absent(f"no folder with the id {self.first} outside of the trash")
        return Base(item.id, item.drive, is_whole=item.is_mine or item.drive is not None)


def _absent(what: str) -> StorageError:
    return StorageError(
        f"there is {what}. Nothing was touched. Look at the URL, and at who is signed in; with the "
        "scope drive.file only what the same OAuth client made is seen.",
        errno=errno.ENOENT,
        lasting=True,
    )
