"""What a process staged outlives it, and comes into the store once."""

import contextlib
import errno
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast import (
    CheckpointId,
    CheckpointWarning,
    CorruptionError,
    Files,
    InvalidInputError,
    KeepLast,
    StorageError,
    SupersededError,
    hashing,
    layout,
    manifest,
    record,
)
from holdfast.testing import MemoryBackend
from holdfast.testing.faults import Fault, FaultBackend
from tests.store import checks
from tests.store.checks import committed, steps
from tests.store.dying import Death, in_another_process
from tests.store.hooked import HookedBackend


@pytest.fixture
def offline(backend):
    """The place while it takes nothing."""
    return FaultBackend(backend, [Fault(at=1, verb="create", lasting=True)])


@pytest.fixture
def draft(process, offline, file, workspace):
    """The directory of a sealed draft of step 7 that a process has left."""
    with pytest.raises(StorageError):
        process(on=offline).save(file, step=7, metrics={"loss": 0.5}, metadata={"note": "left"})
    (seal,) = workspace.glob("*/seal.json")
    return seal.parent


def test_a_sealed_draft_comes_in_once_and_under_its_own_id(process, backend, draft):
    noted = record.decode((draft / "manifest.json").read_bytes())

    (published,) = process().recover()

    assert str(published.id) == noted["id"]
    assert list(committed(backend)) == [published.id]
    assert not draft.exists()
    assert process().recover() == []


def test_what_was_noted_beside_it_comes_in_too(process, draft, file, tmp_path):
    process().recover()

    found = process().restore(Files(tmp_path / "restored"))

    assert dict(found.metrics) == {"loss": 0.5}
    assert dict(found.metadata) == {"note": "left"}
    assert (tmp_path / "restored" / file.name).read_bytes() == file.read_bytes()


def test_the_first_save_of_the_next_process_brings_it_in_first(process, draft, file):
    saved = process().save(file, step=1)

    assert [(one.session, one.step) for one in process()] == [(1, 7), (2, 1)]
    assert process().latest() == saved


def test_the_same_process_brings_it_in_too(process, offline, backend, file):
    store = process(on=offline)
    with pytest.raises(StorageError):
        store.save(file, step=1)
    offline._plan = ()
    store.save(file, step=2)

    (published,) = store.recover()

    assert [one.step for one in store] == [1, 2]
    assert published.writer == store.latest().writer


def test_several_drafts_come_in_in_their_order(process, offline, file):
    first = process(on=offline)
    for step in (3, 5, 2):
        with pytest.raises(StorageError):
            first.save(file, step=step)

    assert [one.step for one in process().recover()] == [3, 5, 2]
    assert [(one.session, one.step) for one in process()] == [(1, 3), (1, 5), (2, 2)]


def test_clocks_do_not_order_the_drafts(process, offline, file):
    times = iter(datetime(2026, 1, day, tzinfo=UTC) for day in (9, 5, 1))
    first = process(on=offline, clock=lambda: next(times))
    for step in (3, 2, 1):
        with pytest.raises(StorageError):
            first.save(file, step=step)

    assert [one.step for one in process().recover()] == [3, 2, 1]
    assert process().latest().step == 1


def test_one_staged_without_any_look_at_the_place_comes_in(process, backend, file, tmp_path):
    process().save(file, step=1)
    resumed = process(on=FaultBackend(backend, [Fault(at=5, lasting=True)]))
    resumed.restore(Files(tmp_path / "model"))
    with pytest.raises(StorageError):
        resumed.save(file, step=2)

    (published,) = process().recover()

    assert (published.session, published.step) == (2, 2)
    assert published.parent == CheckpointId.parse(str(process()[1].id))


def test_an_attempt_that_was_swept_goes_on_in_its_own_session(process, backend, file, tmp_path):
    """Its seal has no session yet, since the place could not be looked at; its attempt has one."""
    process().save(file, step=1)
    process(workspace=tmp_path / "b").save(file, step=1)
    calls = []

    def no_first_look_and_no_commit(verb, key, call):
        calls.append(verb)
        if calls.count("scan") == 1 or verb == "create":
            raise StorageError("not now")
        return call()

    with pytest.raises(StorageError):
        process(on=HookedBackend(backend, no_first_look_and_no_commit)).save(file, step=2)
    process().sweep(older_than=checks.NOW)

    (published,) = process().recover()

    assert (published.session, published.step) == (3, 2)
    assert process().latest() == published


