"""Ten minutes without network between the real client of S3 and its server."""

import random
from collections.abc import Iterator
from functools import partial

from holdfast.backends.base import Backend
from holdfast.backends.retrying import RetryingBackend
from tests.conformance.places import moto
from tests.crash.points import memory
from tests.endurance.clock import Clock
from tests.endurance.network import Kind, Network
from tests.endurance.outage import Plan, Training, outlived
from tests.servers.proxy import Fault, FaultProxy


class Wire(Network):
    """A network that is cut at a proxy, so that the client itself meets what happens then."""

    def __init__(
        self, inner: Backend, clock: Clock, draw: random.Random, *, proxy: FaultProxy
    ) -> None:
        super().__init__(inner, clock, draw)
        self._proxy = proxy

    def cut(self, kinds: tuple[Kind, ...], *, after: int) -> None:
        self.cut_at = self._clock.now
        self._proxy.plan(Fault("refuse", after + 1, lasting=True))

    def mend(self) -> None:
        super().mend()
        self._proxy.plan()


def outages_on_s3(seed: int, count: int) -> Iterator[str]:
    """Outages that the process outlives, in front of S3; what was broken in each, or nothing."""
    with memory() as folder, moto(folder / "server") as place, FaultProxy(place.endpoint) as proxy:
        opened = place.backend(endpoint=proxy.endpoint)
        assert isinstance(opened, RetryingBackend)
        for case in range(count):
            place.fill({})
            proxy.plan()
            plan, draw = Plan.of(seed, case), random.Random(f"{seed} {case}")
            workspace = folder / f"workspace-{case}"
            make = partial(Wire, proxy=proxy)
            training = Training(plan, opened.inner, workspace, draw, make=make)
            wrong = outlived(training, opened.inner, workspace)
            yield f"outages_on_s3({seed}, …) {case}, {plan}: {wrong}" if wrong else ""
