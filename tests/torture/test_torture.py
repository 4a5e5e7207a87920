"""The command that plays the scorecard: what it plays, what it tells, and that it fails."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture import __main__ as torture
from tests.torture.playing import Part, Tally, played
from tests.torture.scorecard import PARTS

ROOT = Path(__file__).parents[2]


def drawn(seed: int, count: int, *, broken: int = 0) -> Iterator[str]:
    """So many cases, of which the first few are broken; the remark tells the seed."""
    for number in range(count):
        yield f"case {number}" if number < broken else ""
    return f"seed {seed}"


def gone_through(first: int, every: int, *, there: int) -> Iterator[str]:
    """Every so many of what there is; each tells which it was."""
    for number in range(first, there + 1, every):
        yield str(number)


def fail(seed: int, count: int) -> Iterator[str]:
    """A harness that does not work."""
    yield ""
    raise ZeroDivisionError


def part(function: str, count: int = 8, **more) -> Part:
    return Part("R0", "what is counted", f"{__name__}:{function}", count, **more)


def test_everything_that_is_to_be_played_is_there() -> None:
    for each in PARTS:
        module, name = each.plays.split(":")
        assert callable(getattr(importlib.import_module(module), name)), each.plays


def test_cases_are_counted_and_the_broken_ones_told() -> None:
    tally = played(part("drawn", given={"broken": 7}).cases(seed=5, shard=0, scale=1))

    assert (tally.cases, tally.broken, tally.remark) == (8, 7, "seed 5000")
    assert tally.told == [f"case {number}" for number in range(5)]


def test_shards_share_what_there_is_and_a_scale_takes_less() -> None:
    through = part("gone_through", kind="every", shards=2, given={"there": 12})

    halves = [[*through.cases(5, shard, 1)] for shard in range(2)]
    less = [[*through.cases(5, shard, 0.5)] for shard in range(2)]

    assert sorted(halves[0] + halves[1], key=int) == [str(number) for number in range(1, 13)]
    assert [len(cases) for cases in less] == [3, 3]
    assert not {*less[0]} & {*less[1]}


def test_shards_draw_other_cases() -> None:
    one, other = (played(part("drawn", shards=2).cases(5, shard, 1)) for shard in range(2))

    assert one.cases == other.cases == 4
    assert one.remark != other.remark


@pytest.mark.parametrize(
    ("function", "given", "told"),
    [
        ("drawn", {"broken": 2}, "case 0"),
        ("gone_through", {"there": 3}, "fewer than there were to be"),
        ("fail", {}, "ZeroDivisionError"),
    ],
)
def test_what_is_broken_or_missing_ends_the_command_with_an_error(
    function, given, told, monkeypatch, capsys
) -> None:
    kind = "every" if function == "gone_through" else "drawn"
    parts = (part(function, kind=kind, given=given), part("drawn"))
    monkeypatch.setattr(torture, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["torture"])
    monkeypatch.setattr(torture, "_shard", in_this_process)

    assert torture.main() == 1

    assert told in capsys.readouterr().out


def in_this_process(part: Part, shard: int, asked) -> Tally:
    """What a process of its own would tell."""
    try:
        return played(part.cases(asked.seed, shard, asked.scale))
    except Exception as error:
        return Tally(0, 1, [repr(error)])


def test_a_row_is_played_from_the_command_line() -> None:
    command = [sys.executable, "-m", "tests.torture", "R8", "--scale", "0.0001", "--seed", "7"]

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [line for line in ran.stdout.splitlines() if line.startswith("| R8 ")]
    assert rows
    assert all("| 0 | 7 |" in row for row in rows)
