"""
What a resume costs: weights and optimizer from the disk into a live model, or into a new one.

    make bench-restores     (or: python -m benchmarks.suite --parts restores)

The files lie in the page cache. The model's values are forgotten before each restore, and compared
after it, outside of what is timed.
"""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import limits, models
from benchmarks.contestants import CONTESTANTS
from benchmarks.measuring import Peak, seconds


def measure(
    name: str, megabytes: float, repeats: int, directory: str, blocks: int = 62
) -> dict[str, Any]:
    """All that is measured of one contestant, in this process."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=directory) as temporary:
        model = models.build(megabytes, blocks)
        contestant = CONTESTANTS[name](model, Path(temporary, "place"))
        contestant.save(1)
        sums, arrays = models.sums(model), models.arrays(model)
        samples = defaultdict(list)
        samples["state"] = [models.megabytes_of(model)]
        file = Path(temporary, "limit")
        limits.write(arrays, file)
        del arrays
        for turn in range(repeats + 1):
            models.clear(model)
            read, hashed = limits.read(file), limits.read_and_hash(file)
            peak, restored = Peak(), []
            took = seconds(lambda restored=restored: restored.append(contestant.restore()))
            extra = peak.extra
            if models.sums(restored[0]) != sums:
                raise ValueError(f"{name} did not bring back what it had saved")
            if turn:  # the first restore does what is done only once
                samples["read"].append(read)
                samples["read_and_hash"].append(hashed)
                samples["restored"].append(took)
                samples["extra"].append(extra)
        return samples
