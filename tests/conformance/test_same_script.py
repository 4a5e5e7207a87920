"""One script, every place, by the URL alone: train, be killed, go on, end with the same bytes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.places import TABLE

SCRIPT = Path(__file__).parents[2] / "examples" / "train_anywhere.py"
#: So many steps lie between two saves that the kill comes in good time.
STEPS, EVERY = 6_000, 500


def train(place: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPT, place, "--steps", str(STEPS), "--every", str(EVERY)]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate()
    assert process.returncode == 0, told
    return told


@pytest.fixture(scope="session")
def uninterrupted(home) -> str:
    """What a run that nothing happens to ends with."""
    return ended(train(str(home / "uninterrupted"), {})).splitlines()[-1]


@pytest.mark.parametrize("place", TABLE, indirect=True)
def test_a_killed_run_started_again_ends_as_one_never_interrupted(
    place, home, tmp_path, uninterrupted
) -> None:
    environment = {**place.variables(), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    first = train(place.url, environment)
    assert first.stdout
    seen = iter(first.stdout.readline, "")
    assert next(seen) == f"starts after step 0 of {STEPS}\n"
    assert next(seen).startswith("saved ")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    told = ended(train(place.url, environment)).splitlines()

    assert first.returncode == -signal.SIGKILL
    resumed = re.fullmatch(rf"starts after step (\d+) of {STEPS}", told[0])
    assert resumed
    assert 0 < int(resumed[1]) < STEPS
    assert told[-1] == uninterrupted
