"""How many calls of its backend an operation makes, however many checkpoints there are."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from holdfast import CheckpointStore, Files, KeepLast, layout, manifest
from holdfast.testing import FaultBackend, MemoryBackend
from holdfast.writer import Writer

MANY = 10_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "model.bin").write_bytes(b"weights")
    return tmp_path / "model.bin"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> MemoryBackend:
    """Ten thousand checkpoints."""
    place = tmp_path_factory.mktemp("many")
    (place / "model.bin").write_bytes(b"weights")
    medium = MemoryBackend()
    one = CheckpointStore(medium, workspace=place / "w").save(place / "model.bin", step=0)
    for step in range(1, MANY):
        each = dataclasses.replace(one, id=dataclasses.replace(one.id, step=step))
        medium.create(layout.manifest_key(each.id), manifest.write(each))
        medium.create(layout.file_key(each.id, "model.bin"), b"weights")
    return medium


@pytest.fixture
def store(many: MemoryBackend, tmp_path: Path) -> CheckpointStore:
    """They are seen by a process that has not looked yet."""
    medium = MemoryBackend()
    medium.objects = dict(many.objects)
    return another(medium, tmp_path)


def another(medium: MemoryBackend, place: Path, **options: object) -> CheckpointStore:
    backend = FaultBackend(medium)
    store = CheckpointStore(backend, workspace=place / "w", writer=Writer(), **options)
    store.counted = backend  # type: ignore[attr-defined]
    return store


def calls(store: CheckpointStore) -> Counter[str]:
    """The calls by their verb since the last time this was asked."""
    counted = Counter(call.verb for call in store.counted.calls)
    store.counted.calls.clear()
    return counted


def test_the_latest_of_ten_thousand_costs_one_scan_and_one_read(store: CheckpointStore) -> None:
    latest = store.latest()

    assert latest is not None
    assert latest.step == MANY - 1
    assert calls(store) == {"scan": 1, "read": 1}


def test_each_manifest_is_read_once(store: CheckpointStore) -> None:
    store.checkpoints()
    first = calls(store)

    store.checkpoints()

    assert first == {"scan": 1, "read": MANY}
    assert calls(store) == {"scan": 1}


def test_a_save_costs_the_same_however_many_there_are(store: CheckpointStore, file: Path) -> None:
    store.save(file, step=MANY)
    first = calls(store)

    store.save(file, step=MANY + 1)

    each = Counter({"scan": 3, "upload": 1, "create": 1})
    assert calls(store) == each
    assert first == each + Counter({"read": 1})


def test_a_restore_costs_a_look_and_its_files(store: CheckpointStore, tmp_path: Path) -> None:
    store.restore(Files(tmp_path / "restored"))

    assert calls(store) == {"scan": 2, "read": 1, "download": 1}


def test_pruning_after_a_save_costs_four_scans_and_some_calls_for_each_that_goes(
    file: Path, tmp_path: Path
) -> None:
    store = another(MemoryBackend(), tmp_path, retention=KeepLast(3))
    for step in range(3):
        store.save(file, step=step)
    calls(store)

    store.save(file, step=3)

    saved = Counter({"scan": 3, "upload": 1, "create": 1})
    superseded = Counter({"scan": 1})
    looked = Counter({"scan": 4})
    removed = Counter({"create": 1, "scan": 3, "delete": 3})
    assert calls(store) == saved + superseded + looked + removed
