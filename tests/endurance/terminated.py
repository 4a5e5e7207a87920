"""
A plain loop with a saver that gets SIGTERM or SIGKILL at random moments, and is started again.

`python -m tests.endurance.terminated` prints how long it takes until what is trained is durable.
"""

import argparse
import hashlib
import json
import mmap
import os
import random
import signal
import statistics
import struct
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read once, by the first import of NumPy

import numpy as np

from holdfast import CheckpointStore, KeepLast, Preemption, Saver, open_store
from holdfast.errors import CheckpointWarning
from tests.crash.points import memory
from tests.crash.struck import TERMINATED, Died, Moment, Tell, end_by_a_handler, start

#: Steps of a whole run.
STEPS = 40
#: How many signals strike one run at most.
MOST = 10


class Weights:
    """What the loop trains: an array, and the generator that it draws from."""

    def __init__(self, size: int = 64) -> None:
        self.values = np.zeros(size)
        self.random = np.random.default_rng(7)

    def train(self) -> None:
        """One step."""
        self.values = np.tanh(self.values + self.random.standard_normal(self.values.size))

    def snapshot(self) -> "Copied":
        return Copied(self.values.copy(), json.dumps(self.random.bit_generator.state))

    def restore(self, directory: Path) -> None:
        self.values = np.load(directory / "values.npy", allow_pickle=False)
        self.random.bit_generator.state = json.loads((directory / "random.json").read_text())

    def hashed(self) -> str:
        """A hash of the values and of what comes next."""
        whole = self.values.tobytes() + self.random.bytes(8)
        return hashlib.sha256(whole).hexdigest()


@dataclass(frozen=True)
class Copied:
    """A snapshot of it."""

    values: Any
    random: str

    def write_to(self, directory: Path) -> None:
        np.save(directory / "values.npy", self.values, allow_pickle=False)
        (directory / "random.json").write_text(self.random)


@dataclass(frozen=True)
class Plan:
    """
    One run and what is done to it.

    Parameters:
        interval (int): steps from save to save.
        background (bool): a saver saves behind the loop; else the loop waits for each.
        handler (bool): the script has a handler of SIGTERM of its own.
        moments (tuple[Moment, ...]): one for each process that gets a signal.
    """

    interval: int
    background: bool
    handler: bool
    moments: tuple[Moment, ...]

    @classmethod
    def of(cls, seed: int, case: int, strike: int) -> "Plan":
        draw = random.Random(f"{seed} {case} {strike}")
        return cls(
            interval=draw.choice([1, 3, 5, 10]),
            background=draw.random() < 0.6,
            handler=draw.random() < 0.5,
            moments=tuple(_moment(draw) for _ in range(draw.randint(1, MOST))),
        )

    @property
    def lost(self) -> int:
        """
        How many steps a kill may cost.

        Behind the loop one save may be under way, and one more may wait for it.
        """
        return self.interval * (3 if self.background else 1)


def _moment(draw: random.Random) -> Moment:
    return Moment(draw.randint(1, 60), None if draw.random() < 0.3 else 0.02 * draw.random())


