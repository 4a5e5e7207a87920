"""
A real process is killed at its file operations; the next one finds all in order.

Each run of the tests strikes a share of them, another one each day; `make torture` every one.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import publishing, removal, staging
from holdfast.backends.local import LocalBackend
from holdfast.checkpoint import new_token
from holdfast.writer import Turn
from tests import share
from tests.crash import killer, scenes
from tests.crash.points import HOWS, kills, memory

NAMES = [scene.name for scene in scenes.scenes(Path())]
#: Each so many of an operation's calls are struck in each way, which share the calls out; less of
#: the operations of some hundreds of calls.
STRIDE, LONG_STRIDE = 3, 7
LONG = ("save many files", "save in the background", "restore, save twice and prune")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", NAMES)
def test_a_process_killed_at_any_file_operation_loses_nothing(
    name: str, how: killer.How, apart: Callable[..., list[str]], tmp_path: Path
) -> None:
    first, every = share.turn(LONG_STRIDE if name in LONG else STRIDE, HOWS.index(how))

    found = apart(killed, name, tmp_path / "elsewhere", how, first, every)

    assert len(found) * every >= 10, "the harness saw too few calls to say anything"
    broken = [what for what in found if what]
    assert not broken, f"{len(broken)} of {len(found)}: {broken[:3]}"


def killed(name: str, elsewhere: Path, how: killer.How, first: int, every: int) -> list[str]:
    """What was broken at each of these calls of an operation, or nothing."""
    with memory() as place:
        scene = built(name, place, elsewhere)
        return list(kills(scene, place / "run", how, first=first, every=every))


def built(name: str, place: Path, elsewhere: Path) -> scenes.Scene:
    scene = next(scene for scene in scenes.scenes(elsewhere) if scene.name == name)
    scene.build(place / "template")
    return scene


def commit_before_upload(patch: pytest.MonkeyPatch) -> None:
    upload, commit = publishing._upload, publishing._commit

    def commit_first(draft, checkpoint, backend) -> None:
        data = draft.assigned()
        commit(checkpoint, data, backend)
        upload(draft, checkpoint, backend)

    patch.setattr(publishing, "_upload", commit_first)
    patch.setattr(publishing, "_commit", lambda *_: None)


def files_deleted_before_the_manifest(patch: pytest.MonkeyPatch) -> None:
    def remove(self, id) -> bool:
        self._remove_files_and_marks(id)
        self._backend.delete(removal.layout.manifest_key(id))
        self._catalog.forget(id)
        return True

    patch.setattr(removal.Remover, "_remove", remove)


def draft_discarded_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    commit = publishing._commit

    def discard_first(draft, checkpoint, backend) -> None:
        upload(draft, checkpoint, backend)
        draft.discard()

    upload = publishing._upload
    patch.setattr(publishing, "_upload", discard_first)
    patch.setattr(publishing, "_commit", commit)


def object_written_under_its_own_name(patch: pytest.MonkeyPatch) -> None:
    def create(self, key: str, data: bytes) -> None:
        target = self._place(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb", buffering=0) as file:
            file.write(data)

    patch.setattr(LocalBackend, "create", create)


def seal_removed_last(patch: pytest.MonkeyPatch) -> None:
    def remove(self) -> None:
        staging.disk.remove(self.directory)
        (self.root / "manifest.json").unlink(missing_ok=True)
        staging.Scratch._remove(self)

    patch.setattr(staging.Draft, "_remove", remove)


def recovered_under_another_id(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging.Draft, "assigned", lambda self: None)
    patch.setattr(publishing.Fence, "turn", lambda self, sealed: Turn(0, sealed.step, new_token()))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (commit_before_upload, "save"),
        (files_deleted_before_the_manifest, "prune"),
        (draft_discarded_before_the_commit, "recover"),
        (object_written_under_its_own_name, "save"),
        (seal_removed_last, "save"),
        (recovered_under_another_id, "recover"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_code_broken_on_purpose_is_caught(
    fault: Callable[[pytest.MonkeyPatch], None],
    name: str,
    apart: Callable[..., bool],
    tmp_path: Path,
) -> None:
    assert apart(is_caught, fault, name, tmp_path / "elsewhere")


def is_caught(fault: Callable[[pytest.MonkeyPatch], None], name: str, elsewhere: Path) -> bool:
    """Whether some kill shows what is broken."""
    with memory() as place, pytest.MonkeyPatch.context() as patch:
        scene = built(name, place, elsewhere)
        fault(patch)
        return any(broken for how in HOWS for broken in kills(scene, place / "run", how))
