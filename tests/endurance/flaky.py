"""A place of which one call in twenty fails, and who remembers what was committed there."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast import layout, manifest
from holdfast.backends.base import Backend, Entry, Moved, unwatched
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import StorageError
from tests.endurance.clock import PATIENCE_S, Clock
from tests.store.hooked import HookedBackend

#: Of how many calls one fails.
ONE_IN = 20


class Witness(HookedBackend):
    """Remembers what was ever committed in a place, whoever was told of it."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner, self._note)
        self.committed: dict[CheckpointId, Checkpoint] = {}

    def _note(self, verb: str, key: str, call: Callable[[], Any]) -> Any:
        result = call()
        if verb == "create" and (id := layout.parse_manifest_key(key)):
            found = manifest.read(self.inner.read(key), id)
            if isinstance(found, Checkpoint):
                self.committed[id] = found
        return result


class Flaky:
    """
    A backend that fails one call in so many: before it takes effect, afterwards, or half-way.

    Some calls hang in the place of failing, until `release`, and take effect then or not. That is
    before the next thing is done: a commit that takes effect only after a prune has removed what
    was committed meanwhile would show it again, without its files.
    """

    def __init__(self, inner: Backend, clock: Clock, draw: random.Random) -> None:
        self.inner, self.url, self.traits = inner, inner.url, inner.traits
        self.one_in, self.hangs = ONE_IN, False
        self._clock = clock
        self._draw = draw
        self._released = threading.Event()

    def release(self) -> None:
        """Let come to its end what hangs, and wait for that."""
        self._clock.go_on()
        self._released.set()
        for thread in threading.enumerate():
            if thread.name.startswith("holdfast "):
                thread.join(PATIENCE_S)
        self._released = threading.Event()

    def free_bytes(self) -> int | None:
        return self.inner.free_bytes()

    def create(self, key: str, data: bytes) -> None:
        self._call(f"create {key}", lambda: self.inner.create(key, data))

    def read(self, key: str) -> bytes:
        return self._call(f"read {key}", lambda: self.inner.read(key))

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        half = lambda: moved(source.stat().st_size // 2)  # noqa: E731
        self._call(f"upload {key}", lambda: self.inner.upload(source, key, moved), half)

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        self._call(f"download {key}", lambda: self.inner.download(key, target, moved))

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        found = list(self.inner.scan(prefix, after))
        try:
            self._call(f"list {prefix}", lambda: None)
        except StorageError:
            yield from found[: len(found) // 2]
            raise
        yield from found

    def delete(self, *keys: str) -> None:
        half = lambda: self.inner.delete(*keys[: len(keys) // 2])  # noqa: E731
        self._call(f"delete {keys[:1]}", lambda: self.inner.delete(*keys), half)

    def _call(
        self, what: str, call: Callable[[], Any], half: Callable[[], object] = lambda: None
    ) -> Any:
        if not self.one_in or self._draw.randrange(self.one_in):
            return call()
        how = self._draw.choice(["before", "after", "half-way", *["hangs"] * self.hangs])
        if how == "hangs":
            self._clock.hang(self._released)
            how = self._draw.choice(["before", "after"])
        if how == "after":
            call()
        elif how == "half-way":
            half()
        raise StorageError(f"cannot {what}: a fault on purpose.")
