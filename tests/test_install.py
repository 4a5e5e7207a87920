"""What is installed together works together."""

import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

import holdfast
from tests.imported import imported

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


#: What has to go on working beside every extra, and the packages of the extras that do the work.
#: `make extras` installs torch too, which is some gigabytes, and asks for it by this variable.
FRAMEWORKS = ["tensorflow", "keras", *os.environ.get("HOLDFAST_TEST_BESIDE", "").split()]
CLIENTS = ["s3fs", "gcsfs", "google.auth", "pydrive2.auth", "h5py", "hypothesis"]
OURS = ["keras", "cli", "testing", "backends.s3", "backends.gcs", "backends.gdrive"]


def test_tensorflow_and_keras_import_beside_every_extra(tmp_path: Path) -> None:
    extras = [need for needs in PROJECT["optional-dependencies"].values() for need in needs]
    names = {re.match(r"[A-Za-z0-9_.-]+", need)[0] for need in extras} - {"holdfast"}
    missing = {name for name in names if not installed(name)}
    assert not missing, "these tests run with every extra"

    modules = FRAMEWORKS + CLIENTS + [f"holdfast.{name}" for name in OURS]
    script = tmp_path / "imports.py"
    script.write_text(f"import {', '.join(modules)}")
    ran = imported().run(script, cwd=tmp_path, env=os.environ)

    assert ran.returncode == 0, ran.stderr


def test_the_version_is_written_once() -> None:

    assert metadata.version("holdfast") == holdfast.__version__


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
