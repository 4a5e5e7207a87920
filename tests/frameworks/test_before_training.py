"""A place that cannot take a save is found out before the first epoch is spent."""

from pathlib import Path
from typing import Any

import pytest

from holdfast import CheckpointStore
from holdfast.errors import AccessDenied, CheckpointWarning, StorageError, StorageFull
from holdfast.keras import ModelCheckpoint
from holdfast.testing import Fault, FaultBackend, MemoryBackend
from tests.frameworks.runs import new_model, play


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Makes a callback on a place that fails as planned, and counts the epochs that begin."""

    def opened(*plan: Fault, **options: Any) -> ModelCheckpoint:
        store = CheckpointStore(
            FaultBackend(MemoryBackend(), plan), workspace=tmp_path / "workspace"
        )
        callback = ModelCheckpoint(store, **options)
        callback.begun = []
        begin = callback.on_epoch_begin
        callback.on_epoch_begin = lambda epoch, logs=None: (
            callback.begun.append(epoch),
            begin(epoch, logs),
        )
        return callback

    return opened


def denied(error: Any = AccessDenied) -> Fault:
    return Fault(1, verb="create", error=error, lasting=True)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("on_error", ["warn", "raise"])
@pytest.mark.parametrize("error", [AccessDenied, StorageFull])
def test_a_missing_right_ends_the_training_before_it_begins(
    opened: Any, background: bool, on_error: str, error: Any
) -> None:
    callback = opened(denied(error), background=background, on_error=on_error)

    with pytest.raises(error):
        play(new_model(), [callback], [{"loss": 1.0}])

    assert callback.begun == []


@pytest.mark.parametrize("error", [AccessDenied, StorageError])
def test_and_before_that_when_it_is_resumed(opened: Any, error: Any) -> None:
    with pytest.raises(error):
        opened(denied(error)).resume(new_model())


def test_a_place_that_cannot_be_reached_just_now_does_not(opened: Any) -> None:
    callback = opened(Fault(1, verb="create", error=StorageError))

    with pytest.warns(CheckpointWarning, match="Training may begin"):
        play(new_model(), [callback], [{"loss": 1.0}])

    assert callback.begun == [0]
    assert callback.store.latest() == callback.newest


def test_unless_errors_are_to_be_raised(opened: Any) -> None:
    callback = opened(Fault(1, verb="create", error=StorageError), on_error="raise")

    with pytest.raises(StorageError):
        play(new_model(), [callback], [{"loss": 1.0}])

    assert callback.begun == []


def test_it_is_asked_once_in_a_process(opened: Any) -> None:
    callback = opened()
    model = new_model()

    assert callback.resume(model) == 0
    play(model, [callback], [{"loss": 1.0}])
    callback.resume(model)

    calls = callback.store._backend.calls
    assert [call.verb for call in calls if call.key.startswith(".probe/")] == [
        "create",
        "create",
        "read",
    ]
