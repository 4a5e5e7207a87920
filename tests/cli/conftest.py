"""A real store on a disk, and the command that works on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast import CheckpointStore, open_store
from holdfast.cli import main

Run = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def run(here: Path) -> Run:
    """The command, as `run("ls", store.url)`; whatever it prints is free of escape sequences."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert "\x1b" not in result.stdout + result.stderr
        return result

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store lies."""
    return tmp_path / "run"


@pytest.fixture
def store(root: Path) -> CheckpointStore:
    return open_store(root)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    path.write_bytes(b"weights")
    return path
