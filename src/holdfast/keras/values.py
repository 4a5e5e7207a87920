"""The values of variables, held and handed over without copying them where the framework can."""

import contextlib
import importlib
import math
import threading
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np

#: What frameworks ask of the address of memory that they take over, in bytes: TensorFlow's is
#: EIGEN_MAX_ALIGN_BYTES.
_ALIGNMENT = 64

#: Bytes that small arrays share. It is free again when the last of them is, so it is not much.
_SHARED_BYTES = 16 * 1024 * 1024

Array = np.ndarray[Any, Any]


class Held:
    """
    Values as they were at one moment: later training steps do not show in them.

    On TensorFlow a variable's memory is held, and the next step that changes the variable copies
    it first. What lies on another device is copied to the host. JAX's arrays never change; an array
    over one's memory keeps it from being given to the next step. On PyTorch they are copied.

    Parameters:
        values (Sequence[Any]): Keras variables, tensors, arrays or numbers.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self._sources = values
        self._values = _hold(values)
        self._copying: threading.Thread | None = None

    def detach(self, *, beside: bool) -> None:
        """
        Copy them, so that training need not.

        A step of TensorFlow copies what is held, and one of JAX takes new memory in its place. Both
        pay for every small page of that memory, which takes several times as long as a copy.

        Parameters:
            beside (bool): in a thread of its own. Each value is let go of as soon as it is copied,
                so a step copies no more than what is left where it comes to it.
        """
        if beside and self._values:
            copying = threading.Thread(target=self._copy, name="holdfast copying", daemon=True)
            with contextlib.suppress(RuntimeError):  # while the interpreter ends no thread starts
                copying.start()
                self._copying = copying
                return
        self._copy()

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The values, in their order, not to be changed; waits until none is being copied."""
        if self._copying is not None:
            self._copying.join()
        return tuple(_array(each) for each in self._values)

    def _copy(self) -> None:
        views = [_array(held) for held in self._values]
        numbers = [number for number, view in enumerate(views) if not view.dtype.hasobject]
        kinds = [(views[number].shape, views[number].dtype) for number in numbers]
        del views
        with contextlib.suppress(MemoryError):  # then the step has to copy what is left
            for number, room in zip(numbers, rooms(kinds), strict=True):
                if _is_borrowed(self._sources[number], self._values[number]):
                    np.copyto(room, _array(self._values[number]))
                    self._values[number] = room


def rooms(kinds: Iterable[tuple[Sequence[int], Any]]) -> list[Array]:
    """
    Arrays for values that are yet to come, in memory that `assign` can hand over.

    Small ones share pieces of memory, which NumPy asks of the system in huge pages: a page takes
    longer to get than its bytes take to be filled.

    Parameters:
        kinds (Iterable[tuple[Sequence[int], Any]]): the shape and the type of each.
    """
    made: list[Array] = []
    memory, at = np.empty(0, np.uint8), 0
    for shape, dtype in kinds:
        kind = np.dtype(dtype)
        count = kind.itemsize * math.prod(shape)
        if at + count > memory.nbytes:
            memory = np.empty(max(count, _SHARED_BYTES) + _ALIGNMENT, np.uint8)
            at = -memory.ctypes.data % _ALIGNMENT
        made.append(memory[at : at + count].view(kind).reshape(tuple(shape)))
        at += -(-count // _ALIGNMENT) * _ALIGNMENT
    return made


def assign(variables: Sequence[Any], arrays: Sequence[Array]) -> None:
    """
    Give variables their values.

    Parameters:
        variables (Sequence[keras.Variable]): of the model and its optimizer.
        arrays (Sequence[numpy.ndarray]): from `rooms`, of the same types and shapes; they belong to
            the variables afterwards.
    """
    if keras.backend.backend() == "tensorflow":
        _tensorflow().assign(variables, arrays)
        return
    for variable, value in zip(variables, arrays, strict=True):
        variable.assign(value)


def _hold(values: Sequence[Any]) -> list[Any]:
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


def _array(held: Any) -> Array:
    """What is held as an array, which is not to be changed."""
    # TensorFlow gives no array for a single bfloat16 or float8, unless it is asked for its copy.
    return np.asarray(held if np.ndim(held) or isinstance(held, np.ndarray) else held.numpy())


def _is_borrowed(source: Any, held: Any) -> bool:
    """Whether what is held is memory that the variable has now, and a step could change."""
    backend = keras.backend.backend()
    if backend == "tensorflow" and not isinstance(held, np.ndarray):
        shares: bool = _tensorflow().shares(source, held)
        return shares
    if backend == "jax" and isinstance(source, keras.Variable):
        return [device.platform for device in source.value.devices()] == ["cpu"]
    return False


def _tensorflow() -> ModuleType:
    return importlib.import_module("holdfast.keras.values_tensorflow")
