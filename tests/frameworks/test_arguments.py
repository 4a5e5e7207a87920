"""Every argument of Keras's own ModelCheckpoint: the same decisions, the same file names."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast import KeepLast, open_store
from holdfast.errors import CheckpointWarning, InvalidInputError
from holdfast.keras import ModelCheckpoint
from holdfast.keras.schedule import Schedule
from tests.frameworks.runs import by_us, new_model, play, quiet, train


class Peer(keras.callbacks.ModelCheckpoint):
    """Keras's own, which notes what it saves."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.saved: list[str] = []

    def _should_save_model(self, epoch: Any, batch: Any, logs: Any, filepath: str) -> bool:
        decided = super()._should_save_model(epoch, batch, logs, filepath)
        if decided:
            self.saved.append(Path(filepath).name)
        return bool(decided)


def saved(ours: ModelCheckpoint) -> list[str]:
    """The names of the model's files, in the order of training."""
    paths = [[file.path for file in each.files] for each in ours.store]
    return [path for files in paths for path in files if not path.startswith("training/")]


LOSSES = [0.5, 0.7, 0.4, 0.4, 0.1, 0.3]
EPOCHS = [{"loss": 2 * loss, "val_loss": loss, "val_accuracy": 1 - loss} for loss in LOSSES]
BATCHES = [{"loss": 1 / (number % 4 + 1), "accuracy": 0.1 * number} for number in range(10)]
#: The end of each block of four batches, of which the last has two.
IN_FOURS = {3: {"loss": 0.5}, 7: {"loss": 0.4}, 11: {"loss": 0.3}}

DECISIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("m.keras", {}),
    "epoch and metrics in the name": ("e{epoch:02d}-{val_loss:.3f}-{loss:e}.keras", {}),
    "weights only": ("{epoch}.weights.h5", {"save_weights_only": True}),
    "older format": ("{epoch}.h5", {}),
    "conversion": ("{epoch!s:0>3s}.keras", {}),
    "best": ("{epoch}.keras", {"save_best_only": True}),
    "best without placeholders": ("best.keras", {"save_best_only": True}),
    "best, highest": (
        "{epoch}.keras",
        {"monitor": "val_loss", "mode": "max", "save_best_only": True},
    ),
    "best accuracy": ("{epoch}.keras", {"monitor": "val_accuracy", "save_best_only": True}),
    "threshold": ("{epoch}.keras", {"save_best_only": True, "initial_value_threshold": 0.45}),
    "threshold, highest": (
        "{epoch}.keras",
        {
            "monitor": "val_accuracy",
            "mode": "max",
            "save_best_only": True,
            "initial_value_threshold": 0.7,
        },
    ),
    "every batch": ("{epoch}-{batch}.keras", {"save_freq": 1}),
    "every 4 batches, over epoch borders": ("{epoch}-{batch:03d}.keras", {"save_freq": 4}),
    "more batches than an epoch has": ("{epoch}-{batch}.keras", {"save_freq": 13}),
}


@pytest.mark.parametrize(("name", "more"), DECISIONS.values(), ids=DECISIONS)
def test_the_same_is_saved_under_the_same_names(
    name: str, more: Mapping[str, Any], tmp_path: Path, model: Any
) -> None:
    peer = Peer(tmp_path / "peer" / name, **more)
    ours = ModelCheckpoint(tmp_path / "ours" / name, background=False, **more)

    play(model, [peer, ours], EPOCHS[:3] if "save_freq" in more else EPOCHS, batches=BATCHES)

    assert saved(ours) == peer.saved
    assert peer.saved
    assert ours.best == (pytest.approx(peer.best) if peer.best is not None else None)


def test_blocks_of_batches_are_counted_as_keras_counts_them(tmp_path: Path, model: Any) -> None:
    peer = Peer(tmp_path / "peer" / "{epoch}-{batch}.keras", save_freq=4)
    ours = ModelCheckpoint(
        tmp_path / "ours" / "{epoch}-{batch}.keras", save_freq=4, background=False
    )

    told = keras.callbacks.CallbackList([peer, ours], model=model, steps=10)
    told.on_train_begin()
    for epoch in range(3):
        told.on_epoch_begin(epoch)
        for batch, logs in IN_FOURS.items():
            told.on_train_batch_end(batch, logs)
        told.on_epoch_end(epoch, {"loss": 0.3})
    told.on_train_end()

    assert saved(ours) == peer.saved
    assert [each.step for each in ours.store] == [4, 8, 10, 14, 18, 20, 24, 28, 30]


