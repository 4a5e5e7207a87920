"""The training part of a checkpoint that is not what we wrote: an error, and nothing is changed."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast.errors import CheckpointWarning, FormatError, InvalidInputError
from holdfast.keras import KerasState, variables
from holdfast.keras.variables import Described
from tests.frameworks.runs import new_model, quiet, same, set_all, values


@pytest.fixture
def kept(tmp_path: Path, model: Any) -> Path:
    """The files of a checkpoint in the older format, and the model has other values since."""
    directory = tmp_path / "kept"
    directory.mkdir()
    KerasState(model, "m.h5").snapshot().write_to(directory)
    set_all(model, 3)
    return directory


def rewrite(kept: Path, **more: Any) -> None:
    path = kept / "training" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


WRONG: dict[str, dict[str, Any]] = {
    "a path that leads elsewhere": {"file": "../m.h5"},
    "an unknown suffix": {"file": "m.pkl"},
    "a negative count": {"step": -1},
    "a truth for a number": {"epoch": True},
    "no variables": {"weights": 3},
    "a variable without a type": {"weights": [["kernel", None, [1]]]},
    "seeds that are no numbers": {"seeds": [["seed", "int64", [2], ["x", "y"]]]},
    "no format": {"format": None},
}


@pytest.mark.parametrize("more", WRONG.values(), ids=WRONG)
def test_a_training_part_that_is_not_valid_is_refused(
    more: dict[str, Any], kept: Path, model: Any
) -> None:
    before = values(model)
    rewrite(kept, **more)

    with pytest.raises(FormatError, match="is not valid"):
        KerasState(model).restore(kept)

    assert same(values(model), before)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '{"format": 1e999}']
)
def test_a_training_part_that_is_no_json_is_refused(text: str, kept: Path, model: Any) -> None:
    (kept / "training" / "state.json").write_text(text)

    with pytest.raises(FormatError, match="is not valid"):
        KerasState(model).restore(kept)


def test_a_newer_training_part_asks_for_an_upgrade(kept: Path, model: Any) -> None:
    rewrite(kept, format=99)

    with pytest.raises(FormatError, match="Upgrade holdfast") as error:
        KerasState(model).restore(kept)

    assert error.value.newer


def test_another_version_of_keras_is_named_where_something_does_not_fit(
    kept: Path, model: Any
) -> None:
    rewrite(kept, keras="3.99")
    KerasState(model).restore(kept)  # a version is no reason to refuse
    told = rf"written by Keras 3\.99 on tensorflow, and this is Keras {keras.__version__} on tensor"

    with pytest.raises(InvalidInputError, match=rf"float32\[4, 2\] here.*{told}.*resume it there"):
        KerasState(new_model(units=2)).restore(kept)
    (kept / "m.h5").write_bytes(b"")
    with pytest.raises(FormatError, match=rf"Keras cannot load m\.h5.*{told}"):
        KerasState(model).restore(kept)


def test_another_backend_of_keras_is_told(kept: Path, model: Any) -> None:
    rewrite(kept, backend="jax")
    before = values(model)

    with pytest.warns(CheckpointWarning, match=r"on jax, and this is .*KERAS_BACKEND=jax"):
        KerasState(model).restore(kept)

    assert not same(values(model), before)


def pickled(shape: Any, dtype: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}] * 3, dtype=object), allow_pickle=True)
    return file.getvalue()


def enormous(shape: Any, dtype: Any) -> bytes:
    file = io.BytesIO()
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def cut(shape: Any, dtype: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    return file.getvalue()[:-1]


@pytest.mark.parametrize("make", [pickled, enormous, cut])
def test_an_optimizer_that_is_hostile_is_refused(
    make: Callable[[Any, Any], bytes], kept: Path, model: Any
) -> None:
    before = values(model)
    with zipfile.ZipFile(kept / "training" / "optimizer.npz", "w") as archive:
        for number, variable in enumerate(model.optimizer.variables):
            archive.writestr(f"{number}.npy", make(tuple(variable.shape), variable.dtype))

    with pytest.raises(FormatError, match=r"optimizer\.npz cannot be read"):
        KerasState(model).restore(kept)

    assert same(values(model), before)


def test_a_missing_file_is_an_error(kept: Path, model: Any) -> None:
    (kept / "m.h5").unlink()

    with pytest.raises(FormatError, match=r"Keras cannot load m\.h5"):
        KerasState(model).restore(kept)


def test_what_keras_would_skip_is_an_error(kept: Path, model: Any, tmp_path: Path) -> None:
    other = new_model(optimizer="sgd")
    other.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.weights.h5").rename(kept / "m.weights.h5")
    rewrite(kept, file="m.weights.h5")

    with quiet(), pytest.raises(FormatError, match="Skipping variable loading for optimizer"):
        KerasState(model).restore(kept)


def test_an_array_of_a_type_that_is_none_is_refused() -> None:
    with pytest.raises(FormatError, match=r"cannot be read: .*float99"):
        variables.most_bytes([Described("array 0", "float99", (2,))])
