"""
Let every file operation fail in every way that a disk has, once and for good.

A real process is told by its kernel that a call failed. What it says of that is looked at, the
calls that it makes afterwards, and what the next process finds.
"""

import errno
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from holdfast import (
    AccessDenied,
    CheckpointError,
    CheckpointWarning,
    PendingSaveError,
    StorageError,
    StorageFull,
)
from tests.crash import killer, scenes
from tests.crash.points import memory

#: How a disk fails, and what a caller is told.
FAULTS: dict[int, type[StorageError]] = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EFBIG: StorageFull,
    errno.EIO: StorageError,
    errno.EROFS: StorageError,
    errno.EMFILE: StorageError,
    errno.EACCES: AccessDenied,
}
#: What may show only when a file is closed.
_LATE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
#: After one of these has failed, nobody knows what the file holds.
_CONTENT = frozenset({"write", "sync", "close", "truncate"})
_REMOVAL = frozenset({"unlink", "rmdir"})
_SAFE = re.compile(r"untouched|is kept|is committed|[Nn]othing was|Training goes on")
_CURE = re.compile(r"[Rr]epeat|recover|The next (start|save)|Mount it|Make room|Grant")
#: A warning that says so takes back what a call that ended well has promised.
_FAILED = "saving step {0} failed|the draft of step {0} .* is kept|cannot be published"


@dataclass(frozen=True)
class Case:
    """
    One call of one operation that fails.

    Attributes:
        scene: the name of the operation.
        number: the errno.
        sticky: whether all later calls of its kind fail, too.
        at: which call, counted from 1.
    """

    scene: str
    number: int
    sticky: bool
    at: int

    def __str__(self) -> str:
        lasting = "for good" if self.sticky else "once"
        return f"{self.scene}: {errno.errorcode[self.number]} {lasting} from call {self.at}"


class Said(NamedTuple):
    """An exception, described: the live one died with its process."""

    type: str
    text: str
    number: int | None
    ours: bool


@dataclass(frozen=True)
class Told:
    """
    What an operation said.

    Attributes:
        warned: the texts of its warnings.
        raised: what it raised, and what that was raised from.
    """

    warned: tuple[str, ...]
    raised: tuple[Said, ...]


def everywhere(first: int = 1, every: int = 1) -> Iterator[str]:
    """Let each call of each operation fail in each way: all of them, or each so many."""
    with memory() as place, tempfile.TemporaryDirectory() as elsewhere:
        built = {
            scene.name: scene
            for scene in scenes.scenes(Path(elsewhere) / "workspace")
            if scene.build(place / scene.name / "template") is None
        }
        for case in islice(cases(built.values(), place / "run"), first - 1, None, every):
            yield play(case, built[case.scene], place / "run")


def cases(chosen: Iterable[scenes.Scene], place: Path) -> Iterator[Case]:
    """All ways in which operations can fail, as many as they make calls."""
    for scene in chosen:
        calls = calls_of(scene, place)
        early = sum(call.kind != "close" for call in calls)
        for number in FAULTS:
            for sticky in (False, True):
                for at in range(1, (len(calls) if number in _LATE else early) + 1):
                    yield Case(scene.name, number, sticky, at)


def calls_of(scene: scenes.Scene, place: Path) -> tuple[killer.Call, ...]:
    """The calls of an operation to which nothing is done."""
    scene.prepare(place)
    outcome = killer.run(lambda: act(scene, place), under=_under(scene, place), closes=True)
    assert outcome.result == Told((), ()), f"undisturbed, it ended with {outcome}"
    return outcome.calls


def play(case: Case, scene: scenes.Scene, place: Path) -> str:
    """What was broken by a call that failed, or nothing."""
    scene.prepare(place)
    outcome = killer.run(
        lambda: act(scene, place),
        under=_under(scene, place),
        at=case.at,
        how=case.number,
        sticky=case.sticky,
        closes=case.number in _LATE,
    )
    if outcome.struck is None:  # threads made a call less this time
        return ""
    try:
        told = outcome.result
        assert isinstance(told, Told), f"it did not come to its end: {outcome.error}"
        look_at_texts(case.number, told)
        _look_for_the_place(case, outcome.struck, told, scene, place)
        _look_at_calls(case, outcome.calls)
        if not told.raised:
            look_for_what_was_acknowledged(told, scene, place)
            _look_at_syncs(case, outcome.calls, told, scene.workspace(place))
        _look_for_drafts(case, outcome.calls, scene.workspace(place))
        scenes.judge(scene, place)
    except Exception as error:  # whatever is wrong here, the next start is not well
        struck = f"{outcome.struck.kind} {Path(outcome.struck.path).name}"
        return f"{case}, {struck}: {type(error).__name__}: {error}"
    return ""


