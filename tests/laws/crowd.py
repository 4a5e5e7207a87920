"""Everybody at once on one store, in an order drawn from a number; the same in every run."""

import contextlib
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from unittest import mock

from holdfast import CheckpointStore, KeepEvery, KeepLast, KeepWithin, layout
from holdfast.checkpoint import CheckpointId
from holdfast.errors import NotFoundError, StorageError, SupersededError
from holdfast.testing import MemoryBackend
from holdfast.testing.faults import Fault, FaultBackend
from holdfast.writer import Writer
from tests.laws.quick import quick
from tests.laws.rounds import NOW, Clock, Objects, Round, Weights
from tests.laws.scheduler import at_random
from tests.store.checks import broken

#: The step of a draft that a dead process has left.
LEFT = 77


def crowds(seed: int, count: int) -> Iterator[str]:
    """Rounds of everybody at once."""
    with quick() as tmp:
        stage = Stage(tmp)
        for case in range(count):
            trouble = stage.play(f"{seed}-{case}")
            yield trouble and f"crowds, seed {seed}, round {case}: {trouble}"


def clocks(seed: int, count: int) -> Iterator[str]:
    """Rounds of everybody at once, with right clocks and with wrong ones: the very same calls."""
    with quick() as tmp:
        stage = Stage(tmp)
        for case in range(count):
            right, wrong = (stage.told(f"{seed}-{case}", hours=hours) for hours in (0, 24))
            differ = [pair for pair in itertools.zip_longest(right, wrong) if len({*pair}) > 1]
            yield f"clocks, seed {seed}, round {case}: first {differ[0]}" if differ else ""


class Stage:
    """
    What every round begins with: two checkpoints, and the sealed draft of a process that died.

    Parameters:
        tmp (Path): an empty directory.
    """

    def __init__(self, tmp: Path) -> None:
        backend = MemoryBackend()
        backend.url = "memory-round://"
        with _drawn("before"):
            store = CheckpointStore(backend, workspace=tmp / "before", writer=Writer("before"))
            for step in (1, 2):
                store.save(Weights(b"before"), step=step)
            failing = FaultBackend(backend, [Fault(at=1, verb="create", lasting=True)])
            dead = CheckpointStore(failing, workspace=tmp / "left", writer=Writer("dead"))
            with contextlib.suppress(StorageError):
                dead.save(Weights(b"left"), step=LEFT)
        self._objects = backend.objects
        self._left = tmp / "left"
        self._round = tmp / "round"

    def play(self, name: str) -> str:
        """What did not hold in the round of a name."""
        with _drawn(name):
            return self._crowd(name, hours=24, timed=True).end()

    def told(self, name: str, *, hours: float) -> list[object]:
        """Every call of a round in which nobody goes by time, and what is there in the end."""
        with _drawn(name):
            crowd = self._crowd(name, hours=hours, timed=False)
            return [crowd.end(), *crowd.calls, *sorted(crowd.backend.objects)]

    def _crowd(self, name: str, *, hours: float, timed: bool) -> "Crowd":
        recovery = self._round / "recovery"
        shutil.copytree(self._left, recovery, copy_function=os.link, dirs_exist_ok=True)
        return Crowd(self._round, name, self._objects, hours=hours, timed=timed)


