"""The models that are saved and trained: of any size, with as many variables as real ones have."""

import zlib
from typing import Any

import keras
import numpy as np

from benchmarks.measuring import MB

#: Each with a kernel, a bias, a gamma and a beta: 248 weights, and with Adam 746 variables.
_BLOCKS = 62


def build(megabytes: float, blocks: int = _BLOCKS) -> Any:
    """A residual network of about this size with Adam's two slots, and values of all of them."""
    keras.utils.set_random_seed(0)
    width = max(2, round((megabytes * MB / 12 / blocks) ** 0.5 - 1.5))
    inputs = outputs = keras.Input((width,))
    for _ in range(blocks):
        inner = keras.layers.LayerNormalization()(outputs)
        inner = keras.layers.Dense(width, activation="relu")(inner)
        outputs = keras.layers.Add()([outputs, inner])
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    _randomize(model)
    return model


def small() -> Any:
    """A small network, to be trained beside a save of something else."""
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(256, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((256,)), *dense])
    model.compile("adam", "mse")
    return model


def batches(model: Any, count: int) -> np.ndarray:
    """So many batches of one sample for a model of `build`; they are the targets, too."""
    return np.random.default_rng(0).random((count, model.input_shape[1]), np.float32)


def state(model: Any) -> list[Any]:
    """The variables that make up the state: the weights and those of the optimizer."""
    return [*model.weights, *model.optimizer.variables]


def arrays(model: Any) -> list[np.ndarray]:
    """The values of the state."""
    return [np.asarray(variable.value) for variable in state(model)]


def megabytes_of(model: Any) -> float:
    """How large the state is."""
    return sum(array.nbytes for array in arrays(model)) / MB


def _randomize(model: Any) -> None:
    """Give every variable values that no compression and no page of zeros makes cheaper."""
    random = np.random.default_rng(1)
    for variable in state(model):
        if variable.dtype == "float32":
            variable.assign(random.random(variable.shape, np.float32))


def clear(model: Any) -> None:
    """Forget every value of the state."""
    for variable in state(model):
        variable.assign(np.zeros(variable.shape, variable.dtype))


def sums(model: Any) -> list[int]:
    """A checksum of each variable, to see whether a restore was right."""
    return [zlib.crc32(np.ascontiguousarray(array)) for array in arrays(model)]
