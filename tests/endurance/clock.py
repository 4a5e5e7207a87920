"""A clock that a test moves, for a saver and for a place that fails."""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

#: Seconds of real time after which what should go on is taken to hang.
PATIENCE_S = 20.0
#: Seconds of real time after which a call that has not come back is looked at again.
_MOMENT_S = 0.001
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Clock(threading.Condition):
    """
    Time that passes only while the thread that trains waits and nobody else has anything to do.

    It is the condition of a saver as well, whose waiting then goes by it, and what a
    `RetryingBackend` sleeps and waits by. So the seconds that a save takes are those that it waits
    for something, however busy the machine is.

    Attributes:
        now: seconds since the beginning.
        is_busy: whether somebody works beside the thread that trains.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.is_busy: Callable[[], bool] = lambda: False
        self._trains = threading.current_thread()
        self._wakes: list[float] = []  # when those that sleep wake up
        self._hung: list[float] = []  # likewise, of those whose call hangs
        #: The calls that hang, and which wait has given each of them up.
        self._hanging: dict[threading.Thread, threading.Event | None] = {}

    def time(self) -> float:
        """Seconds since the beginning."""
        return self.now

    def date(self) -> datetime:
        """The same as a date."""
        return _BEGINNING + timedelta(seconds=self.now)

    def sleep(self, seconds: float) -> None:
        """Wait; for the thread that trains this is to train."""
        self.wait_for(lambda: False, seconds)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        """As any condition does, by this clock."""
        end = self.now + (math.inf if timeout is None else timeout)
        if threading.current_thread() is self._trains:
            return self._move(predicate, end)
        with self:
            self._wakes.append(end)
            self.notify_all()
            self._really_wait_for(lambda: predicate() or self.now >= end)
            return bool(predicate())

    def wait_event(self, event: threading.Event, seconds: float) -> bool:
        """Wait for a call in another thread, which may hang."""
        # A little more, or rounding lets a wait end just before what it waited for is due.
        end, is_noted = self.now + seconds + 1e-6, False
        while not event.wait(_MOMENT_S):
            with self:
                hanging = [
                    call for call, given_up in self._hanging.items() if given_up in (None, event)
                ]
                if self.now >= end:
                    self._hanging.update(dict.fromkeys(hanging, event))
                    return False
                if hanging and threading.current_thread() is self._trains:
                    self._move(event.is_set, end)
                elif hanging and not is_noted:
                    is_noted = True
                    self._hung.append(end)
                    self.notify_all()
        return True

    def hang(self, until: threading.Event) -> None:
        """Let a call hang, until the network is back or later."""
        with self:
            self._hanging[threading.current_thread()] = None
        assert until.wait(PATIENCE_S), "nobody ended what hangs"

    def go_on(self) -> None:
        """What hangs comes to its end just now."""
        with self:
            self._hanging, self._hung = {}, []

    def _move(self, predicate: Callable[[], Any], end: float) -> bool:
        with self:
            while True:
                self._really_wait_for(lambda: predicate() or self._is_quiet())
                if predicate():
                    return True
                if self.now >= end:
                    return False
                self.now = min([*self._wakes, *self._hung, end])
                assert self.now < math.inf, "it waits for what nobody will ever do"
                self._wakes = [wakes for wakes in self._wakes if wakes > self.now]
                self._hung = [wakes for wakes in self._hung if wakes > self.now]
                self.notify_all()

    def _is_quiet(self) -> bool:
        return bool(self._wakes or self._hung) or not self.is_busy()

    def _really_wait_for(self, predicate: Callable[[], Any]) -> None:
        assert super().wait_for(predicate, PATIENCE_S), f"it hangs, at {self.now:.1f} s"
