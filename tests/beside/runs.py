"""Saves twice in a process of its own, and has others look at what lies there afterwards."""

import contextlib
import mmap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from tests.beside.subject import Subject, Verdict, judge
from tests.beside.training import OpenBefore, Scores, Seen, build, train
from tests.crash.killer import Call, How, Outcome, Window, run

_VERDICTS = get_args(Verdict)
#: Seconds after which a process is taken to hang.
_PATIENCE = 300.0
#: How the caller heard of a save that failed: by an exception, by a warning of Python, not at all.
Heard = Literal["raised", "warned", "silent"]


@dataclass(frozen=True)
class Saved:
    """
    What a `fit` of two epochs has to say.

    Attributes:
        saves (tuple[str, ...]): what the model held at the end of each epoch.
        heard (Heard): what the caller heard.
        error (str): what was raised.
        earlier (Mapping[str, int]): the files of the first save, and when each was changed.
    """

    saves: tuple[str, ...]
    heard: Heard
    error: str
    earlier: Mapping[str, int]


def save_twice(
    subject: Subject,
    folder: Path,
    *,
    at: int | None = None,
    how: How = "before",
    sticky: bool = False,
) -> Outcome:
    """Run `fit` for two epochs; the calls from the second save to the end of it are counted."""
    folder.mkdir(parents=True)
    window = Window()
    return run(
        partial(fit, subject, str(folder), window),
        under=folder,
        at=at,
        how=how,
        sticky=sticky,
        window=window,
        timeout=_PATIENCE,
    )


def fit(subject: Subject, place: str, window: Window) -> Saved:
    """Save at the end of two epochs, with the window open from the second save on."""
    seen = Seen()
    heard: Heard = "silent"
    error = ""
    earlier: dict[str, int] = {}

    def settle() -> None:
        subject.settle(saver)
        earlier.update(files(Path(place)))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            saver = subject.save(place)
            train(build(), [Scores(0.5, 0.9), seen, OpenBefore(window, settle), saver], epochs=2)
        except Exception as raised:  # whatever it is, the caller hears of it
            heard, error = "raised", f"{type(raised).__name__}: {raised}"
    if heard == "silent" and any(not _is_noise(each) for each in caught):
        heard = "warned"
    window.shut()
    return Saved(tuple(seen.seen), heard, error, earlier)


def files(folder: Path) -> dict[str, int]:
    """The files in a folder, and when each was changed."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def _is_noise(warning: warnings.WarningMessage) -> bool:
    return issubclass(warning.category, DeprecationWarning | FutureWarning | ResourceWarning)


@dataclass(frozen=True)
class Whole:
    """
    Two saves with nothing done to them, which a new process goes on from.

    Attributes:
        subject (Subject): what saved.
        place (Path): what it left.
        saved (Saved): what it said.
        calls (Sequence[Call]): the calls of the second save.
    """

    subject: Subject
    place: Path
    saved: Saved
    calls: Sequence[Call]

    @classmethod
    def of(cls, subject: Subject, place: Path) -> "Whole":
        """Save into a place that does not exist yet."""
        outcome = save_twice(subject, place)
        saved = outcome.result
        if not isinstance(saved, Saved) or saved.heard != "silent" or not outcome.calls:
            raise RuntimeError(f"{subject.name} fails undisturbed: {outcome}")
        found = look(subject, [str(place)], saved.saves, str)
        if found != ["second"]:
            raise RuntimeError(f"{subject.name} saves undisturbed, and a new process finds {found}")
        return cls(subject, place, saved, outcome.calls)


def look(
    subject: Subject,
    cases: Sequence[Any],
    saves: Sequence[str],
    place_of: Callable[[Any], str],
) -> list[Verdict]:
    """
    Judge one case after the other in a process of its own, and in a new one after each that dies.

    Parameters:
        place_of (Callable): makes ready what is looked at, in the process that looks.
    """
    letters = mmap.mmap(-1, max(1, len(cases)))  # still there when the process is not

    def each_from(start: int) -> None:
        # That a save is passed over is said by a warning, which is no error to a resumed run.
        warnings.simplefilter("ignore")
        for number in range(start, len(cases)):
            letters[number] = 1 + _VERDICTS.index("crashed")
            verdict = judge(subject, place_of(cases[number]), saves)
            letters[number] = 1 + _VERDICTS.index(verdict)

    done = 0
    while done < len(cases):
        patience = _PATIENCE + 10 * (len(cases) - done)
        with contextlib.suppress(TimeoutError):  # what hangs has said "crashed"
            run(partial(each_from, done), under=Path("/nothing"), timeout=patience)
        done = len(letters[: len(cases)].rstrip(b"\0"))
    return [_VERDICTS[letter - 1] for letter in letters[: len(cases)]]
