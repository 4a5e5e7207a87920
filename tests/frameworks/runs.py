"""Small models, a replayable order of batches, and trainings that are only played."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from holdfast.errors import CheckpointWarning

EPOCHS = 4
_RANDOM = np.random.default_rng(0)
X = _RANDOM.random((40, 4), dtype=np.float32)
Y = (X.sum(axis=1, keepdims=True) > 2).astype(np.float32)


def new_model(*, units: int = 3, optimizer: Any = None) -> Any:
    """A compiled model with dropout, always of the same values."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    optimizer = optimizer or keras.optimizers.Adam(0.05)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    return model


def train(model: Any, epochs: int, callbacks: Sequence[Any] = (), **more: Any) -> Any:
    """Train on the same batches in the same order."""
    return model.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **more,
    )


def play(
    model: Any,
    callbacks: Sequence[Any],
    epochs: Sequence[Mapping[str, Any]],
    *,
    batches: Sequence[Mapping[str, Any]] = (),
    first: int = 0,
) -> None:
    """
    Tell callbacks of a training that does not happen.

    Parameters:
        epochs: the logs at each epoch's end.
        batches: the logs at each batch's end, the same in every epoch.
        first: the first epoch's number.
    """
    told = keras.callbacks.CallbackList(list(callbacks), model=model, steps=len(batches) or None)
    model.stop_training = False
    told.on_train_begin()
    for epoch, logs in enumerate(epochs, start=first):
        told.on_epoch_begin(epoch)
        for batch, batch_logs in enumerate(batches):
            told.on_train_batch_end(batch, dict(batch_logs))
        told.on_epoch_end(epoch, dict(logs))
    told.on_train_end()


def values(model: Any) -> list[np.ndarray[Any, Any]]:
    """Everything in a model that training changes."""
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    return [variable.numpy() for variable in [*model.variables, *optimizer]]


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two models hold the same bytes."""
    return len(one) == len(other) and all(
        left.dtype == right.dtype and left.tobytes() == right.tobytes()
        for left, right in zip(one, other, strict=True)
    )


def set_all(model: Any, number: float) -> None:
    """Give every weight one value, to tell models apart."""
    for weight in model.weights:
        weight.assign(np.full(weight.shape, number))


def by_us(told: Sequence[Any]) -> list[str]:
    """The texts of our own warnings."""
    return [str(each.message) for each in told if isinstance(each.message, CheckpointWarning)]


def quiet() -> warnings.catch_warnings:  # type: ignore[type-arg]
    """For what Keras itself warns about while it fails."""
    return warnings.catch_warnings(action="ignore")
