"""Keras's callbacks, Orbax and TensorFlow's manager, each as its documentation shows it."""

import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import orbax.checkpoint as ocp
import tensorflow as tf

from tests.beside.subject import Subject
from tests.beside.training import values

_KERAS = ("keras", "h5py")


# keras.callbacks.ModelCheckpoint


def _best_model(place: str) -> Any:
    return keras.callbacks.ModelCheckpoint(
        f"{place}/best.keras", monitor="score", mode="max", save_best_only=True
    )


def _model(place: str) -> Any:
    return keras.callbacks.ModelCheckpoint(f"{place}/model.keras")


def _load_model(name: str) -> Any:
    return lambda place, _: (keras.models.load_model(f"{place}/{name}"), None)


def _best_weights(place: str) -> Any:
    return keras.callbacks.ModelCheckpoint(
        f"{place}/best.weights.h5",
        monitor="score",
        mode="max",
        save_best_only=True,
        save_weights_only=True,
    )


def _weights(place: str) -> Any:
    return keras.callbacks.ModelCheckpoint(f"{place}/model.weights.h5", save_weights_only=True)


def _remote_weights(place: str) -> Any:
    """A URL, of which Keras saves to a temporary file first; both lie on one disk here."""
    if "://" not in place:
        os.makedirs(f"{place}/tmp", exist_ok=True)  # noqa: PTH103 - a place is a text
        tempfile.tempdir = f"{place}/tmp"
        place = f"file://{place}"
    return _weights(place)


def _load_weights(name: str) -> Any:
    def load(place: str, model: Any) -> tuple[Any, None]:
        model.load_weights(f"{place}/{name}")
        return model, None

    return load


def _each_model(place: str) -> Any:
    return keras.callbacks.ModelCheckpoint(f"{place}/{{epoch:02d}}.keras")


def _load_newest(place: str, model: Any) -> tuple[Any, int]:
    """The newest by its name; a careful script's, which goes back where one cannot be read."""
    found = sorted(Path(place).glob("*.keras"), reverse=True)
    for path in found[:-1]:
        try:
            return keras.models.load_model(path), int(path.stem)
        except Exception:  # whatever is wrong with it, the one before may do
            continue
    return (keras.models.load_model(found[-1]), int(found[-1].stem)) if found else (model, 0)


# keras.callbacks.BackupAndRestore


def _back_up(place: str) -> Any:
    return keras.callbacks.BackupAndRestore(place, delete_checkpoint=False)


def _back_up_twice(place: str) -> Any:
    return keras.callbacks.BackupAndRestore(place, double_checkpoint=True, delete_checkpoint=False)


# keras.callbacks.OrbaxCheckpoint


def _orbax_callback(place: str) -> Any:
    return keras.callbacks.OrbaxCheckpoint(place)


def _best_orbax_callback(place: str) -> Any:
    return keras.callbacks.OrbaxCheckpoint(place, "score", save_best_only=True, mode="max")


def _load_orbax_callback(place: str, model: Any) -> tuple[Any, int]:
    if not os.path.isdir(place):  # noqa: PTH112 - it may be a URL
        return model, 0
    with ocp.v1.training.Checkpointer(place) as checkpointer:
        latest = checkpointer.latest
    if latest is None:
        return model, 0
    return keras.models.load_model(place), latest.step + 1


# orbax.checkpoint.CheckpointManager


