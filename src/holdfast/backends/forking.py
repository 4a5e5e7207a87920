"""Clients do not outlive a fork: what they share with the parent hangs or breaks in the child."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """
    Makes a client when it is first asked for, and a new one in a forked child.

    What the parent made is kept in the child, unused: letting it go could close the parent's
    connections. Two threads that ask first at the same moment may each be given one of their own
    for that call; no lock is held, since a fork could leave it locked for ever.

    Parameters:
        make (Callable[[], T]): makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """The client of this process."""
        made = self._made.get(os.getpid())
        if made is None:
            made = self._made[os.getpid()] = self._make()
        return made
