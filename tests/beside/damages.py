"""What lies there is damaged: a flipped bit, a file cut short, two files that changed places."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tests.beside.runs import Whole, files, look
from tests.beside.subject import USABLE, Verdict

Damage = Literal["flip", "cut", "swap"]
DAMAGES: tuple[Damage, ...] = ("flip", "cut", "swap")


@dataclass(frozen=True)
class Damaged:
    """
    What is done to a copy of the whole thing.

    Attributes:
        damage (Damage): of which kind.
        file (str): the file that it is done to, relative to the place.
        where (int): the bit that is flipped, or the length that is left.
        other (str): with which file it changes places.
        left (Verdict): what a new process finds.
    """

    damage: Damage
    file: str
    where: int = 0
    other: str = ""
    left: Verdict = "crashed"

    @property
    def is_noticed(self) -> bool:
        """A run goes on from one of the saves, or is told."""
        return self.left in (*USABLE, "unreadable")

    @property
    def is_usable(self) -> bool:
        """A run can go on from what is left."""
        return self.left in USABLE

    @property
    def is_well(self) -> bool:
        """Noticed and usable; two files of two checkpoints that changed places damage both."""
        return self.is_noticed and (self.is_usable or self.damage == "swap")

    def do(self, folder: Path) -> None:
        """Damage what lies in a folder."""
        path = folder / self.file
        content = bytearray(path.read_bytes())
        if self.damage == "flip":
            content[self.where // 8] ^= 1 << self.where % 8
            path.write_bytes(content)
        elif self.damage == "cut":
            path.write_bytes(content[: self.where])
        else:
            other = folder / self.other
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)

    def __str__(self) -> str:
        what = f"with {self.other}" if self.other else f"at {self.where}"
        return f"{self.damage} of {self.file} {what}: {self.left}"


def damaged(
    whole: Whole, root: Path, damage: Damage, count: int, *, seed: int = 0
) -> list[Damaged]:
    """
    Damage copies of what two saves left, and look what a new process makes of each.

    What is damaged belongs to the second save.
    """
    place, earlier = whole.place, whole.saved.earlier
    here = files(place)
    newest = sorted(name for name, changed in here.items() if earlier.get(name) != changed)
    draw = random.Random(f"{seed} {whole.subject.name} {damage}")
    drawn = [_case(damage, place, newest, sorted(here), number, draw) for number in range(count)]
    cases = [case for case in drawn if case is not None]

    def made(case: Damaged) -> str:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(place, root)
        case.do(root)
        return str(root)

    verdicts = look(whole.subject, cases, whole.saved.saves, made)
    return [replace(case, left=left) for case, left in zip(cases, verdicts, strict=True)]


def _case(
    damage: Damage,
    place: Path,
    newest: Sequence[str],
    here: Sequence[str],
    number: int,
    draw: random.Random,
) -> Damaged | None:
    """One case; None where there is nothing to change places with."""
    sizes = [(place / name).stat().st_size for name in newest]
    # Half of all bits anywhere, half in a file drawn before, so that small files are hit, too.
    anywhere = damage == "flip" and number % 2 == 0
    (file,) = draw.choices(newest, sizes if anywhere else [min(1, size) for size in sizes])
    content = (place / file).read_bytes()
    if damage == "flip":
        return Damaged(damage, file, draw.randrange(8 * len(content)))
    if damage == "cut":
        return Damaged(damage, file, draw.randrange(len(content)))
    others = [other for other in here if (place / other).read_bytes() != content]
    return Damaged(damage, file, other=draw.choice(others)) if others else None