def test_a_real_run_with_validation(tmp_path: Path) -> None:
    name, model = "e{epoch:02d}-{val_accuracy:.3f}-{val_loss:.3f}.keras", new_model()
    more: dict[str, Any] = {"monitor": "val_accuracy", "save_best_only": True}
    peer = Peer(tmp_path / "peer" / name, **more)
    ours = ModelCheckpoint(tmp_path / "ours" / name, background=False, **more)

    train(model, 3, [peer, ours], validation_split=0.25)

    assert saved(ours) == peer.saved
    assert [path.name for path in sorted((tmp_path / "peer").iterdir())] == sorted(saved(ours))
    assert ours.best == pytest.approx(peer.best)


def test_the_best_among_batches(tmp_path: Path, model: Any) -> None:
    more: dict[str, Any] = {"monitor": "loss", "save_best_only": True, "save_freq": 3}
    peer = Peer(tmp_path / "peer" / "{epoch}-{batch}.keras", **more)
    peer.set_model(model)
    peer._set_monitor_op()  # it does so itself when the first epoch has ended, which is too late
    ours = ModelCheckpoint(tmp_path / "ours" / "{epoch}-{batch}.keras", background=False, **more)

    play(model, [peer, ours], EPOCHS[:3], batches=BATCHES)

    assert saved(ours) == peer.saved == ["1-3.keras", "2-8.keras"]


def test_a_key_in_the_logs_beats_the_number_of_the_batch(tmp_path: Path, model: Any) -> None:
    peer = Peer(tmp_path / "peer" / "{batch}.keras", save_freq=5)
    ours = ModelCheckpoint(tmp_path / "ours" / "{batch}.keras", save_freq=5, background=False)

    play(model, [peer, ours], [{}], batches=[{"batch": 70 + number} for number in range(10)])

    assert saved(ours) == peer.saved == ["74.0.keras", "79.0.keras"]


def test_counting_goes_on_when_the_callback_is_used_again(tmp_path: Path, model: Any) -> None:
    more: dict[str, Any] = {"save_freq": 4, "monitor": "loss", "mode": "min"}
    peer = Peer(tmp_path / "peer" / "{epoch}-{batch}.keras", **more)
    ours = ModelCheckpoint(tmp_path / "ours" / "{epoch}-{batch}.keras", background=False, **more)

    for first in range(3):
        play(model, [peer, ours], [{}], batches=[{"loss": 1.0}] * 3, first=first)

    assert saved(ours) == peer.saved
    assert [each.step for each in ours.store] == [4, 8]


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    return [line.partition(" model to ")[0] for line in lines if line]


