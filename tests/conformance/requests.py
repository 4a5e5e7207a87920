"""
How many requests each operation costs on each place.

`python -m tests.conformance.requests` prints the table of docs/explanation/costs.md.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast import CheckpointStore, Files, KeepLast, layout, manifest
from holdfast.retention import Rule
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.conformance.places import TABLE, Place
from tests.servers.proxy import FaultProxy

#: The places of the table, as people call them.
NAMES = {"moto": "S3", "gcs": "GCS", "drive": "Google Drive"}
#: How many checkpoints a look is taken at.
FEW, MANY = 10, 1_000
VERY_MANY = 100_000
FILE = b"weights"


def history(home: Path, count: int, *, with_files: bool = True) -> dict[str, bytes]:
    """The objects of a store with so many checkpoints of one file each."""
    memory = MemoryBackend()
    one = CheckpointStore(memory, workspace=home / "seed", writer=Writer()).save(
        _file(home), step=0
    )
    objects: dict[str, bytes] = {}
    for step in range(count):
        each = dataclasses.replace(one, id=dataclasses.replace(one.id, step=step))
        objects[layout.manifest_key(each.id)] = manifest.write(each)
        if with_files:
            objects[layout.file_key(each.id, "model.bin")] = FILE
    return objects


@dataclasses.dataclass
class Bill:
    """
    The requests of operations on one place.

    Attributes:
        place: where.
        proxy: counts.
        home: a directory of this machine.
    """

    place: Place
    proxy: FaultProxy
    home: Path

    def open(self, retention: Rule | None = None) -> CheckpointStore:
        """The store as a process that has just started has it."""
        return CheckpointStore(
            self.place.backend(endpoint=self.proxy.endpoint),
            retention=retention,
            workspace=self.home / "workspace",
            writer=Writer(),
        )

    def cost(self, act: Callable[[], object]) -> int:
        """How many requests something makes."""
        before = len(self.proxy.requests)
        act()
        return len(self.proxy.requests) - before

    def latest(self, count: int) -> int:
        """The newest of so many."""
        self.place.fill(history(self.home, count, with_files=False))
        store = self.open()

        def look() -> None:
            latest = store.latest()
            assert latest is not None
            assert latest.step == count - 1

        return self.cost(look)

    def all(self) -> Iterator[tuple[str, int]]:
        """Every line of the table for a store of ten checkpoints, with what it costs."""
        self.place.fill(history(self.home, FEW))
        file = _file(self.home)
        store = self.open()
        yield "a save, the first of a process", self.cost(lambda: store.save(file, step=FEW))
        yield "each later save", self.cost(lambda: store.save(file, step=FEW + 1))
        store.retention = KeepLast(FEW)
        store.prune()
        yield (
            "each later save, when its pruning removes one checkpoint",
            self.cost(lambda: store.save(file, step=FEW + 2)),
        )
        fresh = self.open()
        target = Files(self.home / "restored")
        yield f"`checkpoints()` of {FEW}", self.cost(fresh.checkpoints)
        yield "the same again in one process", self.cost(fresh.checkpoints)
        resumed = self.open()
        yield "a resume: look, and restore the newest", self.cost(lambda: resumed.restore(target))


def _file(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    (home / "model.bin").write_bytes(FILE)
    return home / "model.bin"


def column(place: Place, proxy: FaultProxy, home: Path) -> dict[str, int]:
    """Every line of the table for one place, with its number of requests."""
    bill = Bill(place, proxy, home)
    counts = [FEW, MANY, *[VERY_MANY] * bool(os.environ.get("HOLDFAST_LONG"))]
    return {f"`latest()` among {count:,}": bill.latest(count) for count in counts} | dict(
        bill.all()
    )


def table() -> str:
    """The table in Markdown."""
    columns: list[dict[str, int]] = []
    for name in NAMES:
        with (
            tempfile.TemporaryDirectory() as directory,
            TABLE[name](Path(directory) / "place") as place,
            FaultProxy(place.endpoint or "") as proxy,
        ):
            columns.append(column(place, proxy, Path(directory)))
    head = f"| requests of | {' | '.join(NAMES.values())} |\n|---|{'---:|' * len(NAMES)}"
    lines = [
        f"| {line} | {' | '.join(str(column[line]) for column in columns)} |" for line in columns[0]
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    print(table())
