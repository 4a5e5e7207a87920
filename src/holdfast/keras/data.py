"""Batches whose order follows from a seed and the epoch, so that a resumed run has them again."""

import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from holdfast.errors import InvalidInputError
from holdfast.keras import opening
from holdfast.keras.opening import Opening

#: What fits into a word of the random bits.
_SEEDS = 2**64
#: How many batches Keras looks at before `fit` begins, to learn their types and shapes.
_PEEKED = 2


class ReplayableDataset(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """
    Arrays, or samples that `load` fetches, in batches for `fit`.

    The order of the samples is a function of the seed and the epoch, the same on every machine and
    with every version of NumPy, and an epoch can start at any batch. Under a callback of Holdfast
    the epochs are those of the training, also after a resume, and inside an epoch. Without one,
    each `fit` and each `evaluate` counts them from 0; so as validation data the order is always
    the same.

        model.fit(ReplayableDataset(x, y, batch_size=64, seed=1), epochs=10, callbacks=[…])

    `fit(shuffle=True)` changes nothing in the order: while an epoch runs, the n-th batch that is
    asked for is its n-th, whatever its index. So one dataset serves one `fit` at a time; to look
    at a batch meanwhile, take `epoch`. There is no `workers`: Keras's queue would hand batches that
    were read for one epoch to the next. TensorFlow reads ahead all the same.

    A subclass that overrides `load` reads samples from anywhere, and augments them:

        class Images(ReplayableDataset):
            def __init__(self, paths, labels, **more):
                super().__init__(len(paths), **more)
                self.paths, self.labels = paths, labels

            def load(self, indexes, random):
                images = np.stack([read_image(self.paths[index]) for index in indexes])
                return images[:, :, :: random.choice([-1, 1])], self.labels[indexes]

    Parameters:
        x (Any): an array, or tuples, lists and dicts of arrays: whatever has a length and can be
            indexed with an array of integers. A table of pandas counts as its values. Or the
            number of samples, for a subclass that overrides `load`.
        y (Any): the targets, of the same kinds.
        batch_size (int): samples in a batch. The last batch of a pass may be smaller.
        seed (int): from 0 to 2**64 - 1.
        sample_weight (Any): of the same kinds.
        shuffle (bool): False takes the samples as they lie.
        drop_remainder (bool): leave out the samples that do not fill a batch; others in each epoch.
        steps_per_epoch (int | None): batches in an epoch, if it is not one pass over the samples.
            Passes follow one another then, and an epoch ends and begins anywhere in them. Not to be
            given to `fit`.

    Raises:
        InvalidInputError: an argument is wrong, or the arrays differ in length.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        seed: int = 0,
        *,
        sample_weight: Any = None,
        shuffle: bool = True,
        drop_remainder: bool = False,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self._batch_size = whole_number("batch_size", batch_size, least=1)
        self._seed = checked_seed(seed)
        self._shuffle = shuffle
        if isinstance(x, int | np.integer):
            if y is not None or sample_weight is not None:
                raise InvalidInputError(
                    "x is a number of samples, so load brings their targets and weights too. Leave "
                    "y and sample_weight out."
                )
            if type(self).load is ReplayableDataset.load:
                raise InvalidInputError(
                    f"x is the number of samples, {x:,}, and nothing says how to load them. Give "
                    "arrays, or override load in a subclass."
                )
            self._data, samples = None, whole_number("x", int(x), least=1)
        else:
            self._data, samples = _arrays(x, y, sample_weight)
        self._samples = samples
        whole, rest = divmod(samples, self._batch_size)
        self._batches_in_pass = whole + (1 if rest and not drop_remainder else 0)
        if not self._batches_in_pass:
            raise InvalidInputError(
                f"{samples:,} samples do not fill one batch of {batch_size:,}, and "
                "drop_remainder=True leaves out what does not. Give a smaller batch_size."
            )
        self._steps = (
            self._batches_in_pass
            if steps_per_epoch is None
            else whole_number("steps_per_epoch", steps_per_epoch, least=1)
        )
        self._order: tuple[int, np.ndarray[Any, Any]] | None = None
        self._reading: _Reading | None = None
        self._next: int | None = None  # None until Keras has reset it, as every fit does at first
        self._ignored: Opening | None = None

    @property
    def workers(self) -> int:
        """1, and cannot be set."""
        return 1

    @property
    def use_multiprocessing(self) -> bool:
        """False, and cannot be set."""
        return False

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._steps

    def __getitem__(self, index: int) -> Any:
        """
        The next batch of the epoch that Keras reads; between epochs, batch `index` of the next.

        Raises:
            InvalidInputError: two read the same epoch.
            IndexError: there is no such batch.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are batches 0 to {len(self) - 1}, and no batch {index}")
        reading = self._reading
        if reading is None:
            return self._batch(self._next or 0, index)
        number = reading.take(index)
        if number >= reading.trained:
            return self._batch(reading.epoch, number)
        # Nobody looks at what was trained already, so that one batch does for all.
        if reading.spare is None:
            reading.spare = self._batch(reading.epoch, number)
        return reading.spare

    def load(self, indexes: np.ndarray[Any, Any], random: np.random.Generator) -> Any:  # noqa: ARG002
        """
        Fetch the samples of a batch; to be overridden for those that do not lie in arrays.

        It has to depend on its arguments alone. TensorFlow calls it on a thread that reads ahead.
        In an epoch that is resumed, of the batches that are trained only the first is loaded.

        Parameters:
            indexes (numpy.ndarray): which samples, in order.
            random (numpy.random.Generator): to augment them; its state is a function of the seed
                and of the batch's place in the run. What it makes of it may differ between
                versions of NumPy.

        Returns:
            Any: what `fit` trains on: `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        """
        return keras.tree.map_structure(lambda array: array[indexes], self._data)

    def order(self, epoch: int) -> np.ndarray[Any, Any]:
        """
        The indexes of an epoch's samples, in the order in which they are trained.

        Parameters:
            epoch (int): its number, from 0.
        """
        whole_number("epoch", epoch, least=0)
        batches = range(len(self))
        return np.concatenate([self._indexes(*self._place(epoch, each)) for each in batches])

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """
        The batches of an epoch, for a loop of your own. What `fit` reads is not touched.

        Parameters:
            number (int): the epoch's number, from 0.
            start (int): the first batch that is wanted; those before cost nothing.

        Raises:
            InvalidInputError: there is no such epoch or batch.
        """
        whole_number("number", number, least=0)
        if whole_number("start", start, least=0) > len(self):
            raise InvalidInputError(f"an epoch has {len(self):,} batches, and start is {start:,}.")
        return (self._batch(number, each) for each in range(start, len(self)))

    def on_epoch_begin(self) -> None:
        """Keras begins to read an epoch: the one that was announced, or the next."""
        announced = opening.current()
        if announced is self._ignored:
            announced = None
        self._ignored = None
        if announced is None:
            self._reading = _Reading(self._next or 0)
            return
        if announced.steps not in (None, len(self)):
            raise InvalidInputError(
                f"fit takes {announced.steps:,} batches for an epoch, and this dataset has "
                f"{len(self):,}: its passes would be cut, and could not be replayed. Nothing of "
                "this epoch was trained. Say it here and not to fit: "
                f"ReplayableDataset(…, steps_per_epoch={announced.steps})."
            )
        self._reading = _Reading(announced.epoch, announced.trained, announced)

    def on_epoch_end(self) -> None:
        """Keras has read an epoch; or begins anew, as at the start of each fit."""
        announced, reading = opening.current(), self._reading
        # What was announced before we begin anew, or was read, is not for the next to begin.
        if reading is None or reading.announced is announced:
            self._ignored = announced
        # Before its first fit Keras may have peeked, which is no epoch, however much it took.
        is_read = reading is not None and self._next is not None and reading.taken >= len(self)
        self._next = reading.epoch + 1 if reading is not None and is_read else 0
        self._reading = None

    def _batch(self, epoch: int, number: int) -> Any:
        turn, place = self._place(epoch, number)
        random = np.random.Generator(random_bits(self._seed, turn, place + 1))
        return self.load(self._indexes(turn, place), random)

    def _place(self, epoch: int, number: int) -> tuple[int, int]:
        """In which pass over the samples a batch lies, and where in it."""
        return divmod(epoch * len(self) + number, self._batches_in_pass)

    def _indexes(self, turn: int, place: int) -> np.ndarray[Any, Any]:
        kept = self._order  # one look: a thread that reads ahead may replace it
        if kept is None or kept[0] != turn:
            kept = self._order = turn, self._permutation(turn)
        first = place * self._batch_size
        return kept[1][first : first + self._batch_size].copy()

    def _permutation(self, turn: int) -> np.ndarray[Any, Any]:
        if not self._shuffle:
            return np.arange(self._samples)
        # The bits are promised to stay what they are; what NumPy's permutation makes of them is not
        bits = random_bits(self._seed, turn).random_raw(self._samples)
        return np.argsort(bits, kind="stable")


class _Reading:
    """
    One reading of an epoch by Keras.

    Attributes:
        epoch (int): its number.
        trained (int): how many of its batches are trained already.
        announced (Opening | None): what announced it.
        spare (Any): what is handed out for those that are trained.
    """

    def __init__(self, epoch: int, trained: int = 0, announced: Opening | None = None) -> None:
        self.epoch = epoch
        self.trained = trained
        self.announced = announced
        self.spare: Any = None
        self._asked: set[int] = set()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many batches were asked for."""
        return len(self._asked)

    def take(self, index: int) -> int:
        """
        The number of the batch that is next.

        Keras asks for each index once, shuffled by a random state that nobody can read or set. The
        next `fit` looks at the first two before it begins, also if an exception ended this one.
        """
        with self._lock:
            if index in self._asked and index < _PEEKED:
                return index
            if index in self._asked:
                raise InvalidInputError(
                    f"batch {index} of epoch {self.epoch + 1} was asked for twice, so something "
                    "beside fit reads this dataset: an index in a callback, an evaluate, or an "
                    "earlier fit that was interrupted. The order of this epoch is not what the "
                    "seed says; checkpoints of earlier epochs are good. Resume from one, and look "
                    "at batches with epoch(), or through a dataset of their own."
                )
            self._asked.add(index)
            return len(self._asked) - 1


def random_bits(seed: int, number: int, part: int = 0) -> np.random.Philox:
    """
    A source of random bits of its own for each seed, number and part of that number.

    NumPy promises that it gives the same bits in every version and on every machine.
    """
    key, counter = np.array([seed, number], np.uint64), np.array([0, 0, 0, part], np.uint64)
    return np.random.Philox(key=key, counter=counter)


def checked_seed(seed: object) -> int:
    """The seed, if it is one; else InvalidInputError."""
    number = whole_number("seed", seed, least=0)
    if number >= _SEEDS:
        raise InvalidInputError(f"seed is below 2**64, not {seed!r}.")
    return number


def whole_number(name: str, value: object, *, least: int) -> int:
    """The value, if it is a whole number that is not too small; else InvalidInputError."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name} is a whole number from {least} on, not {value!r}.")
    return int(value)


