"""
The scorecard: every promise against every fault, in full numbers, as a table with seeds.

`make torture` runs all of it, `make torture CHECKS="R1 R3"` some of its rows, and `SCALE=0.01` a
hundredth of each. It takes hours, on as many processes as there are cores. It ends with 1 where
anything was broken, or where less was played than was to be.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import holdfast
from tests import share
from tests.torture.playing import Part, Tally, played
from tests.torture.scorecard import PARTS

_HEAD = "| check | what was counted | cases | broken | seed | minutes | remark |"
_RULE = "|---|---|---:|---:|---:|---:|---|"


def main() -> int:
    """Run what was asked for, print the table; 1 where a promise was broken."""
    asked = _arguments()
    if asked.part is not None:
        part = PARTS[asked.part]
        print(json.dumps(asdict(played(part.cases(asked.seed, asked.shard, asked.scale)))))
        return 0
    chosen = [part for part in PARTS if {"all", *part.check.split()} & {*asked.checks}]
    print(f"holdfast {holdfast.__version__}, Python {platform.python_version()}, {_machine()}\n")
    print(f"{_HEAD}\n{_RULE}", flush=True)
    began, total, short = time.monotonic(), Tally(), []
    broken: list[str] = []
    for part, tally in _all_played(chosen, asked):
        print(_row(part, tally, asked.seed), flush=True)
        broken += [f"{part.check}, {part.what}: {what}" for what in tally.told]
        total.add(tally)
        if tally.cases < (least := part.least(asked.scale)):
            short.append(f"{part.check}, {part.what}: {tally.cases:,} of {least:,}")
    took = (time.monotonic() - began) / 60
    print(f"| all | | {total.cases:,} | {total.broken:,} | {asked.seed} | {took:.0f} | |")
    for line in [*broken, *(f"fewer than there were to be: {each}" for each in short)]:
        print(f"\n{line}")
    return 1 if broken or short else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("checks", nargs="*", default=["all"], help="such as R1; or all")
    parser.add_argument("--seed", type=int, default=share.SEED)
    parser.add_argument("--scale", type=float, default=1.0, help="which part of the full numbers")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shard", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    known = {"all", *(check for part in PARTS for check in part.check.split())}
    if strange := {*asked.checks} - known:
        parser.error(f"no such rows: {sorted(strange)}; there are {', '.join(sorted(known))}")
    return asked


def _all_played(chosen: list[Part], asked: argparse.Namespace) -> Iterator[tuple[Part, Tally]]:
    """Each part with what came of it, in order; their shards are processes of their own."""
    with ThreadPoolExecutor(asked.jobs) as pool:
        waiting = [
            (part, [pool.submit(_shard, part, shard, asked) for shard in range(part.shards)])
            for part in chosen
        ]
        for part, shards in waiting:
            tally = Tally()
            for shard in shards:
                tally.add(shard.result())
            yield part, tally


def _shard(part: Part, shard: int, asked: argparse.Namespace) -> Tally:
    """A process of its own plays it: what one leaves behind is not in the way of the next."""
    command = [sys.executable, "-m", "tests.torture", "--part", str(PARTS.index(part))]
    command += ["--shard", str(shard), "--seed", str(asked.seed), "--scale", str(asked.scale)]
    began = time.monotonic()
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    lines = ran.stdout.splitlines()
    if ran.returncode or not lines:
        told = f"the harness ended with {ran.returncode}: {ran.stderr[-2000:]}"
        return Tally(0, 1, [told], "", time.monotonic() - began)
    return Tally(**json.loads(lines[-1]))


def _row(part: Part, tally: Tally, seed: int) -> str:
    cells = (part.check, part.what, f"{tally.cases:,}", f"{tally.broken:,}", seed)
    cells = (*cells, f"{tally.seconds / 60:.1f}", tally.remark)
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
