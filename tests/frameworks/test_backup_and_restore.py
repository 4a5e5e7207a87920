"""BackupAndRestore: what Keras's own promises, and where Keras's own fails."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import keras
import pytest

from holdfast import CheckpointStore, open_store
from holdfast.errors import CheckpointWarning, CorruptionError, InvalidInputError, StorageError
from holdfast.keras import BackupAndRestore, ModelCheckpoint
from holdfast.keras.schedule import Schedule
from holdfast.testing import MemoryBackend
from tests.frameworks.killed import Counts, Killed, Kills, Traced
from tests.frameworks.runs import new_model, play, quiet, same, set_all, train, values

Peer = keras.callbacks.BackupAndRestore
#: Traced once; each call gives it back as it was at first.
ANEW = Traced(new_model)


def backup(place: Any, save_freq: Any = "epoch", **more: Any) -> BackupAndRestore:
    return BackupAndRestore(place, save_freq, background=False, **more)


def trained_after(callback: Any, kills: list[int], epochs: int) -> int:
    """The optimizer's steps at the end of a run of ten batches an epoch that is killed so often."""
    for count in kills:
        with pytest.raises(Killed):
            train(ANEW(), epochs, [callback(), Kills("on_train_batch_end", count)])
    model = ANEW()
    train(model, epochs, [callback()])
    return int(model.optimizer.iterations)


class Notes(Peer):
    """Keras's own, which notes at which batch of the run it would save."""

    def __init__(self, place: Path, save_freq: Any, counts: Counts) -> None:
        super().__init__(place, save_freq)
        self.counts = counts
        self.saved: list[int] = []

    def _save_model(self) -> None:
        self.saved.append(self.counts.batches)


@pytest.mark.parametrize("save_freq", ["epoch", 1, 4, 13])
def test_it_saves_when_keras_does(save_freq: Any, tmp_path: Path, model: Any) -> None:
    counts = Counts()
    peer = Notes(tmp_path, save_freq, counts)
    store = CheckpointStore(MemoryBackend(), workspace=tmp_path / "workspace")
    ours = backup(store, save_freq, delete_checkpoint=False)

    play(model, [counts, peer, ours], [{}] * 3, batches=[{}] * 6)

    assert [each.step for each in store] == peer.saved
    assert ours.newest == store.latest()


def test_its_arguments_can_be_read(tmp_path: Path) -> None:
    for kind in (Peer, BackupAndRestore):
        given = kind(str(tmp_path), 5, True, False)
        told = given.backup_dir, given.save_freq, given.double_checkpoint, given.delete_checkpoint
        assert told == (str(tmp_path), 5, True, False)


def test_the_two_newest_stay_until_the_training_has_ended(tmp_path: Path, model: Any) -> None:
    seen: list[list[int]] = []

    class Looks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append([each.metadata["epoch"] for each in open_store(tmp_path)])

    play(model, [backup(tmp_path), Looks()], [{}] * 3)

    assert seen == [[1], [1, 2], [2, 3]]
    assert open_store(tmp_path).checkpoints() == []


