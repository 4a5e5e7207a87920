"""A run that is started again: whether the best model is still there, and the end the same."""

import os
import signal
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, cast

import keras

from tests.beside.subject import Subject
from tests.beside.training import BATCHES, Scores, blank, build, fingerprint, train
from tests.crash.killer import run

#: What becomes of the best model; None where no best is known.
Best = Literal["kept", "overwritten"]
#: How many epochs a run has, and after which batch of which epoch it is killed; -1 is after all
#: batches of an epoch, and its save.
_EPOCHS = 4
_KILLS = ((1, -1), (2, 1))


def best(subject: Subject, root: Path) -> Best | None:
    """Save a good model and a better one; then, in another process, train on with a worse one."""
    if subject.best is None or subject.load_best is None:
        return None
    make, load, place = subject.best, subject.load_best, str(root)

    def first() -> str:
        model = build()
        train(model, [Scores(0.5, 0.9), make(place)], epochs=2)
        return fingerprint(model)

    def again() -> None:
        model, _ = load(place, build())
        train(model, [Scores(0.1), make(place)], epochs=3, start=2)

    def look() -> str:
        return fingerprint(load(place, blank())[0])

    good = _result(first, root)
    _result(again, root)
    return "kept" if _result(look, root) == good else "overwritten"


@dataclass(frozen=True)
class Ended:
    """
    How a run ended that was killed and started again, beside one that was not.

    Attributes:
        network (str): with dropout or without.
        killed (str): when.
        weights (bool): weights, optimizer and seed generators are the same, to the bit.
        history (bool): so is History.
    """

    network: str
    killed: str
    weights: bool
    history: bool


class _KillAt(keras.callbacks.Callback):
    """Ends the process; listed last, when everything that was saved is written."""

    def __init__(self, epoch: int, batch: int, settle: Any) -> None:
        super().__init__()
        self._at = epoch, batch
        self._settle = settle
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._strike(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._strike(-1)

    def _strike(self, batch: int) -> None:
        if (self._epoch, batch) == self._at:
            self._settle()
            os.kill(os.getpid(), signal.SIGKILL)


def exact(subject: Subject, root: Path) -> list[Ended]:
    """Kill runs that save each epoch, start each again, and compare what they end with."""
    found = []
    for dropout in (False, True):
        whole = _undisturbed(dropout)
        for epoch, batch in _KILLS:
            place = str(root / f"{dropout}-{epoch}-{batch}")
            struck = run(partial(_killed, subject, place, dropout, epoch, batch), under=root)
            if struck.exit_code != -signal.SIGKILL:
                raise RuntimeError(f"{subject.name} was not killed: {struck}")
            ended = _result(partial(_started_again, subject, place, dropout), root)
            found.append(
                Ended(
                    "dropout" if dropout else "plain",
                    f"after epoch {epoch + 1}" if batch < 0 else f"inside epoch {epoch + 1}",
                    weights=ended[0] == whole[0],
                    history=ended[1] == whole[1],
                )
            )
    return found


@cache
def _undisturbed(dropout: bool) -> tuple[str, Any]:
    def act() -> tuple[str, Any]:
        model = build(dropout=dropout)
        history = train(model, [], epochs=_EPOCHS, batches=BATCHES)
        return fingerprint(model), history.history

    return cast("tuple[str, Any]", _result(act, Path("/nothing")))


def _killed(subject: Subject, place: str, dropout: bool, epoch: int, batch: int) -> None:
    saver = subject.save(place)
    ends = _KillAt(epoch, batch, partial(subject.settle, saver))
    train(build(dropout=dropout), [saver, ends], epochs=_EPOCHS, batches=BATCHES)


def _started_again(subject: Subject, place: str, dropout: bool) -> tuple[str, Any]:
    model, epoch = build(dropout=dropout), 0
    if subject.resume is not None:
        model, saved = subject.resume(place, model)
        # Where no epoch was saved the optimizer has counted the batches.
        epoch = int(model.optimizer.iterations) // BATCHES if saved is None else saved
    saver = subject.save(place)
    history = train(model, [saver], epochs=_EPOCHS, start=epoch, batches=BATCHES)
    return fingerprint(model), history.history


def _result(action: Any, root: Path) -> Any:
    outcome = run(action, under=root, timeout=300)
    if outcome.error is not None or outcome.exit_code:
        raise RuntimeError(outcome.error.traceback if outcome.error else outcome.output)
    return outcome.result
