"""
Plant what an attacker plants, do everything that can be done, and look at what was touched.

Nothing outside may be opened or changed, nothing of it may come to light inside, whatever is wrong
is an error of ours, and no operation hangs or takes memory as it is told to.
"""

import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.crash import killer
from tests.crash.points import memory
from tests.hostile.planted import PLANTS
from tests.hostile.watched import Canary
from tests.hostile.worlds import OPERATIONS, SECRET, World, leaked, perform

#: Seconds after which an operation is taken to hang.
_PATIENCE = 30.0
#: Bytes of memory that an operation may take beside what the process has already.
_MEMORY_BYTES = 256 * 1024 * 1024
CASES = [(plant, operation) for plant in PLANTS for operation in OPERATIONS]


def plants(first: int = 1, every: int = 1) -> Iterator[str]:
    """All operations on all that is planted, or each so many of these cases."""
    with memory() as place:
        world = World(place / "world")
        world.build()
        shutil.copytree(world.place, place / "template")
        for plant, operation in CASES[first - 1 :: every]:
            shutil.rmtree(world.place)
            shutil.copytree(place / "template", world.place)
            found = _judged(world, plant, operation)
            yield f"{plant}; {operation}: {found}" if found else ""


def play(plant: str, operation: str) -> str:
    """One case again."""
    number = CASES.index((plant, operation)) + 1
    (found,) = plants(number, len(CASES))
    return found


def _judged(world: World, plant: str, operation: str) -> str:
    """What was broken, or nothing."""
    PLANTS[plant](world)
    planted = frozenset(world.inside.rglob("*"))
    shares_a_file = any(path.stat().st_nlink > 1 for path in world.outside.glob("secret"))
    with Canary(world.outside, only_changes=shares_a_file) as canary:
        try:
            outcome = killer.run(lambda: _act(world, operation), under=Path("/"), timeout=_PATIENCE)
        except TimeoutError:
            return "it hangs"
        touched = canary.touched()
    if outcome.error is not None:
        return f"{outcome.error.type}: {outcome.error.message}"
    inside = f"{world.inside}/"
    touched += [
        f"{call.kind} {each}"
        for call in outcome.calls
        for each in (call.path, call.source)
        if each and not each.startswith((inside, "/memfd:", "/dev/null"))
    ]
    if touched:
        return f"touched was {touched}"
    said = f"{outcome.result}{outcome.output}"
    if SECRET.decode()[:20] in said:
        return f"it tells the secret: {said}"
    return f"the secret lies in {found}" if (found := leaked(world, planted)) else ""


def _act(world: World, operation: str) -> str:
    sys.dont_write_bytecode = True
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY_BYTES,) * 2)
    return perform(OPERATIONS[operation], world)