def test_what_is_pinned_and_what_is_not_its_own_stays(tmp_path: Path, model: Any) -> None:
    class Pins(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 0:
                ours.store.pin(ours.newest, "paper")

    ours = backup(tmp_path)
    other = ModelCheckpoint(tmp_path / "m.keras", background=False)
    (tmp_path / "notes.txt").write_text("mine")
    play(model, [ours, other, Pins()], [{}] * 2)

    left = {(each.metadata["series"], each.metadata["epoch"]) for each in open_store(tmp_path)}
    assert left == {("backup.weights.h5", 1), ("m.keras", 1), ("m.keras", 2)}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_they_stay_if_the_training_breaks_or_if_that_is_asked_for(
    tmp_path: Path, model: Any
) -> None:
    ours = backup(tmp_path / "broken")
    with pytest.raises(Killed):
        play(model, [ours, Kills("on_epoch_begin", 2)], [{}] * 2)
    kept = backup(tmp_path / "kept", delete_checkpoint=False)
    play(model, [kept], [{}] * 3)

    assert [each.metadata["epoch"] for each in ours.store] == [1]
    assert [each.metadata["epoch"] for each in kept.store] == [2, 3]


def test_what_cannot_be_removed_is_told(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = backup(tmp_path)

    def fails(*checkpoints: Any) -> Any:
        raise StorageError("the place does not answer.")

    monkeypatch.setattr(ours.store, "remove", fails)
    with pytest.warns(CheckpointWarning, match="its checkpoints stay: the place does not answer"):
        play(model, [ours], [{}])

    assert len(ours.store) == 1


def test_a_run_that_was_finished_trains_nothing_and_has_its_whole_history(tmp_path: Path) -> None:
    once = train(ANEW(), 2, [backup(tmp_path, delete_checkpoint=False)])
    model, again = ANEW(), backup(tmp_path, delete_checkpoint=False)

    history = train(model, 2, [again])

    assert int(model.optimizer.iterations) == 20
    assert (history.history, history.epoch) == (once.history, [0, 1])
    assert [each.session for each in again.store] == [1, 1]


def test_a_resumed_run_says_so_and_saves_when_it_would_have(
    tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = CheckpointStore(MemoryBackend(), workspace=tmp_path / "workspace")
    saves = [backup(store, 4), Kills("on_train_batch_end", 11)]
    with pytest.raises(Killed):
        play(model, saves, [{}] * 2, batches=[{}] * 6)

    again = backup(store, 4, delete_checkpoint=False, verbose=1)
    play(model, [again], [{}] * 2, batches=[{}] * 6, first=1)

    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Resuming from ")
    assert line.endswith("epoch 2, after batch 2")
    assert [each.step for each in store] == [4, 8, 12, 16]


def test_it_saves_after_some_time(tmp_path: Path, model: Any) -> None:
    times = iter(range(100))
    store = CheckpointStore(MemoryBackend(), workspace=tmp_path / "workspace")
    ours = backup(store, timedelta(seconds=3), delete_checkpoint=False)
    ours._schedule = Schedule("3s", clock=lambda: float(next(times)))

    play(model, [ours], [{}] * 2, batches=[{}] * 5)

    assert [each.step for each in store] == [3, 6, 9]


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no place": ("", {}, "a directory, a URL or a CheckpointStore, not ''"),
    "none": (None, {}, "a directory, a URL or a CheckpointStore, not None"),
    "never": ("a", {"save_freq": 0}, "a number of batches from 1"),
    "no such word": ("a", {"save_freq": "batch"}, "'90s', '15min', '2h' or '1d'"),
    "nothing that could save": (
        *("a", {"save_freq": False, "preemption": False}),
        "would never save; nothing was touched. Give save_freq='epoch'",
    ),
    "preemption": ("a", {"preemption": 3}, "True, False or a holdfast.Preemption, not 3"),
    "on_error": ("a", {"on_error": "ignore"}, "'warn' or 'raise'"),
    "options of another store": (
        *(CheckpointStore(MemoryBackend()), {"storage_options": {}}),
        "has its own storage_options",
    ),
}


@pytest.mark.parametrize(("place", "more", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_told_at_once(
    place: Any,
    more: Mapping[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidInputError, match=message):
        BackupAndRestore(place, **more)

    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_built_is_told_how_to_be(tmp_path: Path) -> None:
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("adam", "mse")

    with pytest.raises(ValueError, match="must be built before"):
        play(unbuilt, [Peer(tmp_path / "peer")], [{}])
    with pytest.raises(InvalidInputError, match=r"is not built yet.*keras\.Input\(shape\)"):
        play(unbuilt, [backup(tmp_path / "ours")], [{}])


# Where Keras's own fails; a row whose peer is mended goes.


def test_br1_a_run_goes_on_at_the_batch(tmp_path: Path) -> None:
    assert trained_after(lambda: Peer(tmp_path / "peer", 2), [18], epochs=3) == 38
    assert trained_after(lambda: backup(tmp_path / "ours", 2), [18], epochs=3) == 30


def test_br2_twice(tmp_path: Path) -> None:
    assert trained_after(lambda: Peer(tmp_path / "peer", 3), [26, 6], epochs=4) == 70
    assert trained_after(lambda: backup(tmp_path / "ours", 3), [26, 2], epochs=4) == 40


def test_br3_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, model: Any) -> None:
    peers = ANEW()
    for damage, double, error in (
        (_cut, False, OSError),
        (_empty, True, json.JSONDecodeError),
    ):
        place = tmp_path / error.__name__
        play(peers, [Peer(place, "epoch", double, delete_checkpoint=False)], [{}] * 2)
        damage(place)
        with pytest.raises(error):
            play(peers, [Peer(place, "epoch", double)], [{}])

    ours = backup(tmp_path / "ours", delete_checkpoint=False)
    set_all(model, 1)
    play(model, [ours], [{}])
    kept = values(model)
    set_all(model, 2)
    play(model, [backup(tmp_path / "ours", delete_checkpoint=False)], [{}], first=1)
    newest = ours.store.latest()
    (path,) = tmp_path.glob(f"ours/files/*{newest.id.token}*/backup.weights.h5")
    _halve(path)

    fresh = new_model()
    with pytest.warns(CheckpointWarning, match="Passing over it"):
        play(fresh, [backup(tmp_path / "ours", delete_checkpoint=False)], [])
    assert same(values(fresh), kept)


def _cut(place: Path) -> None:
    _halve(place / "latest.weights.h5")


def _empty(place: Path) -> None:
    (place / "training_metadata.json").write_text("")


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_br4_weights_and_their_place_are_one(tmp_path: Path, model: Any) -> None:
    place = tmp_path / "peer"
    play(model, [Peer(place, delete_checkpoint=False)], [{}])
    (place / "latest.weights.h5").unlink()
    fresh = new_model()
    begun = values(fresh)
    play(fresh, [Peer(place)], [])
    assert fresh._initial_epoch == 1
    assert same(values(fresh), begun)

    ours = backup(tmp_path / "ours", delete_checkpoint=False)
    play(model, [ours], [{}])
    (path,) = tmp_path.glob("ours/files/*/backup.weights.h5")
    path.unlink()
    with (
        pytest.warns(CheckpointWarning, match="Passing over it"),
        pytest.raises(CorruptionError, match="none of the 1"),
    ):
        play(fresh, [backup(tmp_path / "ours")], [])


def test_br5_false_means_that_nothing_is_saved(tmp_path: Path, model: Any) -> None:
    counts = Counts()
    peer = Notes(tmp_path / "peer", False, counts)
    ours = backup(tmp_path / "ours", False, save_before_preemption=True, delete_checkpoint=False)

    play(model, [counts, peer, ours], [{}] * 2, batches=[{}] * 3)

    assert peer.saved == [1, 2, 3, 4, 5, 6]
    assert len(ours.store) == 0


def test_br6_a_file_of_ones_own_stays(tmp_path: Path, model: Any) -> None:
    for name in ("peer", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")

    play(model, [Peer(tmp_path / "peer")], [{}])
    with quiet():
        play(model, [backup(tmp_path / "ours")], [{}])

    assert not (tmp_path / "peer").exists()
    assert (tmp_path / "ours" / "notes.txt").read_text() == "mine"


def test_br7_nothing_of_it_sticks_to_the_model(tmp_path: Path) -> None:
    steps = {}
    for name, kind in (("peer", Peer), ("ours", backup)):
        model = ANEW()
        with pytest.raises(Killed):
            train(model, 4, [kind(tmp_path / name), Kills("on_epoch_begin", 3)])
        train(model, 4, [kind(tmp_path / name)])
        before = int(model.optimizer.iterations)
        train(model, 4)
        steps[name] = int(model.optimizer.iterations) - before

    assert steps == {"peer": 20, "ours": 40}
