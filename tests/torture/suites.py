"""Tests that count as they are, with every case that they have."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]


def passed(first: int = 1, every: int = 1, *, tests: Sequence[str]) -> Iterator[str]:
    """
    Of each test, or each so many of them, nothing, or how it failed; those left out do not count.

    Raises:
        RuntimeError: they could not be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        ran = subprocess.run(
            [*command, "-o", "faulthandler_timeout=0", f"--junitxml={report}"],
            cwd=ROOT,
            env={**os.environ, "HOLDFAST_LONG": "1"},
            capture_output=True,
            text=True,
        )
        if not report.exists():
            raise RuntimeError(ran.stdout + ran.stderr)
        cases = [*ET.parse(report).iter("testcase")]
    for case in [each for each in cases if each.find("skipped") is None][first - 1 :: every]:
        bad = [each for each in case if each.tag in ("failure", "error")]
        name = f"{case.get('classname')}::{case.get('name')}"
        yield f"{name}: {bad[0].get('message')}" if bad else ""
