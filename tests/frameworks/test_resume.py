"""A run that was killed and resumed ends with the bytes of one that never was."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast import open_store
from holdfast.errors import (
    CheckpointWarning,
    CorruptionError,
    InvalidInputError,
    StorageError,
)
from holdfast.keras import KerasState, ModelCheckpoint, Position
from tests.frameworks.runs import (
    EPOCHS,
    by_us,
    new_model,
    play,
    same,
    train,
    values,
)

FORMATS = [".keras", ".weights.h5", ".h5", ".hdf5"]


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for each format, left by a run that ended after two of its four epochs."""
    root = tmp_path_factory.mktemp("halfway")
    callbacks = [
        ModelCheckpoint(root / suffix / f"m-{{epoch}}{suffix}", background=False)
        for suffix in FORMATS
    ]
    train(new_model(), 2, callbacks)
    return root


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_resumed_run_ends_with_the_same_bytes(
    suffix: str, halfway: Path, unbroken: dict[int, list[Any]]
) -> None:
    model = new_model()
    again = ModelCheckpoint(halfway / suffix / f"m-{{epoch}}{suffix}", background=False)
    before = again.store.checkpoints()

    epoch = again.resume(model)
    restored = values(model)
    train(model, EPOCHS, [again], initial_epoch=epoch)

    assert epoch == 2
    assert same(restored, unbroken[2])
    assert same(values(model), unbroken[EPOCHS])
    assert [each.step for each in again.store] == [10, 20, 30, 40]
    assert again.store.checkpoints()[2].parent == before[-1].id


def test_without_the_seed_generators_it_would_not(
    halfway: Path, unbroken: dict[int, list[Any]]
) -> None:
    store = open_store(halfway / ".keras")
    kept = store.download(next(each for each in store if each.step == 20))

    model = keras.saving.load_model(kept / "m-2.keras")
    train(model, EPOCHS, initial_epoch=2)

    assert not same(values(model), unbroken[EPOCHS])


def test_an_empty_store_begins_at_epoch_0(tmp_path: Path) -> None:
    model = new_model()
    before = values(model)

    assert ModelCheckpoint(tmp_path / "m.keras").resume(model) == 0
    assert same(values(model), before)


