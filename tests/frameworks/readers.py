"""What `fit` takes from its data, noted; and a callback that only announces epochs."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import keras
import numpy as np

from holdfast.keras import opening
from holdfast.keras.opening import Opening


def read(batches: Any) -> list[list[int]]:
    """The numbers in the first part of each batch."""
    return [np.ravel(batch[0]).astype(int).tolist() for batch in batches]


class Reader(keras.Model):  # type: ignore[misc]
    """Notes the batches that `fit` and `evaluate` take, and trains nothing."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.trained: list[list[int]] = []
        self.tested: list[list[int]] = []
        self.compile(loss="mse", **more)

    def call(self, x: Any) -> Any:
        return x

    def make_train_function(self, force: bool = False) -> None:
        self.train_function = self._noting(self.trained)

    def make_test_function(self, force: bool = False) -> None:
        self.test_function = self._noting(self.tested)

    def _noting(self, noted: list[list[int]]) -> Callable[[Any], dict[str, Any]]:
        def step(iterator: Any) -> dict[str, Any]:
            taken = read(islice(iterator, self.steps_per_execution))
            if not taken:
                raise StopIteration  # as Keras's own says that the data has ended
            noted.extend(taken)
            return {}

        return step


class Announces(keras.callbacks.Callback):  # type: ignore[misc]
    """Announces epochs, and takes the batches that are trained without training them."""

    def __init__(self, trained: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.trained = trained or {}
        self._trains: Any = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        trained = self.trained.get(epoch, 0)
        opening.announce(Opening(epoch, trained, self.params["steps"]))
        self._trains, left = self.model.train_function, iter(range(trained))

        def step(iterator: Any) -> Any:
            if next(left, None) is None:
                return self._trains(iterator)
            next(iterator)
            return {}

        if trained:
            self.model.train_function = step

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        opening.withdraw()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.train_function = self._trains


class Stops(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops the training after a batch of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.last, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = (self.epoch, batch + 1) == self.last