def act(scene: scenes.Scene, place: Path) -> Told:
    """The operation, in the process that suffers."""
    raised: list[Said] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CheckpointWarning)
        try:
            scene.act(scene, place)
        except Exception as failure:
            error: BaseException | None = failure
            while error is not None:
                number = error.errno if isinstance(error, OSError) else None
                ours = isinstance(error, CheckpointError)
                raised.append(Said(type(error).__name__, str(error), number, ours))
                error = error.__cause__
    return Told(tuple(str(warning.message) for warning in warned), tuple(raised))


# What has to hold.


def look_at_texts(number: int, told: Told) -> None:
    """An error is of the type that says what to do, and every text has its four parts."""
    texts = list(told.warned)
    if told.raised:
        assert told.raised[0].ours, f"not one of ours: {told.raised}"
        texts.append(told.raised[0].text)
        error = told.raised[told.raised[0].type == PendingSaveError.__name__]
        unknown = "is unknown" in error.text  # whether it was committed: it may be, in spite of all
        kind = StorageError if unknown else FAULTS[number]
        assert error.type == kind.__name__, f"{error.type} in the place of {kind.__name__}"
        assert error.number == number, f"its errno is {error.number}"
        assert os.strerror(number) in error.text, f"why is not said: {error.text}"
    for text in texts:
        assert _SAFE.search(text), f"what is safe is not said: {text}"
        assert _CURE.search(text), f"what to do is not said: {text}"


def look_for_what_was_acknowledged(told: Told, scene: scenes.Scene, place: Path) -> None:
    """What was not said to have failed is in the store."""
    failed = {
        step
        for step in scene.may_add
        if any(re.search(_FAILED.format(step), text) for text in told.warned)
    }
    there = {checkpoint.step for checkpoint in scene.open(place)}
    lost = {*scene.may_add} - {*scene.may_remove} - failed - there
    assert not lost, f"acknowledged and lost: {sorted(lost)}"


def _look_for_the_place(
    case: Case, struck: killer.Call, told: Told, scene: scenes.Scene, place: Path
) -> None:
    """An error says where: in the workspace, or in the store."""
    workspace = f"{scene.workspace(place)}"
    where = workspace if struck.path.startswith(workspace) else f"{place}"
    if told.raised and not case.sticky:
        assert where in told.raised[0].text, f"where is not said: {told.raised[0].text}"


def _look_at_calls(case: Case, calls: tuple[killer.Call, ...]) -> None:
    """A file that failed is neither written nor synced any more, and no directory at once again."""
    earlier, struck, later = calls[: case.at - 1], calls[case.at - 1], calls[case.at :]
    if struck.kind not in _CONTENT:
        return
    if struck.kind == "sync":
        again = [call for call in later[:1] if (call.kind, call.path) == ("sync", struck.path)]
        assert not again, f"synced again at once: {struck.path}"
        if _is_synced(struck.path, earlier) or _is_directory(struck.path, calls):
            return
    for call in later:
        if call.path == struck.path and call.kind in ("open", "unlink"):
            return
        used = call.kind in ("write", "truncate", "sync") and call.path == struck.path
        assert not used, f"{call.kind} after it had failed: {call.path}"
        named = call.kind in ("rename", "link") and call.source == struck.path
        assert not named, f"named after it had failed: {call.path}"


def _look_at_syncs(case: Case, calls: tuple[killer.Call, ...], told: Told, workspace: Path) -> None:
    """Where all went well, what could not be made durable in the store was so in the end."""
    struck = calls[case.at - 1]
    if struck.kind == "sync" and not struck.path.startswith(f"{workspace}") and not told.warned:
        later = () if case.sticky else calls[case.at :]
        assert _is_synced(struck.path, later), f"acknowledged and not durable: {struck.path}"


def _look_for_drafts(case: Case, calls: tuple[killer.Call, ...], workspace: Path) -> None:
    """What was not sealed is gone, unless it was its removal that failed."""
    struck = calls[case.at - 1]
    for root in workspace.iterdir() if workspace.exists() else ():
        seal = str(root / "seal.json")
        unsealed = any(call.kind == "unlink" and call.path == seal for call in calls)
        refused = struck.kind in _REMOVAL or (unsealed and struck.kind == "sync")
        left = sorted(path.name for path in root.iterdir())
        assert refused or "seal.json" in left, f"a draft was not dropped: {left}"


def _is_synced(path: str, calls: tuple[killer.Call, ...]) -> bool:
    """Whether the calls end with all durable that they did to a file."""
    kinds = [call.kind for call in calls if call.path == path and call.kind in ("write", "sync")]
    return kinds[-1:] == ["sync"]


def _is_directory(path: str, calls: tuple[killer.Call, ...]) -> bool:
    return any(call.path.startswith(f"{path}/") for call in calls)


def _under(scene: scenes.Scene, place: Path) -> list[Path]:
    """All that the library changes, and not the model, which the scene itself writes."""
    if scene.name == "restore":
        return [place]
    return [place / "store", *([scene.elsewhere] if scene.elsewhere else [])]
