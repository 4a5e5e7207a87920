"""Keras with as little beside it as can be: one import in each worker, one small trained model."""

import os

# Before the first import of TensorFlow: it reads these once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

from collections.abc import Iterator
from typing import Any

import pytest

keras = pytest.importorskip("keras")

from tests.frameworks import runs  # noqa: E402 - it imports Keras, which may not be installed


@pytest.fixture(scope="session")
def shared_model() -> Any:
    """A model that was trained for an epoch, so that its optimizer and its metrics are built."""
    model = runs.new_model()
    runs.train(model, 1)
    return model


@pytest.fixture
def model(shared_model: Any) -> Iterator[Any]:
    """The shared model, as if nobody had used it."""
    kept, said = runs.values(shared_model), dict(shared_model._compile_config.config)
    yield shared_model
    # Keras takes the optimizer out of it for an `.h5`, and a `.keras` file then says RMSprop.
    shared_model._compile_config.config.update(said)
    variables = [*shared_model.variables, *shared_model.optimizer.variables]
    for variable, value in zip(variables, kept, strict=True):
        variable.assign(value)


@pytest.fixture(scope="session")
def unbroken() -> dict[int, list[Any]]:
    """What a run that is never interrupted holds after each epoch, counted from 1."""
    held: dict[int, list[Any]] = {}
    model = runs.new_model()

    class Holds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            held[epoch + 1] = runs.values(model)

    runs.train(model, runs.EPOCHS, [Holds()])
    return held
