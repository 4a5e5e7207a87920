"""What is saved is there, in the order of training, with all that was noted beside it."""

import copy
import math
import pickle
import sys
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from holdfast import (
    CheckpointError,
    CheckpointId,
    CheckpointStore,
    CheckpointWarning,
    Files,
    FormatError,
    InvalidInputError,
    KeepLast,
    NotFoundError,
    StorageError,
    layout,
    manifest,
)
from holdfast.testing import MemoryBackend
from holdfast.testing.faults import Fault, FaultBackend


def verbs(backend):
    return [call.verb for call in backend.calls]


# ------------------------------------------------------------- order


def test_a_run_rolled_back_is_later_than_what_it_left(store, file):
    store.save(file, step=10_000)

    rolled_back = store.save(file, step=500)

    assert store.latest() == rolled_back
    assert rolled_back.session == 2


def test_of_equal_steps_the_later_save_is_later(store, file):
    saved = [store.save(file, step=7) for _ in range(20)]

    assert store.checkpoints() == saved
    assert {checkpoint.session for checkpoint in saved} == {1}


def test_a_run_started_afresh_in_the_same_place_is_later(process, file):
    process().save(file, step=10_000)

    fresh = process().save(file, step=1)

    assert process().latest() == fresh
    assert fresh.session == 2


def test_growing_steps_stay_in_one_session(store, file):
    saved = [store.save(file, step=step) for step in (0, 3, 3, 40)]

    assert [checkpoint.session for checkpoint in saved] == [1, 1, 1, 1]
    assert store.checkpoints() == saved


def test_each_rollback_begins_the_next_session(store, file):
    saved = [store.save(file, step=step) for step in (5, 4, 9, 8)]

    assert [checkpoint.session for checkpoint in saved] == [1, 2, 2, 3]
    assert store.checkpoints() == saved


def test_two_handles_in_one_process_are_one_writer(backend, file, tmp_path):
    best = CheckpointStore(backend, workspace=tmp_path / "best")
    last = CheckpointStore(backend, workspace=tmp_path / "last")

    saved = [store.save(file, step=step) for step in (1, 1, 2, 3) for store in (best, last)]

    assert last.checkpoints() == best.checkpoints() == saved
    assert {checkpoint.session for checkpoint in saved} == {1}
    assert len({checkpoint.writer for checkpoint in saved}) == 1


def test_saves_are_in_the_order_of_their_beginnings_however_they_end(store, file):
    drafts = [store.draft(step=5) for _ in range(3)]
    for draft in drafts:
        (draft.directory / "model").write_bytes(b"weights")

    published = [store.publish(draft) for draft in reversed(drafts)]

    assert store.checkpoints() == published[::-1]


def test_a_save_that_lost_its_id_stays_before_the_later_one_at_its_step(process, backend, file):
    store = process()
    first, second = store.draft(step=5), store.draft(step=5)
    for draft in (first, second):
        (draft.directory / "model").write_bytes(b"weights")
    store.seal(first)
    _sweep_away(backend, first.sealed.id, times=20)

    with pytest.raises(StorageError, match="taken away"):
        store.publish(first)
    late = store.publish(first)
    early = store.publish(second)

    assert store.checkpoints() == [late, early]


def _sweep_away(backend, id, times):
    """A sweep that was faster, several times over."""
    for number in range(times):
        taken = CheckpointId(id.session, id.step, f"{int(id.token, 16) + number:08x}")
        backend.create(layout.manifest_key(taken), manifest.write_tombstone(taken, "sweeper"))


def test_sessions_beyond_four_digits_keep_the_order(process, backend, file, tmp_path):
    for session in (998, 999, 1000, 1001, 9999, 10_000, 10_001, 99_999, 100_000):
        id = layout.parse_manifest_key(f"manifests/{session:04d}-000000000001-00000000.json")
        if session not in (1000, 10_000, 100_000):
            backend.create(layout.manifest_key(id), manifest.write_tombstone(id, "x"))
            continue
        saved = process(workspace=tmp_path / str(session)).save(file, step=1)
        assert saved.session == session
        assert process().latest() == saved


