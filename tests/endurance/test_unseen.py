"""What is saved without network comes after what was there before, in the order of training."""

from pathlib import Path

import pytest

from holdfast import CheckpointStore, StorageError
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.endurance.network import Number
from tests.store.hooked import HookedBackend


class Place(HookedBackend):
    """A place without network, when it is told so."""

    is_gone = False

    def __init__(self) -> None:
        super().__init__(MemoryBackend(), self._around)

    def _around(self, verb, key, call):
        if self.is_gone:
            raise StorageError("no network.")
        return call()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def process(place: Place, tmp_path: Path):
    """The store as another process has it."""
    return lambda: CheckpointStore(place, workspace=tmp_path / "workspace", writer=Writer())


def stage(store: CheckpointStore, *steps: int) -> None:
    """Save where the place does not answer."""
    for step in steps:
        with pytest.raises(StorageError):
            store.save(Number(step), step=step)


def found(store: CheckpointStore) -> list[tuple[int, int]]:
    return [(each.session, each.step) for each in store]


def test_a_rollback_is_later_though_the_place_was_never_seen(process, place) -> None:
    place.is_gone = True
    stage(process(), 10, 20, 5, 6)
    place.is_gone = False

    process().recover()

    assert found(process()) == [(1, 10), (1, 20), (2, 5), (2, 6)]


def test_a_rollback_without_network_is_later_than_what_was_saved_before(process, place) -> None:
    store = process()
    store.save(Number(10), step=10)
    place.is_gone = True
    stage(store, 20, 5)
    place.is_gone = False

    process().recover()

    assert found(process()) == [(1, 10), (1, 20), (2, 5)]


def test_who_has_seen_the_place_comes_after_what_was_there(process, place) -> None:
    process().save(Number(10), step=10)
    store = process()
    assert store.latest().step == 10
    place.is_gone = True
    stage(store, 5)
    place.is_gone = False

    process().recover()

    assert found(process()) == [(1, 10), (2, 5)]


def test_processes_that_never_saw_the_place_come_one_after_the_other(process, place) -> None:
    place.is_gone = True
    for steps in ((10, 20), (10, 15), (1,)):
        stage(process(), *steps)
    place.is_gone = False

    process().recover()

    assert found(process()) == [(1, 10), (1, 20), (2, 10), (2, 15), (3, 1)]
