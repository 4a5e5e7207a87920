"""Deadlines and repetition around a backend that works over a network."""

import errno
import os
import random as randomness
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from holdfast import disk, layout
from holdfast.backends.base import Backend, Entry, Moved, Traits, unwatched
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    StorageError,
    StorageFull,
)

#: Seconds for one small call with all its tries, and for one page of a scan.
_DEADLINE_S = 30.0
#: Seconds after which a transfer is given up of which not one byte has moved.
_STANDSTILL_S = 60.0
#: How often one call is tried.
_TRIES = 6
#: Seconds of the longest first pause; it doubles with each try. How long a pause really is, is
#: drawn evenly between nothing and that, so that many clients do not come back at once.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
#: What no repetition changes: a source that is missing, a target that exists, no such bucket.
_FINAL = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})
#: A page of a scan ends with so many entries, or after so many seconds: slow progress is progress.
_PAGE_ENTRIES, _PAGE_S = 1000, 1.0
#: Seconds that an interrupted transfer is given to end, and to clean up at the place.
_FAREWELL_S = 2.0
#: The longest pause that a place may ask for.
_LONGEST_WISH_S = 60.0
#: How many keys are deleted in one call, so that each ends by the deadline.
_BATCH_KEYS = 200

T = TypeVar("T")


def wished_pause(error: BaseException) -> float:
    """Seconds after which a place wants to be asked again, as far as that is followed."""
    return min(getattr(error, "retry_after", None) or 0.0, _LONGEST_WISH_S)


class RetryingBackend:
    """
    A backend whose small calls end by a deadline, and which tries again where that may help.

    Every verb may be repeated, so it is repeated when the place fails; not when it refuses, is
    full, or answers. A `create` whose first reply was lost may then say `AlreadyExists`: whoever
    called compares what lies there.

    The deadline holds over the client too: a call that does not come back is left to a thread of
    its own, and may still take effect later. `upload` and `download` may take as long as they like,
    while bytes move; after a minute of standstill they are given up too.

    Parameters:
        inner (Backend): does the work.
        clock (Callable[[], float]): seconds since any fixed moment.
        sleep (Callable[[float], None]): waits so many seconds.
        random (Callable[[], float]): from 0 up to 1.
        wait (Callable[[threading.Event, float], bool]): waits for an event, for so many seconds at
            most, and says whether it happened.

    Attributes:
        inner (Backend): as given.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = randomness.random,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.inner = inner
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._wait = wait

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    @property
    def url(self) -> str:
        """What the place is called, without credentials."""
        return self.inner.url

    @property
    def traits(self) -> Traits:
        """How the place behaves beside the verbs."""
        return self.inner.traits

    def free_bytes(self) -> int | None:
        """How many bytes still fit there; None where there is no bound, or the place tells none."""
        return self._within_deadline("ask for the space", self.inner.free_bytes)

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""
        self._within_deadline(f"create {key}", lambda: self.inner.create(key, data))

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        return self._within_deadline(f"read {key}", lambda: self.inner.read(key))

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key."""

        def attempt() -> None:
            self._while_it_moves(
                f"upload {key}", moved, lambda note: self.inner.upload(source, key, note)
            )

        self._repeat(attempt)

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet."""
        with disk.disk_errors("download to", target):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

        def attempt() -> None:
            # A name for each try: one that was given up may still write, or clean up after itself.
            part = target.with_name(layout.PARTIAL + disk.new_name())
            try:
                self._while_it_moves(
                    f"download {key}", moved, lambda note: self.inner.download(key, part, note)
                )
                with disk.disk_errors("download to", target):
                    part.rename(target)
            finally:
                part.unlink(missing_ok=True)

        self._repeat(attempt)

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, in order."""
        entries: Iterator[Entry] | None = None
        last = after

        def turn() -> tuple[list[Entry], bool]:
            nonlocal entries
            page: list[Entry] = []
            begun = self._clock()
            # A listing that broke off cannot be gone on with: the next try begins a new one, after
            # what was handed out already.
            listing, entries = entries or self.inner.scan(prefix, last), None
            for entry in listing:
                page.append(entry)
                if len(page) == _PAGE_ENTRIES or self._clock() - begun >= _PAGE_S:
                    entries = listing
                    return page, True
            return page, False

        more = True
        while more:
            page, more = self._within_deadline(f"list {prefix or 'the store'}", turn)
            yield from page
            last = page[-1].key if page else last

    def delete(self, *keys: str) -> None:
        """Remove objects; a key that is missing is fine."""
        for start in range(0, len(keys), _BATCH_KEYS):
            batch = keys[start : start + _BATCH_KEYS]
            self._within_deadline(f"delete {batch[0]}", partial(self.inner.delete, *batch))

    def _while_it_moves(self, action: str, moved: Moved, transfer: Callable[[Moved], None]) -> None:
        last = self._clock()
        given_up = False

        def note(count: int) -> None:
            nonlocal last
            if given_up:  # it came back after all, and nobody waits for it any more
                raise StorageError(f"the attempt to {action} was given up.")
            last = self._clock()
            moved(count)

        worker = _Worker(lambda: transfer(note), name=f"holdfast {action}")
        try:
            while not self._wait(worker.done, max(0.0, last + _STANDSTILL_S - self._clock())):
                if self._clock() - last >= _STANDSTILL_S:
                    raise DeadlineExceeded(
                        f"cannot {action} in {self.url}: nothing has moved for {_STANDSTILL_S:.0f} "
                        "seconds. What is committed is untouched. The call may be repeated.",
                        lasting=True,
                    )
        except KeyboardInterrupt:
            given_up = True
            self._wait(worker.done, _FAREWELL_S)
            raise
        finally:
            given_up = True
        worker.result()

    def _within_deadline(self, action: str, call: Callable[[], T]) -> T:
        end = self._clock() + _DEADLINE_S

        def attempt() -> T:
            worker = _Worker(call, name=f"holdfast {action}")
            if not self._wait(worker.done, max(0.0, end - self._clock())):
                raise DeadlineExceeded(
                    f"cannot {action} in {self.url}: no answer within {_DEADLINE_S:.0f} seconds. "
                    "Whether it took effect is unknown. What is committed is untouched. The call "
                    "may be repeated."
                )
            return worker.result()

        return self._repeat(attempt, end)

    def _repeat(self, attempt: Callable[[], T], end: float = float("inf")) -> T:
        for tried in range(1, _TRIES):
            try:
                return attempt()
            except (AccessDenied, AlreadyExists, StorageFull):
                raise
            except StorageError as error:
                if error.errno in _FINAL or error.lasting:
                    raise
                longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (tried - 1))
                pause = max(self._random() * longest, wished_pause(error))
                if self._clock() + pause >= end:
                    error.add_note(f"It was tried {tried} times within the deadline.")
                    raise
            self._sleep(pause)
        try:
            return attempt()
        except StorageError as error:
            error.add_note(f"It was tried {_TRIES} times.")
            raise


class _Worker(Generic[T]):
    """One call in a thread of its own, which the process does not wait for when it ends."""

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self.done = threading.Event()
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:  # while the interpreter ends no thread starts: then without deadline
            self._run()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        finally:
            self.done.set()
