"""
What a save costs: how long `fit` waits, until when it is durable, and how much memory it takes.

    make bench-saves        (or: python -m benchmarks.suite --parts saves)

`fit` runs with the contestant's callback, four batches to a save. What lies between two steps is
measured where a save lies between them and where none does, and so are the step right after a save
and the others: the difference is what the save cost. Outside of `fit` it saves again, with nothing
beside it, until the files are durable.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import limits, models
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.measuring import MB, Peak, Samples, seconds, settle_disk, sync

#: Batches from one save to the next: the one that may have to copy, one more, and two ordinary.
_EVERY = 4


def measure(
    name: str, megabytes: float, repeats: int, directory: str, blocks: int = 62
) -> dict[str, Any]:
    """All that is measured of one contestant, in this process."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=directory) as temporary:
        model = models.build(megabytes, blocks)
        models.randomize(model)
        contestant = CONTESTANTS[name](model, Path(temporary, "place"))
        samples = defaultdict(list)
        samples["state"] = [sum(array.nbytes for array in models.arrays(model)) / MB]
        _save_durably(contestant, samples, Path(temporary), repeats)
        _save_in_fit(contestant, samples, repeats)
        return samples


def _save_durably(contestant: Contestant, samples: Samples, directory: Path, repeats: int) -> None:
    """Save with nothing beside it. The first save is for what is done only once."""
    file = directory / "limit"
    for turn in range(repeats + 1):
        settle_disk()
        arrays = models.arrays(contestant.model)
        (copied, again), written = limits.copy(arrays), limits.write(arrays, file)
        del arrays
        settle_disk()
        peak = Peak()
        saved = seconds(lambda step=turn + 1: contestant.save(step))
        extra = peak.extra
        synced = seconds(lambda: sync(contestant.place))
        contestant.tidy()
        if turn:
            samples["copy"].append(copied)
            samples["copy_again"].append(again)
            samples["write"].append(written)
            samples["saved"].append(saved)
            samples["durable"].append(saved + synced)
            samples["extra_idle"].append(extra)
    file.unlink()


def _save_in_fit(contestant: Contestant, samples: Samples, repeats: int) -> None:
    model = contestant.model
    once = models.batches(model, 1)
    model.fit(once, once, batch_size=1, verbose=0)  # to be compiled
    watch = _Watch(contestant, samples)
    model.train_function = watch.around(model.train_function)
    x = models.batches(model, _EVERY * (repeats + 1) + 2)
    callback = contestant.callback(_EVERY)
    model.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[callback])
    for each in ("blocked", "next_step", "extra_training", "fit_copy"):
        del samples[each][0]  # the first save does what is done only once


class _Watch:
    """Measures each step of a fit, and what lies between two steps."""

    def __init__(self, contestant: Contestant, samples: Samples) -> None:
        self._contestant = contestant
        self._samples = samples
        self._batch = 0
        self._steps: list[float] = []
        self._gaps: list[float] = []
        self._ended: float | None = None

    def around(self, step: Any) -> Any:
        """The step, measured."""

        def measured(iterator: Any) -> Any:
            begun = time.perf_counter()
            logs = step(iterator)
            self._note(begun, time.perf_counter())
            self._batch += 1
            self._ended = time.perf_counter()
            return logs

        return measured

    def _note(self, begun: float, ended: float) -> None:
        turn, place = divmod(self._batch, _EVERY)
        gap = 0 if self._ended is None else begun - self._ended
        if place == 0 and turn:
            self._samples["blocked"].append(gap - statistics.median(self._gaps))
            self._samples["next_step"].append(ended - begun - statistics.median(self._steps))
        elif place == 1:
            self._contestant.wait()
            if turn:
                self._samples["extra_training"].append(self._peak.most - self._ordinary)
                copied, _ = limits.copy(models.arrays(self._contestant.model))
                self._samples["fit_copy"].append(copied)
            self._contestant.tidy()
            self._peak = Peak()
        elif place > 1:
            self._steps.append(ended - begun)
        if place == _EVERY - 1:
            self._gaps.append(gap)
            self._ordinary = self._peak.most
            self._peak.restart()
