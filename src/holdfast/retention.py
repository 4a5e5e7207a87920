"""Which checkpoints are kept: rules as values, and the plan that a prune follows."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from numbers import Integral, Real
from operator import itemgetter
from typing import Literal

from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import InvalidInputError

Mode = Literal["auto", "min", "max"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Words in a metric's name that tell its direction; the last one decides, as in `dice_loss`.
#: Those of `keras.metrics` agree with Keras 3.15; the others are usual in scikit-learn and XGBoost.
#: Compiled by its first use: that takes some milliseconds, which no import has to wait for.
_DIRECTIONS = r"""(?<![a-z0-9])(?:
    (?P<min> [a-z]*loss(?:es)? | [a-z]*errors? | err | n?rmse | mae | mse | s?mape | r?msle | nll
      | perplexity | ppl | cross_?entropy | divergence | hinge | huber | log_?cosh | poisson
      | brier | wer | cer | fid | bpb | bpc )
  | (?P<max> acc | accuracy | (?:pr_?|roc_?)?auc(?:pr)? | auroc | auprc | precision | recall
      | sensitivity | specificity | f\d | f_?beta | f_?measure | f_?score | r2 | r_?squared
      | m?io_?u | dice | jaccard | m_?ap | ndcg | mrr | bleu | rouge | psnr | ssim | kappa | mcc
      | correlation | similarity | likelihood | elbo | rewards? | returns? )
    )(?![a-z])"""

#: scikit-learn's `neg_mean_squared_error` is a gain, a `negative_log_likelihood` is a loss.
_TURNED = re.compile(r"(?<![a-z])neg(?:ative)?(?![a-z])")


class Rule(ABC):
    """
    How long checkpoints are kept: a pure function from the history to the part worth keeping.

    A rule reads no clock and does no I/O. What it keeps among many it keeps among few: removing
    other checkpoints never condemns a kept one. `rule | rule` keeps what either keeps,
    `rule & rule` what both keep.
    """

    @abstractmethod
    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """
        Choose what to keep.

        Parameters:
            history (Sequence[Checkpoint]): all there is, oldest first: by session, step and token.

        Returns:
            Collection[Checkpoint]: a part of the history, in any order.
        """

    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        """Why each kept checkpoint is kept; without more to say, the rule as it is written."""
        return dict.fromkeys(self.keep(history), (str(self),))

    def __str__(self) -> str:
        """The rule as it is written in Python, without what it leaves at the default."""
        rule: object = self
        if not is_dataclass(rule):
            return repr(self)
        given: list[str] = []
        skipped = False
        for each in fields(rule):
            value = getattr(rule, each.name)
            if value == each.default:
                skipped = True
            else:
                given.append(f"{each.name}={value!r}" if each.kw_only or skipped else repr(value))
        return f"{type(self).__name__}({', '.join(given)})"

    def __or__(self, other: "Rule") -> "Rule":
        if isinstance(other, Rule):
            return AnyOf((*_parts(AnyOf, self), *_parts(AnyOf, other)))
        return NotImplemented

    def __and__(self, other: "Rule") -> "Rule":
        if isinstance(other, Rule):
            return AllOf((*_parts(AllOf, self), *_parts(AllOf, other)))
        return NotImplemented


@dataclass(frozen=True)
class AnyOf(Rule):
    """Keep what any of the rules keeps; written `rule | rule`."""

    rules: tuple[Rule, ...]

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """What at least one of the rules keeps."""
        return list(dict.fromkeys(chain.from_iterable(rule.keep(history) for rule in self.rules)))

    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        """The reasons of every rule that keeps it, in the order of the rules."""
        return _merged(self.keep(history), [rule.reasons(history) for rule in self.rules])

    def __str__(self) -> str:
        return " | ".join(map(str, self.rules))


@dataclass(frozen=True)
class AllOf(Rule):
    """Keep what all of the rules keep; written `rule & rule`."""

    rules: tuple[Rule, ...]

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """What every one of the rules keeps, each having seen the whole history."""
        first, *others = (dict.fromkeys(rule.keep(history)) for rule in self.rules)
        return [checkpoint for checkpoint in first if all(checkpoint in kept for kept in others)]

    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        """The reasons of all the rules, in the order of the rules."""
        return _merged(self.keep(history), [rule.reasons(history) for rule in self.rules])

    def __str__(self) -> str:
        return " & ".join(
            f"({rule})" if isinstance(rule, AnyOf) else str(rule) for rule in self.rules
        )


@dataclass(frozen=True)
class KeepAll(Rule):
    """Keep everything."""

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """The whole history."""
        return list(history)


@dataclass(frozen=True)
class KeepLast(Rule):
    """
    Keep the last few in the order of training, which is not the order of steps after a rollback.

    Attributes:
        count (int): how many, from 1.
    """

    count: int

    def __post_init__(self) -> None:
        _check_whole(self, "count")

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """The last `count` of the history."""
        return list(history[-self.count :])


@dataclass(frozen=True)
class KeepBest(Rule):
    """
    Keep those with the best value of a metric; the earlier one of two with the same value.

    A checkpoint without the metric, or with one that is not finite, is never among the best.

    Attributes:
        metric (str): the metric's name; `acc` and `accuracy` are one name.
        count (int): how many, from 1.
        mode (Literal["auto", "min", "max"]): which value is better; `auto` tells by the name.

    Raises:
        InvalidInputError: an argument is wrong, or `auto` cannot tell.
    """

    metric: str
    count: int = 1
    mode: Mode = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        _check_whole(self, "count")
        direction(self.metric, self.mode)

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """The best `count` of the history."""
        sign = 1 if direction(self.metric, self.mode) == "min" else -1
        values = [(checkpoint.metric(self.metric), checkpoint) for checkpoint in history]
        ranked = [(sign * value, each.id, each) for value, each in values if value is not None]
        return [
            checkpoint for _, _, checkpoint in sorted(ranked, key=itemgetter(0, 1))[: self.count]
        ]

    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        """The rule and the value, such as `KeepBest('val_loss'): 0.31`."""
        return {
            checkpoint: (f"{self}: {checkpoint.metric(self.metric):g}",)
            for checkpoint in self.keep(history)
        }


@dataclass(frozen=True, kw_only=True)
class KeepEvery(Rule):
    """
    Keep one for each fixed span of steps or of time: every 1,000 steps, one a day.

    Spans of steps begin at multiples of `steps`, spans of time at multiples of their length since
    1970 in UTC. Of each span the first checkpoint stays, and where several sessions have one in it,
    the first of the newest of these: a stretch that was trained again replaces the abandoned one.

    Attributes:
        steps (int | None): the length of a span in steps.
        days, hours, minutes (float | None): or in time; exactly one of the four is given.
        last (int | None): keep only the newest so many of the spans that hold a checkpoint. A span
            that a newer session has reached is newer, then the one with the higher number.

    Raises:
        InvalidInputError: an argument is wrong.
    """

    steps: int | None = None
    days: float | None = None
    hours: float | None = None
    minutes: float | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        _check_one_given(self, "steps", "days", "hours", "minutes")
        if self.last is not None:
            _check_whole(self, "last")

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """The first checkpoint of the newest session in each span."""
        kept: dict[int, Checkpoint] = {}
        for checkpoint in history:
            number = self._number(checkpoint)
            if number not in kept or kept[number].session < checkpoint.session:
                kept[number] = checkpoint
        numbers = sorted(kept, key=lambda number: (kept[number].session, number))
        return [kept[number] for number in numbers[-self.last if self.last else 0 :]]

    def _number(self, checkpoint: Checkpoint) -> int:
        if self.steps is not None:
            return checkpoint.step // self.steps
        return (checkpoint.created_at - _EPOCH) // _length(self)


@dataclass(frozen=True, kw_only=True)
class KeepWithin(Rule):
    """
    Keep those of the most recent days, hours or minutes, counted back from the newest time.

    It counts from the latest `created_at` in the history, not from the clock: a run that stopped a
    year ago keeps the end of it.

    Attributes:
        days, hours, minutes (float | None): how far back; exactly one of the three is given.

    Raises:
        InvalidInputError: an argument is wrong.
    """

    days: float | None = None
    hours: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        _check_one_given(self, "days", "hours", "minutes")

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """Those at most so much older than the newest."""
        if not history:
            return []
        # Not the last in order: clocks err, and counting from it would break the law of rules.
        newest = max(checkpoint.created_at for checkpoint in history)
        reach = _length(self)
        return [checkpoint for checkpoint in history if newest - checkpoint.created_at <= reach]


def direction(metric: str, mode: Mode = "auto") -> Literal["min", "max"]:
    """
    Tell whether a lower or a higher value of a metric is better.

    Parameters:
        metric (str): its name, such as `val_loss`.
        mode (Literal["auto", "min", "max"]): `auto` tells by the words in the name.

    Raises:
        InvalidInputError: no name, an unknown mode, or a name that does not tell.
    """
    if not isinstance(metric, str) or not metric:  # type: ignore[redundant-expr]
        raise InvalidInputError(f"a metric is a name such as 'val_loss', not {metric!r}.")
    if mode in ("min", "max"):
        return mode
    if mode != "auto":
        raise InvalidInputError(f"mode is 'min', 'max' or 'auto', not {mode!r}.")
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", metric).lower()
    told = [match.lastgroup for match in re.finditer(_DIRECTIONS, words, re.VERBOSE)]
    if not told or _TURNED.search(words):
        raise InvalidInputError(
            f"whether a lower or a higher {metric!r} is better cannot be told from its name. "
            "Give mode='min' or mode='max'."
        )
    return "min" if told[-1] == "min" else "max"


@dataclass(frozen=True)
class Kept:
    """
    A checkpoint that a plan keeps.

    Attributes:
        checkpoint (Checkpoint): which one.
        reasons (tuple[str, ...]): why, at least one: those of the rule, then its pins, then what
            spares it, then `latest`.
    """

    checkpoint: Checkpoint
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PrunePlan:
    """
    What a prune keeps and what it removes; printed, a table in the order of training.

    Attributes:
        keep (tuple[Kept, ...]): oldest first, each with its reasons.
        remove (tuple[Checkpoint, ...]): oldest first.
    """

    keep: tuple[Kept, ...]
    remove: tuple[Checkpoint, ...]

    def __str__(self) -> str:
        rows = {checkpoint.id: f"  remove  {checkpoint}" for checkpoint in self.remove}
        for kept in self.keep:
            rows[kept.checkpoint.id] = f"  keep    {kept.checkpoint}  {'; '.join(kept.reasons)}"
        head = f"keep {len(self.keep)}, remove {len(self.remove)}"
        return "\n".join([head, *(row for _, row in sorted(rows.items()))])


def plan(
    rule: Rule,
    history: Sequence[Checkpoint],
    *,
    pinned: Mapping[CheckpointId, Sequence[str]] = {},
    spared: Mapping[CheckpointId, str] = {},
) -> PrunePlan:
    """
    Decide what a prune keeps and removes; decides only, and does nothing.

    It keeps what the rule keeps, what is pinned or spared, and always the last of the history.

    Parameters:
        rule (Rule): the retention.
        history (Sequence[Checkpoint]): the good checkpoints, in any order. A damaged one is left
            out: it counts as nothing, so that nothing good gives way to it.
        pinned (Mapping[CheckpointId, Sequence[str]]): the names of a checkpoint's pins.
        spared (Mapping[CheckpointId, str]): what else must stay, with the reason to give. An id
            that is not in the history is passed over, here and in `pinned`.

    Raises:
        InvalidInputError: the rule keeps nothing of a history, or what is not in it.
    """
    history = tuple(sorted(history, key=lambda checkpoint: checkpoint.id))
    chosen = _chosen(rule, history)
    told = rule.reasons(history)
    keep: list[Kept] = []
    remove: list[Checkpoint] = []
    for checkpoint in history:
        id = checkpoint.id
        reasons = list(told.get(checkpoint) or [str(rule)]) if checkpoint in chosen else []
        if id in pinned:
            reasons += [f"pinned: {name}" for name in pinned[id]] or ["pinned"]
        if id in spared:
            reasons.append(spared[id])
        if checkpoint is history[-1]:
            reasons.append("latest")
        if reasons:
            keep.append(Kept(checkpoint, tuple(dict.fromkeys(reasons))))
        else:
            remove.append(checkpoint)
    return PrunePlan(tuple(keep), tuple(remove))


def _chosen(rule: Rule, history: Sequence[Checkpoint]) -> set[Checkpoint]:
    chosen = set(rule.keep(history))
    strangers = chosen - set(history)
    if strangers:
        raise InvalidInputError(
            f"{rule} keeps {', '.join(sorted(map(str, strangers)))}, which is not in the history "
            "that it was given; nothing was removed. A rule returns a part of its history."
        )
    if history and not chosen:
        raise InvalidInputError(
            f"{rule} keeps none of {len(history)} checkpoints, so nothing was removed."
            f"{_missing(rule, history)} Join it with a rule that always keeps something: "
            f"{rule} | KeepLast(1)."
        )
    return chosen


def _missing(rule: Rule, history: Sequence[Checkpoint]) -> str:
    if isinstance(rule, AnyOf | AllOf):
        return "".join(dict.fromkeys(_missing(part, history) for part in rule.rules))
    if not isinstance(rule, KeepBest) or rule.keep(history):
        return ""
    present = sorted(set(chain.from_iterable(checkpoint.metrics for checkpoint in history)))
    return (
        f" No checkpoint has a finite metric {rule.metric!r}; "
        f"metrics present: {', '.join(present) or 'none'}."
    )


def _parts(kind: type[AnyOf] | type[AllOf], rule: Rule) -> tuple[Rule, ...]:
    return rule.rules if isinstance(rule, kind) else (rule,)


def _merged(
    kept: Collection[Checkpoint], parts: Sequence[Mapping[Checkpoint, tuple[str, ...]]]
) -> dict[Checkpoint, tuple[str, ...]]:
    return {
        checkpoint: tuple(dict.fromkeys(chain.from_iterable(p.get(checkpoint, ()) for p in parts)))
        for checkpoint in kept
    }


def _check_whole(rule: Rule, name: str) -> None:
    value = getattr(rule, name)
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InvalidInputError(f"{name} is a whole number from 1, not {value!r}.")
    object.__setattr__(rule, name, int(value))  # a NumPy integer becomes a plain one


def _check_one_given(rule: "KeepEvery | KeepWithin", *names: str) -> None:
    given = [name for name in names if getattr(rule, name) is not None]
    if len(given) != 1:
        raise InvalidInputError(
            f"{type(rule).__name__} takes exactly one of {', '.join(names)}; "
            f"given: {', '.join(given) or 'none'}."
        )
    if given[0] == "steps":
        _check_whole(rule, "steps")
    else:
        _check_time(rule, given[0])


def _check_time(rule: "KeepEvery | KeepWithin", name: str) -> None:
    value = getattr(rule, name)
    if not isinstance(value, bool) and isinstance(value, Real):
        with suppress(ValueError, OverflowError):  # NaN, or more than a timedelta holds
            number = int(value) if isinstance(value, Integral) else float(value)
            object.__setattr__(rule, name, number)
            if _length(rule) > timedelta(0):
                return
    raise InvalidInputError(f"{name} is a number above 0, not {value!r}.")


def _length(rule: "KeepEvery | KeepWithin") -> timedelta:
    return timedelta(days=rule.days or 0, hours=rule.hours or 0, minutes=rule.minutes or 0)
