"""
Nothing that somebody plants leads anywhere, comes to light, hangs, or ends in a stray error.

Each run of the tests plays a share of the cases, another one each day; `make torture` all of them.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import layout, publishing, staging, store
from holdfast.backends import local
from holdfast.backends.local import LocalBackend
from holdfast.errors import InvalidInputError
from holdfast.staging import Workspace
from tests import share
from tests.hostile import hostile, named, names
from tests.hostile.watched import Canary
from tests.hostile.worlds import HIGHEST

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is touched")

#: Each so many cases are played in a run.
PLANTS, NAMES = 150, 110


def test_what_is_planted_leads_nowhere(apart: Callable[..., list[str]]) -> None:
    found = apart(played, hostile.plants, *share.turn(PLANTS))

    assert len(found) >= 20
    assert not [*filter(None, found)]


def test_a_hostile_name_leads_nowhere(apart: Callable[..., list[str]]) -> None:
    found = apart(played, named.named, *share.turn(NAMES))

    assert len(found) >= 6
    assert not [*filter(None, found)]


def test_there_are_hundreds_of_hostile_names_of_many_kinds_and_no_path_may_have_one() -> None:
    given = [*((name,) for name in names.hostile()), *names.alike()]

    taken = [each for each in given if is_taken(*each)]

    assert taken == []
    assert len(names.hostile()) >= 300
    assert len(names.by_kind()) >= 15


def is_taken(*paths: str) -> bool:
    try:
        layout.check_paths(paths)
    except InvalidInputError:
        return False
    return True


def played(plays: Callable[..., Iterator[str]], first: int, every: int) -> list[str]:
    return list(plays(first, every))


# That what is touched is seen.


def test_a_look_and_a_change_are_seen_by_whatever_name(tmp_path: Path) -> None:
    tree, beside = tmp_path / "tree", tmp_path / "beside"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("x")
    beside.hardlink_to(tree / "deep" / "file")
    (tmp_path / "link").symlink_to(tree / "deep")
    acts: list[Callable[[], object]] = [
        beside.read_text,
        (tmp_path / "link" / "file").read_text,
        lambda: [*(tmp_path / "link").iterdir()],
        lambda: os.utime(beside),
        (tmp_path / "link" / "new").touch,
        (tmp_path / "link" / "new").unlink,
    ]

    for act in acts:
        with Canary(tree) as canary:
            act()
            assert canary.touched()
    with Canary(tree) as canary:
        (tmp_path / "link" / "file").stat()
        assert canary.touched() == []
    with Canary(tree, only_changes=True) as canary:
        beside.read_text()
        assert canary.touched() == []
        beside.write_text("y")
        assert canary.touched()


# Code that is broken on purpose.


def links_are_followed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalBackend, "_place", lambda self, key: self.root / key)
    patch.setattr(local, "_open_raw", lambda place: place.open("rb", buffering=0))


def paths_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layout, "check_part", lambda *_: None)
    patch.setattr(layout, "check_paths", list)


def a_workspace_is_anybody_s(patch: pytest.MonkeyPatch) -> None:
    def roots(self) -> list[Path]:
        return [path for path in self.path.iterdir() if self._is_ours(path.name)]

    patch.setattr(Workspace, "_roots", roots)


def a_seal_is_read_wherever_it_lies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging.disk, "read_small", lambda path, at_most: path.read_bytes())


def a_draft_may_lead_elsewhere(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(publishing, "_is_link", lambda *_: False)


def a_target_may_be_a_link(patch: pytest.MonkeyPatch) -> None:
    def empty_target(target: Path) -> Path:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise store.InvalidInputError("not empty")
        return target

    patch.setattr(store, "_empty_target", empty_target)


def an_object_is_read_whole(patch: pytest.MonkeyPatch) -> None:
    def read(self, key: str) -> bytes:
        with local._open(self._place(key)) as file:
            return file.read()

    patch.setattr(LocalBackend, "read", read)


@pytest.mark.parametrize(
    ("fault", "plant", "operation"),
    [
        (links_are_followed, "manifests -> manifests", "list"),
        (
            links_are_followed,
            f"manifests/{HIGHEST}.json -> manifest.json",
            "restore what was planted",
        ),
        (links_are_followed, "files/NEWEST -> files/NEWEST", "remove"),
        (a_workspace_is_anybody_s, ".workspace -> workspace", "recover"),
        (a_workspace_is_anybody_s, "DRAFT -> unfinished", "sweep"),
        (a_seal_is_read_wherever_it_lies, "DRAFT/seal.json -> draft/seal.json", "recover"),
        (a_seal_is_read_wherever_it_lies, "DRAFT/seal.json is a huge file", "recover"),
        (a_draft_may_lead_elsewhere, "a stolen files/model.bin", "recover"),
        (a_draft_may_lead_elsewhere, "a stolen files", "save"),
        (a_target_may_be_a_link, "TARGET -> deep", "download"),
        (an_object_is_read_whole, "manifests/NEWEST.json is a huge file", "restore the spoiled"),
        (paths_are_not_checked, "sealed as ../../../../../outside/secret", "recover"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_code_broken_on_purpose_is_caught(
    fault: Callable[[pytest.MonkeyPatch], None],
    plant: str,
    operation: str,
    apart: Callable[..., str],
) -> None:
    assert apart(under, fault, hostile.play, plant, operation)


def test_names_that_are_not_checked_are_caught(apart: Callable[..., bool]) -> None:
    assert apart(under, paths_are_not_checked, is_caught)


def is_caught() -> bool:
    return any(named.named(5, NAMES))


def under(fault: Callable[[pytest.MonkeyPatch], None], play: Callable[..., object], *given: object):
    """What a play gives while the code is broken."""
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        return play(*given)
