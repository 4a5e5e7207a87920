"""Arrays brought from their places in a model's file straight into the variables of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from holdfast.errors import FormatError, InvalidInputError
from holdfast.keras import recording, values
from holdfast.keras.hdf5 import Placed
from holdfast.state import Contents


def load(model: Any, file: str, placed: Sequence[Placed], contents: Contents) -> bool:
    """
    Give a model's variables their values, from one pass over the file, which is hashed in it.

    Nothing is assigned before all was read and found to be as it was saved.

    Parameters:
        model (keras.Model): built, and compiled as it was; its weights were found to match.
        file (str): the model's file.
        placed (Sequence[Placed]): where the arrays lie in it.
        contents (Contents): the checkpoint's files.

    Returns:
        bool: False where Keras has to load the file: the places are not known, or a part of the
            model does more than assign values when it is loaded. Nothing was assigned then.

    Raises:
        FormatError: an array does not lie in the file.
        CorruptionError, NotFoundError, StorageError: as `Contents`.
    """
    loads = getattr(model.load_weights, "__func__", None)
    if not placed or loads is not keras.Model.load_weights:
        return False
    targets = _targets(model)
    if targets is None or not _fit(targets, placed):
        return False
    arrays = values.rooms((each.shape, each.dtype) for each in placed)
    pairs = zip(placed, arrays, strict=True)
    into = [(each.offset, _memory(array)) for each, array in pairs if array.nbytes]
    try:
        contents.read_into(file, into)
    except InvalidInputError:
        raise  # it is a ValueError, too
    except (FileNotFoundError, EOFError, ValueError) as error:
        raise FormatError(
            f"cannot load {file}, since it does not hold what is said of it: {error}. The "
            "checkpoint is untouched, and the model is unchanged. Restore another checkpoint."
        ) from error
    values.assign([targets[each.path] for each in placed], arrays)
    return True


def _targets(model: Any) -> Mapping[str, Any] | None:
    try:
        return recording.variables(model)
    except Exception:  # noqa: BLE001 - this Keras does it otherwise, and so it loads the file itself
        return None


def _fit(targets: Mapping[str, Any], placed: Sequence[Placed]) -> bool:
    """Whether each array has its variable, and each variable its array."""
    is_whole = len(targets) == len(placed) and {each.path for each in placed} == targets.keys()
    return is_whole and all(
        str(targets[each.path].dtype) == each.dtype
        and tuple(targets[each.path].shape) == each.shape
        for each in placed
    )


def _memory(array: np.ndarray[Any, Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)
