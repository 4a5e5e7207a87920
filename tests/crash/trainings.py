"""
What is trained while it is killed: a toy and a network for digits, what saves it, how it ends.

The backend is TensorFlow on one thread of one processor. Its runtime starts with the first tensor
and does not survive a fork, so this module only defines, and every model is made in a child.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a device that a thousand children would fight for
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hashlib
import importlib.util
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from holdfast import KeepLast
from holdfast.keras import BackupAndRestore, ModelCheckpoint, ReplayableDataset
from tests.crash.struck import Tell

#: The callbacks that save, by name: ours, and the one to compare them with.
OURS = ("BackupAndRestore", "ModelCheckpoint .keras", "ModelCheckpoint .weights.h5")
KERAS = "Keras's BackupAndRestore"
#: Called with the model before `fit`; gives what `initial_epoch` shall be.
Resume = Callable[[Any], int]


@dataclass(frozen=True)
class Training:
    """
    A training that is the same each time.

    Parameters:
        network (str): `toy` or `digits`.
        replayed (bool): the data is a `ReplayableDataset`; else arrays that are not shuffled.
        block (int): batches in an execution.
        patience (int): of `EarlyStopping`; with 0 the second epoch is the last.
    """

    network: str = "toy"
    replayed: bool = False
    block: int = 1
    patience: int = 3

    @property
    def epochs(self) -> int:
        return 4 if self.network == "toy" else 3

    @property
    def batches(self) -> int:
        """In an epoch."""
        return 12 if self.network == "toy" else 10

    def model(self) -> Any:
        """A compiled model, always of the same values."""
        keras.utils.set_random_seed(7)  # Python's and NumPy's too
        model = toy() if self.network == "toy" else digits()
        model.compile(
            keras.optimizers.Adam(0.02),
            "binary_crossentropy" if self.network == "toy" else "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            steps_per_execution=self.block,
            jit_compile=False,  # to compile takes longer than to train
        )
        return model

    def run(
        self,
        model: Any,
        saving: Sequence[Any] = (),
        *,
        first: bool = True,
        resume: Resume = lambda _: 0,
        tell: Tell = lambda *_, **__: None,
    ) -> dict[str, str]:
        """
        Train, as a script that may be started again does it.

        Parameters:
            model (keras.Model): as `model` gives it.
            saving (Sequence): the callbacks that save.
            first (bool): they are called before the others; else after them.
            resume (Callable): called with the model; gives the epoch to begin with.
            tell (Callable): is told what the training does.

        Returns:
            dict[str, str]: a hash of each part of what the training ends with.
        """
        x, y, size = toy_data() if self.network == "toy" else digits_data()
        count = size * self.batches
        trained: dict[str, Any] = {"x": x[:count], "y": y[:count], "batch_size": size}
        if self.replayed:
            trained = {"x": ReplayableDataset(x[:count], y[:count], size, seed=3)}
        others, begins = companions(self.patience), Tells(tell, self.batches)
        callbacks = [*saving, *others] if first else [*others, *saving]
        tell("restoring")
        history = model.fit(
            **trained,
            validation_data=(x[count:], y[count:]),
            epochs=self.epochs,
            initial_epoch=resume(model),
            shuffle=False,
            verbose=0,
            callbacks=[begins, *callbacks, Heard(tell)],
        )
        return {"weights": begins.weights, **ended(model, history, others)}


def toy() -> Any:
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def digits() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.RandomFlip("vertical"),
            keras.layers.RandomTranslation(0.1, 0.1),
            keras.layers.RandomRotation(0.05),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


@cache
def toy_data() -> tuple[Any, Any, int]:
    x = np.random.default_rng(0).random((64, 4), dtype=np.float32)
    return x, (x.sum(axis=1, keepdims=True) > 2).astype(np.float32), 4


@cache
def digits_data() -> tuple[Any, Any, int]:
    # The file of `sklearn.datasets.load_digits`, whose import takes longer than a training.
    (home,) = importlib.util.find_spec("sklearn").submodule_search_locations
    rows = np.loadtxt(Path(home, "datasets", "data", "digits.csv.gz"), delimiter=",")[:400]
    return (rows[:, :-1].reshape(-1, 8, 8, 1) / 16).astype(np.float32), rows[:, -1].astype(int), 32


def saver(
    name: str, place: Path, *, save_freq: str | int, background: bool, delete: bool
) -> tuple[Any, Resume]:
    """
    A callback that saves into a directory, and what gives the epoch to begin with.

    Parameters:
        delete (bool): it removes checkpoints, at the end or while it goes on.
    """
    if name == KERAS:
        return keras.callbacks.BackupAndRestore(str(place), save_freq=save_freq), lambda _: 0
    more: dict[str, Any] = {"save_freq": save_freq, "background": background}
    if name == "BackupAndRestore":
        return BackupAndRestore(place, delete_checkpoint=delete, **more), lambda _: 0
    suffix = name.split()[1]
    rule = KeepLast(2) if delete else None
    callback = ModelCheckpoint(place / f"m{suffix}", retention=rule, **more)
    return callback, callback.resume


def companions(patience: int) -> list[Any]:
    """The callbacks beside those that save: all of them remember something."""
    return [
        # To it no epoch is better than the first.
        keras.callbacks.EarlyStopping(
            "val_loss", min_delta=1, patience=patience, restore_best_weights=True
        ),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=0, factor=0.5, min_delta=0.02),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        Draws(),
    ]


class Draws(keras.callbacks.Callback):
    """A user's own: draws from the random states of the process, and remembers what."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = state["drawn"]

    def on_train_begin(self, logs: Any = None) -> None:
        self.drawn = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.drawn.append(epoch + random.random())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.drawn.append(batch + np.random.random())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.drawn.append(logs["val_loss"])


