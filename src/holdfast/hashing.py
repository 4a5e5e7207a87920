"""The hash of a file, taken in the same pass that writes or reads it."""

import contextlib
import hashlib
import io
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

#: Bytes that are written, read and handed on at a time. Many, since a thread that has to wait for
#: the interpreter's lock waits for some milliseconds.
_BLOCK_BYTES = 8 * 1024 * 1024
#: How many pieces of memory one call of the system takes: IOV_MAX of Linux is 1,024.
_PIECES = 512
#: Bytes at a time of what only passes by, so that it is hashed while the processor's cache has it:
#: measured, that takes a quarter less of the processor than blocks of 8 MiB.
_PASSING_BYTES = 1024 * 1024
#: A file up to this size is worth no thread.
_SMALL_BYTES = 1024 * 1024
#: Bytes that may wait for a thread in memory that nobody else holds; of other memory any amount.
_COPIED_BYTES = 32 * 1024 * 1024

#: What can be handed over as bytes.
Buffer = bytes | bytearray | memoryview


def hash_file(path: Path) -> str:
    """A file's SHA-256 with the algorithm's name before it, as a manifest has it."""
    with path.open("rb", buffering=0) as file:
        return _named(hashlib.file_digest(file, "sha256").hexdigest())


def in_order(into: Iterable[tuple[int, memoryview]], size: int) -> Sequence[tuple[int, memoryview]]:
    """
    Stretches of a file in its order, each with its memory as plain bytes; empty ones are left out.

    Parameters:
        into (Iterable[tuple[int, memoryview]]): where each begins, and the memory that it goes to.
        size (int): bytes of the file.

    Raises:
        EOFError: a stretch does not lie within the file.
        ValueError: one stretch lies over another.
    """
    ordered: list[tuple[int, memoryview]] = []
    end = 0
    for start, memory in sorted(into, key=itemgetter(0)):
        if start < 0 or start + memory.nbytes > size:
            raise EOFError(f"bytes {start:,} to {start + memory.nbytes:,} of {size:,}")
        if not memory.nbytes:  # which has no form as plain bytes
            continue
        if start < end:
            raise ValueError(f"the bytes from {start:,} on are asked for twice")
        end = start + memory.nbytes
        ordered.append((start, memory.cast("B")))
    return ordered


def fill(file: io.FileIO, views: Sequence[memoryview]) -> None:
    """
    Read until all memory is full, one piece after the other.

    Raises:
        EOFError: the file ends too early.
    """
    while views:
        count = os.readv(file.fileno(), views)
        if not count:
            raise EOFError("the file ends too early")
        views = _after(views, count)


def read_hashed(file: io.FileIO, into: Iterable[tuple[int, memoryview]] = ()) -> str:
    """
    Read a file from its beginning to its end, once, and hash it on the way.

    It is read in the caller's thread and hashed in another.

    Parameters:
        file (io.FileIO): opened for reading, at its beginning.
        into (Iterable[tuple[int, memoryview]]): where in the file stretches begin that are wanted,
            and the memory to put each into, as `in_order`. What they hold is worth nothing before
            the hash was compared.

    Returns:
        str: the hash of the whole file, as `hash_file`.

    Raises:
        EOFError: a stretch does not lie within the file.
        ValueError: one stretch lies over another.
        OSError: it could not be read.
    """
    size = os.fstat(file.fileno()).st_size
    stretches = in_order(into, size)
    hashing = _Hashing()
    with _Lane(hashing.update, threaded=size > _SMALL_BYTES) as lane:
        batch = _Batch()
        at = 0
        for start, memory in stretches:
            for unwanted in _unwanted(start - at):
                batch.add(unwanted, copied=True)
                _read_full(file, batch, lane)
            for block in _blocks(memory):
                batch.add(block)
                _read_full(file, batch, lane)
            at = start + len(memory)
        _read(file, batch, lane)
        while rest := file.read(_PASSING_BYTES):
            batch.add(memoryview(rest), copied=True)
            batch.hand_on(lane)
    return hashing.hash


