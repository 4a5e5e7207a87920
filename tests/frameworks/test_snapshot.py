"""A snapshot shows the moment at which it was taken, whatever is done before it is written."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from holdfast.keras import KerasState, recording, values
from tests import share
from tests.frameworks.kinds import fresh, subclassed, trained
from tests.frameworks.runs import new_model, same

_RANDOM = np.random.default_rng(0)
WORDS = _RANDOM.integers(0, 8, (12, 2))
NUMBERS = _RANDOM.random((12, 4), dtype=np.float32)
Y = _RANDOM.random((12, 1), dtype=np.float32)

Moment = tuple[tuple[values.Held, ...], list[Any]]

#: What follows on a snapshot, in turns: it is written at once, or while training goes on.
WAYS_ON = itertools.cycle(("at once", "copied", "beside"))


def new_words() -> Any:
    """A model whose embedding gets sparse gradients, with much else that training changes."""
    keras.utils.set_random_seed(1)
    words, numbers = keras.Input((2,), dtype="int32"), keras.Input((4,))
    one = keras.layers.Flatten()(keras.layers.Embedding(8, 2)(words))
    other = keras.layers.BatchNormalization()(keras.layers.Dense(3)(numbers))
    joined = keras.layers.Concatenate()([one, keras.layers.Dropout(0.3)(other)])
    return keras.Model([words, numbers], keras.layers.Dense(1)(joined))


def taken(model: Any) -> Moment:
    """What is held of a model, and copies of the same values."""
    variables = [*model.variables, *model.optimizer.variables]
    record = recording.record(model, with_assets=False)
    sources = [source for entry in record.entries for source in entry.sources.values()]
    moment = (record.held, values.Held(variables))
    copies = [np.array(each.numpy()) for each in [*sources, *variables]]
    if (way_on := next(WAYS_ON)) != "at once":
        for held in moment:
            held.detach(beside=way_on == "beside")
    return moment, copies


def shown(moment: Moment) -> bool:
    """Whether what is held is still what was copied."""
    moments, copies = moment
    return same([array for held in moments for array in held.arrays], copies)


def differ(one: Moment, other: Moment) -> bool:
    return not same(one[1], other[1])


class Takes(keras.callbacks.Callback):
    """Takes a snapshot after each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.moments.append(taken(self.model))


# Every optimizer.

#: Made of others, and not by a learning rate.
_OF_OTHERS = {"LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap"}
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    name: each
    for name, each in vars(keras.optimizers).items()
    if isinstance(each, type) and name not in _OF_OTHERS
}
CHOICES: dict[str, dict[str, Any]] = {
    "": {},
    "averaged": {"use_ema": True, "ema_overwrite_frequency": 2},
    "accumulated": {"gradient_accumulation_steps": 2},
    "decayed and clipped": {"weight_decay": 0.02, "global_clipnorm": 1.0},
}


def one_by_path(variable: Any) -> Any:
    is_table = variable.path.endswith("embeddings")
    return keras.optimizers.SGD(0.1) if is_table else keras.optimizers.Adam(0.1)


OWN: dict[str, Callable[[], Any]] = {
    "SGD momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "SGD nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "RMSprop centered": lambda: keras.optimizers.RMSprop(0.1, centered=True, momentum=0.5),
    "Adam amsgrad": lambda: keras.optimizers.Adam(0.1, amsgrad=True),
    "delegated": lambda: keras.optimizers.MultiOptimizer(one_by_path),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
}
ALL = OWN | {
    f"{name} {choice}".strip(): lambda make=make, more=more: make(0.1, **more)
    for choice, more in CHOICES.items()
    for name, make in OPTIMIZERS.items()
}
_FIRST, _EACH = share.turn(3)


@pytest.fixture(scope="module")
def words() -> Any:
    return new_words()


@pytest.mark.parametrize("optimizer", list(ALL)[_FIRST - 1 :: _EACH])
def test_no_optimizer_shows_its_later_steps(optimizer: str, words: Any) -> None:
    words.compile(ALL[optimizer](), "mse")
    variables = words.trainable_variables
    words.optimizer.build(variables)
    gradients = [tf.ones(each.shape) for each in variables]
    rows = [each.path.endswith("embeddings") for each in variables].index(True)
    gradients[rows] = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 5]), variables[rows].shape)

    moments = [taken(words)]
    for _ in range(3):  # before the first sparse update, between, and after
        words.optimizer.apply(list(gradients), variables)
        moments.append(taken(words))
    words.optimizer.apply(list(gradients), variables)

    assert all(shown(each) for each in moments)
    assert all(differ(*pair) for pair in pairwise(moments))


