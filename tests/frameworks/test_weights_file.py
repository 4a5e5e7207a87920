"""What is written from a snapshot is what Keras itself would have written at that moment."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras.src.saving import saving_lib

from holdfast.keras import KerasState, archive, hdf5, recording
from holdfast.keras.training_state import PATH
from holdfast.keras.values import Held
from tests import share
from tests.frameworks.kinds import KINDS, MORE, Own, fresh, trained
from tests.frameworks.runs import same, values

VARIABLES = "model.weights.h5"
_FIRST, _EACH = share.turn(2, 2)
TURN = [*KINDS, *MORE][_FIRST - 1 :: _EACH]


@pytest.fixture(scope="module", params=TURN)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of Keras and of ours that show the same moment, and the record of that moment."""
    place = tmp_path_factory.mktemp("written")
    model = trained(request.param)
    model.save(place / "theirs.keras")
    model.save_weights(place / "theirs.weights.h5")
    snapshots = [KerasState(model, f"ours{suffix}").snapshot() for suffix in SUFFIXES]
    record = recording.record(model, with_assets=False)
    for variable in [*model.variables, *model.optimizer.variables]:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    for layer in model.layers:
        if isinstance(layer, Own):
            layer.table[:] = -1
    for suffix, snapshot in zip(SUFFIXES, snapshots, strict=True):
        (place / suffix).mkdir()
        hashes = snapshot.write_to(place / suffix)
        data = (place / suffix / f"ours{suffix}").read_bytes()
        assert hashes[f"ours{suffix}"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
    store = saving_lib.H5IOStore(place / "replayed.weights.h5", mode="w")
    hdf5.replay(record, store)
    store.close()
    return place


SUFFIXES = (".keras", ".weights.h5")


def tree(file: Any) -> dict[str, Any]:
    """All that a file of HDF5 says: groups, names, types, values."""
    found: dict[str, Any] = {}

    def look(name: str, each: Any) -> None:
        found[name] = {key: (str(value), type(value)) for key, value in each.attrs.items()}
        if isinstance(each, h5py.Dataset):
            type_ = each.id.get_type()
            found[name] |= {"type": (type_.get_class(), type_.get_size(), str(each.dtype))}
            found[name] |= {"value": (each.shape, each[()].tobytes())}

    with h5py.File(file, "r") as opened:
        opened.visititems(look)
    return found


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def test_a_file_of_the_whole_model_says_what_keras_says(written: Path) -> None:
    ours, theirs = members(written / ".keras" / "ours.keras"), members(written / "theirs.keras")

    assert ours.keys() == theirs.keys()
    assert tree(io.BytesIO(ours.pop(VARIABLES))) == tree(io.BytesIO(theirs.pop(VARIABLES)))
    for name in ours.keys() - {"metadata.json"}:  # which has the time
        assert ours[name] == theirs[name], name


def test_a_weights_file_says_what_keras_says(written: Path) -> None:
    ours = tree(written / ".weights.h5" / "ours.weights.h5")

    assert ours == tree(written / "theirs.weights.h5")


def test_what_is_replayed_has_the_bytes_of_keras(written: Path) -> None:
    replayed = (written / "replayed.weights.h5").read_bytes()

    assert replayed == (written / "theirs.weights.h5").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_array_lies_where_it_is_said_to_lie(suffix: str, written: Path) -> None:
    data = (written / suffix / f"ours{suffix}").read_bytes()
    state = json.loads((written / suffix / PATH).read_text())
    source = members(written / "theirs.keras")[VARIABLES]

    with h5py.File(io.BytesIO(source), "r") as theirs:
        for path, kind, shape, offset in state["placed"]:
            value = theirs[path][()]
            assert value.shape == tuple(shape)
            assert np.dtype(kind).itemsize == value.dtype.itemsize
            assert data[offset : offset + value.nbytes] == value.tobytes()


def test_a_large_file_is_told_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, restored = trained("sequential"), fresh("sequential")
    (tmp_path / "small").mkdir()
    KerasState(model).snapshot().write_to(tmp_path / "small")

    monkeypatch.setattr(archive, "_LARGE_BYTES", 1)
    KerasState(model).snapshot().write_to(tmp_path)

    small, large = members(tmp_path / "small/model.keras"), members(tmp_path / "model.keras")
    assert small[VARIABLES] == large[VARIABLES]
    # Beside the two sizes of eight bytes in its header it has two in what follows the content.
    sizes = [
        path.stat().st_size for path in (tmp_path / "small/model.keras", tmp_path / "model.keras")
    ]
    assert sizes[1] - sizes[0] == 20 + 8
    KerasState(restored).restore(tmp_path)
    assert same(values(restored), values(model))
    restored.load_weights(tmp_path / "model.keras")
    assert same(values(restored), values(model))


def test_a_type_that_lies_otherwise_in_the_file_is_left_to_keras(tmp_path: Path) -> None:
    long = np.arange(4, dtype=np.longdouble)  # which has bytes in memory that say nothing
    odd = np.zeros(2, [("number", "i4"), ("text", "S3")])
    entries = (recording.Entry("part", {"name": "part"}, {"long": long, "odd": odd}),)
    record = recording.Record(entries, Held([long, odd]), {})
    written = bytearray()

    placed = hdf5.write(record, written.extend, scratch=tmp_path)

    with h5py.File(io.BytesIO(bytes(written)), "r") as file:
        assert np.array_equal(file["part/vars/long"][()], long)
    assert placed == () or len(placed) == 2
    assert list(tmp_path.iterdir()) == []
