"""
Long use of a place of which one call in twenty fails: nothing leaks, and all is as the rule says.

`python -m tests.endurance.soak` prints what is measured.
"""

import argparse
import contextlib
import ctypes
import gc
import itertools
import os
import random
import shutil
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from holdfast import CheckpointStore, KeepLast, Saver, layout
from holdfast.backends.base import Backend
from holdfast.backends.local import LocalBackend
from holdfast.backends.retrying import RetryingBackend
from holdfast.checkpoint import CheckpointId
from holdfast.errors import CheckpointError, CheckpointWarning, NotFoundError, StorageError
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.crash.points import memory
from tests.endurance.clock import Clock
from tests.endurance.flaky import ONE_IN, Flaky, Witness

#: How often a long run, and a short one, is healed, looked at, and goes on with an empty place.
LONG_LOOKS, SHORT_LOOKS = 400, 8
#: Bytes that memory may grow in a cycle: 1 MB in 10,000.
MOST_BYTES = 100.0
#: What a process has resident goes up and down by some MB, so a run of fewer cycles than this may
#: grow by that much more. A leak of our own objects shows in their number all the same.
LONG_RUN, NOISE_BYTES = 8_000, 4_000_000
KEEP = KeepLast(3)
ANY_AGE = timedelta(0)


class Content:
    """A state of some bytes that tell which it is."""

    def __init__(self, number: int) -> None:
        self.number = number

    def snapshot(self) -> "Content":
        return Content(self.number)

    def write_to(self, directory: Path) -> None:
        (directory / "content").write_text(f"{self.number} " * 100)

    def restore(self, directory: Path) -> None:
        self.number = int((directory / "content").read_text().split()[0])


@dataclass
class Usage:
    """What the process holds at one moment."""

    cycle: int
    bytes: int
    objects: int
    threads: int
    descriptors: int

    @classmethod
    def now(cls, cycle: int) -> "Usage":
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)  # what nobody holds is given back, where it can be
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        held = resident * os.sysconf("SC_PAGE_SIZE")
        ours = sum(str(type(each).__module__).startswith("holdfast") for each in gc.get_objects())
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        return cls(cycle, held, ours, threading.active_count(), descriptors)


class Soak:
    """
    One store that is used for long, by processes that come and go, and what is wrong with it.

    Parameters:
        seed (str): draws what is done and what fails.
        folder (Path): for the workspace, and for the place where that is a directory.
        local (bool): the place is a directory; else it is memory.

    Attributes:
        usage: what the process held whenever the place began anew.
    """

    def __init__(self, seed: str, folder: Path, *, local: bool) -> None:
        self.usage: list[Usage] = []
        self._draw = random.Random(seed)
        self._folder = folder
        self._workspace = folder / "workspace"
        self._workspace.mkdir()  # it is there though nothing was saved yet
        self._local = local
        self._clock = Clock()
        self._numbers = itertools.count(1)
        self._pins: set[tuple[str, CheckpointId]] = set()
        self._acts = [
            *[self._save_behind, self._save, self._restore, self._pin, self._unpin],
            *[self._prune, self._sweep, self._recover, self._begin],
        ]
        self._renew()

    def cycle(self) -> None:
        """Do some of all that there is to do."""
        self._begin()
        for act in self._draw.sample(self._acts, 3):
            with contextlib.suppress(StorageError, NotFoundError):
                act()
            self._flaky.release()

    def look(self, number: int) -> str:
        """Heal what is left, say what is not as the rule says, and begin with an empty place."""
        wrong = "; ".join(self._wrong())
        del self._store
        self._renew()
        self.usage.append(Usage.now(number))
        return wrong

    def _renew(self) -> None:
        shutil.rmtree(self._folder / "store", ignore_errors=True)
        place: Backend = LocalBackend(self._folder / "store")
        if not self._local:
            place = MemoryBackend()
            place.url = "memory-soak://"
        self._witness = Witness(place)
        self._flaky = Flaky(self._witness, self._clock, self._draw)
        self._writer = Writer()
        self._pins.clear()

    def _begin(self) -> None:
        """Another handle, which repeats what failed or does not; at times another process."""
        self._flaky.hangs = bool(self._draw.randrange(2))
        line: Backend = self._flaky
        if self._flaky.hangs:
            line = RetryingBackend(
                line,
                clock=self._clock.time,
                sleep=self._clock.sleep,
                random=self._draw.random,
                wait=self._clock.wait_event,
            )
        is_new = not self._draw.randrange(4)
        if is_new:
            self._writer = Writer()
        self._store = CheckpointStore(
            line, retention=KEEP, workspace=self._workspace, writer=self._writer
        )
        while is_new:  # it is started again until it could look at the place
            with contextlib.suppress(StorageError):
                self._store.recover()
                with contextlib.suppress(NotFoundError):
                    self._restore()
                is_new = False
            self._flaky.release()

    def _save(self) -> None:
        number = next(self._numbers)
        saved = self._store.save(Content(number), step=number)
        assert saved.id in self._witness.committed, "acknowledged, and not committed"

    def _save_behind(self) -> None:
        saver = Saver(self._store, max_pending=self._draw.choice([1, 2]))
        saver._pending.changed = self._clock
        self._clock.is_busy = lambda: saver._worker is not None
        futures = []
        for _ in range(self._draw.randint(1, 3)):
            number = next(self._numbers)
            futures.append(saver.save(Content(number), step=number))
            self._clock.sleep(self._draw.choice([0, 1, 20]))
        with contextlib.suppress(CheckpointError):
            saver.close()
        self._clock.is_busy = lambda: False
        for future in futures:
            if not future.exception():
                assert future.result().id in self._witness.committed

    def _restore(self) -> None:
        content = Content(0)
        found = self._store.restore(content)
        assert content.number == found.step, "other bytes came back"
        assert found.id == max(self._witness.committed), "that was not the newest"

    def _prune(self) -> None:
        self._store.prune()

    def _sweep(self) -> None:
        self._store.sweep(older_than=ANY_AGE)

    def _recover(self) -> None:
        self._store.recover()

    def _pin(self) -> None:
        found, name = self._store.latest(), f"pin-{next(self._numbers)}"
        if found is not None:
            self._store.pin(found, name)
            self._pins.add((name, found.id))

    def _unpin(self) -> None:
        if self._pins:
            pin = self._draw.choice(sorted(self._pins))
            self._pins.remove(pin)
            self._store.unpin(pin[0])

    def _wrong(self) -> Iterator[str]:
        self._flaky.one_in = 0
        store = CheckpointStore(
            self._witness, retention=KEEP, workspace=self._workspace, writer=Writer()
        )
        store.recover()
        store.prune()
        store.sweep(older_than=ANY_AGE)
        self._flaky.one_in = ONE_IN
        committed = self._witness.committed
        if len({each.step for each in committed.values()}) < len(committed):
            yield "something was committed twice"
        found = {each.id for each in store}
        pinned = {(name, id) for name, ids in store.pins().items() for id in ids}
        if lost := self._pins - pinned:
            yield f"pins were lost: {sorted(lost)}"
        kept = {*sorted(committed)[-3:]} | {id for _, id in pinned}
        if found != kept:
            yield f"there are {sorted(found)}, and the rule keeps {sorted(kept)}"
        if damage := store.verify(deep=True).damage:
            yield f"damaged: {damage}"
        if left := sorted(self._workspace.iterdir()):
            yield f"{len(left)} drafts are left in the workspace"
        named = {f"files/{each.id}/{file.path}" for each in store for file in each.files}
        named |= {layout.pin_key(name, id) for name, id in pinned} | {layout.PROBE}
        there = {entry.key for entry in self._witness.scan("")}
        if strange := {key for key in there - named if not key.startswith(layout.MANIFESTS)}:
            yield f"left over: {sorted(strange)}"


