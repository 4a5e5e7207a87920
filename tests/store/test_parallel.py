"""A place that gains by it is asked for several things at once."""

import threading
from pathlib import Path

import pytest

from holdfast import CheckpointStore, Files, StorageError
from holdfast.backends.base import Moved, Traits, unwatched
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer

FILES = 4


class Wide(MemoryBackend):
    """Transfers and reads wait until as many are under way as the place takes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.traits = Traits(parallel=FILES)
        self.together = threading.Barrier(FILES, timeout=60)
        self.reading: threading.Barrier | None = None
        self.broken = ""
        self.reads: list[str] = []

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        self.together.wait()
        if self.broken and key.endswith(self.broken):
            raise StorageError(f"cannot upload {key}")
        super().upload(source, key, moved)

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        self.together.wait()
        super().download(key, target, moved)

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        if self.reading:
            self.reading.wait()
        return super().read(key)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for number in range(FILES):
        (tmp_path / "model" / f"{number}.bin").write_bytes(b"weights %d" % number)
    return tmp_path / "model"


def open_store(backend: Wide, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(backend, workspace=tmp_path / "w", writer=Writer())


def test_the_files_of_a_checkpoint_go_and_come_at_once(model: Path, tmp_path: Path) -> None:
    store = open_store(Wide(), tmp_path)

    store.save(model, step=1)
    store.restore(Files(tmp_path / "restored"))

    for number in range(FILES):
        assert (tmp_path / "restored" / f"{number}.bin").read_bytes() == b"weights %d" % number


def test_a_file_that_fails_among_many_commits_nothing(model: Path, tmp_path: Path) -> None:
    backend = Wide()
    backend.broken = "2.bin"
    store = open_store(backend, tmp_path)

    with pytest.raises(StorageError, match="cannot upload"):
        store.save(model, step=1)

    assert store.latest() is None
    backend.broken = ""
    assert [saved.step for saved in open_store(backend, tmp_path).recover()] == [1]


def test_manifests_are_read_at_once_and_each_once(model: Path, tmp_path: Path) -> None:
    backend = Wide()
    writer = open_store(backend, tmp_path)
    for step in range(FILES):
        writer.save(model, step=step)
    backend.reads.clear()
    backend.reading = threading.Barrier(FILES, timeout=60)
    reader = open_store(backend, tmp_path)

    first, again = reader.checkpoints(), reader.checkpoints()

    assert [checkpoint.step for checkpoint in first] == list(range(FILES))
    assert again == first
    assert len(backend.reads) == FILES
