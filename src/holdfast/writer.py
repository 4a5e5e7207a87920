"""Who saves, and where in the order of training: a process's logical clock."""

import os
import re
import secrets
import threading
from dataclasses import dataclass
from typing import ClassVar

from holdfast.checkpoint import CheckpointId, new_token
from holdfast.errors import SupersededError


@dataclass(frozen=True)
class Turn:
    """
    The place of one save in its process's series, taken when the save is asked for.

    Attributes:
        lap (int): how often the process has gone back to an earlier step; each lap is a session.
        step (int): the training step.
        token (str): sorts after the token of an earlier save at the same step.
    """

    lap: int
    step: int
    token: str


class Writer:
    """
    One process's unbroken series of saves into one store.

    Sessions are numbered at the first commit, since only the store knows the highest one. Until
    then saves are ordered by their turns. Everything in one process that saves into one place
    shares a writer: two callbacks and two handles are one series.

    Parameters:
        name (str | None): tells writers apart; by default the host, the process and random digits.

    Attributes:
        name (str): as given.
        parent (CheckpointId | None): the checkpoint that this process resumed from.
        lock (threading.RLock): held while a session is looked up or taken.
        claimed (dict[int, CheckpointId]): the last id in the order that it gave in each session.
        superseded (SupersededError | None): set once somebody else has taken over.
    """

    _shared: ClassVar[dict[tuple[int, str], "Writer"]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str | None = None) -> None:
        self.name = name or _name()
        self.parent: CheckpointId | None = None
        self.lock = threading.RLock()
        # A lock of its own: training takes turns, and must not wait for a look at the place.
        self._turns = threading.Lock()
        self.claimed: dict[int, CheckpointId] = {}
        self.superseded: SupersededError | None = None
        self._lap = 0
        self._earlier = 0
        self._last: tuple[int, str] | None = None
        self._sessions: dict[int, int] = {}

    @classmethod
    def of(cls, url: str) -> "Writer":
        """The writer that this process has for a place. A forked child has one of its own."""
        key = (os.getpid(), url)
        with cls._guard:
            return cls._shared.setdefault(key, cls())

    @classmethod
    def renew(cls, url: str) -> None:
        """Begin anew as another writer: this process has resumed from what superseded it."""
        with cls._guard:
            cls._shared.pop((os.getpid(), url), None)

    @classmethod
    def after_fork(cls) -> None:
        """A thread of the parent may have held the guard; the child has no such thread."""
        cls._guard = threading.Lock()

    def turn(self, step: int) -> Turn:
        """Take the next place in the series; an earlier step than the last begins a new lap."""
        with self._turns:
            if self._last is None:
                token = new_token()
            elif step < self._last[0]:
                self._lap, token = self._lap + 1, new_token()
            elif step > self._last[0]:
                token = new_token()
            else:
                try:
                    token = new_token(after=self._last[1])
                except OverflowError:
                    self._lap, token = self._lap + 1, new_token()
            self._last = (step, token)
            return Turn(self._lap, step, token)

    def session(self, lap: int) -> int | None:
        """The number of a lap's session, if it has one yet."""
        return self._sessions.get(lap)

    def come_after(self, session: int) -> None:
        """Note a session that is earlier than all for which this writer has no number yet."""
        self._earlier = max(self._earlier, session)

    def likely_session(self, lap: int) -> int:
        """The number of a lap's session; where it has none yet, the one that it would get now."""
        known = max((each for each in self._sessions if each <= lap), default=None)
        if known is not None:
            return self._sessions[known] + lap - known
        return max(self._earlier, self.parent.session if self.parent else 0) + 1 + lap

    @property
    def newest_session(self) -> int | None:
        """The highest session that this writer has taken."""
        return max(self._sessions.values(), default=None)

    def lap_of(self, session: int) -> int:
        """The lap that has a session's number; the first where none has."""
        return next((lap for lap, number in self._sessions.items() if number == session), 0)

    def take(self, lap: int, session: int) -> None:
        """Give a lap its session's number."""
        self._sessions[lap] = session

    def move(self, session: int) -> None:
        """Give a session up for the next one; those after it make way, so the order stays."""
        self._sessions = {
            lap: number + (number >= session) for lap, number in self._sessions.items()
        }


os.register_at_fork(after_in_child=Writer.after_fork)


def _name() -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", os.uname().nodename)[:64] or "host"
    return f"{host}:{os.getpid()}:{secrets.token_hex(8)}"