# ------------------------------------------------------------- what is not published


def test_unfinished_work_of_dead_processes_goes(process, backend, workspace, file):
    def die_in_the_middle(inner, acknowledge):
        store = process(on=inner)
        draft = store.draft(step=1)
        shutil.copy(file, draft.directory)
        store.latest()

    assert in_another_process(backend, die_in_the_middle, Death(1, "before")).died
    assert len(list(workspace.iterdir())) == 1

    assert process().recover() == []

    assert not list(workspace.iterdir())
    assert not backend.objects


def test_downloads_of_dead_processes_go(process, backend, workspace, file):
    process().save(file, step=1)

    def download(inner, acknowledge):
        acknowledge(str(process(on=inner).download()))

    in_another_process(backend, download)
    assert len(list(workspace.iterdir())) == 1

    process().recover()

    assert not list(workspace.iterdir())


@pytest.mark.parametrize("how", ["a flipped bit", "cut", "nothing", "garbage", "a directory"])
def test_a_draft_with_a_damaged_seal_is_left_with_a_warning(process, draft, how, file, backend):
    seal = draft / "seal.json"
    data = seal.read_bytes()
    seal.unlink()
    if how == "a directory":
        seal.mkdir()
    else:
        changed = {
            "a flipped bit": bytes([data[0] ^ 1]) + data[1:],
            "cut": data[:-5],
            "nothing": b"",
            "garbage": b"garbage",
        }
        seal.write_bytes(changed[how])

    with pytest.warns(CheckpointWarning, match="cannot be published.* It is left where it is"):
        saved = process().save(file, step=1)

    assert list(committed(backend)) == [saved.id]
    assert (draft / "files" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("how", ["a flipped bit", "garbage", "a directory"])
def test_a_draft_with_a_damaged_note_is_left_with_a_warning(process, draft, how, file, backend):
    note = draft / "manifest.json"
    data = note.read_bytes()
    note.unlink()
    if how == "a directory":
        note.mkdir()
    else:
        note.write_bytes(b"garbage" if how == "garbage" else bytes([data[0] ^ 1]) + data[1:])

    with pytest.warns(CheckpointWarning, match="cannot be published"):
        saved = process().save(file, step=1)

    assert list(committed(backend)) == [saved.id]
    assert draft.exists()


@pytest.mark.parametrize("how", ["a flipped bit", "cut", "gone", "a directory", "a link"])
def test_a_draft_with_a_damaged_file_is_never_published(process, draft, how, file, backend):
    kept = draft / "files" / file.name
    data = kept.read_bytes()
    kept.unlink()
    if how == "a directory":
        kept.mkdir()
    elif how == "a link":
        kept.symlink_to(file.with_name("another"))
    elif how != "gone":
        kept.write_bytes(data[:-1] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])

    with pytest.warns(CheckpointWarning, match="draft of step 7 .* is kept: .*damaged"):
        saved = process().save(file, step=1)

    assert steps(backend) == [1]
    assert saved == process().latest()
    assert draft.exists()


def test_a_seal_with_a_hostile_id_leads_nowhere(process, draft, file, backend):
    members = record.decode((draft / "seal.json").read_bytes())
    (draft / "manifest.json").unlink()
    for id in (
        "0001-000000000007-../../../../x",
        "0001-000000000007-0000000G",
        "-0001-000000000007-00000000",
        "1-7-00000000",
        "0001-000000000007",
        "²-000000000007-00000000",
    ):
        (draft / "seal.json").write_bytes(record.encode({**members, "id": id}))
        with pytest.warns(CheckpointWarning, match="cannot be published"):
            assert process().recover() == []

    assert not committed(backend)


def test_a_draft_of_an_overtaken_session_is_kept_with_a_warning(process, draft, file, tmp_path):
    process(workspace=tmp_path / "elsewhere").save(file, step=1)

    with pytest.warns(CheckpointWarning, match="draft of step 7 .* is kept: .*taken over"):
        assert process().recover() == []

    assert draft.exists()
    assert [one.step for one in process()] == [1]


