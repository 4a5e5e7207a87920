"""What `training/state.json` says: a model described, and what is kept beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras

from holdfast import record
from holdfast.errors import FormatError
from holdfast.keras import formats, variables
from holdfast.keras.hdf5 import Placed
from holdfast.keras.packing import Packed
from holdfast.keras.progress import Position
from holdfast.keras.variables import Described, describe

#: The format of the training part that this version writes, and the newest that it reads.
FORMAT = 2

#: Where it lies in a checkpoint.
PATH = "training/state.json"


@dataclass(frozen=True)
class TrainingState:
    """
    What `training/state.json` says.

    Attributes:
        file (str): the model's file in the checkpoint.
        position (Position): where the training stood.
        weights (tuple[Described, ...]): the model's weights, without their values.
        optimizer (tuple[Described, ...] | None): its optimizer's variables; None without one.
        optimizer_class (str | None): what the optimizer is.
        iterations (int | None): the steps that the optimizer has taken.
        seeds (tuple[tuple[Described, tuple[int, ...]], ...]): the seed generators' states.
        rest (Packed): what was kept beside the model, without its arrays: under `random` the
            random states of the process, under `run` what belongs to a `fit`.
        arrays (tuple[Described, ...]): the arrays of the rest, without their values.
        keras, backend (str): what wrote it.
        placed (tuple[Placed, ...]): where the arrays lie in the model's file; empty where that is
            not known.
    """

    file: str
    position: Position
    weights: tuple[Described, ...]
    optimizer: tuple[Described, ...] | None
    optimizer_class: str | None
    iterations: int | None
    seeds: tuple[tuple[Described, tuple[int, ...]], ...]
    altered: tuple[int, ...]
    rest: Any
    arrays: tuple[Described, ...]
    keras: str
    backend: str
    placed: tuple[Placed, ...] = ()

    @classmethod
    def of(cls, model: Any, file: str, position: Position, rest: Packed) -> "TrainingState":
        """Take what changes while a built model trains; `described` adds what does not."""
        optimizer = getattr(model, "optimizer", None)
        states = variables.seed_states(model)
        values = [tuple(int(number) for number in state.numpy().ravel()) for state in states]
        return cls(
            file=file,
            position=position,
            weights=(),
            optimizer=() if optimizer is not None else None,
            optimizer_class=type(optimizer).__name__ if optimizer is not None else None,
            iterations=int(optimizer.iterations.numpy()) if optimizer is not None else None,
            seeds=tuple(zip(describe(states), values, strict=True)),
            altered=tuple(variables.altered(model)),
            rest=rest.json,
            arrays=tuple(
                Described(f"array {number}", str(array.dtype), array.shape)
                for number, array in enumerate(rest.arrays)
            ),
            keras=keras.__version__,
            backend=keras.backend.backend(),
        )

    def described(
        self, weights: Sequence[Any], optimizer: Sequence[Any], placed: Sequence[Placed]
    ) -> "TrainingState":
        """
        Add what the variables are; that may be done later, on another thread.

        Parameters:
            weights (Sequence[keras.Variable]): of the model.
            optimizer (Sequence[keras.Variable]): of its optimizer, if it has one.
            placed (Sequence[Placed]): where the arrays lie in the model's file.
        """
        return replace(
            self,
            weights=describe(weights),
            optimizer=None if self.optimizer is None else describe(optimizer),
            placed=tuple(placed),
        )


def encode(state: TrainingState) -> bytes:
    """Write it as JSON, a line for each member."""
    members = {
        "format": FORMAT,
        "file": state.file,
        **asdict(state.position),
        "keras": state.keras,
        "backend": state.backend,
        "optimizer": state.optimizer_class,
        "iterations": state.iterations,
        # As texts: an integer of 2^53 or more is not the same number in every JSON reader.
        "seeds": [
            [*_row(each), [str(number) for number in values]] for each, values in state.seeds
        ],
        "altered": list(state.altered),
        "weights": [_row(each) for each in state.weights],
        "optimizer_variables": (
            None if state.optimizer is None else [_row(each) for each in state.optimizer]
        ),
        "arrays": [_row(each) for each in state.arrays],
        "rest": state.rest,
        "placed": [[each.path, each.dtype, list(each.shape), each.offset] for each in state.placed],
    }
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in members.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def decode(data: bytes) -> TrainingState:
    """
    Read it back, strictly; the caller has bounded its size.

    Raises:
        FormatError: it is not what `encode` writes, or of a newer format.
    """
    try:
        members = record.parse(data, "it")
        version = _count(members["format"])
        if version <= FORMAT:
            return _state(members)
    except (FormatError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{PATH} is not valid: {error}. The model is unchanged. Restore another checkpoint."
        ) from error
    raise FormatError(
        f"{PATH} is of format {version}; this version of Holdfast reads up to "
        f"{FORMAT}. The model is unchanged. Upgrade holdfast to go on.",
        newer=True,
    )


def _state(members: Mapping[str, Any]) -> TrainingState:
    optimizer, steps_per_epoch = members["optimizer_variables"], members["steps_per_epoch"]
    formats.check_name(members["file"])
    return TrainingState(
        file=members["file"],
        position=Position(
            epoch=_count(members["epoch"]),
            batch=_count(members["batch"]),
            step=_count(members["step"]),
            steps_per_epoch=None if steps_per_epoch is None else _count(steps_per_epoch),
        ),
        weights=tuple(_described(*row) for row in members["weights"]),
        optimizer=None if optimizer is None else tuple(_described(*row) for row in optimizer),
        optimizer_class=None if optimizer is None else str(members["optimizer"]),
        iterations=None if optimizer is None else _count(members["iterations"]),
        altered=tuple(
            _count(number, below=len(members["weights"])) for number in members.get("altered", ())
        ),
        seeds=tuple(
            (_described(*row[:3]), tuple(int(number) for number in row[3]))
            for row in members["seeds"]
        ),
        rest=members.get("rest"),  # before format 2 nothing was kept beside the model
        arrays=tuple(_described(*row) for row in members.get("arrays", ())),
        keras=str(members["keras"]),
        backend=str(members["backend"]),
        placed=tuple(
            Placed(each.path, each.dtype, each.shape, _count(row[3]))
            for row in members.get("placed", ())
            for each in (_described(*row[:3]),)
        ),
    )


def _row(each: Described) -> list[Any]:
    return [each.path, each.dtype, list(each.shape)]


def _described(path: object, dtype: object, shape: list[object]) -> Described:
    if not isinstance(path, str) or not isinstance(dtype, str):
        raise TypeError(f"{path!r} is no variable's path, or {dtype!r} no type")
    return Described(path, dtype, tuple(_count(size) for size in shape))


def _count(value: object, below: int = record.MAX_INTEGER) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise TypeError(f"{value!r} is no count")
    return value
