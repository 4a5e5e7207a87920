"""A Keras model is a state like any other: it keeps the whole contract, in each format."""

from typing import Any

import pytest

from holdfast.keras import KerasState
from holdfast.testing import StateContract
from tests.frameworks.runs import new_model, train, values


class KerasStateContract(StateContract):
    """What every format has to hold; the metrics' running sums are of no epoch that goes on."""

    file: str

    def make(self) -> KerasState:
        return KerasState(new_model(), self.file)

    def train(self, state: Any) -> None:
        train(state.model, epochs=1)

    def look(self, state: Any) -> object:
        state.model.reset_metrics()
        state.model.optimizer.build(state.model.trainable_variables)
        return [(value.dtype.str, value.shape, value.tobytes()) for value in values(state.model)]


class TestKeras(KerasStateContract):
    file = "model.keras"


class TestWeights(KerasStateContract):
    file = "model.weights.h5"


@pytest.mark.filterwarnings("default::UserWarning")  # Keras calls the format legacy
class TestLegacy(KerasStateContract):
    file = "model.h5"
