"""A round of several processes on one store, call by call, and what has to hold at each call."""

import contextlib
import functools
import hashlib
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from holdfast import CheckpointStore, disk, layout
from holdfast.backends.base import Entry, Traits
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import CheckpointWarning, FormatError
from holdfast.manifest import Tombstone
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.laws.scheduler import Baton, Choose
from tests.store.checks import read_manifest
from tests.store.hooked import Around, HookedBackend

#: Spares nothing: to wait is there for liveness alone.
NOW = timedelta(0)
#: What every clock would say that is right.
MOMENT = datetime(2026, 11, 21, 12, tzinfo=UTC)

Objects = dict[str, tuple[bytes, datetime]]
Where = Callable[[str, str], bool]


class Weights:
    """A state of a few bytes."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def snapshot(self) -> "Weights":
        return self

    def write_to(self, directory: Path) -> None:
        (directory / "model").write_bytes(self.content)

    def restore(self, directory: Path) -> None:
        (file,) = directory.iterdir()
        self.content = file.read_bytes()

    @property
    def hash(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


@dataclass
class Clock:
    """
    A clock that is wrong, and jumps.

    Attributes:
        numbers (random.Random): when it jumps, and where to.
        hours (float): by how much it may be wrong, either way.
    """

    numbers: random.Random
    hours: float
    wrong: float = 0

    def __call__(self) -> datetime:
        if self.numbers.random() < 0.2:
            self.wrong = self.numbers.uniform(-self.hours, self.hours)
        return MOMENT + timedelta(hours=self.wrong)


@dataclass(frozen=True)
class _Change:
    """What a key held before somebody changed it."""

    call: int
    actor: int
    key: str
    before: tuple[bytes, datetime] | None


class _Lagging(HookedBackend):
    """A place whose listings show what was done only some calls later."""

    def __init__(
        self, inner: MemoryBackend, around: Around, seen: Callable[[str], Objects]
    ) -> None:
        super().__init__(inner, around)
        self._seen = seen

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        def listed() -> list[Entry]:
            there = sorted(self._seen(prefix).items())
            return [
                Entry(key, len(data), modified)
                for key, (data, modified) in there
                if key.startswith(prefix) and key > after
            ]

        return iter(self._around("scan", prefix, listed))


class Round:
    """
    A store with what was saved before, and processes that use it at once.

    Whatever somebody changes is looked at before the next call of anybody.

    Parameters:
        tmp (Path): for their workspaces, which are empty again once it was cleared.
        choose (Choose): the order of their calls.
        objects (dict): what the store holds at the beginning.
        clock (Callable): the storage's.
        lag (Callable | None): by how many calls a listing lags behind; None for a place whose
            listings do not.

    Attributes:
        there (dict[CheckpointId, Checkpoint]): every checkpoint that is committed.
        pinned (list[CheckpointId]): what the actors say that they have pinned.
        trouble (list[str]): what did not hold.
        calls (list[tuple[int, str, str]]): who has called what.
    """

    def __init__(
        self,
        tmp: Path,
        choose: Choose,
        objects: Objects,
        *,
        clock: Callable[[], datetime] = lambda: MOMENT,
        lag: Callable[[], int] | None = None,
    ) -> None:
        self.backend = MemoryBackend(clock)
        self.backend.url = "memory-round://"
        self.backend.traits = Traits(fresh=lag is None)
        self.backend.objects = dict(objects)
        self.there: dict[CheckpointId, Checkpoint] = {}
        self.pinned: list[CheckpointId] = []
        self.trouble: list[str] = []
        self.calls: list[tuple[int, str, str]] = []
        self._tmp = tmp
        self._lag = lag
        self._actors: list[Callable[[], object]] = []
        self._baton = Baton(choose)
        self._changes: list[_Change] = []
        self._were: set[CheckpointId] = set()
        for key in objects:
            self._look(key, None)

    def process(
        self,
        act: Callable[[CheckpointStore], object],
        name: str | None = None,
        where: Where = lambda verb, key: True,
        clock: Callable[[], datetime] = lambda: MOMENT,
    ) -> None:
        """Add a process, which passes the baton at the calls of interest."""
        actor = len(self._actors)

        def around(verb: str, key: str, call: Callable[[], Any]) -> Any:
            if where(verb, key):
                self._baton.pass_on(actor)
            self.calls.append((actor, verb, key))
            if verb not in ("create", "upload", "delete"):
                return call()
            before = self.backend.objects.get(key)
            try:
                return call()
            finally:
                if self.backend.objects.get(key) is not before:
                    self._changes.append(_Change(len(self.calls), actor, key, before))
                    self._look(key, before)

        backend = (
            _Lagging(self.backend, around, functools.partial(self._seen_by, actor, self._lag))
            if self._lag
            else HookedBackend(self.backend, around)
        )
        store = CheckpointStore(
            backend,
            workspace=self._tmp / (name or f"process-{actor}"),
            writer=Writer(name),
            clock=clock,
        )
        self._actors.append(lambda: act(store))

    def run(self) -> list[Any]:
        """Let them run; what each returned, or raised."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            ends = self._baton.run(self._actors)
        self.trouble += [
            f"G9: {id} was pinned, and is gone" for id in self.pinned if not self.has(id)
        ]
        return ends

    def clear(self) -> None:
        """Remove what the processes have left in their workspaces."""
        for workspace in self._tmp.iterdir():
            for draft in workspace.iterdir():
                disk.remove(draft)

    def has(self, id: CheckpointId) -> bool:
        """Whether a checkpoint is committed."""
        return id in self.there

    def as_of(self, call: int, own: int | None = None) -> Objects:
        """What was there when so many calls had been made, but for what one actor did itself."""
        there = dict(self.backend.objects)
        mine = set()
        for change in reversed(self._changes):
            if change.call <= call:
                break
            if change.actor == own:
                mine.add(change.key)
            if change.key in mine:
                continue
            if change.before is None:
                there.pop(change.key, None)
            else:
                there[change.key] = change.before
        return there

    def _seen_by(self, actor: int, lag: Callable[[], int], prefix: str) -> Objects:
        # What one sends is confirmed by a listing; its manifest need not be in the next one.
        own = None if prefix == layout.MANIFESTS else actor
        return self.as_of(len(self.calls) - lag(), own=own)

    def _look(self, key: str, before: tuple[bytes, datetime] | None) -> None:
        now = self.backend.objects.get(key)
        if before is not None and now is not None:
            self.trouble.append(f"G3: {key} was changed")
        if id := layout.parse_manifest_key(key):
            if now is None:
                self._check_gone(id)
            else:
                self._check_new(id, now[0])
        elif now is None and (file := layout.parse_file_key(key)) and self._names(*file):
            self.trouble.append(f"G2, G10: {file[0]} is there without its file {file[1]}")

    def _check_new(self, id: CheckpointId, data: bytes) -> None:
        record: Checkpoint | Tombstone | None = None
        with contextlib.suppress(FormatError):
            record = read_manifest(data, id)
        self.there.pop(id, None)
        if isinstance(record, Checkpoint):
            self.there[id] = record
            self._were.add(id)
            for file in record.files:
                if self._changes and layout.file_key(id, file.path) not in self.backend.objects:
                    self.trouble.append(f"G2: {id} came without its file {file.path}")

    def _check_gone(self, id: CheckpointId) -> None:
        if self.there.pop(id, None) is None:
            if id not in self._were:
                self.trouble.append(f"G10: the tombstone of {id} was removed")
            return
        if not any(other > id for other in self.there):
            self.trouble.append(f"G8: {id} was the newest, and is gone")
        if id in self.pinned:
            self.trouble.append(f"G9: {id} was pinned, and is removed")

    def _names(self, id: CheckpointId, path: str) -> bool:
        found = self.there.get(id)
        return found is not None and any(file.path == path for file in found.files)
