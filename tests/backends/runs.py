"""
A training that is interrupted anywhere, and what it ends with.

    python -m tests.backends.runs PLACE SIGNAL HOOK TIMES

trains until a hook was called that many times, and then sends itself the signal.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras

from holdfast.keras import BackupAndRestore, ReplayableDataset
from tests.frameworks.runs import X, Y, values

EPOCHS = 3


def new_model(**more: Any) -> Any:
    """A compiled model with much that changes in training, always of the same values."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.05)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"], **more)
    return model


def arrays(**more: Any) -> dict[str, Any]:
    """The data as arrays."""
    return {"x": X, "y": Y, "batch_size": 4, **more}


def dataset() -> dict[str, Any]:
    """The data in an order of ours."""
    return {"x": ReplayableDataset(X, Y, batch_size=4, seed=3)}


def loader(**more: Any) -> dict[str, Any]:
    """The data as PyTorch's own users have it."""
    import torch.utils.data  # noqa: PLC0415 - it may not be installed beside JAX

    torch.manual_seed(5)  # Keras seeds it only where it runs on it
    samples = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    data = torch.utils.data.DataLoader(samples, batch_size=4, shuffle=True, **more)
    return {"x": data, "shuffle": False}


def companions() -> list[Any]:
    """Callbacks that count."""
    return [
        keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5),
        keras.callbacks.LearningRateScheduler(lambda _, rate: rate * 0.9),
    ]


def train(model: Any, data: dict[str, Any], callbacks: Sequence[Any], **more: Any) -> Any:
    """Train to the end; what is left is compared."""
    more = {"epochs": EPOCHS, "verbose": 0, "validation_data": (X[:8], Y[:8]), **more}
    return model.fit(**data, callbacks=list(callbacks), **more)


def left(model: Any, beside: Sequence[Any]) -> list[Any]:
    """Everything that a training leaves: the bytes of the model, History, what callbacks count."""
    kept = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")
    counts = [[getattr(each, name, None) for name in kept] for each in beside]
    arrays = [(value.dtype.str, value.shape, value.tobytes()) for value in values(model)]
    return [arrays, model.history.epoch, model.history.history, counts]


class After(keras.callbacks.Callback):
    """Does something when a hook was called so many times."""

    def __init__(self, hook: str, times: int, do: Callable[[], object]) -> None:
        super().__init__()
        self._left = times
        self._do = do
        setattr(self, hook, self._count)

    def _count(self, *_: Any, **__: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._do()


def backup(place: Any, **more: Any) -> BackupAndRestore:
    """The callback that the script has."""
    return BackupAndRestore(place, **{"save_freq": 4, "delete_checkpoint": False, **more})


if __name__ == "__main__":
    place, number, hook, times = sys.argv[1:]
    end = After(hook, int(times), lambda: os.kill(os.getpid(), signal.Signals[number]))
    train(new_model(), arrays(shuffle=True), [*companions(), backup(place, background=False), end])
