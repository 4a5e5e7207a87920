"""What a manager refuses: wrong calls, and places that cannot take a save or be looked at."""

from pathlib import Path
from typing import Any

import pytest

from holdfast import CheckpointStore, open_store
from holdfast.errors import AccessDenied, InvalidInputError, StorageError
from holdfast.testing import Fault, FaultBackend, MemoryBackend

tf = pytest.importorskip("tensorflow")

from holdfast.tensorflow import CheckpointManager  # noqa: E402 - it imports TensorFlow
from tests.frameworks.managed import Run, workspace_of  # noqa: E402 - it too


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"max_to_keep": 0}, "max_to_keep=0"),
        ({"max_to_keep": True}, "max_to_keep=True"),
        ({"keep_checkpoint_every_n_hours": 0}, "keep_checkpoint_every_n_hours=0"),
        ({"checkpoint_interval": 5}, "no step_counter"),
        ({"checkpoint_interval": "5", "step_counter": 0}, "whole number, not '5'"),
        ({"checkpoint_name": "a/b"}, "checkpoint_name 'a/b'"),
        ({"checkpoint": {}}, r"tf.train.Checkpoint can be kept, not \{\}"),
        ({"directory": ""}, "no place|empty"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_touched(
    tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    given = {
        "checkpoint": tf.train.Checkpoint(),
        "directory": tmp_path / "ours",
        "max_to_keep": 3,
        **more,
    }

    with pytest.raises(InvalidInputError, match=told):
        CheckpointManager(**given)

    assert list(tmp_path.iterdir()) == []


def test_a_store_brings_its_own_retention(tmp_path: Path) -> None:
    store = open_store(tmp_path / "given")

    for keep, more in ((2, {}), (None, {"storage_options": {}})):
        with pytest.raises(InvalidInputError, match="has its own retention"):
            CheckpointManager(tf.train.Checkpoint(), store, keep, **more)
    with pytest.raises(InvalidInputError, match="has its own retention"):
        CheckpointManager(tf.train.Checkpoint(), store, None, keep_checkpoint_every_n_hours=6)


def test_a_wrong_save_counts_nothing_and_keeps_nothing(tmp_path: Path) -> None:
    run = Run(CheckpointManager, tmp_path / "ours")

    for number, metrics in ((-1, None), (tf.constant(0.5), None), (None, {"loss": "low"})):
        with pytest.raises(InvalidInputError):
            run.save(1.0, number, metrics=metrics)
    with tf.Graph().as_default(), pytest.raises(InvalidInputError, match="builds a graph here"):
        run.manager.save()

    assert int(run.checkpoint.save_counter) == 0
    assert (len(run.manager.store), workspace_of(run)) == (0, [])


def test_a_place_that_refuses_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    refusing = FaultBackend(MemoryBackend(), [Fault(1, verb="create", error=AccessDenied)])

    with pytest.raises(AccessDenied):
        Run(CheckpointManager, CheckpointStore(refusing, workspace=tmp_path / "work"), None)


def test_a_place_that_cannot_be_looked_at_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    backend = MemoryBackend()
    Run(CheckpointManager, CheckpointStore(backend, workspace=tmp_path / "work"), None).save(1.0)
    failing = FaultBackend(backend, [Fault(1, verb="scan", lasting=True)])
    called: list[str] = []
    store = CheckpointStore(failing, workspace=tmp_path / "work")
    run = Run(CheckpointManager, store, None, init_fn=lambda: called.append("init"))

    for look in (run.manager.restore_or_initialize, lambda: run.manager.latest_checkpoint):
        with pytest.raises(StorageError, match="on purpose"):
            look()

    assert called == []