def test_what_can_be_sealed_can_be_published_up_to_the_last_byte(process, offline, backend):
    """A draft that could be sealed and never published would stop every later start."""

    def sealed(size):
        draft = process(on=offline).draft(step=1, metadata={"text": "x" * size})
        (draft.directory / "model").write_bytes(b"weights")
        try:
            process().seal(draft)
        except InvalidInputError:
            draft.discard()
            return None
        draft.release()
        return (draft.root / "seal.json").stat().st_size

    others = sealed(0)
    process().recover()
    for size in range(record.MAX_BYTES - others - 80, record.MAX_BYTES - others + 80, 3):
        if not sealed(size):
            return
        backend.objects.clear()
        assert len(process().recover()) == 1
    pytest.fail("no size was refused")


# ------------------------------------------------------------- the workspace


def test_a_draft_that_is_worked_on_is_nobody_elses(tmp_path):
    checks.a_draft_that_is_worked_on_is_nobody_elses(tmp_path)


def test_a_forked_child_that_ends_removes_nothing_of_its_parents(process, file):
    store = process()
    draft, scratch = store.draft(step=2), store.workspace.scratch()
    shutil.copy(file, draft.directory)

    def end(inner, acknowledge):
        draft.discard()
        scratch.discard()

    in_another_process(MemoryBackend(), end)

    assert scratch.directory.exists()
    assert store.publish(draft).step == 2


def test_a_workspace_holds_what_is_of_others(tmp_path):
    checks.a_workspace_holds_what_is_of_others(tmp_path)


def test_drafts_of_another_place_stay_its_own(tmp_path):
    checks.drafts_of_another_place_stay_its_own(tmp_path)


def test_a_workspace_that_others_may_write_into_is_refused(process, backend, workspace, file):
    workspace.mkdir(mode=0o700)
    for mode in (0o770, 0o702, 0o777):
        workspace.chmod(mode)

        with pytest.raises(InvalidInputError, match="chmod 700"):
            process().save(file, step=1)

    assert not list(workspace.iterdir())
    assert not backend.objects


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_workspace_of_somebody_else_is_refused(process, backend, workspace, file):
    workspace.mkdir(mode=0o700)
    os.chown(workspace, 12345, 12345)

    with pytest.raises(InvalidInputError, match="belongs to another user"):
        process().save(file, step=1)

    assert not backend.objects


def test_a_link_in_the_place_of_the_workspace_is_refused(process, workspace, tmp_path, file):
    (tmp_path / "mine").mkdir(mode=0o700)
    workspace.symlink_to(tmp_path / "mine")

    with pytest.raises(InvalidInputError, match="not a directory"):
        process().save(file, step=1)

    assert not list((tmp_path / "mine").iterdir())


def test_a_missing_workspace_is_nothing_to_recover(process, workspace):
    assert process().recover() == []
    assert not workspace.exists()


def test_only_this_user_can_read_a_draft(store, workspace, file):
    draft = store.draft(step=1)

    assert workspace.stat().st_mode & 0o777 == 0o700
    assert draft.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells by /proc what is open")
def test_a_draft_is_removed_where_an_open_file_keeps_its_directory(
    process, file, workspace, monkeypatch
):
    """As NFS does: a file that is open when it is unlinked gets another name in its directory."""
    unlink, descriptors = os.unlink, Path("/proc/self/fd")

    def unlink_on_nfs(path, *, dir_fd=None):
        whole = (descriptors / str(dir_fd)).readlink() / path if dir_fd else Path(path)
        held = []
        for descriptor in descriptors.iterdir():
            with contextlib.suppress(OSError):
                held.append(descriptor.readlink())
        if whole in held:
            whole.rename(whole.with_name(".nfs0001"))
        else:
            unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink_on_nfs)

    process().save(file, step=1)

    assert not list(workspace.iterdir())


def test_what_lies_in_a_draft_and_was_not_sealed_is_not_sent(process, draft, backend):
    (draft / "files" / "later").write_bytes(b"after the seal")

    (published,) = process().recover()

    assert [file.path for file in published.files] == ["model.bin"]
    assert not [key for key in backend.objects if key.endswith("later")]


