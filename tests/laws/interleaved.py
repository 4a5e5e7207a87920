"""Rounds of several processes on one store, call by call, and what has to hold in each."""

import contextlib
import itertools
import random
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast import CheckpointStore, KeepLast, layout
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import CheckpointWarning, NotFoundError, StorageError, SupersededError
from holdfast.manifest import Tombstone
from holdfast.state import Files
from holdfast.testing import MemoryBackend
from holdfast.testing.faults import Fault, FaultBackend
from holdfast.writer import Writer
from tests.laws.scheduler import Baton, Choose, at_random, every_schedule
from tests.store.checks import broken, committed, read_manifest

NOW = timedelta(0)
#: The step of a draft that a dead process has left.
LEFT = 77


def everywhere(verb: str, key: str) -> bool:
    return True


def where_they_meet(verb: str, key: str) -> bool:
    """Where a pin and a prune can meet; between the other calls the order makes no difference."""
    return (
        key.startswith(layout.PINS)
        or (key.startswith(layout.DOOMED) and verb != "scan")
        or (key.startswith(layout.MANIFESTS) and verb == "delete")
    )


class Round:
    """
    A store with what was saved before, and processes that use it at once.

    Parameters:
        tmp (Path): for their workspaces.
        choose (Choose): the order of their calls.
        objects (dict): what the store holds at the beginning.
    """

    def __init__(self, tmp: Path, choose: Choose, objects: dict) -> None:
        self.backend = MemoryBackend()
        self.backend.objects = dict(objects)
        self._tmp = tmp
        self._actors: list[Callable] = []
        self._baton = Baton(choose, self._look)
        self._known: dict[str, Checkpoint | Tombstone] = {}
        self._seen: dict[str, bytes] = {}
        self._were: set[CheckpointId] = set()
        self.trouble: list[str] = []
        self.pinned: list[CheckpointId] = []

    def process(
        self,
        act: Callable[[CheckpointStore], object],
        name: str | None = None,
        where: Callable[[str, str], bool] = everywhere,
    ) -> None:
        number = len(self._actors)
        store = CheckpointStore(
            self._baton.backend(self.backend, number, where),
            workspace=self._tmp / (name or f"process-{number}"),
            writer=Writer(name),
        )
        self._actors.append(lambda: act(store))

    def run(self) -> list:
        """Let them run; the ends of all, once everything that has to hold was looked at."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            ends = self._baton.run(self._actors)
        self._look()
        for id in self.pinned:
            if id not in committed(self.backend):
                self.trouble.append(f"G9: {id} was pinned, and is gone")
        return ends

    def _look(self) -> None:
        now = self.backend.objects
        if now.keys() == self._seen.keys():
            return
        there: dict[CheckpointId, Checkpoint] = {}
        for key, (data, _) in now.items():
            if self._seen.setdefault(key, data) != data:
                self._check_changed(key, data)
                self._seen[key] = data
            if id := layout.parse_manifest_key(key):
                record = self._read(key, data, id)
                if isinstance(record, Checkpoint):
                    there[id] = record
                    self._were.add(id)
        gone = self._seen.keys() - now.keys()
        for key in gone:
            self._check_gone(key, there)
            del self._seen[key]
        for id, record in there.items():
            for file in record.files:
                if layout.file_key(id, file.path) not in now:
                    self.trouble.append(f"G2, G10: {id} is there without its file {file.path}")

    def _read(self, key: str, data: bytes, id: CheckpointId) -> Checkpoint | Tombstone:
        self._known[key] = read_manifest(data, id)
        return self._known[key]

    def _check_changed(self, key: str, data: bytes) -> None:
        # A sweep may close the key of a checkpoint that a prune has removed a moment ago.
        id = layout.parse_manifest_key(key)
        if id is None or not isinstance(read_manifest(data, id), Tombstone):
            self.trouble.append(f"G3: {key} was changed")

    def _check_gone(self, key: str, there: dict[CheckpointId, Checkpoint]) -> None:
        id = layout.parse_manifest_key(key)
        if id is None:
            return
        if isinstance(self._known.pop(key, None), Tombstone) and id not in self._were:
            self.trouble.append(f"G10: the tombstone of {id} was removed")
        if not any(other > id for other in there):
            self.trouble.append(f"G8: {id} was the newest, and is gone")
        if id in self.pinned:
            self.trouble.append(f"G9: {id} was pinned, and is removed")


# ------------------------------------------------------------- a pin and prunes


def a_pin_holds_against_a_prune(tmp: Path) -> int:
    """G9: every order of the calls of a pin and a prune of the same checkpoint."""
    return _a_pin_against(tmp, prunes=1, schedules=every_schedule(), where=where_they_meet)


def a_pin_holds_against_two_prunes(tmp: Path) -> int:
    """G9: every order in which at most three times somebody is stopped, where they can meet."""
    return _a_pin_against(
        tmp,
        prunes=2,
        schedules=every_schedule(preemptions=3, alike=(1, 2)),
        where=where_they_meet,
    )


def a_pin_holds_against_prunes_and_sweeps(tmp: Path, rounds: int = 150) -> int:
    """G9: with sweeps that clear what the prunes leave, from seeds."""
    seeds = (at_random(seed) for seed in range(rounds))
    return _a_pin_against(tmp, prunes=2, sweeps=2, schedules=seeds)


def _a_pin_against(
    tmp: Path, *, prunes: int, schedules, sweeps: int = 0, where: Callable = everywhere
) -> int:
    objects, (old, new) = _saved(tmp, 2)
    count = 0
    for choose in schedules:
        count += 1
        world = Round(tmp, choose, objects)

        def pin(store: CheckpointStore, world: Round = world) -> None:
            store.pin(old, "paper")
            world.pinned.append(old.id)

        world.process(pin)
        for _ in range(prunes):
            world.process(lambda store: store.prune(KeepLast(1)), where=where)
        for _ in range(sweeps):
            world.process(lambda store: store.sweep(older_than=NOW))
        pinning, *others = world.run()
        assert not world.trouble, f"round {count}: {world.trouble}"
        assert pinning is None or isinstance(pinning, NotFoundError), f"round {count}: {pinning!r}"
        strange = [end for end in others if isinstance(end, Exception)]
        assert not strange, f"round {count}: {strange}"
        assert new.id in committed(world.backend), f"round {count}: the newest is gone"
        assert not broken(world.backend), f"round {count}: {broken(world.backend)}"
    return count


def _saved(tmp: Path, count: int) -> tuple[dict, list[Checkpoint]]:
    backend = MemoryBackend()
    store = CheckpointStore(backend, workspace=tmp / "before", writer=Writer())
    model = tmp / "model"
    model.write_bytes(b"weights")
    saved = [store.save(model, step=step) for step in range(1, count + 1)]
    return backend.objects, saved


# ------------------------------------------------------------- everybody at once


class Crowd(Round):
    """
    Three writers, two prunes, two sweeps that spare nothing, a pin, a recovery and a reader.

    G1, G2, G3, G8, G9, G10, G12, G13, and that a reader finds what was there when it began.
    """

    def __init__(self, tmp: Path, seed: int) -> None:
        super().__init__(tmp, at_random(seed), _saved(tmp, 2)[0])
        self._model = tmp / "model"
        self._numbers = random.Random(seed)
        self._steps = itertools.count(3)
        for number in range(3):
            self.process(self.write, name=f"writer-{number}")
        for count in (1, 2):
            self.process(lambda store, count=count: store.prune(KeepLast(count)))
            self.process(lambda store: store.sweep(older_than=NOW))
        self.process(self.pin)
        self.process(self.look)
        self._leave_a_draft(tmp / "recovery")
        self.process(self.recover, name="recovery")

    def write(self, store: CheckpointStore) -> None:
        for _ in range(self._numbers.choice([1, 2])):
            overtaken = self._is_overtaken(store)
            try:
                saved = store.save(self._model, step=self._numbers.choice([1, next(self._steps)]))
            except SupersededError:
                self._go_on_superseded(store)
                return
            except StorageError as error:
                # Two sweeps that spare nothing, and a rival, can take an id three times in a row.
                if "taken away" not in str(error):
                    raise
                return
            if overtaken:
                self.trouble.append(f"G13: {saved.id} came after a newer session")
            there = committed(self.backend)
            if saved.id not in there and not any(other > saved.id for other in there):
                self.trouble.append(f"G1: {saved.id} was acknowledged, and is gone")

    def pin(self, store: CheckpointStore) -> None:
        for name in ("paper", "demo"):
            chosen = self._numbers.choice(store.checkpoints())
            try:
                store.pin(chosen, name)
            except NotFoundError:
                continue
            self.pinned.append(chosen.id)

    def look(self, store: CheckpointStore) -> None:
        for _ in range(2):
            newest = max(committed(self.backend))
            latest = store.latest()
            if latest is None or latest.id < newest:
                self.trouble.append(f"G5: {latest} is the latest, and {newest} was there before")
            newest = max(committed(self.backend))
            restored = store.restore(Files(self._tmp / "restored"))
            if restored.id < newest:
                self.trouble.append(f"G6: {restored} was restored, and {newest} was there before")
            if not store.verify(deep=True).ok:
                self.trouble.append("verify calls whole checkpoints damaged")

    def recover(self, store: CheckpointStore) -> None:
        published = store.recover()
        kept = list((self._tmp / "recovery").glob("*/seal.json"))
        there = [id for id in committed(self.backend) if id.step == LEFT]
        if len(published) + len(kept) != 1:
            self.trouble.append(f"G12: published {published}, kept {kept}")
        if len(there) > 1:
            self.trouble.append(f"G12: it came in twice: {there}")

    def _leave_a_draft(self, workspace: Path) -> None:
        failing = FaultBackend(self.backend, [Fault(at=1, verb="create", lasting=True)])
        dead = CheckpointStore(failing, workspace=workspace, writer=Writer("dead"))
        with contextlib.suppress(StorageError):
            dead.save(self._model, step=LEFT)

    def _is_overtaken(self, store: CheckpointStore) -> bool:
        mine = store._writer.newest_session
        return mine is not None and any(
            id.session > mine and record.writer != store._writer.name
            for id, record in committed(self.backend).items()
        )

    def _go_on_superseded(self, store: CheckpointStore) -> None:
        before = {*committed(self.backend)}
        for act in (
            lambda: store.save(self._model, step=9),
            lambda: store.prune(KeepLast(1)),
        ):
            try:
                act()
            except SupersededError:
                continue
            self.trouble.append("G13: a superseded writer went on")
        for id, record in committed(self.backend).items():
            if id not in before and record.writer == store._writer.name:
                self.trouble.append(f"G13: a superseded writer committed {id}")


def everybody_at_once(tmp: Path, seed: int) -> None:
    """One round of a crowd, which has to end well; the same in every run."""
    drawn = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.checkpoint.secrets.randbelow", drawn.randrange)
        crowd = Crowd(tmp, seed)
        ends = crowd.run()
    strange = [end for end in ends if isinstance(end, Exception)]
    assert not strange, f"seed {seed}: {strange!r}"
    assert not crowd.trouble, f"seed {seed}: {crowd.trouble}"
    assert not broken(crowd.backend), f"seed {seed}: {broken(crowd.backend)}"
