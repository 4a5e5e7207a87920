"""Several callbacks in one store: each compares, prunes and resumes among what it made itself."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from holdfast import Checkpoint, CheckpointId, KeepBest, KeepLast, open_store
from holdfast.errors import CheckpointWarning
from holdfast.keras import ModelCheckpoint
from holdfast.series import KEY, KeepInSeries
from holdfast.testing import RuleContract, histories
from tests.frameworks.runs import new_model, play, same, set_all, values

LOSSES = [{"val_loss": loss} for loss in (0.5, 0.2, 0.4, 0.3)]


def files(store: Any) -> list[str]:
    return [file.path for each in store for file in each.files if "training" not in file.path]


def test_best_and_last_in_one_directory(tmp_path: Path, model: Any) -> None:
    more: dict[str, Any] = {"background": False, "retention": KeepLast(1)}
    best = ModelCheckpoint(tmp_path / "best.keras", save_best_only=True, **more)
    last = ModelCheckpoint(tmp_path / "last.keras", **more)

    for epoch, logs in enumerate(LOSSES):
        set_all(model, epoch)
        play(model, [best, last], [logs], first=epoch)

    store = open_store(tmp_path)
    assert files(store) == ["best.keras", "last.keras"]
    assert [each.metadata["epoch"] for each in store] == [2, 4]
    assert best.best == 0.2
    for callback, epoch in ((best, 1), (last, 3)):
        fresh = new_model()
        assert callback.resume(fresh) == epoch + 1
        assert fresh.get_weights()[0].flat[0] == epoch


def test_both_in_the_background_lose_nothing(tmp_path: Path, model: Any) -> None:
    best = ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    last = ModelCheckpoint(tmp_path / "last.keras")

    for epoch, logs in enumerate(LOSSES):
        play(model, [best, last], [logs], first=epoch)

    assert files(open_store(tmp_path)).count("best.keras") == 2
    assert files(open_store(tmp_path)).count("last.keras") == 4
    assert len({each.session for each in open_store(tmp_path)}) == 1


def test_the_best_of_another_series_does_not_count(tmp_path: Path, model: Any) -> None:
    play(model, [ModelCheckpoint(tmp_path / "other.keras", save_best_only=True)], LOSSES[1:2])

    ours = ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    play(model, [ours], LOSSES[:1])

    assert ours.best == 0.5
    assert files(ours.store) == ["other.keras", "best.keras"]


def test_another_series_is_not_resumed_in_silence(tmp_path: Path, model: Any) -> None:
    play(model, [ModelCheckpoint(tmp_path / "{epoch}.keras")], LOSSES[:1])
    fresh = new_model()
    before = values(fresh)

    with pytest.warns(CheckpointWarning, match="holds 1 checkpoints, and none of the series 'm.ke"):
        assert ModelCheckpoint(tmp_path / "m.keras").resume(fresh) == 0

    assert same(values(fresh), before)


def test_a_prune_keeps_the_newest_of_a_series(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(
        tmp_path / "{epoch}.keras", retention=KeepBest("val_loss"), background=False
    )

    play(model, [ours], LOSSES)

    assert files(ours.store) == ["2.keras", "4.keras"]


def checkpoint(step: int, series: str | None, loss: float = 0.5) -> Checkpoint:
    return Checkpoint(
        CheckpointId(1, step, "00000000"),
        datetime(2026, 1, 1, tzinfo=UTC),
        metrics={"val_loss": loss},
        metadata={} if series is None else {KEY: series},
    )


MINE = [checkpoint(step, "a.keras", 1 / step) for step in (1, 2, 3)]
OTHERS = [checkpoint(4, "b.keras"), checkpoint(5, None)]


def test_a_rule_is_applied_to_its_series_alone() -> None:
    rule = KeepInSeries("a.keras", KeepLast(1))

    reasons = rule.reasons([*MINE, *OTHERS])

    assert list(reasons) == [*OTHERS, MINE[-1]]
    assert reasons[OTHERS[0]] == ("another series",)
    assert reasons[MINE[-1]] == ("KeepLast(1)", "latest of a.keras")
    assert str(rule) == "KeepLast(1) in a.keras"


def in_series(drawn: tuple[Sequence[Checkpoint], Sequence[str]]) -> list[Checkpoint]:
    history, names = drawn
    return [replace(each, metadata={KEY: name}) for each, name in zip(history, names, strict=False)]


class TestKeepInSeries(RuleContract):
    rule = KeepInSeries("a.keras", KeepLast(2) | KeepBest("val_loss"))

    def histories(self) -> st.SearchStrategy[Sequence[Checkpoint]]:
        names = st.lists(st.sampled_from(["a.keras", "b.keras"]), min_size=6, max_size=6)
        return st.tuples(histories(max_size=6), names).map(in_series)
