"""An object downloaded in ranges, several at once, each of which goes on where it broke off."""

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from holdfast import disk
from holdfast.backends.base import Moved
from holdfast.backends.retrying import wished_pause
from holdfast.errors import AccessDenied, NotFoundError, StorageError

#: Bytes in one range. The first one of an object is the whole of it where it is small.
RANGE_BYTES = 16 * 1024 * 1024
#: How many parts of one object are under way at once.
_AT_ONCE = 8
#: How often one range is asked for, and the longest first pause after a try that gave nothing.
_TRIES, _FIRST_PAUSE_S = 6, 0.5

#: Takes pieces of a range in their order, from any thread, one at a time.
Put = Callable[[bytes], None]
#: Hands the bytes of an object on, from a start up to an end, which is not in it.
Get = Callable[[int, int, Put], Awaitable[None]]
T = TypeVar("T")


async def download_ranges(
    get: Get, size: int, target: Path, *, moved: Moved, slots: asyncio.Semaphore
) -> None:
    """
    Write an object into a new file; of a download that failed nothing is left.

    A range that breaks off, or ends too early, is asked for again from where it stopped. What the
    place refuses, and what does not exist, is not asked for again.

    Parameters:
        get (Callable[[int, int, Put], Awaitable[None]]): `get(start, end, put)` hands a range on,
            in pieces. All of them have to be of the same object: a length is no proof of that.
        size (int): bytes of the whole object.
        target (Path): the file, which must not exist.
        moved (Callable[[int], None]): told of bytes as they are written; if it raises, that ends
            the download.
        slots (asyncio.Semaphore): each range under way holds one.

    Raises:
        StorageError: the file could not be written, or a range did not come whole.
    """
    file = _Target(target, moved)

    async def fetch(start: int) -> None:
        async with slots:
            await _fetch_range(get, start, min(start + RANGE_BYTES, size), file)

    try:
        try:
            await several_at_once(fetch, range(0, size, RANGE_BYTES))
        finally:
            file.close()
    except BaseException:
        target.unlink(missing_ok=True)
        raise


async def several_at_once(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Begin with the items in their order; the first failure ends all the others, and is raised."""
    left = iter(items)  # shared: each worker takes the next one
    failures: list[Exception] = []

    async def go_on() -> None:
        for item in left:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(go_on())
    except ExceptionGroup as group_of_failures:
        failures.extend(group_of_failures.exceptions)
    if failures:
        raise failures[0]


class _Target:
    """
    The new file; what comes after it was closed is refused, since threads may outlive a call.

    Attributes:
        has_failed (bool): a piece could not be written, which no other try at the place changes.
    """

    def __init__(self, path: Path, moved: Moved) -> None:
        self.has_failed = False
        self._path = path
        self._moved = moved
        self._writing = threading.Lock()
        with disk.disk_errors("download to", path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._descriptor: int | None = os.open(path, flags, 0o666)

    def write(self, piece: bytes, at: int, end: int) -> None:
        """Write a piece of a range that ends there."""
        try:
            self._write(piece, at, end)
            self._moved(len(piece))
        except BaseException:
            self.has_failed = True
            raise

    def close(self) -> None:
        """Take no more."""
        with self._writing, disk.disk_errors("download to", self._path):
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)

    def _write(self, piece: bytes, at: int, end: int) -> None:
        if at + len(piece) > end:
            raise StorageError(
                f"cannot download to {self._path}: the place gave more bytes than it was asked "
                "for. What is committed is untouched. Its answers to reads of a range cannot be "
                "relied on; keep checkpoints elsewhere.",
                lasting=True,
            )
        with self._writing, disk.disk_errors("download to", self._path):
            if self._descriptor is None:
                raise StorageError(f"the download to {self._path} was given up.")
            view = memoryview(piece)
            while view:
                written = os.pwrite(self._descriptor, view, at)
                view, at = view[written:], at + written


async def _fetch_range(get: Get, start: int, end: int, file: _Target) -> None:
    at = start

    def put(piece: bytes) -> None:
        nonlocal at
        file.write(piece, at, end)
        at += len(piece)

    for tried in range(1, _TRIES + 1):
        begun, pause_s = at, 0.0
        try:
            await get(at, end, put)
            if at >= end:
                return
        except Exception as error:
            if file.has_failed or _is_final(error, tried):
                raise
            pause_s = wished_pause(error)
        if at == begun:
            jitter_s = random.uniform(0, _FIRST_PAUSE_S * 2 ** (tried - 1))  # noqa: S311
            await asyncio.sleep(max(jitter_s, pause_s))
    raise StorageError(
        f"bytes {start:,} to {end:,} broke off {_TRIES} times, the last time at {at:,}. What is "
        "committed is untouched. The call may be repeated.",
        lasting=True,
    )


def _is_final(error: Exception, tried: int) -> bool:
    """Whether a range is not asked for again."""
    if tried == _TRIES and isinstance(error, StorageError):
        error.lasting = True  # it was tried as often as it is worth
    refused = isinstance(error, (AccessDenied, NotFoundError))
    return refused or tried == _TRIES or getattr(error, "lasting", False)
