"""Holdfast's callbacks, with what they do by default."""

from functools import partial
from typing import Any

from holdfast import Saver, open_store
from holdfast.keras import BackupAndRestore, KerasState, ModelCheckpoint
from tests.beside.subject import Subject

_PACKAGES = ("holdfast",)


def _keep(name: str, place: str) -> ModelCheckpoint:
    return ModelCheckpoint(f"{place}/{name}")


def _keep_best(name: str, place: str) -> ModelCheckpoint:
    return ModelCheckpoint(f"{place}/{name}", "score", save_best_only=True, mode="max")


def _resume(name: str, place: str, model: Any) -> tuple[Any, int]:
    return model, _keep(name, place).resume(model)


def _load_best(name: str, place: str, model: Any) -> tuple[Any, None]:
    store = open_store(place)
    store.restore(KerasState(model, name), store.best("score", mode="max"))
    return model, None


def _back_up(place: str) -> BackupAndRestore:
    return BackupAndRestore(place, delete_checkpoint=False)


def _settle(callback: Any) -> None:
    Saver.settle(callback.store.url)


SUBJECTS = [
    *[
        Subject(
            f"Holdfast `ModelCheckpoint`, `{suffix}`",
            f'`ModelCheckpoint("model{suffix}")`, then `initial_epoch=checkpoint.resume(model)`',
            _PACKAGES,
            partial(_keep, f"model{suffix}"),
            partial(_resume, f"model{suffix}"),
            settle=_settle,
            best=partial(_keep_best, f"model{suffix}"),
            load_best=partial(_load_best, f"model{suffix}"),
        )
        for suffix in (".keras", ".weights.h5")
    ],
    Subject(
        "Holdfast `BackupAndRestore`",
        '`BackupAndRestore("run")`',
        _PACKAGES,
        _back_up,
        None,
        settle=_settle,
    ),
]
