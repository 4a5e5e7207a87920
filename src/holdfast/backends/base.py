"""What a place has to be able to do: the six verbs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """
    One key that a scan found.

    Attributes:
        key (str): relative to the store, with `/` between its parts.
        size (int): bytes.
        modified (datetime | None): when it was written, by the place's own clock, with its time
            zone; None where the place does not tell.
    """

    key: str
    size: int
    modified: datetime | None = None


class Backend(Protocol):
    """
    A place where things are kept, as objects under keys.

    Every verb is whole or not at all, durable when it returns, and safe to repeat. Verbs may be
    called from several threads at once. Only `StorageError` and its kinds leave a backend, and
    `NotFoundError` where a key is read that is missing: a place that cannot be reached, or a
    bucket that does not exist, is never "missing".

    Keys are relative, made of the parts that `layout.check_paths` allows, and no key is also the
    directory of another. What a backend has not finished it may leave under a name that starts
    with `~`; a scan shows it, and sweep removes it.

    `holdfast.testing.BackendContract` is this text as a test suite.

    Attributes:
        url (str): what the place is called, without credentials: two backends of one URL are one
            place.
    """

    @property
    def url(self) -> str:
        """What the place is called, without credentials."""

    def create(self, key: str, data: bytes) -> None:
        """
        Put a small object under a key that is not taken.

        Of any number of callers at once exactly one succeeds.

        Raises:
            AlreadyExists: the key is taken; what lies there is unchanged.
        """

    def read(self, key: str) -> bytes:
        """
        All bytes of a small object.

        Raises:
            NotFoundError: the place answered that there is no such key.
        """

    def upload(self, source: Path, key: str) -> None:
        """
        Put a file's content under a key, with bounded memory.

        The source is sealed: nobody changes it afterwards, so a backend may keep a hard link to it
        in place of a copy. A key that already holds the same content is fine.

        Raises:
            AlreadyExists: the key is taken by other content, which is unchanged.
        """

    def download(self, key: str, target: Path) -> None:
        """
        Copy an object into a file that does not exist yet, with bounded memory.

        Nobody else writes to the target's directory. A failed download leaves no target.

        Raises:
            NotFoundError: there is no such key.
        """

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """
        Every key that starts with the prefix and sorts after `after`, in the order of the keys.

        Never from a cache: a scan shows all that was there before it began and was not deleted
        since. A prefix under which nothing lies gives nothing. Keys sort as Python strings do.

        Parameters:
            prefix (str): empty, or ends with `/` or within a name.
            after (str): a key, which does not have to exist.
        """

    def delete(self, key: str) -> None:
        """Remove an object; a key that is missing is fine."""
