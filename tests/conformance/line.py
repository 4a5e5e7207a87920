"""A way to a place that passes a proxy, and on which waiting takes no time."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from holdfast.backends.base import Backend, Entry, Moved, unwatched
from holdfast.backends.retrying import RetryingBackend
from tests.conformance.places import Place
from tests.servers.proxy import FaultProxy

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """
    One verb that the store called.

    Attributes:
        requests: how many were made meanwhile.
        calls: how many made them: this one, and those that shared its time.
        seconds: how long it took by the line's clock.
    """

    verb: str
    key: str
    requests: int
    calls: int
    seconds: float


class Line:
    """
    A backend behind the proxy, and the clock that it goes by.

    Pauses between tries are over at once, and so is the wait for a request that the proxy lets
    hang; the clock is set forward by as much.

    Attributes:
        proxy: what every request passes.
        calls: what the store has called since the line was cleared.
        slept: the seconds of every pause.
    """

    def __init__(self, place: Place, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.calls: list[Call] = []
        self.slept: list[float] = []
        self._place = place
        self._ahead = 0.0
        self._given_up = 0
        self._under_way: dict[object, int] = {}
        self._lock = threading.Lock()
        self._inner: Backend | None = None
        # Drive's client remembers what it made; each has connections of its own.
        self._makes_anew = place.name == "drive"

    def clear(self) -> None:
        """Forget what was called; calls that were given up come to their end first."""
        self.proxy.release()
        for thread in threading.enumerate():
            if thread.name.startswith("holdfast "):
                thread.join(60)
        if self._makes_anew:
            self.proxy.hang_up()
        self.calls, self.slept = [], []
        self._given_up = 0

    def backend(self) -> Backend:
        """The place as the store gets it; the client is made once, except for Drive's."""
        if self._inner is None or self._makes_anew:
            opened = self._place.backend(endpoint=self.proxy.endpoint)
            assert isinstance(opened, RetryingBackend)
            self._inner = opened.inner
        retrying = RetryingBackend(
            self._inner, clock=self._clock, sleep=self._sleep, random=lambda: 0.5, wait=self._wait
        )
        return Metered(retrying, self)

    def count(self, verb: str, key: str, call: Callable[[], T]) -> T:
        """Note what a call costs."""
        before, began = len(self.proxy.requests), self._clock()
        me = object()
        with self._lock:
            beside = {each: calls + 1 for each, calls in self._under_way.items()}
            self._under_way = {**beside, me: len(beside) + 1}
        try:
            return call()
        finally:
            with self._lock:
                calls = self._under_way.pop(me)
            cost = len(self.proxy.requests) - before
            self.calls.append(Call(verb, key, cost, calls, self._clock() - began))

    def _clock(self) -> float:
        return time.monotonic() + self._ahead

    def _sleep(self, seconds: float) -> None:
        self._ahead += seconds
        self.slept.append(seconds)

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        end, began = self._clock() + seconds, time.monotonic()
        while not event.wait(0.01):
            left = end - self._clock()
            # Also what waits for a call that hangs gets no further.
            stuck = self.proxy.hanging and time.monotonic() - began > 0.5
            if left <= 0 or stuck or self._hangs():
                self._ahead += max(0.0, left)
                return False
        return True

    def _hangs(self) -> bool:
        """Whether a request hangs that nobody has given up yet."""
        with self._lock:
            if self.proxy.hanging > self._given_up:
                self._given_up += 1
                return True
            return False


class Metered:
    """A backend whose every call is counted; its URL stays when the place gets another one."""

    url = "metered://store"

    def __init__(self, inner: Backend, line: Line) -> None:
        self._inner, self._line = inner, line
        self.traits, self.free_bytes = inner.traits, inner.free_bytes

    def create(self, key: str, data: bytes) -> None:
        self._line.count("create", key, lambda: self._inner.create(key, data))

    def read(self, key: str) -> bytes:
        return self._line.count("read", key, lambda: self._inner.read(key))

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        self._line.count("upload", key, lambda: self._inner.upload(source, key, moved))

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        self._line.count("download", key, lambda: self._inner.download(key, target, moved))

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        yield from self._line.count("scan", prefix, lambda: list(self._inner.scan(prefix, after)))

    def delete(self, *keys: str) -> None:
        self._line.count("delete", " ".join(keys), lambda: self._inner.delete(*keys))
