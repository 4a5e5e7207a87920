"""What this process has open."""

import contextlib
from pathlib import Path


def open_below(directory: Path) -> list[str]:
    """The names of what is open in a directory, and of the directory itself."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself, or of a thread
            found.append(str(number.readlink()))
    return sorted(name for name in found if name.startswith(str(directory)))
