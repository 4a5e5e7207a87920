"""Weights in several files with an index, as Keras writes them: how large, and how to trust one."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import record
from holdfast.errors import FormatError

#: GiB in one shard: what Keras takes where nobody says (keras/src/saving/saving_lib.py,
#: ShardedH5IOStore).
MAX_SIZE = 5.0

_GIB = 1024**3
#: Bytes that an index may have: 100,000 layers take about 15 MiB.
_MAX_BYTES = 64 * 1024 * 1024
_SHARD = re.compile(r"[A-Za-z0-9._\-+=,@]*_\d{5,}\.weights\.h5")


def first(index: str) -> str:
    """The first shard beside an index, which Keras opens whatever the index says."""
    return f"{index.removesuffix('.json').replace('.weights', '')}_00000.weights.h5"


def size_for(model: Any, at_most: float) -> float:
    """
    The size to ask Keras for: it refuses a variable that is larger than a shard.

    Parameters:
        model (keras.Model): the model.
        at_most (float): GiB that the caller wants in one shard.

    Returns:
        float: GiB, enough for the largest variable.
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else [])]
    sizes = (math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in variables)
    return max(at_most, max(sizes, default=0) / _GIB)


def check(index: Path) -> None:
    """
    Make sure that an index names files beside it, and nothing else, before Keras follows it.

    Raises:
        FormatError: the index is no index, names a file elsewhere, or a shard is missing.
    """
    safe = "The model is unchanged. Restore another checkpoint."
    try:
        names = {first(index.name), *_named(index)}
    except (FormatError, OSError) as error:
        raise FormatError(f"the index {index.name} cannot be read: {error}. {safe}") from error
    for name in sorted(names):
        shard = index.with_name(name)
        if shard.is_symlink() or not shard.is_file():
            raise FormatError(f"{index.name} asks for the shard {name}, which is no file. {safe}")


def _named(index: Path) -> Iterator[str]:
    if index.stat().st_size > _MAX_BYTES:
        raise FormatError(f"it has more than {_MAX_BYTES:,} bytes")
    weight_map = record.parse(index.read_bytes(), "it").get("weight_map")
    if not isinstance(weight_map, dict):
        raise FormatError("it has no weight_map")
    for value in weight_map.values():
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not _SHARD.fullmatch(name):
                raise FormatError(f"{name!r} is no name of a shard")
            yield name
