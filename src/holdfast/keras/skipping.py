"""Batches that a resumed epoch has trained already: taken from the data, and nothing done."""

import itertools
from collections.abc import Mapping
from typing import Any

import keras


class Skipping:
    """
    Stands in for a model's train function, and keeps the callbacks from hearing of it.

    Made at the beginning of an epoch, it works until `end`.

    Parameters:
        model (keras.Model): in a `fit`.
        callbacks (keras.callbacks.CallbackList): those of the `fit`.
        heard (keras.callbacks.Callback): the one of them that is told all the same, beside Keras's
            progress bar.
        logs (Mapping[str, Any]): what each of the batches is said to have come to.

    Attributes:
        first_batch (Any): the first batch that passed, where Keras takes the batches itself; else
            None.
    """

    def __init__(self, model: Any, callbacks: Any, heard: Any, logs: Mapping[str, Any]) -> None:
        self.first_batch: Any = None
        self._model = model
        self._list = callbacks
        self._logs = dict(logs)
        self._trains, model.train_function = model.train_function, self
        # A new list: the loop that calls us goes over the old one.
        self._callbacks = callbacks.callbacks
        callbacks.callbacks = [
            each
            for each in self._callbacks
            if each is heard or isinstance(each, keras.callbacks.ProgbarLogger)
        ]

    def __call__(self, *given: Any) -> Any:
        """Take what Keras's own function takes, and train nothing."""
        if keras.backend.backend() == "jax":
            return dict(self._logs), given[0]  # the state, which `fit` carries from step to step
        if keras.backend.backend() == "tensorflow":
            self._take(given[0])
        return dict(self._logs)

    def end(self) -> None:
        """Train again, and tell everybody."""
        self._model.train_function = self._trains
        self._list.callbacks = self._callbacks

    def _take(self, iterator: Any) -> None:
        # On TensorFlow the function takes batches from an iterator; elsewhere it is given them.
        taken = list(itertools.islice(iterator, self._model.steps_per_execution))
        if not taken:
            raise StopIteration  # as Keras's own says that the data has ended
        if self.first_batch is None:
            self.first_batch = taken[0]
