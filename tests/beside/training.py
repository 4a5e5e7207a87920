"""
What is trained and saved beside the others: one layer and Adam, the same values in every process.

The backend is TensorFlow on one thread. Its runtime starts with the first tensor and does not
survive a fork, so this module only defines, and every model is made in a child.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a device that a thousand children would fight for
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import keras
import numpy as np

from tests.crash.killer import Window

#: Batches in an epoch.
BATCHES = 4


def build(*, dropout: bool = False) -> Any:
    """A compiled model with all its variables, under the same names each time."""
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((64,), name="inputs")
    dropped = keras.layers.Dropout(0.5, name="drop")(inputs) if dropout else inputs
    model = keras.Model(inputs, keras.layers.Dense(256, name="dense")(dropped), name="model")
    # Eagerly: tracing a graph would take longer than the epochs.
    model.compile("adam", "mse", run_eagerly=True, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


@cache
def _blank() -> Any:
    return build()


def blank() -> Any:
    """
    A model in which everything is zero: what a save leaves out must not look as if it had come.

    It is one model for all that a process looks at: to build one takes longer than to load it.
    """
    model = _blank()
    for value in (*model.variables, *model.optimizer.variables):
        value.assign(keras.ops.zeros_like(value))
    model._initial_epoch = None  # an interrupted `fit` leaves it
    return model


def train(
    model: Any, callbacks: Iterable[Any], epochs: int, *, start: int = 0, batches: int = 1
) -> Any:
    """`fit`, without a shuffle; its History."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(32 * batches, 64)).astype("float32")
    targets = draw.normal(size=(32 * batches, 256)).astype("float32")
    return model.fit(
        inputs,
        targets,
        initial_epoch=start,
        epochs=epochs,
        batch_size=32,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def values(model: Any) -> dict[str, Any]:
    """Every array that training changes and that a resumed run needs, by name."""
    variables = [*model.variables, *model.optimizer.variables]
    return {
        f"{number:03}": keras.ops.convert_to_numpy(each) for number, each in enumerate(variables)
    }


def fingerprint(model: Any) -> str:
    """A hash of weights, optimizer and seed generators."""
    return hashlib.sha256(b"".join(each.tobytes() for each in values(model).values())).hexdigest()


class OpenBefore(keras.callbacks.Callback):
    """
    Opens the window as the second epoch ends: listed before the callback that saves.

    Parameters:
        window (Window): what is counted from then on.
        settle (Callable): waits until the first save is written.
    """

    def __init__(self, window: Window, settle: Callable[[], object]) -> None:
        super().__init__()
        self._window = window
        self._settle = settle

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self._settle()
            self._window.__enter__()


class Scores(keras.callbacks.Callback):
    """
    Says how good each epoch was, under `score`: listed before the callback that compares.

    Parameters:
        scores (Iterable[float]): of the epochs to come.
    """

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self._scores = list(scores)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["score"] = self._scores.pop(0)


class Seen(keras.callbacks.Callback):
    """Notes what the model holds at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(fingerprint(self.model))


class Started(Exception):
    """Training was about to begin: nothing more needs to be known."""


class StopAtStart(keras.callbacks.Callback):
    """Ends `fit` before it trains, and says with which epoch it would have begun."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        raise Started
