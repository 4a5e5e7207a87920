"""The two worked examples of TensorFlow run, on small real data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imported import imported

pytest.importorskip("tensorflow")

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_killed_loop_goes_on_to_the_same_bytes() -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "custom_loop.py"], capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = ran.stdout.splitlines()
    starts = [line.split()[-3] for line in told if "starts after step" in line]
    assert starts[0] == starts[2] == "0"
    assert int(starts[1]) >= 41  # after its third save it was killed
    assert told[-1].startswith("both ended with ")
    assert told[-1].endswith(": equal")


def test_the_saver_of_tensorflow_1_keeps_five_one_a_day_and_a_pin(tmp_path: Path) -> None:
    place, environment = str(tmp_path / "store"), {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}

    ran = imported().run(EXAMPLES / "tf1_saver.py", place, cwd=tmp_path, env=environment)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = ran.stdout.splitlines()
    assert [line for line in told if line.startswith("starts")] == [
        "starts after global step 0",
        "starts after global step 400",
    ]
    kept = {line.split()[1][5:17].lstrip("0"): line for line in told if line.startswith("  keep")}
    assert list(kept) == ["400", "425", "525", "600", "625", "650", "675", "700"]
    assert kept["400"].endswith("pinned: paper")
    assert kept["425"].endswith("KeepEvery(days=1, last=3)")
    assert kept["625"].endswith("KeepLast(5); KeepEvery(days=1, last=3)")
    assert (
        "model.ckpt-700.data-00000-of-00001', 'model.ckpt-700.index', 'model.ckpt-700.meta'"
        in (told[-2])
    )
