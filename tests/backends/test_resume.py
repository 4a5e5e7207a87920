"""On JAX and on PyTorch, too, a run that is resumed ends as one that was never interrupted."""

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from holdfast import Preemption, open_store
from holdfast.errors import CheckpointWarning
from holdfast.keras import ModelCheckpoint
from tests.backends import runs
from tests.backends.runs import (
    After,
    arrays,
    backup,
    companions,
    dataset,
    left,
    loader,
    new_model,
    train,
)

ROOT = Path(__file__).parents[2]
ON_JAX = keras.backend.backend() == "jax"
Data = Callable[[], dict[str, Any]]


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def interrupt() -> None:
    raise Interrupted


def shuffled() -> dict[str, Any]:
    return arrays(shuffle=True)


def in_order() -> dict[str, Any]:
    return arrays(shuffle=False)


def by_batch() -> dict[str, Any]:
    return arrays(shuffle="batch")


def draw() -> None:
    random.random()
    np.random.random()
    if torch := sys.modules.get("torch"):
        torch.rand(1)


@pytest.fixture(scope="module")
def unbroken() -> Callable[..., list[Any]]:
    """What is left of a run that nobody interrupts, without a callback of ours; each made once."""
    made: dict[Any, list[Any]] = {}

    def result(data: Data, **more: Any) -> list[Any]:
        key = data, *more.items()
        if key not in made:
            model, beside = new_model(**more), companions()
            train(model, data(), beside)
            made[key] = left(model, beside)
        return made[key]

    return result


def resumed(place: Path, data: Data, kill_at: list[int], **more: Any) -> list[Any]:
    """What is left of a run that is interrupted after so many batches of each of its processes."""
    for number, batches in enumerate([*kill_at, None]):
        model, beside = new_model(**more), companions()
        if number:
            draw()  # another process stands elsewhere
        callbacks = [*beside[:1], backup(place, background=False), *beside[1:]]
        if batches is None:
            train(model, data(), callbacks)
            return left(model, beside)
        callbacks.append(After("on_train_batch_end", batches, interrupt))
        with pytest.raises(Interrupted):
            train(model, data(), callbacks)
    raise AssertionError


@pytest.mark.parametrize(
    ("data", "kill_at"),
    [
        (in_order, [7]),  # inside the first epoch
        (shuffled, [15, 8]),  # inside the second, and then after the last batch of the second
        (by_batch, [26]),  # inside the last
        (dataset, [10, 13]),  # after the last batch of an epoch, and inside the next but one
    ],
)
def test_arrays_and_what_is_made_of_them(
    data: Data, kill_at: list[int], tmp_path: Path, unbroken: Callable[..., list[Any]]
) -> None:
    assert resumed(tmp_path, data, kill_at) == unbroken(data)


def test_a_loader_of_pytorch(tmp_path: Path, unbroken: Callable[..., list[Any]]) -> None:
    pytest.importorskip("torch")

    assert resumed(tmp_path, loader, [16]) == unbroken(loader)


def test_a_loader_with_a_generator_of_its_own_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    def data() -> dict[str, Any]:
        return loader(generator=torch.Generator())

    with pytest.warns(CheckpointWarning, match=r"a torch\.Generator of its own.*leave generator"):
        resumed(tmp_path, data, [6])


@pytest.mark.skipif(not ON_JAX, reason="Keras on PyTorch takes one step at a time")
def test_several_steps_in_one_execution(tmp_path: Path, unbroken: Callable[..., list[Any]]) -> None:
    # Calls of the hook, of which an epoch of ten batches has three.
    again = resumed(tmp_path, shuffled, [2, 5], steps_per_execution=4)

    assert again == unbroken(shuffled, steps_per_execution=4)


def test_model_checkpoint(tmp_path: Path, unbroken: Callable[..., list[Any]]) -> None:
    def fit(*more: Any) -> list[Any]:
        model, beside = new_model(), companions()
        ours = ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=3)
        train(model, in_order(), [*beside, ours, *more], initial_epoch=ours.resume(model))
        return left(model, beside)

    with pytest.raises(Interrupted):
        fit(After("on_train_batch_end", 17, interrupt))

    assert fit() == unbroken(in_order)
    assert [each.step for each in open_store(tmp_path)] == list(range(3, 31, 3))


def test_a_run_that_is_only_watched_is_not_changed(
    tmp_path: Path, unbroken: Callable[..., list[Any]]
) -> None:
    model, beside = new_model(), companions()

    train(model, shuffled(), [backup(tmp_path, save_freq=1), *beside])

    assert left(model, beside) == unbroken(shuffled)


@pytest.mark.skipif(not ON_JAX, reason="the values lie beside the model on JAX alone")
def test_a_batch_at_which_nothing_is_saved_copies_no_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, heard = new_model(run_eagerly=True), ["fit"]
    copies = type(model).jax_state_sync

    def copied(model: Any) -> None:
        heard.append("copy")
        copies(model)

    class Counts(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            heard.append(f"batch {batch}")

    monkeypatch.setattr(type(model), "jax_state_sync", copied)
    train(model, in_order(), [backup(tmp_path, save_freq="epoch"), Counts()], epochs=1)

    between = heard[heard.index("batch 0") : heard.index("batch 9")]
    assert between == [f"batch {number}" for number in range(9)]


class Heard(Preemption):
    """Says which thread would have ended the process."""

    threads: ClassVar[list[threading.Thread]] = []

    def end(self) -> None:
        self.threads.append(threading.current_thread())
        interrupt()


def test_a_process_is_ended_by_its_main_thread(tmp_path: Path) -> None:
    with Heard() as preemption:
        asked = After("on_test_begin", 1, preemption.request)
        ours = backup(tmp_path, preemption=preemption)
        with pytest.raises(Interrupted):
            train(new_model(), in_order(), [asked, ours])

    assert preemption.threads == [threading.main_thread()]
    assert [each.step for each in open_store(tmp_path)] == [8, 10]


#: Saved is every fourth batch, and where the process was asked to end.
ENDS = {
    "killed inside an epoch": ("SIGKILL", "on_train_batch_end", 17, 16),
    "asked to end inside an epoch": ("SIGTERM", "on_train_batch_end", 17, 17),
    "asked to end while it validates": ("SIGTERM", "on_test_begin", 2, 20),
}


@pytest.mark.parametrize(("number", "hook", "times", "step"), ENDS.values(), ids=ENDS)
def test_a_process_that_ends(
    number: str,
    hook: str,
    times: int,
    step: int,
    tmp_path: Path,
    unbroken: Callable[..., list[Any]],
) -> None:
    place = tmp_path / "store"
    command = [sys.executable, "-m", runs.__name__, str(place), number, hook, str(times)]
    ended = subprocess.run(command, cwd=ROOT, timeout=300)
    assert ended.returncode == -signal.Signals[number]
    assert open_store(place).checkpoints()[-1].step == step

    model, beside = new_model(), companions()
    train(model, shuffled(), [*beside, backup(place)])

    assert left(model, beside) == unbroken(shuffled)
