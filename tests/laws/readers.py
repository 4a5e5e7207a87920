"""Readers beside those who remove, where some checkpoints are damaged or listings lag behind."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast import CheckpointStore, KeepLast, layout
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import CorruptionError, FormatError, NotFoundError, StorageError
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.laws.quick import quick
from tests.laws.rounds import NOW, Objects, Round, Weights
from tests.laws.scheduler import at_random
from tests.store.checks import broken

#: How many checkpoints there are at the beginning.
SAVED = 4
#: By how many calls a listing may lag behind.
LAGS = (3, 20, 60)


def restores(seed: int, count: int) -> Iterator[str]:
    """Rounds in which a restore has to succeed whenever one good checkpoint is there."""
    return _rounds("restores", Restores, seed, count)


def lags(seed: int, count: int) -> Iterator[str]:
    """Rounds in which every listing is some calls old."""
    return _rounds("lags", Lags, seed, count)


def _rounds(what: str, kind: "type[Restores] | type[Lags]", seed: int, count: int) -> Iterator[str]:
    with quick() as tmp:
        objects = saved(tmp / "before")
        for case in range(count):
            trouble = kind(tmp / "round", f"{seed}-{case}", objects).end()
            yield trouble and f"{what}, seed {seed}, round {case}: {trouble}"


def saved(tmp: Path) -> Objects:
    """What every round begins with: two sessions of as many checkpoints."""
    backend = MemoryBackend()
    for session in range(2):
        store = CheckpointStore(backend, workspace=tmp, writer=Writer(f"before-{session}"))
        for step in range(SAVED // 2):
            store.save(Weights(f"{session} {step}".encode()), step=step)
    return backend.objects


class Restores(Round):
    """
    Two readers, a writer, two prunes and two sweeps; some of what was saved before is damaged.

    G4, G6: a restore gives a good checkpoint, and none older than the newest good one that was
    there all the time. It fails only where for a moment there was no good one.
    """

    def __init__(self, tmp: Path, name: str, objects: Objects) -> None:
        super().__init__(tmp, at_random(name), objects)
        self._numbers = random.Random(f"{name} acts")
        self._bad: set[CheckpointId] = set()
        for id in sorted(self.there):
            if self._numbers.random() < 0.5:
                self._damage(id)
        self._was_bare = 0
        for act in (self.read, self.read, self.write):
            self.process(act)
        for count in (1, 2):
            self.process(lambda store, count=count: store.prune(KeepLast(count)))
            self.process(lambda store: store.sweep(older_than=NOW))

    def end(self) -> str:
        """Let them run; what did not hold."""
        strange = [repr(end) for end in self.run() if isinstance(end, Exception)]
        self.clear()
        return "; ".join([*self.trouble, *strange])

    def read(self, store: CheckpointStore) -> None:
        for _ in range(2):
            began, good, state = len(self.calls), self._good(), Weights()
            try:
                restored = store.restore(state)
            except (CorruptionError, FormatError) as error:
                if self._was_bare < began and good:
                    self.trouble.append(f"R25: {max(good)} is good, and yet: {error}")
                continue
            if [file.hash for file in restored.files] != [state.hash]:
                self.trouble.append(f"G4: {restored} was restored with other bytes")
            if any(id > restored.id and self.has(id) for id in good):
                self.trouble.append(f"G6: {restored} was restored, and {max(good)} is good")

    def write(self, store: CheckpointStore) -> None:
        for step in (1, 3):
            store.save(Weights(f"new {step}".encode()), step=step)

    def _good(self) -> set[CheckpointId]:
        return self.there.keys() - self._bad

    def _check_gone(self, id: CheckpointId) -> None:
        super()._check_gone(id)
        if not self._good():
            self._was_bare = len(self.calls)

    def _damage(self, id: CheckpointId) -> None:
        """A bit of its file, its file's end, the file, or a bit of its manifest."""
        # One manifest stays readable: of a store in which none is, nothing can be said.
        is_first = id == min(self.there)
        what = self._numbers.choice(["bit", "end", "file", *["manifest"] * (not is_first)])
        key = layout.manifest_key(id) if what == "manifest" else layout.file_key(id, "model")
        data, modified = self.backend.objects.pop(key)
        if what != "file":
            changed = data[:-1] if what == "end" else bytes([data[0] ^ 1]) + data[1:]
            self.backend.objects[key] = (changed, modified)
        self._bad.add(id)


class Lags(Round):
    """
    A writer, a prune, a sweep and two readers; each listing is as it was some calls before.

    A process sees its own commits at once. What a reader takes for the latest has been committed;
    it may be older than the newest, but not by more than the lag; and it is never nothing where
    there was something to see, then or before.
    """

    def __init__(self, tmp: Path, name: str, objects: Objects) -> None:
        numbers = random.Random(f"{name} acts")
        self._most = numbers.choice(LAGS)
        super().__init__(
            tmp,
            at_random(name),
            numbers.choice([objects, {}]),
            lag=lambda: numbers.randint(0, self._most),
        )
        self._ever = {*self.there}
        acts: list[Callable[[CheckpointStore], object]] = [
            self.write,
            self.read,
            self.read,
            lambda store: store.prune(KeepLast(numbers.choice([1, 2]))),
            lambda store: store.sweep(older_than=NOW),
        ]
        for act in acts:
            self.process(act)

    def end(self) -> str:
        """Let them run; what did not hold."""
        strange = [repr(end) for end in self.run() if isinstance(end, Exception)]
        self.clear()
        return "; ".join([*self.trouble, *strange, *broken(self.backend)])

    def write(self, store: CheckpointStore) -> None:
        for step in (3, 4, 2):
            saved = store.save(Weights(f"new {step}".encode()), step=step)
            if (latest := store.latest()) != saved:
                self.trouble.append(f"{saved} is its own, and its latest is {latest}")

    def read(self, store: CheckpointStore) -> None:
        seen = False
        for look in (_newest, _last, _newest, _restored):
            can_be_seen = max(self._committed_at(len(self.calls) - self._most), default=None)
            try:
                found = look(store)
            except NotFoundError:
                found = None
            except StorageError as error:
                if "changes faster" not in str(error) and "lag behind" not in str(error):
                    raise
                continue
            if found is None:
                if seen or can_be_seen:
                    self.trouble.append(f"R20: found nothing, and {can_be_seen} can be seen")
            elif found.id not in self._ever or (can_be_seen and found.id < can_be_seen):
                self.trouble.append(f"R20: found {found}, and {can_be_seen} can be seen")
            seen = seen or found is not None

    def _check_new(self, id: CheckpointId, data: bytes) -> None:
        super()._check_new(id, data)
        if self.calls and self.has(id):
            self._ever.add(id)

    def _committed_at(self, call: int) -> set[CheckpointId]:
        ids = (layout.parse_manifest_key(key) for key in self.as_of(call))
        return {id for id in ids if id and id in self._ever}


def _newest(store: CheckpointStore) -> Checkpoint | None:
    return store.latest()


def _last(store: CheckpointStore) -> Checkpoint | None:
    return next(reversed(store.checkpoints()), None)


def _restored(store: CheckpointStore) -> Checkpoint:
    return store.restore(Weights())
