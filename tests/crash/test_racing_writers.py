"""Eight real processes race on a disk: for keys, and to save into one store."""

from tests import share
from tests.conformance import races
from tests.conformance.test_teeth import exists_then_write

#: How many keys they race for, and how many stores they begin to save into.
KEYS, STORES = 500, 5


def test_of_eight_processes_exactly_one_creates_a_key() -> None:
    broken = [case for case in races.creates(share.SEED, KEYS) if case]

    assert not broken


def test_every_acknowledged_save_of_eight_processes_is_there_and_one_goes_on() -> None:
    broken = [case for case in races.writers(share.SEED, STORES) if case]

    assert not broken


def test_a_create_that_looks_first_and_then_writes_is_caught() -> None:
    assert any(races.creates(share.SEED, KEYS, mutant=exists_then_write))
