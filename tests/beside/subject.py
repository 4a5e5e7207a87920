"""What is looked at: something that saves while `fit` trains, and how a new process goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.beside.training import Started, StopAtStart, blank, fingerprint, train

#: What a new process finds: the second save or the first, whole and with its own epoch; an error;
#: nothing, so that it begins at zero without a word; the weights of one save with the epoch of the
#: other; something else that loads without an error; or its own end.
Verdict = Literal["second", "first", "unreadable", "afresh", "mixed", "wrong", "crashed"]
#: What a run can go on from.
USABLE: tuple[Verdict, ...] = ("second", "first")
#: Called with a place and an empty model; gives the model to go on with and its first epoch, which
#: is None where it is not saved.
Resume = Callable[[str, Any], tuple[Any, int | None]]


def at_once(callback: Any) -> None:
    """It has saved when it returns."""


@dataclass(frozen=True)
class Subject:
    """
    Something that saves at the end of each epoch.

    Parameters:
        name (str): its row in the tables.
        use (str): how it is used, for the page.
        packages (tuple[str, ...]): whose versions matter.
        save (Callable): makes the callback that saves, with a place: a directory or a URL.
        resume (Resume | None): what a script that is started again does; None where the callback
            goes on by itself.
        settle (Callable): waits until what the callback saves is written.
        best (Callable | None): makes a callback that saves the best by the metric `score`, of which
            more is better; None where it knows no best.
        load_best (Resume | None): loads the best.
    """

    name: str
    use: str
    packages: tuple[str, ...]
    save: Callable[[str], Any]
    resume: Resume | None
    settle: Callable[[Any], object] = at_once
    best: Callable[[str], Any] | None = None
    load_best: Resume | None = None


def judge(subject: Subject, place: str, saves: Sequence[str]) -> Verdict:
    """Look at what lies at a place, the way a resumed run would; `saves` are the good ones."""
    try:
        model, epoch = (subject.resume or _by_fit(subject))(place, blank())
    except Exception:  # the resumed run does not start, for whatever reason
        return "unreadable"
    held = fingerprint(model)
    if held not in saves:
        return "wrong" if epoch is None or epoch else "afresh"
    if epoch not in (None, saves.index(held) + 1):
        return "mixed"
    return "second" if held == saves[1] else "first"


def _by_fit(subject: Subject) -> Resume:
    """Begin `fit` with the callback, and see where it would."""

    def resume(place: str, model: Any) -> tuple[Any, int]:
        start = StopAtStart()
        try:
            train(model, [subject.save(place), start], epochs=99)
        except Started:
            return model, start.epoch
        raise RuntimeError("fit ended before its first epoch")

    return resume
