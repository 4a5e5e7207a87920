"""Saves to object storage: do they work, and what is left of the good one when the next fails."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from tests.beside.runs import Saved, fit, look
from tests.beside.strikes import drawn
from tests.beside.subject import USABLE, Subject, Verdict
from tests.crash.killer import Window, run
from tests.servers.proxy import Fault, FaultProxy, Request
from tests.servers.s3 import MotoServer

#: Seconds that a save may take which meets no answer.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Remote:
    """
    What became of saves to a remote place.

    Attributes:
        error (str): why nothing can be saved there; empty where it can.
        left (tuple[Verdict, ...]): what a new process finds after each second save that failed.
    """

    error: str = ""
    left: tuple[Verdict, ...] = ()

    @property
    def bad(self) -> int:
        """How many failed saves left nothing that a run can go on from."""
        return sum(each not in USABLE for each in self.left)


def to_s3(subject: Subject, root: Path, *, most: int, seed: int = 0) -> Remote:
    """Save twice to S3; from some request of the second save on every request is cut half-way."""
    window = Window()
    with MotoServer() as server, FaultProxy(server.endpoint) as proxy:
        reach = {
            **server.environment(),
            "AWS_ENDPOINT_URL_S3": proxy.endpoint,
            "XDG_CACHE_HOME": str(root / "cache"),  # what is staged is not this user's
        }

        def save(place: str) -> Saved:
            outcome = run(
                _reaching(reach, partial(fit, subject, place, window)),
                under=root,
                window=window,
                timeout=_PATIENCE,
            )
            if outcome.exit_code:
                raise RuntimeError(f"{subject.name} ends at {place}: {outcome}")
            return cast("Saved", outcome.result)

        asked: list[Request] = []

        def counts(request: Request) -> bool:
            if window:
                asked.append(request)
            return bool(window)

        proxy.plan(Fault("refuse", at=sys.maxsize, only=counts))  # which only counts
        whole = save(server.url("whole"))
        if whole.heard == "raised":
            return Remote(whole.error)
        found: list[Verdict] = []
        for at in drawn(len(asked), most, f"{seed} {subject.name}"):
            place = server.url(f"cut-{at}")
            proxy.plan(Fault("cut request", at, lasting=True, only=counts))
            save(place)
            proxy.plan()
            found += look(subject, [place], whole.saves, _reaching(reach, str))
        return Remote(left=tuple(found))


def _reaching(reach: dict[str, str], act: Callable[..., Any]) -> Callable[..., Any]:
    """The same, in a process that knows where the server is."""

    def acting(*given: Any) -> Any:
        os.environ.update(reach)
        return act(*given)

    return acting
