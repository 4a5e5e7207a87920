"""Plans beside those of an oracle that looks at every pair, on random histories and rules."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from holdfast import retention
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import InvalidInputError
from holdfast.retention import PrunePlan, Rule


def plans(seed: int, count: int) -> Iterator[str]:
    """Random histories, each with two rules; where a plan is not what the oracle says."""
    for case in range(count):
        yield first_difference([f"{seed}-{case}"]) or ""


class Part(NamedTuple):
    """One rule as a text to evaluate and as what an oracle needs to know of it."""

    text: str
    kind: str
    metric: str = ""
    number: float = 0
    mode: str = ""
    last: int = 1000
    parts: "tuple[Part, ...]" = ()


def expected(
    part: Part,
    rows: Sequence[Checkpoint],
    pinned: dict[CheckpointId, list[str]],
    spared: dict[CheckpointId, str],
) -> dict[CheckpointId, list[str]] | None:
    """The ids to keep, each with its reasons; None where the rule has to be refused."""
    if rows and not any(why(part, row, rows) for row in rows):
        return None
    kept = {}
    for row in rows:
        reasons = list(why(part, row, rows))
        reasons += [f"pinned: {name}" for name in pinned.get(row.id, [])]
        reasons += [spared[row.id]] if row.id in spared else []
        reasons += ["latest"] if not any(other.id > row.id for other in rows) else []
        if reasons:
            kept[row.id] = list(dict.fromkeys(reasons))
    return kept


def why(part: Part, me: Checkpoint, rows: Sequence[Checkpoint]) -> list[str]:
    """Why one row is kept, by looking at every other row; an empty list if it is not."""
    if part.kind in "|&":
        each = [why(one, me, rows) for one in part.parts]
        return list(chain(*each)) if part.kind == "|" or all(each) else []
    if part.kind == "best":
        mine = value_of(me, part.metric)
        if mine is None:
            return []
        better = 0
        for row in rows:
            value = value_of(row, part.metric)
            if value is not None and (
                (value < mine if part.mode == "min" else value > mine)
                or (value == mine and row.id < me.id)
            ):
                better += 1
        return [f"{part.text}: {mine:g}"] if better < part.number else []
    if part.kind == "last":
        is_kept = sum(row.id > me.id for row in rows) < part.number
    elif part.kind == "within":
        is_kept = all(
            (row.created_at - me.created_at).total_seconds() <= part.number for row in rows
        )
    elif part.kind in ("steps", "seconds"):
        newest: dict[int, int] = {}
        for row in rows:
            newest[span_of(row, part)] = max(newest.get(span_of(row, part), 0), row.session)
        span = span_of(me, part)
        rivals = [row for row in rows if span_of(row, part) == span and row.session == me.session]
        newer = [one for one in newest if (newest[one], one) > (newest[span], span)]
        is_kept = me.session == newest[span] and len(newer) < part.last
        is_kept = is_kept and not any(row.id < me.id for row in rivals)
    else:
        is_kept = True
    return [part.text] if is_kept else []


def span_of(row: Checkpoint, part: Part) -> int:
    counted = row.step if part.kind == "steps" else row.created_at.timestamp()
    return math.floor(counted / part.number)


def value_of(row: Checkpoint, metric: str) -> float | None:
    other = {"val_acc": "val_accuracy", "val_accuracy": "val_acc"}.get(metric, metric)
    value = row.metrics.get(metric, row.metrics.get(other))
    return None if value is None or value != value or value in (math.inf, -math.inf) else value


# ------------------------------------------------------------------ random rules and histories


def some_rule(rng: random.Random, depth: int = 2) -> Part:
    if depth and rng.random() < 0.5:
        kind = rng.choice("|&")
        parts = tuple(some_rule(rng, depth - 1) for _ in range(rng.choice([2, 2, 3])))
        return Part(f" {kind} ".join(f"({part.text})" for part in parts), kind, parts=parts)
    count = rng.choice([1, 1, 2, 3, 5])
    match rng.choice(["all", "last", "best", "best", "steps", "steps", "time", "time", "within"]):
        case "all":
            return Part("KeepAll()", "all")
        case "last":
            return Part(f"KeepLast({count})", "last", number=count)
        case "best":
            metric, told = rng.choice([("val_loss", "min"), ("val_acc", "max"), ("score", "")])
            mode = told if told and rng.random() < 0.7 else rng.choice(["min", "max"])
            text = f"'{metric}'" + (f", {count}" if count > 1 else "")
            text += f", mode='{mode}'" if mode != told or not told else ""
            return Part(f"KeepBest({text})", "best", metric, count, mode)
        case "steps":
            steps = rng.choice([1, 150, 400, 1000])
            return every(rng, f"steps={steps}", "steps", steps)
        case "time":
            unit, seconds = rng.choice([("days", 86_400), ("hours", 3_600), ("minutes", 60)])
            number = rng.choice([1, 2, 7, 90, 0.5])
            return every(rng, f"{unit}={number}", "seconds", number * seconds)
        case _:
            unit, seconds = rng.choice([("days", 86_400), ("hours", 3_600), ("minutes", 60)])
            number = rng.choice([1, 3, 50, 1.5])
            return Part(f"KeepWithin({unit}={number})", "within", number=number * seconds)


def every(rng: random.Random, text: str, kind: str, number: float) -> Part:
    last = rng.choice([None, None, 1, 2, 3])
    text = f"KeepEvery({text})" if last is None else f"KeepEvery({text}, last={last})"
    return Part(text, kind, number=number, last=last or 1000)


def some_history(rng: random.Random) -> list[Checkpoint]:
    """Up to a dozen checkpoints: rolled back, repeated, with clocks that jump and are wrong."""
    session, step = 1, rng.choice([0, 100, 950])
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(3_000))
    rows: dict[CheckpointId, Checkpoint] = {}
    for _ in range(rng.randrange(13)):
        if rng.random() < 0.2:
            session, step = session + rng.choice([1, 1, 2]), rng.randrange(0, step + 1, 50)
        id = CheckpointId(session, step, f"{rng.randrange(2**31):08x}")
        wrong = timedelta(hours=rng.randrange(-48, 48)) if rng.random() < 0.3 else timedelta(0)
        metrics = {
            name: rng.choice([0.0, 0.25, 0.25, 0.5, 1.0, -2.0, math.nan, math.inf, -math.inf])
            for name in ("val_loss", "val_acc", "val_accuracy", "score")
            if rng.random() < 0.6
        }
        rows[id] = Checkpoint(id, time + wrong, metrics=metrics)
        step += rng.choice([0, 50, 100, 100, 300])
        time += timedelta(minutes=rng.choice([0, 1, 20, 60, 300, 1_500]))
    return [rows[id] for id in sorted(rows)]


def some_marks(
    rng: random.Random, history: Sequence[Checkpoint]
) -> tuple[dict[CheckpointId, list[str]], dict[CheckpointId, str]]:
    pinned, spared = {}, {}
    for row in history:
        if rng.random() < 0.1:
            pinned[row.id] = rng.choice([["paper"], ["demo", "paper"]])
        if rng.random() < 0.1:
            spared[row.id] = rng.choice(["just saved", "damaged"])
    return pinned, spared


def make(part: Part, names: dict[str, Any]) -> Rule:
    """The rule that a text stands for, a mutant in the place of its original."""
    made: Rule = eval(part.text, {**vars(retention), **names})
    return made


def first_difference(
    seeds: Iterable[int | str],
    plan: Callable[..., PrunePlan] = retention.plan,
    mutants: Iterable[type[Rule]] = (),
) -> str | None:
    """Where a plan is not what the oracle says; None if that is nowhere."""
    for seed in seeds:
        rng = random.Random(seed)
        history = some_history(rng)
        pinned, spared = some_marks(rng, history)
        for _ in range(2):
            part = some_rule(rng)
            rule = make(part, {mutant.__name__: mutant for mutant in mutants})
            given = rng.sample(history, len(history))
            want = expected(part, history, pinned, spared)
            got: dict[CheckpointId, list[str]] | None = None
            again: tuple[Checkpoint, ...] = ()
            removed: list[CheckpointId] = []
            try:
                planned = plan(rule, given, pinned=pinned, spared=spared)
            except InvalidInputError:
                removed = []
            else:
                got = {kept.checkpoint.id: list(kept.reasons) for kept in planned.keep}
                removed = [checkpoint.id for checkpoint in planned.remove]
                rest = [kept.checkpoint for kept in planned.keep]
                again = plan(rule, rest, pinned=pinned, spared=spared).remove
            gone = [row.id for row in history if want is not None and row.id not in want]
            if (got, removed, again) != (want, gone, ()):
                rows = "\n".join(f"  {row}  {row.created_at}  {row.metrics}" for row in history)
                return (
                    f"seed {seed}: {part.text}\n{rows}\n"
                    f"plan:   {shown(got)}\noracle: {shown(want)}\nthen removed: {shown(again)}"
                )
    return None


def shown(kept: Iterable[object] | dict[CheckpointId, list[str]] | None) -> str:
    if isinstance(kept, dict):
        return "".join(f"\n  {id}  {'; '.join(reasons)}" for id, reasons in kept.items())
    return "refused" if kept is None else str([str(one) for one in kept])
