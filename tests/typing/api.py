"""Never run: the public types, as users write them. The strict type checker reads it."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import holdfast
from holdfast import (
    Checkpoint,
    CheckpointId,
    CheckpointStore,
    Files,
    KeepBest,
    KeepEvery,
    KeepLast,
    Preemption,
    PrunePlan,
    Report,
    Rule,
    Saver,
    Snapshot,
    State,
)
from holdfast.keras import ReplayableDataset
from holdfast.preemption import Notice
from holdfast.tensorflow import CheckpointManager, CheckpointState

store = holdfast.open_store(
    Path("runs"),
    retention=KeepLast(3) | KeepBest("val_loss", mode="min") & KeepEvery(days=1, last=3),
    workspace="scratch",
    storage_options={"key": "…"},
)
assert_type(store, CheckpointStore)
assert_type(store.save("model.keras", step=1, metrics={"loss": 0.5}), Checkpoint)
assert_type(store.latest(), Checkpoint | None)
assert_type(store.best("loss", mode="min"), Checkpoint | None)
assert_type(store.checkpoints(), list[Checkpoint])
assert_type(store[1200], Checkpoint)
assert_type(store.find("latest"), Checkpoint)
assert_type([checkpoint.step for checkpoint in store], list[int])
assert_type(store.restore(Files("model.keras")), Checkpoint)
assert_type(store.restore(Files("model"), where=lambda each: each.step > 3), Checkpoint)
assert_type(store.download(to="here"), Path)
assert_type(store.verify(deep=True), Report)
assert_type(store.pins(), dict[str, list[CheckpointId]])
assert_type(store.prune(KeepLast(1), dry_run=True), PrunePlan)
assert_type(store.sweep(older_than=timedelta(hours=1)), list[str])
assert_type(store.recover(), list[Checkpoint])

with store.stage(step=2) as draft:
    assert_type(draft.directory, Path)
    draft.metrics["loss"] = 0.25
assert_type(draft.checkpoint, Checkpoint | None)

with Saver(store, on_error="raise") as saver:
    assert_type(saver.save(Files("model"), step=3), Future[Checkpoint])
    assert_type(saver.age, timedelta | None)
    assert_type(saver.wait(timeout=5), bool)

with Preemption(grace=110, watch=("gce", "aws")) as preemption:
    assert_type(preemption.notice, Notice | None)
    assert_type(preemption.remaining(), float | None)
    assert_type(preemption.install(heeded=lambda frame: frame is not None), bool)
    preemption.request("the scheduler", grace=30)


@dataclass(frozen=True)
class KeepMilestones(Rule):
    """A rule of one's own."""

    steps: frozenset[int]

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """Keep the steps that were named in advance."""
        return [checkpoint for checkpoint in history if checkpoint.step in self.steps]


class Counter:
    """A state of one's own."""

    def __init__(self) -> None:
        self.count = 0

    def snapshot(self) -> Snapshot:
        """Copy."""
        return Copy(self.count)

    def restore(self, directory: Path) -> None:
        """Read back."""
        self.count = int((directory / "count").read_text())


@dataclass(frozen=True)
class Copy:
    """A snapshot of one's own."""

    count: int

    def write_to(self, directory: Path) -> None:
        """Write."""
        (directory / "count").write_text(str(self.count))


state: State = Counter()
rule: Rule = KeepMilestones(frozenset({1})) | KeepLast(1)

manager = CheckpointManager(object(), Path("runs"), 3, 6.5, checkpoint_name="model")
assert_type(manager.save(1, metrics={"loss": 0.5}), str | None)
assert_type(manager.latest_checkpoint, str | None)
assert_type(manager.checkpoints[0], str)
assert_type(manager.restore_or_initialize(), str | None)
assert_type(manager.store, CheckpointStore)
state = CheckpointState(object(), workspace=store.workspace)

data = ReplayableDataset([[1.0]], batch_size=8, seed=1, steps_per_epoch=100)
assert_type(len(data), int)
assert_type(data.epoch(3, start=20), Iterator[Any])
