"""What of a `fit` under way is kept beside its model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from holdfast.keras import packing
from holdfast.keras.companions import Remembered

#: The hooks of a callback at whose call a save can happen.
Hook = Literal["on_train_batch_end", "on_epoch_end"]


@dataclass(frozen=True)
class Run:
    """
    What of a `fit` under way is kept beside its model.

    Attributes:
        hook (str): what the callbacks were being told when it was taken.
        number (int): of the batch or the epoch that they were told of.
        logs (Mapping[str, Any]): with which values.
        callbacks (tuple[Remembered, ...]): what they had to remember.
        metrics (Mapping[str, numpy.ndarray]): what the metrics had summed up of the epoch so far,
            by the variable's number and path; empty between epochs.
        began (Mapping[str, Any] | None): the random states at the beginning of the epoch; None
            between epochs.
    """

    hook: Hook
    number: int
    logs: Mapping[str, Any]
    callbacks: tuple[Remembered, ...]
    metrics: Mapping[str, Any]
    began: Mapping[str, Any] | None

    def plain(self) -> dict[str, Any]:
        """As plain values, for `packing.pack`."""
        return {
            "hook": self.hook,
            "number": self.number,
            "logs": self.logs,
            "callbacks": {
                each.name: {"told": each.told, "state": each.state} for each in self.callbacks
            },
            "metrics": self.metrics,
            "began": self.began,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """
        Read it back.

        Raises:
            TypeError, ValueError, LookupError: it is not what `plain` gave.
        """
        if plain["hook"] not in ("on_train_batch_end", "on_epoch_end"):
            raise ValueError(f"{plain['hook']!r} is no hook at which a save happens")
        return cls(
            hook=plain["hook"],
            number=int(plain["number"]),
            logs=dict(plain["logs"]),
            callbacks=tuple(
                Remembered(name, bool(each["told"]), dict(each["state"]))
                for name, each in plain["callbacks"].items()
            ),
            metrics=dict(plain["metrics"]),
            began=plain["began"],
        )

    def copy(self) -> Self:
        """A copy that later changes do not show in: lists are copied, arrays are held."""
        packed = packing.pack(self.plain(), "this training")
        return self.of(packing.unpack(packed.json, packed.arrays))
