"""The values of variables, held and handed over without copying them where the framework can."""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np

#: What frameworks ask of the address of memory that they take over, in bytes: TensorFlow's is
#: EIGEN_MAX_ALIGN_BYTES.
_ALIGNMENT = 64

Array = np.ndarray[Any, Any]


def hold(values: Sequence[Any]) -> list[Any]:
    """
    Take values so that later training steps do not show in them.

    On TensorFlow a variable's memory is held, and the next step that changes the variable copies
    it first. What lies on another device is copied to the host. JAX's arrays never change; an array
    over one's memory keeps it from being given to the next step. On PyTorch they are copied.

    Parameters:
        values (Sequence[Any]): Keras variables, tensors, arrays or numbers.

    Returns:
        list[Any]: what `array` takes, in the same order.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        held: list[Any] = _tensorflow().hold(values)
        return held
    # Of what is neither a variable nor a tensor nobody knows who else changes it.
    return [
        np.asarray(value.value)
        if backend == "jax" and isinstance(value, keras.Variable)
        else np.array(keras.ops.convert_to_numpy(value))
        for value in values
    ]


def array(held: Any) -> Array:
    """What is held as an array, which is not to be changed."""
    return np.asarray(held)


def room(shape: Sequence[int], dtype: Any) -> Array:
    """An array for values that are yet to be read, in memory that `assign` can hand over."""
    kind = np.dtype(dtype)
    count = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    memory = np.empty(count + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    made: Array = memory[start : start + count].view(kind).reshape(tuple(shape))
    return made


def assign(variables: Sequence[Any], arrays: Sequence[Array]) -> None:
    """
    Give variables their values.

    Parameters:
        variables (Sequence[keras.Variable]): of the model and its optimizer.
        arrays (Sequence[numpy.ndarray]): from `room`, of the same types and shapes; they belong to
            the variables afterwards.
    """
    if keras.backend.backend() == "tensorflow":
        _tensorflow().assign(variables, arrays)
        return
    for variable, value in zip(variables, arrays, strict=True):
        variable.assign(value)


def _tensorflow() -> ModuleType:
    return importlib.import_module("holdfast.keras.values_tensorflow")
