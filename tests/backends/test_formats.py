"""What is kept on JAX and on PyTorch, in each format, and what becomes of it elsewhere."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast import open_store
from holdfast.errors import CheckpointWarning, InvalidInputError
from holdfast.keras import KerasState, ModelCheckpoint
from tests.backends.runs import After, arrays, new_model, train
from tests.frameworks.runs import X, Y, same, values

ROOT = Path(__file__).parents[2]
BACKEND = keras.backend.backend()
OTHER = "torch" if BACKEND == "jax" else "jax"
SUFFIXES = [".keras", ".weights.h5", ".weights.json", ".h5"]


def trained(steps: int) -> Any:
    model = new_model(run_eagerly=True)  # to trace it would take nearly all the time
    for _ in range(steps):
        model.train_on_batch(X, Y)
    model.reset_metrics()
    return model


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_state_is_the_same_after_a_restore(suffix: str, tmp_path: Path) -> None:
    model, other = trained(2), trained(0)
    before = values(model)
    snapshot = KerasState(model, f"m{suffix}").snapshot()
    model.train_on_batch(X, Y)  # which does not show in the snapshot

    snapshot.write_to(tmp_path)
    KerasState(other).restore(tmp_path)

    other.reset_metrics()
    assert same(values(other), before)
    other.train_on_batch(X, Y)
    assert same(values(other), values(model))


def test_a_state_can_be_taken_inside_an_epoch(tmp_path: Path) -> None:
    model, other = new_model(), trained(0)

    def take() -> None:
        KerasState(model).snapshot().write_to(tmp_path)

    train(model, arrays(), [After("on_train_batch_end", 3, take)], epochs=1)
    KerasState(other).restore(tmp_path)

    assert int(other.optimizer.iterations) == 3


@pytest.mark.skipif(BACKEND == "jax", reason="where TensorFlow is installed JAX writes it")
def test_a_saved_model_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Keras writes none on torch.*End the name in"):
        ModelCheckpoint(tmp_path / "model")


WRITES = """
import sys
import numpy as np
from holdfast import open_store
from holdfast.keras import KerasState
from tests.backends.test_formats import trained
model = trained(2)
np.savez(sys.argv[2], *model.get_weights())
open_store(sys.argv[1]).save(KerasState(model, "m.weights.h5"), step=2)
"""


def test_a_checkpoint_of_another_backend_is_restored_and_told(tmp_path: Path) -> None:
    pytest.importorskip(OTHER)
    place, kept = str(tmp_path / "store"), str(tmp_path / "kept.npz")
    environment = {**os.environ, "KERAS_BACKEND": OTHER}
    command = [sys.executable, "-c", WRITES, place, kept]
    subprocess.run(command, cwd=ROOT, env=environment, timeout=300, check=True)
    model = trained(0)

    with pytest.warns(CheckpointWarning, match=rf"on {OTHER}, and this is {BACKEND}.*To resume"):
        open_store(place).restore(KerasState(model))

    with np.load(kept) as there:
        assert same(model.get_weights(), list(there.values()))
    assert int(model.optimizer.iterations) == 2
