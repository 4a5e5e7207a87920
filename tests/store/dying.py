"""Another process on the same place, which can die before or after any of its calls."""

import gc
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.testing import MemoryBackend
from tests.store.hooked import HookedBackend

#: The process: gets its backend, and a function that tells what it has seen acknowledged.
Work = Callable[[HookedBackend, Callable[[str], None]], None]


@dataclass(frozen=True)
class Death:
    """Where a process dies: before the call with this number takes effect, or after it has."""

    at: int
    when: str

    def __str__(self) -> str:
        return f"{self.when} call {self.at}"


@dataclass(frozen=True)
class End:
    """How a process ended: whether it died, its calls, and what it was told is done."""

    died: bool
    calls: list[tuple[str, str]]
    acknowledged: list[str]


def in_another_process(backend: MemoryBackend, work: Work, death: Death | None = None) -> End:
    """
    Run the work in a forked process, which ends as if it were killed, and wait for its end.

    It ends by `os._exit`: no handler runs, and its locks go with it. What it did to the objects in
    memory is brought over.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _live(backend, work, death, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    end, backend.objects, trouble = pickle.loads(told)
    assert trouble is None, trouble
    return end


def deaths(backend: MemoryBackend, work: Work) -> Iterator[tuple[Death, End]]:
    """
    Let the work die at every one of its calls in turn, each time from the same beginning.

    The caller looks at what is left whenever it gets one; the last one did not die. What lies on
    the disk is the caller's to put back.
    """
    beginning = dict(backend.objects)
    for when in ("before", "after"):
        at, died = 0, True
        while died:
            at += 1
            backend.objects = dict(beginning)
            end = in_another_process(backend, work, Death(at, when))
            died = end.died
            yield Death(at, when), end


def _live(backend: MemoryBackend, work: Work, death: Death | None, pipe: int) -> None:
    gc.disable()  # a collection would copy every page that the parent shares
    calls: list[tuple[str, str]] = []
    acknowledged: list[str] = []

    def leave(died: bool, trouble: str | None = None) -> None:
        told = pickle.dumps((End(died, calls, acknowledged), backend.objects, trouble))
        with os.fdopen(pipe, "wb") as out:
            out.write(told)
        os._exit(0)

    def around(verb: str, key: str, call: Callable[[], Any]) -> Any:
        calls.append((verb, key))
        mine = death is not None and death.at == len(calls)
        if mine and death.when == "before":
            leave(died=True)
        result = call()
        if mine:
            leave(died=True)
        return result

    try:
        work(HookedBackend(backend, around), acknowledged.append)
    except BaseException:
        leave(died=False, trouble=traceback.format_exc())
    leave(died=False)
