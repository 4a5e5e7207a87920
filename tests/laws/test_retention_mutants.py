"""Rules and plans broken on purpose: the oracle and the contract find every one."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis.errors import FlakyFailure

from holdfast import retention
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import InvalidInputError
from holdfast.retention import KeepAll, KeepBest, KeepEvery, KeepLast, KeepWithin, PrunePlan, Rule
from holdfast.testing.rules import RuleContract
from tests.laws.oracle import first_difference

#: Rounds in which a rule broken on purpose has to be found out.
ROUNDS = 500


def mutant(kind: type[Rule], **methods: Callable[..., Any]) -> type[Rule]:
    """A rule of the same name with a method of another."""
    return dataclass(frozen=True)(type(kind.__name__, (kind,), methods))


def nan_wins(self: KeepBest, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
    sign = 1 if retention.direction(self.metric, self.mode) == "min" else -1
    measured = [row for row in history if value_or_nan(self, row) is not None]
    return sorted(measured, key=lambda row: sign * (value_or_nan(self, row) or 0))[: self.count]


def value_or_nan(self: KeepBest, row: Checkpoint) -> float | None:
    return row.metrics.get(self.metric, row.metric(self.metric))


def reasons_with_nan(
    self: KeepBest, history: Sequence[Checkpoint]
) -> dict[Checkpoint, tuple[str, ...]]:
    return {row: (f"{self}: {value_or_nan(self, row):g}",) for row in self.keep(history)}


def ties_go_to_the_later(self: KeepBest, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
    sign = 1 if retention.direction(self.metric, self.mode) == "min" else -1
    measured = [(row.metric(self.metric), row) for row in reversed(history)]
    ranked = [(sign * value, row) for value, row in measured if value is not None]
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])[: self.count]]


def counted_from_the_last(
    self: KeepWithin, history: Sequence[Checkpoint]
) -> Collection[Checkpoint]:
    reach = timedelta(days=self.days or 0, hours=self.hours or 0, minutes=self.minutes or 0)
    return [row for row in history if history[-1].created_at - row.created_at <= reach]


def so_long_after_the_last_kept(
    self: KeepEvery, history: Sequence[Checkpoint]
) -> Collection[Checkpoint]:
    reach = timedelta(days=self.days or 0, hours=self.hours or 0, minutes=self.minutes or 0)
    kept: list[Checkpoint] = []
    for row in history:
        if not kept or (
            abs(row.step - kept[-1].step) >= self.steps
            if self.steps
            else abs(row.created_at - kept[-1].created_at) >= reach
        ):
            kept.append(row)
    return kept[-(self.last or 0) :]


def last_of_each_span(self: KeepEvery, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
    latest = {self._number(row): row for row in history}
    return [latest[number] for number in sorted(latest)[-(self.last or 0) :]]


def oldest_session_of_each_span(
    self: KeepEvery, history: Sequence[Checkpoint]
) -> Collection[Checkpoint]:
    first = {self._number(row): row for row in reversed(history)}
    return [first[number] for number in sorted(first)[-(self.last or 0) :]]


def last_by_step(self: KeepLast, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
    return sorted(history, key=lambda row: row.step)[-self.count :]


MUTANTS = {
    "the best may be NaN": mutant(KeepBest, keep=nan_wins, reasons=reasons_with_nan),
    "of equals the later is best": mutant(KeepBest, keep=ties_go_to_the_later),
    "within counts from the last in order": mutant(KeepWithin, keep=counted_from_the_last),
    "every counts from the last kept": mutant(KeepEvery, keep=so_long_after_the_last_kept),
    "every keeps the last of a span": mutant(KeepEvery, keep=last_of_each_span),
    "every keeps the abandoned session": mutant(KeepEvery, keep=oldest_session_of_each_span),
    "the last go by step": mutant(KeepLast, keep=last_by_step),
}

#: Those of them that break the law at every turn, with arguments that show it.
LAWLESS = {
    "within counts from the last in order": {"hours": 1},
    "every counts from the last kept": {"hours": 6},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_oracle_finds_a_broken_rule(name: str) -> None:
    broken = MUTANTS[name]

    difference = first_difference(range(ROUNDS), mutants=[broken])

    assert difference is not None, f"nobody noticed that {name}"


def test_the_oracle_has_nothing_against_mutants_that_are_not_broken() -> None:
    same = [mutant(kind) for kind in (KeepAll, KeepLast, KeepBest, KeepEvery, KeepWithin)]

    assert first_difference(range(ROUNDS), mutants=same) is None


@pytest.mark.parametrize("name", LAWLESS)
def test_the_contract_finds_a_rule_that_breaks_the_law(name: str) -> None:
    contract = RuleContract()
    contract.rule = MUTANTS[name](**LAWLESS[name])

    with pytest.raises(AssertionError, match="is there, not once it is gone"):
        contract.test_what_is_kept_among_many_is_kept_among_few()


def forgets_pins(rule: Rule, history: Sequence[Checkpoint], **marks: Any) -> PrunePlan:
    return retention.plan(rule, history, **{**marks, "pinned": {}})


def forgets_the_latest(rule: Rule, history: Sequence[Checkpoint], **marks: Any) -> PrunePlan:
    planned = retention.plan(rule, history, **marks)
    lost = [kept.checkpoint for kept in planned.keep if kept.reasons == ("latest",)]
    keep = tuple(kept for kept in planned.keep if kept.reasons != ("latest",))
    return PrunePlan(keep, (*planned.remove, *lost))


def obeys_a_rule_that_keeps_nothing(
    rule: Rule, history: Sequence[Checkpoint], **marks: Any
) -> PrunePlan:
    try:
        return retention.plan(rule, history, **marks)
    except InvalidInputError:
        return PrunePlan((), tuple(sorted(history, key=lambda row: row.id)))


def trusts_the_order_it_is_given(
    rule: Rule, history: Sequence[Checkpoint], **marks: Any
) -> PrunePlan:
    planned = retention.plan(rule, history, **marks)
    last = {row.id for row in history[-1:]}
    kept = tuple(
        replace(
            one, reasons=tuple(r for r in one.reasons if r != "latest" or one.checkpoint.id in last)
        )
        for one in planned.keep
    )
    return PrunePlan(kept, planned.remove)


@pytest.mark.parametrize(
    "broken",
    [
        forgets_pins,
        forgets_the_latest,
        obeys_a_rule_that_keeps_nothing,
        trusts_the_order_it_is_given,
    ],
)
def test_the_oracle_finds_a_broken_plan(broken: Callable[..., PrunePlan]) -> None:
    difference = first_difference(range(ROUNDS), plan=broken)

    assert difference is not None, f"nobody noticed a plan that {broken.__name__}"


class Broken(Rule):
    """Keeps everything, but for what a subclass does wrong."""

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        return list(history)

    def __str__(self) -> str:
        return type(self).__name__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    __hash__ = None  # type: ignore[assignment]


class KeepsAStranger(Broken):
    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        return [*history, Checkpoint(CheckpointId(9, 9, "99999999"), datetime.now(UTC))]


class KeepsTwice(Broken):
    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        return [*history, *history]


class Sorts(Broken):
    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        if isinstance(history, list):
            history.sort(key=lambda row: row.step)
        return list(history)


class Remembers(Broken):
    def __init__(self) -> None:
        self.seen: set[CheckpointId] = set()

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        kept = [row for row in history if row.id not in self.seen]
        self.seen.update(row.id for row in history)
        return kept


class GoesByObjects(Broken):
    def __init__(self) -> None:
        self.objects: list[Checkpoint] = []

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        for row in history:
            if row not in self.objects:
                self.objects.append(row)
        return [row for row in history if any(row is one for one in self.objects)]


class GivesNoReasons(Broken):
    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        return dict.fromkeys(history, ())


class ExplainsWhatItDoesNotKeep(Broken):
    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        return history[-1:]

    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        return dict.fromkeys(history, ("why not",))


class FailsOnNothing(Broken):
    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        return [max(history, key=lambda row: row.step)]


class HasNoText(Broken):
    def __str__(self) -> str:
        return ""


class IsNoValue(Broken):
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None


@pytest.mark.parametrize(
    ("rule", "test"),
    [
        (KeepsAStranger(), "test_keeps_only_what_it_was_given"),
        (KeepsTwice(), "test_keeps_only_what_it_was_given"),
        (Sorts(), "test_the_same_history_has_the_same_answer"),
        (Remembers(), "test_the_same_history_has_the_same_answer"),
        (GoesByObjects(), "test_equal_checkpoints_are_the_same_to_it"),
        (GivesNoReasons(), "test_gives_reasons_for_what_it_keeps_and_for_nothing_else"),
        (ExplainsWhatItDoesNotKeep(), "test_gives_reasons_for_what_it_keeps_and_for_nothing_else"),
        (FailsOnNothing(), "test_keeps_nothing_of_nothing"),
        (HasNoText(), "test_is_a_value_that_can_be_shown"),
        (IsNoValue(), "test_is_a_value_that_can_be_shown"),
    ],
    ids=str,
)
def test_the_contract_finds_a_broken_rule(rule: Rule, test: str) -> None:
    contract = RuleContract()
    contract.rule = rule

    with pytest.raises((AssertionError, FlakyFailure, ValueError)):
        getattr(contract, test)()