def test_a_session_number_that_leaves_no_next_one_is_refused(store, backend, file):
    last = layout.parse_manifest_key("manifests/999999999-000000000001-00000000.json")
    backend.create(layout.manifest_key(last), manifest.write_tombstone(last, "somebody"))

    with pytest.raises(FormatError, match="last number that a session can have"):
        store.save(file, step=1)

    assert list(backend.objects) == [layout.manifest_key(last)]


def test_tombstones_count_for_numbers_only(process, backend, file):
    swept = layout.parse_manifest_key("manifests/0041-000000000009-00000000.json")
    backend.create(layout.manifest_key(swept), manifest.write_tombstone(swept, "sweeper"))

    assert process().latest() is None
    assert process().checkpoints() == []
    with pytest.raises(NotFoundError):
        process().find(str(swept))
    saved = process().save(file, step=1)

    assert saved.session == 42
    assert process().checkpoints() == [saved]


# ------------------------------------------------------------- look


def test_an_empty_store_has_no_latest(store):
    assert store.latest() is None
    assert len(store) == 0
    assert list(store) == []
    assert bool(store)


def test_latest_costs_one_scan_and_one_read(backend, process, file):
    saved = process().save(file, step=10_001)
    for step in range(10_000):
        id = type(saved.id)(1, step, "00000000")
        backend.objects[layout.manifest_key(id)] = (b"never read", datetime.now(UTC))
    counted = FaultBackend(backend)

    assert process(on=counted).latest() == saved

    assert verbs(counted) == ["scan", "read"]


def test_each_manifest_is_read_once_in_a_process(backend, process, file):
    for step in range(5):
        process().save(file, step=step)
    counted = FaultBackend(backend)
    reader = process(on=counted)

    assert reader.checkpoints() == reader.checkpoints()

    assert verbs(counted).count("read") == 5


def test_a_step_an_id_a_pin_and_latest_find_a_checkpoint(store, file):
    first, old, new = (store.save(file, step=step) for step in (1, 2, 2))
    store.pin(first, "paper")

    assert store[2] == store.find("2") == store.find("latest") == new
    assert store.find(str(old.id)) == old
    assert store.find("paper") == first


@pytest.mark.parametrize("name", ["7", "nobody", "", "0001-000000000007-00000000"])
def test_what_is_not_there_is_not_found(store, file, name):
    store.save(file, step=1)

    with pytest.raises(NotFoundError):
        store.find(name)


def test_a_pin_on_several_checkpoints_names_none(store, file):
    for step in (1, 2):
        store.pin(store.save(file, step=step), "paper")

    with pytest.raises(InvalidInputError, match="on 2 checkpoints"):
        store.find("paper")


def test_a_store_counts_and_iterates_both_ways(store, file):
    saved = [store.save(file, step=step) for step in (1, 50, 20)]

    assert len(store) == 3
    assert list(store) == saved
    assert list(reversed(store)) == saved[::-1]
    assert saved[1] in store


def test_the_best_is_computed_from_what_is_stored(process, file):
    for step, loss in ((1, 0.5), (2, 0.2), (3, 0.2), (4, 0.4)):
        process().save(file, step=step, metrics={"val_loss": loss})

    assert process().best("val_loss").step == 2
    assert process().best("val_loss", mode="max").step == 1
    assert process().best("val_accuracy") is None


def test_a_failed_listing_is_no_empty_store(store, backend, process, file):
    store.save(file, step=1)
    for when in ("before", "after"):
        reader = process(on=FaultBackend(backend, [Fault(at=1, when=when, verb="scan")]))

        with pytest.raises(StorageError):
            reader.latest()


def test_a_failed_read_of_the_newest_is_no_older_one(store, backend, process, file):
    for step in (1, 2):
        store.save(file, step=step)
    reader = process(on=FaultBackend(backend, [Fault(at=1, verb="read")]))

    with pytest.raises(StorageError):
        reader.latest()


