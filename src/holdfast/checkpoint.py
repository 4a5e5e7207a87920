"""What a checkpoint is: frozen records, the id and its order."""

import math
import operator
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.errors import InvalidInputError

#: The largest step: an id has twelve digits for it.
MAX_STEP = 10**12 - 1

#: The largest session: an id has at most nine digits for it.
MAX_SESSION = 10**9 - 1

#: How many tokens lie between two saves at one step, for further tries at the first of them.
_TRIES = 256

_ID = re.compile(r"(?P<session>[0-9]{4,9})-(?P<step>[0-9]{12})-(?P<token>[0-9a-f]{8})")

#: Two spellings of one metric: Keras writes `accuracy`, older tutorials write `acc`.
_SPELLINGS = {"acc": "accuracy", "accuracy": "acc"}


@dataclass(frozen=True, order=True)
class CheckpointId:
    """
    The name of a checkpoint, which is also its place in the order of training.

    Attributes:
        session (int): the number of the process's series of saves, from 1.
        step (int): the training step, 0 to 10^12 - 1.
        token (str): eight hexadecimal digits that make the id unique.
    """

    session: int
    step: int
    token: str

    def __str__(self) -> str:
        return f"{self.session:04d}-{self.step:012d}-{self.token}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read an id; None for a text that is none, or that is not written as we write it."""
        match = _ID.fullmatch(text)
        if match is None:
            return None
        parsed = cls(int(match["session"]), int(match["step"]), match["token"])
        return parsed if parsed.session > 0 and str(parsed) == text else None


def new_token(after: str | None = None) -> str:
    """
    Draw the eight hexadecimal digits that make an id unique.

    Parameters:
        after (str | None): the result sorts after this one; two drawn after the same token differ
            with a probability of 65,535 in 65,536.

    Raises:
        OverflowError: no token is left after this one. A first token leaves room for 32,000 more.
    """
    if after is None:
        return f"{secrets.randbelow(2**31):08x}"
    number = int(after, 16) + _TRIES + secrets.randbelow(2**16)
    if number >= 2**32 - _TRIES:
        raise OverflowError("no token is left at this step")
    return f"{number:08x}"


def next_try(token: str) -> str:
    """The token for another try at a save: after the last try's, before that of any later save."""
    return f"{int(token, 16) + 1:08x}"


@dataclass(frozen=True)
class File:
    """
    One file of a checkpoint.

    Attributes:
        path (str): where it lies inside the checkpoint, with `/` between the parts.
        size (int): bytes.
        hash (str): its content's hash with the algorithm's name, `sha256:` and 64 digits.
    """

    path: str
    size: int
    hash: str


@dataclass(frozen=True)
class Checkpoint:
    """
    A committed checkpoint, as its manifest describes it; it never changes.

    Attributes:
        id (CheckpointId): its name and its place in the order.
        created_at (datetime): when it was staged, UTC; information only, no order rests on it.
        files (tuple[File, ...]): what it consists of, sorted by path.
        metrics (Mapping[str, float]): finite numbers measured at this step.
        metadata (Mapping[str, str | int | float | bool | None]): what the caller noted.
        writer (str): which process wrote it.
        parent (CheckpointId | None): the checkpoint that its run was resumed from.
        version (str): the version of Holdfast that wrote it.
    """

    id: CheckpointId
    created_at: datetime = field(compare=False)
    files: tuple[File, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)
    writer: str = ""
    parent: CheckpointId | None = None
    version: str = ""

    @property
    def session(self) -> int:
        """The number of the session that saved it."""
        return self.id.session

    @property
    def step(self) -> int:
        """The training step that it belongs to."""
        return self.id.step

    @property
    def size(self) -> int:
        """Bytes of all its files together."""
        return sum(file.size for file in self.files)

    def __getstate__(self) -> dict[str, Any]:
        # Of one that was read these are views, which can be neither pickled nor copied.
        return {**vars(self), "metrics": dict(self.metrics), "metadata": dict(self.metadata)}

    def metric(self, name: str) -> float | None:
        """The metric of this name or of its other spelling; None if missing or not finite."""
        return metric(self.metrics, name)

    def __str__(self) -> str:
        return str(self.id)


def metric(metrics: Mapping[str, float], name: str) -> float | None:
    """
    Look a metric up: `acc` and `accuracy` are one name, with any prefix such as `val_`.

    Returns:
        float | None: None where it is missing, NaN or infinite, so that no such value ever wins.
    """
    value = metrics.get(name)
    if value is None:
        prefix, _, last = name.rpartition("_")
        other = _SPELLINGS.get(last)
        value = metrics.get(f"{prefix}_{other}" if prefix else other) if other else None
    return value if value is not None and math.isfinite(value) else None


def check_step(step: object) -> int:
    """
    A training step as an integer.

    Raises:
        InvalidInputError: it is no integer, negative, or has more than twelve digits.
    """
    try:
        number = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(step, bool):
        raise InvalidInputError(
            f"a step is a whole number, not {step!r}; nothing was saved. "
            "Give the training step, for example step=int(optimizer.iterations)."
        )
    if not 0 <= number <= MAX_STEP:
        raise InvalidInputError(
            f"a step lies between 0 and {MAX_STEP:,}, not {number:,}; nothing was saved."
        )
    return int(number)
