"""
Runs that are killed again and again, and whether they end as one that never was.

`python -m tests.crash.resumes` prints the tables for Holdfast and for Keras's `BackupAndRestore`.
Each run is a script in a process of its own, which gets a signal at a random moment: some time
after it began, or at something that it just told, or a little later. The same script is started
again until it comes to its end. Then every weight, every variable of the optimizer, the seed
generators, History, what the callbacks counted, and the random states of the process are compared
with those of a run that nobody disturbed and that saved nothing.

A failing run says how to play it alone again. What comes by the clock does not come again at the
same instruction.
"""

import argparse
import multiprocessing
import random
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from holdfast import open_store
from holdfast.errors import CheckpointWarning
from tests.crash.points import memory
from tests.crash.struck import TERMINATED, Died, Moment, Tell, end_by_a_handler, start
from tests.crash.trainings import KERAS, OURS, Training, saver


@dataclass(frozen=True)
class Plan:
    """
    One run and what is done to it.

    Parameters:
        number (int): of the run.
        training (Training): what is trained.
        saver (str): what saves.
        save_freq (str | int): how often.
        background (bool): it saves behind the training.
        first (bool): it is called before the other callbacks.
        delete (bool): it removes its checkpoints at the end.
        signal (int): what the process gets.
        handler (bool): the script has a handler of SIGTERM of its own.
        moments (tuple[Moment, ...]): one for each process that is disturbed.
    """

    number: int
    training: Training
    saver: str
    save_freq: str | int
    background: bool
    first: bool
    delete: bool
    signal: int
    handler: bool
    moments: tuple[Moment, ...]

    @classmethod
    def of(
        cls, seed: int, number: int, network: str, savers: Sequence[str], strike: int, times: int
    ) -> "Plan":
        draw = random.Random(f"{seed} {number} {network}")
        plan = cls(
            number=number,
            training=Training(
                network,
                replayed=network == "digits" or draw.random() < 0.5,
                block=draw.choice([1, 1, 1, 5]),
                patience=draw.choice([0, 3, 3]),
            ),
            saver=draw.choice(savers),
            save_freq=draw.choice(["epoch", 1, 3, 5, 7, 10, 17]),
            background=draw.random() < 0.5,
            first=draw.random() < 0.5,
            delete=draw.random() < 0.5,
            signal=strike,
            handler=draw.random() < 0.5,
            moments=(),
        )
        training = plan.training
        if plan.saver == KERAS:  # it tells no data which epoch begins
            training = replace(training, replayed=False)
        moments = tuple(_moment(draw, 30 // training.block) for _ in range(times))
        return replace(plan, training=training, moments=moments)

    @property
    def interval(self) -> int:
        """How many batches a saving interval has at most."""
        freq = self.training.batches if self.save_freq == "epoch" else int(self.save_freq)
        return freq + self.training.block - 1


def _moment(draw: random.Random, words: int) -> Moment:
    if draw.random() < 0.3:
        return Moment(0, draw.random())
    at = 2 if draw.random() < 0.15 else draw.randint(1, words)  # the second word is "restoring"
    return Moment(at, None if draw.random() < 0.5 else 0.05 * draw.random())


@dataclass
class Ended:
    """
    What became of a run.

    Attributes:
        plan (Plan): of the run.
        doing (list[str]): what its processes did when they got the signal.
        codes (list[int]): with what they ended.
        resumed (bool): one of its processes found something that was saved.
        repeated (list[float]): how many saving intervals were trained again after each.
        differing (tuple[str, ...]): what is not the same in the end.
        wrong (str): what must not be, in words.
    """

    plan: Plan
    doing: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    resumed: bool = False
    repeated: list[float] = field(default_factory=list)
    differing: tuple[str, ...] = ()
    wrong: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether it ended as one that nobody disturbed, and nothing went wrong on the way."""
        return not self.wrong and not self.differing


def disturbed(plan: Plan, whole: tuple[float, Mapping[str, str]]) -> Ended:
    """Start the script until it comes to its end, and compare that with an undisturbed one."""
    seconds, expected = whole
    ended, progress = Ended(plan), Progress(plan)
    with memory() as folder:
        for moment in [*plan.moments, None]:
            died = start(partial(script, plan, folder), moment, plan.signal, seconds)
            if died.struck is not None and not died.parts:
                ended.doing.append(died.struck)
                ended.codes.append(died.code)
            ended.resumed |= bool(died.found)
            ended.wrong = died.error or progress.wrong(died)
            if died.parts or ended.wrong:
                break
    ended.repeated = progress.repeated
    if died.parts:
        ended.differing = tuple(each for each in expected if died.parts[each] != expected[each])
    return ended


def undisturbed(training: Training) -> tuple[float, Mapping[str, str]]:
    """How long a training takes that nobody disturbs, and what it ends with."""
    began = time.monotonic()

    def act(tell: Tell) -> None:
        tell("over", parts=training.run(training.model(), tell=tell))

    died = start(act, None, signal.SIGKILL, 0)
    if not died.parts:
        raise RuntimeError(f"{training} fails undisturbed: {died}")
    return time.monotonic() - began, died.parts


def script(plan: Plan, folder: Path, tell: Tell) -> None:
    """What the user would start."""
    if plan.handler:
        end_by_a_handler(tell)
    warnings.simplefilter("error", CheckpointWarning)
    tell("starting", found=committed(plan, folder))
    model = plan.training.model()
    callback, resume = saver(
        plan.saver,
        folder / "run",
        save_freq=plan.save_freq,
        background=plan.background,
        delete=plan.delete,
    )
    parts = plan.training.run(model, [callback], first=plan.first, resume=resume, tell=tell)
    tell("over", parts=parts)


def committed(plan: Plan, folder: Path) -> int:
    """How many batches the newest checkpoint has that a reader sees; of Keras's, whether one is."""
    place = folder / "run"
    if plan.saver == KERAS:
        return len(list(place.glob("*.h5")))
    newest = open_store(place).latest() if place.exists() else None
    if newest is None:
        return 0
    return int(newest.metadata["epoch"]) * plan.training.batches + int(newest.metadata["batch"])


class Progress:
    """
    Follows how far a run is over all its processes, and says what must not be.

    What is saved in the background is durable a little later: one save may be under way, and one
    more may wait for it.
    """

    def __init__(self, plan: Plan) -> None:
        self.repeated: list[float] = []
        self._plan = plan
        self._saves = 3 if plan.background and plan.saver != KERAS else 1
        self._durable = self._trained = 0
        self._is_over = False

    def wrong(self, died: Died) -> str:
        """What is wrong with how a process went on from the one before, or how it ended."""
        plan = self._plan
        if plan.saver == KERAS:
            return ""
        if not self._is_over and (told := self._wrong_start(died)):
            return told
        if died.begun is not None:
            self._durable = died.begun
        if died.trained is not None:
            self._trained = died.trained
            lost = 0 if plan.signal == signal.SIGTERM else self._saves * plan.interval
            self._durable = max(self._durable, self._trained - lost)
        # All is trained and saved, or removed as asked; after this it may begin anew.
        self._is_over |= "ending" in (died.struck, died.doing if died.late else None)
        return self._wrong_end(died)

    def _wrong_start(self, died: Died) -> str:
        if self._plan.signal == signal.SIGTERM and died.found not in (None, self._trained):
            return f"committed are {died.found} batches, and {self._trained} were trained"
        if died.begun is None:
            return ""
        if not self._durable <= died.begun <= self._trained:
            return f"went on at {died.begun}, and not within {self._durable} to {self._trained}"
        self.repeated.append((self._trained - died.begun) / self._plan.interval)
        return ""

    def _wrong_end(self, died: Died) -> str:
        if died.parts or died.struck is None or self._plan.signal == signal.SIGKILL:
            return ""
        as_asked = TERMINATED if self._plan.handler and died.handled else -signal.SIGTERM
        if self._plan.handler and not died.handled and died.doing:
            return f"its own handler was not called, and it ended with {died.code}"
        return "" if died.code == as_asked else f"ended with {died.code}"


# The tables.


def groups(seed: int, signals: Mapping[str, int]) -> dict[str, Callable[[int], Plan]]:
    """What is done to which runs, by name; each gives the plan of a number."""

    def of(name: str, network: str, savers: Sequence[str], strike: int, times: int) -> Any:
        times = min(times, signals[name])
        return lambda number: Plan.of(seed, number, network, savers, strike, times)

    return {
        "kills": of("kills", "toy", OURS, signal.SIGKILL, 10),
        "digits": of("digits", "digits", OURS, signal.SIGKILL, 5),
        "terms": of("terms", "toy", OURS, signal.SIGTERM, 5),
        "keras": of("keras", "toy", [KERAS], signal.SIGKILL, 10),
    }


def runs(pool: ProcessPoolExecutor, make: Callable[[int], Plan], signals: int) -> Iterator[Ended]:
    """Disturb runs until so many signals have struck."""
    number = struck = 0
    whole: dict[Training, tuple[float, Mapping[str, str]]] = {}
    while struck < signals:
        more = -(-(signals - struck) // len(make(0).moments))
        plans = [make(each) for each in range(number, number + more)]
        new = sorted({plan.training for plan in plans} - whole.keys(), key=repr)
        whole.update(zip(new, pool.map(undisturbed, new), strict=True))
        for ended in pool.map(disturbed, plans, [whole[plan.training] for plan in plans]):
            struck += len(ended.doing)
            yield ended
        number += more


def signals(seed: int, count: int, *, name: str) -> Iterator[str]:
    """So many signals to the runs of a name; of each nothing, or what came of its run."""
    plans = groups(seed, dict.fromkeys(("kills", "digits", "terms", "keras"), count))[name]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        for ended in runs(pool, plans, count):
            again = (
                f"{ended}; again: --seed {seed} --{name} {count} --only {name} {ended.plan.number}"
            )
            yield from [""] * (len(ended.doing) - 1)
            if ended.doing or not ended.is_exact:
                yield "" if ended.is_exact else f"{ended}; again: {again}"


def print_runs(name: str, found: Sequence[Ended]) -> None:
    """
    Print a row for each way of saving, and what the signals have struck.

    Of the runs that were resumed it says how many ended with the same bytes: one that was killed
    before its first save has begun anew. What is repeated is counted in saving intervals.
    """
    rows: dict[str, list[Ended]] = {}
    for ended in found:
        plan = ended.plan
        how = "" if plan.saver == KERAS else ", background" if plan.background else ", foreground"
        rows.setdefault(f"{plan.saver}{how}", []).append(ended)
    print(f"{name:42}{'runs':>6}{'signals':>9}{'resumed':>9}{'same bytes':>12}{'repeated':>10}")
    for row, those in sorted(rows.items()):
        resumed = [each for each in those if each.resumed]
        same = sum(each.is_exact for each in resumed)
        struck = sum(len(each.doing) for each in those)
        most = max((each for ended in those for each in ended.repeated), default=0)
        repeated = "" if those[0].plan.saver == KERAS else f"{most:.2f}"
        print(f"  {row:40}{len(those):6}{struck:9}{len(resumed):9}{same:12}{repeated:>10}")
    for what, counted in {
        "struck while": [doing or "importing" for ended in found for doing in ended.doing],
        "ended with": [code for ended in found for code in ended.codes],
        "not the same": [part for ended in found for part in ended.differing],
        "gone wrong": ["runs" for ended in found if ended.wrong],
    }.items():
        if counted:
            listed = ", ".join(f"{each} {n}" for each, n in Counter(counted).most_common())
            print(f"  {what}: {listed}")
    sys.stdout.flush()


def asked_for() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description="Disturb runs, and see whether they end the same.")
    for name, signals in {"kills": 500, "digits": 20, "terms": 100, "keras": 100}.items():
        ask.add_argument(f"--{name}", type=int, default=signals, metavar="SIGNALS")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--parallel", type=int, default=2)
    ask.add_argument("--only", nargs=2, metavar=("NAME", "NUMBER"), help="play one run again")
    return ask.parse_args()


def main() -> int:
    asked, began, bad = asked_for(), time.monotonic(), 0
    make = groups(asked.seed, vars(asked))
    if asked.only:
        name, number = asked.only
        plan = make[name](int(number))
        ended = disturbed(plan, undisturbed(plan.training))
        print(ended)
        return 0 if ended.is_exact else 1
    # Forked before there is a thread here; each forks the processes of its runs.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(asked.parallel, mp_context=context) as pool:
        for name, plans in make.items():
            signals, found = vars(asked)[name], []
            for ended in runs(pool, plans, signals):
                found.append(ended)
                if name != "keras" and not ended.is_exact:
                    bad += 1
                    print(f"{ended}\nagain: --seed {asked.seed} --{name} {signals}", end=" ")
                    print(f"--only {name} {ended.plan.number}", flush=True)
            if found:
                print_runs(name, found)
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
