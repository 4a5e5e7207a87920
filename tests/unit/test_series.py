"""What one callback made is kept by its rule, whatever else lies beside it in the store."""

from datetime import UTC, datetime

import pytest

from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.retention import KeepBest, KeepLast, plan
from holdfast.series import KEY, KeepInSeries, belongs

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def saved(step: int, series: str | None = None, **metrics: float) -> Checkpoint:
    metadata = {} if series is None else {KEY: series}
    id = CheckpointId(1, step, "00000000")
    return Checkpoint(id, MOMENT, metrics=metrics, metadata=metadata)


HISTORY = [
    saved(1, "best", loss=0.1),
    saved(2, "every", loss=0.4),
    saved(3, "best", loss=0.3),
    saved(4, "best", loss=0.2),
    saved(5),
    saved(6, "every", loss=0.5),
]


def test_a_checkpoint_belongs_to_the_series_that_it_was_saved_under() -> None:
    assert belongs(saved(1, "best"), "best")
    assert not belongs(saved(1, "every"), "best")
    assert not belongs(saved(1), "best")


def test_the_rule_sees_its_series_and_the_others_stay() -> None:
    kept = KeepInSeries("best", KeepLast(2)).keep(HISTORY)

    assert sorted(each.step for each in kept) == [2, 3, 4, 5, 6]


def test_the_newest_of_the_series_stays_though_it_is_not_the_best() -> None:
    kept = KeepInSeries("best", KeepBest("loss")).keep(HISTORY)

    assert sorted(each.step for each in kept) == [1, 2, 4, 5, 6]


def test_each_has_its_reasons() -> None:
    told = KeepInSeries("best", KeepLast(2)).reasons(HISTORY)

    assert {each.step: why for each, why in told.items()} == {
        2: ("another series",),
        3: ("KeepLast(2)",),
        4: ("KeepLast(2)", "latest of best"),
        5: ("another series",),
        6: ("another series",),
    }


def test_the_newest_that_the_rule_does_not_keep_has_a_reason_of_its_own() -> None:
    told = KeepInSeries("best", KeepBest("loss")).reasons(HISTORY)

    assert told[HISTORY[3]] == ("latest of best",)
    assert told[HISTORY[0]] == ("KeepBest('loss'): 0.1",)


@pytest.mark.parametrize("history", [[], [saved(1, "every"), saved(2)]])
def test_a_series_without_a_checkpoint_keeps_all_others(history: list[Checkpoint]) -> None:
    assert KeepInSeries("best", KeepLast(1)).keep(history) == history


def test_two_series_are_pruned_side_by_side() -> None:
    both = KeepInSeries("best", KeepLast(1)) & KeepInSeries("every", KeepLast(1))

    assert [gone.step for gone in plan(both, HISTORY).remove] == [1, 2, 3]


def test_it_is_written_as_the_rule_and_the_series() -> None:
    assert str(KeepInSeries("best", KeepLast(2))) == "KeepLast(2) in best"


def test_the_name_of_the_series_is_kept_where_every_version_finds_it() -> None:
    assert KEY == "series"


def test_two_of_the_same_rule_and_series_are_one() -> None:
    assert len({KeepInSeries("best", KeepLast(2)), KeepInSeries("best", KeepLast(2))}) == 1