class Acknowledged:
    """The newest step that was acknowledged, in memory that outlives the process that was told."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def step(self) -> int:
        return int(struct.unpack_from("q", self._shared)[0])

    def note(self, step: int) -> None:
        struct.pack_into("q", self._shared, 0, max(step, self.step))


def script(plan: Plan, place: Path, acknowledged: Acknowledged, tell: Tell) -> None:
    """What the user would start."""
    if plan.handler:
        end_by_a_handler(tell)
    warnings.simplefilter("error", CheckpointWarning)
    tell("starting", found=committed(place))
    store = open_store(place, retention=KeepLast(2))
    store.recover()
    weights, newest = Weights(), store.latest()
    if newest:
        store.restore(weights, newest)
    with Preemption() as preemption, Saver(store) as saver:
        for step in range(newest.step + 1 if newest else 1, STEPS + 1):
            tell("training", begun=step - 1)
            weights.train()
            tell("saving", trained=step)
            if preemption.notice:
                saver.save(weights, step=step)
                if saver.wait(timeout=preemption.remaining()):
                    acknowledged.note(step)
                preemption.end()
            elif step % plan.interval == 0 or step == STEPS:
                _save(plan, store, saver, weights, step, acknowledged)
        tell("ending")
    if preemption.notice:
        preemption.end()
    tell("over", parts={"weights": weights.hashed()})


def _save(
    plan: Plan,
    store: CheckpointStore,
    saver: Saver,
    weights: Weights,
    step: int,
    acknowledged: Acknowledged,
) -> None:
    if plan.background:
        saver.save(weights, step=step).add_done_callback(
            lambda done: acknowledged.note(done.result().step)
        )
    else:
        acknowledged.note(store.save(weights, step=step).step)


def committed(place: Path) -> int:
    """The newest step that a reader sees; 0 where there is none."""
    newest = open_store(place).latest() if place.exists() else None
    return newest.step if newest else 0


def terms(seed: int, count: int) -> Iterator[str]:
    """So many SIGTERMs; what each has broken, or nothing."""
    return _strikes(seed, count, signal.SIGTERM)


def kills(seed: int, count: int) -> Iterator[str]:
    """So many SIGKILLs; what each has broken, or nothing."""
    return _strikes(seed, count, signal.SIGKILL)


def _strikes(seed: int, count: int, strike: int) -> Iterator[str]:
    weights = Weights()
    for _ in range(STEPS):
        weights.train()
    expected, case = weights.hashed(), 0
    while count > 0:
        plan = Plan.of(seed, case, strike)
        again = f"{'terms' if strike == signal.SIGTERM else 'kills'}({seed}, …) case {case}, {plan}"
        for wrong in disturbed(plan, strike, expected):
            yield f"{again}: {wrong}" if wrong else ""
            count -= 1
            if not count:
                return
        case += 1


def disturbed(plan: Plan, strike: int, expected: str) -> Iterator[str]:
    """Start the script until it comes to its end; for each signal, what was broken after it."""
    with memory() as folder:
        acknowledged, trained, durable = Acknowledged(), 0, 0
        for moment in [*plan.moments, None]:
            before = "" if moment else "at the end: "
            died = start(partial(script, plan, folder / "run", acknowledged), moment, strike, 0)
            wrong = [died.error] if died.error else []
            if died.begun is not None and not durable <= died.begun <= trained:
                wrong.append(f"went on at {died.begun}, and not within {durable} to {trained}")
            trained = died.begun if died.trained is None and died.begun else died.trained or trained
            if (found := committed(folder / "run")) < acknowledged.step:
                wrong.append(f"acknowledged was {acknowledged.step}, and {found} is committed")
            if died.parts:
                if died.parts["weights"] != expected:
                    wrong.append("ended with other bytes")
            elif strike == signal.SIGTERM:
                wrong += _wrong_end(plan, died, found, trained)
            durable = max(acknowledged.step, trained - plan.lost)
            if died.struck is not None or wrong:
                yield before + "; ".join(wrong)
            if died.parts:
                return


def _wrong_end(plan: Plan, died: Died, found: int, trained: int) -> Iterator[str]:
    if died.trained is not None and found != trained:
        yield f"committed is {found}, and {trained} was trained"
    if plan.handler and not died.handled and died.doing:
        yield f"its own handler was not called, and it ended with {died.code}"
    if died.code != (TERMINATED if died.handled else -signal.SIGTERM):
        yield f"ended with {died.code}"


# Figures.


def until_durable(megabytes: float) -> tuple[float, float]:
    """
    Seconds of an undisturbed save, and from SIGTERM until what was trained then is durable.

    Parameters:
        megabytes (float): of the state.
    """
    with memory() as folder:
        figures: dict[str, Any] = {}

        def act(tell: Tell) -> None:
            weights = Weights(int(megabytes * 125_000))
            store = open_store(folder / "run")
            with Preemption() as preemption, Saver(store) as saver:
                began = time.monotonic()
                saver.save(weights, step=1)
                saver.wait()
                undisturbed = time.monotonic() - began
                tell("waiting")
                while preemption.notice is None:
                    time.sleep(0.0005)  # a step
                came = preemption.notice.deadline - 25.0
                saver.save(weights, step=2)
                saver.wait(timeout=preemption.remaining())
                durable = time.monotonic() - came
                tell("durable", parts={"undisturbed": undisturbed, "durable": durable})
                preemption.end()

        died = start(act, Moment(1, 0.05 * random.random()), signal.SIGTERM, 0)
        figures = dict(died.parts)
        assert died.code == -signal.SIGTERM, died
        assert committed(folder / "run") == 2, died
        return figures["undisturbed"], figures["durable"]


def main() -> None:
    """Print how long a save takes, and how long from SIGTERM until it is durable."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    print(f"{'MB':>8}{'undisturbed s':>16}{'from SIGTERM s':>16}{'longest s':>12}")
    for megabytes, runs in ((0.001, asked.runs), (100, max(1, asked.runs // 5))):
        found = [until_durable(megabytes) for _ in range(runs)]
        undisturbed, durable = (statistics.median(each) for each in zip(*found, strict=True))
        longest = max(each for _, each in found)
        print(f"{megabytes:8}{undisturbed:16.3f}{durable:16.3f}{longest:12.3f}", flush=True)


if __name__ == "__main__":
    main()