# Every way to train.

WAYS: dict[str, dict[str, Any]] = {
    "traced": {"jit_compile": False},
    "compiled": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "several compiled": {"jit_compile": True, "steps_per_execution": 2},
    "several traced": {"jit_compile": False, "steps_per_execution": 2},
    "mirrored": {"jit_compile": False},
}
_FIRST_WAY, _EACH_WAY = share.turn(3, 1)


@pytest.mark.parametrize("way", list(WAYS)[_FIRST_WAY - 1 :: _EACH_WAY])
def test_no_way_to_train_shows_its_later_steps(way: str) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"]) if way == "mirrored" else None
    with strategy.scope() if strategy else tf.device(None):
        model = new_words()
        model.compile(OWN["SGD momentum"](), "mse", metrics=["mae"], **WAYS[way])
        model.optimizer.build(model.trainable_variables)
    first, takes = taken(model), Takes()

    model.fit([WORDS, NUMBERS], Y, batch_size=2, verbose=0, callbacks=[takes])
    last = taken(model)
    model.train_on_batch([WORDS[:2], NUMBERS[:2]], Y[:2])

    moments = [first, *takes.moments, last]
    assert all(shown(each) for each in moments)
    # Between the last batch and the end nothing changes, and `fit` clears the metrics at first.
    assert all(differ(*pair) for pair in pairwise(moments[:-1]))


def changes(variable: Any) -> Iterator[Callable[[], object]]:
    """What anybody may do with a variable, again and again in any order."""
    inner = variable._value
    rows = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]))
    step = tf.function(lambda: inner.assign_sub(tf.ones((4, 2))))
    compiled = tf.function(lambda: inner.assign_add(inner * 2), jit_compile=True)
    for _ in range(2):
        yield lambda: variable.assign(np.random.default_rng(1).random((4, 2)))
        yield lambda: variable.assign_add(np.ones((4, 2)))
        yield step
        yield compiled
        yield lambda: inner.scatter_add(rows)  # from here on a read is a copy
        yield lambda: inner.scatter_update(tf.IndexedSlices(inner[:1] + 1, tf.constant([2])))
        yield lambda: inner[1:2].assign(inner[1:2] + 1)
    values.assign([variable], values.rooms([((4, 2), "float32")]))  # memory that was handed over
    yield lambda: inner.assign(tf.ones((4, 2)))
    yield step
    yield lambda: inner.scatter_add(rows)


def test_no_change_of_a_variable_shows() -> None:
    variable = keras.Variable(np.ones((4, 2), np.float32))

    for number, change in enumerate(changes(variable)):
        held, copy = values.Held([variable]), variable.numpy().tobytes()
        change()

        assert held.arrays[0].tobytes() == copy, number
        assert variable.numpy().tobytes() != copy, number


def place_of(variable: Any) -> int:
    """Where a variable's value lies."""
    return int(values.Held([variable]).arrays[0].ctypes.data)


def test_a_step_changes_in_place_what_was_copied_for_a_snapshot() -> None:
    copied, borrowed = (keras.Variable(np.zeros((16, 16), np.float32)) for _ in range(2))
    for variable in (copied, borrowed):  # which may lie in NumPy's memory, that nobody changes
        variable._value.assign(tf.ones((16, 16)))
    places = [place_of(variable) for variable in (copied, borrowed)]
    snapshots = values.Held([copied]), values.Held([borrowed])
    snapshots[0].detach(beside=False)

    for variable in (copied, borrowed):
        variable._value.assign_add(np.ones((16, 16)))

    assert (place_of(copied), place_of(borrowed) == places[1]) == (places[0], False)
    for held in snapshots:
        assert np.array_equal(held.arrays[0], np.ones((16, 16)))


