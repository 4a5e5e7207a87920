"""Where Keras's own ModelCheckpoint fails and ours does not; a row whose peer is mended goes."""

from pathlib import Path
from typing import Any

import keras
import pytest

from holdfast.errors import CheckpointWarning, InvalidInputError
from holdfast.keras import ModelCheckpoint
from tests.frameworks.runs import by_us, new_model, play, quiet, same, set_all, train, values

Peer = keras.callbacks.ModelCheckpoint


class Fragile(keras.layers.Layer):
    """A layer that cannot be saved while it is told so."""

    fails = False

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=(256,), name="weight")

    def call(self, x: Any) -> Any:
        return x

    def save_own_variables(self, store: Any) -> None:
        if self.fails:
            raise RuntimeError("the layer cannot be saved now")
        super().save_own_variables(store)


class FailsLater(keras.callbacks.Callback):
    def __init__(self, layer: Fragile) -> None:
        super().__init__()
        self.layer = layer

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.layer.fails = epoch >= 1


def fragile() -> tuple[Any, Fragile]:
    layer = Fragile()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), layer])
    model.compile("sgd", "mse")
    return model, layer


def test_mc1_a_save_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    model, layer = fragile()
    peer = Peer(tmp_path / "best.keras")
    with pytest.raises(RuntimeError, match="cannot be saved"):
        play(model, [FailsLater(layer), peer], [{}, {}])
    with pytest.raises(Exception, match=r"."):
        keras.saving.load_model(tmp_path / "best.keras", custom_objects={"Fragile": Fragile})

    layer.fails = False
    ours = ModelCheckpoint(tmp_path / "ours" / "best.keras")
    set_all(model, 3.0)
    with pytest.warns(CheckpointWarning, match="cannot be saved now Training goes on"):
        play(model, [FailsLater(layer), ours], [{}, {}])

    layer.fails = False
    other, _ = fragile()
    assert ours.resume(other) == 1
    assert same(values(other), values(model))


def test_mc2_a_new_process_does_not_overwrite_the_best(tmp_path: Path, model: Any) -> None:
    good, worse = [{"val_loss": 0.25}], [{"val_loss": 87.7}]
    peer_path, path = tmp_path / "best.weights.h5", tmp_path / "ours" / "best.weights.h5"

    play(model, [Peer(peer_path, save_best_only=True, save_weights_only=True)], good)
    before = peer_path.read_bytes()
    set_all(model, 9.0)
    play(model, [Peer(peer_path, save_best_only=True, save_weights_only=True)], worse)
    assert peer_path.read_bytes() != before

    play(model, [ModelCheckpoint(path, save_best_only=True)], good)
    again = ModelCheckpoint(path, save_best_only=True)
    play(model, [again], worse)
    assert again.best == 0.25
    assert [each.metrics["val_loss"] for each in again.store] == [0.25]


def test_mc3_a_missing_metric_saves_nothing_over_the_best(tmp_path: Path, model: Any) -> None:
    logs = [{"loss": 0.5}] * 3
    with pytest.warns(UserWarning, match="Can save best model only"):
        play(model, [Peer(tmp_path / "best.keras", save_best_only=True)], logs)
    assert (tmp_path / "best.keras").exists()

    ours = ModelCheckpoint(tmp_path / "ours" / "best.keras", save_best_only=True)
    with pytest.warns(CheckpointWarning, match="the logs hold no 'val_loss', only loss") as told:
        play(model, [ours], logs)

    assert len(by_us(told)) == 1
    assert len(ours.store) == 0


def test_mc4_nan_is_never_the_best(tmp_path: Path, model: Any) -> None:
    logs = [{"val_loss": float("nan")}, {"val_loss": 0.5}, {"val_loss": 0.4}]
    peer = Peer(tmp_path / "{epoch}.keras", save_best_only=True)
    play(model, [peer], logs)
    assert [path.name for path in tmp_path.glob("*.keras")] == ["1.keras"]
    assert peer.best != peer.best

    ours = ModelCheckpoint(
        tmp_path / "ours" / "{epoch}.keras", save_best_only=True, background=False
    )
    play(model, [ours], logs)

    assert [each.metrics["val_loss"] for each in ours.store] == [0.5, 0.4]
    assert ours.best == 0.4


def test_mc5_batches_are_compared_from_the_first_on(tmp_path: Path, model: Any) -> None:
    batches = [{"loss": 1 / (number + 1)} for number in range(4)]
    peer = Peer(tmp_path / "{batch}.keras", "loss", save_best_only=True, save_freq=2)
    with pytest.raises(TypeError):
        play(model, [peer], [{}], batches=batches)

    ours = ModelCheckpoint(
        tmp_path / "ours" / "{batch}.keras",
        "loss",
        save_best_only=True,
        save_freq=2,
        background=False,
    )
    play(model, [ours], [{"loss": 0.25}], batches=batches)

    assert [each.step for each in ours.store] == [2, 4]


