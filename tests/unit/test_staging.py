"""The workspace: drafts become whole, outlive their process, and nobody else's are touched."""

import errno
import hashlib
import os
import re
import shutil
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast import disk, hashing, manifest
from holdfast.checkpoint import CheckpointId
from holdfast.errors import CheckpointWarning, InvalidInputError, StorageError, StorageFull
from holdfast.staging import Workspace, first_session, workspace_for
from holdfast.version import __version__
from holdfast.writer import Turn

ID = CheckpointId(0, 7, "0badc0de")
OTHER = CheckpointId(4, 7, "0badc0df")
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def begun(workspace, step=7, **given):
    given = {"metrics": None, "metadata": None} | given
    draft = workspace.draft(step=step, turn=Turn(0, step, "0badc0de"), **given)
    (draft.directory / "model").write_text(f"at {step}")
    return draft


def sealed(draft, id=ID, parent=None):
    return draft.seal(id, writer="host:1:x", parent=parent, created_at=MOMENT)


def given_up(workspace, id=ID, parent=None):
    """The directory of a sealed draft that nobody works on."""
    draft = begun(workspace, id.step)
    sealed(draft, id, parent)
    draft.release()
    return draft.root


def found(workspace):
    drafts = workspace.abandoned()
    for draft in drafts:
        draft.release()
    return drafts


def names(path):
    return sorted(child.name for child in path.iterdir())


# A directory to work in.


def test_a_scratch_directory_is_empty_and_private(workspace):
    scratch = workspace.scratch()

    assert names(scratch.directory) == []
    assert scratch.root.stat().st_mode & 0o777 == 0o700
    assert workspace.path.stat().st_mode & 0o777 == 0o700
    scratch.discard()


def test_a_scratch_directory_goes_with_all_that_is_in_it(workspace):
    scratch = workspace.scratch()
    (scratch.directory / "a" / "b").mkdir(parents=True)
    (scratch.directory / "a" / "b" / "file").write_text("x")

    gone = [scratch.discard(), scratch.discard()]

    assert gone == [True, True]
    assert names(workspace.path) == []


def test_a_workspace_that_others_may_write_is_refused(workspace):
    workspace.path.mkdir()
    workspace.path.chmod(0o777)

    with pytest.raises(InvalidInputError, match="chmod 700"):
        workspace.scratch()

    assert names(workspace.path) == []


def test_a_workspace_that_cannot_be_made_is_a_failure_of_the_disk(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match="cannot make the workspace"):
        Workspace(tmp_path / "file" / "workspace").scratch()


# Sealing.


def test_a_sealed_draft_names_every_file_with_its_hash(workspace):
    draft = begun(workspace)
    (draft.directory / "a").mkdir()
    (draft.directory / "a" / "b").write_bytes(b"")

    checkpoint = sealed(draft)

    text = hashlib.sha256(b"at 7").hexdigest()
    empty = hashlib.sha256(b"").hexdigest()
    assert [(file.path, file.size, file.hash) for file in checkpoint.files] == [
        ("a/b", 0, f"sha256:{empty}"),
        ("model", 4, f"sha256:{text}"),
    ]
    assert draft.sealed == checkpoint
    draft.discard()


def test_the_files_of_a_checkpoint_are_sorted_by_path(workspace):
    draft = begun(workspace)
    for path in ("a/b", "a-b", "a.b", "a0"):
        (draft.directory / path).parent.mkdir(exist_ok=True)
        (draft.directory / path).touch()

    paths = [file.path for file in sealed(draft).files]

    assert paths == sorted(paths) == ["a-b", "a.b", "a/b", "a0", "model"]
    draft.discard()


def test_metrics_and_metadata_may_be_added_until_the_draft_is_sealed(workspace):
    draft = begun(workspace, metrics={"loss": 1}, metadata={"note": "x"})
    draft.metrics["accuracy"] = 0.5
    draft.metadata["epoch"] = 3

    checkpoint = sealed(draft)

    assert checkpoint.metrics == {"loss": 1.0, "accuracy": 0.5}
    assert checkpoint.metadata == {"note": "x", "epoch": 3}
    draft.discard()


