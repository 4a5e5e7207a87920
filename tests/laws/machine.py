"""The store beside a plain dictionary, whatever is done to it and wherever it is killed."""

import contextlib
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast import CheckpointStore, KeepAll, KeepBest, KeepEvery, KeepLast, layout
from holdfast.checkpoint import CheckpointId
from holdfast.errors import (
    CorruptionError,
    NotFoundError,
)
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.laws.quick import quick
from tests.laws.rounds import Weights
from tests.store import checks
from tests.store.dying import Death, in_another_process

#: The moves of one game.
MOVES = 25
STEPS = st.integers(0, 12)
RULES = (KeepLast(1), KeepLast(2), KeepEvery(steps=4), KeepLast(1) | KeepBest("loss"), KeepAll())


def games(seed: int, count: int) -> Iterator[str]:
    """Games of 25 moves each, a hundred from one number; what was lost, and how it went."""
    with quick() as tmp:
        StoreMachine.home = tmp
        for number in range(-(-count // 100)):
            size = min(100, count - 100 * number)
            trouble = [""] * size
            try:
                _play(f"{seed}-{number}", size)
            except Exception:
                trouble[-1] = f"games, seed {seed}, hundred {number}:\n{traceback.format_exc()}"
            yield from trouble


@dataclass
class Kept:
    """
    What the dictionary says about one checkpoint.

    Attributes:
        damaged (bool): its file lacks a byte, which shows in a listing.
        flipped (bool): a bit of its file is another one, which shows when it is read.
    """

    step: int
    content: bytes
    loss: float | None
    damaged: bool = False
    flipped: bool = False


class StoreMachine(RuleBasedStateMachine):
    """
    The store beside a dictionary from ids to what was saved, in order.

    After each rule the two are compared. A process that is killed leaves the dictionary as it was,
    or as it would be; which of the two is looked up behind the store's back.
    """

    home: Path
    checkpoints = Bundle("checkpoints")

    def __init__(self):
        super().__init__()
        self.tmp = Path(tempfile.mkdtemp(dir=self.home))
        self.backend = MemoryBackend()
        self.model: dict[CheckpointId, Kept] = {}
        self.pins: dict[str, set[CheckpointId]] = {}
        self.removed: set[CheckpointId] = set()
        self.staged: Kept | None = None
        self.count = 0
        self.seen = None

    @initialize()
    def begin(self):
        self.reopen()

    def teardown(self):
        shutil.rmtree(self.tmp)

    # -------------------------------------------------------- saving

    @rule(target=checkpoints, step=STEPS, loss=st.none() | st.sampled_from([0.1, 0.5]))
    def save(self, step, loss):
        self._recovered()
        kept = self._next(step, loss)
        metrics = {} if loss is None else {"loss": loss}
        with checks.quiet():
            saved = self.store.save(Weights(kept.content), step=step, metrics=metrics)
        assert saved.id not in self.model
        assert not self.model or saved.id > max(self.model), "a later save has to be later"
        self.model[saved.id] = kept
        return saved.id

    @rule(target=checkpoints)
    def recover(self):
        return multiple(*self._recovered())

    @rule()
    def reopen(self):
        """A new process, with what the one before it left in the workspace."""
        self.store = self._process()

    # -------------------------------------------------------- removing

    @rule(keep=st.sampled_from(RULES))
    def prune(self, keep):
        expected = self._survivors(keep)
        with checks.quiet():
            plan = self.store.prune(keep)
        assert {one.id for one in plan.remove} == self.model.keys() - expected
        self._remove(self.model.keys() - expected)

    @rule()
    def sweep(self):
        with checks.quiet():
            self.store.sweep(older_than=checks.NOW)
        assert self.store.sweep(older_than=checks.NOW) == []

    @rule(id=checkpoints)
    def damage(self, id):
        if id in self.model:
            self._change(id, lambda data: data[:-1])
            self.model[id].damaged = True

    @rule(id=checkpoints, bit=st.integers(0, 7))
    def flip(self, id, bit):
        if id in self.model and not self.model[id].flipped:
            self._change(id, lambda data: bytes([data[0] ^ 1 << bit]) + data[1:])
            self.model[id].flipped = True

    # -------------------------------------------------------- killed

    @rule(
        target=checkpoints,
        what=st.sampled_from(["save", "save", "prune", "sweep", "recover"]),
        step=STEPS,
        keep=st.sampled_from(RULES),
        at=st.integers(1, 25),
        when=st.sampled_from(["before", "after"]),
    )
    def killed(self, what, step, keep, at, when):
        if what == "save":
            self._recovered()
        kept, survivors = self._next(step, None), self._survivors(keep)
        work = {
            "save": lambda store: store.save(Weights(kept.content), step=step),
            "prune": lambda store: store.prune(keep),
            "sweep": lambda store: store.sweep(older_than=checks.NOW),
            "recover": lambda store: store.recover(),
        }
        self._in_another_process(work[what], Death(at, when))
        if what == "prune":
            there = set(checks.committed(self.backend))
            assert survivors <= there, "a prune removed what its rule keeps"
            self._remove(self.model.keys() - there)
        if what == "save":
            self.staged = kept
        return multiple(*self._take_staged())

    @rule(id=checkpoints, at=st.integers(1, 5), when=st.sampled_from(["before", "after"]))
    def killed_while_it_pins(self, id, at, when):
        def pin(store):
            with contextlib.suppress(NotFoundError):
                store.pin(str(id), "killed")

        self._in_another_process(pin, Death(at, when))
        if layout.pin_key("killed", id) in self.backend.objects:
            self.pins.setdefault("killed", set()).add(id)

    @rule(
        what=st.sampled_from(["latest", "restore", "verify"]),
        at=st.integers(1, 9),
        when=st.sampled_from(["before", "after"]),
    )
    def killed_while_it_looks(self, what, at, when):
        def look(store):
            with contextlib.suppress(NotFoundError, CorruptionError):
                if what == "restore":
                    store.restore(Weights())
                else:
                    getattr(store, what)()

        before = dict(self.backend.objects)
        self._in_another_process(look, Death(at, when))
        assert self.backend.objects == before, "who only looked has changed something"

    # -------------------------------------------------------- pins

    @rule(id=checkpoints, name=st.sampled_from(["paper", "demo"]))
    def pin(self, id, name):
        try:
            self.store.pin(str(id), name)
        except NotFoundError:
            # Gone, or marked by a prune that died; then the pin may be there all the same.
            marked = any(key.startswith(layout.doomed_prefix(id)) for key in self.backend.objects)
            assert id in self.removed or marked
            if layout.pin_key(name, id) not in self.backend.objects:
                return
        self.pins.setdefault(name, set()).add(id)

    @precondition(lambda self: self.pins)
    @rule(name=st.sampled_from(["paper", "demo", "killed"]))
    def unpin(self, name):
        self.pins.pop(name, None)
        if any(key.startswith(f"{layout.PINS}{name}/") for key in self.backend.objects):
            self.store.unpin(name)
        else:
            with pytest.raises(NotFoundError):
                self.store.unpin(name)

    # -------------------------------------------------------- looking

    @rule()
    def restore(self):
        good = [id for id, kept in self.model.items() if not (kept.damaged or kept.flipped)]
        state = Weights()
        with checks.quiet():
            try:
                found = self._process().restore(state)
            except CorruptionError:
                assert self.model
                assert not good
            except NotFoundError:
                assert not self.model
            else:
                assert found.id == max(good)
                assert state.content == self.model[found.id].content

    @invariant()
    def the_store_is_the_dictionary(self):
        if self._is_looked_at():
            return
        ids = sorted(self.model)
        for store in (self.store, self._process()):
            assert [one.id for one in store.checkpoints()] == ids
            latest = store.latest()
            assert (latest and latest.id) == (ids[-1] if ids else None)
        report = self._process().verify(deep=True)
        damaged = {id for id, kept in self.model.items() if kept.damaged or kept.flipped}
        assert {damage.checkpoint for damage in report.damage} == damaged
        for one in store.checkpoints():
            kept = self.model[one.id]
            assert (one.step, one.metrics.get("loss")) == (kept.step, kept.loss)

    @invariant()
    def every_pin_is_there(self):
        there = {name: ids - self.removed for name, ids in self.pins.items()}
        found = {name: {*ids} - self.removed for name, ids in self._process().pins().items()}
        assert {k: v for k, v in found.items() if v} == {k: v for k, v in there.items() if v}

    # -------------------------------------------------------- helpers

    @property
    def workspace(self) -> Path:
        return self.tmp / "workspace"

    def _process(self, backend=None) -> CheckpointStore:
        return CheckpointStore(backend or self.backend, workspace=self.workspace, writer=Writer())

    def _in_another_process(self, work, death: Death) -> None:
        def live(backend, acknowledge):
            with checks.quiet():
                work(self._process(backend))

        in_another_process(self.backend, live, death)
        self.reopen()  # whatever that one has saved supersedes the process before it

    def _next(self, step: int, loss: float | None) -> Kept:
        self.count += 1
        return Kept(step, f"content {self.count}".encode() * 9, loss)

    def _change(self, id: CheckpointId, change: Callable[[bytes], bytes]) -> None:
        key = layout.file_key(id, "model")
        data, time = self.backend.objects[key]
        self.backend.objects[key] = (change(data), time)

    def _is_looked_at(self) -> bool:
        """Whether store and dictionary are as they were when the two were last compared."""
        now = (dict(self.backend.objects), {id: replace(kept) for id, kept in self.model.items()})
        seen, self.seen = self.seen, now
        return seen == now

    def _new(self) -> list[CheckpointId]:
        return [id for id in checks.committed(self.backend) if id not in self.model]

    def _take_staged(self) -> list[CheckpointId]:
        """If the draft of a killed save has come in, it is in the dictionary from now on."""
        new = self._new()
        assert len(new) <= bool(self.staged)
        for id in new:
            self.model[id], self.staged = self.staged, None
        if not list(self.workspace.glob("*/seal.json")):
            self.staged = None
        return new

    def _recovered(self) -> list[CheckpointId]:
        with checks.quiet():
            self.store.recover()
        new = self._take_staged()
        assert self.staged is None, "a sealed draft did not come in"
        return new

    def _survivors(self, keep) -> set[CheckpointId]:
        good = [one for one in self._process().checkpoints() if not self.model[one.id].damaged]
        pinned = set().union(*self.pins.values()) if self.pins else set()
        damaged = {id for id, kept in self.model.items() if kept.damaged}
        kept = {one.id for one in keep.keep(good)} | {one.id for one in good[-1:]}
        return (kept | pinned | damaged) & self.model.keys()

    def _remove(self, ids) -> None:
        for id in list(ids):
            del self.model[id]
            self.removed.add(id)


def _play(drawn: str, examples: int) -> None:
    run_state_machine_as_test(
        seed(drawn)(StoreMachine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=MOVES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
