"""
A store that is used for long on a place that fails leaks nothing, and holds what its rule keeps.

Each run of the tests plays some hundred cycles, others each day; `make torture` plays thousands.
"""

import threading
from collections.abc import Callable

import pytest

from holdfast import catalog, disk, hashing, staging
from holdfast.backends import retrying
from tests import share
from tests.endurance import soak
from tests.endurance.soak import Usage

Fault = Callable[[pytest.MonkeyPatch], None]
COUNT = 2_000 if share.LONG else 100


def broken(count: int, *, local: bool) -> list[str]:
    """What was broken in so many cycles, and what leaked."""
    return [wrong for wrong in soak.soaks(share.SEED, count, local=local) if wrong]


@pytest.mark.parametrize("local", [True, False], ids=["on a disk", "in memory"])
def test_long_use_with_faults_leaves_what_the_rule_keeps_and_leaks_nothing(local, apart) -> None:
    assert apart(played, local) == []


def played(local: bool) -> list[str]:
    """In a process of its own, where nobody else holds anything."""
    return broken(COUNT, local=local)


# Leaks on purpose.


def objects(patch: pytest.MonkeyPatch) -> None:
    def add(self, checkpoint) -> None:
        held.append(checkpoint)
        added(self, checkpoint)

    held, added = [], catalog.Catalog.add
    patch.setattr(catalog.Catalog, "add", add)


def memory(patch: pytest.MonkeyPatch) -> None:
    def hash_file(path):
        held.append(b"x" * 4_000_000)  # one is as much as noise may be
        return hashed(path)

    held, hashed = [], hashing.hash_file
    patch.setattr(hashing, "hash_file", hash_file)


def threads(patch: pytest.MonkeyPatch) -> None:
    def run(self) -> None:
        ran(self)
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    ran = retrying._Worker._run
    patch.setattr(retrying._Worker, "_run", run)


def descriptors(patch: pytest.MonkeyPatch) -> None:
    def release(self) -> None:
        disk.Lock._held.pop((disk.os.getpid(), self.path), None)

    patch.setattr(disk.Lock, "release", release)


def drafts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging.Draft, "_remove", lambda self: None)


@pytest.mark.parametrize(
    ("leak", "told"),
    [
        (objects, "objects grew"),
        (memory, "memory grew"),
        (threads, "threads grew"),
        (descriptors, "descriptors grew"),
        (drafts, "drafts are left in the workspace"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_leak_on_purpose_is_told(leak: Fault, told: str, apart) -> None:
    assert told in apart(with_leak, leak)


def with_leak(leak: Fault) -> str:
    """What is told of some cycles with a leak."""
    with pytest.MonkeyPatch.context() as patch:
        leak(patch)
        return "; ".join(broken(16, local=False))


def test_a_megabyte_in_ten_thousand_cycles_is_the_bound() -> None:
    def usage(bytes_in_a_cycle: float, step: float = 0) -> list[Usage]:
        return [
            Usage(cycle, int(5e7 + cycle * bytes_in_a_cycle + step * (cycle > at)), 9, 1, 6)
            for cycle in range(50, 20_001, 50)
        ]

    at = 12_000
    assert list(soak.leaks(usage(99))) == []
    assert "memory grew by" in "".join(soak.leaks(usage(101)))
    assert list(soak.leaks(usage(0, step=2e6))) == []
    assert "memory grew by" in "".join(soak.leaks(usage(101, step=-1e6)))
