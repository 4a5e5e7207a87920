"""Real processes that work on a place and are killed at one of their requests."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from holdfast.backends import open_backend
from holdfast.backends.base import Backend
from tests.conformance import faults
from tests.conformance.line import Metered
from tests.conformance.places import Place
from tests.crash import scenes
from tests.servers.proxy import FaultProxy, Request

#: Children that share the imports, and neither threads nor connections with this process.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["holdfast.backends.s3", "holdfast.backends.gcs", "holdfast.backends.gdrive", __name__]
)


def opened(url: str, options: Mapping[str, Any]) -> Backend:
    """A place by a name that stays when the place gets another URL."""
    backend = open_backend(url, options)
    getattr(backend, "inner", backend).url = Metered.url
    return backend


@dataclass
class Victim:
    """
    One operation on one place, done by a child that is killed.

    Attributes:
        scene: the operation.
        place: where.
        proxy: what the child's requests pass.
        home: a directory of this machine.
        mutant: breaks the code on purpose, in the child alone.
    """

    scene: scenes.Scene
    place: Place
    proxy: FaultProxy
    home: Path
    mutant: Callable[[pytest.MonkeyPatch], None] | None = None

    def __post_init__(self) -> None:
        self.proxy.plan()
        self.place.fill({})
        medium = faults.Behind(self.place, self._direct)
        self.scene = replace(self.scene, medium=medium)
        self.scene.build(self.home / "template")

    def requests(self) -> int:
        """How many requests the child makes when nobody kills it."""
        assert self._live(None) == 0
        return len(self.proxy.requests)

    def kill(self, when: Literal["before", "after"], at: int) -> bool:
        """
        Kill the child before its request is passed on, or once it took effect; then judge.

        How many requests it makes differs: on some servers two files that go into a new directory
        are in each other's way, and one is sent again. The last stands in for one too many.

        Returns:
            bool: False if it made no request.

        Raises:
            AssertionError: a promise is broken.
        """
        ended = self._live((when, at))
        if ended == 0:
            made = len(self.proxy.requests)
            assert made < at, f"request {at} of {made} did not kill it"
            return made > 0 and self.kill(when, made)
        assert ended == -signal.SIGKILL
        scenes.judge(self.scene, self.home / "run")
        keys = [key for key, _ in self.place.objects()]
        assert len(keys) == len(set(keys)), f"twins: {keys}"
        return True

    def _live(self, death: tuple[str, int] | None) -> int | None:
        self.scene.prepare(self.home / "run")
        self.proxy.plan()
        options = self.place.options(endpoint=self.proxy.endpoint)
        given = (self.scene.name, self.home / "run", self.place.url, options, self.mutant)
        child = CONTEXT.Process(target=_act, args=given)

        def strike(request: Request) -> None:
            if death and request.index == death[1]:
                assert child.pid
                os.kill(child.pid, signal.SIGKILL)
                raise ConnectionAbortedError

        if death:
            setattr(self.proxy, death[0], strike)
        child.start()
        child.join(faults.PATIENCE_S)
        if child.exitcode is None:
            child.kill()
            raise AssertionError("the child was never over")
        self.proxy.drain()
        return child.exitcode

    def _direct(self) -> Backend:
        return opened(self.place.url, self.place.options())


def _act(
    name: str,
    home: Path,
    url: str,
    options: Mapping[str, Any],
    mutant: Callable[[pytest.MonkeyPatch], None] | None,
) -> None:
    os.fsync = lambda _: None  # what a power cut leaves is tried elsewhere
    if mutant:
        mutant(pytest.MonkeyPatch())
    scene = next(each for each in faults.operations() if each.name == name)
    medium = _Child(url, options)
    scene.act(replace(scene, medium=medium), home)


class _Child(scenes.Disk):
    """The medium as the child has it."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._given = url, options

    def backend(self, place: Path) -> Backend:
        return opened(*self._given)

    def workspace(self, place: Path) -> Path:
        return place / "workspace"
