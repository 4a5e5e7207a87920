"""
Every fault at every request, and every kill at every request, of every operation on a place.

Each is played in a process that does nothing else; what was broken is told with what it takes to
play it alone.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from holdfast.backends import ranges
from tests.conformance import faults, troubles
from tests.conformance.line import Line
from tests.conformance.places import TABLE, Place
from tests.conformance.processes import Victim
from tests.crash.points import memory
from tests.servers.proxy import FaultProxy

#: The operations in which a process is killed; those that only look leave nothing behind.
KILLED = ("resume and save", "prune", "sweep", "recover", "pin and unpin", "restore")
#: A process is killed before its request is passed on, or once it took effect and before the reply.
WHENS: tuple[Literal["before", "after"], ...] = ("before", "after")


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """What a power cut leaves is tried elsewhere, and no clock is handed to a transfer's pauses."""
    sync, pause = os.fsync, ranges._FIRST_PAUSE_S
    os.fsync, ranges._FIRST_PAUSE_S = lambda _: None, 0.0
    try:
        yield
    finally:
        os.fsync, ranges._FIRST_PAUSE_S = sync, pause


@contextlib.contextmanager
def before(name: str) -> Iterator[tuple[Place, FaultProxy, Path]]:
    """A place with a proxy before its server, and a directory of this machine."""
    with (
        quick(),
        memory() as home,
        TABLE[name](home / name) as place,
        FaultProxy(place.endpoint or "") as proxy,
    ):
        yield place, proxy, home


def struck(
    first: int = 1, every: int = 1, *, name: str, only: tuple[str, ...] = ()
) -> Iterator[str]:
    """
    Let every request of every operation fail in every way.

    Parameters:
        first: which case is the first, counted from 1.
        every: each which case is played.
        name: the place.
        only: the names of the operations; none means all.
    """
    number = 0
    with before(name) as (place, proxy, home), FaultProxy(place.endpoint or "") as other:
        line = Line(place, proxy)
        redirected = troubles.elsewhere(other.endpoint)
        for scene in faults.operations():
            if only and scene.name not in only:
                continue
            play = faults.Play(scene, place, line, home / scene.name)
            for at in range(1, play.requests() + 1):
                for trouble in (*troubles.TROUBLES, redirected):
                    number += 1
                    if (number - first) % every or number < first:
                        continue
                    where = f"{name}, {scene.name}: {trouble.name} at request {at}"
                    yield _judged(where, lambda: play.strike(trouble, at))  # noqa: B023 - at once
                    if other.requests:
                        yield f"{where}: {other.requests[0]} was sent to another host"
                        other.plan()


def killed(
    first: int = 1, every: int = 1, *, name: str, only: tuple[str, ...] = KILLED
) -> Iterator[str]:
    """
    Kill a real process at every request of every operation; parameters as of `struck`.
    """
    number = 0
    with before(name) as (place, proxy, home):
        for scene in faults.operations():
            if scene.name not in only:
                continue
            victim = Victim(scene, place, proxy, home / scene.name)
            for at in range(1, victim.requests() + 1):
                for when in WHENS:
                    number += 1
                    if (number - first) % every or number < first:
                        continue
                    where = f"{name}, {scene.name}: killed {when} request {at}"
                    yield _judged(where, lambda: _kill(victim, when, at))  # noqa: B023 - at once


def _kill(victim: Victim, when: Literal["before", "after"], at: int) -> None:
    assert victim.kill(when, at), "it made no request"


def _judged(where: str, act: Callable[[], object]) -> str:
    try:
        act()
    except Exception as error:  # whatever is wrong here, the next start is not well
        return f"{where}: {type(error).__name__}: {error}"[:3000]
    return ""
