"""Whether the data of a `fit` can come in the same order again."""

from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras
import numpy as np

_CURE = (
    "The run goes on, and the weights, the optimizer and everything else are exactly those that "
    "were saved; but it will not end with the same bytes as a run that was never interrupted. "
)


def not_replayable(fit: FrameType | None) -> Iterator[str]:
    """
    What is wrong with the order of the data in a `fit`, as texts for the user.

    Keras tells its callbacks nothing of the data. What `fit` was called with is read from its
    frame, for this message alone; where it looks otherwise, nothing is said.

    Parameters:
        fit (FrameType | None): the frame of `fit`, or of whatever else calls the callbacks.
    """
    given: dict[str, Any] = {} if fit is None or fit.f_code.co_name != "fit" else fit.f_locals
    data, shuffle, steps = given.get("x"), given.get("shuffle"), given.get("steps_per_epoch")
    if isinstance(data, Iterator):
        yield (
            "fit takes its batches from a generator, which begins anew in this process and gives "
            f"the batches of the first epoch again. {_CURE}Give a keras.utils.PyDataset or a "
            "tf.data.Dataset instead; holdfast.keras.ReplayableDataset makes one of arrays."
        )
    elif steps is not None and _is_array(data):
        yield (
            f"fit takes {steps:,} batches of its arrays for an epoch and goes on from there in the "
            "next, and in this process it began at the first batch again, or shuffled anew. "
            f"{_CURE}For that give holdfast.keras.ReplayableDataset(x, y, batch_size, seed, "
            f"steps_per_epoch={steps}) in the place of the arrays, and to fit no steps_per_epoch."
        )
    elif steps is not None and _batches(data) not in (None, steps):
        yield (
            f"fit takes {steps:,} batches of its tf.data.Dataset for an epoch and goes on from "
            "there in the next, and in this process it began at the first batch again. "
            f"{_CURE}For that let the dataset end after the {steps:,} batches of an epoch, as "
            "holdfast.keras.pipeline.replayable does, and give fit no steps_per_epoch."
        )
    elif shuffle and _is_array(data) and keras.backend.backend() == "tensorflow":
        # On JAX it draws from NumPy's random state, on PyTorch from PyTorch's: those are kept.
        yield (
            "fit shuffles arrays by a random state that nobody can read or set, so from here on "
            f"the batches come in another order than they would have. {_CURE}For that give "
            "holdfast.keras.ReplayableDataset(x, y, batch_size, seed) in the place of the arrays, "
            "or shuffle=False."
        )
    elif _draws_by_itself(data):
        yield (
            "the DataLoader draws from a torch.Generator of its own, which begins anew in this "
            f"process, so from here on the batches are others than they would have been. {_CURE}"
            "For that leave generator out: then it draws from PyTorch's own random state, which is "
            "kept."
        )


def _is_array(data: Any) -> bool:
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list | tuple) and data:
        data = data[0]
    # As Keras tells arrays from data that gives its batches itself.
    return isinstance(data, np.ndarray) or (hasattr(data, "__array__") and hasattr(data, "shape"))


def _batches(data: Any) -> int | None:
    """How many batches a `tf.data.Dataset` has; negative where it cannot tell, or has no end."""
    cardinality = getattr(data, "cardinality", None)
    return None if cardinality is None else int(cardinality())


def _draws_by_itself(data: Any) -> bool:
    """Whether it is a PyTorch `DataLoader` with a random state that is not kept."""
    sampler = getattr(data, "sampler", None)
    return any(getattr(each, "generator", None) is not None for each in (data, sampler))
