"""The tables of what was found, as Markdown: how many went wrong, of how many that were tried."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.beside.damages import DAMAGES, Damaged
from tests.beside.remote import Remote
from tests.beside.restarts import Best, Ended
from tests.beside.strikes import Strike
from tests.beside.subject import Subject, Verdict

BEGIN = "<!-- What follows is written by `make beside-page`. -->"
_NONE = "\u2013"
END = "<!-- What precedes was written by `make beside-page`. -->"


@dataclass(frozen=True)
class Found:
    """What became of one subject."""

    subject: Subject
    kills: Sequence[Strike]
    errors: Sequence[Strike]
    damages: Sequence[Damaged]
    best: Best | None
    exact: Sequence[Ended]
    remote: Remote


def write(text: Iterable[str], page: Path) -> None:
    """Put the tables between the markers of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{chr(10).join(text)}\n{END}{after}")


def lines(found: Sequence[Found]) -> Iterator[str]:
    """Every table."""
    yield from _table(
        "Killed in the middle of its second save",
        found,
        {
            "nothing usable left": lambda one: _bad(one.kills, lambda each: not each.is_usable),
            "unreadable": lambda one: _left(one.kills, "unreadable", "crashed"),
            "begins at zero": lambda one: _left(one.kills, "afresh"),
            "values and epoch of two saves": lambda one: _left(one.kills, "mixed"),
            "other values": lambda one: _left(one.kills, "wrong"),
        },
    )
    yield from _table(
        "A disk that is full or fails in its second save",
        found,
        {
            "nothing usable left": lambda one: _bad(one.errors, lambda each: not each.is_usable),
            "not saved, and nobody told": lambda one: _bad(
                one.errors, lambda each: not each.is_told
            ),
            "an exception": lambda one: str(sum(each.heard == "raised" for each in one.errors)),
            "a warning": lambda one: str(sum(each.heard == "warned" for each in one.errors)),
            "the process died": lambda one: str(sum(each.heard is None for each in one.errors)),
        },
    )
    yield from _table(
        "Damage to what lies there",
        found,
        {
            "flipped bit: unnoticed": lambda one: _unnoticed(one, "flip"),
            "cut short: unnoticed": lambda one: _unnoticed(one, "cut"),
            "swapped: unnoticed": lambda one: _unnoticed(one, "swap"),
            **{f"{damage}: goes on from a whole save": _going_on(damage) for damage in DAMAGES},
        },
    )
    yield from _table(
        "Started again",
        found,
        {
            "the best so far": lambda one: one.best or _NONE,
            "same weights and optimizer": lambda one: _same(one, "plain"),
            "… with dropout": lambda one: _same(one, "dropout"),
            "History, too": lambda one: _of(
                sum(each.history for each in one.exact), len(one.exact)
            ),
            "to `s3://`": lambda one: "refused" if one.remote.error else "saves",
            "… good copy lost by uploads that fail": lambda one: (
                _NONE if one.remote.error else _of(one.remote.bad, len(one.remote.left))
            ),
        },
    )
    if refused := sorted({one.remote.error.partition(" (file")[0] for one in found} - {""}):
        yield f"Refused with `{'`, `'.join(refused)}`."


def _table(
    title: str, found: Sequence[Found], columns: dict[str, Callable[[Found], str]]
) -> Iterator[str]:
    yield from (
        f"### {title}",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---{'|---:' * len(columns)}|",
    )
    for one in found:
        yield f"| {one.subject.name} | {' | '.join(cell(one) for cell in columns.values())} |"
    yield ""


def _of(count: int, total: int) -> str:
    return f"{count} of {total}" if total else _NONE


def _bad(strikes: Sequence[Strike], is_bad: Callable[[Strike], bool]) -> str:
    return _of(sum(map(is_bad, strikes)), len(strikes))


def _left(strikes: Sequence[Strike], *verdicts: Verdict) -> str:
    return str(sum(each.left in verdicts for each in strikes))


def _unnoticed(one: Found, damage: str) -> str:
    cases = [each for each in one.damages if each.damage == damage]
    return _of(sum(not each.is_noticed for each in cases), len(cases))


def _going_on(damage: str) -> Callable[[Found], str]:
    def cell(one: Found) -> str:
        cases = [each for each in one.damages if each.damage == damage]
        return _of(sum(each.is_usable for each in cases), len(cases))

    return cell


def _same(one: Found, network: str) -> str:
    cases = [each for each in one.exact if each.network == network]
    return _of(sum(each.weights for each in cases), len(cases))
