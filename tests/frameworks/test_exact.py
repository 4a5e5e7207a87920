"""
A run that was killed at any moment and resumed ends as if nothing had happened.

Of the moments, the ways to train and the callbacks that save a run tries each second.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random import seed_generator
from tensorflow.python.ops import stateful_random_ops

from holdfast.keras import BackupAndRestore, ModelCheckpoint, randomness
from tests import share
from tests.frameworks import kinds
from tests.frameworks.killed import Draws, Script, Traced
from tests.frameworks.runs import X, Y, quiet

#: Three epochs of three batches.
BATCHES = 9
_FIRST, _EACH = share.turn(2)


def dense() -> Any:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy", metrics=["accuracy"])
    return model


def counting() -> Sequence[Any]:
    """Callbacks that count, that change the learning rate, and that draw."""
    return [
        keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_accuracy", patience=1, factor=0.5),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        Draws(),
    ]


def validated() -> Mapping[str, Any]:
    return {"x": X, "y": Y, "batch_size": 16, "validation_data": (X[:16], Y[:16])}


SAVERS = [BackupAndRestore, ModelCheckpoint]
DENSE = Traced(dense)
#: The saver is the first of the callbacks, or the last.
FIRST = Script(DENSE, after=counting, data=validated)
LAST = Script(DENSE, before=counting, data=validated)


def saver(kind: type, place: Path, save_freq: Any, *, background: bool = False) -> Any:
    if kind is ModelCheckpoint:
        path = place / "run" / "m.weights.h5"
        return ModelCheckpoint(path, save_freq=save_freq, background=background)
    return BackupAndRestore(
        place / "run", save_freq, delete_checkpoint=False, background=background
    )


def test_it_may_be_killed_after_each_batch(tmp_path: Path) -> None:
    for _ in range(BATCHES):
        FIRST.killed(saver(BackupAndRestore, tmp_path, 1), "on_train_batch_end", 1)

    resumed = FIRST.ended(saver(BackupAndRestore, tmp_path, 1))

    assert FIRST.heard == 0  # all that is left is to end the last epoch
    assert resumed == FIRST.unbroken


#: Which callback saves and how often, when the run is killed, each time counted from its start,
#: and how many batches are left.
MOMENTS: dict[str, tuple[type, Script, Any, Sequence[tuple[str, int]], int]] = {
    "twice in one epoch": (
        *(ModelCheckpoint, LAST, 2),
        [("on_train_batch_end", 5), ("on_train_batch_end", 1)],
        5,
    ),
    "in a validation, when the last batch was saved by the first callback": (
        *(ModelCheckpoint, FIRST, 3),
        [("on_test_batch_end", 2)],
        3,
    ),
    "when the last batch was saved by the last callback": (
        *(BackupAndRestore, LAST, 3),
        [("on_train_batch_end", 6)],
        3,
    ),
    "when the epoch was saved by the first callback": (
        *(BackupAndRestore, FIRST, "epoch"),
        [("on_epoch_end", 2)],
        3,
    ),
    "in the epoch after the one that the last callback saved": (
        *(ModelCheckpoint, LAST, "epoch"),
        [("on_train_batch_begin", 5)],
        6,
    ),
    "before anything was saved": (
        *(BackupAndRestore, LAST, 7),
        [("on_epoch_begin", 2)],
        9,
    ),
}


@pytest.mark.parametrize(
    ("kind", "script", "save_freq", "kills", "left"),
    [*MOMENTS.values()][_FIRST - 1 :: _EACH],
    ids=[*MOMENTS][_FIRST - 1 :: _EACH],
)
def test_it_may_be_killed(
    kind: type, script: Script, save_freq: Any, kills: Any, left: int, tmp_path: Path
) -> None:
    for kill in kills:
        script.killed(saver(kind, tmp_path, save_freq), *kill)

    resumed = script.ended(saver(kind, tmp_path, save_freq))

    assert script.heard == left
    assert resumed == script.unbroken


@pytest.mark.parametrize(
    ("kind", "script"), [(SAVERS[0], FIRST), (SAVERS[1], LAST)][_FIRST - 1 :: _EACH]
)
def test_a_callback_that_saves_changes_nothing(kind: type, script: Script, tmp_path: Path) -> None:
    behind = saver(kind, tmp_path, 2, background=True)

    with quiet():  # on a slow machine a save may give way to the next
        assert script.ended(behind) == script.unbroken

    assert behind.newest.step == BATCHES - 1


def stopping(kind: type, patience: int) -> Script:
    """Nothing is ever good enough, so that patience alone decides."""

    def early() -> Sequence[Any]:
        more = {"patience": patience, "restore_best_weights": True}
        return [keras.callbacks.EarlyStopping("loss", min_delta=10, **more)]

    order = {"after" if kind is BackupAndRestore else "before": early}
    return Script(DENSE, data=validated, **order)


@pytest.mark.parametrize("kind", SAVERS[_FIRST - 1 :: _EACH])
def test_a_training_that_had_stopped_stays_so_until_it_is_given_more_patience(
    kind: type, tmp_path: Path
) -> None:
    script = stopping(kind, patience=1)
    script.killed(saver(kind, tmp_path, "epoch"), "on_epoch_end", 2)

    again = saver(kind, tmp_path, "epoch")
    trained = again.store.checkpoints()
    assert script.ended(again, anew=True) == script.unbroken
    assert again.store.checkpoints() == trained
    assert script.unbroken.history["epochs"] == [0, 1]

    more = stopping(kind, patience=3)
    assert more.ended(saver(kind, tmp_path, "epoch")) == more.unbroken
    assert more.unbroken.history["epochs"] == [0, 1, 2]


def in_blocks() -> Any:
    """Four batches are one step for Keras."""
    model = dense()
    model.compile("adam", "mse", metrics=["mae", "accuracy"], steps_per_execution=4)
    return model


def with_two_outputs() -> Any:
    """A layer that is shared and a model inside the model; gradients of three batches are one."""
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Dropout(0.2)])
    shared = keras.layers.Dense(3)
    inputs = [keras.Input((4,), name="one"), keras.Input((4,), name="other")]
    joined = keras.layers.Concatenate()([inner(shared(each)) for each in inputs])
    model = keras.Model(inputs, [keras.layers.Dense(1, name=name)(joined) for name in "ab"])
    optimizer = keras.optimizers.Adam(0.05, gradient_accumulation_steps=3)
    model.compile(optimizer, ["mse", "mae"], metrics=[["mae"], ["mse", "accuracy"]])
    return model


class OwnStep(kinds.Unconfigured):
    """Says itself how a batch is trained and what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = keras.metrics.Mean("seen")

    @property
    def metrics(self) -> list[Any]:
        return [self.seen]

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.seen.update_state(loss)
        return {"seen": self.seen.result()}


