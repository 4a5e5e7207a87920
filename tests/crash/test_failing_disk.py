"""
A disk that is full, read-only or failing: a clear error, and what is committed is untouched.

Each run of the tests lets a share of the calls fail, another one each day.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import disk, layout, staging
from holdfast.backends.local import LocalBackend
from tests import share
from tests.crash import exhausted, failing, killer, scenes
from tests.crash.points import memory
from tests.servers.fuse import NotPossibleError

#: Each so many of the ways to fail is tried, of which there are some thousands, or hundreds.
STRIDE, STRIDES = 901, {"limits": 61, "blocks": 61, "reads": 23}


def test_any_call_that_fails_is_a_clear_error_and_costs_nothing(
    apart: Callable[..., list[str]],
) -> None:
    first, every = share.turn(STRIDE)

    found = apart(everything, failing.everywhere, first, every)

    assert len(found) * every > 10_000, "the harness saw too few calls to say anything"
    broken = [what for what in found if what]
    assert not broken, f"{len(broken)} of {len(found)}: {broken[:3]}"


@pytest.mark.parametrize("name", STRIDES)
def test_what_is_really_exhausted_is_a_clear_error_and_costs_nothing(
    name: str, apart: Callable[..., list[str]]
) -> None:
    first, every = share.turn(STRIDES[name])

    try:
        found = apart(everything, getattr(exhausted, name), first, every)
    except NotPossibleError as error:
        pytest.skip(f"no filesystem can be mounted here: {error}")

    assert found, "the harness saw too few cases to say anything"
    broken = [what for what in found if what]
    assert not broken, f"{len(broken)} of {len(found)}: {broken[:3]}"


def test_a_prune_makes_no_call_that_needs_room(apart: Callable[..., list[str]]) -> None:
    assert apart(calls_that_need_room, marks_as_they_are) == []


def test_a_mark_that_needs_room_is_caught(apart: Callable[..., list[str]]) -> None:
    assert apart(calls_that_need_room, marks_with_content)


def everything(cases: Callable[[int, int], Iterator[str]], first: int, every: int) -> list[str]:
    return list(cases(first, every))


@contextlib.contextmanager
def built(name: str) -> Iterator[tuple[scenes.Scene, Path]]:
    """An operation, and where it may take place."""
    with memory() as place:
        scene = next(each for each in scenes.scenes(place / "elsewhere") if each.name == name)
        scene.build(place / "template")
        yield scene, place / "run"


def calls_that_need_room(change: Callable[[pytest.MonkeyPatch], None]) -> list[str]:
    """What a prune asks of the disk that a full one refuses."""
    with built("prune") as (scene, place), pytest.MonkeyPatch.context() as patch:
        change(patch)
        scene.prepare(place)
        there = {f"{path}" for path in place.rglob("*")}
        outcome = killer.run(lambda: failing.act(scene, place), under=place)
        assert outcome.result == failing.Told((), ())
        assert any(call.kind == "link" for call in outcome.calls), "it has marked nothing"
        return [
            f"{call.kind} {call.path}"
            for call in outcome.calls
            if call.kind == "write" or (call.kind == "mkdir" and call.path not in there)
        ]


def marks_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """The code as it is."""


def marks_with_content(patch: pytest.MonkeyPatch) -> None:
    create = LocalBackend.create

    def with_content(self: LocalBackend, key: str, data: bytes) -> None:
        create(self, key, b"doomed" if key.startswith(layout.DOOMED) else data)

    patch.setattr(LocalBackend, "create", with_content)


# What the harness has to see.


def synced_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "fsync", tried_twice(os.fsync))


def written_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "write", tried_twice(os.write))
    patch.setattr(os, "writev", tried_twice(os.writev))


def tried_twice(call: Callable[..., object]) -> Callable[..., object]:
    def twice(*given: object) -> object:
        try:
            return call(*given)
        except OSError:
            return call(*given)

    return twice


def a_failed_close_is_ignored(patch: pytest.MonkeyPatch) -> None:
    close = os.close

    def ignoring(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            close(descriptor)

    patch.setattr(os, "close", ignoring)


def errors_are_not_translated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disk, "disk_errors", lambda *_: contextlib.nullcontext())


def the_draft_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging.Draft, "discard", lambda self: self.release() is None)


def a_name_that_was_not_synced_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalBackend, "sync_name", lambda *_: None)


@pytest.mark.parametrize(
    ("fault", "number", "call_of", "sees"),
    [
        (synced_again, errno.EIO, "sync", "synced again"),
        (written_again, errno.ENOSPC, "write", "write after it had failed"),
        (a_failed_close_is_ignored, errno.ENOSPC, "close", "named after it had failed"),
        (errors_are_not_translated, errno.EIO, "rename", "not one of ours"),
        (the_draft_is_kept, errno.ENOSPC, "write", "a draft was not dropped"),
        (a_name_that_was_not_synced_counts, errno.EIO, "sync manifests", "not durable"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_code_broken_on_purpose_is_caught(
    fault: Callable[[pytest.MonkeyPatch], None],
    number: int,
    call_of: str,
    sees: str,
    apart: Callable[..., bool],
) -> None:
    assert apart(is_caught, fault, number, call_of, sees)


def is_caught(
    fault: Callable[[pytest.MonkeyPatch], None], number: int, call_of: str, sees: str
) -> bool:
    """Whether what is broken shows where such a call of a save fails, once or for good."""
    with built("save") as (scene, place), pytest.MonkeyPatch.context() as patch:
        fault(patch)
        calls = failing.calls_of(scene, place)
        cases = [
            failing.Case("save", number, sticky=sticky, at=at)
            for at, call in enumerate(calls, 1)
            for sticky in (False, True)
            if f"{call.kind} {Path(call.path).name}".startswith(call_of)
        ]
        return any(sees in failing.play(case, scene, place) for case in cases)