class _Orbax(keras.callbacks.Callback):
    """Saves every array of the model; what is not asynchronous is what `fit` waits for."""

    def __init__(self, place: str, **options: Any) -> None:
        super().__init__()
        self.manager = ocp.CheckpointManager(
            place, options=ocp.CheckpointManagerOptions(max_to_keep=2, **options)
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.manager.save(
            epoch,
            args=ocp.args.StandardSave(values(self.model)),
            metrics={key: float(value) for key, value in logs.items()},
        )

    def on_train_end(self, logs: Any = None) -> None:
        self.manager.wait_until_finished()


def _best_orbax(place: str) -> Any:
    return _Orbax(place, best_fn=lambda metrics: metrics["score"], best_mode="max")


def _assign(model: Any, tree: Any) -> None:
    variables = [*model.variables, *model.optimizer.variables]
    for variable, key in zip(variables, sorted(tree), strict=True):
        variable.assign(tree[key])


def _load_orbax(place: str, model: Any) -> tuple[Any, int]:
    with ocp.CheckpointManager(place) as manager:
        latest = manager.latest_step()
        if latest is None:
            return model, 0
        _assign(model, manager.restore(latest, args=ocp.args.StandardRestore(values(model))))
    return model, latest + 1


def _load_best_orbax(place: str, model: Any) -> tuple[Any, None]:
    options = ocp.CheckpointManagerOptions(
        best_fn=lambda metrics: metrics["score"], best_mode="max", read_only=True
    )
    with ocp.CheckpointManager(place, options=options) as manager:
        best = manager.best_step()
        _assign(model, manager.restore(best, args=ocp.args.StandardRestore(values(model))))
    return model, None


# tf.train.CheckpointManager


class _TensorFlow(keras.callbacks.Callback):
    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self.manager, self.epoch = _manager(self.place, model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.assign(epoch + 1)
        self.manager.save()


def _manager(place: str, model: Any) -> tuple[Any, Any]:
    epoch = tf.Variable(0)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=epoch)
    return tf.train.CheckpointManager(checkpoint, place, max_to_keep=2), epoch


def _load_tensorflow(place: str, model: Any) -> tuple[Any, int]:
    manager, epoch = _manager(place, model)
    manager.restore_or_initialize()
    return model, int(epoch)


SUBJECTS = [
    Subject(
        "Keras `ModelCheckpoint`, `.keras`",
        '`ModelCheckpoint("model.keras")`, then `load_model`',
        _KERAS,
        _model,
        _load_model("model.keras"),
        best=_best_model,
        load_best=_load_model("best.keras"),
    ),
    Subject(
        "… a file for each epoch",
        '`ModelCheckpoint("{epoch:02d}.keras")`, then `load_model` of the newest that loads',
        _KERAS,
        _each_model,
        _load_newest,
    ),
    Subject(
        "Keras `ModelCheckpoint`, `.weights.h5`",
        '`ModelCheckpoint("model.weights.h5", save_weights_only=True)`, then `load_weights`',
        _KERAS,
        _weights,
        _load_weights("model.weights.h5"),
        best=_best_weights,
        load_best=_load_weights("best.weights.h5"),
    ),
    Subject(
        "… to a URL",
        '`ModelCheckpoint("file://…/model.weights.h5", save_weights_only=True)`, the temporary '
        "directory on the same disk, then `load_weights`",
        _KERAS,
        _remote_weights,
        _load_weights("model.weights.h5"),
    ),
    Subject(
        "Keras `BackupAndRestore`",
        '`BackupAndRestore("backup")`',
        _KERAS,
        _back_up,
        None,
    ),
    Subject(
        "… with `double_checkpoint`",
        '`BackupAndRestore("backup", double_checkpoint=True)`',
        _KERAS,
        _back_up_twice,
        None,
    ),
    Subject(
        "Keras `OrbaxCheckpoint`",
        '`OrbaxCheckpoint("run")`, in the background, then `load_model`',
        ("keras", "orbax-checkpoint"),
        _orbax_callback,
        _load_orbax_callback,
        settle=lambda callback: callback.wait_until_finished(),
        best=_best_orbax_callback,
        load_best=_load_orbax_callback,
    ),
    Subject(
        "Orbax `CheckpointManager`",
        "asynchronous, `max_to_keep=2`, `StandardSave` of every array, `wait_until_finished` at "
        "the end; then `restore` of `latest_step`",
        ("orbax-checkpoint", "jax"),
        _Orbax,
        _load_orbax,
        settle=lambda callback: callback.manager.wait_until_finished(),
        best=_best_orbax,
        load_best=_load_best_orbax,
    ),
    Subject(
        "`tf.train.CheckpointManager`",
        "`Checkpoint(model, optimizer, epoch)`, `max_to_keep=2`, then `restore_or_initialize`",
        ("tensorflow",),
        _TensorFlow,
        _load_tensorflow,
    ),
]
