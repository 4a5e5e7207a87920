"""On JAX, whose trainer gives its buffers away, and on PyTorch, a snapshot shows its moment."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast.keras import KerasState, recording, values
from tests.backends.runs import arrays, new_model, train
from tests.frameworks import runs

Moment = tuple[values.Held, list[Any]]


class Takes(keras.callbacks.Callback):
    """Takes a snapshot after each batch: what is held, and copies of the same values."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        model = self.model
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        record = recording.record(model, with_assets=False)
        sources = [each for entry in record.entries for each in entry.sources.values()]
        copies = [np.array(keras.ops.convert_to_numpy(each)) for each in sources]
        if len(self.moments) % 2:
            record.held.detach(beside=True)
        self.moments.append((record.held, copies))


WAYS: dict[str, dict[str, Any]] = {
    "compiled": {},
    "several steps at once": {"steps_per_execution": 2},
    "eager": {"run_eagerly": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_train_shows_its_later_steps(way: str) -> None:
    if keras.backend.backend() == "torch" and way != "eager":
        pytest.skip("PyTorch runs each of its steps as it is")
    model, takes = new_model(**WAYS[way]), Takes()

    train(model, arrays(), [takes])
    model.train_on_batch(runs.X, runs.Y)

    assert len(takes.moments) > 10
    for held, copies in takes.moments:
        assert runs.same(held.arrays, copies)
    firsts = [copies[0].tobytes() for _, copies in takes.moments]
    assert len(set(firsts)) == len(firsts)


def test_no_change_of_a_variable_shows() -> None:
    variable = keras.Variable(np.ones((16, 16), np.float32))
    held = values.Held([variable])

    variable.assign_add(np.ones((16, 16)))
    variable.assign(variable * 2)
    if keras.backend.backend() == "torch":
        variable.value.data.mul_(3)

    assert np.array_equal(held.arrays[0], np.ones((16, 16)))


def test_what_is_copied_is_nobody_elses() -> None:
    variable = keras.Variable(np.ones((16, 16), np.float32))
    held = values.Held([variable])

    held.detach(beside=False)

    assert held.arrays[0].flags.writeable
    assert np.array_equal(held.arrays[0], np.ones((16, 16)))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_training_goes_on_from_what_was_placed_as_from_what_keras_loads(
    suffix: str, tmp_path: Path
) -> None:
    first, one, other = new_model(), new_model(), new_model()
    first.train_on_batch(runs.X, runs.Y)
    first.reset_metrics()
    KerasState(first, f"m{suffix}").snapshot().write_to(tmp_path)

    KerasState(one).restore(tmp_path)
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / f"m{suffix}")
    seeds = [each.layers[2].seed_generator.state for each in (one, other)]
    seeds[1].assign(seeds[0].numpy().copy())

    assert runs.same(runs.values(one), runs.values(other))
    for model in (one, other):
        keras.utils.set_random_seed(3)  # PyTorch draws from the process's own states
        for step in range(6):
            model.train_on_batch(runs.X[step::2], runs.Y[step::2])
    assert runs.same(runs.values(one), runs.values(other))
