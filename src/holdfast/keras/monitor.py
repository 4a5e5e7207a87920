"""The metric that decides what is best: its value, its direction, and the best so far."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import keras
import numpy as np

from holdfast.checkpoint import Checkpoint
from holdfast.errors import InvalidInputError
from holdfast.keras.template import spelled
from holdfast.retention import KeepBest, Mode, direction


class Monitor:
    """
    Compares a metric with the best value of it so far.

    A value that is not finite is never an improvement.

    Parameters:
        name (str): a key of the logs; `acc` and `accuracy` are one.
        mode (str): `min`, `max`, or `auto`, which asks the metric and then its name. Anything else
            is a warning and counts as `auto`, as in Keras.
        threshold (float | None): the first value to be better than.

    Attributes:
        best (float | None): the best value so far.
        operation (Callable | None): `numpy.less` or `numpy.greater`, once `decide` was called.

    Raises:
        InvalidInputError: the name is no text, or the threshold is no number.
    """

    def __init__(self, name: str, mode: str, threshold: float | None) -> None:
        if not isinstance(name, str):
            raise InvalidInputError(f"monitor is the name of a metric, not {name!r}.")
        if mode not in ("auto", "min", "max"):
            warnings.warn(
                f"ModelCheckpoint mode {mode!r} is unknown, fallback to auto mode.", stacklevel=3
            )
            mode = "auto"
        if threshold is not None and (not _is_number(threshold) or math.isnan(threshold)):
            raise InvalidInputError(
                f"initial_value_threshold is a number, not {threshold!r}; nothing was touched."
            )
        self.name = name
        self.mode = cast("Mode", mode)
        self.best = None if threshold is None else float(threshold)
        self.operation: Callable[[float, float], Any] | None = None
        self._direction: Literal["min", "max"] | None = None

    def decide(self, model: Any) -> None:
        """
        Settle which values are better: by the mode, else by the metric's object, else by its name.

        Raises:
            InvalidInputError: nothing tells.
        """
        if self._direction is None:
            asked = _asked(model, self.name) if self.mode == "auto" else None
            self._direction = asked or direction(self.name, self.mode)
            self.operation = np.less if self._direction == "min" else np.greater

    def learn(self, history: Sequence[Checkpoint]) -> None:
        """Take the best of these checkpoints for the best so far, if it is better."""
        assert self._direction is not None  # noqa: S101 - `decide` comes first
        for best in KeepBest(self.name, mode=self._direction).keep(history):
            value = best.metric(self.name)
            if value is not None and self.improves(value):
                self.best = value

    def improves(self, value: float) -> bool:
        """Whether a value is better than the best so far; the first finite one always is."""
        if not math.isfinite(value):
            return False
        return self.best is None or self.operation is None or bool(self.operation(value, self.best))


def value_of(logs: Mapping[str, Any], name: str) -> float | None:
    """
    The value of a metric in the logs; None if it is missing.

    Raises:
        InvalidInputError: it is not one number.
    """
    key = spelled(logs, name)
    value = None if key is None else logs[key]
    if value is None:
        return None
    if not _is_number(value):
        raise InvalidInputError(f"{name!r} is no single number but {value!r}")
    return float(value)


def finite(logs: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers in the logs: what a manifest can hold."""
    numbers = {name: float(value) for name, value in logs.items() if _is_number(value)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _asked(model: Any, name: str) -> Literal["min", "max"] | None:
    wanted = name.removeprefix("val_")
    if wanted == "loss":
        return "min"
    for each in _flattened(getattr(model, "metrics", [])):
        # Keras marks its metrics so; its own callbacks read the same attribute.
        told = getattr(each, "_direction", None)
        if told is not None and spelled({each.name: 0.0}, wanted):
            return "max" if told == "up" else "min"
    return None


def _flattened(metrics: Sequence[Any]) -> Iterator[Any]:
    for each in metrics:
        yield from getattr(each, "metrics", [each])


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | str | bytes) or value is None:
        return False
    try:
        if keras.ops.is_tensor(value):
            value = keras.ops.convert_to_numpy(value)
        return np.ndim(value) == 0 and isinstance(float(value), float)
    except (TypeError, ValueError, OverflowError):
        return False
