"""A real process is killed at any of its requests; the next one finds all in order."""

import os
import random
import shutil
from collections.abc import Iterator

import pytest

from tests.conformance import faults
from tests.conformance.places import SERVED
from tests.conformance.processes import Victim

LONG = bool(os.environ.get("HOLDFAST_LONG"))
OPERATIONS = ["resume and save", "prune", "sweep", "recover", "pin and unpin", "restore"]
#: Kills of a save, and of each other operation, that a short run tries on one place.
OF_A_SAVE, OF_ANOTHER = 8, 2


@pytest.fixture
def victim(request, place, proxy, home) -> Iterator[Victim]:
    scene = next(each for each in faults.operations() if each.name == request.param)
    yield Victim(scene, place, proxy, home / "victim")
    shutil.rmtree(home / "victim")


@pytest.mark.parametrize("victim", OPERATIONS, indirect=True)
@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_a_process_killed_at_any_request_loses_nothing(victim) -> None:
    count = victim.requests()
    points = [(when, at) for at in range(1, count + 1) for when in ("before", "after")]
    if not LONG:
        share = OF_A_SAVE if victim.scene.name == "resume and save" else OF_ANOTHER
        points = random.Random(victim.scene.name).sample(points, min(share, len(points)))

    broken, struck = {}, 0
    for when, at in points:
        try:
            struck += victim.kill(when, at)
        except Exception as error:  # whatever is wrong here, the next start is not well
            broken[when, at] = f"{type(error).__name__}: {error}"

    assert not broken, f"{len(broken)} of {len(points)}: {broken}"
    assert struck >= len(points) * 0.8, "the harness struck too few requests to say anything"
