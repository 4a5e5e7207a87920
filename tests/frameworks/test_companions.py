"""The callbacks beside ours: found, remembered, put back, and told what they had not heard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast.errors import CheckpointWarning, InvalidInputError
from holdfast.keras import ModelCheckpoint, companions
from holdfast.keras.coordinator import Coordinator
from tests.frameworks.killed import Killed, Kills
from tests.frameworks.runs import X, Y, by_us, new_model, play, same, train, values


class Remembers(keras.callbacks.Callback):
    """Keeps whatever it is given, and every hook that it heard of."""

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self.kept = kept
        self.heard: list[tuple[str, int]] = []

    def state_dict(self) -> Mapping[str, Any]:
        return {"kept": self.kept, "heard": self.heard}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.kept = state["kept"]
        self.heard = [tuple(each) for each in state["heard"]]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.heard.append(("epoch begins", epoch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append(("batch ends", batch))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.heard.append(("epoch ends", epoch))


class Other(Remembers):
    """One of another class."""


def saver(place: Path, save_freq: Any = "epoch") -> ModelCheckpoint:
    return ModelCheckpoint(place / "m.keras", save_freq=save_freq, background=False)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("save_freq", ["epoch", 4])
def test_each_hears_of_everything_once(
    is_last: bool, save_freq: Any, tmp_path: Path, model: Any
) -> None:
    unbroken, resumed = Remembers(), Remembers()
    play(model, [unbroken], [{}] * 2, batches=[{}] * 6)

    ours, other = saver(tmp_path, save_freq), Remembers()
    killed = [other, ours] if is_last else [ours, other]
    hook = ("on_train_batch_end", 4) if save_freq == 4 else ("on_epoch_end", 1)
    with pytest.raises(Killed):
        play(model, [*killed, Kills(*hook)], [{}] * 2, batches=[{}] * 6)
    again = saver(tmp_path, save_freq)
    first = again.resume(model)
    both = [resumed, again] if is_last else [again, resumed]
    play(model, both, [{}] * (2 - first), batches=[{}] * 6, first=first)

    assert resumed.heard == unbroken.heard


def test_several_of_one_class_are_told_apart_by_their_order(tmp_path: Path, model: Any) -> None:
    play(model, [saver(tmp_path), Remembers(1), Other(2), Remembers(3)], [{}])

    again, found = saver(tmp_path), [Remembers(), Remembers(), Other()]
    again.resume(model)
    play(model, [*found, again], [], first=1)

    assert [each.kept for each in found] == [1, 3, 2]


def test_one_that_is_missing_is_named(tmp_path: Path, model: Any) -> None:
    class Early(keras.callbacks.EarlyStopping):
        """A class of the user's is remembered as Keras's own is."""

    keeps = [saver(tmp_path), Remembers(1), Remembers(2), Early("loss")]
    play(model, keeps, [{"loss": 1.0}])
    again, left = saver(tmp_path), Remembers()
    again.resume(model)

    with pytest.warns(CheckpointWarning, match="keeps the state of") as told:
        play(model, [again, left], [], first=1)

    (text,) = by_us(told)
    assert "Remembers 2" in text
    assert "Early of loss, since this fit has no such callback. It was left out" in text
    assert left.kept == 1


def test_one_that_is_new_begins_anew(tmp_path: Path, model: Any) -> None:
    play(model, [saver(tmp_path)], [{}])
    again, new = saver(tmp_path), Remembers("its own")
    again.resume(model)

    play(model, [again, new], [], first=1)

    assert new.kept == "its own"


def test_those_that_monitor_something_are_told_apart_by_it(tmp_path: Path, model: Any) -> None:
    def early(monitor: str) -> Any:
        return keras.callbacks.EarlyStopping(monitor, mode="min")

    play(model, [saver(tmp_path), early("loss"), early("val_loss")], [{"loss": 2, "val_loss": 3}])
    again, one, other = saver(tmp_path), early("val_loss"), early("loss")
    again.resume(model)
    play(model, [again, one, other], [], first=1)

    assert (one.best, other.best) == (3, 2)


def test_savers_are_not_missed(tmp_path: Path, model: Any) -> None:
    best = ModelCheckpoint(tmp_path / "best.keras", save_best_only=True, background=False)
    play(model, [saver(tmp_path), best], [{"val_loss": 1.0}])
    again = saver(tmp_path)
    again.resume(model)

    play(model, [again], [], first=1)  # and nothing is said


def test_what_changes_in_place_is_kept_as_it_was() -> None:
    counts = np.zeros(2)

    (kept,) = companions.remember([Remembers([{"counts": counts}])], None)
    counts += 1

    assert kept.state["kept"][0]["counts"].tolist() == [0, 0]


def test_what_has_no_plain_form_names_the_callback_and_the_key(tmp_path: Path, model: Any) -> None:
    ours = saver(tmp_path)
    play(model, [ours], [{}])

    with pytest.raises(
        InvalidInputError, match=r"Remembers\S*\.state\.kept\.file is of the type PosixPath"
    ):
        play(model, [ours, Remembers({"file": tmp_path})], [{}], first=1)

    assert [each.metadata["epoch"] for each in ours.store] == [1]


def test_an_epoch_that_was_left_is_remembered_as_of_its_last_batch(
    tmp_path: Path, model: Any
) -> None:
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 3

    train(model, 1, [Stops(), Remembers(), saver(tmp_path)])
    again, found = saver(tmp_path), Remembers()
    train(model, 1, [found, again], initial_epoch=again.resume(model))

    batches = [("batch ends", batch) for batch in range(10)]
    assert found.heard == [("epoch begins", 0), *batches, ("epoch ends", 0)]


def test_a_direction_that_keras_had_settled_is_kept(tmp_path: Path, model: Any) -> None:
    logs = [{"val_accuracy": 0.5}]
    early = keras.callbacks.EarlyStopping("val_accuracy", min_delta=0.25, patience=5)
    play(model, [saver(tmp_path), early], logs)
    ours, again = (
        saver(tmp_path),
        keras.callbacks.EarlyStopping("val_accuracy", min_delta=0.25, patience=5),
    )
    fresh = new_model()  # knows of no metric before its first batch
    ours.resume(fresh)

    play(fresh, [ours, again], [], first=1)

    assert again.monitor_op is early.monitor_op
    assert again.min_delta == early.min_delta
    assert again.best == 0.5


@pytest.mark.parametrize("is_last", [False, True])
def test_the_best_of_keras_own_saver_is_kept(is_last: bool, tmp_path: Path, model: Any) -> None:
    class Spoils(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.set_weights([value + 1 for value in self.model.get_weights()])

    def peer() -> Any:
        return keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)

    def best() -> list[Any]:
        return values(keras.models.load_model(tmp_path / "best.keras"))

    def ordered(ours: Any, other: Any) -> list[Any]:
        return [other, ours] if is_last else [ours, other]

    play(model, ordered(saver(tmp_path), peer()), [{"val_loss": 0.25}])
    before = best()
    ours, again = saver(tmp_path), peer()
    ours.resume(model)
    play(model, [*ordered(ours, again), Spoils()], [{"val_loss": 87.7}], first=1)

    assert again.best == 0.25
    assert same(best(), before)


class Finds(keras.callbacks.Callback):
    """Looks for the list that calls it."""

    found: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.found = companions.list_of(self)


def test_the_list_is_found_from_within_its_calls_alone(model: Any) -> None:
    called, by_hand = Finds(), Finds()
    told = keras.callbacks.CallbackList([called], model=model)

    told.on_train_begin()
    by_hand.on_train_begin()

    assert called.found is told
    assert by_hand.found is None


class Wraps(keras.callbacks.Callback):
    """Calls another callback, as wrappers do; no list knows of that one."""

    def __init__(self, wrapped: Any) -> None:
        super().__init__()
        self.wrapped = wrapped

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self.wrapped.set_model(model)

    def set_params(self, params: Any) -> None:
        self.wrapped.set_params(params)

    def on_train_begin(self, logs: Any = None) -> None:
        self.wrapped.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.wrapped.on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.wrapped.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.wrapped.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self.wrapped.on_train_end(logs)


def test_a_saver_that_no_list_knows_of_resumes_between_epochs(tmp_path: Path, model: Any) -> None:
    train(model, 1, [Wraps(saver(tmp_path))])
    kept, again = values(model), saver(tmp_path)
    model.optimizer.learning_rate = 1.0

    assert again.resume(model) == 1
    play(model, [Wraps(again)], [], first=1)

    assert same(values(model), kept)


def test_nothing_of_ours_stays_in_the_list_of_callbacks(tmp_path: Path, model: Any) -> None:
    told = keras.callbacks.CallbackList([saver(tmp_path), saver(tmp_path / "b")], model=model)
    told.on_train_begin()
    among = [type(each) for each in told.callbacks]
    told.on_train_end()

    assert among == [ModelCheckpoint, ModelCheckpoint, Coordinator]
    assert [type(each) for each in told.callbacks] == [ModelCheckpoint, ModelCheckpoint]


# Whether the data can come again is looked at when a run is resumed.


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


def generated() -> Any:
    while True:
        yield X[:8], Y[:8]


DATA: dict[str, tuple[Mapping[str, Any], str | None]] = {
    "arrays that fit shuffles": (
        {"x": X, "y": Y},
        r"shuffles arrays.*ReplayableDataset\(x, y, batch_size, seed\).*or shuffle=False",
    ),
    "arrays in their order": ({"x": X, "y": Y, "shuffle": False}, None),
    "a PyDataset that fit shuffles": ({"x": Batches()}, None),
    "a generator": (
        {"x": generated(), "steps_per_epoch": 5, "shuffle": False},
        "a generator, which begins anew",
    ),
}


@pytest.mark.parametrize(("data", "message"), DATA.values(), ids=DATA)
def test_data_that_cannot_be_replayed_is_told_once_and_with_its_cure(
    data: Mapping[str, Any], message: str | None, tmp_path: Path, model: Any
) -> None:
    play(model, [saver(tmp_path)], [{}])
    again = saver(tmp_path)

    def resume(epochs: int) -> Any:
        return model.fit(
            **data, epochs=epochs, initial_epoch=again.resume(model), verbose=0, callbacks=[again]
        )

    if message is None:
        resume(2)
        return
    with pytest.warns(CheckpointWarning, match=message) as told:
        resume(2)
    assert len(by_us(told)) == 1


def test_a_run_that_begins_is_not_told_of_its_data(tmp_path: Path, model: Any) -> None:
    model.fit(X, Y, verbose=0, callbacks=[saver(tmp_path)])


def test_the_metrics_of_a_resumed_epoch_have_to_be_the_same(tmp_path: Path, model: Any) -> None:
    ours = saver(tmp_path, 4)
    train(model, 1, [ours])
    ours.store.remove(ours.store.latest())  # saved after batch 8: the one after batch 4 is left
    other = new_model()
    other.compile(other.optimizer, "binary_crossentropy", metrics=["mae", "mse"])
    again = saver(tmp_path, 4)
    first = again.resume(other)

    with pytest.warns(CheckpointWarning, match="summed up of the epoch.*compile with the metrics"):
        train(other, 1, [again], initial_epoch=first)

    assert np.isfinite(other.get_weights()[0]).all()
