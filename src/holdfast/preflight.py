"""Whether a place can take a save, found out before the first epoch is spent."""

import contextlib
import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from holdfast import disk, layout
from holdfast.backends.base import Backend, Traits
from holdfast.catalog import Catalog
from holdfast.checkpoint import Checkpoint
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    CheckpointWarning,
    FormatError,
    NotFoundError,
    StorageError,
    StorageFull,
)
from holdfast.staging import Workspace

_PROBE = b"Holdfast tries here whether it may write. This is no part of a checkpoint.\n"
#: What waiting does not change: no such place, or one that is mounted for reading.
_LASTING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EROFS})

#: The places that were looked at, and what was said of them, by process: a forked child is another.
_looked_at: set[tuple[int, str]] = set()
_told: set[tuple[int, str]] = set()


@dataclass(frozen=True)
class Preflight:
    """
    What a place was found to be before anything is saved there.

    It can be listed, written and read, and so can the workspace: where it could not, an error was
    raised in the place of this.

    Attributes:
        url (str): the place, without credentials.
        free_bytes (int | None): what still fits there; None where there is no bound, or the place
            tells none.
        remarks (tuple[str, ...]): what the place cannot promise, each with what to do about it.
    """

    url: str
    free_bytes: int | None
    remarks: tuple[str, ...]


def examine(backend: Backend, catalog: Catalog, workspace: Workspace) -> Preflight:
    """
    Try the least that a save needs: room to stage, a listing, a small object created and read.

    The object, `layout.PROBE`, stays where it is, since a trainer needs no right to delete. Any
    number of processes may do this at once.

    Raises:
        AccessDenied: a right is missing; the text says which.
        StorageFull: the newest checkpoint would not fit once more.
        FormatError: the store is of a newer format.
        InvalidInputError: the workspace cannot be one.
        StorageError: the place or the workspace failed.
    """
    scratch = workspace.scratch()
    try:
        with disk.disk_errors("look for room in", scratch.directory):
            staging = shutil.disk_usage(scratch.directory).free
    finally:
        scratch.discard()
    size = _size_of_newest(catalog)
    refuses = _refuses_a_taken_key(backend)
    free = backend.free_bytes()
    remarks = list(unkept(backend.traits))
    if not refuses:
        remarks.append(
            "It overwrites what it should refuse to: put-if-absent is ignored. Let one process "
            "save at a time, and sweep only while none saves."
        )
    for room, where in ((free, backend.url), (staging, f"the workspace {workspace.path}")):
        remarks += check_room(room, size, where)
    return Preflight(backend.url, free, tuple(remarks))


def unkept(traits: Traits) -> Iterator[str]:
    """What a place of these traits cannot promise, each with what to do about it."""
    if not traits.exclusive:
        yield (
            "It does not keep processes apart that create the same object. Let one process save "
            "at a time, and sweep only while none saves."
        )
    if not traits.fresh:
        yield (
            "Its listings may lag behind what others have just written. Let one process save and "
            "prune at a time, and give a process that takes over a minute."
        )
    if not traits.durable:
        yield (
            "What is saved lies in a cache of this machine at first, and is lost with it. Before "
            "the machine is given up, wait until the place has it: on a mounted Google Drive "
            "`holdfast wait` does."
        )


def check_room(room: int | None, size: int, where: str) -> Iterator[str]:
    """
    What to say where the newest checkpoint does not fit twice more.

    Parameters:
        room (int | None): bytes that are free; None where there is no bound.
        size (int): bytes of the newest checkpoint.
        where (str): what has the room.

    Raises:
        StorageFull: it does not fit once more.
    """
    if room is None or room >= 2 * size:
        return
    what = f"{where} has room for {room:,} bytes, and the newest checkpoint has {size:,}."
    if room < size:
        raise StorageFull(
            f"{what} The next would not fit. What is committed is untouched. Make room there "
            "before training begins."
        )
    yield f"{what[0].upper()}{what[1:]} Make room there before a second one comes."


def tell(found: Preflight) -> None:
    """Warn of what a place cannot promise, once in a process."""
    if found.remarks and _is_first(_told, found.url):
        text = f"{found.url} can be saved to, with a restriction: {' '.join(found.remarks)}"
        warnings.warn(text, CheckpointWarning, stacklevel=3)


def once(url: str, preflight: Callable[[], object], *, on_error: Literal["warn", "raise"]) -> None:
    """
    Run the preflight of a place, unless this process has.

    What no waiting would change is raised in any case: a missing right, no room, no such bucket. A
    place that only cannot be reached just now may be there when the first save comes.

    Parameters:
        url (str): the place.
        preflight (Callable[[], object]): runs it.
        on_error (str): `warn` lets the training begin where the place cannot be reached just now.
    """
    if (os.getpid(), url) in _looked_at:
        return
    try:
        preflight()
    except StorageError as error:
        if on_error == "raise" or not _may_pass(error):
            raise
        warnings.warn(
            f"whether {url} can be saved to is unknown: {error} Training may begin; what is saved "
            "stays in the workspace until the place takes it.",
            CheckpointWarning,
            stacklevel=3,
        )
    _is_first(_looked_at, url)


def _may_pass(error: StorageError) -> bool:
    is_final = isinstance(error, AccessDenied | StorageFull) or error.lasting
    return not is_final and error.errno not in _LASTING


def _is_first(seen: set[tuple[int, str]], url: str) -> bool:
    key = (os.getpid(), url)
    is_first = key not in seen
    seen.add(key)
    return is_first


def _size_of_newest(catalog: Catalog) -> int:
    """Bytes of the newest checkpoint, as far as it can be told; 0 where there is none."""
    ids = catalog.ids()
    if ids:
        try:
            newest = catalog.read(ids[-1])
        except NotFoundError:
            return 0  # removed since
        except FormatError as error:
            if error.newer:
                raise
            return 0
        if isinstance(newest, Checkpoint):
            return newest.size
    return 0


def _refuses_a_taken_key(backend: Backend) -> bool:
    """Whether a create of what is there fails; it also proves the rights to write and to read."""
    is_mine = _create(backend, layout.PROBE)
    refuses = not is_mine or not _create(backend, layout.PROBE)
    if refuses and not (is_mine or backend.traits.exclusive):
        # It may have looked and not asked the server, so nothing was proved yet.
        own = f"{layout.probe_prefix(disk.new_name())}write"
        _create(backend, own)
        with contextlib.suppress(AccessDenied):  # then a sweep removes it
            backend.delete(own)
    try:
        read = backend.read(layout.PROBE)
    except NotFoundError as error:
        raise StorageError(
            f"{backend.url} took {layout.PROBE}, and then says that there is none. Nothing else "
            "was touched. Look at the place; save elsewhere until it gives back what it took."
        ) from error
    if is_mine and read != _PROBE:
        raise StorageError(
            f"{backend.url} took {layout.PROBE}, and gives back other bytes. Nothing else was "
            "touched. Look at the place; save elsewhere until it gives back what it took.",
            lasting=True,
        )
    return refuses


def _create(backend: Backend, key: str) -> bool:
    try:
        backend.create(key, _PROBE)
    except AlreadyExists:
        return False
    return True
