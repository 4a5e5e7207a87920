"""
Ten minutes without network cost training nothing, and everything staged is published afterwards.

Each run of the tests plays some outages, others each day; `make torture` plays thousands.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast import layout, saver, staging
from holdfast.pending import Pending
from holdfast.saver import Saver
from holdfast.testing import MemoryBackend
from tests import share
from tests.crash.points import memory
from tests.endurance import outage
from tests.endurance.network import Network

Fault = Callable[[pytest.MonkeyPatch], None]


def broken(play: Callable[[int, int], Iterator[str]], seed: int, count: int) -> list[str]:
    """What was broken in some outages."""
    return [wrong for wrong in play(seed, count) if wrong]


def test_an_outage_costs_training_nothing_and_everything_is_sent_after_it(apart) -> None:
    assert apart(broken, outage.outages, share.SEED, 500 if share.LONG else 6) == []


def test_a_process_that_dies_without_network_leaves_all_to_the_next_one(apart) -> None:
    assert apart(broken, outage.killed_outages, share.SEED, 500 if share.LONG else 3) == []


def test_the_client_of_s3_gets_over_an_outage() -> None:
    pytest.importorskip("moto")
    from tests.endurance import served  # noqa: PLC0415 - moto takes seconds to import

    assert broken(served.outages_on_s3, share.SEED, 20 if share.LONG else 1) == []


# Code that is broken on purpose.


def without_a_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pending, "take_surplus", lambda self: [])


def a_save_that_waits_for_the_place(patch: pytest.MonkeyPatch) -> None:
    def save(self, *given, **more):
        future = behind(self, *given, **more)
        self._drain()
        return future

    behind = Saver.save
    patch.setattr(Saver, "save", save)


def a_failure_that_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Saver, "_tell", lambda *_: None)


def a_draft_that_is_dropped_when_it_cannot_be_sent(patch: pytest.MonkeyPatch) -> None:
    def send(self, job):
        try:
            sent(self, job)
        except BaseException:
            job.draft.discard()
            raise

    sent = Saver._send
    patch.setattr(Saver, "_send", send)


def an_age_that_does_not_grow(patch: pytest.MonkeyPatch) -> None:
    class Stopped(Saver):
        """Its clock stands still."""

        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            now = self._clock()
            self._clock = lambda: now

    patch.setattr(outage, "Saver", Stopped)


@pytest.mark.parametrize(
    "fault",
    [
        without_a_bound,
        a_save_that_waits_for_the_place,
        a_failure_that_is_not_told,
        a_draft_that_is_dropped_when_it_cannot_be_sent,
        an_age_that_does_not_grow,
    ],
    ids=lambda fault: fault.__name__,
)
def test_code_broken_on_purpose_is_caught(fault: Fault, apart) -> None:
    assert apart(is_caught, fault, outage.outages)


def a_session_that_forgets_what_came_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging.Workspace, "newest_session", lambda self, *, but: 0)


def test_the_order_of_processes_that_never_saw_the_place_is_looked_at(apart) -> None:
    assert apart(is_caught, a_session_that_forgets_what_came_before, outage.killed_outages)


def a_lost_reply_that_counts_as_a_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging.Draft, "assigned", lambda self: None)
    published = saver.CheckpointStore.publish

    def publish(self, draft):
        draft.turn = self._writer.turn(draft.step)
        return published(self, draft)

    patch.setattr(saver.CheckpointStore, "publish", publish)


def test_a_commit_whose_reply_was_lost_is_looked_at(apart) -> None:
    assert apart(is_caught, a_lost_reply_that_counts_as_a_failure, at_a_commit)


class GoneAtACommit(Network):
    """Whatever calls come before it, the one whose reply is lost creates a manifest."""

    def _pass(self, verb: str, key: str, call: Callable[[], Any]) -> Any:
        if self._calls_left:
            is_commit = verb == "create" and key.startswith(layout.MANIFESTS)
            self._calls_left = 1 if is_commit else 2
        return super()._pass(verb, key, call)


def at_a_commit(seed: int, count: int) -> Iterator[str]:
    """The network goes while a manifest is created, and what was saved then is sent afterwards."""
    plan = outage.Plan(3, 250.0, 2, calls=1, after=1, kinds=("refused",))
    with memory() as folder:
        place, workspace = MemoryBackend(), folder / "workspace"
        draw = random.Random(seed)
        training = outage.Training(plan, place, workspace, draw, make=GoneAtACommit)
        yield outage.outlived(training, place, workspace)
        assert training.network.lost.startswith(layout.MANIFESTS)


def test_a_commit_whose_reply_was_lost_is_no_failure() -> None:
    assert broken(at_a_commit, 1, 1) == []


def is_caught(fault: Fault, play: Callable[[int, int], Iterator[str]]) -> bool:
    """Whether one of some outages shows what is broken."""
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        return any(play(7, 25))
