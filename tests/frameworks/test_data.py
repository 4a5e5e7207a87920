"""Data that is a function of a seed and the epoch, as `fit` reads it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import pytest

from holdfast.errors import InvalidInputError
from holdfast.keras import ReplayableDataset, opening
from holdfast.keras.opening import Opening
from tests.frameworks.readers import Announces, Reader, Stops, read
from tests.frameworks.runs import X, Y, same, values

N = 10
NUMBERS = np.arange(N, dtype=np.float32).reshape(N, 1)
#: What seed 7 gives, in every version and on every machine.
EPOCHS = [
    [8, 4, 1, 6, 3, 2, 7, 5, 9, 0],
    [3, 9, 1, 6, 2, 5, 4, 8, 0, 7],
    [6, 7, 8, 4, 0, 1, 5, 3, 9, 2],
]


def dataset(**more: Any) -> ReplayableDataset:
    """Ten samples in three batches, of which the last is short."""
    return ReplayableDataset(NUMBERS, NUMBERS, **{"batch_size": 4, "seed": 7, **more})


def in_batches(order: list[int], size: int = 4) -> list[list[int]]:
    return [order[first : first + size] for first in range(0, len(order), size)]


@pytest.fixture(autouse=True)
def nothing_is_announced() -> Iterator[None]:
    yield
    opening.withdraw()


def test_the_order_is_what_it_always_was() -> None:
    data = dataset()

    assert [data.order(epoch).tolist() for epoch in range(3)] == EPOCHS


def test_each_seed_has_an_order_of_its_own() -> None:
    orders = [dataset(seed=seed).order(0) for seed in (0, 1, 2**64 - 1)]

    assert all(sorted(order) == list(range(N)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_without_shuffle_the_samples_come_as_they_lie() -> None:
    assert dataset(shuffle=False).order(5).tolist() == list(range(N))


def test_fit_reads_one_epoch_after_the_other_whatever_it_shuffles() -> None:
    reader, data = Reader(), dataset()

    reader.fit(data, epochs=2, shuffle=True, verbose=0)

    assert reader.trained == in_batches(EPOCHS[0]) + in_batches(EPOCHS[1])


def test_each_fit_begins_with_the_first_epoch() -> None:
    reader, data = Reader(), dataset()

    reader.fit(data, epochs=2, verbose=0)
    reader.fit(data, epochs=1, verbose=0)

    assert reader.trained[6:] == in_batches(EPOCHS[0])


def test_an_announced_epoch_is_read_from_the_batch_on_that_is_not_trained() -> None:
    reader = Reader()

    reader.fit(dataset(), initial_epoch=1, epochs=3, verbose=0, callbacks=[Announces({1: 2})])

    assert reader.trained == [[0, 7], *in_batches(EPOCHS[2])]


def test_batches_that_are_trained_already_are_loaded_once() -> None:
    loaded = []

    class Counted(ReplayableDataset):
        def load(self, indexes: Any, random: Any) -> Any:
            loaded.append(indexes.tolist())
            return super().load(indexes, random)

    data = Counted(NUMBERS, batch_size=2, seed=7)
    opening.announce(Opening(1, trained=4, steps=5))
    data.on_epoch_begin()
    batches = [data[index] for index in range(5)]

    assert loaded == [EPOCHS[1][:2], EPOCHS[1][8:]]
    assert all(len(batch) == 1 and batch[0].shape == (2, 1) for batch in batches)


def test_blocks_of_batches_are_read_in_order() -> None:
    reader = Reader(steps_per_execution=2)

    reader.fit(dataset(), epochs=2, verbose=0, callbacks=[Announces()])

    assert reader.trained == in_batches(EPOCHS[0]) + in_batches(EPOCHS[1])


def test_an_epoch_of_so_many_batches_goes_on_where_the_one_before_ended() -> None:
    reader, data = Reader(), dataset(steps_per_epoch=2)
    stream = [batch for order in EPOCHS[:2] for batch in in_batches(order)]

    reader.fit(data, epochs=3, verbose=0, callbacks=[Announces()])

    assert reader.trained == stream
    assert np.array_equal(data.order(1), stream[2] + stream[3])


def test_an_epoch_may_have_more_batches_than_a_pass() -> None:
    data = dataset(batch_size=5, drop_remainder=True, steps_per_epoch=3)

    assert data.order(0).tolist() == EPOCHS[0] + EPOCHS[1][:5]


def test_a_fit_that_cuts_passes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"ReplayableDataset\(…, steps_per_epoch=2\)"):
        Reader().fit(dataset(), steps_per_epoch=2, verbose=0, callbacks=[Announces()])


def test_a_fit_that_names_the_length_of_an_epoch_is_not() -> None:
    reader = Reader()

    reader.fit(dataset(), steps_per_epoch=3, epochs=2, verbose=0, callbacks=[Announces()])

    assert reader.trained == in_batches(EPOCHS[0]) + in_batches(EPOCHS[1])


def test_validation_is_the_same_after_each_epoch_and_no_part_of_the_training() -> None:
    reader = Reader()

    reader.fit(
        ReplayableDataset(NUMBERS, NUMBERS, 2, 3),
        initial_epoch=1,
        epochs=3,
        validation_data=dataset(),
        verbose=0,
        callbacks=[Announces({1: 2})],
    )

    assert reader.tested == in_batches(EPOCHS[0]) * 2


@pytest.mark.parametrize("is_own", [True, False])
def test_an_evaluation_before_the_first_batch_takes_nothing_from_the_training(
    is_own: bool,
) -> None:
    data = dataset()
    looked_at = data if is_own else dataset(batch_size=5)

    class Looks(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.evaluate(looked_at, verbose=0)

    reader = Reader()
    reader.fit(data, initial_epoch=2, epochs=3, verbose=0, callbacks=[Announces(), Looks()])

    assert reader.tested == in_batches(EPOCHS[0], 4 if is_own else 5)
    assert reader.trained == in_batches(EPOCHS[2])


def test_what_an_interrupted_fit_announced_is_not_for_the_next() -> None:
    data, reader = dataset(), Reader()
    opening.announce(Opening(2, trained=1, steps=3))

    reader.fit(data, verbose=0)

    assert reader.trained == in_batches(EPOCHS[0])


@pytest.mark.parametrize("batch_size", [4, 10])
def test_a_peek_before_the_first_fit_is_no_epoch(batch_size: int) -> None:
    data = dataset(batch_size=batch_size)
    data.on_epoch_begin()  # as Keras on JAX and PyTorch reads a batch to build the model
    data[0]
    data.on_epoch_end()
    data.on_epoch_begin()

    assert read([data[0]]) == in_batches(EPOCHS[0], batch_size)[:1]


def test_an_epoch_that_was_broken_off_is_not_counted() -> None:
    data, reader = dataset(), Reader()
    data.on_epoch_end()
    data.on_epoch_begin()
    data[2]
    data.on_epoch_end()

    reader.fit(data, verbose=0)

    assert reader.trained == in_batches(EPOCHS[0])


def test_between_epochs_the_index_counts() -> None:
    data = dataset()
    assert read([data[2], data[0]]) == [EPOCHS[0][8:], EPOCHS[0][:4]]

    Reader().fit(data, epochs=1, verbose=0)

    assert read(data) == in_batches(EPOCHS[1])
    with pytest.raises(IndexError, match="no batch 3"):
        data[3]


def test_two_readers_of_one_epoch_are_noticed() -> None:
    data = dataset()
    data.on_epoch_begin()
    data[2]

    with pytest.raises(InvalidInputError, match="asked for twice"):
        data[2]


def test_an_epoch_can_be_read_from_any_batch_on_beside_fit() -> None:
    data = dataset()
    data.on_epoch_begin()
    data[0]

    assert read(data.epoch(1)) == in_batches(EPOCHS[1])
    assert read(data.epoch(1, start=2)) == [EPOCHS[1][8:]]
    assert list(data.epoch(1, start=3)) == []
    assert read([data[1]]) == [EPOCHS[0][4:8]]
    with pytest.raises(InvalidInputError, match="start is 4"):
        data.epoch(1, start=4)


def test_batches_have_the_structure_of_the_data() -> None:
    class Table:
        def to_numpy(self) -> Any:
            return NUMBERS[:, 0]

    x = {"one": NUMBERS, "more": [NUMBERS * 2, Table()]}
    data = ReplayableDataset(x, NUMBERS, 4, 7, sample_weight=NUMBERS[:, 0])

    inputs, targets, weights = data[2]

    assert inputs["one"].tolist() == targets.tolist() == [[9], [0]]
    assert [part.tolist() for part in inputs["more"]] == [[[18], [0]], [9, 0]]
    assert isinstance(inputs["more"], tuple)
    assert weights.tolist() == [9, 0]
    assert len(dataset(drop_remainder=True)) == 2


class Noisy(ReplayableDataset):
    """Samples that lie nowhere."""

    def __init__(self, **more: Any) -> None:
        super().__init__(N, **more)

    def load(self, indexes: Any, random: np.random.Generator) -> Any:
        return random.random((len(indexes), 1)), indexes


def test_what_load_draws_is_a_function_of_seed_epoch_and_batch() -> None:
    def drawn(epoch: int, **more: Any) -> list[bytes]:
        batches = Noisy(**{"batch_size": 5, "seed": 7, "shuffle": False, **more}).epoch(epoch)
        return [noise.tobytes() for noise, _ in batches]

    assert drawn(1) == drawn(1)
    assert len({*drawn(0), *drawn(1), *drawn(1, seed=8)}) == 6
    assert drawn(2) == drawn(1, steps_per_epoch=4)[:2]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: dataset(batch_size=0), "batch_size is a whole number from 1 on, not 0"),
        (lambda: dataset(batch_size=True), "batch_size is a whole number"),
        (lambda: dataset(seed=-1), "seed is a whole number from 0 on"),
        (lambda: dataset(seed=2**64), r"seed is below 2\*\*64"),
        (lambda: dataset(steps_per_epoch=0), "steps_per_epoch is a whole number from 1 on"),
        (lambda: dataset(batch_size=11, drop_remainder=True), "Give a smaller batch_size"),
        (lambda: dataset().order(-1), "epoch is a whole number from 0 on"),
        (lambda: dataset().epoch(-1), "number is a whole number from 0 on"),
        (lambda: ReplayableDataset(N), "override load in a subclass"),
        (lambda: ReplayableDataset(N, NUMBERS), "Leave y and sample_weight out"),
        (lambda: ReplayableDataset(NUMBERS, NUMBERS[:9]), "the arrays have 10, 9 samples"),
        (lambda: ReplayableDataset(NUMBERS[:0]), "the arrays have 0 samples"),
        (lambda: ReplayableDataset({}), "the arrays have no samples"),
        (lambda: ReplayableDataset([1, 2]), "samples cannot be picked from a int"),
        (lambda: ReplayableDataset(np.float32(1)), "samples cannot be picked from a float32"),
        (lambda: ReplayableDataset(keras.ops.ones((3, 1))), "Give NumPy arrays"),
        (lambda: ReplayableDataset(NUMBERS, sample_weight=NUMBERS), "Give y too"),
    ],
)
def test_what_cannot_be_read_is_refused(call: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        call()


def test_there_are_no_workers() -> None:
    data = dataset()

    with pytest.raises(AttributeError):
        data.workers = 4
    with pytest.raises(AttributeError):
        data.use_multiprocessing = True


def test_a_training_that_was_interrupted_ends_with_the_same_bytes(model: Any) -> None:
    variables = [*model.variables, *model.optimizer.variables]
    start = values(model)

    def trained(*fits: Mapping[str, Any]) -> list[Any]:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        for fit in fits:
            model.fit(ReplayableDataset(X, Y, 8, seed=3), epochs=3, verbose=0, **fit)
        return values(model)

    whole = trained({})
    broken_off = {"callbacks": [Announces(), Stops(1, 2)]}
    resumed = trained(broken_off, {"initial_epoch": 1, "callbacks": [Announces({1: 2})]})
    begun_anew = trained(broken_off, {"initial_epoch": 1, "callbacks": [Announces()]})

    assert same(resumed, whole)
    assert not same(begun_anew, whole)
