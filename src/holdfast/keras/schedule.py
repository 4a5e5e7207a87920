"""When a callback saves: at the end of an epoch, every so many batches, or every so often."""

import operator
import re
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from holdfast.errors import InvalidInputError

_TIME = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|min|h|d)\s*")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


class Schedule:
    """
    Says after each batch and after each epoch whether a save is due.

    Parameters:
        save_freq ("epoch" | int | timedelta | str): at each epoch's end, every so many batches
            counted over epoch borders, or at the first batch end after so much time. A text is a
            number with `s`, `min`, `h` or `d`, such as `"15min"`.
        period (int | None): with `"epoch"`, only every so many epochs.
        clock (Callable[[], float]): gives seconds that only grow.

    Attributes:
        period (int): epochs between saves.
        epochs_since_save (int): epochs that have ended since a save was last due.

    Raises:
        InvalidInputError: an argument is wrong.
    """

    def __init__(
        self,
        save_freq: object,
        period: object = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batches: int | None = None
        self._seconds: float | None = None
        if isinstance(save_freq, timedelta) or (
            isinstance(save_freq, str) and save_freq != "epoch"
        ):
            self._seconds = _seconds(save_freq)
        elif save_freq != "epoch":
            self._batches = _count("save_freq", save_freq, "a number of batches")
        self.period = self._checked_period(period, save_freq)
        self.epochs_since_save = 0
        self._clock = clock
        self._since: float | None = None
        self._batches_since_save = 0
        self._last_batch: int | None = None

    @property
    def counts(self) -> dict[str, int | None]:
        """What was counted since the last save was due; may be set."""
        return {
            "epochs": self.epochs_since_save,
            "batches": self._batches_since_save,
            "last_batch": self._last_batch,
        }

    @counts.setter
    def counts(self, counts: Mapping[str, int | None]) -> None:
        self.epochs_since_save = counts["epochs"] or 0
        self._batches_since_save = counts["batches"] or 0
        self._last_batch = counts["last_batch"]

    @property
    def by_epoch(self) -> bool:
        """Whether saves are due at the end of epochs."""
        return self._batches is None and self._seconds is None

    def begin(self) -> None:
        """Training begins: time counts from here, or goes on."""
        if self._since is None:
            self._since = self._clock()

    def due_after_batch(self, batch: int) -> bool:
        """
        Whether a save is due now that a batch has ended.

        Parameters:
            batch (int): its number in the epoch, from 0, as Keras hands it to callbacks. Under
                `steps_per_execution` it is the last of its block and may pass the real number.
        """
        if self._seconds is not None:
            now = self._clock()
            if self._since is not None and now - self._since < self._seconds:
                return False
            self._since = now
            return True
        if self._batches is None:
            return False
        is_new_epoch = self._last_batch is None or batch <= self._last_batch
        self._batches_since_save += batch + 1 if is_new_epoch else batch - (self._last_batch or 0)
        self._last_batch = batch
        if self._batches_since_save < self._batches:
            return False
        self._batches_since_save = 0
        return True

    def due_after_epoch(self) -> bool:
        """Whether a save is due now that an epoch has ended."""
        self.epochs_since_save += 1
        if not self.by_epoch or self.epochs_since_save < self.period:
            return False
        self.epochs_since_save = 0
        return True

    def _checked_period(self, period: object, save_freq: object) -> int:
        if period is None:
            return 1
        warnings.warn(
            "`period` is from older Keras; save_freq says how often to save. It still counts "
            "epochs between saves.",
            DeprecationWarning,
            stacklevel=4,
        )
        if not self.by_epoch:
            raise InvalidInputError(
                f"period={period!r} counts epochs, and save_freq={save_freq!r} does not; nothing "
                "was touched. Give one of them."
            )
        return _count("period", period, "a number of epochs")


def _seconds(save_freq: "timedelta | str") -> float:
    span = save_freq
    if isinstance(span, str) and (match := _TIME.fullmatch(span)):
        with_unit: dict[str, Any] = {_UNITS[match["unit"]]: float(match["number"])}
        span = timedelta(**with_unit)
    if isinstance(span, str) or span <= timedelta(0):
        raise InvalidInputError(
            f"save_freq={save_freq!r} is no time between saves; nothing was touched. Give 'epoch', "
            "a number of batches, a timedelta, or a text such as '90s', '15min', '2h' or '1d'."
        )
    return span.total_seconds()


def _count(name: str, value: Any, what: str) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        others = ", 'epoch', or a time such as '15min'" if name == "save_freq" else ""
        raise InvalidInputError(
            f"{name} is {what} from 1{others}, not {value!r}; nothing was touched."
        )
    return number
