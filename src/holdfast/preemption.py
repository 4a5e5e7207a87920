"""Being asked to stop: by SIGTERM, by a cloud's notice, or by a call."""

import inspect
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Literal, Self, get_args

from holdfast.errors import InvalidInputError

#: Whose metadata service can be watched.
Cloud = Literal["gce", "aws"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """
    Somebody wants this process to end.

    Attributes:
        reason (str): who, such as `SIGTERM`.
        deadline (float): when the process will be ended, on the clock of `time.monotonic`.
    """

    reason: str
    deadline: float


class Preemption:
    """
    Turns SIGTERM into a notice that the training loop looks at, so that it can save and then end.

    The handler takes note and does nothing else. Who looks at `notice` saves, waits for the commit,
    and calls `end`: the process then ends as if the signal had come just now, by the handler that
    was there before, or with the signal's own exit code. A second SIGTERM does that at once, in the
    middle of a save.

    A process that ignores SIGTERM goes on ignoring it. In a forked child the signal does what it
    did before `install`, until the child installs it itself.

    Use it as a context manager, or call `install` and `uninstall`.

    Parameters:
        grace (float): seconds from a notice until the process is ended, unless the notice says so.
        watch (Collection[str]): also ask the metadata service of `gce` or `aws`, on a thread each,
            whether the machine is about to be taken away.

    Raises:
        InvalidInputError: an argument is wrong.
    """

    def __init__(self, *, grace: float = 25.0, watch: Collection[Cloud] = ()) -> None:
        self._grace = _seconds(grace)
        self._clouds = _clouds(watch)
        # Notices are appended, never compared with the one before: that would need a lock, and a
        # signal handler that waits for one may wait for the very code that it interrupted.
        self._notices: list[Notice] = []
        self._is_signalled = False
        self._heeded: list[Callable[[FrameType | None], bool]] = []
        self._around: list[int] = []
        self._handler: _Handler | None = None
        self._stops: list[Callable[[], None]] = []
        self._pid = os.getpid()

    @property
    def notice(self) -> Notice | None:
        """The notice that leaves the least time; None until there is one, and again after `end`."""
        return min(self._notices, key=lambda notice: notice.deadline, default=None)

    def remaining(self) -> float | None:
        """The seconds left until the process is ended, 0 when they are over; None if it is not."""
        notice = self.notice
        return None if notice is None else max(0.0, notice.deadline - time.monotonic())

    def request(self, reason: str = "asked for", *, grace: float | None = None) -> None:
        """
        Ask to stop, as SIGTERM does; from any thread.

        Parameters:
            reason (str): who asks.
            grace (float | None): seconds until the process is ended; None for those of this object.

        Raises:
            InvalidInputError: an argument is wrong.
        """
        seconds = self._grace if grace is None else _seconds(grace)
        self._notices.append(Notice(reason, time.monotonic() + seconds))

    def install(self, *, heeded: Callable[[FrameType | None], bool] = lambda _: True) -> bool:
        """
        Put the handler in, and begin to watch.

        It may be repeated; the handler stays until `uninstall` was called as often. Outside the
        main thread, where SIGTERM is ignored, and where its handler was not put in from Python,
        none is put in, and the log says so; the rest works all the same.

        Parameters:
            heeded (Callable[[FrameType | None], bool]): says whether anybody still looks at
                `notice`, given the frame that the signal interrupts. Where nobody does, the signal
                does at once what it did before.

        Returns:
            bool: whether the handler is in.
        """
        if os.getpid() != self._pid:
            self._forget_the_parents()
        self._heeded.append(heeded)
        if self._handler is None or not self._handler.is_in():
            self._handler = self._put_in()
        if self._clouds and not self._stops:
            # Late, since only who watches needs the client of HTTP, which takes long to import.
            from holdfast.notices import Watcher  # noqa: PLC0415

            self._stops = [Watcher(cloud, self._on_cloud).stop for cloud in self._clouds]
        return self._handler is not None

    def uninstall(self) -> None:
        """
        Put the handler back that was there before, and watch no more; a notice stays.

        A handler that somebody put in since is left alone.
        """
        if self._heeded:
            self._heeded.pop()
        if self._heeded or os.getpid() != self._pid:
            return
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.take_out()
        while self._stops:
            self._stops.pop()()

    def end(self) -> None:
        """
        Do what SIGTERM would have done, after a notice of any kind; from any thread.

        It returns if the handler that was there before returns, or if SIGTERM is ignored. Training
        then goes on: there is no notice any more, and the next SIGTERM is a new one.
        """
        try:
            if self._handler is None or os.getpid() != self._pid:
                _send()
            elif _is_main_thread():
                self._handler.pass_on(inspect.currentframe())
            else:
                self._handler.pass_on_in_the_main_thread()
        finally:
            self._settle()

    def __enter__(self) -> Self:
        self._around.append(len(self._heeded))
        self.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What was installed within the block goes with it: an exception may have passed by its end.
        del self._heeded[self._around.pop() + 1 :]
        self.uninstall()

    def _put_in(self) -> "_Handler | None":
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_IGN:
            why = "this process ignores it"
        elif before is None:
            why = "its handler was not put in from Python, so that it could not be called any more"
        elif not _is_main_thread():
            here = threading.current_thread().name
            why = f"Python takes handlers in the main thread only, and this is {here}"
        else:
            return _Handler(self._on_signal)
        _log.warning(
            "SIGTERM gives no notice: %s. It does what it did before, and what is saved is "
            "untouched. Call the preemption's request() where you learn that the process must end.",
            why,
        )
        return None

    def _on_signal(self, handler: "_Handler", frame: FrameType | None) -> None:
        if self._is_signalled or not any(heeded(frame) for heeded in self._heeded):
            try:
                handler.pass_on(frame)
            finally:
                self._settle()
        else:
            self._is_signalled = True
            self.request("SIGTERM")

    def _on_cloud(self, reason: str, seconds: float | None) -> None:
        self.request(reason, grace=seconds)

    def _settle(self) -> None:
        self._notices, self._is_signalled = [], False

    def _forget_the_parents(self) -> None:
        """No thread lives on in a forked child, and the parent's connections stay the parent's."""
        self._pid = os.getpid()
        self._heeded, self._handler, self._stops = [], None, []
        self._settle()


class _Handler:
    """
    The handler of SIGTERM: hands the signal to its owner, or passes it on to what was there before.

    Each is put in once. Whoever puts in one of his own afterwards may go on calling this one, which
    passes everything on once it was taken out.
    """

    def __init__(self, owner: Callable[["_Handler", FrameType | None], None]) -> None:
        self._owner: Callable[[_Handler, FrameType | None], None] | None = owner
        self._pid = os.getpid()
        self._passed: threading.Event | None = None
        self._before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self)

    def __call__(self, _: int, frame: FrameType | None) -> None:
        passed, self._passed = self._passed, None
        if passed is not None:
            try:
                self.pass_on(frame)
            finally:
                passed.set()
        elif self._owner is None or os.getpid() != self._pid:
            self.pass_on(frame)
        else:
            self._owner(self, frame)

    def pass_on(self, frame: FrameType | None) -> None:
        """Do what was done before; in the main thread."""
        if callable(self._before):
            self._before(signal.SIGTERM, frame)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _send()

    def pass_on_in_the_main_thread(self) -> None:
        """Have it done there, and wait for it unless somebody else's handler stands in between."""
        passed = self._passed = threading.Event()
        _send()
        if self.is_in():
            passed.wait()

    def take_out(self) -> None:
        """Pass everything on from here on, and put back what was there before."""
        self._owner = None
        if _is_main_thread() and self.is_in():
            signal.signal(signal.SIGTERM, self._before)

    def is_in(self) -> bool:
        """Whether the signal comes here first."""
        return signal.getsignal(signal.SIGTERM) is self


def _send() -> None:
    # Not `raise_signal`: what another thread catches does not wake the main one, which has to act.
    os.kill(os.getpid(), signal.SIGTERM)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _seconds(grace: object) -> float:
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace < math.inf:
        raise InvalidInputError(f"grace is a number of seconds from 0, not {grace!r}.")
    return grace


def _clouds(watch: Collection[Cloud]) -> tuple[Cloud, ...]:
    known = get_args(Cloud)
    if isinstance(watch, str) or not {*watch} <= {*known}:
        raise InvalidInputError(
            f"watch holds names of clouds, {' and '.join(map(repr, known))}, as in "
            f"watch=('gce',), and not {watch!r}."
        )
    return tuple(dict.fromkeys(watch))