def copy_hashed(file: io.FileIO, target: Path, *, durable: bool) -> str:
    """
    Copy a file into a new one, and hash it in the same pass.

    Parameters:
        file (io.FileIO): opened for reading, at its beginning.
        target (Path): must not exist; of a copy that failed nothing is left.
        durable (bool): as `HashedFile`.

    Returns:
        str: the hash of what was copied, as `hash_file`.

    Raises:
        OSError: it could not be read or written.
    """
    with HashedFile(target, durable=durable) as copy:
        while block := file.read(_PASSING_BYTES):
            copy.write(block, copied=True)
    return copy.hash


class HashedFile:
    """
    A new file that is hashed while it is written.

    Hashing and writing each have a thread of their own beside the caller's, and none of them holds
    the interpreter's lock while it works. Of a file whose block raises nothing is left. It has
    neither `tell` nor `seek`: it is written from its beginning to its end.

    Parameters:
        path (Path): must not exist.
        durable (bool): once it is closed its content survives a power cut; its name does not yet.

    Attributes:
        hash (str): its hash, as `hash_file` gives it; empty until the file is closed.
        size (int): bytes written so far.

    Raises:
        OSError: it exists, or cannot be written.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.hash = ""
        self.size = 0
        self._path = path
        self._durable = durable
        self._hashing = _Hashing()
        self._batch = _Batch()
        self._lanes: tuple[_Lane, ...] = ()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o666)

    def write(self, data: Buffer, *, copied: bool = False) -> int:
        """
        Put bytes at the end; they must not change before the file is closed.

        Parameters:
            data (Buffer): contiguous.
            copied (bool): nobody else holds that memory, so only some of it may wait here. Of
                other memory any amount may: it is there anyway.

        Returns:
            int: how many bytes that were.
        """
        view = memoryview(data)
        if view.nbytes:  # else it has no form as plain bytes
            for block in _blocks(view.cast("B")):
                self._batch.add(block, copied=copied)
                if self._batch.is_full:
                    self._hand_on()
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Nothing to do: whoever needs the bytes closes the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failure = error
        try:
            if failure is None:
                self._finish()
        except BaseException as raised:
            failure = raised
            raise
        finally:
            self._close(failure)

    def _close(self, failure: BaseException | None) -> None:
        try:
            for lane in self._lanes:
                # Who interrupts this as well has the file stay open: a thread still writes to it.
                lane.end(failure)
            os.close(self._descriptor)  # a full disk may show only here
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        if failure is not None:
            self._path.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._lanes or self.size > _SMALL_BYTES:
            self._hand_on()
            writing, hashing = self._lanes
            writing.join()
            self._sync()
            hashing.join()
        else:
            self._write(self._batch.views)
            self._hashing.update(self._batch.views)
            self._sync()
        self.hash = self._hashing.hash

    def _sync(self) -> None:
        if self._durable:
            os.fsync(self._descriptor)

    def _hand_on(self) -> None:
        if not self._lanes:
            self._lanes = (_Lane(self._write), _Lane(self._hashing.update))
        self._batch.hand_on(*self._lanes)

    def _write(self, views: Sequence[memoryview]) -> None:
        while views:
            views = _after(views, os.writev(self._descriptor, views))


class _Hashing:
    """The hash of what passes by."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, views: Sequence[memoryview]) -> None:
        for view in views:
            self._digest.update(view)

    @property
    def hash(self) -> str:
        return _named(self._digest.hexdigest())


class _Batch:
    """
    Memory that is handed on together, so that many small pieces are few calls; nothing is copied.

    Attributes:
        views (list[memoryview]): in the order of the file.
    """

    def __init__(self) -> None:
        self.views: list[memoryview] = []
        self._bytes = 0
        self._copied = 0

    def add(self, view: memoryview, *, copied: bool = False) -> None:
        self.views.append(view)
        self._bytes += len(view)
        self._copied += len(view) if copied else 0

    @property
    def is_full(self) -> bool:
        return self._bytes >= _BLOCK_BYTES or len(self.views) >= _PIECES

    def hand_on(self, *lanes: "_Lane") -> None:
        views, copied = self.views, self._copied
        self.views, self._bytes, self._copied = [], 0, 0
        for lane in lanes:
            lane.put(views, copied=copied)


