"""Several processes on one store, call by call: every order where that can be, else many seeds."""

import os
import tempfile
from pathlib import Path

import pytest

from holdfast.backends.base import Traits
from tests import share
from tests.laws import interleaved
from tests.laws.scheduler import Baton, every_schedule

#: Rounds of a crowd, of which a run plays each fourth, in so many parts.
ROUNDS, EACH, PARTS = 400, 4, 5
#: Where Linux keeps files in memory.
MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path_factory):
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("laws")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="holdfast-") as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What a power cut leaves is tried elsewhere; here a sync would only take time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def test_a_pin_holds_against_a_prune_in_every_order(tmp_path):
    assert interleaved.a_pin_holds_against_a_prune(tmp_path) > 300


def test_a_pin_holds_against_two_prunes_in_every_order_with_three_stops(tmp_path):
    assert interleaved.a_pin_holds_against_two_prunes(tmp_path) > 1000


def test_a_pin_holds_against_prunes_and_sweeps(tmp_path):
    assert interleaved.a_pin_holds_against_prunes_and_sweeps(tmp_path) == 150


@pytest.mark.parametrize("part", range(PARTS))
def test_everybody_at_once(tmp_path, part):
    first, every = share.turn(EACH, part)
    for seed in range(part + PARTS * (first - 1), ROUNDS, PARTS * every):
        (tmp_path / str(seed)).mkdir()
        interleaved.everybody_at_once(tmp_path / str(seed), seed)


# ------------------------------------------------------------- the scheduler itself


class Letters:
    """A backend on which every call leaves a letter."""

    url = "letters://"
    traits = Traits()

    def __init__(self):
        self.left = ""

    def read(self, key):
        self.left += key


def orders(words, **bounds):
    """Every order in which the letters of some words can follow each other."""
    found = []
    for choose in every_schedule(**bounds):
        letters = Letters()
        baton = Baton(choose)

        def spell(word, number, baton=baton, letters=letters):
            mine = baton.backend(letters, number, lambda verb, key: True)
            return lambda: [mine.read(letter) for letter in word]

        baton.run([spell(word, number) for number, word in enumerate(words)])
        found.append(letters.left)
    return found


def test_every_order_comes_up():
    found = orders(["ab", "xy"])

    assert set(found) == {"abxy", "axby", "axyb", "xaby", "xayb", "xyab"}


def test_with_three_actors_too():
    found = orders(["ab", "x", "12"])

    assert len(set(found)) == 30  # 5! / (2! 1! 2!)


def test_without_stops_they_come_one_after_the_other():
    assert sorted(orders(["ab", "xy"], preemptions=0)) == ["abxy", "xyab"]
    assert "xaby" in orders(["ab", "xy"], preemptions=1)
    assert "axby" not in orders(["ab", "xy"], preemptions=1)


def test_of_two_who_do_the_same_no_order_is_lost():
    every, less = orders(["aa", "aa", "x"]), orders(["aa", "aa", "x"], alike=(0, 1))

    assert len(less) < len(every)
    assert set(less) == set(every)


def test_an_actor_that_fails_stops_nobody():
    def fail():
        raise ZeroDivisionError

    for choose in every_schedule():
        first, second = Baton(choose).run([fail, lambda: "done"])

        assert isinstance(first, ZeroDivisionError)
        assert second == "done"
