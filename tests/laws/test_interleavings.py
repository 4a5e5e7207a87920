"""Several processes on one store, call by call: every order where that can be, else many seeds."""

import pytest

from holdfast import KeepLast, layout
from holdfast.backends.base import Traits
from holdfast.errors import StorageError
from tests import share
from tests.laws import crowd, interleaved, readers, unknown
from tests.laws.quick import quick
from tests.laws.rounds import Weights
from tests.laws.scheduler import Baton, every_schedule
from tests.store.checks import Scene, at_call, quiet
from tests.store.hooked import HookedBackend

#: How many times as many rounds a long run plays.
MORE = 10 if share.LONG else 1


@pytest.fixture
def tmp():
    with quick() as directory:
        yield directory


def test_a_pin_holds_against_a_prune_in_every_order(tmp):
    assert interleaved.a_pin_holds_against_a_prune(tmp) > 300


def test_a_pin_holds_against_two_prunes_in_every_order_with_three_stops(tmp):
    assert interleaved.a_pin_holds_against_two_prunes(tmp) > 1000


@pytest.mark.parametrize(
    ("rounds", "count"),
    [
        (interleaved.pins, 150),
        (crowd.crowds, 110),
        (crowd.clocks, 10),
        (readers.restores, 40),
        (readers.lags, 40),
    ],
    ids=lambda rounds: getattr(rounds, "__name__", ""),
)
def test_what_has_to_hold_holds_in_every_round(rounds, count):
    ends = list(rounds(share.SEED, count * MORE))

    assert len(ends) == count * MORE
    assert not any(ends), "\n".join(filter(None, ends))


def test_whatever_fails_nobody_says_that_a_store_is_empty():
    ends = list(unknown.looks())

    assert len(ends) > 600
    assert not any(ends), "\n".join(filter(None, ends))


# ------------------------------------------------------------- what was found


def test_a_restore_that_passes_over_damage_finds_what_came_since(tmp):
    """Whenever the good one goes, another has come before."""
    scene = Scene(tmp)
    at = over = 0
    while not over:
        at += 1
        scene.backend.objects.clear()
        store = scene.process()
        _, damaged = (store.save(scene.file, step=step) for step in (1, 2))
        del scene.backend.objects[layout.file_key(damaged.id, scene.file.name)]

        def replace(store=store):
            store.save(scene.file, step=3)
            store.prune(KeepLast(1))

        beside = at_call(at, replace)
        with quiet():
            found = scene.process(HookedBackend(scene.backend, beside)).restore(Weights())
        over = beside.keywords["count"][0] < at
        assert found.step == (1 if over else 3)
    assert at > 8


def test_a_checkpoint_whose_files_a_listing_does_not_show_yet_is_restored(tmp):
    scene = Scene(tmp)
    scene.backend.traits = Traits(fresh=False)
    saved = scene.process().save(scene.file, step=1)

    def late(verb, key, call):
        return [] if (verb, key) == ("scan", layout.files_prefix(saved.id)) else call()

    assert scene.process(HookedBackend(scene.backend, late)).restore(Weights()) == saved


def test_nothing_listed_where_something_was_seen_is_unknown_where_listings_lag(tmp):
    scene = Scene(tmp)
    scene.backend.traits = Traits(fresh=False)
    scene.process().save(scene.file, step=1)
    reader = scene.process()
    assert reader.latest()

    scene.backend.objects.clear()

    with pytest.raises(StorageError, match="what is there now is unknown"):
        reader.latest()


# ------------------------------------------------------------- the scheduler itself


def orders(words, **bounds):
    """Every order in which the letters of some words can follow each other."""
    found = []
    for choose in every_schedule(**bounds):
        left, baton = [], Baton(choose)

        def spell(word, number, baton=baton, left=left):
            def act():
                for letter in word:
                    baton.pass_on(number)
                    left.append(letter)

            return act

        baton.run([spell(word, number) for number, word in enumerate(words)])
        found.append("".join(left))
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
