"""What this process knows of a place in Drive better than the listings, which lag behind."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from holdfast.backends.gdrive.items import Item

#: Seconds after which listings are believed to show what was done.
_LAG_S = 600.0
#: Keys are spread over so many locks.
_LOCKS = 64


@dataclass
class Attempt:
    """
    A file or folder of which nobody heard yet whether it was made.

    Attributes:
        id (str): what it has, if it was; a second one of that id is refused.
        address (str): where the parts of a large file go to; empty before the first.
        lock (threading.Lock): held by the one try that is under way.
    """

    id: str
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Known:
    """
    What this process has done in a place, and with what Drive has not answered yet.

    Paths go from the folder that the URL begins with; those of folders end with `/`.

    Parameters:
        clock (Callable[[], float]): seconds since any fixed moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        #: By path. While a try is without an answer a second one takes the same id, so that two
        #: files never come of it.
        self.attempts: dict[str, Attempt] = {}
        #: Held while folders are made or removed.
        self.making = threading.Lock()
        #: The twins that were warned of.
        self.warned: set[str] = set()
        self._creating = [threading.Lock() for _ in range(_LOCKS)]
        self._guard = threading.Lock()
        self._writing: list[str] = []
        self._written: dict[str, tuple[float, Item]] = {}
        self._gone: dict[str, float] = {}

    def creating(self, path: str) -> threading.Lock:
        """Held while a small object is created."""
        return self._creating[hash(path) % _LOCKS]

    @contextlib.contextmanager
    def writing(self, directory: str) -> Iterator[None]:
        """While something is put into a folder, which therefore stays."""
        with self.making:
            self._writing.append(directory)
        try:
            yield
        finally:
            self._writing.remove(directory)

    def is_used(self, directory: str) -> bool:
        """Whether this process puts something into a folder, or has lately done so."""
        writing = any(path.startswith(directory) for path in [*self._writing, *self.attempts])
        return writing or bool(self.written_in(directory))

    def wrote(self, path: str, item: Item) -> None:
        """Note what was made under a path."""
        with self._guard:
            self._forget_old()
            self._written[path] = (self.clock(), item)

    def removed(self, id: str) -> None:
        """Note what was removed."""
        with self._guard:
            self._forget_old()
            self._gone[id] = self.clock()
            self._written = {
                path: noted for path, noted in self._written.items() if noted[1].id != id
            }

    def is_gone(self, id: str) -> bool:
        """Whether this process has removed it."""
        return id in self._gone

    def written(self, path: str) -> Item | None:
        """What was lately made under a path."""
        with self._guard:
            self._forget_old()
            noted = self._written.get(path)
        return noted and noted[1]

    def written_in(self, directory: str) -> dict[str, Item]:
        """What was lately made in a folder, by name; the names of folders end with `/`."""
        with self._guard:
            self._forget_old()
            found = {
                path.removeprefix(directory): item
                for path, (_, item) in self._written.items()
                if path.startswith(directory)
            }
        return {name: item for name, item in found.items() if name and "/" not in name[:-1]}

    def _forget_old(self) -> None:
        old = self.clock() - _LAG_S
        # They are in the order of their times.
        while self._written and (first := next(iter(self._written.items())))[1][0] < old:
            del self._written[first[0]]
        while self._gone and (gone := next(iter(self._gone.items())))[1] < old:
            del self._gone[gone[0]]
