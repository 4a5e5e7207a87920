"""The tutorials that people follow, as the examples tell them, on handwritten digits."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.fuse import NotPossibleError
from tests.servers.mounted_drive import MountedDrive

EXAMPLES = Path(__file__).parents[2] / "examples"

Run = Callable[[str, Path], list[str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example's main in this process, which has Keras; gives the lines that it prints."""

    def run(name: str, place: Path) -> list[str]:
        runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](place)
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mounted Drive; where nothing can be mounted, a directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "MyDrive"
    place.mkdir()
    try:
        mounted = MountedDrive(place)
    except NotPossibleError:
        yield place
        return
    with mounted:
        yield place


@pytest.mark.filterwarnings("ignore::holdfast.CheckpointWarning")  # what a mount cannot promise
def test_colab_with_a_mounted_drive(told: Run, drive: Path) -> None:
    lines = told("colab_drive", drive / "digits")

    assert lines[0] == "first session: disconnected in epoch 4"
    assert lines[-3] == "second session, by load_model: epochs [4, 5, 6]"
    assert lines[-2] == "second session, by resume: History of epochs [1, 2, 3, 4, 5, 6]"
    assert "weights-03-0." in "".join(lines[1:-3])


def test_when_to_save(told: Run, tmp_path: Path) -> None:
    kept = dict(line.split(": ") for line in told("save_every", tmp_path))

    assert kept["every 20 batches"].split(", ") == [
        *("01-020.keras", "01-040.keras", "02-015.keras"),
        *("02-035.keras", "03-010.keras", "03-030.keras"),
    ]
    assert kept["every quarter of an hour"] == "none yet"
    assert kept["only the newest"] == "model.keras"
    assert kept["only the weights"] == "01.weights.h5, 02.weights.h5, 03.weights.h5"
    assert kept["only the best, the least loss"] == "01.keras, 02.keras, 03.keras"
    assert kept["only the best, the most accuracy"].startswith("01-0.")
    assert kept["only the best, which way is known"] == "01.keras, 02.keras, 03.keras"


@pytest.mark.filterwarnings("default::UserWarning")  # Keras calls its HDF5 format legacy
def test_whole_models_in_older_formats(told: Run, tmp_path: Path) -> None:
    lines = told("save_and_load", tmp_path)

    assert [line for line in lines if line.endswith("predictions")] == [
        "HDF5: the same predictions",
        "HDF5, compile=False: the same predictions",
        "HDF5, include_optimizer=False: the same predictions",
        "SavedModel: the same predictions",
    ]
    assert "  it is compiled, its optimizer at step 57" in lines
    assert "  it is compiled: False" in lines
    assert "without custom_objects: Keras cannot load model.h5: Unknown layer: 'Scale'" in lines


def test_the_architecture_and_the_weights_apart(told: Run, tmp_path: Path) -> None:
    both = "the same predictions, optimizer at step 114, equal in every variable"

    assert told("architecture_and_weights", tmp_path) == [
        f"whole model: {both}",
        f"architecture and weights: {both}",
    ]
