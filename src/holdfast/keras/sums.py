"""What the metrics of a model have summed up of the epoch that runs."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np


def read(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Copy the variables of a model's metrics, by number and path."""
    return {
        f"{number} {variable.path}": np.array(variable.numpy())
        for number, variable in enumerate(model.metrics_variables)
    }


def put_back(model: Any, kept: Mapping[str, np.ndarray[Any, Any]], batch: Any) -> bool:
    """
    Bring the metrics to what they had summed up.

    Parameters:
        model (keras.Model): compiled.
        kept (Mapping[str, numpy.ndarray]): what `read` gave, of a model of the same making.
        batch (Any): a batch of the training data, by which metrics are built that are not yet; None
            where there is none.

    Returns:
        bool: whether they fit; if not, the metrics are as they were.
    """
    if len(model.metrics_variables) != len(kept) and batch is not None:
        # A train_step of the user's own may be all that knows how to call the model.
        with contextlib.suppress(Exception):
            _build(model, batch)
    variables = model.metrics_variables
    values = list(kept.values())
    if [tuple(each.shape) for each in variables] != [value.shape for value in values]:
        return False
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return True


def _build(model: Any, batch: Any) -> None:
    """
    Let Keras make the variables of the metrics, which it does when it computes them first.

    Nothing is trained: the model is called as in a test, in which nothing random is drawn.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    predicted = model(x, training=False)
    model.compute_loss(x, y, predicted, sample_weight, training=False)
    model.compute_metrics(x, y, predicted, sample_weight)
    model.reset_metrics()
