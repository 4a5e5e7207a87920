"""What is installed together works together."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import holdfast

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def test_tensorflow_and_keras_import_beside_every_extra() -> None:
    extras = [need for needs in PROJECT["optional-dependencies"].values() for need in needs]
    names = {re.match(r"[A-Za-z0-9_.-]+", need)[0] for need in extras} - {"holdfast"}
    missing = {name for name in names if not installed(name)}
    assert not missing, "these tests run with every extra"

    code = "import tensorflow, keras, holdfast.keras, holdfast.cli, holdfast.testing"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr


def test_the_version_is_written_once() -> None:

    assert metadata.version("holdfast") == holdfast.__version__


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