def test_mc6_acc_and_accuracy_are_one_name(tmp_path: Path, model: Any) -> None:
    logs = [{"val_accuracy": 0.5}, {"val_accuracy": 0.7}, {"val_accuracy": 0.6}]
    with pytest.raises(ValueError, match="maximized or minimized"):
        play(model, [Peer(tmp_path / "best.keras", "val_acc")], logs)
    with quiet():
        play(model, [Peer(tmp_path / "{epoch}.keras", "val_acc", 0, True, mode="max")], logs)
    assert len(list(tmp_path.glob("?.keras"))) == 3
    with pytest.raises(KeyError):
        play(model, [Peer(tmp_path / "{val_acc}.keras", "val_accuracy")], logs)

    ours = ModelCheckpoint(
        tmp_path / "ours" / "{val_acc:.1f}.keras", "val_acc", save_best_only=True, background=False
    )
    play(model, [ours], logs)

    assert [each.files[0].path for each in ours.store] == ["0.5.keras", "0.7.keras"]


def test_mc7_what_old_tutorials_write_works(tmp_path: Path, model: Any) -> None:
    with pytest.raises(ValueError, match=r"must end in `.keras`"):
        Peer(tmp_path / "w-{epoch:02d}.hdf5")
    with pytest.raises(TypeError, match="period"):
        Peer(tmp_path / "w.keras", period=5)

    with pytest.warns(DeprecationWarning, match="save_freq says how often"):
        ours = ModelCheckpoint(tmp_path / "ours" / "w-{epoch:02d}.hdf5", period=2, background=False)
    play(model, [ours], [{}] * 5)

    assert [each.files[-1].path for each in ours.store] == ["w-02.hdf5", "w-04.hdf5"]
    kept = ours.store.download(ours.store.checkpoints()[-1])
    assert same(keras.saving.load_model(kept / "w-04.hdf5").get_weights(), model.get_weights())


def test_mc8_a_place_that_cannot_be_is_told_before_training(tmp_path: Path, model: Any) -> None:
    peer = Peer("s3://bucket/m.keras")
    with pytest.raises(Exception, match=r"scheme 's3'|s3://"):
        play(model, [peer], [{}])

    with pytest.raises(InvalidInputError, match="nosuch://"):
        ModelCheckpoint("nosuch://bucket/m.keras")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="is a file"):
        ModelCheckpoint(tmp_path / "file" / "m.keras")


def test_mc8_any_protocol_works(model: Any) -> None:
    ours = ModelCheckpoint("memory://runs/mc8/m.keras")

    play(model, [ours], [{}])

    assert [each.step for each in ours.store] == [0]


def test_mc9_the_suffix_chooses_weights(tmp_path: Path, model: Any) -> None:
    play(model, [Peer(tmp_path / "m.weights.h5")], [{}])
    with pytest.raises(Exception, match=r"."):
        model.load_weights(tmp_path / "m.weights.h5")

    ours = ModelCheckpoint(tmp_path / "ours" / "m.weights.h5")
    play(model, [ours], [{}])

    kept = model.get_weights()
    set_all(model, 1.0)
    model.load_weights(ours.store.download() / "m.weights.h5")
    assert same(model.get_weights(), kept)


def test_mc10_the_optimizer_comes_back(tmp_path: Path, model: Any) -> None:
    peer = Peer(tmp_path / "m.weights.h5", save_weights_only=True)
    ours = ModelCheckpoint(tmp_path / "ours" / "m.weights.h5")
    play(model, [peer, ours], [{}])
    trained = int(model.optimizer.iterations)

    fresh = new_model()
    with quiet():
        fresh.load_weights(tmp_path / "m.weights.h5")
    train(fresh, 1)
    assert int(fresh.optimizer.iterations) == trained

    fresh = new_model()
    ours.resume(fresh)
    train(fresh, 1)
    assert int(fresh.optimizer.iterations) == 2 * trained


def test_mc10_a_part_without_a_match_is_an_error(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "ours" / "m.weights.h5")
    play(model, [ours], [{}])
    other = new_model(optimizer="sgd")
    before = values(other)

    with pytest.raises(InvalidInputError, match=r"holds the Adam optimizer.* with SGD"):
        ours.resume(other)

    assert same(values(other)[: len(before)], before)
