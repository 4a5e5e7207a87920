"""The second save is killed or torn at its calls, or finds the disk full or failing."""

import errno
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tests.beside.runs import Heard, Saved, Whole, look, save_twice
from tests.beside.subject import USABLE, Verdict
from tests.crash.killer import How

#: What happens to a call: what is done to it, and whether it lasts.
Fault = Literal["killed", "torn", "full", "broken"]
KILLS: tuple[Fault, ...] = ("killed", "torn")
ERRORS: tuple[Fault, ...] = ("full", "broken")
_HOW: dict[Fault, tuple[How, bool]] = {
    "killed": ("before", False),
    "torn": ("torn", False),
    "full": (errno.ENOSPC, True),  # a disk stays full
    "broken": (errno.EIO, False),
}
#: Calls that need no room.
_FREE = {"unlink", "rmdir", "close"}


@dataclass(frozen=True)
class Strike:
    """
    One call that was struck.

    Attributes:
        fault (Fault): what happened to it.
        at (int): its number, counted from 1.
        call (str): what it was and to which file.
        heard (Heard | None): what the caller heard; None of a process that was killed.
        left (Verdict): what a new process finds.
        place (Path): where.
    """

    fault: Fault
    at: int
    call: str
    heard: Heard | None
    left: Verdict
    place: Path

    @property
    def is_usable(self) -> bool:
        """A run can go on from what was left."""
        return self.left in USABLE

    @property
    def is_told(self) -> bool:
        """The second save is there, or its caller was told that it may not be."""
        return self.heard in (None, "raised", "warned") or self.left == "second"

    @property
    def is_well(self) -> bool:
        """Usable, and told where something was lost."""
        return self.is_usable and self.is_told

    def __str__(self) -> str:
        told = "" if self.is_told else ", and nobody was told"
        return f"{self.fault} at call {self.at}, {self.call}: {self.left}{told}"


def strike(
    whole: Whole, root: Path, faults: Sequence[Fault], *, seed: int = 0, most: int | None = None
) -> list[Strike]:
    """
    Strike calls of the second save, and look what each strike left.

    Parameters:
        whole (Whole): what is struck, and how it saves undisturbed.
        root (Path): a directory to work in.
        seed (int): draws the calls, where not all are struck.
        most (int | None): how many are struck with each fault; None strikes all.
    """
    subject = whole.subject
    cases = []
    for fault in faults:
        for at in drawn(len(whole.calls), most, f"{seed} {subject.name} {fault}"):
            if fault == "full" and whole.calls[at - 1].kind in _FREE:
                continue
            how, sticky = _HOW[fault]
            place = root / f"{fault}-{at}"
            outcome = save_twice(subject, place, at=at, how=how, sticky=sticky)
            if outcome.struck is None:
                continue  # its threads made fewer calls this time
            heard = outcome.result.heard if isinstance(outcome.result, Saved) else None
            call = f"{outcome.struck.kind} {Path(outcome.struck.path).name}"
            cases.append(Strike(fault, at, call, heard, "crashed", place))
    verdicts = look(subject, cases, whole.saved.saves, lambda case: str(case.place))
    return [replace(case, left=left) for case, left in zip(cases, verdicts, strict=True)]


def drawn(calls: int, most: int | None, seed: str) -> list[int]:
    """The numbers of the calls to strike: all, or so many of them."""
    everything = range(1, calls + 1)
    if most is None or most >= calls:
        return list(everything)
    return sorted(random.Random(seed).sample(everything, most))