def test_a_seal_is_plain_json_for_whoever_has_to_help_himself(draft):
    sealed = json.loads((draft / "seal.json").read_text())

    assert sealed["kind"] == "draft"
    assert sealed["step"] == 7
    assert [file["path"] for file in sealed["files"]] == ["model.bin"]


def test_publishing_a_damaged_draft_names_the_file(process, draft, file):
    (draft / "files" / file.name).write_bytes(b"")
    (again,) = process().workspace.abandoned()

    with pytest.raises(CorruptionError, match=file.name):
        process().publish(again)

    again.release()


def test_what_is_recovered_is_pruned_with_the_next_save(process, draft, backend, file):
    store = process(retention=KeepLast(1))

    store.save(file, step=1)

    assert steps(backend) == [1]


def test_a_draft_given_up_for_now_is_found_again(process, file, backend):
    store = process()
    draft = store.draft(step=3)
    shutil.copy(file, draft.directory)
    store.seal(draft)
    draft.release()

    (published,) = process().recover()

    assert published.step == 3
    assert published.created_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert layout.manifest_key(published.id) in backend.objects
    assert manifest.read(backend.read(layout.manifest_key(published.id)), published.id) == published


@pytest.mark.parametrize("damage", [b"garbage", b""])
def test_a_note_that_was_damaged_after_it_was_found_is_published_by_nobody(
    process, offline, backend, workspace, file, damage
):
    store = process(on=offline)
    draft = store.draft(step=7)
    shutil.copy(file, draft.directory)
    store.seal(draft)
    with pytest.raises(StorageError):
        store.publish(draft)
    (draft.root / "manifest.json").write_bytes(damage)
    offline._plan = ()

    with pytest.raises(CorruptionError, match="noted of an earlier attempt is damaged"):
        store.publish(draft)

    assert not committed(backend)
    assert (draft.directory / file.name).exists()
    draft.discard()


def test_a_draft_whose_file_cannot_be_read_is_kept(process, draft, backend, file, monkeypatch):
    def unreadable(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(hashing, "hash_file", unreadable)

    with pytest.warns(CheckpointWarning, match=f"{file.name} cannot be read"):
        assert process().recover() == []

    assert not committed(backend)
    monkeypatch.undo()
    (published,) = process().recover()
    assert published.step == 7


def test_a_draft_that_is_sent_again_by_one_who_was_overtaken_is_not_sent(
    process, backend, file, tmp_path
):
    """What was noted is looked for, and then it is asked who may publish, before anything goes."""
    failing = FaultBackend(backend, [Fault(at=2, verb="create", lasting=True)])
    store = process("m", on=failing)
    store.save(file, step=1)
    draft = store.draft(step=2)
    shutil.copy(file, draft.directory)
    with pytest.raises(StorageError):
        store.publish(draft)
    process("z", workspace=tmp_path / "elsewhere").save(file, step=1)
    failing.calls.clear()

    with pytest.raises(SupersededError):
        store.publish(draft)

    assert not [call for call in failing.calls if call.verb == "upload"]


def test_a_link_in_a_draft_of_somebody_else_is_not_followed(process, backend, draft, tmp_path):
    (path,) = (draft / "files").iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.warns(CheckpointWarning, match="damaged while it lay"):
        assert process().recover() == []


def test_that_a_commit_is_unknown_carries_the_number_of_the_failure(process, backend, file):
    def fail(verb, key, call):
        if verb in ("create", "read") and key.startswith("manifests/"):
            raise StorageError("the disk fails", errno=errno.EIO)
        return call()

    with pytest.raises(StorageError, match="unknown") as caught:
        process(on=HookedBackend(backend, fail)).save(file, step=1)

    assert caught.value.errno == errno.EIO


def test_what_turns_out_to_be_committed_is_not_sent_again(process, backend, file):
    def lose_every_reply(verb, key, call):
        if verb in ("create", "read") and key.startswith("manifests/"):
            if verb == "create":
                call()
            raise StorageError("the reply is lost")
        return call()

    with pytest.raises(StorageError, match="unknown"):
        process(on=HookedBackend(backend, lose_every_reply)).save(file, step=1)
    counted = FaultBackend(backend)

    (settled,) = process(on=counted).recover()

    assert process().checkpoints() == [settled]
    assert not [call for call in counted.calls if call.verb in ("upload", "create")]