def test_what_changes_while_it_is_copied_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = [keras.Variable(np.full((4, 4), number, np.float32)) for number in range(4)]
    held, copy = values.Held(variables), np.copyto
    begun, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> None:
        begun.set()
        go_on.wait(60)
        copy(*given)

    monkeypatch.setattr(np, "copyto", slow)
    held.detach(beside=True)
    begun.wait(60)
    for variable in variables:
        variable.assign(np.full((4, 4), -1))
    go_on.set()

    assert [float(array[0, 0]) for array in held.arrays] == [0, 1, 2, 3]


def test_what_a_step_has_copied_already_is_not_copied_again() -> None:
    variable = keras.Variable(np.ones((4, 4), np.float32))
    held = values.Held([variable])
    place = held.arrays[0].ctypes.data

    variable.assign(np.zeros((4, 4)))
    held.detach(beside=False)

    assert held.arrays[0].ctypes.data == place
    assert np.array_equal(held.arrays[0], np.ones((4, 4)))


def test_where_there_is_no_memory_for_copies_they_are_left_to_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variable = keras.Variable(np.ones((4, 4), np.float32))

    def none(_: object) -> Any:
        raise MemoryError("on purpose")

    held = values.Held([variable])
    with monkeypatch.context() as patch:
        patch.setattr(values, "rooms", none)
        held.detach(beside=False)
    variable.assign(np.zeros((4, 4)))

    assert np.array_equal(held.arrays[0], np.ones((4, 4)))


def test_what_a_variable_held_lives_as_long_as_its_snapshot(tmp_path: Path) -> None:
    model = trained("sequential")
    before = [value.numpy() for value in model.weights]
    snapshot = KerasState(model, "m.weights.h5").snapshot()
    for value in [*model.variables, *model.optimizer.variables]:
        value.assign(np.zeros(value.shape))
    del model, value
    keras.utils.clear_session()

    snapshot.write_to(tmp_path)

    other = fresh("sequential")
    KerasState(other).restore(tmp_path)
    assert same([value.numpy() for value in other.weights], before)


# Where Keras saves at once.


def zeroed(model: Any) -> None:
    for variable in [*model.variables, *model.optimizer.variables]:
        variable.assign(np.zeros(variable.shape))


class Saves(keras.Model):
    """Says what it does when it is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.said: list[str] = []

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def save(self, *given: Any, **more: Any) -> None:
        self.said.append("save")
        super().save(*given, **more)

    def save_weights(self, *given: Any, **more: Any) -> None:
        self.said.append("save_weights")
        super().save_weights(*given, **more)


@pytest.mark.parametrize(("file", "own"), [("m.keras", "save"), ("m.weights.h5", "save_weights")])
def test_a_model_that_saves_in_its_own_way_does_so(
    file: str, own: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = subclassed(Saves)

    KerasState(model, file).snapshot().write_to(tmp_path)

    assert model.said == [own]
    assert f"Saves has a {own}() of its own" in caplog.text


def test_a_keras_that_saves_otherwise_is_waited_for_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model()
    model.optimizer.build(model.trainable_variables)
    before = [value.numpy() for value in [*model.weights, *model.optimizer.variables]]
    monkeypatch.setattr(recording, "saving_lib", object())
    caplog.set_level(logging.INFO, "holdfast")

    for file in ("one.weights.h5", "other.keras"):
        (tmp_path / file).mkdir()
        snapshot = KerasState(model, file).snapshot()
        kept = [value.numpy() for value in model.weights]
        zeroed(model)
        snapshot.write_to(tmp_path / file)
        KerasState(model).restore(tmp_path / file)
        assert same([value.numpy() for value in model.weights], kept)

    assert same([value.numpy() for value in [*model.weights, *model.optimizer.variables]], before)
    (line,) = [each.getMessage() for each in caplog.records if each.name.startswith("holdfast")]
    assert "is written while training waits" in line
    assert "_save_state" in line


class Scaled(keras.layers.Layer):
    """With a weight that is a single number of a type that TensorFlow gives no array for."""

    def build(self, shape: Any) -> None:
        self.add_weight(shape=(), dtype="bfloat16", initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5"])
def test_a_single_number_of_half_its_size_is_kept(file: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), Scaled()])
    snapshot = KerasState(model, file).snapshot()
    model.weights[0].assign(0)

    snapshot.write_to(tmp_path)
    KerasState(model, file).restore(tmp_path)

    assert float(model.weights[0].numpy()) == 1.0
