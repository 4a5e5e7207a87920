"""A backend that fails on purpose, so that every way to fail can be tried one by one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from holdfast.backends.base import Backend, Entry, Moved, Traits, unwatched
from holdfast.errors import StorageError

Verb = Literal["create", "read", "upload", "download", "scan", "delete"]
T = TypeVar("T")


class Died(BaseException):
    """Stands for the death of the process: no `except Exception` stops it."""


@dataclass(frozen=True)
class Fault:
    """
    One failure on purpose.

    Attributes:
        at (int): which call it strikes, counted from 1.
        when (str): `before` the call takes effect, or `after`, which is a reply that was lost.
        error (Callable[[str], BaseException]): makes what is raised, from a message; a class of
            errors will do, and `Died` ends the process.
        verb (str | None): counts the calls of this verb alone.
        lasting (bool): every later call that is counted fails too, before it takes effect.
    """

    at: int
    when: Literal["before", "after"] = "before"
    error: Callable[[str], BaseException] = StorageError
    verb: Verb | None = None
    lasting: bool = False


@dataclass(frozen=True)
class Call:
    """A verb that was called, and the key or the prefix that it was called with."""

    verb: Verb
    key: str


class FaultBackend:
    """
    Any backend, with failures where the plan says, and a record of the calls made.

    A scan that fails `after` has given all its entries and then fails in place of ending.

    Parameters:
        inner (Backend): does the work.
        plan (Iterable[Fault]): the failures.
        hidden (int): a scan does not show so many of the keys that were created or uploaded last,
            as a place whose listings lag.

    Attributes:
        inner (Backend): as given.
        calls (list[Call]): what was called so far, those that failed too.
    """

    def __init__(self, inner: Backend, plan: Iterable[Fault] = (), *, hidden: int = 0) -> None:
        self.inner = inner
        self.calls: list[Call] = []
        self._plan = tuple(plan)
        self._hidden = hidden
        self._newest: list[str] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The place of the inner backend."""
        return self.inner.url

    @property
    def traits(self) -> Traits:
        """How the inner place behaves."""
        return self.inner.traits

    def free_bytes(self) -> int | None:
        """How many bytes still fit there; None where there is no bound, or the place tells none."""
        return self.inner.free_bytes()

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""
        self._call("create", key, lambda: self._put(key, lambda: self.inner.create(key, data)))

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        return self._call("read", key, lambda: self.inner.read(key))

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key."""

        def put() -> None:
            self._put(key, lambda: self.inner.upload(source, key, moved))

        self._call("upload", key, put)

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet."""
        self._call("download", key, lambda: self.inner.download(key, target, moved))

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, in order."""
        before, late = self._strike("scan", prefix)
        if before:
            raise before
        return self._listed(prefix, after, late)

    def delete(self, *keys: str) -> None:
        """Remove objects, each as a call of its own, since a batch may end in the middle."""
        for key in keys:
            self._call("delete", key, partial(self.inner.delete, key))

    def _listed(self, prefix: str, after: str, late: BaseException | None) -> Iterator[Entry]:
        with self._lock:
            unseen = self._newest[len(self._newest) - self._hidden :]
        for entry in self.inner.scan(prefix, after):
            if entry.key not in unseen:
                yield entry
        if late:
            raise late

    def _put(self, key: str, put: Callable[[], None]) -> None:
        put()
        with self._lock:
            self._newest.append(key)

    def _call(self, verb: Verb, key: str, call: Callable[[], T]) -> T:
        before, late = self._strike(verb, key)
        if before:
            raise before
        result = call()
        if late:
            raise late
        return result

    def _strike(self, verb: Verb, key: str) -> tuple[BaseException | None, BaseException | None]:
        """Record a call; what it is to fail with before and after it takes effect, if it is."""
        with self._lock:
            self.calls.append(Call(verb, key))
            counts = {
                None: len(self.calls),
                verb: sum(call.verb == verb for call in self.calls),
            }
        for fault in self._plan:
            count = counts.get(fault.verb, 0)
            message = f"{verb} {key}: a fault on purpose, at call {count}"
            if count == fault.at and fault.when == "after":
                return None, fault.error(message)
            if count == fault.at or (fault.lasting and count > fault.at):
                return fault.error(message), None
        return None, None
