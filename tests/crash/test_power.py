"""
The power goes at any moment of an operation; what was acknowledged is there, the next one heals.

Each run looks at other states, those that its day draws; `make torture` at a hundred times as many.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import disk
from tests import share
from tests.crash import power, scenes
from tests.crash.killer import Call
from tests.crash.points import memory

#: "save, staged elsewhere" has two disks, each with a cut of its own.
NAMES = [scene.name for scene in scenes.scenes(Path()) if scene.elsewhere is None]


@pytest.mark.parametrize("name", NAMES)
def test_a_power_cut_at_any_call_loses_nothing(name: str, apart: Callable[..., list[str]]) -> None:
    found = apart(cut, name, share.SEED)

    assert len(found) > 150
    broken = [what for what in found if what]
    assert not broken, f"{len(broken)} of {len(found)}: {broken[:3]}"


def kept(call: Call) -> bool:
    return False


def cut(
    name: str,
    seed: int,
    heal: int = 80,
    drop: Callable[[Call], bool] = kept,
    fault: Callable[[pytest.MonkeyPatch], None] = lambda patch: None,
) -> list[str]:
    with memory() as place, pytest.MonkeyPatch.context() as patch:
        scene = next(each for each in scenes.scenes(Path()) if each.name == name)
        scene.build(place / "template")
        fault(patch)
        return list(power.cuts(scene, place / "run", each=14, heal=heal, seed=seed, drop=drop))


# What the code may forget: each is a sync that is not made.


def of_the_files_of_a_draft(call: Call) -> bool:
    return call.kind == "sync" and call.path.endswith(("model.bin", "state.json"))


def of_the_directories_of_a_checkpoint(call: Call) -> bool:
    return call.kind == "sync" and "/store/files/" in call.path


def of_the_names_of_manifests(call: Call) -> bool:
    return call.kind == "sync" and call.path.endswith("/store/manifests")


def of_what_is_in_a_manifest(call: Call) -> bool:
    return call.kind == "sync" and "/store/manifests/" in call.path


@pytest.mark.parametrize(
    "forgotten",
    [
        of_the_files_of_a_draft,
        of_the_directories_of_a_checkpoint,
        of_the_names_of_manifests,
        of_what_is_in_a_manifest,
    ],
)
def test_a_sync_that_is_forgotten_shows(
    forgotten: Callable[[Call], bool], apart: Callable[..., list[str]]
) -> None:
    assert any(apart(cut, "save", share.SEED, 80, forgotten))


def files_without_a_lock_are_left(patch: pytest.MonkeyPatch) -> None:
    take = disk.Lock.take

    def take_as_it_is(path: Path, *, make: bool = True) -> disk.Lock | None:
        return take(path, make=make and not path.with_name("files").exists())

    patch.setattr(disk.Lock, "take", take_as_it_is)


def test_what_only_the_next_process_sees_shows(apart: Callable[..., list[str]]) -> None:
    found = filter(None, apart(cut, "save", share.SEED, 5, kept, files_without_a_lock_are_left))

    assert any("in the workspace" in what for what in found)
