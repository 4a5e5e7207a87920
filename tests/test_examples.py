"""The examples run, as `make demo` and the pages say."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_run_killed_in_the_middle_of_a_save_resumes_and_ends_as_one_never_interrupted() -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "kill_and_resume.py"], capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "exit code -9 (SIGKILL)" in ran.stdout
    assert ran.stdout.count("  equal") == 3
