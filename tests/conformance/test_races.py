"""Eight real processes save into one store at once, where a place claims that one wins."""

import pytest

from holdfast import CheckpointStore
from tests.conformance.processes import SAVES, race, take_turns


def store_of(place, home) -> CheckpointStore:
    return CheckpointStore(place.backend(), workspace=home / "workspace")


@pytest.mark.parametrize("place", ["local", "moto", "gcs"], indirect=True)
def test_every_acknowledged_save_of_eight_processes_is_there(place, tmp_path) -> None:
    assert place.exclusive

    told = race(place, tmp_path, 8)

    acknowledged = {id: each.number for each in told for id in each.acknowledged}
    assert len(acknowledged) == sum(len(each.acknowledged) for each in told), "an id given twice"
    store = store_of(place, tmp_path)
    assert {str(each.id): each.metadata["process"] for each in store} == acknowledged
    assert store.verify(deep=True).ok
    assert all(each.superseded or len(each.acknowledged) == SAVES for each in told)
    assert not all(each.superseded for each in told), "nobody was left to go on"


@pytest.mark.parametrize("place", ["rclone", "drive"], indirect=True)
def test_where_no_place_decides_processes_that_take_turns_lose_nothing(place, tmp_path) -> None:
    assert not place.exclusive

    told = take_turns(place, tmp_path, 3)

    acknowledged = {id: each.number for each in told for id in each.acknowledged}
    assert len(acknowledged) == 3 * SAVES
    store = store_of(place, tmp_path)
    assert {str(each.id): each.metadata["process"] for each in store} == acknowledged
    assert store.verify(deep=True).ok
    assert [each.superseded for each in told] == [False] * 3
