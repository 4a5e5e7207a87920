"""
The same kills, faults and damage for Holdfast and for what others save with.

`python -m tests.beside` prints the tables; `--page` writes them into a page as well. Each case is a
real `fit` of two epochs in a process of its own, and a clean process looks at what it left.
"""

import argparse
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks import machine
from tests.beside import others, ours, tables
from tests.beside.damages import DAMAGES, damaged
from tests.beside.remote import to_s3
from tests.beside.restarts import best, exact
from tests.beside.runs import Whole
from tests.beside.strikes import ERRORS, KILLS, strike
from tests.beside.subject import Subject
from tests.beside.tables import Found
from tests.crash.points import memory


def asked_for() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    ask.add_argument("--kills", type=int, default=100, help="calls that are struck in each way")
    ask.add_argument("--errors", type=int, default=20, help="calls that fail in each way")
    ask.add_argument("--flips", type=int, default=200, help="flipped bits")
    ask.add_argument("--cuts", type=int, default=40, help="files cut short")
    ask.add_argument("--swaps", type=int, default=40, help="files that change places")
    ask.add_argument("--uploads", type=int, default=2, help="requests from which on all are cut")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--parallel", type=int, default=2, help="subjects at a time")
    ask.add_argument("--only", nargs="+", default=[""], help="subjects by part of a name")
    ask.add_argument("--page", type=Path, help="put the tables into this page")
    return ask.parse_args()


def look_at(subject: Subject, root: Path, asked: argparse.Namespace) -> Found:
    """Everything that is done to one subject."""
    print(f"{subject.name} ...", file=sys.stderr, flush=True)
    whole, seed = Whole.of(subject, root / "whole"), asked.seed
    counts = dict(zip(DAMAGES, (asked.flips, asked.cuts, asked.swaps), strict=True))
    return Found(
        subject,
        strike(whole, root / "kills", KILLS, most=asked.kills, seed=seed),
        strike(whole, root / "errors", ERRORS, most=asked.errors, seed=seed),
        [
            case
            for damage, count in counts.items()
            for case in damaged(whole, root / damage, damage, count, seed=seed)
        ],
        best(subject, root / "best"),
        exact(subject, root / "exact"),
        to_s3(subject, root, most=asked.uploads, seed=seed),
    )


def main() -> int:
    asked, began = asked_for(), time.monotonic()
    command = shlex.join(["python", "-m", "tests.beside", *sys.argv[1:]])
    parts = [part.lower() for part in asked.only]
    subjects = [
        subject
        for subject in (*ours.SUBJECTS, *others.SUBJECTS)
        if any(part in subject.name.lower() for part in parts)
    ]
    found: dict[str, Found] = {}
    text: list[str] = []
    with memory() as root, ThreadPoolExecutor(asked.parallel) as pool:
        about = "; ".join(machine.describe(str(root)).values())
        looks = [
            pool.submit(look_at, subject, root / str(number), asked)
            for number, subject in enumerate(subjects)
        ]
        for look in as_completed(looks):
            if (error := look.exception()) is not None:  # the others are shown nevertheless
                print(f"{type(error).__name__}: {str(error)[:500]}", file=sys.stderr, flush=True)
                continue
            one = look.result()
            found[one.subject.name] = one
            took = f"{(time.monotonic() - began) / 60:.0f} minutes"
            text = [
                f"{about}; `{command}`, seed {asked.seed}, {took}.",
                "",
                *tables.lines([found[each.name] for each in subjects if each.name in found]),
            ]
            if asked.page:
                tables.write(text, asked.page)
    print("\n".join(text))
    return 0 if len(found) == len(subjects) else 1


if __name__ == "__main__":
    sys.exit(main())
