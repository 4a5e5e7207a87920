"""
A plain loop that is ended at any moment loses nothing that was acknowledged, and is resumed.

Each run of the tests sends some signals, at other moments each day; `make torture` sends hundreds.
"""

from collections.abc import Callable, Iterator

import pytest

from holdfast import Preemption, saver
from holdfast.saver import Saver
from tests import share
from tests.endurance import terminated

Fault = Callable[[pytest.MonkeyPatch], None]


def broken(play: Callable[[int, int], Iterator[str]], count: int) -> list[str]:
    return [wrong for wrong in play(share.SEED, count) if wrong]


def test_sigterm_at_any_moment_saves_what_is_trained(apart) -> None:
    assert apart(broken, terminated.terms, 100 if share.LONG else 20) == []


def test_a_loop_that_is_killed_again_and_again_ends_as_one_that_never_was(apart) -> None:
    assert apart(broken, terminated.kills, 500 if share.LONG else 10) == []


# Code that is broken on purpose.


def a_wait_that_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Saver, "_drain", lambda self, timeout=None: True)


def an_end_that_forgets_the_handler_before(patch: pytest.MonkeyPatch) -> None:
    def end(self) -> None:
        terminated.signal.signal(terminated.signal.SIGTERM, terminated.signal.SIG_DFL)
        terminated.os.kill(terminated.os.getpid(), terminated.signal.SIGTERM)

    patch.setattr(Preemption, "end", end)


def an_end_with_a_code_of_its_own(patch: pytest.MonkeyPatch) -> None:
    def end(self) -> None:
        raise SystemExit(0)

    patch.setattr(Preemption, "end", end)


def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    def stage(self, job, *, ask) -> None:
        staged(self, job, ask=ask)
        saver._finish(job.future, job.draft.sealed)

    staged = Saver._stage
    patch.setattr(Saver, "_stage", stage)


def a_generator_that_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    def restore(self, directory) -> None:
        state = self.random.bit_generator.state
        restored(self, directory)
        self.random.bit_generator.state = state

    restored = terminated.Weights.restore
    patch.setattr(terminated.Weights, "restore", restore)


@pytest.mark.parametrize(
    ("fault", "play"),
    [
        (a_wait_that_does_not_wait, terminated.terms),
        (an_end_that_forgets_the_handler_before, terminated.terms),
        (an_end_with_a_code_of_its_own, terminated.terms),
        (acknowledged_before_the_commit, terminated.kills),
        (a_generator_that_is_not_kept, terminated.kills),
    ],
    ids=lambda value: value.__name__,
)
def test_code_broken_on_purpose_is_caught(
    fault: Fault, play: Callable[[int, int], Iterator[str]], apart
) -> None:
    assert apart(is_caught, fault, play)


def is_caught(fault: Fault, play: Callable[[int, int], Iterator[str]]) -> bool:
    """Whether one of some signals shows what is broken."""
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        return any(play(7, 100))
