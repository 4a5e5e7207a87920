"""Damage what Keras's state keeps, and see that no model gets anything of it."""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from holdfast import CheckpointStore, CheckpointWarning, CorruptionError
from holdfast.backends.base import Backend
from holdfast.backends.local import LocalBackend
from holdfast.keras import KerasState
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.crash.points import memory

STEPS = (10, 20)
#: Of the whole model, and of the weights alone.
NAMES = ("model.keras", "model.weights.h5")


def new_model() -> Any:
    """Always the same, with an optimizer that has begun."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def values(model: Any) -> list[Any]:
    """All that a restore assigns."""
    return [each.numpy() for each in (*model.variables, *model.optimizer.variables)]


def fill(model: Any, number: float) -> None:
    """Give every value that is a float another one, by which a checkpoint is known."""
    for each in (*model.variables, *model.optimizer.variables):
        if "float" in str(each.dtype):
            each.assign(np.full(each.shape, number, each.dtype))


def flips_in_models(seed: int, count: int) -> Iterator[str]:
    """Single bits anywhere in the files of the newest checkpoint of a model."""
    with memory() as place:
        model = new_model()
        fill(model, STEPS[0])
        wanted = values(model)
        stores: dict[tuple[str, bool], Backend] = {}
        for name in NAMES:
            for local in (True, False):
                backend = LocalBackend(place / name) if local else MemoryBackend()
                store = CheckpointStore(backend, workspace=place / "workspace", writer=Writer())
                for step in STEPS:
                    fill(model, step)
                    store.save(KerasState(model, name), step=step)
                stores[name, local] = backend
        for case in range(count):
            rng = random.Random(f"{seed}-{case}")
            name, local = rng.choice([*stores])
            try:
                found = _judged(stores[name, local], model, wanted, place / "workspace", rng)
            except Exception as error:  # whatever is raised, it is not what was promised
                found = f"{type(error).__name__}: {error}"
            where = f"{name} in {'a directory' if local else 'memory'}"
            yield f"seed {seed}, case {case}: {where}: {found}" if found else ""


def _judged(
    backend: Backend, model: Any, wanted: list[Any], workspace: Path, rng: random.Random
) -> str:
    """What one flipped bit has brought about, or nothing."""
    store = CheckpointStore(backend, workspace=workspace, writer=Writer())
    good, bad = store.checkpoints()
    file = rng.choice([file for file in bad.files if file.size])
    at, bit = rng.randrange(file.size), rng.randrange(8)
    key = f"files/{bad}/{file.path}"
    _flip(backend, key, at, bit)
    try:
        fill(model, -1)
        before = values(model)
        try:
            store.restore(KerasState(model), str(bad))
        except CorruptionError:
            pass
        else:
            return f"bit {bit} of byte {at} of {file.path} was not noticed"
        if not _same(values(model), before):
            return f"damaged {file.path} changed the model"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", CheckpointWarning)
            came = store.restore(KerasState(model))
        if came != good or not any(each.category is CheckpointWarning for each in told):
            return f"{came.step} came, and warned was {[str(each.message) for each in told]}"
        return "" if _same(values(model), wanted) else "other values came"
    finally:
        _flip(backend, key, at, bit)


def _flip(backend: Backend, key: str, at: int, bit: int) -> None:
    if isinstance(backend, MemoryBackend):
        data, time = backend.objects[key]
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        backend.objects[key] = (bytes(changed), time)
        return
    with (Path(backend.url.removeprefix("file://")) / key).open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def _same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
