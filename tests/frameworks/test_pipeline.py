"""A `tf.data` pipeline that is a function of a seed and the epoch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from holdfast.errors import InvalidInputError
from holdfast.keras import opening
from holdfast.keras.opening import Opening
from holdfast.keras.pipeline import epoch_of, replayable
from tests.frameworks.readers import Announces, Reader, Stops, read
from tests.frameworks.runs import X, Y, same, values

N = 10


def numbers(seed: Any) -> Any:
    """Ten samples in three batches, of which the last is short."""
    samples = tf.data.Dataset.range(N).shuffle(N, seed=seed)
    return samples.map(lambda each: (tf.cast(each, tf.float32)[None],)).batch(4)


EPOCHS = [read(epoch_of(numbers, epoch, 7)) for epoch in range(3)]


@pytest.fixture(autouse=True)
def nothing_is_announced() -> Iterator[None]:
    yield
    opening.withdraw()


def fit(reader: Reader, data: Any, **more: Any) -> list[list[int]]:
    reader.fit(data, shuffle=False, verbose=0, **more)
    return reader.trained


def test_the_seed_of_an_epoch_is_what_it_always_was() -> None:
    def seeds(seed: Any) -> Any:
        return tf.data.Dataset.from_tensors(seed)

    found = [[int(each) for each in epoch_of(seeds, epoch, 7)] for epoch in range(2)]

    assert found == [[8043457917274619346], [8139319885621606286]]


def test_each_epoch_has_every_sample_in_an_order_of_its_own() -> None:
    epochs = [*EPOCHS, read(epoch_of(numbers, 0, 8))]
    orders = {tuple(number for batch in batches for number in batch) for batches in epochs}

    assert all(sorted(order) == list(range(N)) for order in orders)
    assert len(orders) == 4


def test_fit_opens_one_epoch_after_the_other() -> None:
    data = replayable(numbers, 7)

    assert fit(Reader(), data, epochs=3) == [*EPOCHS[0], *EPOCHS[1], *EPOCHS[2]]
    assert int(data.cardinality()) == 3


def test_an_announced_epoch_is_opened_though_others_were_before() -> None:
    data = replayable(numbers, 7)
    assert [read(data), read(data)] == EPOCHS[:2]

    trained = fit(Reader(), data, initial_epoch=1, epochs=3, callbacks=[Announces({1: 2})])

    assert trained == [EPOCHS[1][2], *EPOCHS[2]]


def test_validation_has_the_order_of_the_epoch_after_which_it_comes() -> None:
    reader = Reader()

    fit(
        reader,
        replayable(numbers, 3),
        initial_epoch=1,
        epochs=3,
        validation_data=replayable(numbers, 7),
        callbacks=[Announces({1: 2})],
    )

    assert reader.tested == EPOCHS[1] + EPOCHS[2]


def test_the_length_of_an_epoch_may_be_unknown() -> None:
    def odd(seed: Any) -> Any:
        return numbers(seed).unbatch().filter(lambda each: each[0] % 2 == 1).batch(4)

    data, reader = replayable(odd, 7), Reader()
    expected = [read(epoch_of(odd, epoch, 7)) for epoch in range(2)]

    with pytest.warns(UserWarning, match="ran out of data"):  # as Keras counts the first epoch
        trained = fit(reader, data, epochs=2, callbacks=[Announces()])

    assert int(data.cardinality()) == tf.data.UNKNOWN_CARDINALITY
    assert trained == [*expected[0], *expected[1]]


def test_an_epoch_can_begin_at_any_batch() -> None:
    assert read(epoch_of(numbers, 1, 7, start=1)) == EPOCHS[1][1:]


def test_the_seed_of_the_script_has_no_part_in_it_and_stays() -> None:
    tf.random.set_seed(0)
    drawn = float(tf.random.uniform(()))
    tf.random.set_seed(0)

    assert read(epoch_of(numbers, 0, 7)) == EPOCHS[0]
    assert float(tf.random.uniform(())) == drawn


def test_a_pipeline_follows_for_as_long_as_it_is_used() -> None:
    data = replayable(numbers, 7).prefetch(1)
    opening.announce(Opening(2))

    assert read(data) == EPOCHS[2]


def test_what_is_no_epoch_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"\.take\(batches\)"):
        replayable(lambda seed: numbers(seed).repeat())
    with pytest.raises(InvalidInputError, match="number is a whole number from 0 on"):
        epoch_of(numbers, -1)
    with pytest.raises(InvalidInputError, match="start is a whole number from 0 on"):
        epoch_of(numbers, 0, start=-1)


def test_a_training_that_was_interrupted_ends_with_the_same_bytes(model: Any) -> None:
    variables = [*model.variables, *model.optimizer.variables]
    start = values(model)

    def samples(seed: Any) -> Any:
        return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(40, seed=seed).batch(8)

    def trained(*fits: Any) -> list[np.ndarray[Any, Any]]:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        for more in fits:
            model.fit(replayable(samples, 3), epochs=3, shuffle=False, verbose=0, **more)
        return values(model)

    whole = trained({})
    broken_off = {"callbacks": [Announces(), Stops(1, 2)]}
    resumed = trained(broken_off, {"initial_epoch": 1, "callbacks": [Announces({1: 2})]})

    assert same(resumed, whole)
