"""Eight real processes race at once, where a server decides that one wins."""

import pytest

from tests import share
from tests.conformance import races
from tests.conformance.places import SERVED
from tests.conformance.test_teeth import the_condition_is_left_out

DECIDE = [name for name in SERVED if name in races.EXCLUSIVE]
#: Each run tries another server, since a client takes its time to begin.
_FIRST, _EVERY = share.turn(len(DECIDE))
KEYS = 100


@pytest.mark.parametrize("name", DECIDE[_FIRST - 1 :: _EVERY])
def test_of_eight_processes_exactly_one_creates_a_key(name) -> None:
    broken = [case for case in races.creates(share.SEED, KEYS, name=name) if case]

    assert not broken


@pytest.mark.parametrize("name", DECIDE)
def test_every_acknowledged_save_of_eight_processes_is_there_and_one_goes_on(name) -> None:
    broken = [case for case in races.writers(share.SEED, 1, name=name) if case]

    assert not broken


def test_a_create_that_looks_first_and_then_writes_is_caught() -> None:
    mutant = the_condition_is_left_out

    assert any(races.creates(share.SEED, KEYS, name="moto", racers=2, mutant=mutant))


@pytest.mark.parametrize("place", [each for each in SERVED if each not in DECIDE], indirect=True)
def test_where_no_place_decides_processes_that_take_turns_lose_nothing(place, home) -> None:
    assert not place.exclusive

    told = races.take_turns(place, home / "turns", 3)

    assert all(each.goes_on for each in told)
    races.judge(place, place.url, home / "judge", told)
