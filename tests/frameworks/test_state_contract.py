"""
A Keras model is a state like any other: it keeps the whole contract, in each format.

Of the three formats that others read a run tries one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.keras import KerasState
from holdfast.testing import StateContract
from tests import share
from tests.frameworks.runs import X, Y, new_model, values


class KerasStateContract(StateContract):
    """What every format has to hold; the metrics' running sums are of no epoch that goes on."""

    file: str

    def make(self) -> KerasState:
        model = new_model()
        model.run_eagerly = True  # nothing is traced, which would take nearly all the time
        return KerasState(model, self.file)

    def train(self, state: Any) -> None:
        state.model.train_on_batch(X, Y)

    def look(self, state: Any) -> object:
        state.model.reset_metrics()
        state.model.optimizer.build(state.model.trainable_variables)
        return [(value.dtype.str, value.shape, value.tobytes()) for value in values(state.model)]


class TestKeras(KerasStateContract):
    file = "model.keras"


class TestWeights(KerasStateContract):
    file = "model.weights.h5"


class TestSharded(KerasStateContract):
    __test__ = share.turn(3, 0)[0] == 1
    file = "model.weights.json"


class TestLegacy(KerasStateContract):
    __test__ = share.turn(3, 1)[0] == 1
    file = "model.h5"


class TestSavedModel(KerasStateContract):
    __test__ = share.turn(3, 2)[0] == 1
    file = "model"

    def parts(self, directory: Path) -> Sequence[str]:
        """A SavedModel is for others: what restores it lies beside it."""
        return [path for path in super().parts(directory) if path.startswith("training/")]
