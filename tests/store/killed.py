"""
Processes killed at each call of operations on drawn stores, on fakes of each kind of place.

A process dies before its call is made, or after it took effect and before it heard of that, or
between: with a part of it done on a disk, and over a network with the call still under way, which
then takes effect at any moment of what comes after.
"""

import contextlib
import io
import itertools
import random
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast import KeepLast, disk, layout
from holdfast.backends.base import Traits
from holdfast.checkpoint import CheckpointId, new_token
from holdfast.errors import AlreadyExists, CheckpointWarning
from holdfast.state import Files
from holdfast.testing import MemoryBackend
from tests.conformance.points import quick
from tests.crash.points import memory
from tests.store import checks
from tests.store.dying import Death, in_another_process
from tests.store.hooked import HookedBackend

#: How places of each kind behave, as their backends say it.
KINDS = {
    "local": Traits(),
    "s3": Traits(parallel=8),
    "gcs": Traits(parallel=8),
    "drive": Traits(parallel=4, exclusive=False, fresh=False),
}
#: The steps of what the operation saves, of a draft that was left, and of what goes on after.
NEW, LEFT, NEXT = 900, 800, 999
OPERATIONS = (
    "save",
    "save and prune",
    "prune",
    "sweep",
    "recover",
    "pin",
    "unpin",
    "restore",
)
_WRITES = ("create", "upload", "delete")


class Disk(MemoryBackend):
    """One whose objects are files of this machine, which a restore reads where they lie."""

    def open_file(self, key: str) -> io.FileIO:
        with memory() as home:
            disk.write_new(home / "file", self.read(key))
            return io.FileIO(home / "file")


