"""Another process on the same place, which can die before or after any of its calls."""

import gc
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.testing import MemoryBackend
from tests.store.hooked import HookedBackend

#: The process: gets its backend, and a function that tells what it has seen acknowledged.
Work = Callable[[HookedBackend, Callable[[str], None]], None]


@dataclass(frozen=True)
class Death:
    """
    Where a process dies.

    Attributes:
        at: the number of its call.
        when: `before` the call takes effect, or `after` it has; with `half` of what it writes in
            place, under the name of what is not finished; or while the call is `under way`, and
            takes effect later.
    """

    at: int
    when: str

    def __str__(self) -> str:
        return f"{self.when} call {self.at}"


@dataclass(frozen=True)
class End:
    """
    How a process ended.

    Attributes:
        died: whether it did.
        calls: its calls.
        acknowledged: what it was told is done.
        late: the key that was under way, and what comes to lie there; None if it goes.
    """

    died: bool
    calls: list[tuple[str, str]]
    acknowledged: list[str]
    late: tuple[str, tuple[bytes, datetime] | None] | None = None


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

    counting, leaving = threading.Lock(), threading.Lock()

    def leave(died: bool, trouble: str | None = None, undo: Any = None) -> None:
        leaving.acquire()  # for good: it dies once
        backend._lock.acquire()  # what other threads are at is not there any more
        late = undo and undo()
        told = pickle.dumps((End(died, calls, acknowledged, late), backend.objects, trouble))
        with os.fdopen(pipe, "wb") as out:
            out.write(told)
        os._exit(0)

    def around(verb: str, key: str, call: Callable[[], Any]) -> Any:
        with counting:
            calls.append((verb, key))
            mine = death is not None and death.at == len(calls)
        if mine and death.when == "before":
            leave(died=True)
        was = backend.objects.get(key)
        result = call()
        if mine and death.when in ("half", "under way"):
            leave(died=True, undo=lambda: _undone(backend, key, was, death.when))
        if mine:
            leave(died=True)
        return result

    try:
        work(HookedBackend(backend, around), acknowledged.append)
    except BaseException:
        leave(died=False, trouble=traceback.format_exc())
    leave(died=False)


def _undone(backend: MemoryBackend, key: str, was: Any, when: str) -> Any:
    """Take back what a call has written, or half of it; what is under way then."""
    now = backend.objects.pop(key, None)
    if was is not None:
        backend.objects[key] = was
    if when == "under way":
        return None if now == was else (key, now)
    if now is not None and was is None:
        data, written = now
        directory, _, name = key.rpartition("/")
        backend.objects[f"{directory}/~{name}"] = (data[: len(data) // 2], written)
    return None
