"""Whether a checkpoint was committed is never left open, and never answered twice."""

import pytest

from holdfast import CheckpointStore, CheckpointWarning, KeepLast, Rule, StorageError, disk, layout
from holdfast.backends.local import LocalBackend
from holdfast.errors import AccessDenied, AlreadyExists
from holdfast.testing.faults import Fault, FaultBackend
from holdfast.writer import Writer
from tests.store import checks
from tests.store.checks import committed
from tests.store.hooked import HookedBackend


def test_a_lost_reply_makes_no_duplicate(tmp_path):
    checks.a_lost_reply_makes_no_duplicate(tmp_path)


def test_an_answer_exists_about_our_own_record_is_success(tmp_path):
    checks.an_answer_exists_about_our_own_record_is_success(tmp_path)


def test_a_tombstone_is_not_taken_for_success(tmp_path):
    checks.a_tombstone_is_not_taken_for_success(tmp_path)


def test_what_a_sweep_took_is_sent_once_more_and_under_a_new_id(process, backend, file, tmp_path):
    swept = []

    def sweep_before_the_commit(verb, key, call):
        if verb == "create" and not swept:
            swept.extend(process(workspace=tmp_path / "s").sweep(older_than=checks.NOW))
        return call()

    counted = FaultBackend(HookedBackend(backend, sweep_before_the_commit))
    saved = process(on=counted).save(file, step=1)

    uploads = [call.key for call in counted.calls if call.verb == "upload"]
    assert swept == [uploads[0]]
    assert uploads[1:] == [f"files/{saved.id}/{file.name}"]


def test_a_commit_that_nobody_could_read_back_says_so_and_is_settled(process, backend, file):
    def unreachable_from_the_commit_on(verb, key, call):
        if verb == "create":
            call()
            calls.append(verb)
        if calls:
            raise StorageError("the line is cut.")
        return call()

    calls = []
    store = process(on=HookedBackend(backend, unreachable_from_the_commit_on))
    with pytest.raises(StorageError, match=r"may exist.*recover\(\)"):
        store.save(file, step=1)
    calls.clear()
    assert len(committed(backend)) == 1

    recovered = process().recover()

    assert [checkpoint.id for checkpoint in recovered] == list(committed(backend))
    assert process().recover() == []


def test_a_commit_that_nobody_could_read_back_and_that_was_none_is_made_up_for(
    process, backend, file
):
    def unreachable_from_the_commit_on(verb, key, call):
        if verb == "create" or calls:
            calls.append(verb)
            raise StorageError("the line is cut.")
        return call()

    calls = []
    store = process(on=HookedBackend(backend, unreachable_from_the_commit_on))
    with pytest.raises(StorageError, match=r"may exist.*recover\(\)"):
        store.save(file, step=1)
    assert not committed(backend)

    (recovered,) = process().recover()

    assert list(committed(backend)) == [recovered.id]


def test_the_cause_of_a_refused_commit_comes_out_as_it_is(process, backend, file):
    def refuse(verb, key, call):
        if verb == "create":
            raise AccessDenied("no right to create")
        return call()

    with pytest.raises(AccessDenied, match="no right to create"):
        process(on=HookedBackend(backend, refuse)).save(file, step=1)

    assert not committed(backend)
    assert len(process().recover()) == 1


def test_a_file_of_another_size_than_sent_is_not_committed(process, backend, file):
    def cut(verb, key, call):
        call()
        if verb == "upload":
            data, time = backend.objects[key]
            backend.objects[key] = (data[:-1], time)

    def around(verb, key, call):
        return cut(verb, key, call) if verb == "upload" else call()

    with pytest.raises(StorageError, match="not committed"):
        process(on=HookedBackend(backend, around)).save(file, step=1)

    assert not committed(backend)


def test_other_content_at_a_files_key_costs_the_id_and_not_the_content(process, backend, file):
    taken = []

    def take_first(verb, key, call):
        if verb == "upload" and not taken:
            backend.create(key, b"somebody else's")
            taken.append(key)
        return call()

    saved = process(on=HookedBackend(backend, take_first)).save(file, step=1)

    assert backend.objects[taken[0]][0] == b"somebody else's"
    assert str(saved.id) not in taken[0]
    assert process().verify(deep=True).ok


def test_an_id_that_is_taken_again_and_again_ends_in_an_error_with_a_cure(process, backend, file):
    def refuse(verb, key, call):
        if verb == "upload":
            raise AlreadyExists("taken")
        return call()

    with pytest.raises(StorageError, match=r"taken away 20 times.*older_than"):
        process(on=HookedBackend(backend, refuse)).save(file, step=1)

    assert [checkpoint.step for checkpoint in process().recover()] == [1]


def test_a_prune_that_fails_after_the_commit_is_a_warning(process, backend, file):
    process().save(file, step=1)
    deletes = FaultBackend(backend, [Fault(at=1, verb="delete", lasting=True)])
    store = process(on=deletes, retention=KeepLast(1))

    with pytest.warns(CheckpointWarning, match="step 2 is committed, but pruning"):
        saved = store.save(file, step=2)

    assert process().latest() == saved


def test_a_rule_with_a_mistake_is_a_warning_after_the_commit(process, file):
    class Mistake(Rule):
        def keep(self, history):
            return history[len(history)]

    store = process(retention=Mistake())

    with pytest.warns(CheckpointWarning, match="step 1 is committed, but pruning"):
        saved = store.save(file, step=1)

    assert process().latest() == saved
    with pytest.raises(IndexError):
        store.prune()


def test_a_draft_that_cannot_be_removed_is_a_warning_after_the_commit(
    process, file, workspace, monkeypatch
):
    def fail(path, **_):
        raise OSError("busy")

    store = process()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove", fail)
        with pytest.warns(CheckpointWarning, match="step 1 is committed, but its draft"):
            saved = store.save(file, step=1)

    assert process().latest() == saved
    assert process().recover() == []
    assert not list(workspace.iterdir())


def test_files_that_lie_there_already_are_not_sent_twice_as_others(process, backend, file):
    failing = FaultBackend(backend, [Fault(at=1, verb="create", lasting=True)])
    with pytest.raises(StorageError):
        process(on=failing).save(file, step=1)
    before = {key for key in backend.objects if key.startswith("files/")}

    process().recover()

    assert {key for key in backend.objects if key.startswith("files/")} == before


def test_a_commit_that_is_read_back_is_made_durable_first(tmp_path, file):
    class LostReply(LocalBackend):
        synced = ()

        def create(self, key, data):
            super().create(key, data)
            raise StorageError("the reply is lost.")

        def sync_name(self, key):
            super().sync_name(key)
            self.synced += (key,)

    place = LostReply(tmp_path / "place")
    store = CheckpointStore(place, workspace=tmp_path / "workspace", writer=Writer())

    saved = store.save(file, step=1)

    assert place.synced == (layout.manifest_key(saved.id),)
    assert store.verify(deep=True).ok
