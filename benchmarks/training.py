"""
What the background work of a save costs the training beside it.

    make bench-training     (or: python -m benchmarks.suite --parts training)

A small model is trained for a number of steps, alone and while one save of a large state is
written, in turns. The large state is not trained: what a step pays for copying is measured with the
saves. Lost is what the steps took beyond the mean of the two rounds around them; the time for which
the save itself held the caller is not in it.
"""

import itertools
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.contestants import CONTESTANTS
from benchmarks.measuring import seconds, settle_disk

#: How much longer the steps take than the save beside them, so that all of it falls on them.
_LONGER = 2.5
#: How long after the steps the save may end, as a share of their time.
_LATE = 0.02
#: How many times as many steps are tried where it ends later than that.
_MOST = 8


def measure(
    name: str, megabytes: float, repeats: int, directory: str, blocks: int = 62
) -> dict[str, Any]:
    """All that is measured of one contestant, in this process."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=directory) as temporary:
        model, small = models.build(megabytes, blocks), models.small()
        contestant = CONTESTANTS[name](model, Path(temporary, "place"))
        x = np.random.default_rng(0).random((64, 256), np.float32)
        size = models.megabytes_of(model)

        def train(steps: int) -> float:
            return seconds(lambda: [small.train_on_batch(x, x) for _ in range(steps)])

        train(20)
        contestant.save(1)
        alone_for = seconds(lambda: contestant.save(2))
        steps = max(50, round(_LONGER * alone_for / (train(50) / 50)))
        samples = defaultdict(list)
        most, alone, numbers = _MOST * steps, train(steps), itertools.count(3)
        while len(samples["lost_per_gb"]) < repeats:
            contestant.tidy()
            settle_disk()
            contestant.begin(next(numbers))
            beside = train(steps)
            late = seconds(contestant.wait)
            settle_disk()
            before, alone = alone, train(steps)
            if late > _LATE * beside:  # not all of the save fell on the steps: longer from now on
                if steps == most:
                    raise ValueError(f"the save does not end while {steps:,} steps are trained")
                steps, alone = 2 * steps, train(2 * steps)
            else:
                samples["alone"].append(alone)
                samples["lost_per_gb"].append((beside - (before + alone) / 2) / size * 1000)
        return samples
