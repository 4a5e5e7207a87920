"""What waits for a place that does not answer: bounded, staged when it has to be, sent once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import CheckpointStore, PendingSaveError, Saver, StorageError, preflight
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.endurance.network import Number
from tests.endurance.outage import drafts_in
from tests.store import checks
from tests.store.hooked import HookedBackend

#: Seconds until a test that hangs fails.
PATIENCE = 30


class Place:
    """A place whose calls wait, or fail."""

    def __init__(self) -> None:
        self.answers, self.asked = threading.Event(), threading.Event()
        self.answers.set()
        self.fails = False
        self.kept = MemoryBackend()
        self.backend = HookedBackend(self.kept, self._around)

    def _around(self, verb, key, call):
        self.asked.set()
        assert self.answers.wait(PATIENCE)
        if self.fails:
            raise StorageError("no network.")
        return call()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(preflight, "once", lambda *_, **__: None)
    monkeypatch.setattr("holdfast.saver.PATIENCE_SECONDS", 0)
    place = Place()
    yield place
    place.answers.set()


@pytest.fixture
def store(place: Place, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(place.backend, workspace=tmp_path / "workspace", writer=Writer())


def hang(saver: Saver, place: Place, step: int) -> None:
    """Begin a save whose publishing hangs."""
    place.asked.clear()
    place.answers.clear()
    saver.save(Number(step), step=step)
    assert place.asked.wait(PATIENCE)


def test_what_failed_before_gives_way_while_a_place_hangs(store, place) -> None:
    saver = Saver(store, max_pending=2)
    place.fails = True
    with checks.quiet():
        for step in (1, 2, 3):
            saver.save(Number(step), step=step)
            saver._drain()
        hang(saver, place, 4)
        for step in (5, 6, 7):
            saver.save(Number(step), step=step)

            assert len(drafts_in(store.workspace.path)) == 3

        place.fails = False
        place.answers.set()
        saver.close()
    assert checks.steps(place.kept)[-2:] == [6, 7]


def test_a_wait_that_may_end_early_stages_what_waits_behind_a_place_that_hangs(
    store, place
) -> None:
    saver = Saver(store)
    saver.save(Number(1), step=1).result(PATIENCE)
    hang(saver, place, 2)
    saver.save(Number(3), step=3)

    assert saver.wait(timeout=0) is False

    assert store.workspace.sealed() == 2, "the last save is in memory alone"
    place.answers.set()
    saver.close()
    assert checks.steps(place.kept) == [1, 2, 3]


def test_what_cannot_be_staged_while_a_place_hangs_is_told(store, place) -> None:
    class Broken(Number):
        def snapshot(self):
            return self

        def write_to(self, directory):
            raise ZeroDivisionError

    saver = Saver(store)
    saver.save(Number(1), step=1).result(PATIENCE)
    hang(saver, place, 2)
    future = saver.save(Broken(3), step=3)

    with checks.told("saving step 3 failed"):
        assert saver.wait(timeout=0) is False

    with pytest.raises(PendingSaveError):
        future.result(0)
    place.answers.set()
    saver._drain()
    assert checks.steps(place.kept) == [1, 2]


def test_a_place_that_fails_is_not_asked_before_a_save_is_staged(store, place) -> None:
    saver = Saver(store)
    place.fails = True
    with checks.quiet():
        saver.save(Number(1), step=1)
        saver._drain()
        hang(saver, place, 2)

    assert store.workspace.sealed() == 2, "its seal waits for the place"
    place.fails = False
    place.answers.set()
    saver.close()
    assert checks.steps(place.kept) == [1, 2]


def test_a_closed_saver_sends_nothing_more_of_what_it_gave_up(store, place) -> None:
    saver = Saver(store)
    place.fails = True
    with checks.quiet():
        saver.save(Number(1), step=1)
        with pytest.raises(PendingSaveError):
            saver.close()
    place.fails = False

    Saver.settle(store.url)

    assert checks.steps(place.kept) == []
    assert [each.step for each in store.recover()] == [1]
