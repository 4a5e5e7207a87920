"""A model that was brought to a checkpoint, and the rest of the run, which waits for its `fit`."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.checkpoint import Checkpoint
from holdfast.keras import companions, randomness, sums, variables
from holdfast.keras.progress import Position
from holdfast.keras.run import Run


@dataclass(frozen=True)
class Resumption:
    """
    The rest of a run whose model was restored: what only its next `fit` can take.

    Attributes:
        checkpoint (Checkpoint): where the model was restored from.
        position (Position): where the training stood.
        run (Run | None): what belongs to the `fit` that was under way.
        random (Mapping[str, Any]): the random states to go on with.
        values (Sequence[tuple[keras.Variable, numpy.ndarray]]): what callbacks may change before
            the first batch, the numbers of the optimizer, and what the seed generators stood at.
    """

    checkpoint: Checkpoint
    position: Position
    run: Run | None
    random: Mapping[str, Any]
    values: Sequence[tuple[Any, np.ndarray[Any, Any]]]

    @classmethod
    def of(
        cls, model: Any, checkpoint: Checkpoint, position: Position, run: Run | None
    ) -> "Resumption":
        """Take it from a model and a process that were brought to a checkpoint just now."""
        optimizer = getattr(model, "optimizer", None)
        numbers = [] if optimizer is None else [v for v in optimizer.variables if v.shape == ()]
        changing = [*numbers, *variables.seed_states(model)]
        values = [(each, np.array(each.numpy())) for each in changing]
        return cls(checkpoint, position, run, randomness.capture(), values)

    @property
    def is_current(self) -> bool:
        """Whether the model was not trained since it was restored."""
        return all(np.array_equal(variable.numpy(), value) for variable, value in self.values)

    def put_back(self, model: Any, callbacks: Sequence[Any], batch: Any = None) -> list[str]:
        """
        Bring everything to where it stood, once the model and all callbacks have begun.

        Parameters:
            model (keras.Model): in a `fit`.
            callbacks (Sequence): in the order in which they are called.
            batch (Any): a batch of the data, if the run was saved inside an epoch; as `sums`.

        Returns:
            list[str]: what could not be put back, as parts of a sentence.
        """
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()  # else `fit` goes on with values of its own
        for variable, value in self.values:
            variable.assign(value)
        randomness.put_back(self.random)
        if self.run is None:
            return []
        wrong = []
        if self.position.is_inside_epoch and not sums.put_back(model, self.run.metrics, batch):
            wrong.append("what the metrics had summed up of the epoch, since they are others now")
        left = companions.put_back(callbacks, self.run.callbacks, self._tell(self.run))
        if left:
            wrong.append(f"the state of {', '.join(left)}, since this fit has no such callback")
        return wrong

    @staticmethod
    def _tell(run: Run) -> Callable[[Any], object]:
        logs = dict(run.logs)  # one for all, as in Keras: some add to it what later ones read
        return lambda callback: getattr(callback, run.hook)(run.number, logs)


_expected: "weakref.WeakKeyDictionary[Any, Resumption]" = weakref.WeakKeyDictionary()


def expect(model: Any, resumption: Resumption) -> None:
    """Let the next `fit` of a model go on from here."""
    _expected[model] = resumption


def expected(model: Any) -> Resumption | None:
    """What the next `fit` of a model goes on from, if nobody trained it since; asking takes it."""
    found = _expected.pop(model, None)
    return found if found is not None and found.is_current else None
