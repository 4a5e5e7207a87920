"""Files of a model that unpack to more than they are, or elsewhere, or hold code."""

import contextlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast import CheckpointStore, open_store
from holdfast.errors import FormatError
from holdfast.keras import KerasState, archive, formats, variables
from holdfast.keras.loading import load_model
from tests.hostile.watched import Canary

#: More than a small file may unpack to.
_ZEROS = bytes(24 * 1024 * 1024)


def new_model() -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return new_model()


@pytest.fixture(scope="module")
def honest(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "m.keras"
    formats.write(model, path)
    return path


def packed(honest: Path, target: Path, members: Mapping[str, bytes]) -> Path:
    """An honest file with other members, or with more of them, compressed."""
    pack = zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with zipfile.ZipFile(honest) as old, pack as new:
        for name in dict.fromkeys([*old.namelist(), *members]):
            new.writestr(name, members[name] if name in members else old.read(name))
    return target


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5", "assets/x"])
def test_a_bomb_is_refused_before_there_is_room_made_for_it(
    name: str, honest: Path, store: CheckpointStore, tmp_path: Path, model: Any
) -> None:
    bomb = packed(honest, tmp_path / "m.keras", {name: _ZEROS})
    store.save(bomb, step=1)

    for load in (lambda: load_model(store), lambda: formats.read(model, bomb)):
        with pytest.raises(FormatError, match=r"would unpack to .* Nothing was loaded"):
            load()


def test_without_the_look_a_bomb_goes_off(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = packed(honest, tmp_path / "m.keras", {"config.json": _ZEROS})
    monkeypatch.setattr(archive, "check", lambda path: None)

    with pytest.raises(FormatError, match="Keras cannot load") as told:
        formats.read_whole(bomb, None, compile=True, safe_mode=True)

    assert "unpack" not in str(told.value)


def test_an_honest_file_may_be_compressed(
    honest: Path, store: CheckpointStore, model: Any, tmp_path: Path
) -> None:
    store.save(packed(honest, tmp_path / "m.keras", {}), step=1)

    loaded = load_model(store)

    kept, came = model.get_weights(), loaded.get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(kept, came, strict=True))


@pytest.mark.filterwarnings("ignore:Skipping invalid path")
@pytest.mark.parametrize("name", ["../evil", "assets/../../evil", "/ABS/evil", "a\\..\\..\\evil"])
def test_a_member_that_leads_elsewhere_is_put_nowhere(
    name: str, honest: Path, store: CheckpointStore, tmp_path: Path
) -> None:
    (tmp_path / "abs").mkdir()
    evil = {name.replace("/ABS", str(tmp_path / "abs")): b"evil", "assets/x": b"x"}
    store.save(packed(honest, tmp_path / "m.keras", evil), step=1)

    with Canary(tmp_path / "abs") as canary:
        load_model(store)
        assert canary.touched() == []

    assert not [path for path in tmp_path.rglob("*") if path.name.endswith("evil")]
    assert list(store.workspace.path.iterdir()) == []


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def poisoned(directory: Path, mark: Path) -> Path:
    """What a KerasState saves, with a pickle in the place of the optimizer's first array."""
    KerasState(new_model(), "m.h5").snapshot().write_to(directory)
    path = directory / "training" / "optimizer.npz"
    with zipfile.ZipFile(path) as old:
        arrays = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for number, (name, data) in enumerate(arrays.items()):
            with new.open(name, "w") as member:
                if number:
                    member.write(data)
                else:
                    np.save(member, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    return directory


def test_a_pickle_among_the_arrays_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    mark = tmp_path / "mark"
    kept = poisoned(tmp_path / "kept", mark)

    with pytest.raises(FormatError, match="cannot be read"):
        KerasState(new_model()).restore(kept)

    assert not mark.exists()


def test_a_pickle_that_is_run_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_array(opened: zipfile.ZipFile, name: str, expected: object) -> Any:
        with opened.open(name) as file:
            return np.lib.format.read_array(file, allow_pickle=True)

    (tmp_path / "kept").mkdir()
    mark = tmp_path / "mark"
    kept = poisoned(tmp_path / "kept", mark)
    monkeypatch.setattr(variables, "_read_array", read_array)

    with contextlib.suppress(Exception):  # it gives no array, and has run by then
        KerasState(new_model()).restore(kept)

    assert mark.exists()
