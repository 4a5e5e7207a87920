"""Rules in sentences, and the plans that come of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest

from holdfast import retention
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import InvalidInputError
from holdfast.retention import (
    KeepAll,
    KeepBest,
    KeepEvery,
    KeepLast,
    KeepWithin,
    PrunePlan,
    Rule,
    direction,
    plan,
)

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)

LOWER_IS_BETTER = """
    loss val_loss eval/loss valLoss head_2_loss mlogloss dice_loss error_rate merror
    mean_absolute_error mean_squared_logarithmic_error val_rmse mae binary_crossentropy
    cross_entropy kl_divergence squared_hinge logcosh poisson perplexity wer
"""

HIGHER_IS_BETTER = """
    acc val_accuracy sparse_top_k_categorical_accuracy acc@5 top5_acc auc auc_2 roc_auc AUROC
    precision recall_at_precision sensitivity_at_specificity f1 val_f1_score F1Score fbeta_score
    r2_score mean_io_u mean_iou cosine_similarity pearson_correlation map50 mAP bleu4 dice
    log_likelihood episode_reward
"""


def saved(step: int, *, session: int = 1, hour: float = 0, **metrics: float) -> Checkpoint:
    """A checkpoint of this step, saved so many hours after Monday 0:00 UTC."""
    id = CheckpointId(session, step, f"{session:04x}{step % 65536:04x}")
    return Checkpoint(id, MONDAY + timedelta(hours=hour), metrics=metrics)


def steps(kept: Collection[Checkpoint]) -> list[int]:
    return sorted(checkpoint.step for checkpoint in kept)


def reasons(planned: PrunePlan) -> dict[int, tuple[str, ...]]:
    return {kept.checkpoint.step: kept.reasons for kept in planned.keep}


# ------------------------------------------------------------------ KeepLast, KeepAll


def test_the_last_three_stay() -> None:
    history = [saved(step) for step in (100, 200, 300, 400, 500)]

    planned = plan(KeepLast(3), history)

    assert reasons(planned) == {
        300: ("KeepLast(3)",),
        400: ("KeepLast(3)",),
        500: ("KeepLast(3)", "latest"),
    }
    assert steps(planned.remove) == [100, 200]


def test_the_last_of_a_run_rolled_back_is_not_the_highest_step() -> None:
    history = [saved(9_000), saved(10_000), saved(500, session=2)]

    kept = KeepLast(2).keep(history)

    assert steps(kept) == [500, 10_000]


def test_fewer_than_asked_for_all_stay() -> None:
    history = [saved(100), saved(200)]

    assert plan(KeepLast(3), history).remove == ()


def test_keep_all_keeps_all() -> None:
    history = [saved(100), saved(200)]

    planned = plan(KeepAll(), history)

    assert reasons(planned) == {100: ("KeepAll()",), 200: ("KeepAll()", "latest")}
    assert planned.remove == ()


# ------------------------------------------------------------------ KeepBest


def test_the_best_stays_with_its_value_and_the_latest_beside_it() -> None:
    history = [saved(1, val_loss=0.5), saved(2, val_loss=0.31), saved(3, val_loss=0.4)]

    planned = plan(KeepBest("val_loss"), history)

    assert reasons(planned) == {2: ("KeepBest('val_loss'): 0.31",), 3: ("latest",)}


def test_the_two_most_accurate_stay() -> None:
    history = [saved(1, val_acc=0.7), saved(2, val_acc=0.9), saved(3, val_acc=0.8)]

    planned = plan(KeepBest("val_acc", 2), history)

    assert reasons(planned) == {
        2: ("KeepBest('val_acc', 2): 0.9",),
        3: ("KeepBest('val_acc', 2): 0.8", "latest"),
    }


def test_of_two_equally_good_the_earlier_one_stays() -> None:
    history = [saved(1, loss=0.5), saved(2, loss=0.2), saved(3, loss=0.2), saved(4, loss=0.3)]

    assert steps(KeepBest("loss").keep(history)) == [2]


@pytest.mark.parametrize("never_best", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_is_no_finite_number_never_wins(never_best: float, mode: str) -> None:
    history = [saved(1, score=never_best), saved(2), saved(3, score=7), saved(4, score=never_best)]

    kept = KeepBest("score", 4, mode=mode).keep(history)  # type: ignore[arg-type]

    assert steps(kept) == [3]


def test_acc_and_accuracy_are_one_metric() -> None:
    history = [saved(1, val_accuracy=0.9), saved(2, val_acc=0.7), saved(3, val_acc=0.8)]

    assert steps(KeepBest("val_acc", 2).keep(history)) == [1, 3]


def test_the_mode_turns_the_order_round() -> None:
    history = [saved(1, loss=0.1), saved(2, loss=0.9)]

    assert steps(KeepBest("loss", mode="max").keep(history)) == [2]


@pytest.mark.parametrize("name", LOWER_IS_BETTER.split())
def test_lower_is_better_goes_by_the_name(name: str) -> None:
    assert direction(name) == "min"


@pytest.mark.parametrize("name", HIGHER_IS_BETTER.split())
def test_higher_is_better_goes_by_the_name(name: str) -> None:
    assert direction(name) == "max"


@pytest.mark.parametrize("name", ["score", "lr", "neg_mean_squared_error", "glossary", "macc"])
def test_a_name_that_does_not_tell_asks_for_the_mode(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}' is better.* Give mode='min' or mode='m"):
        KeepBest(name)

    assert direction(name, "max") == "max"


# ------------------------------------------------------------------ KeepEvery


def test_every_thousand_steps_of_a_run_saved_every_hundred() -> None:
    history = [saved(step) for step in range(0, 3_300, 100)]

    planned = plan(KeepEvery(steps=1000), history)

    assert reasons(planned) == {
        0: ("KeepEvery(steps=1000)",),
        1000: ("KeepEvery(steps=1000)",),
        2000: ("KeepEvery(steps=1000)",),
        3000: ("KeepEvery(steps=1000)",),
        3200: ("latest",),
    }


def test_one_a_day_for_the_last_three_days() -> None:
    # Saved on Monday, Tuesday and Wednesday; nothing on Thursday; Friday, three times a day.
    history = [
        saved(hour, hour=hour) for day in (0, 1, 2, 4) for hour in range(24 * day, 24 * day + 24, 8)
    ]

    planned = plan(KeepEvery(days=1, last=3), history)

    assert str(planned) == (
        "keep 4, remove 8\n"
        "  remove  0001-000000000000-00010000\n"
        "  remove  0001-000000000008-00010008\n"
        "  remove  0001-000000000016-00010010\n"
        "  keep    0001-000000000024-00010018  KeepEvery(days=1, last=3)\n"
        "  remove  0001-000000000032-00010020\n"
        "  remove  0001-000000000040-00010028\n"
        "  keep    0001-000000000048-00010030  KeepEvery(days=1, last=3)\n"
        "  remove  0001-000000000056-00010038\n"
        "  remove  0001-000000000064-00010040\n"
        "  keep    0001-000000000096-00010060  KeepEvery(days=1, last=3)\n"
        "  remove  0001-000000000104-00010068\n"
        "  keep    0001-000000000112-00010070  latest"
    )


def test_a_stretch_trained_again_replaces_the_abandoned_one() -> None:
    first = [saved(step) for step in range(0, 3_000, 500)]
    again = [saved(step, session=2) for step in (1_700, 2_200)]

    kept = KeepEvery(steps=1000).keep(first + again)

    assert sorted((one.session, one.step) for one in kept) == [(1, 0), (2, 1_700), (2, 2_200)]


def test_the_newest_spans_are_those_that_the_newest_session_has_reached() -> None:
    # Rolled back from 10,000 to 2,000: the abandoned spans must not outlive the new ones.
    first = [saved(step) for step in range(0, 10_001, 1_000)]
    again = [saved(step, session=2) for step in (2_000, 3_000)]

    kept = KeepEvery(steps=1000, last=3).keep(first + again)

    assert sorted((one.session, one.step) for one in kept) == [(1, 10_000), (2, 2_000), (2, 3_000)]


def test_days_are_days_in_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    late = Checkpoint(saved(1).id, datetime(2026, 1, 6, 8, 59, tzinfo=tokyo))  # Monday in UTC
    later = Checkpoint(saved(2).id, datetime(2026, 1, 6, 9, 1, tzinfo=tokyo))  # Tuesday in UTC

    assert steps(KeepEvery(days=1).keep([saved(0, hour=1), late, later])) == [0, 2]


def test_spans_may_be_hours_minutes_and_fractions() -> None:
    history = [saved(minute, hour=minute / 60) for minute in range(0, 120, 15)]

    assert steps(KeepEvery(hours=1).keep(history)) == [0, 60]
    assert steps(KeepEvery(hours=0.5).keep(history)) == [0, 30, 60, 90]
    assert KeepEvery(minutes=30).keep(history) == KeepEvery(hours=Fraction(1, 2)).keep(history)  # type: ignore[arg-type]


def test_times_before_1970_have_spans_too() -> None:
    long_ago = [Checkpoint(saved(n).id, datetime(1969, 12, 31, n, tzinfo=UTC)) for n in (1, 23)]
    epoch = Checkpoint(saved(24).id, datetime(1970, 1, 1, tzinfo=UTC))

    assert steps(KeepEvery(days=1).keep([*long_ago, epoch])) == [1, 24]


def test_spans_of_a_week_begin_on_thursday_as_1970_did() -> None:
    history = [saved(hour, hour=hour) for hour in (0, 71, 72, 73)]

    assert steps(KeepEvery(days=7).keep(history)) == [0, 72]


# ------------------------------------------------------------------ KeepWithin


def test_within_counts_from_the_newest_and_not_from_the_clock() -> None:
    history = [saved(step, hour=step) for step in (0, 10, 24, 34)]

    planned = plan(KeepWithin(days=1), history)

    assert reasons(planned) == {
        10: ("KeepWithin(days=1)",),
        24: ("KeepWithin(days=1)",),
        34: ("KeepWithin(days=1)", "latest"),
    }


def test_within_counts_from_the_newest_time_and_not_from_the_last_in_order() -> None:
    # The clock of session 2 is two days behind. Counted from its checkpoint, step 1 would be kept
    # as long as that is there, and be condemned by its removal.
    history = [saved(1, hour=0), saved(2, hour=48), saved(3, session=2, hour=1)]

    assert steps(KeepWithin(hours=24).keep(history)) == [2]
    assert steps(KeepWithin(hours=24).keep(history[:2])) == [2]


def test_within_stands_times_at_the_end_of_the_calendar() -> None:
    history = [
        Checkpoint(saved(1).id, datetime.min.replace(tzinfo=UTC)),
        Checkpoint(saved(2).id, datetime.max.replace(tzinfo=UTC)),
    ]

    assert steps(KeepWithin(minutes=1).keep(history)) == [2]


# ------------------------------------------------------------------ rules joined


def test_either_of_two_rules_keeps_and_both_say_why() -> None:
    history = [saved(1, val_loss=0.2), saved(2, val_loss=0.4), saved(3, val_loss=0.1)]

    planned = plan(KeepLast(2) | KeepBest("val_loss", 2), history)

    assert reasons(planned) == {
        1: ("KeepBest('val_loss', 2): 0.2",),
        2: ("KeepLast(2)",),
        3: ("KeepLast(2)", "KeepBest('val_loss', 2): 0.1", "latest"),
    }


def test_both_rules_must_keep_each_having_seen_all() -> None:
    history = [saved(1, val_loss=0.2), saved(2, val_loss=0.4), saved(3, val_loss=0.1)]

    planned = plan(KeepLast(2) & KeepBest("val_loss", 2), history)

    assert reasons(planned) == {3: ("KeepLast(2)", "KeepBest('val_loss', 2): 0.1", "latest")}


def test_the_same_reason_is_given_once() -> None:
    assert reasons(plan(KeepLast(1) | KeepLast(1), [saved(1)])) == {1: ("KeepLast(1)", "latest")}


@pytest.mark.parametrize(
    "text",
    [
        "KeepAll()",
        "KeepLast(3)",
        "KeepBest('val_loss')",
        "KeepBest('val_loss', 2)",
        "KeepBest('score', mode='max')",
        "KeepBest('score', 2, mode='min')",
        "KeepEvery(steps=1000)",
        "KeepEvery(days=1, last=3)",
        "KeepEvery(hours=0.5)",
        "KeepWithin(minutes=90)",
        "KeepLast(3) | KeepBest('val_loss') | KeepEvery(days=1, last=3)",
        "KeepLast(3) & KeepWithin(days=1) | KeepAll()",
        "(KeepLast(3) | KeepAll()) & KeepWithin(days=1)",
    ],
)
def test_a_rule_is_shown_as_it_is_written(text: str) -> None:
    rule = eval(text)

    assert str(rule) == text
    assert eval(repr(rule), vars(retention)) == rule
    assert hash(eval(text)) == hash(rule)


def test_joining_does_not_depend_on_brackets() -> None:
    a, b, c = KeepLast(1), KeepLast(2), KeepLast(3)

    assert (a | b) | c == a | (b | c)
    assert (a & b) & c == a & (b & c)


@pytest.mark.parametrize("other", [3, None, "KeepLast(3)", KeepLast])
def test_a_rule_joins_with_rules_only(other: object) -> None:
    with pytest.raises(TypeError):
        KeepLast(3) | other  # type: ignore[operator]
    with pytest.raises(TypeError):
        KeepLast(3) & other  # type: ignore[operator]


# ------------------------------------------------------------------ the plan


def test_pins_and_what_is_spared_stay_and_say_so_in_a_fixed_order() -> None:
    history = [saved(step) for step in (1, 2, 3, 4)]
    first, second, _, last = (checkpoint.id for checkpoint in history)

    planned = plan(
        KeepLast(1),
        history,
        pinned={first: ["paper", "thesis"], last: ["demo"]},
        spared={second: "damaged: model.keras is missing", last: "just saved"},
    )

    assert reasons(planned) == {
        1: ("pinned: paper", "pinned: thesis"),
        2: ("damaged: model.keras is missing",),
        4: ("KeepLast(1)", "pinned: demo", "just saved", "latest"),
    }
    assert steps(planned.remove) == [3]


def test_a_pin_without_a_name_is_a_pin() -> None:
    history = [saved(1), saved(2)]

    assert reasons(plan(KeepLast(1), history, pinned={history[0].id: []}))[1] == ("pinned",)


def test_what_is_not_in_the_history_is_passed_over() -> None:
    gone = saved(7).id

    planned = plan(KeepLast(1), [saved(8)], pinned={gone: ["paper"]}, spared={gone: "just saved"})

    assert reasons(planned) == {8: ("KeepLast(1)", "latest")}


def test_the_order_that_a_history_comes_in_does_not_matter() -> None:
    history = [saved(9, session=1), saved(1, session=2), saved(2, session=2)]

    assert plan(KeepLast(1), history[::-1]) == plan(KeepLast(1), history)
    assert reasons(plan(KeepLast(1), history[::-1])) == {2: ("KeepLast(1)", "latest")}


def test_nothing_is_planned_for_an_empty_store() -> None:
    assert plan(KeepBest("val_loss"), []) == PrunePlan((), ())
    assert str(plan(KeepLast(3), [])) == "keep 0, remove 0"


def test_a_rule_that_keeps_nothing_is_refused_and_told_which_metrics_there_are() -> None:
    history = [saved(1, loss=0.3, acc=0.5), saved(2, loss=float("nan"))]

    with pytest.raises(InvalidInputError) as caught:
        plan(KeepLast(1) & KeepBest("val_loss"), history, pinned={history[0].id: ["paper"]})

    assert str(caught.value) == (
        "KeepLast(1) & KeepBest('val_loss') keeps none of 2 checkpoints, so nothing was removed. "
        "No checkpoint has a finite metric 'val_loss'; metrics present: acc, loss. "
        "Join it with a rule that always keeps something: "
        "KeepLast(1) & KeepBest('val_loss') | KeepLast(1)."
    )


@dataclass(frozen=True)
class KeepMilestones(Rule):
    """Keep the steps that were named in advance."""

    steps: tuple[int, ...]

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        return [checkpoint for checkpoint in history if checkpoint.step in self.steps]


def test_a_rule_of_your_own_has_its_text_reasons_and_joins_for_free() -> None:
    rule = KeepMilestones((100, 300)) | KeepLast(1)

    planned = plan(rule, [saved(100), saved(200), saved(300), saved(400)])

    assert reasons(planned) == {
        100: ("KeepMilestones((100, 300))",),
        300: ("KeepMilestones((100, 300))",),
        400: ("KeepLast(1)", "latest"),
    }


def test_a_rule_of_your_own_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"KeepMilestones\(\(5,\)\) keeps none of 1 check"):
        plan(KeepMilestones((5,)), [saved(1)])


def test_a_rule_that_keeps_a_stranger_is_refused() -> None:
    class KeepGhost(Rule):
        def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
            return [*history, saved(666)]

    with pytest.raises(InvalidInputError, match="000666-0001029a, which is not in the history"):
        plan(KeepGhost() | KeepLast(1), [saved(1)])


def test_a_rule_that_tells_no_reason_still_keeps() -> None:
    class KeepSilently(KeepMilestones):
        def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
            del history
            return {}

    planned = plan(KeepSilently((1,)), [saved(1), saved(2)])

    assert reasons(planned)[1] == ("KeepSilently((1,))",)


# ------------------------------------------------------------------ wrong arguments


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "3", None, float("nan")])
def test_a_count_is_a_whole_number_from_one(count: object) -> None:
    with pytest.raises(InvalidInputError, match=r"count is a whole number from 1, not "):
        KeepLast(count)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"count is a whole number from 1, not "):
        KeepBest("loss", count)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 0},
        {"steps": -5},
        {"steps": True},
        {"steps": 10.0},
        {"days": 0},
        {"days": -1},
        {"days": True},
        {"hours": float("nan")},
        {"hours": float("inf")},
        {"minutes": 1e-12},
        {"days": 1e300},
        {"days": 10**20},
        {"days": "1"},
        {"days": timedelta(days=1)},
        {"days": 1, "last": 0},
        {"days": 1, "last": True},
        {"steps": 1, "last": 2.0},
    ],
    ids=str,
)
def test_a_span_is_a_number_above_zero(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=r"^(steps|last) is a whole|is a number above 0, n"):
        KeepEvery(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ({}, "none"),
        ({"last": 3}, "none"),
        ({"steps": 5, "days": 1}, "steps, days"),
        ({"hours": 1, "minutes": 30}, "hours, minutes"),
    ],
    ids=str,
)
def test_a_span_is_given_once(arguments: dict[str, int], given: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        KeepEvery(**arguments)

    assert str(caught.value) == (
        f"KeepEvery takes exactly one of steps, days, hours, minutes; given: {given}."
    )


@pytest.mark.parametrize("arguments", [{}, {"days": 0}, {"hours": True}, {"days": 1, "hours": 1}])
def test_within_takes_one_time_above_zero(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError):
        KeepWithin(**arguments)


@pytest.mark.parametrize("metric", ["", None, 3])
@pytest.mark.parametrize("mode", ["auto", "min"])
def test_a_metric_has_a_name(metric: object, mode: str) -> None:
    with pytest.raises(InvalidInputError, match="a metric is a name such as 'val_loss', not "):
        KeepBest(metric, mode=mode)  # type: ignore[arg-type]


def test_a_mode_is_one_of_three() -> None:
    with pytest.raises(InvalidInputError, match="mode is 'min', 'max' or 'auto', not 'lowest'"):
        KeepBest("loss", mode="lowest")  # type: ignore[arg-type]


def test_numbers_of_numpy_become_plain_ones() -> None:
    numpy = pytest.importorskip("numpy")

    assert str(KeepLast(numpy.int64(3))) == "KeepLast(3)"
    assert str(KeepEvery(hours=numpy.float32(1.5))) == "KeepEvery(hours=1.5)"
    assert str(KeepWithin(days=numpy.int32(2))) == "KeepWithin(days=2)"


def test_of_an_empty_history_nothing_is_within() -> None:
    assert list(KeepWithin(days=1).keep([])) == []
