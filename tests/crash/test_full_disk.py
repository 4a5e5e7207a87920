"""
A disk that is full, read-only or failing: a clear error, and what is committed is untouched.

Each run of the tests lets a share of the calls fail, another one each day.
"""

import errno
from collections.abc import Callable, Iterator

import pytest

from holdfast import AccessDenied, StorageError, StorageFull
from tests import share
from tests.crash import killer, scenes
from tests.crash.points import memory

FAULTS = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EROFS: StorageError,
    errno.EIO: StorageError,
    errno.EACCES: AccessDenied,
}
#: Each so many of the calls of a save fails.
STRIDE = 3


def outcomes(number: int, first: int, every: int, *, sticky: bool) -> Iterator[killer.Outcome]:
    """A call of a save fails, for good or once; those of the model itself do not."""
    with memory() as directory:
        scene = next(each for each in scenes.scenes(directory) if each.name == "save")
        scene.build(directory / "template")
        place = directory / "run"
        for outcome in killer.points(
            lambda: scene.act(scene, place),
            under=place / "store",
            prepare=lambda: scene.prepare(place),
            how=number,
            sticky=sticky,
            first=first,
            every=every,
        ):
            scenes.judge(scene, place)
            yield outcome


def failed_for_good(number: int, first: int, every: int) -> int:
    """How many calls, failing from then on, made the save fail: each in the right way."""
    kind = FAULTS[number]
    expected = {each.__name__ for each in (kind, *kind.__bases__)}
    raised = 0
    for outcome in outcomes(number, first, every, sticky=True):
        if went_on(outcome):
            continue
        raised += 1
        error = outcome.error
        assert error.type in expected, error.traceback
        assert "committed is untouched" in error.message, error.traceback
    return raised


def failed_once(number: int, first: int, every: int) -> None:
    """A failure that is over is no worse."""
    for outcome in outcomes(number, first, every, sticky=False):
        assert went_on(outcome) or outcome.error.type == FAULTS[number].__name__, outcome.error


def went_on(outcome: killer.Outcome) -> bool:
    """Whether the failure came after the commit, and was no more than a warning."""
    if outcome.error is not None and outcome.error.type == "CheckpointWarning":
        return "step 40 is committed" in outcome.error.message
    return outcome.error is None


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
def test_a_failing_disk_is_a_clear_error_and_costs_nothing(
    number: int, apart: Callable[..., int]
) -> None:
    first, every = share.turn(STRIDE, [*FAULTS].index(number))

    raised = apart(failed_for_good, number, first, every)

    assert raised * every > 20


def test_a_disk_that_is_full_for_one_call_only_is_no_worse(apart: Callable[..., None]) -> None:
    apart(failed_once, errno.ENOSPC, *share.turn(STRIDE))