class Tells(keras.callbacks.Callback):
    """The first callback of all: says what comes, and how far the training is."""

    def __init__(self, tell: Tell, batches: int) -> None:
        super().__init__()
        self._tell = tell
        self._batches = batches
        self._before = 0
        self._has_traced = False
        self.weights = ""

    def on_train_begin(self, logs: Any = None) -> None:
        self._tell("beginning")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before = epoch * self._batches

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell("training" if self._has_traced else "tracing", begun=self._before + batch)
        self._has_traced = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell("saving", trained=self._before + min(batch + 1, self._batches))

    def on_test_begin(self, logs: Any = None) -> None:
        self._tell("validating")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._tell("saving")

    def on_train_end(self, logs: Any = None) -> None:
        self._tell("ending")
        self.weights = hashed(self.model.get_weights())  # before the best are restored


class Heard(keras.callbacks.Callback):
    """The last of the user's: says that all have heard."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def on_train_begin(self, logs: Any = None) -> None:
        self._tell("going on")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell("between batches")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._tell("between epochs")


def ended(model: Any, history: Any, others: Sequence[Any]) -> dict[str, str]:
    early, plateau, _, draws = others
    weights = {id(each) for each in model.weights}
    seeds = [each.numpy() for each in model.variables if id(each) not in weights]
    parts: dict[str, Any] = {
        "best weights": [each.numpy() for each in model.weights],
        "optimizer": [each.numpy() for each in model.optimizer.variables],
        "seed generators": seeds,
        "History": [history.history, history.epoch],
        "EarlyStopping": [
            *(early.wait, early.best, early.best_epoch, early.stopped_epoch),
            *(early.best_weights or []),
        ],
        "ReduceLROnPlateau": [plateau.wait, plateau.best, plateau.cooldown_counter],
        "own callback": draws.drawn,
        "random states": [random.getstate(), np.random.get_state(legacy=False)],
    }
    return {name: hashed(value) for name, value in parts.items()}


def hashed(value: Any) -> str:
    """A hash of numbers, arrays and texts, to the bit."""
    return hashlib.sha256(plain(value).encode()).hexdigest()[:16]


def plain(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {plain(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain, value))}]"
    return repr(float(value)) if isinstance(value, float) else repr(value)
