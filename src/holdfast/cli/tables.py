"""What people read: plain aligned text, in which nothing from a store can move the cursor."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.cli.findings import Finding
from holdfast.fetching import Report
from holdfast.retention import PrunePlan

Pins = Mapping[CheckpointId, Sequence[str]]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Column:
    """
    One column of a table.

    Attributes:
        head (str): its title.
        cells (Sequence[str]): one for each row.
        right (bool): whether it is flush right, as numbers are.
    """

    head: str
    cells: Sequence[str]
    right: bool = False

    def lines(self) -> Iterator[str]:
        """The title and the cells, all of one width."""
        texts = [escaped(text) for text in (self.head, *self.cells)]
        width = max(map(len, texts))
        return (text.rjust(width) if self.right else text.ljust(width) for text in texts)


def table(columns: Iterable[Column]) -> str:
    """The columns side by side; one that has nothing in it is left out."""
    filled = [column.lines() for column in columns if any(column.cells)]
    return "\n".join("  ".join(row).rstrip() for row in zip(*filled, strict=True))


def escaped(text: str) -> str:
    """The text with what does not print, or changes how the rest prints, written as in Python."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )


def size(count: int) -> str:
    """A number of bytes as people read it, such as `1.5 MiB`."""
    number = float(count)
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def age(moment: datetime, now: datetime) -> str:
    """How long ago a moment was, in the largest unit that it fills, such as `5min`."""
    seconds = max(0, int((now - moment).total_seconds()))
    length, unit = next((span for span in _SPANS if seconds >= span[0]), _SPANS[-1])
    return f"{seconds // length}{unit}"


def moment(when: datetime) -> str:
    """A moment in UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def metric_names(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The names of all metrics, in the order in which the newest checkpoints have them."""
    return list(dict.fromkeys(name for each in reversed(checkpoints) for name in each.metrics))


def checkpoints(
    rows: Sequence[Checkpoint], pins: Pins, metrics: Sequence[str], now: datetime
) -> str:
    """A line for each checkpoint; the first of a session tells what it was resumed from."""
    first = {each.session: each.id for each in reversed(rows)}
    return table(
        [
            *_begin(rows),
            Column("SESSION", [str(each.session) for each in rows], right=True),
            Column("AGE", [age(each.created_at, now) for each in rows], right=True),
            Column("SIZE", [size(each.size) for each in rows], right=True),
            *(
                Column(name, [_number(each.metric(name)) for each in rows], right=True)
                for name in metrics
            ),
            Column("PINS", [", ".join(pins.get(each.id, ())) for each in rows]),
            Column(
                "RESUMED FROM",
                [
                    str(each.parent) if each.parent and first[each.session] == each.id else ""
                    for each in rows
                ],
            ),
        ]
    )


def checkpoint(found: Checkpoint, pins: Sequence[str], now: datetime) -> str:
    """All that is known of one checkpoint."""
    facts = {
        "id": str(found.id),
        "step": str(found.step),
        "session": str(found.session),
        "created": f"{moment(found.created_at)} ({age(found.created_at, now)} ago)",
        "size": f"{size(found.size)} ({found.size:,} bytes)",
        "pins": ", ".join(pins),
        "resumed from": str(found.parent or ""),
        "writer": found.writer,
        "holdfast": found.version,
    }
    parts = [
        _pairs({name: text for name, text in facts.items() if text}),
        _titled("metrics", _pairs({name: repr(value) for name, value in found.metrics.items()})),
        _titled(
            "metadata", _pairs({name: _plain(value) for name, value in found.metadata.items()})
        ),
        _titled(
            "files",
            table(
                [
                    Column("PATH", [file.path for file in found.files]),
                    Column("SIZE", [size(file.size) for file in found.files], right=True),
                    Column("HASH", [file.hash for file in found.files]),
                ]
            ),
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def report(found: Report) -> str:
    """What is damaged, and a line that says how much was looked at and how well."""
    how = "every byte hashed" if found.deep else "presence and sizes only"
    damaged = len({each.checkpoint for each in found.damage})
    verdict = f"{damaged} damaged" if damaged else "all are as their manifests say"
    listed = table(
        [
            Column("ID", [str(each.checkpoint) for each in found.damage]),
            Column("FILE", [each.path for each in found.damage]),
            Column("DAMAGE", [each.what for each in found.damage]),
        ]
    )
    end = f"{counted(len(found.checked))} verified ({how}): {verdict}"
    return f"{listed}\n{end}" if listed else end


def plan(planned: PrunePlan) -> str:
    """A line for each checkpoint that a prune keeps, with its reasons, or removes."""
    reasons = {kept.checkpoint.id: "; ".join(kept.reasons) for kept in planned.keep}
    rows = sorted(
        [*(kept.checkpoint for kept in planned.keep), *planned.remove], key=lambda each: each.id
    )
    return table(
        [
            Column("", ["keep" if each.id in reasons else "remove" for each in rows]),
            *_begin(rows),
            Column("SIZE", [size(each.size) for each in rows], right=True),
            Column("REASON", [reasons.get(each.id, "") for each in rows]),
        ]
    )


def findings(rows: Sequence[Finding]) -> str:
    """A line for each thing that was tried."""
    return table(
        [
            Column("", [each.outcome for each in rows]),
            Column("CHECK", [each.check for each in rows]),
            Column("FOUND", [each.text for each in rows]),
        ]
    )


def counted(number: int, what: str = "checkpoint") -> str:
    """A number of things: `1 checkpoint`, `2 checkpoints`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _begin(rows: Sequence[Checkpoint]) -> list[Column]:
    return [
        Column("ID", [str(each.id) for each in rows]),
        Column("STEP", [str(each.step) for each in rows], right=True),
    ]


def _pairs(facts: Mapping[str, str]) -> str:
    width = max((len(escaped(name)) for name in facts), default=0)
    return "\n".join(
        f"{escaped(name).ljust(width)}  {escaped(text)}" for name, text in facts.items()
    )


def _titled(title: str, text: str) -> str:
    return "\n".join([title, *(f"  {line}" for line in text.splitlines())]) if text else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
