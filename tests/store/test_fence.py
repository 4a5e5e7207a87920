"""Who may publish: a writer that was overtaken stops, and nothing of what it staged is lost."""

import os

import pytest

from holdfast import (
    CheckpointId,
    CheckpointStore,
    CheckpointWarning,
    Files,
    FormatError,
    KeepLast,
    SupersededError,
    layout,
    manifest,
)
from holdfast.testing.faults import Fault, FaultBackend
from holdfast.writer import Writer
from tests.store import checks
from tests.store.checks import committed, steps
from tests.store.dying import in_another_process
from tests.store.hooked import HookedBackend


def test_a_superseded_writer_publishes_and_prunes_nothing(tmp_path):
    checks.a_superseded_writer_publishes_and_prunes_nothing(tmp_path)


def test_of_two_writers_in_one_session_one_goes_on(tmp_path):
    checks.of_two_writers_in_one_session_one_goes_on(tmp_path)


def test_the_draft_of_a_superseded_writer_is_kept_and_told_of(process, file, workspace, tmp_path):
    old = process()
    old.save(file, step=1)
    process(workspace=tmp_path / "elsewhere").save(file, step=1)

    with pytest.raises(SupersededError, match="stays in the workspace"):
        old.save(file, step=2)

    (seal,) = workspace.glob("*/seal.json")
    with pytest.warns(CheckpointWarning, match="draft of step 2 .* is kept: .*taken over"):
        assert process().recover() == []
    assert seal.exists()
    assert seal.with_name("files").joinpath(file.name).read_bytes() == file.read_bytes()


def test_a_superseded_writer_may_look_and_restore(process, file, tmp_path):
    old = process()
    old.save(file, step=1)
    newer = process(workspace=tmp_path / "elsewhere").save(file, step=1)
    with pytest.raises(SupersededError):
        old.save(file, step=2)

    assert old.latest() == newer
    assert (old.download(to=tmp_path / "copy") / file.name).exists()
    assert old.prune(KeepLast(1), dry_run=True).remove


def test_a_commit_that_was_under_way_sorts_before_the_newer_session(
    process, backend, file, tmp_path
):
    newer = []

    def overtake(verb, key, call):
        if verb == "create" and key.startswith("manifests/0001-000000000900"):
            newer.append(process(workspace=tmp_path / "elsewhere").save(file, step=1))
        return call()

    old = process(on=HookedBackend(backend, overtake))
    old.save(file, step=1)

    late = old.save(file, step=900)

    assert process().checkpoints()[1:] == [late, *newer]
    with pytest.raises(SupersededError):
        old.save(file, step=901)


def test_the_attempt_of_a_newer_session_that_was_swept_supersedes_nobody(process, backend, file):
    store = process()
    store.save(file, step=1)
    swept = CheckpointId(2, 1, "00000000")
    backend.create(layout.manifest_key(swept), manifest.write_tombstone(swept, "sweeper"))

    saved = store.save(file, step=2)

    assert store.latest() == saved
    assert saved.session == 1


def test_a_newer_session_that_cannot_be_read_supersedes(process, backend, file):
    store = process()
    store.save(file, step=1)
    backend.create(layout.manifest_key(CheckpointId(2, 1, "00000000")), b"not a manifest")

    with pytest.raises(SupersededError):
        store.save(file, step=2)

    assert [id.step for id in committed(backend, unreadable=True)] == [1]


def test_the_own_later_sessions_supersede_nobody(store, file):
    saved = [store.save(file, step=step) for step in (5, 3, 1, 2)]

    assert store.checkpoints() == saved


def test_a_forked_child_is_another_writer_even_with_its_parents_store(backend, file, tmp_path):
    store = CheckpointStore(backend, workspace=tmp_path / "workspace")
    mine = store.save(file, step=1)

    def child(inner, acknowledge):
        store._backend.objects = inner.inner.objects
        saved = store.save(file, step=2)
        acknowledge(f"{saved.writer} {saved.session}")

    end = in_another_process(backend, child)

    writer, session = end.acknowledged[0].rsplit(" ", 1)
    assert writer != mine.writer
    assert session == "2"
    with pytest.raises(SupersededError):
        store.save(file, step=3)


def test_a_forked_child_has_a_writer_of_its_own(backend):
    mine = Writer.of(backend.url)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, Writer.of(backend.url).name.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        theirs = pipe.read()
    os.wait()

    assert theirs
    assert theirs != mine.name
    assert Writer.of(backend.url) is mine


def test_a_look_that_fails_publishes_nothing(process, backend, file):
    store = process()
    store.save(file, step=1)
    looks = [call.verb for call in _record(process, backend, file)].count("scan")
    assert looks > 2

    for at in range(1, looks + 1):
        before = set(committed(backend))
        failing = FaultBackend(backend, [Fault(at=at, verb="scan", lasting=True)])
        with pytest.raises(OSError, match="on purpose"):
            process(on=failing, workspace=file.parent / f"w{at}").save(file, step=100 + at)
        assert set(committed(backend)) == before


def _record(process, backend, file):
    recorded = FaultBackend(backend)
    process(on=recorded, workspace=file.parent / "recorded").save(file, step=2)
    return recorded.calls


def test_a_writer_moved_to_the_next_session_keeps_its_laps_apart():
    writer = Writer("a")
    writer.take(0, 1)
    writer.take(1, 2)

    writer.move(1)

    assert (writer.session(0), writer.session(1)) == (2, 3)


def test_a_newer_format_in_the_same_session_is_not_passed_over(
    process, backend, file, newer_format
):
    store = process()
    store.save(file, step=1)
    key = layout.manifest_key(CheckpointId(1, 2, "ffffffff"))
    backend.create(key, newer_format)

    with pytest.raises(FormatError, match="Upgrade"):
        store.save(file, step=3)

    del backend.objects[key]
    assert steps(backend) == [1]


def test_who_restores_after_being_superseded_goes_on_as_a_new_session(backend, workspace, file):
    mine = CheckpointStore(backend, workspace=workspace)
    mine.save(file, step=1)
    other = CheckpointStore(backend, workspace=workspace, writer=Writer())
    theirs = other.save(file, step=2)
    with pytest.raises(SupersededError):
        mine.save(file, step=3)

    mine.restore(Files(workspace.parent / "restored"))
    with pytest.warns(CheckpointWarning, match="the draft of step 3 .* is kept"):
        saved = mine.save(file, step=3)

    assert (saved.session, saved.parent) == (3, theirs.id)
    assert [each.step for each in mine] == [1, 2, 3], "what was refused is not published by this"
    with pytest.raises(SupersededError):
        other.save(file, step=4)
