"""An object downloaded in ranges, several at once, each of which goes on where it broke off."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
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

#: Streams the bytes of an object from a start up to an end, which is not in it.
Get = Callable[[int, int], AsyncIterator[bytes]]
T = TypeVar("T")


async def download_ranges(
    get: Get, size: int, target: Path, *, moved: Moved, slots: asyncio.Semaphore
) -> None:
    """
    Write an object into a new file, durably; of a download that failed nothing is left.

    A range that breaks off, or ends too early, is asked for again from where it stopped. What the
    place refuses, and what does not exist, is not asked for again.

    Parameters:
        get (Callable[[int, int], AsyncIterator[bytes]]): `get(start, end)` streams a range. All of
            them have to be of the same object: a length is no proof of that.
        size (int): bytes of the whole object.
        target (Path): the file, which must not exist.
        moved (Callable[[int], None]): told of bytes as they are written; if it raises, that ends
            the download.
        slots (asyncio.Semaphore): each range under way holds one.

    Raises:
        StorageError: the file could not be written, or a range did not come whole.
    """
    with disk.disk_errors("download to", target):
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)

    async def fetch(start: int) -> None:
        end = min(start + RANGE_BYTES, size)
        async with slots, contextlib.aclosing(_whole_range(get, start, end)) as pieces:
            async for at, piece in pieces:
                if at + len(piece) > end:
                    raise StorageError(
                        f"cannot download to {target}: the place gave more bytes than it was asked "
                        "for. What is committed is untouched. Its answers to reads of a range "
                        "cannot be relied on; keep checkpoints elsewhere.",
                        lasting=True,
                    )
                with disk.disk_errors("download to", target):
                    _write_at(descriptor, piece, at)
                moved(len(piece))

    try:
        try:
            await several_at_once(fetch, range(0, size, RANGE_BYTES))
        finally:
            with disk.disk_errors("download to", target):
                os.close(descriptor)
        with disk.disk_errors("download to", target):
            # By a descriptor of its own: were this call cancelled, the thread would go on.
            await asyncio.to_thread(disk.sync_file, target)
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


async def _whole_range(get: Get, start: int, end: int) -> AsyncGenerator[tuple[int, bytes], None]:
    """The pieces of a range, each with its place."""
    at = start
    for tried in range(1, _TRIES + 1):
        begun, pieces, pause_s = at, get(at, end), 0.0
        try:
            async for piece in pieces:
                yield at, piece
                at += len(piece)
            if at >= end:
                return
        except (AccessDenied, NotFoundError):
            raise
        except Exception as error:
            if tried == _TRIES and isinstance(error, StorageError):
                error.lasting = True  # it was tried as often as it is worth
            if tried == _TRIES or getattr(error, "lasting", False):
                raise
            pause_s = wished_pause(error)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        if at == begun:
            jitter_s = random.uniform(0, _FIRST_PAUSE_S * 2 ** (tried - 1))  # noqa: S311
            await asyncio.sleep(max(jitter_s, pause_s))
    raise StorageError(
        f"bytes {start:,} to {end:,} broke off {_TRIES} times, the last time at {at:,}. What is "
        "committed is untouched. The call may be repeated.",
        lasting=True,
    )


def _write_at(descriptor: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