def soaks(seed: int, count: int, *, local: bool = True) -> Iterator[str]:
    """So many cycles; what was broken in each, or nothing, and at the end what leaks."""
    again = f"soaks({seed}, {count}, local={local})"
    every = max(1, count // (SHORT_LOOKS if count < LONG_RUN else LONG_LOOKS))
    with memory() as folder, warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        warnings.showwarning = lambda *_, **__: None
        soak = Soak(f"soak {seed}", folder, local=local)
        for number in range(1, count + 1):
            try:
                soak.cycle()
                wrong = "" if number % every else soak.look(number)
            except AssertionError as error:
                wrong = str(error)
            yield f"{again}, cycle {number}: {wrong}" if wrong else ""
        for leak in leaks(soak.usage):
            yield f"{again}: {leak}"


def leaks(usage: list[Usage]) -> Iterator[str]:
    """What grew from look to look, once everything is warm."""
    warm = usage[len(usage) // 4 :]
    half = len(warm) // 2
    for name in ("objects", "threads", "descriptors"):
        counts = [getattr(each, name) for each in warm]
        if min(counts[half:]) > min(counts[:half]):
            yield f"{name} grew: {counts}"
    cycles = warm[-1].cycle - warm[0].cycle
    grown = slope(warm) * cycles
    if grown > MOST_BYTES * cycles + (NOISE_BYTES if warm[-1].cycle < LONG_RUN else 0):
        yield f"memory grew by {grown:,.0f} bytes in {cycles:,} cycles, to {warm[-1].bytes:,}"


def slope(usage: list[Usage]) -> float:
    """
    Bytes in a cycle, as most pairs of looks have it.

    That is the slope of Theil and Sen (P. K. Sen, 1968). What leaks grows from each look to the
    next; an allocator that takes a megabyte at one moment, and no more, has no slope.
    """
    pairs = itertools.combinations(usage, 2)
    return statistics.median(
        (other.bytes - one.bytes) / (other.cycle - one.cycle) for one, other in pairs
    )


def main() -> int:
    """Print what was wrong in a long run, and how long it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=20_000)
    asked = parser.parse_args()
    bad, began = 0, time.monotonic()
    for local in (True, False):
        for wrong in filter(None, soaks(asked.seed, asked.cycles // 2, local=local)):
            bad += 1
            print(wrong, flush=True)
    print(f"{asked.cycles:,} cycles, {bad} wrong, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
