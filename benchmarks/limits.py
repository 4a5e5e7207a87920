"""What nobody can beat: the state's bytes copied, written, read and hashed, and nothing else."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measuring import seconds

Arrays = Sequence[np.ndarray]
_PIECE = 1024 * 1024
#: New memory may first have to be fetched from the host of a virtual machine, which takes up to
#: twenty times as long and says nothing of this one: the quickest of so many tries counts.
_TRIES = 3


def copy(arrays: Arrays) -> tuple[float, float]:
    """Seconds to copy into new memory, as whoever takes a copy has to, and once more into it."""
    pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def copies() -> None:
        for copied, array in pairs:
            np.copyto(copied, array)

    def anew() -> None:
        memory = np.empty(sum(array.nbytes for array in arrays), np.uint8)  # so in huge pages
        start = 0
        for array in arrays:
            end = start + array.nbytes
            pairs.append((memory[start:end].view(array.dtype).reshape(array.shape), array))
            start = end
        copies()

    took = []
    for _ in range(_TRIES):
        pairs.clear()
        took.append(seconds(anew))
    return min(took), seconds(copies)


def write(arrays: Arrays, path: Path) -> float:
    """Seconds to write into a new file, durably; the file stays."""
    path.unlink(missing_ok=True)

    def written() -> None:
        with path.open("wb", buffering=0) as file:
            for array in arrays:
                left = memoryview(array).cast("B") if array.size else memoryview(b"")
                while left:  # a single write takes 2 GiB at most
                    left = left[file.write(left) :]
            os.fsync(file.fileno())

    return seconds(written)


def read(path: Path) -> float:
    """Seconds to read a file into new memory."""

    def into_memory() -> None:
        memory = memoryview(np.empty(path.stat().st_size, np.uint8))
        with path.open("rb", buffering=0) as file:
            while memory:
                memory = memory[file.readinto(memory) :]

    return min(seconds(into_memory) for _ in range(_TRIES))


def read_and_hash(path: Path) -> float:
    """Seconds to read a file once, piece by piece, and take its SHA-256."""

    def hashed() -> None:
        piece, digest = memoryview(bytearray(_PIECE)), hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(piece):
                digest.update(piece[:size])

    return seconds(hashed)