def with_an_own_step() -> Any:
    model = kinds.subclassed(OwnStep)
    model.compile(keras.optimizers.RMSprop(0.05))
    return model


def averaged() -> Any:
    model = dense()
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, use_ema=True), "mse")
    return model


def in_half_precision() -> Any:
    model = kinds.sequential("mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(kinds.adam()), "mse", metrics=["mae"])
    return model


def of_some_length() -> Mapping[str, Any]:
    """Batches that nobody has counted."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda x, y: True)
    return {"x": data, "validation_data": data, "validation_freq": 2}


class Batches(keras.utils.PyDataset):
    """Data as people write it: `fit` shuffles its batches by Python's random numbers."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


#: The script, of how many batches or blocks it hears before it is killed, and how many are left.
RUNS: dict[str, tuple[Script, int, int]] = {
    "in blocks of which the last is short": (
        Script(
            in_blocks,
            after=counting,
            data=lambda: {**validated(), "batch_size": 4},
            class_weight={0: 1.0, 1: 2.0},
        ),
        5,
        4,
    ),
    "with two outputs": (
        Script(
            with_two_outputs, data=lambda: {"x": [X, X[::-1]], "y": [Y, 1 - Y], "batch_size": 16}
        ),
        5,
        5,
    ),
    "with a step of one's own, shuffled by fit": (
        Script(with_an_own_step, data=lambda: {"x": Batches()}, shuffle=True),
        5,
        5,
    ),
    "with averages in the place of weights": (
        Script(
            averaged,
            before=lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
            data=validated,
        ),
        7,
        3,
    ),
    "in half precision, over data of unknown length": (
        Script(in_half_precision, data=of_some_length),
        5,
        5,
    ),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras counts it so
@pytest.mark.parametrize(
    ("script", "heard", "left"),
    [*RUNS.values()][_FIRST - 1 :: _EACH],
    ids=[*RUNS][_FIRST - 1 :: _EACH],
)
def test_it_may_train(script: Script, heard: int, left: int, tmp_path: Path) -> None:
    unbroken = script.unbroken
    script.killed(saver(BackupAndRestore, tmp_path, 2), "on_train_batch_end", heard)

    resumed = script.ended(saver(BackupAndRestore, tmp_path, 2), anew=True)

    assert script.heard == left
    assert resumed == unbroken


def test_a_process_that_has_drawn_nothing_gets_the_random_states_of_one_that_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = Draws(), Draws()
    one.on_epoch_begin(0)
    kept = randomness.capture()
    one.on_epoch_begin(1)

    monkeypatch.setattr(stateful_random_ops, "global_generator", None)
    global_state.set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, None)
    assert {"keras", "tensorflow"}.isdisjoint(randomness.capture())  # to look makes none
    assert {"keras", "tensorflow"}.isdisjoint(randomness.capture())
    randomness.put_back(kept)
    other.on_epoch_begin(1)

    assert other.drawn == one.drawn[4:]
