"""
A real process is killed at any of its requests; the next one finds all in order.

Kills of a save are drawn each time, and of the other operations each second in turns;
HOLDFAST_LONG=1 tries everything.
"""

import random
import shutil
from collections.abc import Iterator

import pytest

from tests import share
from tests.conformance import faults
from tests.conformance.places import SERVED
from tests.conformance.processes import Victim

_FIRST, _EACH = share.turn(2)
OTHERS = ["prune", "sweep", "recover", "pin and unpin", "restore"][_FIRST - 1 :: _EACH]
#: Kills of a save, and of each other operation, that are drawn for one place.
OF_A_SAVE, OF_ANOTHER = 8, 2


@pytest.fixture
def victim(request, place, proxy, home) -> Iterator[Victim]:
    scene = next(each for each in faults.operations() if each.name == request.param)
    yield Victim(scene, place, proxy, home / "victim")
    shutil.rmtree(home / "victim")


@pytest.mark.parametrize("victim", ["resume and save", *OTHERS], indirect=True)
@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_a_process_killed_at_any_request_loses_nothing(victim) -> None:
    count = victim.requests()
    points = [(when, at) for at in range(1, count + 1) for when in ("before", "after")]
    if not share.LONG:
        some = OF_ANOTHER if victim.scene.name in OTHERS else OF_A_SAVE
        points = random.Random(victim.scene.name).sample(points, min(some, len(points)))

    broken = {}
    for when, at in points:
        try:
            assert victim.kill(when, at)
        except Exception as error:  # whatever is wrong here, the next start is not well
            broken[when, at] = f"{type(error).__name__}: {error}"

    assert not broken, f"{len(broken)} of {len(points)}: {broken}"
