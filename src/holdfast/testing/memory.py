"""A backend in memory: the plainest one that keeps the whole contract."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from holdfast import disk
from holdfast.backends.base import MOST_READ, Entry, Moved, Traits, unwatched
from holdfast.errors import AlreadyExists, NotFoundError


class MemoryBackend:
    """
    Objects in a dictionary, for tests and as the model that other backends are compared with.

    Parameters:
        clock (Callable[[], datetime]): gives the time that new objects carry.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.url = f"memory-{disk.new_name()}://"
        self.traits = Traits()
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def free_bytes(self) -> int | None:
        """How many bytes still fit there; None where there is no bound, or the place tells none."""
        return None

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken."""
        with self._lock:
            if key in self.objects:
                raise AlreadyExists(f"{key} exists already; what lies there is unchanged.")
            self.objects[key] = (data, self._clock())

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        return self._find(key)[:MOST_READ]

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key."""
        with disk.disk_errors("read", source):
            data = source.read_bytes()
        with self._lock:
            if self.objects.setdefault(key, (data, self._clock()))[0] != data:
                raise AlreadyExists(f"{key} exists with other content, which is unchanged.")
        moved(len(data))

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet."""
        data = self._find(key)
        with disk.disk_errors("write", target):
            disk.write_new(target, data)
        moved(len(data))

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, in order."""
        with self._lock:
            found = [
                Entry(key, len(data), modified)
                for key, (data, modified) in self.objects.items()
                if key.startswith(prefix) and key > after
            ]
        return iter(sorted(found, key=lambda entry: entry.key))

    def delete(self, *keys: str) -> None:
        """Remove objects; a key that is missing is fine."""
        with self._lock:
            for key in keys:
                self.objects.pop(key, None)

    def _find(self, key: str) -> bytes:
        try:
            return self.objects[key][0]
        except KeyError:
            raise NotFoundError(f"there is no {key}") from None
