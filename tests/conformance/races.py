"""
Processes that begin at once on one place: they race for keys, or save until they are superseded.

The processes live through many rounds, so that a round costs no start of a process.
"""

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Self

import pytest

from holdfast import CheckpointStore, SupersededError
from holdfast.backends import open_backend
from holdfast.errors import AlreadyExists
from holdfast.writer import Writer
from tests.conformance.places import TABLE, Place
from tests.conformance.processes import CONTEXT
from tests.crash.points import memory

#: Where exactly one of any number of creators anywhere wins.
EXCLUSIVE = ["local", "moto", "gcs"]
#: How many processes race.
RACERS = 8
#: The saves of each writer before all of them have had their turns.
SAVES = 3
#: Keys of one round of orders, after which the place is looked at and emptied.
_BATCH = 50
#: Seconds by which a racer may come late, so that the calls meet in ever other ways.
_LATE_S = 0.0003

Mutant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Told:
    """
    What one writer was told in one round.

    Attributes:
        number: which writer it is.
        acknowledged: the ids of its saves, in order.
        goes_on: whether it could still save after all others had, and had done so once more.
    """

    number: int
    acknowledged: list[str]
    goes_on: bool


@dataclass
class Team:
    """
    Processes that do the same work, order by order, until the `with` block ends.

    Attributes:
        work: makes what does an order, in each process, of its number, of what all are given, and
            of the barrier.
        given: what all are given.
        count: how many they are.
        mutant: breaks the code on purpose, in the processes alone.
    """

    work: Callable[[int, Any, Barrier], Any]
    given: Any
    count: int = RACERS
    mutant: Mutant | None = None
    _racers: dict[Connection, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._barrier = CONTEXT.Barrier(self.count)  # the racers find it while it is kept here
        for number in range(self.count):
            ours, its = CONTEXT.Pipe()
            given = (number, self.work, self.given, self._barrier, its, self.mutant)
            self._racers[ours] = CONTEXT.Process(target=_race, args=given, name=f"racer {number}")
            self._racers[ours].start()
            its.close()  # so that the pipe ends with the process
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, racer in self._racers.items():
            pipe.close()
            racer.kill()  # it is idle, or waits for one that is dead
            racer.join()

    def order(self, what: Any) -> list[Any]:
        """
        Let all do something at once; what each made of it.

        Raises:
            AssertionError: one of them failed, or died without a word.
        """
        for pipe in self._racers:
            pipe.send(what)
        said: dict[Connection, Any] = {}
        while silent := self._racers.keys() - said.keys():
            for pipe in wait(silent):
                said[pipe] = self._word_of(pipe)
        failed = [text for made, text in said.values() if text and not made]
        assert not failed, failed
        return [said[pipe][0] for pipe in self._racers]

    def _word_of(self, pipe: Any) -> tuple[Any, str]:
        try:
            made, text = pipe.recv()
        except EOFError:
            racer = self._racers[pipe]
            racer.join()
            raise AssertionError(f"{racer.name} died without a word: {racer.exitcode}") from None
        return made, text


def _race(
    number: int, work: Any, given: Any, barrier: Barrier, pipe: Connection, mutant: Mutant | None
) -> None:
    if mutant:
        mutant(pytest.MonkeyPatch())
    worker = work(number, given, barrier)
    with contextlib.suppress(EOFError):
        while True:
            what = pipe.recv()
            try:
                pipe.send((worker.do(what), ""))
            except Exception as error:  # the others wait for what this one says
                barrier.abort()
                pipe.send((None, f"{number}: {error!r}"))


# ------------------------------------------------------------- one key


def creates(
    seed: int,
    count: int,
    *,
    name: str = "local",
    racers: int = RACERS,
    mutant: Mutant | None = None,
) -> Iterator[str]:
    """
    Processes race for one key after the other: exactly one wins each, and what lies there is its.

    Parameters:
        seed: of how late each comes.
        count: how many keys.
        name: the place, one that claims it.
        racers: how many processes.
        mutant: breaks the code on purpose.
    """
    with memory() as home, TABLE[name](home / name) as place:
        place.fill({})
        behind = place.backend()
        with Team(_Creator, (place.url, place.options()), racers, mutant) as team:
            for first in range(0, count, _BATCH):
                numbers = range(first, min(first + _BATCH, count))
                won = team.order((seed, numbers))
                there = dict(place.objects())
                for at in numbers:
                    winners = [number for number, keys in enumerate(won) if at in keys]
                    lies = there.get(_key(at))
                    ok = len(winners) == 1 and lies == _content(winners[0], at)
                    where = f"{name}, seed {seed}, key {at}"
                    yield "" if ok else f"{where}: won by {winners}, and {lies!r} is there"
                behind.delete(*map(_key, numbers))


class _Creator:
    """One that races for keys; its client is made once."""

    def __init__(self, number: int, given: tuple[str, Mapping[str, Any]], barrier: Barrier) -> None:
        self._number, self._barrier = number, barrier
        self._backend = open_backend(*given)

    def do(self, what: tuple[int, range]) -> set[int]:
        seed, numbers = what
        drawn = random.Random(f"{seed} {self._number} {numbers}")
        won = set()
        for at in numbers:
            content, late = _content(self._number, at), drawn.random() * _LATE_S
            self._barrier.wait()
            end = time.perf_counter() + late
            while time.perf_counter() < end:
                pass  # a sleep would be far longer
            with contextlib.suppress(AlreadyExists):
                self._backend.create(_key(at), content)
                won.add(at)
        return won


def _key(at: int) -> str:
    return f"manifests/race-{at}.json"


def _content(number: int, at: int) -> bytes:
    return f"racer {number}, key {at}\n".encode() * (1 + number)


# ------------------------------------------------------------- one run


def writers(
    seed: int, count: int, *, name: str = "local", mutant: Mutant | None = None
) -> Iterator[str]:
    """
    Eight processes begin to save at once: all that was acknowledged is there, and one goes on.

    Parameters:
        seed: of how late each comes.
        count: how many stores they do it to.
        name: the place, one that claims that one creator wins.
        mutant: breaks the code on purpose.
    """
    with memory() as home, TABLE[name](home / name) as place:
        place.fill({})
        with Team(_Saver, (place.url, place.options(), home), mutant=mutant) as team:
            for at in range(count):
                told = team.order((seed, at))
                try:
                    judge(place, f"{place.url}/{at}", home / "judge", told)
                    going_on = [each.number for each in told if each.goes_on]
                    assert len(going_on) == 1, f"{going_on} go on"
                except Exception as error:  # an unreadable store is broken, too
                    yield f"{name}, seed {seed}, store {at}: {type(error).__name__}: {error}"
                else:
                    yield ""
                shutil.rmtree(home / "judge", ignore_errors=True)
                place.fill({})


def take_turns(place: Place, home: Path, count: int) -> list[Told]:
    """Let so many processes save into one store, one after the other; what each was told."""
    told = []
    for number in range(count):
        # Drive's place has another URL each time that it is filled.
        given = (place.url.rpartition("/")[0], place.options(), home / str(number))
        with Team(_Saver, given, count=1) as team:
            told += team.order((number, place.url.rpartition("/")[2]))
    return told


def judge(place: Place, url: str, home: Path, told: list[Told]) -> None:
    """
    Look at a store that many processes have saved into.

    Raises:
        AssertionError: a promise is broken.
    """
    store = CheckpointStore(open_backend(url, place.options()), workspace=home)
    acknowledged = {id: each.number for each in told for id in each.acknowledged}
    assert len(acknowledged) == sum(len(each.acknowledged) for each in told), "an id given twice"
    there = {str(each.id): each.metadata["process"] for each in store}
    assert there == acknowledged, f"{there} and not {acknowledged}"
    report = store.verify(deep=True)
    assert report.ok, report.damage
    latest = store.latest()
    assert latest is not None
    last = max((id for each in told for id in each.acknowledged if each.goes_on), default="")
    assert str(latest.id) == last, f"{latest.id} is the latest, and not what was saved last: {last}"


class _Saver:
    """One that saves into one store after the other, each time as a process that begins."""

    def __init__(
        self, number: int, given: tuple[str, Mapping[str, Any], Path], barrier: Barrier
    ) -> None:
        self._number, self._barrier = number, barrier
        self._url, self._options, self._home = given

    def do(self, what: tuple[int, object]) -> Told:
        seed, at = what
        late = random.Random(f"{seed} {self._number} {at}").random() * 10 * _LATE_S
        home = self._home / f"writer-{self._number}-{at}"
        home.mkdir(parents=True)
        backend = open_backend(f"{self._url}/{at}", self._options)
        store = CheckpointStore(backend, workspace=home / "drafts", writer=Writer())
        acknowledged: list[str] = []

        def save(*steps: int) -> bool:
            for step in steps:
                (home / "model.bin").write_bytes(f"process {self._number}, {step}".encode())
                given = {"process": self._number}
                try:
                    saved = store.save(home / "model.bin", step=step, metadata=given)
                except SupersededError:
                    return False
                acknowledged.append(str(saved.id))
            return True

        self._barrier.wait()
        time.sleep(late)
        goes_on = save(*range(SAVES))
        # A save looks for what came since the one before it: after one more save of each, in turns,
        # nobody is left who has not seen the others, but for the one whom they have made way for.
        for step in (SAVES, SAVES + 1):
            for number in range(self._barrier.parties):
                self._barrier.wait()
                if number == self._number % self._barrier.parties:
                    goes_on = goes_on and save(step)
        shutil.rmtree(home)
        return Told(self._number, acknowledged, goes_on)
