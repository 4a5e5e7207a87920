"""How the benchmarks measure: time, memory, and a process of its own for each contestant."""

import contextlib
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MB = 1_000_000
#: One thread trains, as TensorFlow is told before it starts, and says nothing of what it lacks.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}
#: Every sample of one contestant, by what was measured.
Samples = dict[str, list[float]]


def seconds(call: Callable[[], object]) -> float:
    """The wall clock around a call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


class Peak:
    """The most memory that this process holds, from now on: the peak begins anew (proc(5))."""

    def __init__(self) -> None:
        gc.collect()
        with contextlib.suppress(AttributeError):  # of another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)  # what lies free in the heap would hide what is used
        self.restart()

    def restart(self) -> None:
        """Begin anew, and keep what is held now as the base."""
        Path("/proc/self/clear_refs").write_text("5")
        self._base = _status("VmRSS")

    @property
    def most(self) -> float:
        """In MB, all in all."""
        return _status("VmHWM")

    @property
    def extra(self) -> float:
        """In MB, beyond what was held when it began."""
        return self.most - self._base


def _status(member: str) -> float:
    found = re.search(rf"{member}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024 / MB


def sync(directory: Path) -> None:
    """Make durable what somebody else has left in the page cache: each file, and its directory."""
    for path in (directory, *directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def settle_disk() -> None:
    """Let the disk be idle, so that nobody writes beside who is measured next."""
    os.sync()


def in_a_process(
    part: str, environment: Mapping[str, str] | None = None, **task: Any
) -> dict[str, Any]:
    """Run `benchmarks.<part>.measure(**task)` in a fresh process; a failure is its result, too."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.measuring", part, json.dumps(task)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
    )
    if ran.returncode == 0:
        return json.loads(ran.stdout.splitlines()[-1])
    print(f"{part} {task} failed:\n{ran.stderr}", file=sys.stderr)
    return failure(ran)


def failure(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What stands in the table for a process that failed."""
    said = [line for line in ran.stderr.splitlines() if line.strip()] or ["it said nothing"]
    return {"failed": f"ended with {ran.returncode}: {said[-1]}"}


def main() -> None:
    """Measure one contestant in this process, which has done nothing yet."""
    part, task = sys.argv[1:]
    module = __import__(f"benchmarks.{part}", fromlist=["measure"])
    print(json.dumps(module.measure(**json.loads(task))))


if __name__ == "__main__":
    main()
