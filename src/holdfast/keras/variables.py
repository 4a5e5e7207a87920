"""A model's variables: described, compared before anything is assigned, and kept as arrays."""

import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from holdfast.errors import FormatError

#: Bytes that an array takes in a file beside its values, at the most.
_BESIDE_BYTES = 64 * 1024
#: How many variables an error names before it counts the rest.
_NAMED = 8
#: The number that Keras appends to a name it has given before in this process.
_NUMBER = re.compile(r"_\d+(?=/|_|$)")


@dataclass(frozen=True)
class Described:
    """
    What a variable is, without its value.

    Attributes:
        path (str): its name with those of the layers around it.
        dtype (str): such as `float32`.
        shape (tuple[int, ...]): its dimensions.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.path} {self.dtype}{list(self.shape)}"

    def agrees(self, other: "Described") -> bool:
        """
        Whether both are the same variable of two models that the same code has built.

        Numbers that Keras appends to names count for nothing, since they differ by process, nor
        does an outer name that only one of them has: a model that was loaded gives its layers none.
        """
        if (self.dtype, self.shape) != (other.dtype, other.shape):
            return False
        one, two = _NUMBER.sub("", self.path), _NUMBER.sub("", other.path)
        head, _, rest = one.partition("/")
        if two.startswith(f"{head}/"):  # the optimizer's name stands before that of the model
            one, two = rest, two.removeprefix(f"{head}/")
        short, long = sorted((one, two), key=len)
        return short == long or long.endswith((f"/{short}", f"_{short}"))


def describe(variables: Sequence[Any]) -> tuple[Described, ...]:
    """Describe Keras variables, in their order."""
    return tuple(
        Described(variable.path, str(variable.dtype), tuple(int(size) for size in variable.shape))
        for variable in variables
    )


def seed_states(model: Any) -> list[Any]:
    """The states of a model's seed generators: what dropout draws from. No format keeps them."""
    weights = {id(variable) for variable in model.weights}
    found = {id(variable): variable for variable in model.variables}
    return [variable for key, variable in found.items() if key not in weights]


def altered(model: Any) -> list[int]:
    """
    Which of a model's weights Keras's files do not bring back as they are, by number.

    A layer may write something else than its variables. Those of Keras do while LoRA is enabled:
    the kernel is written with the factors in it, and the factors come back as zeros.
    """
    written: set[int] = set()
    for layer in model._flatten_layers():  # noqa: SLF001 - its layers, whatever they are kept in
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        written.update(id(value) for value in store.values())
    return [number for number, weight in enumerate(model.weights) if id(weight) not in written]


def difference(kept: Sequence[Described], live: Sequence[Described]) -> str | None:
    """How kept variables and those of a model differ; None if each has its match, in order."""
    if len(kept) == len(live):
        pairs = zip(kept, live, strict=True)
        wrong = [f"{one} there, {two} here" for one, two in pairs if not one.agrees(two)]
        return _listed(wrong) if wrong else None
    told = []
    for where, those, others in (("the checkpoint", kept, live), ("the model", live, kept)):
        left = list(others)
        alone = []
        for each in those:
            match = next((other for other in left if each.agrees(other)), None)
            if match is None:
                alone.append(str(each))
            else:
                left.remove(match)
        if alone:
            told.append(f"only in {where}: {_listed(alone)}")
    return "; ".join(told)


def write_arrays(path: Path, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Write arrays into a new file, in their order."""
    with path.open("xb") as file:
        named: dict[str, Any] = {str(number): array for number, array in enumerate(arrays)}
        np.savez(file, **named)


def most_bytes(expected: Sequence[Described]) -> int:
    """
    How many bytes the file of `write_arrays` has at the most.

    Raises:
        FormatError: a description names no type.
    """
    try:
        values = [np.dtype(each.dtype).itemsize * math.prod(each.shape) for each in expected]
    except TypeError as error:
        raise FormatError(f"an array cannot be read: {error}. Nothing was changed.") from error
    return sum(values) + _BESIDE_BYTES * (len(expected) + 1)


def read_arrays(
    file: BinaryIO, name: str, expected: Sequence[Described]
) -> Iterator[np.ndarray[Any, Any]]:
    """
    Read values back, in their order. No pickled object is read, and nothing larger than expected.

    Parameters:
        file (BinaryIO): what `write_arrays` has written.
        name (str): how to speak of it.
        expected (Sequence[Described]): what it has to hold.

    Raises:
        FormatError: the file does not hold the arrays that the descriptions say.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for number, each in enumerate(expected):
                yield _read_array(archive, f"{number}.npy", each)
    except (OSError, LookupError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{name} cannot be read: {error}. Nothing was changed.") from error


def _read_array(archive: zipfile.ZipFile, name: str, expected: Described) -> np.ndarray[Any, Any]:
    with archive.open(name) as file:
        # The header is read first: NumPy makes room for what it declares before it looks further.
        if npy.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is of an unknown version")
        shape, _, dtype = npy.read_array_header_1_0(file)
    wanted = np.dtype(expected.dtype)
    if shape != expected.shape or dtype.hasobject or dtype.itemsize != wanted.itemsize:
        raise ValueError(f"{name} has {dtype}{list(shape)} in the place of {expected}")
    with archive.open(name) as file:
        array = npy.read_array(file, allow_pickle=False)
    # NumPy writes a type of its extensions, such as bfloat16, as plain bytes.
    return array if array.dtype == wanted else array.view(wanted)


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return "; ".join(texts[:_NAMED]) + more
