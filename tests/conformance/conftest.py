"""The places of the table, each started once and stopped at the end."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance import points
from tests.conformance.line import Line
from tests.conformance.places import TABLE, Place
from tests.servers.proxy import FaultProxy

#: Where Linux keeps files in memory.
MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def without_waiting() -> Iterator[None]:
    """Neither syncs nor pauses take time here."""
    with points.quick():
        yield


@pytest.fixture(scope="session", name="home")
def in_memory() -> Iterator[Path]:
    """A directory in memory where the machine has that."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="holdfast-", dir=memory) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def started(home: Path) -> Iterator[Callable[[str], tuple[Place, FaultProxy | None]]]:
    """Gives a place by its name, with a proxy before its server."""
    running: dict[str, tuple[Place, FaultProxy | None]] = {}
    with contextlib.ExitStack() as stack:

        def start(name: str) -> tuple[Place, FaultProxy | None]:
            if name not in running:
                place = stack.enter_context(TABLE[name](home / name))
                proxy = place.endpoint and stack.enter_context(FaultProxy(place.endpoint))
                running[name] = (place, proxy or None)
            return running[name]

        yield start


@pytest.fixture
def place(request: pytest.FixtureRequest, started) -> Place:
    """The place that the test is for, empty."""
    place, proxy = started(request.param)
    if proxy:
        proxy.plan()
    place.fill({})
    return place


@pytest.fixture
def proxy(place: Place, started) -> FaultProxy:
    """What stands before its server."""
    return started(place.name)[1]


@pytest.fixture(scope="session")
def lines(started) -> Callable[[str], Line]:
    """The line to a place, whose client is made once."""
    known: dict[str, Line] = {}

    def line(name: str) -> Line:
        if name not in known:
            known[name] = Line(*started(name))
        return known[name]

    return line
