"""The values of TensorFlow's variables; imported where Keras runs on TensorFlow."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable


def hold(values: Sequence[Any]) -> list[Any]:
    """Hold values, as `holdfast.keras.values.Held`."""
    held: list[Any] = [None] * len(values)
    plain = [number for number, value in enumerate(values) if _is_plain(value)]
    tensors = _read([values[number]._value for number in plain])  # noqa: SLF001
    for number, tensor in zip(plain, tensors, strict=True):
        held[number] = tensor
    for number, value in enumerate(values):
        if held[number] is None:
            held[number] = _taken(value)
    return held


def shares(source: Any, held: Any) -> bool:
    """Whether a variable has the memory of a tensor that is held; of others nobody knows."""
    if not _is_plain(source):
        return True
    (now,) = _read([source._value])  # noqa: SLF001
    return _address(now) == _address(held)


def assign(variables: Sequence[Any], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """As `holdfast.keras.values.assign`."""
    for variable, array in zip(variables, arrays, strict=True):
        if _is_plain(variable) and array.dtype.isbuiltin == 1 and array.nbytes:
            # By the op itself: `assign` would copy twice, once of them to make a tensor.
            tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
            tf.raw_ops.AssignVariableOp(
                resource=variable._value.handle,  # noqa: SLF001
                value=tensor,
            )
        else:
            variable.assign(array)


def _is_plain(value: Any) -> bool:
    """Whether it is a variable of one device, and that device is the processor."""
    # By its inner name: `value` may give it cast to another type.
    inner = getattr(value, "_value", None) if isinstance(value, keras.Variable) else None
    return isinstance(inner, BaseResourceVariable) and "CPU" in inner.device


def _read(variables: Sequence[Any]) -> list[Any]:
    """
    Tensors over the variables' memory, which is copied when a step is about to change it.

    One op reads them all where TensorFlow has it: it is its own, and made for reads that it joins.
    """
    if not variables:
        return []
    handles = [variable.handle for variable in variables]
    types = [variable.dtype.base_dtype for variable in variables]
    count = len(handles)
    numbers = [each.as_datatype_enum for each in types]
    try:
        return list(
            execute.execute(
                b"_ReadVariablesOp",
                count,
                inputs=handles,
                attrs=("N", count, "dtypes", numbers),
                ctx=context.context(),
            )
        )
    except tf.errors.OpError:  # it is gone
        pairs = zip(handles, types, strict=True)
        return [tf.raw_ops.ReadVariableOp(resource=handle, dtype=kind) for handle, kind in pairs]


def _address(tensor: Any) -> int:
    return int(np.asarray(tensor).__array_interface__["data"][0]) if tensor.shape.rank else 0


def _taken(value: Any) -> Any:
    if not isinstance(value, keras.Variable) and not tf.is_tensor(value):
        return np.array(value)
    tensor = tf.convert_to_tensor(value._value if isinstance(value, keras.Variable) else value)  # noqa: SLF001
    return tensor if "CPU" in tensor.device else tensor.numpy()
