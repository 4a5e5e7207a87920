"""The rules of a prune as they are typed, and the checkpoints that a text names."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Literal, TypeVar

import click

from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.cli.values import time
from holdfast.errors import InvalidInputError, NotFoundError
from holdfast.retention import KeepBest, KeepEvery, KeepLast, KeepWithin, PrunePlan, Rule
from holdfast.store import CheckpointStore

Mode = Literal["auto", "min", "max"]

R = TypeVar("R", KeepEvery, KeepWithin)

_BEST = "best:"


def find(store: CheckpointStore, text: str) -> Checkpoint:
    """
    The checkpoint that a text names: what `store.find` takes, or `best:METRIC[:min|max]`.

    Raises:
        NotFoundError: there is none of this name, or none has the metric.
        InvalidInputError: the metric's name does not tell which way is better.
        others: as `store.find`.
    """
    if not text.startswith(_BEST):
        return store.find(text)
    metric, mode = _with_mode(text.removeprefix(_BEST))
    try:
        found = store.best(metric, mode)
    except InvalidInputError as error:
        error.add_note("Here the mode is written best:METRIC:min or best:METRIC:max.")
        raise
    if found is None:
        present = {name for each in store.checkpoints() for name in each.metrics}
        raise NotFoundError(
            f"no checkpoint in {store.url} has a metric {metric!r}; metrics present: "
            f"{', '.join(sorted(present)) or 'none'}."
        )
    return found


def keep_last(text: str) -> KeepLast:
    """The rule that `--keep-last N` stands for."""
    return KeepLast(_count(text))


def keep_best(text: str) -> KeepBest:
    """The rule that `--keep-best METRIC[:N][:min|max]` stands for."""
    metric, mode = _with_mode(text)
    name, colon, last = metric.rpartition(":")
    count = 1
    if colon and last.isdecimal():
        metric, count = name, _count(last)
    try:
        return KeepBest(metric, count, mode=mode)
    except InvalidInputError as error:
        raise click.BadParameter(
            f"{error} Here the mode is written METRIC:min or METRIC:max."
        ) from error


def keep_every(text: str) -> KeepEvery:
    """The rule that `--keep-every STEPS|TIME[:LAST]` stands for."""
    span, colon, last = text.partition(":")
    length: dict[str, Any] = {"steps": _count(span)} if span.isdecimal() else _reach(span)
    if colon:
        length["last"] = _count(last)
    return _made(KeepEvery, length)


def keep_within(text: str) -> KeepWithin:
    """The rule that `--keep-within TIME` stands for."""
    return _made(KeepWithin, _reach(text))


def joined(rules: Sequence[Rule]) -> Rule:
    """
    One rule that keeps what any of them keeps.

    Raises:
        click.UsageError: there is none.
    """
    if not rules:
        raise click.UsageError(
            "there is no rule to prune by; nothing was removed. Give at least one of --keep-last, "
            "--keep-best, --keep-every, --keep-within, --keep-all."
        )
    return reduce(or_, rules)


@dataclass(frozen=True)
class KeepUnshown(Rule):
    """
    Keep whatever a plan did not say would go: nothing is removed that nobody was shown.

    Attributes:
        shown (frozenset[CheckpointId]): what the plan keeps or removes.
        removed (frozenset[CheckpointId]): what it removes.
    """

    shown: frozenset[CheckpointId]
    removed: frozenset[CheckpointId]

    @classmethod
    def of(cls, plan: PrunePlan) -> "KeepUnshown":
        """The rule for a plan."""
        removed = frozenset(each.id for each in plan.remove)
        return cls(removed | {kept.checkpoint.id for kept in plan.keep}, removed)

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """All but what the plan removes."""
        return [checkpoint for checkpoint in history if checkpoint.id not in self.removed]

    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        """A reason for what the plan did not know of; the rest has that of another rule."""
        return {
            checkpoint: ("saved since the plan was made",)
            for checkpoint in history
            if checkpoint.id not in self.shown
        }


def _with_mode(text: str) -> tuple[str, Mode]:
    name, _, last = text.rpartition(":")
    if name and last == "min":
        return name, "min"
    if name and last == "max":
        return name, "max"
    return text, "auto"


def _reach(text: str) -> dict[str, Any]:
    """A time as the argument that rules take for it; they have no seconds."""
    span = time(text)
    return {"minutes": span["seconds"] / 60} if "seconds" in span else dict(span)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise click.BadParameter(f"{text!r} is no whole number from 1.")
    return int(text)


def _made(kind: type[R], given: Mapping[str, Any]) -> R:
    try:
        return kind(**given)
    except InvalidInputError as error:
        raise click.BadParameter(str(error)) from error
