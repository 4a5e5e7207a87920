"""What is handed out, and what rules are made of, stays as it was made."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.backends.base import Entry, Traits
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.fetching import Damage, Report
from holdfast.manifest import Tombstone
from holdfast.retention import (
    AllOf,
    AnyOf,
    KeepAll,
    KeepBest,
    KeepEvery,
    KeepLast,
    KeepWithin,
    Kept,
    PrunePlan,
)
from holdfast.series import KeepInSeries
from holdfast.writer import Turn

ID = CheckpointId(1, 2, "0a0b0c0d")
CHECKPOINT = Checkpoint(ID, datetime(2026, 1, 5, tzinfo=UTC))
MADE = [
    ID,
    CHECKPOINT,
    File("model", 1, "sha256:" + "0" * 64),
    Tombstone(ID),
    Turn(1, 2, "0a0b0c0d"),
    KeepAll(),
    KeepLast(1),
    KeepBest("loss"),
    KeepEvery(steps=10),
    KeepWithin(days=1),
    AnyOf((KeepLast(1),)),
    AllOf((KeepLast(1),)),
    KeepInSeries("model", KeepLast(1)),
    Kept(CHECKPOINT, ("latest",)),
    PrunePlan((Kept(CHECKPOINT, ("latest",)),), ()),
    Damage(ID, "model", "missing"),
    Report((CHECKPOINT,), (), deep=True),
    Entry("manifests/a", 1),
    Traits(),
]


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_it_cannot_be_changed(made: Any) -> None:
    for name in [*(field.name for field in dataclasses.fields(made)), "another"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, None)


def test_a_place_is_taken_for_a_disk_unless_it_says_otherwise() -> None:
    traits = Traits()

    assert (traits.parallel, traits.exclusive, traits.fresh, traits.durable) == (1, *[True] * 3)
