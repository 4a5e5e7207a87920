"""How the cases of one part of the scorecard are played, and what came of them."""

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

#: How many broken cases are told of.
_TOLD = 5


@dataclass(frozen=True)
class Part:
    """
    Cases of one kind.

    Parameters:
        check (str): the row of the scorecard that it counts for.
        what (str): what is counted.
        plays (str): the module and the function whose iterator tells for each case nothing, or
            what was broken; what it returns in the end is a remark for the table.
        count (int): how many cases there are at least in a full run.
        kind (str): whether the function draws, and takes `seed` and `count`, or goes through all
            there are, and takes `first` and `every`.
        shards (int): processes that share the cases.
        given (dict): what else the function gets.
    """

    check: str
    what: str
    plays: str
    count: int
    kind: Literal["drawn", "every"] = "drawn"
    shards: int = 1
    given: dict[str, Any] = field(default_factory=dict)

    def cases(self, seed: int, shard: int, scale: float) -> Iterator[str]:
        """
        The cases of one shard.

        Parameters:
            seed (int): what is drawn follows from it.
            shard (int): which, from 0.
            scale (float): which part of the full count.
        """
        module, name = self.plays.split(":")
        function: Callable[..., Iterator[str]] = getattr(importlib.import_module(module), name)
        if self.kind == "drawn":
            count = self.least(scale) // self.shards
            return function(seed * 1_000 + shard, count, **self.given)
        stride = self._stride(scale)
        return function(first=1 + (shard + seed) % stride, every=stride, **self.given)

    def least(self, scale: float) -> int:
        """How many cases there have to be of all shards."""
        if self.kind == "drawn":
            return self.shards * max(1, round(self.count * scale / self.shards))
        return self.shards * (self.count // self._stride(scale))

    def _stride(self, scale: float) -> int:
        return self.shards * max(1, round(1 / scale))


@dataclass
class Tally:
    """
    What came of some cases.

    Attributes:
        cases (int): how many were played.
        broken (int): how many of them broke a promise.
        told (list[str]): the first of these.
        remark (str): what else was measured.
        seconds (float): how long it took.
    """

    cases: int = 0
    broken: int = 0
    told: list[str] = field(default_factory=list)
    remark: str = ""
    seconds: float = 0.0

    def add(self, other: "Tally") -> None:
        self.cases += other.cases
        self.broken += other.broken
        self.told = [*self.told, *other.told][:_TOLD]
        self.remark = "; ".join(filter(None, dict.fromkeys([self.remark, other.remark])))
        self.seconds += other.seconds


def played(cases: Iterator[str]) -> Tally:
    """Play them all."""
    tally, began = Tally(), time.monotonic()
    while True:
        try:
            what = next(cases)
        except StopIteration as end:
            tally.remark = end.value or ""
            break
        tally.cases += 1
        if what:
            tally.broken += 1
            tally.told = [*tally.told, what][:_TOLD]
    tally.seconds = time.monotonic() - began
    return tally
