"""Values as JSON with arrays beside it: back to the same bits, and nothing else is taken."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from holdfast.errors import FormatError, InvalidInputError
from holdfast.keras import KerasState, packing
from tests.frameworks.runs import same, set_all, values

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([2**53 - 1, 2**53, -(2**70), 5e-324, -0.0, "~", "is"])
)
ARRAYS = arrays.arrays(
    arrays.scalar_dtypes() | arrays.unicode_string_dtypes() | arrays.byte_string_dtypes(),
    arrays.array_shapes(min_dims=0, min_side=0, max_side=3),
)
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.just("~")


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3)


def bits(value: Any) -> Any:
    """Something that == compares by type and bits."""
    if isinstance(value, np.ndarray | np.generic):
        return type(value), value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return dict, [(bits(key), bits(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [bits(each) for each in value]
    return type(value), value.hex() if isinstance(value, float) else value


@settings(max_examples=200, deadline=None)
@given(st.recursive(PLAIN | ARRAYS, nested, max_leaves=8))
def test_every_value_comes_back_to_the_same_bits(value: Any) -> None:
    packed = packing.pack(value, "it")
    text = json.dumps(packed.json, allow_nan=False)

    assert bits(packing.unpack(json.loads(text), packed.arrays)) == bits(value)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8, np.bool_])
def test_a_number_of_numpy_stays_one(kind: Any) -> None:
    packed = packing.pack({"loss": kind(1)}, "it")

    back = packing.unpack(packed.json, packed.arrays)["loss"]

    assert type(back) is kind
    assert back == 1


def test_tensors_and_variables_come_back_as_arrays() -> None:
    given = [keras.Variable([1.0, 2.0], dtype="bfloat16"), keras.ops.ones((2,), "int64")]
    packed = packing.pack(given, "it")

    back = packing.unpack(packed.json, packed.arrays)

    assert [(each.dtype.name, each.tolist()) for each in back] == [
        ("bfloat16", [1, 2]),
        ("int64", [1, 1]),
    ]


def test_lists_are_copied() -> None:
    value: dict[str, list[Any]] = {"loss": [[1.0]]}
    packed = packing.pack(value, "it")

    value["loss"][0].append(2.0)

    assert packing.unpack(packed.json, ()) == {"loss": [[1.0]]}


STRANGE: dict[str, tuple[Any, str]] = {
    "a function": ({"a": {"b": len}}, r"it\.a\.b is of the type builtin_function_or_method"),
    "a set": ([{1}], "it is of the type set"),
    "bytes": ({"raw": b"x"}, r"it\.raw is of the type bytes"),
    "a complex number": (1j, "it is of the type complex"),
    "an array of objects": ({"all": np.array([{}])}, r"it\.all is of the type ndarray"),
}


@pytest.mark.parametrize(("value", "message"), STRANGE.values(), ids=STRANGE)
def test_what_has_no_plain_form_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{message}, which has no plain form"):
        packing.pack(value, "it")


@pytest.fixture
def kept(tmp_path: Path, model: Any) -> Path:
    directory = tmp_path / "kept"
    directory.mkdir()
    KerasState(model, "m.weights.h5").snapshot().write_to(directory)
    return directory


Edit = Callable[[dict[str, Any]], object]
HOSTILE: dict[str, Edit] = {
    "no rest": lambda rest: rest.clear(),
    "a rest of another type": lambda rest: rest.update(random=3, run=3),
    "an unknown mark": lambda rest: rest.update(random={"~": "pickle", "is": "x"}),
    "a mark that is no text": lambda rest: rest.update(random={"~": [], "is": "x"}),
    "a mark without a value": lambda rest: rest.update(random={"~": "array"}),
    "an array that is not there": lambda rest: rest["random"].update(x={"~": "array", "is": 999}),
    "an array by name": lambda rest: rest["random"].update(x={"~": "array", "is": "0"}),
    "a hook that is none": lambda rest: rest.update(run={**RUN, "hook": "__del__"}),
    "logs that are none": lambda rest: rest.update(run={**RUN, "logs": 3}),
    "a callback without a state": lambda rest: rest.update(run={**RUN, "callbacks": {"A": 1}}),
    "an endless number": lambda rest: rest.update(x={"~": "int", "is": "z"}),
    "keys that cannot be": lambda rest: rest.update(x={"~": "dict", "is": [[[], 1]]}),
}
RUN = {
    "hook": "on_epoch_end",
    "number": 0,
    "logs": {},
    "callbacks": {},
    "metrics": {},
    "began": None,
}


@pytest.mark.parametrize("edit", HOSTILE.values(), ids=HOSTILE)
def test_what_was_not_packed_by_us_is_refused(edit: Edit, kept: Path, model: Any) -> None:
    path = kept / "training" / "state.json"
    members = json.loads(path.read_text())
    edit(members["rest"])
    path.write_text(json.dumps(members))
    set_all(model, 3)
    before = values(model)

    with pytest.raises(FormatError, match=r"(is|are) not valid") as error:
        KerasState(model).restore(kept)

    assert ("The model is unchanged" in str(error.value)) == same(values(model), before)


def test_a_float_that_is_none_is_kept_as_text() -> None:
    packed = packing.pack([math.nan, math.inf], "it")

    assert packed.json == [{"~": "float", "is": "nan"}, {"~": "float", "is": "inf"}]
