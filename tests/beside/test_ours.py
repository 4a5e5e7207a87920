"""
Holdfast's callbacks lose nothing and load nothing that is wrong; what is broken on purpose shows.

Each run of the tests takes a few cases, others each day; `make beside` takes more of them, and does
the same to the other tools.
"""

import contextlib
from pathlib import Path

import pytest

pytest.importorskip("keras")

from holdfast import fetching
from tests import share
from tests.apart import process
from tests.beside import ours
from tests.beside.damages import DAMAGES, damaged
from tests.beside.runs import Whole
from tests.beside.strikes import ERRORS, KILLS, strike
from tests.crash.points import memory


def hash_not_compared(patch: pytest.MonkeyPatch) -> None:
    def read(self, file, read) -> None:
        with self._open(file) as opened, contextlib.suppress(EOFError):
            read(opened)

    patch.setattr(fetching.CheckpointContents, "_read", read)


def struck(whole: Whole, root: Path) -> list[str]:
    """What is wrong after strikes."""
    found = strike(whole, root, (*KILLS, *ERRORS), most=60 if share.LONG else 1, seed=share.SEED)
    return [str(each) for each in found if not (each.is_usable and each.is_told)]


def harmed(whole: Whole, root: Path) -> list[str]:
    """What is wrong after damage; two files of two checkpoints that changed places damage both."""
    count = 60 if share.LONG else 2
    found = [
        each for kind in DAMAGES for each in damaged(whole, root, kind, count, seed=share.SEED)
    ]
    return [
        str(each)
        for each in found
        if not (each.is_noticed and (each.is_usable or each.damage == "swap"))
    ]


def play() -> tuple[list[str], list[str]]:
    """What went wrong; and what was broken on purpose and did not show."""
    unseen = []
    with memory() as root:
        whole = Whole.of(ours.SUBJECTS[share.SEED % len(ours.SUBJECTS)], root / "whole")
        wrong = [*struck(whole, root / "struck"), *harmed(whole, root / "harmed")]
        with pytest.MonkeyPatch.context() as patch:
            hash_not_compared(patch)
            if all(each.is_usable for each in damaged(whole, root / "unseen", "flip", 4)):
                unseen.append("hash not compared")
    return wrong, unseen


def test_nothing_is_lost_or_wrong_and_what_is_broken_on_purpose_shows() -> None:
    # A process of its own: TensorFlow must not have begun where others are forked.
    with process() as pool:
        wrong, unseen = pool.submit(play).result()

    assert not wrong
    assert not unseen
