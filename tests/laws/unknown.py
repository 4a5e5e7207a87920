"""Whatever fails while a store that is not empty is looked at, nobody says that it is empty."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from holdfast import CheckpointStore, layout
from holdfast.errors import (
    AccessDenied,
    CorruptionError,
    DeadlineExceeded,
    FormatError,
    NotFoundError,
    StorageError,
)
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.laws.quick import quick
from tests.laws.rounds import Weights
from tests.store.checks import quiet
from tests.store.hooked import HookedBackend


@dataclass(frozen=True)
class Trouble:
    """
    What a place answers in the place of a result.

    Attributes:
        name (str): what it is called.
        error (Callable): makes it, as it leaves a backend; None where bytes come damaged.
    """

    name: str
    error: Callable[[str], StorageError] | None


TROUBLES = (
    Trouble("the network is lost", StorageError),
    Trouble("the deadline has passed", DeadlineExceeded),
    Trouble("503 after all tries", StorageError),
    Trouble("401, the token has expired", AccessDenied),
    Trouble("403", AccessDenied),
    Trouble("the bucket does not exist", StorageError),
    Trouble("EIO", lambda text: StorageError(text, errno=5)),
    Trouble("EMFILE", lambda text: StorageError(text, errno=24)),
    Trouble("other bytes come than lie there", None),
)

LOOKS: dict[str, Callable[[CheckpointStore], object]] = {
    "latest": CheckpointStore.latest,
    "checkpoints": CheckpointStore.checkpoints,
    "best": lambda store: store.best("loss"),
    "find": lambda store: store.find("latest"),
    "the length": len,
    "reversed": lambda store: list(reversed(store)),
    "restore": lambda store: store.restore(Weights()),
    "verify": lambda store: store.verify(deep=True).checked or store.verify(deep=True).damage,
    "pins": CheckpointStore.pins,
}


def looks(first: int = 1, every: int = 1) -> Iterator[str]:
    """Each look at a store of two checkpoints, with trouble at each call, once and for good."""
    yield from itertools.islice(_looks(), first - 1, None, every)


def _looks() -> Iterator[str]:
    with quick() as tmp:
        backend = MemoryBackend()
        first = CheckpointStore(backend, workspace=tmp, writer=Writer())
        for step in (1, 2):
            saved = first.save(Weights(b"weights"), step=step, metrics={"loss": 0.5})
            first.pin(saved, "paper")
        for name, look in LOOKS.items():
            for trouble in TROUBLES:
                for lasting in (False, True):
                    at = calls = 0
                    while at <= calls:
                        at += 1
                        struck = _Struck(backend, trouble, at, lasting=lasting)
                        store = CheckpointStore(struck, workspace=tmp, writer=Writer())
                        found = _outcome(look, store)
                        calls = struck.count
                        where = f"{name}, {trouble.name}{' for good' * lasting} at call {at}"
                        yield found and f"{where}: {found}"


def _outcome(look: Callable[[CheckpointStore], object], store: CheckpointStore) -> str:
    with quiet():
        try:
            found = look(store)
        except NotFoundError as error:
            return f"it says {error}"
        except (StorageError, CorruptionError, FormatError):
            return ""
        return "" if found else f"it says {found!r}"


class _Struck(HookedBackend):
    """A place with trouble at one call, or from it on."""

    def __init__(self, inner: MemoryBackend, trouble: Trouble, at: int, *, lasting: bool) -> None:
        super().__init__(inner, self._strike)
        self.count = 0
        self._trouble = trouble
        self._at = at
        self._lasting = lasting

    def _strike(self, verb: str, key: str, call: Callable[[], object]) -> object:
        self.count += 1
        if self.count < self._at or (self.count > self._at and not self._lasting):
            return call()
        if self._trouble.error is not None:
            raise self._trouble.error(f"cannot {verb} {key}: {self._trouble.name}")
        found = call()
        if verb == "read" and key.startswith(layout.MANIFESTS):
            return found[: len(found) // 2]
        return found
