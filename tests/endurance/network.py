"""A network that can be cut, by a clock that the test moves, and a small state to send over it."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from holdfast.backends.base import Backend, Moved, unwatched
from holdfast.errors import StorageError
from tests.endurance.clock import Clock
from tests.store.hooked import HookedBackend

Kind = Literal["refused", "hangs", "half-way"]
KINDS: tuple[Kind, ...] = ("refused", "hangs", "half-way")


class Network(HookedBackend):
    """
    The way to a place, which can be cut.

    The call at which it is cut takes effect, and its reply is lost. Every later one is refused, or
    hangs until the network is back and then ends without an answer; an upload may stop half-way.

    Attributes:
        tell: called at every call.
        cut_at: since when it is cut, by the clock; None while it is not.
        lost: the key of the call whose reply was lost.
    """

    def __init__(self, inner: Backend, clock: Clock, draw: random.Random) -> None:
        super().__init__(inner, self._pass)
        self.tell: Callable[[], object] = lambda: None
        self.cut_at: float | None = None
        self.lost = ""
        self._clock = clock
        self._draw = draw
        self._kinds: tuple[Kind, ...] = ()
        self._calls_left: int | None = None
        self._back = threading.Event()

    def cut(self, kinds: tuple[Kind, ...], *, after: int) -> None:
        """So many calls are answered yet; with 0 nothing passes from now on."""
        self._kinds, self._calls_left = kinds, after
        self._back.clear()
        if not after:
            self.cut_at = self._clock.now

    def mend(self) -> None:
        """All is as it was before."""
        self._calls_left = self.cut_at = None
        self._clock.go_on()
        self._back.set()

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        if self.cut_at is not None and "half-way" in self._kinds:
            moved(source.stat().st_size // 2)
        super().upload(source, key, moved)

    def _pass(self, verb: str, key: str, call: Callable[[], Any]) -> Any:
        self.tell()
        if self._calls_left is None:
            return call()
        if self._calls_left:
            self._calls_left -= 1
            result = call()
            if self._calls_left:
                return result
            self.cut_at, self.lost = self._clock.now, key
        elif self._draw.choice(self._kinds) == "hangs":
            self._clock.hang(self._back)
        raise StorageError(f"cannot {verb} {key}: the network is gone.")


class Number:
    """A state of one number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def snapshot(self) -> "Number":
        return Number(self.number)

    def write_to(self, directory: Path) -> None:
        (directory / "number").write_text(str(self.number))

    def restore(self, directory: Path) -> None:
        self.number = int((directory / "number").read_text())
