"""A model that was brought to a checkpoint, and the rest of the run, which waits for its `fit`."""

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.checkpoint import Checkpoint
from holdfast.errors import CheckpointWarning
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
            the first batch: the numbers of the optimizer, such as its learning rate.
        steps (Sequence[tuple[keras.Variable, numpy.ndarray]]): what every batch changes: the
            optimizer's counters, and what the seed generators stand at.
        optimizer (keras.Optimizer | None): what the model was compiled with.
    """

    checkpoint: Checkpoint
    position: Position
    run: Run | None
    random: Mapping[str, Any]
    values: Sequence[tuple[Any, np.ndarray[Any, Any]]]
    steps: Sequence[tuple[Any, np.ndarray[Any, Any]]]
    optimizer: Any

    @classmethod
    def of(
        cls, model: Any, checkpoint: Checkpoint, position: Position, run: Run | None
    ) -> "Resumption":
        """Take it from a model and a process that were brought to a checkpoint just now."""
        optimizer = getattr(model, "optimizer", None)
        numbers = [] if optimizer is None else [v for v in optimizer.variables if v.shape == ()]
        counters = [each for each in numbers if "int" in str(each.dtype)]
        rates = [each for each in numbers if "int" not in str(each.dtype)]
        steps = _read([*counters, *variables.seed_states(model)])
        random = randomness.capture()
        return cls(checkpoint, position, run, random, _read(rates), steps, optimizer)

    def is_current(self, model: Any) -> bool:
        """Whether the model was neither trained nor compiled since it was restored."""
        return getattr(model, "optimizer", None) is self.optimizer and all(
            np.array_equal(variable.numpy(), value) for variable, value in self.steps
        )

    def as_it_is(self) -> "Resumption":
        """With the learning rate that the user has given the model since it was restored."""
        return replace(self, values=_read([variable for variable, _ in self.values]))

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
        for variable, value in (*self.values, *self.steps):
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
    """What the next `fit` of a model goes on from; asking takes it."""
    found = _expected.pop(model, None)
    if found is None or found.is_current(model):
        return None if found is None else found.as_it_is()
    warnings.warn(
        f"{model.name!r} was restored from {found.checkpoint}, and then trained or compiled anew, "
        "so this training does not go on exactly where that one was saved. The checkpoint is "
        "untouched. Compile first, then resume, and then call fit.",
        CheckpointWarning,
        stacklevel=4,
    )
    return None


def _read(given: Sequence[Any]) -> list[tuple[Any, np.ndarray[Any, Any]]]:
    return [(each, np.array(each.numpy())) for each in given]
