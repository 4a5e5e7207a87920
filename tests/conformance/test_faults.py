"""
Every request of every operation is struck by every fault; nothing is lost, nothing partial is seen.

Some of it is drawn, of which each second fault comes on one day, and the others on the next;
HOLDFAST_LONG=1 tries everything.
"""

import random
import shutil
from collections.abc import Iterator

import pytest

from tests import share
from tests.conformance import faults, troubles
from tests.conformance.places import SERVED
from tests.servers.proxy import FaultProxy

OPERATIONS = [scene.name for scene in faults.operations()]
#: How many faults of a save, and of each other operation, are drawn for one place.
OF_A_SAVE, OF_ANOTHER = 36, 4


@pytest.fixture
def play(request, place, lines, home) -> Iterator[faults.Play]:
    scene = next(each for each in faults.operations() if each.name == request.param)
    yield faults.Play(scene, place, lines(place.name), home / "play")
    shutil.rmtree(home / "play")


@pytest.mark.parametrize("play", OPERATIONS, indirect=True)
@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_a_fault_at_any_request_loses_nothing_and_shows_nothing_partial(play) -> None:
    count = play.requests()
    cases = [(trouble, at) for trouble in troubles.TROUBLES for at in range(1, count + 1)]
    if not share.LONG:
        some = OF_A_SAVE if play.scene.may_add and not play.scene.must_add else OF_ANOTHER
        cases = random.Random(play.scene.name).sample(cases, min(some, len(cases)))
        first, every = share.turn(2)
        cases = cases[first - 1 :: every]

    broken = {}
    for trouble, at in cases:
        try:
            play.strike(trouble, at)
        except Exception as error:  # whatever is wrong here, the next start is not well
            broken[trouble.name, at] = f"{type(error).__name__}: {error}"

    listed = "\n".join(f"{where}: {what[:2000]}" for where, what in broken.items())
    assert not broken, f"{len(broken)} of {len(cases)}:\n{listed}"


@pytest.mark.parametrize("play", OPERATIONS if share.LONG else ["resume and save"], indirect=True)
@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_no_request_is_sent_on_to_another_host(play, place) -> None:
    with FaultProxy(place.endpoint) as other:
        numbers = list(range(1, play.requests() + 1))
        for at in numbers if share.LONG else numbers[::4]:
            play.strike(troubles.elsewhere(other.endpoint), at)

        assert other.requests == []