def test_a_place_that_does_not_answer_is_not_empty(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")

    def fails(*args: Any) -> Any:
        raise StorageError("the place does not answer.")

    monkeypatch.setattr(ours.store._backend, "scan", fails)
    with pytest.raises(StorageError, match="does not answer"):
        ours.resume(model)


def test_a_draft_that_was_left_is_published_first(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")
    draft = ours.store.draft(step=7, metadata={"series": "m.keras"})
    KerasState(model, "m.keras", position=Position(3, 0, 7)).snapshot().write_to(draft.directory)
    ours.store.seal(draft)
    draft.release()

    assert ours.resume(new_model()) == 3
    assert [each.step for each in ours.store] == [7]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "{epoch}.keras", background=False)
    play(model, [ours], [{}] * 2)
    (newest,) = tmp_path.glob("files/*/2.keras")
    newest.write_bytes(b"x" * newest.stat().st_size)

    with pytest.warns(CheckpointWarning, match="Passing over it"):
        assert ours.resume(new_model()) == 1

    (first,) = tmp_path.glob("files/*/1.keras")
    first.unlink()
    with pytest.warns(CheckpointWarning), pytest.raises(CorruptionError, match="none of the 2"):
        ours.resume(new_model())


def test_a_run_goes_on_inside_an_epoch(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=4, background=False)
    play(model, [ours], [{}], batches=[{}] * 6)

    again = ModelCheckpoint(tmp_path / "m.keras", save_freq=4, background=False)
    assert again.resume(model) == 0
    play(model, [again], [{}] * 2, batches=[{}] * 6)

    assert [each.step for each in ours.store] == [4, 8, 12]
    assert [each.metadata["batch"] for each in ours.store] == [4, 2, 6]


def test_a_learning_rate_that_is_given_after_the_resume_counts(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=4, background=False)
    play(model, [ours], [{}], batches=[{}] * 6)

    ours.resume(model)
    model.optimizer.learning_rate = 0.25
    play(model, [ours], [{}] * 2, batches=[{}] * 6)

    assert [each.step for each in ours.store] == [4, 8, 12]
    assert float(model.optimizer.learning_rate) == 0.25


def test_a_model_that_was_trained_after_the_resume_begins_its_fit_anew(
    tmp_path: Path, model: Any
) -> None:
    train(model, 1, [ours := ModelCheckpoint(tmp_path / "m.keras", background=False)])

    ours.resume(model)
    train(model, 1)
    with pytest.warns(CheckpointWarning, match="and then trained or compiled anew"):
        history = train(model, 2, [ours], initial_epoch=1)

    assert history.epoch == [1]


def test_an_epoch_is_ended_whose_last_batch_was_saved(tmp_path: Path, model: Any) -> None:
    ended: list[int] = []

    class Ends(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ended.append(epoch)

    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=6)
    play(model, [ours], [{}], batches=[{}] * 6)

    assert ours.resume(model) == 0
    play(model, [ours, Ends()], [{}] * 2, batches=[{}] * 6)

    assert ended == [0, 1]
    assert [each.step for each in ours.store] == [6, 12]


def test_a_training_that_begins_elsewhere_is_told(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=4, background=False)
    play(model, [ours], [{}] * 2, batches=[{}] * 6)

    assert ours.resume(model) == 1
    with pytest.warns(
        CheckpointWarning, match="inside epoch 2, after its batch 6, and this"
    ) as told:
        play(model, [ours], [{}], batches=[{}] * 6)

    assert len(by_us(told)) == 1


def test_an_epoch_of_another_length_begins_at_its_first_batch(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=4, background=False)
    play(model, [ours], [{}], batches=[{}] * 6)
    ours.resume(model)

    with pytest.warns(CheckpointWarning, match=r"An epoch has 3 batches now, and had 6\."):
        play(model, [ours], [{}], batches=[{}] * 3)


def test_data_that_ends_before_the_checkpoint_is_an_error(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=4, background=False)
    play(model, [ours], [{}], batches=[{}] * 6)
    ours.resume(model)
    told = keras.callbacks.CallbackList([ours], model=model)  # its length is not known
    told.on_train_begin()
    told.on_epoch_begin(0)
    told.on_train_batch_end(0, {})

    with pytest.raises(InvalidInputError, match=r"after batch 4 of epoch 1, and the data .* ends"):
        told.on_epoch_end(0, {})

    assert [each.step for each in ours.store] == [4]


def test_an_epoch_that_was_stopped_is_not_finished(tmp_path: Path, model: Any) -> None:
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 3

    first = values(model)
    train(model, 1)
    unbroken = values(model)
    variables = [*model.variables, *model.optimizer.variables]
    for variable, value in zip(variables, first, strict=True):
        variable.assign(value)

    ours = ModelCheckpoint(tmp_path / "m.keras", background=False)
    train(model, 1, [Stops(), ours])
    assert ours.store.checkpoints()[-1].metadata["batch"] == 4
    epoch = ours.resume(model)
    train(model, 1, [ours], initial_epoch=epoch)

    assert epoch == 0
    assert same(values(model), unbroken)


def test_stopping_at_the_end_of_an_epoch_finishes_it(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", background=False)
    early = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=10)

    train(model, 3, [early, ours])

    assert ours.resume(new_model()) == 2


def subclassed() -> Any:
    keras.utils.set_random_seed(3)

    class Nested(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [keras.layers.Dense(4) for _ in range(2)]
            self.named = {"norm": keras.layers.BatchNormalization(), "out": keras.layers.Dense(1)}
            self.noise = keras.layers.GaussianNoise(0.3)
            self.cell = keras.layers.SimpleRNN(2, recurrent_dropout=0.2)
            self.scale = self.add_weight(shape=(), name="scale", initializer="ones")

        def call(self, x: Any, training: bool = False) -> Any:
            for block in self.blocks:
                x = block(x)
            x = self.noise(self.named["norm"](x, training=training), training=training)
            x = self.cell(x[:, :, None], training=training)
            return self.named["out"](x) * self.scale

    model = Nested()
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9), momentum=0.9, use_ema=True
    )
    model.compile(optimizer, "mse")
    model(np.zeros((1, 4), np.float32))
    return model


def test_a_subclassed_model_with_averaged_weights(tmp_path: Path) -> None:
    whole, first, second = subclassed(), subclassed(), subclassed()
    train(whole, 2)
    ours = ModelCheckpoint(tmp_path / "m.weights.h5")

    train(first, 1, [ours])
    train(second, 2, initial_epoch=ours.resume(second))

    assert same(values(second), values(whole))


def test_names_may_have_other_numbers(tmp_path: Path) -> None:
    first = subclassed()
    ours = ModelCheckpoint(tmp_path / "m.weights.h5")
    play(first, [ours], [{}])
    keras.layers.Dense(1), keras.layers.Dense(1)

    second = new_model()
    del second
    other = subclassed()

    assert {weight.path for weight in other.weights} != {weight.path for weight in first.weights}
    assert ours.resume(other) == 1