def test_what_this_process_committed_is_seen_through_a_listing_that_lags(backend, process, file):
    late = LateBackend(backend)
    store = process(on=late)
    late.hide = True

    saved = store.save(file, step=1)

    assert store.latest() == saved
    assert store.checkpoints() == [saved]


def test_what_was_seen_once_is_not_taken_for_nothing_when_a_listing_lags(backend, process, file):
    saved = process().save(file, step=1)
    late = LateBackend(backend)
    reader = process(on=late)
    assert reader.latest() == saved

    late.hide = True

    assert reader.latest() == saved


class LateBackend(FaultBackend):
    """A place whose listings of checkpoints can be made to lag."""

    hide = False

    def scan(self, prefix, after=""):
        late = self.hide and prefix == layout.MANIFESTS
        return iter([]) if late else super().scan(prefix, after)


def test_a_store_that_was_removed_under_a_reader_is_empty_to_it(backend, process, file):
    process().save(file, step=1)
    reader = process()
    assert reader.latest() is not None

    backend.objects.clear()

    assert reader.latest() is None


def test_when_the_newest_goes_during_a_look_a_newer_one_is_found(backend, process, file):
    writer = process()
    writer.pin(writer.save(file, step=1), "paper")
    writer.save(file, step=2)

    def meanwhile():
        writer.save(file, step=3)
        writer.prune(KeepLast(1))

    reader = process(on=ChangingBackend(backend, [meanwhile]))

    assert reader.latest().step == 3


class ChangingBackend(FaultBackend):
    """A place where something happens after each of the first listings of manifests."""

    def __init__(self, inner, changes):
        super().__init__(inner)
        self.changes = list(changes)

    def scan(self, prefix, after=""):
        found = list(super().scan(prefix, after))
        if prefix == layout.MANIFESTS and self.changes:
            self.changes.pop(0)()
        return iter(found)


def test_a_listing_that_shows_what_is_gone_for_good_is_an_error(backend, process, file):
    saved = process().save(file, step=1)

    class Stale(MemoryBackend):
        def read(self, key):
            raise NotFoundError(key)

    stale = Stale()
    stale.objects = backend.objects
    with pytest.raises(StorageError, match="changes faster than it can be read"):
        process(on=stale).latest()
    assert layout.manifest_key(saved.id) in backend.objects


# ------------------------------------------------------------- what is noted


def test_metrics_and_metadata_come_back_as_they_went_in(process, file):
    metrics = {"loss": 0.1, "tiny": 5e-324, "huge": 1.7976931348623157e308, "whole": 3}
    metadata = {"text": "ü\n\u2028", "number": 2**53 - 1, "real": -0.0, "yes": True, "none": None}

    saved = process().save(file, step=1, metrics=metrics, metadata=metadata)

    found = process().latest()
    assert dict(found.metrics) == dict(saved.metrics) == metrics
    assert dict(found.metadata) == dict(saved.metadata) == metadata
    assert [type(value) for value in found.metadata.values()] == [str, int, float, bool, type(None)]
    assert math.copysign(1, found.metadata["real"]) == -1


