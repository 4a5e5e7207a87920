"""A file or folder of Drive, as its API tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

FOLDER = "application/vnd.google-apps.folder"
#: What is asked for of each.
FIELDS = "id,name,mimeType,size,md5Checksum,createdTime,parents,trashed,driveId,ownedByMe"


@dataclass(frozen=True)
class Item:
    """
    A file or folder.

    Attributes:
        id (str): what Drive knows it by; a name may be there many times.
        name (str): its name.
        is_folder (bool): whether it is a folder.
        is_file (bool): whether it has content; a Google document and a shortcut have none.
        size (int): bytes.
        md5 (str): of its content, as Drive computed it.
        created (datetime): when it was, by Drive's clock.
        parents (tuple[str, ...]): the ids of its folder, where the caller may see it.
        trashed (bool): whether it, or a folder above it, is in the trash.
        drive (str | None): the id of its shared drive.
        is_mine (bool): whether it belongs to this account.
    """

    id: str
    name: str
    is_folder: bool
    is_file: bool
    size: int
    md5: str
    created: datetime
    parents: tuple[str, ...]
    trashed: bool
    drive: str | None
    is_mine: bool

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """What the API tells, read."""
        return cls(
            id=found["id"],
            name=found["name"],
            is_folder=found["mimeType"] == FOLDER,
            is_file="md5Checksum" in found,
            size=int(found.get("size", 0)),
            md5=found.get("md5Checksum", ""),
            created=datetime.fromisoformat(found["createdTime"]),
            parents=tuple(found.get("parents", ())),
            trashed=bool(found.get("trashed")),
            drive=found.get("driveId"),
            is_mine=bool(found.get("ownedByMe")),
        )

    @property
    def rank(self) -> tuple[datetime, str]:
        """Of twins the one with the lowest rank is meant, whoever looks."""
        return self.created, self.id
