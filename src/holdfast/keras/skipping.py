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
        first_batch (Any): the first batch that passed.
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
        # The data comes last: an iterator, or on PyTorch a list. On JAX the state comes before it,
        # which `fit` carries from step to step.
        *state, data = given
        taken = list(itertools.islice(data, self._model.steps_per_execution))
        if not taken:
            raise StopIteration  # as Keras's own says that the data has ended
        if self.first_batch is None:
            self.first_batch = taken[0]
        return (dict(self._logs), *state) if state else dict(self._logs)

    def end(self) -> None:
        """Train again, and tell everybody."""
        self._model.train_function = self._trains
        self._list.callbacks = self._callbacks
