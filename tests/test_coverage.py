"""Every branch is run of the code that commits, prunes, sweeps, and handles manifests and paths."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_branch_of_what_commits_and_removes_is_run(tmp_path: Path) -> None:
    environment = {**os.environ, "COVERAGE_FILE": str(tmp_path / "coverage")}
    # Without what the worker of a parallel run has told its children.
    environment = {name: value for name, value in environment.items() if "XDIST" not in name}
    run = ["run", "-m", "pytest", "-q", "-p", "no:cacheprovider", "@tests/mutation/tests.txt"]

    tests, report = (
        subprocess.run(
            [sys.executable, "-m", "coverage", *asked],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        for asked in (run, ["report"])
    )

    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert report.returncode == 0, report.stdout + report.stderr
