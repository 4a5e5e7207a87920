"""An exception ends a fit and tells nobody: what is done next in the same process still holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast import open_store
from holdfast.errors import CheckpointWarning, InvalidInputError, StorageError
from holdfast.keras import BackupAndRestore, ModelCheckpoint, ReplayableDataset, load_model
from tests.frameworks.killed import Killed, Kills, Traced
from tests.frameworks.runs import X, Y, new_model, same, values

Make = Callable[[], Any]


@pytest.fixture(scope="module")
def make() -> Make:
    """Makes the model; it is one that is traced once, as it was at first."""
    return Traced(new_model)


def data(batch_size: int = 4) -> ReplayableDataset:
    """40 samples: ten batches an epoch."""
    return ReplayableDataset(X, Y, batch_size=batch_size, seed=3)


def fit(model: Any, *callbacks: Any, **more: Any) -> Any:
    return model.fit(callbacks=list(callbacks), **{"x": data(), "epochs": 2, "verbose": 0, **more})


@pytest.fixture(scope="module")
def unbroken(make: Make) -> list[Any]:
    model = make()
    fit(model)
    return values(model)


@pytest.fixture
def left(tmp_path: Path, make: Make) -> str:
    """Where a run was saved after four batches of its first epoch, and died after the sixth."""
    path = str(tmp_path / "run" / "m.weights.h5")
    with pytest.raises(Killed):
        fit(make(), saver(path), Kills("on_train_batch_end", 6))
    return path


def saver(path: str) -> ModelCheckpoint:
    return ModelCheckpoint(path, save_freq=4, background=False)


def test_ctrl_c_while_trained_batches_pass_leaves_a_model_that_trains(
    left: str, make: Make, unbroken: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, checkpoint = make(), saver(left)
    checkpoint.resume(model)

    def raises(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(keras.callbacks.CallbackList, "on_train_batch_end", raises)
        with pytest.raises(KeyboardInterrupt):
            fit(model, checkpoint)

    before = values(model)
    model.train_on_batch(X[:4], Y[:4])
    assert not same(before, values(model))

    again = saver(left)
    fit(model, again, initial_epoch=again.resume(make()))
    assert same(values(model), unbroken)


def test_the_same_data_is_read_again(make: Make, unbroken: list[Any]) -> None:
    read = data()
    with pytest.raises(Killed):
        fit(make(), Kills("on_train_batch_end", 3), x=read, shuffle=False)

    model = make()
    fit(model, x=read)

    assert same(values(model), unbroken)


def test_a_model_that_is_compiled_after_its_resume_is_told(left: str, make: Make) -> None:
    model, checkpoint = new_model(), saver(left)
    checkpoint.resume(model)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])

    with pytest.warns(CheckpointWarning, match="Compile first, then resume"):
        fit(model, checkpoint)


def test_another_batch_size_begins_the_epoch_again_and_says_so(left: str, make: Make) -> None:
    model, checkpoint = make(), saver(left)

    with pytest.warns(CheckpointWarning, match="An epoch has 5 batches now, and had 10"):
        fit(model, checkpoint, x=data(8), initial_epoch=checkpoint.resume(model), epochs=1)

    assert int(model.optimizer.iterations) == 4 + 5


def test_an_epoch_that_is_forgotten_is_told(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "m.weights.h5"
    fit(make(), ModelCheckpoint(path, background=False), epochs=1)
    model, checkpoint = make(), ModelCheckpoint(path, background=False)
    checkpoint.resume(model)

    with pytest.warns(CheckpointWarning, match="the end of 1 epochs, and .* begins epoch 1"):
        fit(model, checkpoint, epochs=1)


def test_a_place_that_is_gone_at_the_end_does_not_take_the_training_along(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = BackupAndRestore(tmp_path, background=False)

    def gone() -> Any:
        raise StorageError("the place is gone.")

    class Unplugs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            monkeypatch.setattr(backup.store, "checkpoints", gone)

    with pytest.warns(CheckpointWarning, match="its checkpoints stay: the place is gone"):
        history = fit(make(), backup, Unplugs(), epochs=1)

    assert history.epoch == [0]


def test_another_callback_that_fails_leaves_no_epoch_behind(left: str, make: Make) -> None:
    place = open_store(Path(left).parent)
    fit(make(), BackupAndRestore(place, delete_checkpoint=False, background=False), epochs=1)
    model = make()

    with pytest.raises(Killed):
        fit(model, BackupAndRestore(place), Kills("on_train_begin", 1))

    assert fit(model, epochs=1).epoch == [0]


class DictModel(keras.Model):  # type: ignore[misc]
    """Takes a dictionary, and only its own train step knows how to call it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def build(self, shape: Any = None) -> None:
        self.dense.build((None, 4))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, batch: Any) -> Any:
        return super().train_step((batch["x"], batch["y"]))


def dicts() -> ReplayableDataset:
    class Dicts(ReplayableDataset):
        def load(self, indexes: Any, random: np.random.Generator) -> Any:
            return {"x": X[indexes], "y": Y[indexes]}

    return Dicts(len(X), batch_size=4, seed=3)


def test_metrics_that_nobody_can_build_are_left_out_with_a_warning(tmp_path: Path) -> None:
    def made() -> Any:
        keras.utils.set_random_seed(1)
        model = DictModel()
        model.build()
        model.compile("adam", "mse", metrics=["mae"])
        return model

    path = str(tmp_path / "m.weights.h5")
    with pytest.raises(Killed):
        fit(made(), saver(path), Kills("on_train_batch_end", 6), x=dicts())
    model, checkpoint = made(), saver(path)

    with pytest.warns(CheckpointWarning, match="what the metrics had summed up"):
        fit(model, checkpoint, x=dicts(), initial_epoch=checkpoint.resume(model))

    assert int(model.optimizer.iterations) == 20


def test_a_log_without_a_plain_form_is_left_out(tmp_path: Path, make: Make) -> None:
    class Logs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["where"] = tmp_path

    checkpoint = ModelCheckpoint(tmp_path / "m.weights.h5", background=False)
    fit(make(), Logs(), checkpoint, epochs=1)

    assert len(checkpoint.store) == 1


def test_two_of_one_class_in_another_order_keep_their_own_state(tmp_path: Path, make: Make) -> None:
    def stops() -> list[Any]:
        return [
            keras.callbacks.EarlyStopping(monitor, mode="min", patience=9)
            for monitor in ("loss", "accuracy")
        ]

    path = tmp_path / "m.weights.h5"
    first = stops()
    fit(make(), *first, ModelCheckpoint(path, background=False), epochs=1)
    model, checkpoint, again = make(), ModelCheckpoint(path, background=False), stops()
    fit(model, *reversed(again), checkpoint, initial_epoch=checkpoint.resume(model), epochs=1)

    assert [each.best for each in again] == [each.best for each in first]


def test_what_names_no_store_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidInputError, match="Give the URL as a text"):
        ModelCheckpoint(Path("s3://bucket/run/m.keras"))
    with pytest.raises(InvalidInputError, match="names a file, and a store is a directory"):
        load_model("runs/m.keras")
    with pytest.raises(InvalidInputError, match="has a brace in it"):
        BackupAndRestore("backup-{epoch}")
    assert not list(tmp_path.iterdir())
