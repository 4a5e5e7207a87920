"""
A `tf.data` pipeline whose order follows from a seed and the epoch.

A module of its own, since it needs TensorFlow, and Keras on JAX or PyTorch does not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from holdfast.errors import InvalidInputError
from holdfast.keras import opening
from holdfast.keras.data import checked_seed, random_bits, whole_number
from holdfast.keras.opening import Opening


def replayable(make: Callable[[Any], Any], seed: int = 0) -> Any:
    """
    A `tf.data` pipeline for `fit` that is another one in each epoch, and the same one again.

    At the start of every epoch the pipeline is opened with the seed of that epoch, inside of
    `tf.data` and at its speed. Under a callback of Holdfast the epochs are those of the training,
    also after a resume; without one they are counted as the pipeline is opened. In an epoch that is
    resumed in its middle, the batches that were trained already are made again and dropped.

        def make(seed):
            samples = tf.data.Dataset.from_tensor_slices((x, y))
            return samples.shuffle(10_000, seed=seed).map(parse, tf.data.AUTOTUNE).batch(32)

        model.fit(replayable(make, seed=1), epochs=10, shuffle=False, callbacks=[…])

    What `make` gives has to depend on its argument alone. Draw with the stateless functions of
    `tf.random`, and give the seed to every `shuffle`. The order of parallel calls is kept, unless
    one of them is told `deterministic=False`. The seed of `tf.random.set_seed` has no part in it.

    Parameters:
        make (Callable[[tf.Tensor], tf.data.Dataset]): builds one epoch, in batches, from its seed,
            a scalar `int64` from 0 on. It is called in a graph, to build it and never again.
        seed (int): from 0 to 2**64 - 1.

    Returns:
        tf.data.Dataset: one epoch for each time it is iterated. Its number of batches is known
        where `make` gives one that is known.

    Raises:
        InvalidInputError: what `make` gives never ends, or the seed is wrong.
    """
    epochs = _Epochs(checked_seed(seed))

    def opened(_: Any) -> Any:
        drawn = tf.numpy_function(epochs.begin, [], tf.int64)
        return _made(make, tf.ensure_shape(drawn, ()))

    dataset = tf.data.Dataset.from_tensors(0).flat_map(opened)
    batches = _cardinality(make)
    if batches != tf.data.UNKNOWN_CARDINALITY:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return dataset


def epoch_of(make: Callable[[Any], Any], number: int, seed: int = 0, *, start: int = 0) -> Any:
    """
    One epoch of `replayable(make, seed)`, for a loop of your own.

    Parameters:
        make (Callable[[tf.Tensor], tf.data.Dataset]): as for `replayable`.
        number (int): the epoch's number, from 0.
        seed (int): as for `replayable`.
        start (int): the first batch that is wanted; those before are made and dropped.

    Returns:
        tf.data.Dataset: the same batches each time it is iterated.

    Raises:
        InvalidInputError: an argument is wrong.
    """
    whole_number("number", number, least=0)
    whole_number("start", start, least=0)
    drawn = _epoch_seed(checked_seed(seed), number)
    return tf.data.Dataset.from_tensors(drawn).flat_map(lambda each: _made(make, each).skip(start))


class _Epochs:
    """Which epoch a pipeline is opened for."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._next = 0
        opening.register(self)

    def follow(self, opening: Opening) -> None:
        """The next to begin is this one."""
        self._next = opening.epoch

    def begin(self) -> np.int64:
        """Begin the next epoch: its seed."""
        epoch, self._next = self._next, self._next + 1
        return _epoch_seed(self._seed, epoch)


def _epoch_seed(seed: int, epoch: int) -> np.int64:
    return np.int64(random_bits(seed, epoch).random_raw() >> 1)


def _made(make: Callable[[Any], Any], seed: Any) -> Any:
    # In a graph this is the seed of that graph alone; else the script's would have a part in the
    # order. 0 would make TensorFlow ask whether the other seed is 0 too, which no graph can say.
    tf.random.set_seed(1)
    return make(seed)


def _cardinality(make: Callable[[Any], Any]) -> int:
    counted = tf.data.Dataset.from_tensors(np.int64(0)).map(
        lambda seed: _made(make, seed).cardinality()
    )
    batches = int(counted.get_single_element())
    if batches == tf.data.INFINITE_CARDINALITY:
        raise InvalidInputError(
            "what make returns never ends, so no epoch of it does. Say how many batches an epoch "
            "has: end it with .take(batches)."
        )
    return batches