class _Lane:
    """
    Batches worked on in their order by one thread; in the caller's where none can be started.

    Parameters:
        work (Callable): what to do with a batch.
        threaded (bool): False takes the caller's thread: so little is to be done that no other is
            worth its start.
    """

    def __init__(
        self, work: Callable[[Sequence[memoryview]], object], *, threaded: bool = True
    ) -> None:
        self._work = work
        # Without a bound, so that what is written is not kept waiting by what is hashed, and the
        # disk has its time while the hash is taken.
        self._batches: queue.SimpleQueue[Sequence[memoryview] | threading.Event | None]
        self._batches = queue.SimpleQueue()
        self._copied = 0
        self._failure: BaseException | None = None
        self._threaded = False
        # It is waited for by this, since a wait for a thread that is interrupted (Ctrl+C) takes the
        # thread for ended up to Python 3.12, and what it writes to must not be closed before.
        self._ended = threading.Event()
        if threaded:
            # A daemon, so that a disk that hangs keeps no process from ending.
            thread = threading.Thread(target=self._run, name="holdfast hashing", daemon=True)
            with contextlib.suppress(RuntimeError):  # while the interpreter ends no thread starts
                thread.start()
                self._threaded = True

    def put(self, views: Sequence[memoryview], *, copied: int) -> None:
        """
        Hand memory over.

        Parameters:
            views (Sequence[memoryview]): not to be changed any more.
            copied (int): bytes in it that nobody else holds, so that only some may wait.

        Raises:
            BaseException: the work failed before.
        """
        if self._failure is not None:
            raise self._failure
        if not self._threaded:
            self._work(views)
            return
        self._batches.put(views)
        self._copied += copied
        if self._copied >= _COPIED_BYTES:
            self._copied = 0
            self._batches.put(caught_up := threading.Event())
            caught_up.wait()

    def end(self, because: BaseException | None = None) -> None:
        """
        Wait for what was handed over; repeating it is fine.

        Parameters:
            because (BaseException | None): what makes it worth nothing, so that nothing more of it
                is worked on.
        """
        self._failure = self._failure or because
        if self._threaded:
            self._batches.put(None)
            self._ended.wait()

    def join(self) -> None:
        """
        As `end`, and raise what failed.

        Raises:
            BaseException: the first failure of the work.
        """
        self.end()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.join()
        else:
            self.end(error)

    def _run(self) -> None:
        try:
            self._take()
        finally:
            self._ended.set()

    def _take(self) -> None:
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, threading.Event):
                batch.set()
            elif self._failure is None:  # else what comes is only taken, so that nobody waits
                try:
                    self._work(batch)
                except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                    self._failure = error


def _read_full(file: io.FileIO, batch: _Batch, lane: _Lane) -> None:
    if batch.is_full:
        _read(file, batch, lane)


def _read(file: io.FileIO, batch: _Batch, lane: _Lane) -> None:
    """Fill a batch from the file, and hand it on."""
    fill(file, batch.views)
    batch.hand_on(lane)


def _after(views: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """What is left of memory when so many bytes of it are done."""
    for number, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[number + 1 :]]
        count -= len(view)
    return []


def _blocks(view: memoryview) -> Iterator[memoryview]:
    return (view[at : at + _BLOCK_BYTES] for at in range(0, len(view), _BLOCK_BYTES))


def _unwanted(count: int) -> Iterator[memoryview]:
    """Memory for bytes that are only hashed."""
    for at in range(0, count, _PASSING_BYTES):
        yield memoryview(bytearray(min(_PASSING_BYTES, count - at)))


def _named(digest: str) -> str:
    return f"sha256:{digest}"
