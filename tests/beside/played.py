"""Holdfast's own callbacks alone: calls struck and files damaged by a seed, and what went wrong."""

from collections.abc import Iterator
from pathlib import Path

from tests.beside import ours
from tests.beside.damages import DAMAGES, damaged
from tests.beside.runs import Whole
from tests.beside.strikes import ERRORS, KILLS, Strike, strike
from tests.crash.points import memory


def struck(seed: int, count: int) -> Iterator[str]:
    """
    Kill, tear and fail calls of second saves, so many in all.

    Yields for each nothing, or what is wrong: nothing usable is left, or nobody was told.
    """
    faults = (*ERRORS, *KILLS)  # a full disk does not fail every call that is drawn for it
    for whole, root, cases in _wholes(count):
        done: list[Strike] = []
        for number, fault in enumerate(faults):
            most = -(-(cases - len(done)) // (len(faults) - number))
            done += strike(whole, root / "struck", [fault], most=most, seed=seed)
        for each in done:
            yield "" if each.is_well else _told(whole, str(each), seed)


def harmed(seed: int, count: int) -> Iterator[str]:
    """
    Flip bits of what two saves left, cut its files short and swap them, so many times in all.

    Yields for each nothing, or what is wrong: the damage was not noticed, or a flip or a cut left
    nothing to go on from.
    """
    for whole, root, cases in _wholes(count):
        for damage in DAMAGES:
            most = -(-cases // len(DAMAGES))
            for each in damaged(whole, root / "harmed", damage, most, seed=seed):
                yield "" if each.is_well else _told(whole, str(each), seed)


def _wholes(count: int) -> Iterator[tuple[Whole, Path, int]]:
    """Each callback with its share of the cases."""
    for subject in ours.SUBJECTS:
        with memory() as root:
            yield Whole.of(subject, root / "whole"), root, -(-count // len(ours.SUBJECTS))


def _told(whole: Whole, what: str, seed: int) -> str:
    return f"{whole.subject.name}: {what}; seed {seed}"