def nothing(directory):
    (directory / "model").unlink()


def a_link(directory):
    (directory / "link").symlink_to("model")


def a_pipe(directory):
    os.mkfifo(directory / "pipe")


def a_name_with_a_blank(directory):
    (directory / "a b").touch()


def a_name_of_a_device(directory):
    (directory / "con.txt").touch()


def names_that_differ_in_case(directory):
    (directory / "a").touch()
    (directory / "A").touch()


def a_name_that_is_no_text(directory):
    (directory / os.fsdecode(b"\xff")).touch()


@pytest.mark.parametrize(
    "spoil",
    [
        nothing,
        a_link,
        a_pipe,
        a_name_with_a_blank,
        a_name_of_a_device,
        names_that_differ_in_case,
        a_name_that_is_no_text,
    ],
)
def test_files_that_cannot_be_kept_everywhere_are_refused(workspace, spoil):
    draft = begun(workspace)
    spoil(draft.directory)

    with pytest.raises(InvalidInputError):
        sealed(draft)

    assert draft.sealed is None
    assert "seal.json" not in names(draft.root)
    draft.discard()


@pytest.mark.parametrize(
    "given",
    [{"metrics": {"loss": "low"}}, {"metadata": {"note": []}}, {"metadata": {"a": "\ud800"}}],
)
def test_what_cannot_be_recorded_is_refused(workspace, given):
    draft = begun(workspace, **given)

    with pytest.raises(InvalidInputError):
        sealed(draft)

    assert draft.sealed is None
    draft.discard()


# What is found again.


def test_a_sealed_draft_that_nobody_works_on_is_found(workspace):
    root = given_up(workspace, parent=CheckpointId(1, 5, "00000000"))

    (draft,) = found(workspace)

    assert draft.root == root
    assert draft.sealed.id == ID
    assert draft.sealed.parent == CheckpointId(1, 5, "00000000")
    assert (draft.directory / "model").read_text() == "at 7"
    assert draft.turn is None


def test_a_found_draft_is_locked_for_its_finder(workspace):
    given_up(workspace)

    (first,) = workspace.abandoned()
    meanwhile = workspace.abandoned()
    first.release()

    assert meanwhile == []
    assert len(found(workspace)) == 1


def test_a_draft_that_somebody_works_on_is_left_alone(workspace):
    draft = begun(workspace)

    assert found(workspace) == []

    assert names(draft.directory) == ["model"]
    draft.discard()


