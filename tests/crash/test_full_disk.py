"""A disk that is full, read-only or failing: a clear error, and what is committed is untouched."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import AccessDenied, StorageError, StorageFull
from tests.crash import killer, scenes

FAULTS = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EROFS: StorageError,
    errno.EIO: StorageError,
    errno.EACCES: AccessDenied,
}


@pytest.fixture
def scene(tmp_path: Path) -> scenes.Scene:
    scene = next(each for each in scenes.scenes(tmp_path / "elsewhere") if each.name == "save")
    scene.build(tmp_path / "template")
    return scene


def outcomes(scene: scenes.Scene, place: Path, number: int) -> Iterator[killer.Outcome]:
    """Every call of a save fails for good from some point on; those of the model itself do not."""
    return killer.points(
        lambda: scene.act(scene, place),
        under=place / "store",
        prepare=lambda: scene.prepare(place),
        how=number,
        sticky=True,
    )


def went_on(outcome: killer.Outcome) -> bool:
    """Whether the failure came after the commit, and was no more than a warning."""
    if outcome.error is not None and outcome.error.type == "CheckpointWarning":
        return "step 40 is committed" in outcome.error.message
    return outcome.error is None


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
def test_a_failing_disk_is_a_clear_error_and_costs_nothing(
    number: int, scene: scenes.Scene, tmp_path: Path
) -> None:
    place = tmp_path / "run"

    raised = 0
    for outcome in outcomes(scene, place, number):
        scenes.judge(scene, place)
        if went_on(outcome):
            continue
        raised += 1
        expected = {FAULTS[number].__name__, *(kind.__name__ for kind in FAULTS[number].__bases__)}
        assert outcome.error.type in expected, outcome.error.traceback
        assert "committed is untouched" in outcome.error.message

    assert raised > 20


def test_a_disk_that_is_full_for_one_call_only_is_no_worse(
    scene: scenes.Scene, tmp_path: Path
) -> None:
    place = tmp_path / "run"

    for outcome in killer.points(
        lambda: scene.act(scene, place),
        under=place / "store",
        prepare=lambda: scene.prepare(place),
        how=errno.ENOSPC,
    ):
        assert went_on(outcome) or outcome.error.type == "StorageFull", outcome.error
        scenes.judge(scene, place)