@dataclass
class History:
    """
    A drawn store, and the operation on it that is killed.

    Attributes:
        kind: of the place.
        seed: everything is drawn from it.
        home: a directory of this machine.
        operation: one of `OPERATIONS`; drawn, too, where it is empty.
        damaged: the keys that are missing from the beginning.
    """

    kind: str
    seed: int
    home: Path
    operation: str = ""
    damaged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.drawn = random.Random(f"{self.kind} {self.seed}")
        self.operation = self.operation or self.drawn.choice(OPERATIONS)
        self.rule = KeepLast(self.drawn.randint(1, 2))
        self.home.mkdir(parents=True)
        self.scene = checks.Scene(self.home)
        self.scene.backend = (Disk if self.kind == "local" else MemoryBackend)()
        self.scene.backend.traits = KINDS[self.kind]
        self._draw()
        self.objects = dict(self.scene.backend.objects)
        self.before = self.committed()
        self.pinned = set(self._pins())
        self.scene.workspace.mkdir(exist_ok=True)
        shutil.copytree(self.scene.workspace, self.home / "kept")

    def _draw(self) -> None:
        drawn, backend = self.drawn, self.scene.backend
        store = self.scene.process()
        for step in range(1, drawn.randint(2, 5)):
            if drawn.random() < 0.3:
                store = self.scene.process()  # another process has gone on
            saved = store.save(drawn.choice([self.scene.file, self.scene.directory]), step=step)
            if drawn.random() < 0.3 or (step == 1 and self.operation == "unpin"):
                store.pin(saved, "paper" if step == 1 else drawn.choice(["paper", "best"]))
        ids = list(checks.committed(backend))
        if len(ids) > 1 and drawn.random() < 0.2:
            damaged = checks.committed(backend)[drawn.choice(ids[:-1])]
            self.damaged = {layout.file_key(damaged.id, file.path) for file in damaged.files[:1]}
            for key in self.damaged:
                del backend.objects[key]
        if drawn.random() < 0.3:
            backend.create(layout.doomed_key(drawn.choice(ids), new_token()), b"")
        if drawn.random() < 0.4 or self.operation == "sweep":
            lost = CheckpointId(drawn.randint(1, 3), 700, new_token())
            backend.upload(self.scene.file, layout.file_key(lost, "model.bin"))
        leaves = self.operation != "save and prune" and drawn.random() < 0.3
        if leaves or self.operation == "recover":
            draft = self.scene.process().draft(step=LEFT)
            shutil.copy(self.scene.file, draft.directory / "model.bin")
            store.seal(draft)
            draft.release()

    def committed(self) -> set[CheckpointId]:
        return set(checks.committed(self.scene.backend))

    def _pins(self) -> Iterator[CheckpointId]:
        for key in self.scene.backend.objects:
            if pin := layout.parse_pin_key(key):
                yield pin[1]

    def put_back(self) -> None:
        """The store as it was drawn."""
        self.scene.backend.objects = dict(self.objects)
        self.scene.clear()
        shutil.copytree(self.home / "kept", self.scene.workspace)

    def deaths(self) -> Iterator[Death]:
        """Every call at which the operation can die, in each way."""
        self.put_back()
        whole = in_another_process(self.scene.backend, self.act)
        self.after = self.committed()
        between = "half" if self.kind == "local" else "under way"
        for at, (verb, _) in enumerate(whole.calls, start=1):
            for when in ("before", between, "after"):
                if when != between or verb in _WRITES:
                    yield Death(at, when)
        yield Death(len(whole.calls) + 1, "before")  # it lives, and what it was told holds

    def told(self, death: Death) -> str:
        """What was broken by killing it there, and how to kill it there again; or nothing."""
        try:
            self.strike(death)
        except Exception as error:  # whatever is wrong here, the next start is not well
            where = f"{self.kind}, store {self.seed}, {self.operation} killed {death}"
            return f"{where}: {type(error).__name__}: {error}"
        return ""

    def strike(self, death: Death) -> None:
        """
        Kill it there, and judge.

        Raises:
            AssertionError: a promise is broken.
        """
        self.put_back()
        end = in_another_process(self.scene.backend, self.act, death)
        told = set(end.acknowledged)
        sealed = {path.parent.name for path in self.scene.workspace.glob("*/seal.json")}
        sealed -= {path.parent.name for path in (self.home / "kept").glob("*/seal.json")}
        self._judge_at_once(told)
        drawn = random.Random(f"{self.kind} {self.seed} {death}")
        late = _Late(self.scene.backend, end.late, drawn.randint(1, 12))
        if drawn.random() < 0.3:  # somebody has swept before the next start
            self.scene.process(workspace=self.home / "sweeper").sweep(older_than=checks.NOW)
        self._heal(HookedBackend(self.scene.backend, late.around))
        late.happen()
        self._heal(self.scene.backend)
        self._judge_healed(told, came=bool(sealed or told or NEW in self.steps))

    def _judge_at_once(self, told: set[str]) -> None:
        """Nothing is lost, nothing partial is seen, and what was acknowledged is there."""
        there = self.committed()
        self.steps = [id.step for id in there]
        lost = self.before - there - (self.before - self.after)
        assert not lost, f"lost: {lost}"
        strange = {id.step for id in there - self.before} - {NEW, LEFT}
        assert not strange, f"appeared: {strange}"
        wrong = set(checks.broken(self.scene.backend)) - self.damaged
        assert not wrong, f"partial: {wrong}"
        missing = told - {"pinned"} - {str(id) for id in there}
        assert not missing, f"acknowledged, and not there: {missing}"
        assert "pinned" not in told or min(self.before) in self._pins(), "the pin is lost"
        latest = self.scene.process(workspace=self.home / "reader").latest()
        assert latest is not None
        assert latest.id == max(there), f"{latest.id} is the latest of {there}"

    def _heal(self, backend: Any) -> None:
        """What the next process does."""
        store = self.scene.process(backend)
        store.recover()
        if "prune" in self.operation:
            store.prune(self.rule)
        store.sweep(older_than=checks.NOW)

    def _judge_healed(self, told: set[str], *, came: bool) -> None:
        """What was acknowledged or sealed is there once, nothing is left over, and it goes on."""
        scene, there = self.scene, self.committed()
        steps = [id.step for id in there]
        kept = self.before
        if "prune" in self.operation:
            broken = {id for id in self.before if any(str(id) in key for key in self.damaged)}
            kept = (self.pinned & self.before) | broken
        assert kept <= there, f"lost: {kept - there}"
        assert "save" not in self.operation or (NEW in steps) == came, f"{NEW} in {steps}: {came}"
        assert self.operation != "recover" or LEFT in steps, "a sealed draft was lost"
        assert max(steps.count(NEW), steps.count(LEFT)) <= 1, f"twice: {steps}"
        assert max(there) >= max(self.before), "the newest was removed"
        # While the manifest stands only its maker clears a mark, and that is dead.
        marks = {layout.doomed_prefix(id) for id in there}
        left = [key for key in checks.leftovers(scene.backend) if not key.startswith(tuple(marks))]
        assert not left, f"left over: {left}"
        assert not (drafts := list(scene.workspace.glob("*"))), f"in the workspace: {drafts}"
        wrong = set(checks.broken(scene.backend)) - self.damaged
        assert not wrong, f"partial: {wrong}"
        store = scene.process()
        saved = store.save(scene.directory, step=NEXT)
        assert store.latest() == saved
        store.restore(Files(self.home / "restored"))
        assert (self.home / "restored" / "a.bin").read_bytes() == b"a.bin" * 30

    def act(self, backend: HookedBackend, acknowledge: Callable[[str], None]) -> None:
        """The operation, as the process that is killed does it."""
        store = self.scene.process(backend)
        oldest = min(self.before)
        match self.operation:
            case "save":
                acknowledge(str(store.save(self.scene.directory, step=NEW).id))
            case "save and prune":
                store.retention = self.rule
                acknowledge(str(store.save(self.scene.directory, step=NEW).id))
            case "prune":
                store.prune(self.rule)
            case "sweep":
                store.sweep(older_than=checks.NOW)
            case "recover":
                for checkpoint in store.recover():
                    acknowledge(str(checkpoint.id))
            case "pin":
                with contextlib.suppress(LookupError):  # a prune has died at it
                    store.pin(store[oldest.step], "kept")
                    acknowledge("pinned")
            case "unpin":
                store.unpin("paper")
            case "restore":
                store.restore(Files(self.home / "restored"))


