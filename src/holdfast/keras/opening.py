"""Which epoch of a training begins: said by the callback, heard by data that can be replayed."""

import weakref
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Opening:
    """
    An epoch that is about to begin.

    Attributes:
        epoch (int): its number, from 0.
        trained (int): how many of its batches a resumed run has trained already. They are asked
            for all the same, from the first on, and nothing is done with them.
        steps (int | None): how many batches `fit` takes for an epoch, if it knows.
    """

    epoch: int
    trained: int = 0
    steps: int | None = None


class Follower(Protocol):
    """Data whose order follows from the epoch."""

    def follow(self, opening: Opening) -> None:
        """Be ready for this epoch; called before its first batch is asked for."""


_followers: "weakref.WeakSet[Follower]" = weakref.WeakSet()
_current: Opening | None = None


def register(follower: Follower) -> None:
    """Tell a follower of every epoch that begins, for as long as somebody else holds it."""
    _followers.add(follower)


def announce(opening: Opening) -> None:
    """Say that an epoch is about to begin."""
    global _current  # noqa: PLW0603 - one training at a time is what a process has
    _current = opening
    for follower in list(_followers):
        follower.follow(opening)


def withdraw() -> None:
    """Say that the epoch's first batch has been taken: data that is opened later is of no epoch."""
    global _current  # noqa: PLW0603
    _current = None


def current() -> Opening | None:
    """The epoch that is about to begin; None once its first batch was taken."""
    return _current
