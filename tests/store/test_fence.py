"""Who may publish: a writer that was overtaken stops, and nothing of what it staged is lost."""

import os
import threading
from dataclasses import replace

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
from holdfast.catalog import Catalog
from holdfast.checkpoint import MAX_SESSION
from holdfast.publishing import Fence
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


def test_a_later_session_that_was_removed_meanwhile_supersedes_nobody(process, backend, file):
    gone = layout.manifest_key(CheckpointId(2, 1, "00000000"))

    def removed_when_it_is_read(verb, key, call):
        if (verb, key) == ("read", gone):
            backend.objects.pop(gone, None)
        return call()

    store = process(on=HookedBackend(backend, removed_when_it_is_read))
    store.save(file, step=1)
    backend.create(gone, b"of a process that has died since")

    saved = store.save(file, step=2)

    assert [each.id for each in store] == [CheckpointId(1, 1, store[1].id.token), saved.id]
    assert saved.session == 1


def test_what_cannot_be_read_in_the_same_session_supersedes_nobody(process, backend, file):
    store = process()
    store.save(file, step=1)
    backend.create(layout.manifest_key(CheckpointId(1, 9, "00000000")), b"garbage")

    saved = store.save(file, step=2)

    assert saved.session == 1
    assert [id.step for id in committed(backend, unreadable=True)] == [1, 2]


def committed_by(backend, writer, like, **place):
    """What another writer has committed, as if it were this process's but for its place."""
    id = replace(like.id, **place)
    backend.create(layout.manifest_key(id), manifest.write(replace(like, id=id, writer=writer)))
    return id


@pytest.mark.parametrize("name", ["a", "z"])
def test_of_two_in_one_session_the_one_whose_name_sorts_lower_yields(process, backend, file, name):
    store = process("m")
    saved = store.save(file, step=1)
    committed_by(backend, name, saved, step=5)

    if name == "z":
        with pytest.raises(SupersededError):
            store.save(file, step=6)
    else:
        assert store.save(file, step=6).session == 2


def test_who_was_superseded_stays_so_though_the_other_is_gone(process, backend, file):
    store = process("m")
    saved = store.save(file, step=1)
    key = layout.manifest_key(committed_by(backend, "z", saved, session=2))
    with pytest.raises(SupersededError):
        store.save(file, step=2)
    del backend.objects[key]

    with pytest.raises(SupersededError):
        store.save(file, step=3)

    assert steps(backend) == [1]


@pytest.mark.parametrize("what", ["unreadable", "gone"])
def test_a_rival_before_one_that_cannot_be_read_is_found(process, backend, file, what):
    hidden = layout.manifest_key(CheckpointId(1, 9, "00000000"))

    def gone_when_it_is_read(verb, key, call):
        if what == "gone" and (verb, key) == ("read", hidden):
            backend.objects.pop(key, None)
        return call()

    store = process("m", on=HookedBackend(backend, gone_when_it_is_read))
    saved = store.save(file, step=1)
    committed_by(backend, "z", saved, step=5)
    backend.create(hidden, b"garbage")

    with pytest.raises(SupersededError):
        store.save(file, step=6)


def test_the_last_session_may_be_taken_and_no_later_one(process, backend, file, tmp_path):
    saved = process().save(file, step=1)
    committed_by(backend, "z", saved, session=MAX_SESSION - 1)

    assert process().save(file, step=1).session == MAX_SESSION
    with pytest.raises(FormatError, match="last number"):
        process(workspace=tmp_path / "another").save(file, step=1)


def test_a_rival_that_commits_while_files_are_sent_is_seen_before_the_commit(
    process, backend, file, tmp_path
):
    """The look before it has seen nobody; this one sends all again, in the next session."""
    rival = []

    def commit_too(verb, key, call):
        if verb == "upload" and not rival:
            rival.append(committed_by(backend, "a", first, step=9))
        return call()

    hooked = HookedBackend(backend, lambda verb, key, call: call())
    store = process("m", on=hooked)
    first = store.save(file, step=1)
    hooked._around = commit_too

    saved = store.save(file, step=6)

    assert (first.session, saved.session) == (1, 2)
    assert [each.id for each in process()] == [first.id, *rival, saved.id]


def test_laps_that_are_numbered_at_once_have_sessions_of_their_own(backend):
    """Two threads save by one writer, and both look for the newest session."""
    writer, ids = Writer("a"), []
    turns = [writer.turn(step) for step in (5, 3)]

    def look(verb, key, call):
        if len(threads) == 1:
            threads.append(threading.Thread(target=claim, args=(turns[1],)))
            threads[1].start()
            threads[1].join(0.2)
        return call()

    def claim(turn):
        ids.append(Fence(Catalog(HookedBackend(backend, look)), writer).claim(turn))

    threads = [threading.current_thread()]
    claim(turns[0])
    threads[1].join()

    assert sorted(id.session for id in ids) == [1, 2]
    assert min(ids).step == 5


def test_the_newest_that_goes_while_it_is_read_still_gives_the_session(process, backend, file):
    process().save(file, step=1)

    def gone_when_it_is_read(verb, key, call):
        if verb == "read":
            backend.objects.pop(key, None)
        return call()

    catalog = Catalog(HookedBackend(backend, gone_when_it_is_read))
    writer = Writer("a")

    assert Fence(catalog, writer).claim(writer.turn(2)).session == 2


def test_who_has_moved_may_claim_at_once(process, backend, file):
    store = process("m")
    saved = store.save(file, step=1)
    committed_by(backend, "a", saved, step=5)
    fence = Fence(Catalog(backend), store._writer)

    claimed = fence.claim(store._writer.turn(6))

    assert (claimed.session, claimed.step) == (2, 6)


def test_what_was_claimed_for_a_turn_is_used_for_this_turn_alone(backend):
    writer = Writer("a")
    fence = Fence(Catalog(backend), writer)
    turns = [writer.turn(step) for step in (1, 1, 2, 0)]
    first = fence.claim(turns[0])
    later = replace(first, step=2, token=turns[2].token)

    assert fence.claimed(first, turns[0]) == first
    assert fence.claimed(first, turns[1]) is None, "it has another token"
    assert fence.claimed(first, replace(turns[0], lap=1)) is None, "its lap has another session"
    assert fence.claimed(later, turns[2]) is None, "nobody has claimed as much yet"
    assert fence.claimed(replace(first, session=2), turns[0]) is None
    fence.claim(turns[2])
    assert fence.claimed(later, turns[2]) == later
    writer.superseded = SupersededError("somebody else is at it")
    assert fence.claimed(first, turns[0]) is None


def test_the_id_of_a_dead_writer_s_draft_needs_no_claim(process, backend, file):
    sealed = replace(process("dead").save(file, step=1), id=CheckpointId(3, 7, "0a0b0c0d"))
    fence = Fence.of_dead_writer(Catalog(backend), sealed)

    assert fence.claimed(sealed.id, fence.turn(sealed)) == sealed.id


def test_a_dead_writer_yields_to_anybody(process, backend, file):
    saved = process("m").save(file, step=1)
    committed_by(backend, "a", saved, step=5)
    fence = Fence.of_dead_writer(Catalog(backend), saved)

    with pytest.raises(SupersededError):
        fence.check(1)