def _arrays(x: Any, y: Any, sample_weight: Any) -> tuple[Any, int]:
    """What a batch is cut from, and how many samples it has."""
    if y is None and sample_weight is not None:
        raise InvalidInputError("sample_weight weighs the targets, and y is None. Give y too.")
    given = tuple(each for each in (x, y, sample_weight) if each is not None)
    # As tuples, since tf.data takes a list for one tensor.
    data = keras.tree.map_structure(_values, keras.tree.lists_to_tuples(given))
    lengths = [_length(array) for array in keras.tree.flatten(data)]
    if len(set(lengths)) != 1 or not lengths[0]:
        counts = ", ".join(f"{length:,}" for length in lengths) or "no"
        raise InvalidInputError(
            f"the arrays have {counts} samples; all need the same number, and at least one."
        )
    return data, lengths[0]


def _values(array: Any) -> Any:
    return array.to_numpy() if hasattr(array, "to_numpy") else array


def _length(array: Any) -> int:
    try:
        shape = getattr(array, "shape", None)
        length = len(array) if shape is None else int(shape[0])
        array[np.array([length - 1, 0][:length], np.int64)]
    except Exception as error:
        raise InvalidInputError(
            f"samples cannot be picked from a {type(array).__name__}: indexed with an array of "
            f"integers in any order it fails ({error}). Give NumPy arrays, or the number of "
            "samples to a subclass that overrides load."
        ) from error
    return length