def test_what_is_printed(tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    more: dict[str, Any] = {"save_best_only": True, "verbose": 1}
    play(model, [Peer(tmp_path / "peer" / "m.keras", **more)], EPOCHS[:3])
    by_peer = printed(capsys)

    play(
        model,
        [ModelCheckpoint(tmp_path / "ours" / "m.keras", background=False, **more)],
        EPOCHS[:3],
    )

    assert printed(capsys) == by_peer
    assert len(by_peer) == 5


def test_a_line_is_printed_once_the_commit_is_done(
    tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", verbose=1)

    play(model, [ours], [{}])

    line = capsys.readouterr().out.splitlines()[-1]
    path = Path(line.partition("finished saving model to file://")[2])
    assert path.is_file()
    assert path.name == "m.keras"


def test_an_unknown_mode_counts_as_auto(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="unknown, fallback to auto mode"):
        ours = ModelCheckpoint(tmp_path / "m.keras", mode="lowest")

    assert ours.mode == "auto"


def test_what_old_code_hands_in_is_taken(tmp_path: Path) -> None:
    ModelCheckpoint(tmp_path / "m.keras", options=None, load_weights_on_restart=False)


def test_the_attributes_that_people_read(tmp_path: Path, model: Any) -> None:
    path = str(tmp_path / "m-{epoch}.keras")
    ours = ModelCheckpoint(path, "val_acc", 0, True, False, "max", "epoch", 0.1)

    told = (ours.monitor, ours.verbose, ours.filepath, ours.save_best_only, ours.mode)
    assert told == ("val_acc", 0, path, True, "max")
    assert (ours.save_weights_only, ours.save_freq, ours.min_delta) == (False, "epoch", 0)
    assert (ours.best, ours.monitor_op, ours.period) == (0.1, None, 1)
    assert ours.epochs_since_last_save == 0
    play(model, [ours], EPOCHS[:1], batches=BATCHES)
    assert (ours.best, ours.monitor_op) == (0.5, np.greater)
    assert ours.model is model
    assert ours.params["steps"] == 10


def test_a_period_counts_from_each_due_epoch(tmp_path: Path, model: Any) -> None:
    with pytest.warns(DeprecationWarning, match="from older Keras"):
        ours = ModelCheckpoint(
            tmp_path / "{epoch}.keras", save_best_only=True, period=2, background=False
        )

    play(model, [ours], EPOCHS)

    assert saved(ours) == ["2.keras", "4.keras", "6.keras"]


def test_the_better_of_threshold_and_store_counts(tmp_path: Path, model: Any) -> None:
    path = tmp_path / "m.keras"
    play(model, [ModelCheckpoint(path, save_best_only=True)], [{"val_loss": 0.3}])

    strict = ModelCheckpoint(path, save_best_only=True, initial_value_threshold=0.2)
    play(model, [strict], [{"val_loss": 0.25}])
    lax = ModelCheckpoint(path, save_best_only=True, initial_value_threshold=0.9)
    play(model, [lax], [{"val_loss": 0.35}])

    assert (strict.best, lax.best) == (0.2, 0.3)
    assert len(lax.store) == 1


def test_a_direction_is_asked_only_where_something_compares(tmp_path: Path, model: Any) -> None:
    play(model, [ModelCheckpoint(tmp_path / "m.keras", "val_frobnication")], [{}])

    with pytest.raises(InvalidInputError, match="Give mode='min' or mode='max'"):
        play(
            model,
            [ModelCheckpoint(tmp_path / "m.keras", "val_frobnication", save_best_only=True)],
            [{}],
        )


def test_the_metric_itself_tells_the_direction(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.R2Score(name="frobnication")])
    train(model, 1)
    ours = ModelCheckpoint(tmp_path / "m.keras", "val_frobnication", save_best_only=True)

    play(model, [ours], [{"val_frobnication": 0.5}])

    assert ours.monitor_op is np.greater


def test_a_validation_metric_of_the_epoch_before_counts_inside_the_next(
    tmp_path: Path, model: Any
) -> None:
    ours = ModelCheckpoint(
        tmp_path / "{epoch}-{batch}.keras", save_best_only=True, save_freq=5, background=False
    )

    play(model, [ours], EPOCHS[:4], batches=BATCHES)

    assert saved(ours) == ["2-5.keras", "4-5.keras"]
    assert [each.metrics["val_loss"] for each in ours.store] == [0.5, 0.4]


def test_a_metric_that_is_no_single_number_skips(tmp_path: Path, model: Any) -> None:
    logs = [{"val_loss": np.array([0.5, 0.4])}]
    with quiet():
        peer = Peer(tmp_path / "peer.keras", save_best_only=True)
        play(model, [peer], logs)
    assert peer.saved

    ours = ModelCheckpoint(tmp_path / "ours" / "m.keras", save_best_only=True)
    with pytest.warns(CheckpointWarning, match="'val_loss' is no single number"):
        play(model, [ours], logs)

    assert saved(ours) == []


def test_a_metric_that_never_comes_is_told_within_one_epoch(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(
        tmp_path / "m.keras", "lss", mode="min", save_best_only=True, save_freq=5
    )

    with pytest.warns(CheckpointWarning, match="the logs hold no 'lss'"):
        play(model, [ours], [{"loss": 0.1}], batches=BATCHES)


def test_an_unknown_key_reads_none(tmp_path: Path, model: Any) -> None:
    with pytest.raises(KeyError):
        play(model, [Peer(tmp_path / "{val_lss:.3f}.keras")], EPOCHS[:1])

    name = "{epoch}-{val_lss:.3f}-{batch}.keras"
    ours = ModelCheckpoint(tmp_path / "ours" / name, background=False)
    with pytest.warns(CheckpointWarning, match="asks for batch, val_lss, and the logs") as told:
        play(model, [ours], EPOCHS[:2])

    assert saved(ours) == ["1-none-none.keras", "2-none-none.keras"]
    assert len(by_us(told)) == 1


def test_a_name_that_begins_with_a_negative_number_is_an_error(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "{val_loss:.1f}.keras", background=False)

    with pytest.raises(InvalidInputError, match=r"'-0.5.keras' here.*Put a letter in front"):
        play(model, [ours], [{"val_loss": 0.5}, {"val_loss": -0.5}])

    assert saved(ours) == ["0.5.keras"]


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("save_freq", ["90s", "1.5min", timedelta(minutes=1.5)])
def test_a_save_is_due_after_some_time(save_freq: Any, tmp_path: Path, model: Any) -> None:
    clock = FakeClock()
    name = "{epoch}-{batch}.keras"
    ours = ModelCheckpoint(tmp_path / name, save_freq=save_freq, background=False)
    ours._schedule = Schedule(save_freq, clock=clock)

    class Minute(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            clock.now += 60

    play(model, [Minute(), ours], [{}] * 2, batches=[{}] * 3)

    assert saved(ours) == ["1-2.keras", "2-1.keras", "2-3.keras"]


def test_a_store_brings_its_own_retention(tmp_path: Path, model: Any) -> None:
    store = open_store(tmp_path, retention=KeepLast(2))

    weights = ModelCheckpoint(store, save_weights_only=True, background=False)
    play(model, [ModelCheckpoint(store, background=False), weights], [{}] * 3)

    assert weights.filepath == f"{store.url}/model.weights.h5"
    assert [each.files[0].path for each in store] == ["model.keras", "model.weights.h5"]
    with pytest.raises(InvalidInputError, match="has its own retention"):
        ModelCheckpoint(store, retention=KeepLast(1))


def test_a_bare_name_gets_a_directory_of_its_own(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    callbacks = [ModelCheckpoint("best.keras"), ModelCheckpoint("w-{epoch:02d}-{loss:.1f}.hdf5")]
    play(model, callbacks, EPOCHS[:1])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "w"]
    assert saved(callbacks[1]) == ["w-01-1.0.hdf5"]


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "unknown suffix": (
        *("runs/model.ckpt", {}),
        r"End it in .keras .* .weights.h5 .* .weights.json .* .h5 or .hdf5",
    ),
    "weights in a whole model": ("m.keras", {"save_weights_only": True}, r"in \.weights\.h5"),
    "weights in older format": ("m.h5", {"save_weights_only": True}, r"in \.weights\.h5"),
    "no name": ("runs/", {}, "names no file in a store"),
    "no store in the bucket": ("gs://m.keras", {}, "names no file in a store"),
    "no path": (7, {}, "a path, a URL or a CheckpointStore, not 7"),
    "bytes": (b"m.keras", {}, "a path, a URL or a CheckpointStore"),
    "placeholder in a directory": ("runs/{epoch}/m.keras", {}, "a placeholder in a directory"),
    "field without a name": ("m-{}.keras", {}, "has no name"),
    "field by number": ("m-{0}.keras", {}, "has no name"),
    "open brace": ("m-{epoch.keras", {}, "braces"),
    "format code of a float": ("m-{epoch:.2q}.keras", {}, "does not fit a number"),
    "format code of a whole number": ("m-{val_loss:d}.keras", {}, "does not fit a number"),
    "colon": ("m:{epoch}.keras", {}, "is not portable"),
    "blank": ("m {epoch}.keras", {}, "is not portable"),
    "padded with blanks": ("m{epoch:3d}.keras", {}, "is not portable"),
    "never": ("m.keras", {"save_freq": 0}, "number of batches from 1"),
    "negative": ("m.keras", {"save_freq": -2}, "number of batches from 1"),
    "true": ("m.keras", {"save_freq": True}, "number of batches from 1"),
    "half a batch": ("m.keras", {"save_freq": 0.5}, "number of batches from 1"),
    "no such time": ("m.keras", {"save_freq": "15m"}, "'90s', '15min', '2h' or '1d'"),
    "no time": ("m.keras", {"save_freq": "0min"}, "no time between saves"),
    "time backwards": ("m.keras", {"save_freq": timedelta(-1)}, "no time between saves"),
    "period 0": ("m.keras", {"period": 0}, "a number of epochs from 1"),
    "period of batches": ("m.keras", {"period": 2, "save_freq": 5}, "Give one of them"),
    "monitor": ("m.keras", {"monitor": None}, "the name of a metric"),
    "threshold": ("m.keras", {"initial_value_threshold": float("nan")}, "is a number"),
    "threshold as text": ("m.keras", {"initial_value_threshold": "0.5"}, "is a number"),
    "retention": ("m.keras", {"retention": 3}, r"a rule such as KeepLast\(3\)"),
    "on_error": ("m.keras", {"on_error": "ignore"}, "'warn' or 'raise'"),
    "options": ("m.keras", {"options": object()}, "from older Keras"),
    "load on restart": ("m.keras", {"load_weights_on_restart": True}, r"checkpoint\.resume\(model"),
}


@pytest.mark.parametrize(("filepath", "more", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.filterwarnings("ignore:`period`:DeprecationWarning")
def test_a_wrong_argument_is_told_at_once(
    filepath: Any,
    more: Mapping[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidInputError, match=message):
        ModelCheckpoint(filepath, **more)

    assert _left(tmp_path) == []


def _left(directory: Path) -> Sequence[Path]:
    return list(directory.iterdir())
