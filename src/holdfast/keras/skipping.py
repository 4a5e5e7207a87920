"""Batches that a resumed epoch has trained already: taken from the data, and nothing done."""

import itertools
import sys
from collections.abc import Mapping
from types import CodeType
from typing import Any

import keras

from holdfast.errors import InvalidInputError


class Skipping:
    """
    Stands in for a model's train function, and keeps the callbacks from hearing of it.

    Made at the beginning of an epoch, it works until `end`, or until something else than its `fit`
    calls it: an exception ends a `fit` and tells nobody.

    Parameters:
        model (keras.Model): in a `fit`.
        fit (CodeType | None): what `fit` runs.
        callbacks (keras.callbacks.CallbackList): those of the `fit`.
        heard (keras.callbacks.Callback): the one of them that is told all the same, beside Keras's
            progress bar.
        logs (Mapping[str, Any]): what each of the batches is said to have come to.

    Attributes:
        first_batch (Any): the first batch that passed.
    """

    def __init__(
        self,
        model: Any,
        fit: CodeType | None,
        callbacks: Any,
        heard: Any,
        logs: Mapping[str, Any],
    ) -> None:
        self.first_batch: Any = None
        self._model = model
        self._fit = fit
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
        caller = sys._getframe(1)  # noqa: SLF001 - documented, and the only way to the caller
        callbacks = caller.f_locals.get("callbacks", self._list)
        if caller.f_code is not self._fit or callbacks is not self._list:
            self.end()
            return self._trains(*given)
        # The data comes last: an iterator, or on PyTorch a list. On JAX the state comes before it,
        # which `fit` carries from step to step.
        *state, data = given
        taken = list(itertools.islice(data, self._model.steps_per_execution))
        if not taken:
            self.end()
            raise InvalidInputError(
                "the data of this fit ends before the batch after which the run was saved. The "
                "model has the values of the checkpoint, and nothing was trained or saved. Give "
                "the data and the batch size of the run that is resumed."
            )
        if self.first_batch is None:
            self.first_batch = taken[0]
        return (dict(self._logs), *state) if state else dict(self._logs)

    def end(self) -> None:
        """Train again, and tell everybody."""
        if self._model.train_function is self:  # else it was compiled since
            self._model.train_function = self._trains
        self._list.callbacks = self._callbacks