def test_numbers_of_numpy_are_numbers(process, file):
    process().save(
        file,
        step=np.int64(3),
        metrics={"a": np.float32(0.5), "b": np.array(2.0), "c": np.int8(1)},
    )

    assert dict(process()[3].metrics) == {"a": 0.5, "b": 2.0, "c": 1.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_metric_that_is_not_finite_is_left_out_with_a_warning(process, file, value):
    with pytest.warns(CheckpointWarning, match="'loss'") as warned:
        process().save(file, step=1, metrics={"loss": value, "accuracy": 0.5})

    assert len(warned) == 1
    assert dict(process().latest().metrics) == {"accuracy": 0.5}


def test_metrics_may_be_added_until_the_files_are_written(store):
    with store.stage(step=1, metrics={"loss": 0.5}) as draft:
        (draft.directory / "model").write_bytes(b"weights")
        draft.metrics["accuracy"] = 0.9
        draft.metadata["note"] = "late"

    assert store.latest() == draft.checkpoint
    assert dict(store.latest().metrics) == {"loss": 0.5, "accuracy": 0.9}
    assert dict(store.latest().metadata) == {"note": "late"}


def test_what_the_caller_changes_afterwards_does_not_show(process, file):
    metrics, metadata = {"loss": 0.5}, {"note": "first"}
    store = process()
    draft = store.draft(step=1, metrics=metrics, metadata=metadata)
    (draft.directory / "model").write_bytes(b"weights")
    metrics["loss"], metadata["note"] = 0.9, "second"

    store.publish(draft)

    assert dict(process().latest().metrics) == {"loss": 0.5}
    assert dict(process().latest().metadata) == {"note": "first"}


def test_a_checkpoint_tells_which_one_its_run_was_resumed_from(process, file, tmp_path):
    first = process().save(file, step=1)
    resumed = process()
    resumed.restore(Files(tmp_path / "model.bin"))

    second = resumed.save(file, step=2)

    assert first.parent is None
    assert process().find(str(second.id)).parent == first.id


def test_the_files_lie_in_the_store_as_they_were_written(store, backend, tmp_path):
    model = tmp_path / "model"
    (model / "training").mkdir(parents=True)
    (model / "weights.h5").write_bytes(b"1")
    (model / "training" / "state.json").write_bytes(b"2")
    (model / "empty").mkdir()

    saved = store.save(model, step=1)

    files = {key: data for key, (data, _) in backend.objects.items() if key.startswith("files/")}
    assert files == {
        f"files/{saved.id}/weights.h5": b"1",
        f"files/{saved.id}/training/state.json": b"2",
    }
    assert [file.path for file in saved.files] == ["training/state.json", "weights.h5"]
    assert saved.size == 2


def test_an_exception_inside_the_block_publishes_nothing(store, backend, workspace):
    def interrupted():
        with store.stage(step=1) as draft:
            (draft.directory / "model").write_bytes(b"weights")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()

    assert not backend.objects
    assert not list(workspace.iterdir())
    assert store.recover() == []


def test_publishing_what_is_published_gives_the_same_checkpoint(store, backend):
    draft = store.draft(step=1)
    (draft.directory / "model").write_bytes(b"weights")
    saved = store.publish(draft)

    assert store.publish(draft) == saved

    assert store.checkpoints() == [saved]


def test_one_may_look_in_several_threads_while_another_saves(process, file):
    store = process(retention=KeepLast(20))
    over, wrong = threading.Event(), []

    def look():
        while not over.is_set():
            try:
                found = [store.latest(), *store.checkpoints()]
                assert None not in found
            except Exception as error:
                wrong.append(error)
                over.set()

    store.save(file, step=0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=look) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for step in range(1, 80):
            store.save(file, step=step)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)

    assert not wrong


def test_a_checkpoint_can_be_pickled_and_copied(process, file):
    process().save(file, step=1, metrics={"loss": 0.5}, metadata={"note": "x"})
    found = process().latest()

    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), copy.copy(found)):
        assert again == found
        assert (again.metrics, again.metadata) == ({"loss": 0.5}, {"note": "x"})
        assert again.created_at == found.created_at


def test_only_errors_of_ours_come_out_of_a_store_whose_place_fails(store, backend, process, file):
    saved = store.save(file, step=1)
    broken = FaultBackend(backend, [Fault(at=1, lasting=True)])
    failing = process(on=broken)
    calls = (
        lambda: failing.save(file, step=2),
        failing.latest,
        failing.checkpoints,
        lambda: failing.find("paper"),
        lambda: failing.restore(Files(file)),
        lambda: failing.verify(saved),
        lambda: failing.pin(saved, "paper"),
        lambda: failing.unpin("paper"),
        lambda: failing.prune(KeepLast(1)),
        failing.sweep,
    )

    for call in calls:
        with pytest.raises(StorageError) as caught:
            call()
        assert isinstance(caught.value, CheckpointError)
