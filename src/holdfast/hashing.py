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

#: Bytes that are written, read and hashed at a time. Python lets go of its lock for each.
#: Many, since a thread that has to wait for the lock waits for some milliseconds.
_BLOCK_BYTES = 8 * 1024 * 1024
#: Bytes at a time of what only passes by, so that it is hashed while the processor's cache has it:
#: measured, that takes a quarter less of the processor than blocks of 8 MiB.
_PASSING_BYTES = 1024 * 1024
#: What is smaller is gathered to blocks of about this size, so that many small pieces are few.
_SMALL_BYTES = 1024 * 1024
#: How many blocks that were copied may wait for a thread; of the others only views are held.
_COPIED_AHEAD = 8

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


def fill(file: io.FileIO, memory: memoryview) -> None:
    """
    Read until the memory is full.

    Raises:
        EOFError: the file ends too early.
    """
    while memory:
        count = file.readinto(memory)
        if not count:
            raise EOFError("the file ends too early")
        memory = memory[count:]


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
    digest = hashlib.sha256()
    with _Lane(digest.update, threaded=size > _SMALL_BYTES) as lane:
        at = 0
        for start, memory in stretches:
            for block in _unwanted(start - at):
                fill(file, block)
                lane.put(block, copied=True)
            for block in _blocks(memory):
                fill(file, block)
                lane.put(block)
            at = start + len(memory)
        while rest := file.read(_PASSING_BYTES):
            lane.put(rest, copied=True)
    return _named(digest.hexdigest())


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
        self._digest = hashlib.sha256()
        self._small = bytearray()
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
        if view.nbytes >= _SMALL_BYTES:
            self._hand_on_small()
            for block in _blocks(view.cast("B")):
                self._hand_on(block, copied=copied)
        elif view.nbytes:
            self._small += view.cast("B")
            if len(self._small) >= _SMALL_BYTES:
                self._hand_on_small()
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
        try:
            try:
                if error is None:
                    self._finish()
            finally:
                for lane in self._lanes:
                    lane.end()
                os.close(self._descriptor)  # a full disk may show only here
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        if error is not None:
            self._path.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._lanes:
            self._hand_on_small()
            writing, hashing = self._lanes
            writing.join()
            self._sync()
            hashing.join()
        else:  # all of it is small: no thread is worth its start
            self._write(self._small)
            self._digest.update(self._small)
            self._sync()
        self.hash = _named(self._digest.hexdigest())

    def _sync(self) -> None:
        if self._durable:
            os.fsync(self._descriptor)

    def _hand_on_small(self) -> None:
        if self._small:
            gathered, self._small = self._small, bytearray()
            self._hand_on(gathered, copied=True)

    def _hand_on(self, block: Buffer, *, copied: bool) -> None:
        if not self._lanes:
            self._lanes = (_Lane(self._write), _Lane(self._digest.update))
        for lane in self._lanes:
            lane.put(block, copied=copied)

    def _write(self, block: Buffer) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._descriptor, view) :]


class _Lane:
    """
    Blocks worked on in their order by one thread; in the caller's where none can be started.

    Parameters:
        work (Callable): what to do with a block.
        threaded (bool): False takes the caller's thread: so little is to be done that no other is
            worth its start.
    """

    def __init__(self, work: Callable[[Buffer], object], *, threaded: bool = True) -> None:
        self._work = work
        # Without a bound, so that what is written is not kept waiting by what is hashed, and the
        # disk has its time while the hash is taken.
        self._blocks: queue.SimpleQueue[Buffer | threading.Event | None] = queue.SimpleQueue()
        self._copied = 0
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        if threaded:
            # A daemon, so that a disk that hangs keeps no process from ending.
            thread = threading.Thread(target=self._run, name="holdfast hashing", daemon=True)
            with contextlib.suppress(RuntimeError):  # while the interpreter ends no thread starts
                thread.start()
                self._thread = thread

    def put(self, block: Buffer, *, copied: bool = False) -> None:
        """
        Hand a block over.

        Parameters:
            block (Buffer): not to be changed any more.
            copied (bool): it takes memory of its own, so only some may wait.

        Raises:
            BaseException: the work failed at an earlier block.
        """
        if self._failure is not None:
            raise self._failure
        if self._thread is None:
            self._work(block)
            return
        self._blocks.put(block)
        self._copied += copied
        if self._copied >= _COPIED_AHEAD:
            self._copied = 0
            self._blocks.put(caught_up := threading.Event())
            caught_up.wait()

    def end(self) -> None:
        """Wait for what was handed over; repeating it is fine."""
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
            self._thread = None

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
            self.end()

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            if isinstance(block, threading.Event):
                block.set()
            elif self._failure is None:  # else what comes is only taken, so that nobody waits
                try:
                    self._work(block)
                except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                    self._failure = error


def _blocks(view: memoryview) -> Iterator[memoryview]:
    return (view[at : at + _BLOCK_BYTES] for at in range(0, len(view), _BLOCK_BYTES))


def _unwanted(count: int) -> Iterator[memoryview]:
    """Memory for bytes that are only hashed."""
    for at in range(0, count, _PASSING_BYTES):
        yield memoryview(bytearray(min(_PASSING_BYTES, count - at)))


def _named(digest: str) -> str:
    return f"sha256:{digest}"