def points(
    seed: int,
    count: int,
    *,
    kind: str,
    only: str = "",
    mutant: Callable[[pytest.MonkeyPatch], object] = lambda patch: None,
) -> Iterator[str]:
    """
    Kill a process at each call of drawn operations on drawn stores, and look at what it left.

    Parameters:
        seed: of the stores; each is gone through call by call before the next is drawn.
        count: how many processes are killed.
        kind: of place, one of `KINDS`.
        only: one of `OPERATIONS`; otherwise each is drawn.
        mutant: breaks the code on purpose, once a store is drawn.
    """
    number = played = 0
    with quick(), memory() as home, warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        while played < count:
            number += 1
            history = History(kind, seed * 10_000 + number, home / str(number), only)
            with pytest.MonkeyPatch.context() as patch:
                mutant(patch)
                for death in itertools.islice(history.deaths(), count - played):
                    played += 1
                    yield history.told(death)
            shutil.rmtree(history.home)


class _Late:
    """A call of a dead process that takes effect before some call of those that come after."""

    def __init__(self, backend: MemoryBackend, late: Any, at: int) -> None:
        self._backend, self._late, self._left = backend, late, at
        self._lock = threading.Lock()

    def around(self, verb: str, key: str, call: Callable[[], Any]) -> Any:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.happen()
        return call()

    def happen(self) -> None:
        if self._late is None:
            return
        (key, content), self._late = self._late, None
        if content is None:
            self._backend.delete(key)
        else:
            with contextlib.suppress(AlreadyExists):
                self._backend.create(key, content[0])
