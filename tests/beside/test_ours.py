"""
Holdfast's callbacks lose nothing and load nothing that is wrong; what is broken on purpose shows.

Each run of the tests takes a few cases, others each day; `make beside` takes more of them, and does
the same to the other tools.
"""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("keras")

from holdfast import CheckpointStore, Saver, fetching
from holdfast.keras.keeper import Keeper
from tests import share
from tests.apart import process
from tests.beside import ours
from tests.beside.damages import DAMAGES, Damage, damaged
from tests.beside.runs import Whole
from tests.beside.strikes import ERRORS, KILLS, Fault, strike
from tests.crash.points import memory


def struck(whole: Whole, root: Path, faults: Sequence[Fault], most: int, seed: int) -> list[str]:
    """What is wrong after strikes."""
    found = strike(whole, root, faults, most=most, seed=seed)
    return [str(each) for each in found if not each.is_well]


def harmed(whole: Whole, root: Path, damages: Sequence[Damage], most: int, seed: int) -> list[str]:
    """What is wrong after damage."""
    found = [each for kind in damages for each in damaged(whole, root, kind, most, seed=seed)]
    return [str(each) for each in found if not each.is_well]


def hash_not_compared(patch: pytest.MonkeyPatch) -> None:
    def read(self, file, read) -> None:
        with self._open(file) as opened, contextlib.suppress(EOFError):
            read(opened)

    patch.setattr(fetching.CheckpointContents, "_read", read)


def room_made_first(patch: pytest.MonkeyPatch) -> None:
    draft = CheckpointStore.draft

    def after_a_removal(self, **given):
        self.remove(*self.checkpoints())
        return draft(self, **given)

    patch.setattr(CheckpointStore, "draft", after_a_removal)


def failures_kept_quiet(patch: pytest.MonkeyPatch) -> None:
    for owner, method in ((Saver, "_raise_failure"), (Saver, "_failed"), (Keeper, "_failed")):
        patch.setattr(owner, method, lambda *_: None)


#: What is broken on purpose, each day another, and where it shows.
MUTANTS = (
    (hash_not_compared, partial(harmed, damages=["flip"])),
    (room_made_first, partial(struck, faults=KILLS)),
    (failures_kept_quiet, partial(struck, faults=ERRORS)),
)


def play() -> tuple[list[str], list[str]]:
    """What went wrong; and what was broken on purpose and did not show."""
    few, many = (60, 60) if share.LONG else (1, 2)
    unseen = []
    with memory() as root:
        whole = Whole.of(ours.SUBJECTS[share.SEED % len(ours.SUBJECTS)], root / "whole")
        wrong = struck(whole, root / "struck", (*KILLS, *ERRORS), few, share.SEED)
        wrong += harmed(whole, root / "harmed", DAMAGES, many, share.SEED)
        for mutant, shown in MUTANTS if share.LONG else [MUTANTS[share.SEED // 3 % 3]]:
            with pytest.MonkeyPatch.context() as patch:
                mutant(patch)
                if not shown(whole, root / mutant.__name__, most=4, seed=0):
                    unseen.append(mutant.__name__)
    return wrong, unseen


def test_nothing_is_lost_or_wrong_and_what_is_broken_on_purpose_shows() -> None:
    # A process of its own: TensorFlow must not have begun where others are forked.
    with process() as pool:
        wrong, unseen = pool.submit(play).result()

    assert not wrong
    assert not unseen
