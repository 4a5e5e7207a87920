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
from benchmarks.measuring import Peak, Samples, seconds, settle_disk, sync

#: Batches from one save to the next: the one that may have to copy, one more, and two ordinary.
_EVERY = 4


def measure(
    name: str, megabytes: float, repeats: int, directory: str, blocks: int = 62
) -> dict[str, Any]:
    """All that is measured of one contestant, in this process."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=directory) as temporary:
        model = models.build(megabytes, blocks)
        contestant = CONTESTANTS[name](model, Path(temporary, "place"))
        samples = defaultdict(list)
        samples["state"] = [models.megabytes_of(model)]
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
    """Save in `fit`: once for the time, once for the memory, whose measuring takes time itself."""
    model = contestant.model
    once = models.batches(model, 1)
    model.fit(once, once, batch_size=1, verbose=0)  # to be compiled
    step = model.train_function
    x = models.batches(model, _EVERY * (repeats + 1) + 2)
    for watch in (_Times(contestant, samples), _Memory(contestant, samples)):
        model.train_function = watch.around(step)
        callback = contestant.callback(_EVERY)
        model.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[callback])
        contestant.tidy()


class _Watch:
    """
    Looks at each step of a fit.

    The first save does what is done only once, and is left out.
    """

    def __init__(self, contestant: Contestant, samples: Samples) -> None:
        self._contestant = contestant
        self._samples = samples
        self._batch = 0

    def around(self, step: Any) -> Any:
        """The step, measured."""

        def measured(iterator: Any) -> Any:
            begun = time.perf_counter()
            logs = step(iterator)
            turn, place = divmod(self._batch, _EVERY)
            self.note(turn, place, begun, time.perf_counter())
            self._batch += 1
            self.leave()
            return logs

        return measured

    def note(self, turn: int, place: int, begun: float, ended: float) -> None:
        """Take what a step shows: its place in its turn is 0 right after a save."""
        raise NotImplementedError

    def leave(self) -> None:
        """The step is over."""


class _Times(_Watch):
    """How long `fit` waits, and how much longer the next step takes."""

    def __init__(self, contestant: Contestant, samples: Samples) -> None:
        super().__init__(contestant, samples)
        self._steps: list[float] = []
        self._gaps: list[float] = []
        self._ended = 0.0

    def note(self, turn: int, place: int, begun: float, ended: float) -> None:
        gap = begun - self._ended
        if place == 0 and turn > 1:
            self._samples["blocked"].append(gap - statistics.median(self._gaps))
            self._samples["next_step"].append(ended - begun - statistics.median(self._steps))
        elif place == 1 and turn:
            self._contestant.wait()
            copied, _ = limits.copy(models.arrays(self._contestant.model))
            if turn > 1:
                self._samples["fit_copy"].append(copied)
            self._contestant.tidy()
        elif place > 1:
            self._steps.append(ended - begun)
        if place == _EVERY - 1:
            self._gaps.append(gap)

    def leave(self) -> None:
        self._ended = time.perf_counter()


class _Memory(_Watch):
    """How much more memory there is in use from a save to the end of the step after the next."""

    def note(self, turn: int, place: int, begun: float, ended: float) -> None:  # noqa: ARG002
        if place == 1:
            self._contestant.wait()
            if turn > 1:
                self._samples["extra_training"].append(self._peak.most - self._ordinary)
            self._contestant.tidy()
            self._peak = Peak()
        if place == _EVERY - 1:
            self._ordinary = self._peak.most
            self._peak.restart()
