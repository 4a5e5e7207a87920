"""What a place has to be able to do: the six verbs, and what one of files can do beside them."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from holdfast import record

#: Bytes of an object that `read` gives at most: by one more than any record has.
MOST_READ = record.MAX_BYTES + 1


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


#: Told of a transfer's bytes as they are handed on, so that one that stands still is noticed.
Moved = Callable[[int], None]


def unwatched(count: int) -> None:
    """Nobody wants to know how many bytes have moved."""


@dataclass(frozen=True)
class Traits:
    """
    How a place behaves beside the verbs. What it cannot keep is told before it is relied on.

    Attributes:
        parallel (int): how many calls at once are worth making; a disk gains nothing from several.
        exclusive (bool): of any number of callers anywhere, one creates a key. Otherwise that holds
            among the threads of one process only.
        fresh (bool): a scan shows all that anybody had written before it began. Otherwise it may
            lag behind for a while.
        durable (bool): what was written is at the place when the verb returns, and not in a cache
            that is lost with this machine.
    """

    parallel: int = 1
    exclusive: bool = True
    fresh: bool = True
    durable: bool = True


class Backend(Protocol):
    """
    A place where things are kept, as objects under keys.

    Every verb is whole or not at all, and safe to repeat; what it does to the place is durable when
    it returns. Verbs may be called from several threads at once. Only `StorageError` and its kinds
    leave a backend, and `NotFoundError` where a key is read that is missing: a place that cannot be
    reached, or a bucket that does not exist, is never "missing".

    Keys are relative, made of the parts that `layout.check_paths` allows, and no key is also the
    directory of another. What a backend has not finished it may leave under a name that starts
    with `~`; a scan shows it, and sweep removes it.

    `holdfast.testing.BackendContract` is this text as a test suite.

    Attributes:
        url (str): what the place is called, without credentials: two backends of one URL are one
            place.
        traits (Traits): how the place behaves.
    """

    @property
    def url(self) -> str:
        """What the place is called, without credentials."""

    @property
    def traits(self) -> Traits:
        """How the place behaves beside the verbs."""

    def free_bytes(self) -> int | None:
        """How many bytes still fit there; None where there is no bound, or the place tells none."""

    def create(self, key: str, data: bytes) -> None:
        """
        Put a small object under a key that is not taken.

        Of any number of callers at once exactly one succeeds.

        Raises:
            AlreadyExists: the key is taken; what lies there is unchanged.
        """

    def read(self, key: str) -> bytes:
        """
        All bytes of a small object; of one with more than `MOST_READ` only so many from its start.

        Whoever may write there cannot fill a reader's memory by it.

        Raises:
            NotFoundError: the place answered that there is no such key.
        """

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """
        Put a file's content under a key, with bounded memory.

        When it returns the place has confirmed that all bytes are there.

        The source is sealed: nobody changes it afterwards, so a backend may keep a hard link to it
        in place of a copy. A key that already holds the same content is fine.

        Parameters:
            source (Path): the file.
            key (str): where to.
            moved (Callable[[int], None]): told of bytes as they are handed on, from any thread.

        Raises:
            AlreadyExists: the key is taken by other content, which is unchanged.
        """

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """
        Copy an object into a file that does not exist yet, with bounded memory.

        Nobody else writes to the target's directory. A failed download leaves no target. The target
        need not be durable: whoever keeps it syncs it.

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

    def delete(self, *keys: str) -> None:
        """Remove objects, in any order; a key that is missing is fine."""


@runtime_checkable
class OpensFiles(Protocol):
    """
    What a backend can do beside the verbs whose objects are files on a disk of this machine.

    A restore then reads them where they lie, and downloads nothing. Where a disk may hang a backend
    does better without it, since a download can be given up.
    """

    def open_file(self, key: str) -> io.FileIO:
        """
        Open an object for reading, at its beginning and unbuffered; the caller closes it.

        What is open stays readable to its end, though somebody deletes the object meanwhile.

        Raises:
            NotFoundError: there is no such key.
        """


@runtime_checkable
class SyncsNames(Protocol):
    """
    What a backend can do beside the verbs where a key can be read before it is durable.

    Whoever made it may have died before that, or been told that it failed. Anywhere else what can
    be read is durable.
    """

    def sync_name(self, key: str) -> None:
        """
        Make a key durable that is there already, whoever has put it there.

        Raises:
            StorageError: it may be lost with the machine.
        """
