"""Plain values as strict JSON, with their arrays beside it, and back to the same bits."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from holdfast import record
from holdfast.errors import InvalidInputError
from holdfast.keras.values import Held

#: The key that marks an object of ours among the JSON objects that stand for themselves.
_MARK = "~"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Packed:
    """
    A value as JSON, and the arrays that it speaks of.

    Attributes:
        json (Any): what `json.dumps` takes; an array in it is the number of its place.
        arrays (tuple[numpy.ndarray, ...]): the arrays.
    """

    json: Any
    arrays: tuple[Array, ...]


def pack(value: Any, what: str) -> Packed:
    """
    Write a value as JSON.

    Taken are None, booleans, numbers, texts, lists, tuples, dictionaries, NumPy's arrays and
    numbers, and the tensors and variables of Keras. Objects of other types have no plain form, and
    nothing is pickled: reading a pickle runs code. Lists and dictionaries are copied, arrays held.

    Parameters:
        value (Any): the value.
        what (str): how to speak of it in an error, which adds the keys that lead to the culprit.

    Raises:
        InvalidInputError: something in it is of another type.
    """
    arrays: list[Array] = []
    return Packed(_packed(value, what, arrays), tuple(arrays))


def only_plain(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The logs without what `pack` would not take: another callback may add anything to them."""
    return {name: value for name, value in logs.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    try:
        pack(value, "it")
    except InvalidInputError:
        return False
    return True


def unpack(json: Any, arrays: Sequence[Array]) -> Any:
    """
    Read a value back.

    Raises:
        TypeError, ValueError, LookupError: it was not written by `pack`.
    """
    if isinstance(json, list):
        return [unpack(each, arrays) for each in json]
    if not isinstance(json, dict):
        return json
    if _MARK not in json:
        return {key: unpack(each, arrays) for key, each in json.items()}
    read = _READERS[json[_MARK]]
    return read(json["is"], arrays)


def _packed(value: Any, what: str, arrays: list[Array]) -> Any:
    if keras.ops.is_tensor(value) or isinstance(value, keras.Variable):
        value = Held([value]).arrays[0]
    # NumPy's float64 is a float as well, and comes back as what it was.
    if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
        arrays.append(np.asarray(value))
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return _marked(kind, len(arrays) - 1)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= record.MAX_INTEGER else _marked("int", hex(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else _marked("float", repr(value))
    if isinstance(value, list):
        return [_packed(each, what, arrays) for each in value]
    if isinstance(value, tuple):
        return _marked("tuple", [_packed(each, what, arrays) for each in value])
    if isinstance(value, Mapping):
        if _MARK not in value and all(isinstance(key, str) for key in value):
            return {key: _packed(each, f"{what}.{key}", arrays) for key, each in value.items()}
        pairs = [[_packed(part, what, arrays) for part in pair] for pair in value.items()]
        return _marked("dict", pairs)
    raise InvalidInputError(
        f"{what} is of the type {type(value).__name__}, which has no plain form. It was not saved, "
        "and what was saved before is untouched. Keep numbers, texts, lists, dictionaries and "
        "NumPy arrays."
    )


def _marked(kind: str, value: Any) -> dict[str, Any]:
    return {_MARK: kind, "is": value}


_READERS: dict[str, Callable[[Any, Sequence[Array]], Any]] = {
    "array": lambda at, arrays: arrays[at],
    "scalar": lambda at, arrays: arrays[at][()],
    "int": lambda text, _: int(text, 16),
    "float": lambda text, _: float(text),
    "tuple": lambda items, arrays: tuple(unpack(each, arrays) for each in items),
    "dict": lambda pairs, arrays: {
        unpack(key, arrays): unpack(each, arrays) for key, each in pairs
    },
}