class Crowd(Round):
    """
    Three writers, two prunes, two sweeps, a pin, a reader, and a recovery of the dead one's draft.

    G1, G2, G3, G5, G6, G8, G9, G10, G12, G13 and G16; every clock is wrong, the storage's too.

    Parameters:
        tmp (Path): for their workspaces.
        name (str): what is drawn from it: the order, the clocks, and what each does.
        objects (dict): what the store holds at the beginning.
        hours (float): by how much clocks may be wrong.
        timed (bool): a prune goes by a time rule, and a sweep spares what is young.
    """

    def __init__(
        self, tmp: Path, name: str, objects: Objects, *, hours: float, timed: bool
    ) -> None:
        times = random.Random(f"{name} clocks")
        super().__init__(tmp, at_random(name), objects, clock=Clock(times, hours))
        self._numbers = random.Random(f"{name} acts")
        self._steps = itertools.count(3)
        files = filter(None, map(layout.parse_file_key, objects))
        self._attempt = next((id for id, _ in files if id.step == LEFT), None)
        rules = [KeepLast(1), KeepLast(2)]
        spared = [NOW, NOW]
        if timed:
            rules[1] = self._numbers.choice(
                [*rules, KeepWithin(hours=1), KeepEvery(hours=1, last=1)]
            )
            spared[1] = self._numbers.choice([NOW, timedelta(hours=1), timedelta(days=1)])
        acts: list[tuple[Callable[[CheckpointStore], object], str | None]] = [
            *((self.write, f"writer-{number}") for number in range(3)),
            *((lambda store, rule=rule: store.prune(rule), None) for rule in rules),
            *((lambda store, age=age: store.sweep(older_than=age), None) for age in spared),
            (self.pin, None),
            (self.look, None),
            (self.recover, "recovery"),
        ]
        for act, writer in acts:
            self.process(act, name=writer, clock=Clock(times, hours))

    def end(self) -> str:
        """Let them run, and leave their workspaces empty; what did not hold."""
        strange = [repr(end) for end in self.run() if isinstance(end, Exception)]
        self.clear()
        return "; ".join([*self.trouble, *strange, *broken(self.backend)])

    def write(self, store: CheckpointStore) -> None:
        for _ in range(self._numbers.choice([1, 2])):
            overtaken = self._is_overtaken(store)
            step = self._numbers.choice([1, next(self._steps)])
            try:
                saved = store.save(Weights(f"{len(self.calls)}".encode()), step=step)
            except SupersededError:
                self._go_on_superseded(store)
                return
            except StorageError as error:
                # Two sweeps that spare nothing, and a rival, can take an id many times in a row.
                if "taken away" not in str(error):
                    raise
                return
            if overtaken:
                self.trouble.append(f"G13: {saved.id} came after a newer session")
            if not self.has(saved.id) and not any(other > saved.id for other in self.there):
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
        for deep in (False, True):
            newest = max(self.there)
            latest = store.latest()
            if latest is None or latest.id < newest:
                self.trouble.append(f"G5: {latest} is the latest, and {newest} was there before")
            newest, state = max(self.there), Weights()
            restored = store.restore(state)
            if restored.id < newest:
                self.trouble.append(f"G6: {restored} was restored, and {newest} was there before")
            if [file.hash for file in restored.files] != [state.hash]:
                self.trouble.append(f"G4: {restored} was restored with other bytes")
            if not store.verify(deep=deep).ok:
                self.trouble.append("verify calls whole checkpoints damaged")

    def recover(self, store: CheckpointStore) -> None:
        published = store.recover()
        kept = list(store.workspace.path.glob("*/seal.json"))
        there = [id for id in self.there if id.step == LEFT]
        if len(published) + len(kept) != 1:
            self.trouble.append(f"G12: published {published}, kept {kept}")
        if len(there) > 1:
            self.trouble.append(f"G12: it came in twice: {there}")
        if self._attempt is None:
            self.trouble.append("G2: the attempt that died had committed before it had uploaded")
            return
        is_free = layout.manifest_key(self._attempt) not in self.backend.objects
        if published and is_free and published[0].id != self._attempt:
            self.trouble.append(f"G12: {published[0]} came in, and {self._attempt} was free")

    def _is_overtaken(self, store: CheckpointStore) -> bool:
        mine = store._writer.newest_session
        return mine is not None and any(
            id.session > mine and record.writer != store._writer.name
            for id, record in self.there.items()
        )

    def _go_on_superseded(self, store: CheckpointStore) -> None:
        before: set[CheckpointId] = {*self.there}
        for act in (
            lambda: store.save(Weights(b"late"), step=9),
            lambda: store.prune(KeepLast(1)),
        ):
            try:
                act()
            except SupersededError:
                continue
            self.trouble.append("G13: a superseded writer went on")
        for id, record in self.there.items():
            if id not in before and record.writer == store._writer.name:
                self.trouble.append(f"G13: a superseded writer committed {id}")


def _drawn(name: str) -> contextlib.AbstractContextManager[object]:
    """Tokens are drawn from a name, too."""
    return mock.patch("holdfast.checkpoint.secrets.randbelow", random.Random(name).randrange)
