"""Several actors at once, one call at a time, in an order that the test chooses."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

#: Chooses who goes on: given who still can, and who has just stopped at a call (None: it ended).
Choose = Callable[[list[int], int | None], int]


class Baton:
    """
    Runs actors in threads of which exactly one runs at a time.

    Whoever has the baton runs up to where it passes it on; there it is chosen who gets it.

    Parameters:
        choose (Choose): who.
    """

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._waiting: list[threading.Lock] = []
        self._alive: list[int] = []
        self._ended = threading.Lock()

    def run(self, actors: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run them to their ends; what each returned, or raised."""
        ends: list[Any] = [None] * len(actors)
        self._alive = list(range(len(actors)))
        self._waiting = [_locked() for _ in actors]
        self._ended = _locked()

        def live(number: int) -> None:
            self._waiting[number].acquire()
            try:
                ends[number] = actors[number]()
            except Exception as error:
                ends[number] = error
            self._alive.remove(number)
            if self._alive:
                self._waiting[self._choose(self._alive, None)].release()
            else:
                self._ended.release()

        threads = [
            threading.Thread(target=live, args=(number,), daemon=True) for number in self._alive
        ]
        for thread in threads:
            thread.start()
        self._waiting[self._choose(self._alive, None)].release()
        self._ended.acquire()
        for thread in threads:
            thread.join()
        return ends

    def pass_on(self, actor: int) -> None:
        """Let it be chosen who goes on; this actor waits until it is its turn again."""
        chosen = self._choose(self._alive, actor)
        if chosen != actor:
            self._waiting[chosen].release()
            self._waiting[actor].acquire()


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def at_random(seed: int | str) -> Choose:
    """A schedule from a seed; now and then somebody runs far ahead of the others."""
    numbers = random.Random(seed)
    stay = numbers.choice([0.0, 0.3, 0.7, 0.9])

    def choose(alive: list[int], stopped: int | None) -> int:
        if stopped is not None and numbers.random() < stay:
            return stopped
        return numbers.choice(alive)

    return choose


class Path:
    """One way through the tree of all schedules."""

    def __init__(
        self, begin: Sequence[int], preemptions: int | None, alike: tuple[int, int] | None
    ) -> None:
        self._begin = begin
        self._left = preemptions
        self._alike = alike
        self.taken: list[tuple[int, int]] = []

    def choose(self, alive: list[int], stopped: int | None) -> int:
        options = sorted(alive, key=lambda actor: (actor != stopped, actor))
        if self._alike and self._alike[0] in options:
            options.remove(self._alike[1])
        if stopped is not None and self._left == 0:
            options = [stopped]
        depth = len(self.taken)
        index = self._begin[depth] if depth < len(self._begin) else 0
        self.taken.append((index, len(options)))
        chosen = options[index]
        if self._alike and chosen == self._alike[0]:
            self._alike = None
        if self._left is not None and stopped is not None and chosen != stopped:
            self._left -= 1
        return chosen

    def next(self) -> list[int] | None:
        """Where the next way begins; None after the last."""
        taken = list(self.taken)
        while taken:
            index, count = taken.pop()
            if index + 1 < count:
                return [index for index, _ in taken] + [index + 1]
        return None


def every_schedule(
    preemptions: int | None = None, alike: tuple[int, int] | None = None
) -> Iterator[Choose]:
    """
    Every order in which the calls of some actors can follow each other.

    The round is run with each before the next is asked for.

    Parameters:
        preemptions (int | None): only those in which so many actors at most are stopped before
            their end while another goes on.
        alike (tuple[int, int] | None): two actors who do the same, so that the second need not be
            tried as the first to begin.
    """
    begin: list[int] | None = []
    while begin is not None:
        path = Path(begin, preemptions, alike)
        yield path.choose
        begin = path.next()
