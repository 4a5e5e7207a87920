"""How the callback behaves beside a training: what fails, what waits, and that nothing changes."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from holdfast import CheckpointStore, KeepLast
from holdfast.backends.base import Entry
from holdfast.errors import CheckpointWarning, PendingSaveError, StorageError, SupersededError
from holdfast.keras import ModelCheckpoint, formats
from holdfast.testing.memory import MemoryBackend
from holdfast.writer import Writer
from tests.frameworks.runs import by_us, new_model, play, quiet, same, train, values


class FailingBackend(MemoryBackend):
    """A place that can be told to fail, or to take its time."""

    fails = False

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.opened.set()

    def upload(self, source: Path, key: str) -> None:
        self.opened.wait()
        if self.fails:
            raise StorageError("the place does not answer.")
        super().upload(source, key)

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        if self.fails:
            raise StorageError("the place does not answer.")
        return super().scan(prefix, after)


@pytest.fixture
def backend() -> FailingBackend:
    return FailingBackend()


@pytest.fixture
def store(backend: FailingBackend, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(backend, workspace=tmp_path / "workspace")


class Fails(keras.callbacks.Callback):
    """Lets the place fail from an epoch on, up to another one."""

    def __init__(self, backend: FailingBackend, first: int, until: int = 100) -> None:
        super().__init__()
        self.backend, self.epochs = backend, range(first, until)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.backend.fails = epoch in self.epochs


def test_training_is_not_changed(tmp_path: Path, unbroken: dict[int, list[Any]]) -> None:
    model = new_model()
    more: dict[str, Any] = {"save_freq": 5, "retention": KeepLast(1)}
    behind = ModelCheckpoint(tmp_path / "behind" / "{epoch}.keras", **more)
    waiting = ModelCheckpoint(tmp_path / "waiting" / "{epoch}.h5", background=False, **more)

    with quiet():  # on a slow machine a save may give way to the next
        train(model, 2, [behind, waiting])

    assert same(values(model), unbroken[2])
    for callback in (behind, waiting):
        assert callback.newest is not None
        assert callback.newest.step == 20


def test_the_older_format_beside_another_changes_nothing(tmp_path: Path, model: Any) -> None:
    peer = keras.callbacks.ModelCheckpoint(tmp_path / "peer.h5")
    compiled = dict(model._compile_config.config)
    play(model, [peer], [{}])
    assert "optimizer" not in model._compile_config.config
    model._compile_config.config.update(compiled)

    play(model, [ModelCheckpoint(tmp_path / "ours" / "m.h5", background=False)], [{}])

    assert model._compile_config.config == compiled


@pytest.mark.parametrize("background", [True, False])
def test_a_place_that_fails_does_not_stop_the_training(
    background: bool, backend: FailingBackend, store: CheckpointStore, model: Any
) -> None:
    ours = ModelCheckpoint(store, background=background)

    play(model, [ours], [{}])
    with pytest.warns(CheckpointWarning, match="the place does not answer") as told:
        play(model, [Fails(backend, 0), ours], [{}] * 2, first=1)

    assert any("newest durable" in text for text in by_us(told))
    backend.fails = False
    assert [each.metadata["epoch"] for each in store] == [1]
    again = ModelCheckpoint(store)
    assert again.resume(new_model()) == 3


def test_what_failed_is_sent_before_the_next(
    backend: FailingBackend, store: CheckpointStore, model: Any
) -> None:
    ours = ModelCheckpoint(store)

    with pytest.warns(CheckpointWarning, match="the place does not answer"):
        play(model, [Fails(backend, 0, 1), ours], [{}])
    play(model, [Fails(backend, 0, 1), ours], [{}], first=1)

    assert [each.metadata["epoch"] for each in store] == [1, 2]
    assert ours.newest == store.latest()


def test_a_failed_save_can_stop_the_training(
    backend: FailingBackend, store: CheckpointStore, model: Any
) -> None:
    waiting = ModelCheckpoint(store, on_error="raise", background=False)
    with pytest.raises(StorageError, match="does not answer"):
        play(model, [Fails(backend, 1), waiting], [{}] * 3)

    backend.fails = False
    ours = ModelCheckpoint(store, on_error="raise")
    with (
        pytest.warns(CheckpointWarning, match="does not answer"),
        pytest.raises(PendingSaveError, match="does not answer"),
    ):
        play(model, [Fails(backend, 1), ours], [{}] * 2)


def test_a_best_that_could_not_be_written_does_not_count(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_best_only=True, background=False)
    saved = model.save

    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            model.save = saved if epoch != 1 else _raise

    with pytest.warns(CheckpointWarning, match="saving epoch 2 failed: it cannot be written"):
        play(model, [Break(), ours], [{"val_loss": loss} for loss in (0.5, 0.1, 0.3)])

    assert [each.metrics["val_loss"] for each in ours.store] == [0.5, 0.3]
    assert ours.best == 0.3


def _raise(*args: Any, **more: Any) -> None:
    raise RuntimeError("it cannot be written")


def test_an_overtaken_run_is_stopped(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", background=False)
    play(model, [ours], [{}])
    (tmp_path / "file").write_text("by another process")
    other = CheckpointStore(ours.store._backend, writer=Writer("another"))
    other.save(tmp_path / "file", step=1)

    with pytest.raises(SupersededError, match="taken over"):
        play(model, [ours], [{}])

    assert [each.writer for each in ours.store][1:] == ["another"]


def test_an_exception_in_the_training_loses_nothing(tmp_path: Path, model: Any) -> None:
    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    ours = ModelCheckpoint(tmp_path / "{epoch}.keras")
    with pytest.raises(KeyboardInterrupt):
        play(model, [ours, Breaks()], [{}] * 2)

    assert ours.resume(new_model()) == 1
    play(model, [ours], [{}], first=1)
    assert [each.metadata["epoch"] for each in ours.store] == [1, 2]


def test_a_resume_in_the_next_cell_waits_for_what_the_interrupted_training_still_sends(
    backend: FailingBackend, store: CheckpointStore, model: Any
) -> None:
    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    backend.opened.clear()
    with pytest.raises(KeyboardInterrupt):
        play(model, [ModelCheckpoint(store), Breaks()], [{}] * 2)

    threading.Timer(0.1, backend.opened.set).start()
    first_epoch = ModelCheckpoint(store).resume(new_model())

    assert first_epoch == 1


def test_a_slow_place_leaves_nothing_behind(
    backend: FailingBackend, store: CheckpointStore, tmp_path: Path, model: Any
) -> None:
    class Opens(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            backend.opened.set()

    backend.opened.clear()
    with pytest.warns(CheckpointWarning, match="gave way"):
        play(model, [Opens(), ModelCheckpoint(store, save_freq=1)], [{}], batches=[{}] * 5)
    gc.collect()  # a snapshot that gave way goes with its object

    assert [each.step for each in store][-1] == 5
    assert list((tmp_path / "workspace").iterdir()) == []


def test_a_manifest_says_what_was_measured(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m-{epoch}.keras", save_freq=3)

    logs = {"loss": 0.5, "lr": float("inf"), "name": "x"}
    play(model, [ours], [{}], batches=[logs] * 4)

    (kept,) = ours.store
    assert kept.metrics == {"loss": 0.5}
    assert kept.metadata == {
        "series": "m-{epoch}.keras",
        "epoch": 0,
        "batch": 3,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }


def test_lines_go_where_keras_logs(
    tmp_path: Path, model: Any, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "holdfast")
    keras.config.disable_interactive_logging()
    try:
        play(model, [ModelCheckpoint(tmp_path / "m.keras", verbose=1)], [{}])
    finally:
        keras.config.enable_interactive_logging()

    assert capsys.readouterr().out == ""
    assert [text.split(" model to ")[0] for text in caplog.messages] == [
        "Epoch 1: saving",
        "Epoch 1: finished saving",
    ]


def test_no_local_directory_is_taken_for_a_remote_one() -> None:
    is_remote = keras.src.utils.file_utils.is_remote_path
    path = Path("/gcs/runs/m.keras")

    assert is_remote(path)
    assert not is_remote(formats.local(path))
    assert Path(formats.local(path)) == Path("/gcs/runs/m.keras")
