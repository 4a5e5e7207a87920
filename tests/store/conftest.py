"""A store in memory, what is saved into it, and the same store as other processes have it."""

import os
import tempfile
from pathlib import Path

import pytest

from holdfast import CheckpointStore, record
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer

#: Where Linux keeps files in memory.
MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path_factory):
    """In memory where the machine has that: these tests make thousands of small directories."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("store")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="holdfast-") as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What a power cut leaves is tried elsewhere; here a sync would only take time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def backend():
    return MemoryBackend()


@pytest.fixture
def workspace(tmp_path):
    return tmp_path / "workspace"


@pytest.fixture
def process(backend, workspace):
    """Makes the store as another process has it: with a writer of its own."""

    def make(name=None, **given):
        given = {"workspace": workspace, **given}
        return CheckpointStore(given.pop("on", backend), writer=Writer(name), **given)

    return make


@pytest.fixture
def store(process):
    return process()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights " * 40)
    return path


@pytest.fixture
def newer_format():
    """A record as a later version of Holdfast may write it."""
    return record.encode({"format": 2, "kind": "something new"})