@pytest.mark.parametrize("spell", ["relative", "through a link"])
def test_a_draft_is_left_alone_however_its_workspace_is_spelled(
    workspace, tmp_path, monkeypatch, spell
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    draft = begun(workspace)

    drafts = found(Workspace(Path("workspace" if spell == "relative" else "link/workspace")))

    assert drafts == []
    assert names(draft.directory) == ["model"]
    draft.discard()


def test_unfinished_work_is_deleted(workspace):
    draft = begun(workspace)
    draft.release()
    workspace.scratch().release()
    (workspace.path / disk.new_name()).mkdir()

    assert found(workspace) == []

    assert names(workspace.path) == []


@pytest.mark.parametrize("lost", [["lock"], ["lock", "files"]])
def test_unfinished_work_that_lost_its_lock_in_a_power_cut_is_deleted(workspace, lost):
    draft = begun(workspace)
    draft.assign(b"the manifest of its last attempt")
    draft.release()
    for name in lost:
        path = draft.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert found(workspace) == []

    assert names(workspace.path) == []


@pytest.mark.parametrize("finished", [False, True])
def test_a_process_that_is_killed_leaves_a_draft_only_if_it_was_sealed(workspace, finished):
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            draft = begun(workspace)
            if finished:
                sealed(draft)
            os.write(told, b"!")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(ready, 1) == b"!"
    before = found(workspace)

    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    assert before == []
    assert len(found(workspace)) == finished
    os.close(ready)
    os.close(told)


def test_drafts_are_found_in_the_order_of_training(workspace):
    ids = [
        CheckpointId(2, 1, "00000000"),
        CheckpointId(1, 900, "00000000"),
        CheckpointId(1, 9, "ffffffff"),
        CheckpointId(1, 9, "00000000"),
    ]
    for id in ids:
        given_up(workspace, id)

    assert [draft.sealed.id for draft in found(workspace)] == sorted(ids)


def test_a_draft_without_a_number_comes_after_what_its_run_was_resumed_from(workspace):
    given_up(workspace, CheckpointId(0, 1, "00000000"), parent=CheckpointId(2, 5, "00000000"))
    given_up(workspace, CheckpointId(2, 9, "00000000"))

    drafts = found(workspace)

    assert [draft.step for draft in drafts] == [9, 1]
    assert [first_session(draft.sealed) for draft in drafts] == [2, 3]


def test_what_a_draft_was_last_committed_with_is_what_it_is(workspace):
    draft = begun(workspace)
    checkpoint = sealed(draft)
    data = manifest.write(replace(checkpoint, id=OTHER))
    assert draft.assigned() is None

    draft.assign(data)
    draft.release()

    (reopened,) = found(workspace)
    assert reopened.sealed.id == OTHER
    assert reopened.assigned() == data


@pytest.mark.parametrize("name", ["seal.json", "manifest.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100])
def test_a_draft_with_a_damaged_record_is_left_with_a_warning(workspace, name, damage):
    root = given_up(workspace)
    (root / name).write_bytes(damage)

    with pytest.warns(CheckpointWarning, match="cannot be published"):
        drafts = found(workspace)

    assert drafts == []
    assert (root / "files" / "model").read_text() == "at 7"
    with pytest.warns(CheckpointWarning):
        found(workspace)  # its lock was let go


@pytest.mark.parametrize("field", ["files", "created_at", "metrics"])
def test_a_draft_whose_seal_and_manifest_are_of_two_checkpoints_is_left_with_a_warning(
    workspace, field
):
    draft = begun(workspace)
    checkpoint = sealed(draft)
    other = {
        "files": checkpoint.files[:0],
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
        "metrics": {"loss": 1.0},
    }
    draft.assign(manifest.write(replace(checkpoint, id=OTHER, **{field: other[field]})))
    draft.release()

    with pytest.warns(CheckpointWarning, match="of two checkpoints"):
        drafts = found(workspace)

    assert drafts == []
    assert (draft.root / "files" / "model").read_text() == "at 7"


def test_a_discarded_draft_is_never_found_again(workspace):
    draft = begun(workspace)
    sealed(draft)

    assert draft.discard()

    assert found(workspace) == []
    assert names(workspace.path) == []


def test_a_discard_that_the_disk_stops_midway_leaves_no_draft_to_publish(workspace, monkeypatch):
    draft = begun(workspace)
    sealed(draft)

    def fail(*_, **__):
        raise OSError("busy")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "remove", fail)
        gone = draft.discard()

    assert not gone
    assert found(workspace) == []
    assert names(workspace.path) == []


def test_the_lock_of_a_draft_goes_last(workspace, monkeypatch):
    draft = begun(workspace)
    sealed(draft)
    unlink = os.unlink
    beside_the_lock = []

    def watched(path, **given):
        if Path(path).name == "lock":
            beside_the_lock.append(names(draft.root))
        unlink(path, **given)

    monkeypatch.setattr(os, "unlink", watched)

    draft.discard()

    assert beside_the_lock == [["lock"]]


def test_what_is_somebody_else_s_is_left_alone(workspace):
    disk.make_private(workspace.path)
    for name in ("notes", "0123456789abcdeg", "0123456789ABCDEF", "x-0123456789abcdef"):
        (workspace.path / name).mkdir()
        (workspace.path / name / "file").write_text("theirs")
    (workspace.path / "0123456789abcdef").write_text("a file")
    (workspace.path / "fedcba9876543210").mkdir()
    (workspace.path / "fedcba9876543210" / "no-lock").write_text("theirs")
    before = names(workspace.path)

    assert found(workspace) == []

    assert names(workspace.path) == before
    assert names(workspace.path / "fedcba9876543210") == ["no-lock"]


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_in_a_workspace_that_is_not_this_user_s_alone_no_draft_is_looked_for(
    workspace, tmp_path, kind
):
    root = given_up(workspace)
    workspace.scratch().release()
    before = names(workspace.path)
    if kind == "open to others":
        workspace.path.chmod(0o777)
    else:
        workspace.path.rename(tmp_path / "theirs")
        if kind == "a link":
            workspace.path.symlink_to(tmp_path / "theirs")
        else:
            workspace.path.write_text("a file")

    with pytest.warns(CheckpointWarning, match="no draft is looked for: .*othing was touched"):
        drafts = found(workspace)

    assert drafts == []
    theirs = tmp_path / "theirs" if kind != "open to others" else workspace.path
    assert names(theirs) == before
    assert names(theirs / root.name) == ["files", "lock", "seal.json"]


def test_a_link_in_a_workspace_is_not_followed(workspace, tmp_path):
    root = given_up(workspace)
    unfinished = workspace.scratch()
    unfinished.release()
    for number, each in enumerate((root, unfinished.root)):
        each.rename(tmp_path / f"theirs-{number}")
        each.symlink_to(tmp_path / f"theirs-{number}")

    assert found(workspace) == []
    assert workspace.sealed() == 0

    assert names(tmp_path / "theirs-0") == ["files", "lock", "seal.json"]
    assert names(tmp_path / "theirs-1") == ["files", "lock"]


@pytest.mark.parametrize("name", ["seal.json", "manifest.json"])
@pytest.mark.parametrize("kind", ["a link", "a pipe", "too large"])
def test_a_record_of_a_draft_is_neither_followed_nor_waited_for(workspace, tmp_path, name, kind):
    root = given_up(workspace)
    record = root / name
    record.unlink(missing_ok=True)
    if kind == "a link":
        (tmp_path / "theirs").write_bytes(b"{}")
        record.symlink_to(tmp_path / "theirs")
    elif kind == "a pipe":
        os.mkfifo(record)
    else:
        with record.open("wb") as file:
            file.truncate(2**40)

    with pytest.warns(CheckpointWarning, match="cannot be published"):
        assert found(workspace) == []

    assert (root / "files" / "model").read_text() == "at 7"


def test_a_workspace_that_is_not_there_has_no_drafts(workspace):
    assert found(workspace) == []

    assert not workspace.path.exists()


def test_places_that_share_a_workspace_see_their_own_drafts(tmp_path):
    one, other, alone = (
        Workspace(tmp_path / "shared", "memory://one"),
        Workspace(tmp_path / "shared", "memory://other"),
        Workspace(tmp_path / "shared"),
    )
    root, lone = given_up(one), given_up(alone)
    unfinished = begun(other)
    unfinished.release()

    seen = [[draft.root for draft in found(workspace)] for workspace in (one, other, alone)]

    assert seen == [[root], [], [lone]]
    assert not unfinished.root.exists()


def test_a_local_store_has_its_workspace_inside(tmp_path):
    own = tmp_path / ".workspace"

    assert workspace_for(f"file://{tmp_path}", None).path == own
    given_up(workspace_for(f"file://{tmp_path}", own))
    assert len(found(workspace_for(f"file://{tmp_path}", None))) == 1


# A power cut, of which nothing can be seen but the order of the calls.


def watched(monkeypatch, root):
    """The syncs from now on, and the names that came by a rename or went; beside this directory."""
    happened = []

    def watch(call, what, named):
        real = getattr(os, call)

        def act(*given, **at):
            real(*given, **at)
            happened.append(f"{what} {os.path.relpath(named(*given), root)}")

        monkeypatch.setattr(os, call, act)

    watch("fsync", "sync", lambda file: Path(f"/proc/self/fd/{file}").readlink())
    watch("rename", "named", lambda _, target: target)
    watch("unlink", "gone", lambda path: root / path)
    return happened


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to watch the calls")
class TestPowerCut:
    def test_a_new_workspace_survives_it(self, workspace, monkeypatch):
        happened = watched(monkeypatch, workspace.path)

        workspace.scratch().discard()

        assert happened[0] == "sync .."

    def test_a_seal_comes_after_what_it_vouches_for_and_survives_it(self, workspace, monkeypatch):
        draft = begun(workspace)
        (draft.directory / "deep").mkdir()
        (draft.directory / "deep" / "file").write_text("x")
        happened = watched(monkeypatch, draft.root)

        sealed(draft)

        at = happened.index("named seal.json")
        below = {f"sync files/{name}" for name in ("model", "deep", "deep/file")}
        assert {*happened[:at]} == {"sync .", "sync files", *below, "sync ~seal"}
        assert {*happened[at + 1 :]} == {"sync .", "sync .."}

    def test_what_is_hashed_as_it_is_written_is_not_synced_again(self, workspace, monkeypatch):
        draft = begun(workspace)
        draft.hashes["model"] = hashing.hash_file(draft.directory / "model")
        happened = watched(monkeypatch, draft.root)

        sealed(draft)

        assert "sync files/model" not in happened

    def test_the_note_of_an_attempt_survives_it(self, workspace, monkeypatch):
        draft = begun(workspace)
        happened = watched(monkeypatch, draft.root)

        draft.assign(b"manifest")

        assert happened == ["sync ~manifest", "named manifest.json", "sync ."]

    def test_a_discarded_draft_has_lost_its_seal_for_good_before_its_files_go(
        self, workspace, monkeypatch
    ):
        draft = begun(workspace)
        sealed(draft)
        happened = watched(monkeypatch, draft.root)

        draft.discard()

        assert happened[:3] == ["gone seal.json", "sync .", "gone model"]


def test_a_child_leaves_its_parent_s_directory_alone(workspace, monkeypatch):
    scratch = workspace.scratch()
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert scratch.discard()

    monkeypatch.undo()
    assert scratch.directory.is_dir()
    assert scratch.discard()
    assert not scratch.root.exists()


def test_a_directory_that_somebody_cleaned_up_first_is_left_to_him(workspace, monkeypatch):
    take = disk.Lock.take
    others = []

    def taken_first(path, **given):
        if not others:
            others.append(take(path, **given))
            return None
        return take(path, **given)

    monkeypatch.setattr(disk.Lock, "take", taken_first)

    scratch = workspace.scratch()

    assert scratch.root != others[0].path.parent
    assert names(scratch.directory) == []
    others[0].release()
    scratch.discard()


@pytest.mark.parametrize("what", ["take", "mkdir"])
def test_a_directory_that_cannot_be_finished_leaves_nothing(workspace, monkeypatch, what):
    def refused(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    workspace.scratch().discard()
    if what == "take":
        monkeypatch.setattr(disk.Lock, "take", refused)
    else:
        mkdir = Path.mkdir
        monkeypatch.setattr(
            Path,
            "mkdir",
            lambda path, *given, **named: (refused if path.name == "files" else mkdir)(
                path, *given, **named
            ),
        )

    with pytest.raises(StorageFull):
        workspace.scratch()

    assert names(workspace.path) == []


# What other processes have left.


def test_of_what_others_have_sealed_the_newest_session_counts(workspace):
    assert workspace.newest_session(but="host:1:x") == 0
    given_up(workspace, replace(ID, session=3))
    given_up(workspace, replace(OTHER, session=2))

    assert workspace.newest_session(but="another") == 3
    assert workspace.newest_session(but="host:1:x") == 0


def test_a_draft_without_a_number_comes_after_what_it_was_resumed_from(workspace):
    unnumbered = sealed(begun(workspace))

    assert first_session(unnumbered) == 1
    assert first_session(replace(unnumbered, parent=OTHER)) == OTHER.session + 1
    assert first_session(replace(unnumbered, id=OTHER)) == OTHER.session


def test_a_draft_says_which_version_has_sealed_it(workspace):
    assert sealed(begun(workspace)).version == __version__


def test_where_places_share_a_workspace_their_directories_are_told_apart_by_name(tmp_path):
    shared = Workspace(tmp_path / "workspace", "s3://bucket/run")
    digest = hashlib.sha256(b"s3://bucket/run").hexdigest()

    assert re.fullmatch(rf"{digest[:8]}-[0-9a-f]{{16}}", shared.scratch().root.name)
