"""Saving behind the training loop: in order, bounded, and never silent about a failure."""

import gc
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import (
    InvalidInputError,
    KeepLast,
    PendingSaveError,
    Saver,
    StorageError,
    SupersededError,
)
from holdfast.testing import MemoryBackend
from tests.store import checks
from tests.store.checks import steps
from tests.store.dying import in_another_process
from tests.store.hooked import HookedBackend

#: Seconds until a test that hangs fails.
PATIENCE = 30


class Place:
    """A place that can be made to wait, or to fail."""

    def __init__(self, backend):
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.error = None
        self.failing = lambda verb, key: True
        self.backend = HookedBackend(backend, self._around)

    def _around(self, verb, key, call):
        self.reached.set()
        assert self.open.wait(PATIENCE)
        if self.error and self.failing(verb, key):
            raise self.error
        return call()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    """A save gives no time to the one before it, unless the test says so."""
    monkeypatch.setattr("holdfast.saver.PATIENCE_SECONDS", 0)


@pytest.fixture(autouse=True)
def no_preflight(monkeypatch):
    """What is asked of a place before the first save is tried in its own tests."""
    monkeypatch.setattr("holdfast.preflight.once", lambda *_, **__: None)


@pytest.fixture
def place(backend):
    place = Place(backend)
    yield place
    place.open.set()


@pytest.fixture
def store(process, place):
    return process(on=place.backend)


class Counter:
    """A state of one number, which tells in which threads it was asked."""

    def __init__(self, number=0):
        self.number = number
        self.threads = []

    def snapshot(self):
        self.threads.append(threading.current_thread())
        return Frozen(self.number, self.threads)

    def restore(self, directory):
        self.number = int((directory / "number").read_text())


class Frozen:
    def __init__(self, number, threads):
        self.number = number
        self.threads = threads

    def write_to(self, directory):
        self.threads.append(threading.current_thread())
        (directory / "number").write_text(str(self.number))


def numbers(process):
    """What each stored state holds, in the order of training."""
    found = []
    for checkpoint in process().checkpoints():
        state = Counter()
        process().restore(state, checkpoint)
        found.append(state.number)
    return found


# ------------------------------------------------------------- in order, behind the loop


def test_saves_are_published_in_their_order(store, process):
    state = Counter()
    with Saver(store, max_pending=100) as saver:
        futures = []
        for state.number in range(10):
            futures.append(saver.save(state, step=state.number))

    saved = [future.result(0) for future in futures]
    assert process().checkpoints() == saved
    assert numbers(process) == list(range(10))


def test_a_save_waits_for_nothing_of_the_place(store, place):
    place.open.clear()
    with Saver(store) as saver:
        first = saver.save(Counter(1), step=1)
        assert place.reached.wait(PATIENCE)  # the worker looks at the place, and gets no answer

        returned = threading.Event()
        training = threading.Thread(
            target=lambda: [saver.save(Counter(2), step=2), returned.set()], daemon=True
        )
        training.start()
        assert returned.wait(PATIENCE / 6), "training waited for the place"

        assert not first.done()
        place.open.set()


def test_the_snapshot_is_taken_by_the_caller_and_written_by_the_worker(store, process):
    state = Counter(1)
    with Saver(store) as saver:
        saver.save(state, step=1)
        state.number = 2

    assert [thread is threading.main_thread() for thread in state.threads] == [True, False]
    assert numbers(process) == [1]


def test_a_path_may_be_overwritten_at_once(store, process, place, file, tmp_path):
    before = file.read_bytes()
    place.open.clear()
    with Saver(store) as saver:
        saver.save(file, step=1)
        file.write_bytes(b"the next epoch")
        place.open.set()

    copy = process().download(to=tmp_path / "copy")
    assert (copy / file.name).read_bytes() == before


def test_metrics_and_metadata_are_those_of_the_moment(store, process):
    metrics = {"loss": 0.5}
    with Saver(store) as saver:
        saver.save(Counter(), step=1, metrics=metrics, metadata={"note": "x"})
        metrics["loss"] = 9.0

    assert dict(process().latest().metrics) == {"loss": 0.5}
    assert dict(process().latest().metadata) == {"note": "x"}


def test_a_rule_prunes_behind_the_loop(process, place, backend):
    with Saver(process(on=place.backend, retention=KeepLast(2)), max_pending=9) as saver:
        for step in range(6):
            saver.save(Counter(), step=step)

    assert steps(backend) == [4, 5]


def test_a_rollback_is_later_here_too(store, process):
    with Saver(store, max_pending=9) as saver:
        for step in (10, 20, 5):
            saver.save(Counter(step), step=step)

    assert numbers(process) == [10, 20, 5]


# ------------------------------------------------------------- the bound


def test_the_oldest_that_waits_gives_way_to_a_newer_one(store, place, backend):
    place.open.clear()
    saver = Saver(store, max_pending=1)
    sending = saver.save(Counter(), step=1)
    assert place.reached.wait(PATIENCE)
    second = saver.save(Counter(), step=2)

    with checks.told("step 2 gave way"):
        third = saver.save(Counter(), step=3)
    with pytest.raises(PendingSaveError, match="gave way"):
        second.result(0)
    place.open.set()
    saver.close()

    assert [sending.result(0).step, third.result(0).step] == [1, 3]
    assert steps(backend) == [1, 3]


def test_a_save_waits_a_moment_for_room(store, place, backend, monkeypatch):
    monkeypatch.setattr("holdfast.saver.PATIENCE_SECONDS", PATIENCE)
    place.open.clear()
    with Saver(store, max_pending=1) as saver:
        futures = [saver.save(Counter(), step=1)]
        assert place.reached.wait(PATIENCE)
        futures.append(saver.save(Counter(), step=2))
        third = threading.Thread(target=lambda: futures.append(saver.save(Counter(), step=3)))
        third.start()
        place.open.set()
        third.join()

    assert [future.result(0).step for future in futures] == [1, 2, 3]
    assert steps(backend) == [1, 2, 3]


def test_nothing_of_what_gave_way_is_left(store, place, workspace):
    place.open.clear()
    saver = Saver(store, max_pending=1)
    saver.save(Counter(), step=0)
    assert place.reached.wait(PATIENCE)
    with checks.quiet():
        for step in range(1, 6):
            saver.save(Counter(), step=step)
    assert len(list(workspace.iterdir())) == 2

    place.open.set()
    saver.close()

    assert not list(workspace.iterdir())


# ------------------------------------------------------------- a place that fails


def test_training_goes_on_and_all_is_sent_afterwards_in_order(store, place, process, backend):
    place.error = StorageError("no network.")
    saver = Saver(store, max_pending=5)
    with checks.told(r"no network.*Training goes on"):
        for step in (1, 2, 3):
            saver.save(Counter(step), step=step)
            saver._drain()
    assert not backend.objects

    place.error = None
    saver.save(Counter(4), step=4)
    saver.close()

    assert numbers(process) == [1, 2, 3, 4]
    assert {one.session for one in process()} == {1}


def test_drafts_stay_in_bounds_while_a_place_fails(store, place, process, workspace):
    place.error = StorageError("no network.")
    saver = Saver(store, max_pending=2)
    futures = []
    with checks.quiet():
        for step in range(8):
            futures.append(saver.save(Counter(step), step=step))
            saver._drain()
            assert len(list(workspace.iterdir())) <= 3
        with pytest.raises(PendingSaveError, match="no network"):
            saver.close()

    assert all(future.exception(0) for future in futures)
    assert [one.step for one in process().recover()] == [5, 6, 7]


def test_what_a_hanging_place_did_not_take_is_kept_when_the_saver_ends(
    store, place, backend, process
):
    saver = Saver(store, max_pending=2)
    saver.save(Counter(1), step=1).result(PATIENCE)
    place.reached.clear()
    place.open.clear()
    saver.save(Counter(2), step=2)
    assert place.reached.wait(PATIENCE)
    saver.save(Counter(3), step=3)
    saver.save(Counter(4), step=4)

    with checks.told(r"does not answer.*step 2, 3, 4 was not sent.*next start publishes"):
        saver._end(0)

    assert store.workspace.sealed() == 3
    place.open.set()
    saver._drain()
    assert numbers(process) == [1, 2, 3, 4]


def test_a_failure_is_told_once_by_its_future_and_once_by_a_warning(store, place):
    place.error = StorageError("no network.")
    saver = Saver(store)

    with checks.told("saving step 1 failed") as warned:
        future = saver.save(Counter(), step=1)
        saver._drain()

    with pytest.raises(StorageError, match="no network"):
        future.result(0)
    assert len(warned) == 1
    place.error = None
    saver.close()


def test_on_request_the_next_save_raises(store, place, backend):
    place.error = StorageError("no network.")
    saver = Saver(store, on_error="raise")
    with checks.quiet():
        saver.save(Counter(), step=1)
        saver._drain()
    place.error = None

    with pytest.raises(PendingSaveError, match="no network") as caught:
        saver.save(Counter(), step=2)

    assert isinstance(caught.value.__cause__, StorageError)
    saver.save(Counter(), step=3)
    saver.close()
    assert steps(backend) == [1, 3]


def test_the_last_failure_is_raised_by_close_and_by_wait(store, place):
    place.error = StorageError("no network.")
    for end in (Saver.wait, Saver.close):
        saver = Saver(store)
        with checks.quiet():
            saver.save(Counter(), step=1)
            with pytest.raises(PendingSaveError, match="no network"):
                end(saver)
            with checks.quiet():
                place.error = None
                saver.close()
        place.error = StorageError("no network.")


def test_a_wait_may_end_before_what_is_pending_does(store, place, backend):
    place.open.clear()
    saver = Saver(store)
    saver.save(Counter(), step=1)
    assert place.reached.wait(PATIENCE)

    assert saver.wait(timeout=0) is False
    place.open.set()
    assert saver.wait(timeout=PATIENCE) is True

    assert steps(backend) == [1]
    saver.close()


def test_a_wait_that_ends_early_leaves_the_failure_to_be_told_later(store, place):
    place.error = StorageError("no network.")
    saver = Saver(store, max_pending=2)
    with checks.quiet():
        saver.save(Counter(), step=1)
        saver._drain()
        place.open.clear()
        saver.save(Counter(), step=2)

        assert saver.wait(timeout=0) is False
        place.open.set()
        with pytest.raises(PendingSaveError, match="no network"):
            saver.wait()
        place.error = None
        saver.close()


def test_a_failure_that_was_made_up_for_is_none_at_the_end(store, place, backend):
    place.error = StorageError("no network.")
    saver = Saver(store)
    with checks.quiet():
        saver.save(Counter(), step=1)
        saver._drain()
    place.error = None

    saver.close()

    assert steps(backend) == [1]


def test_what_is_borrowed_is_copied_only_where_training_goes_on(store):
    class Borrowed(Frozen):
        detached = 0

        def detach(self):
            self.detached += 1

    class Lending(Counter):
        taken = ()

        def snapshot(self):
            self.taken += (Borrowed(self.number, self.threads),)
            return self.taken[-1]

    state = Lending(1)
    with Saver(store) as saver:
        store.save(state, step=1)
        saver.save(state, step=2)
        assert [each.detached for each in state.taken] == [0, 1]

    assert [each.detached for each in state.taken] == [0, 1]


def test_what_is_kept_is_sent_at_the_end_though_the_last_state_could_not_be_written(
    store, place, backend
):
    class Failing(Counter):
        def snapshot(self):
            return self

        def write_to(self, directory):
            raise ZeroDivisionError

    place.error = StorageError("no network.")
    saver = Saver(store)
    with checks.quiet():
        saver.save(Counter(), step=1)
        saver._drain()
        place.error = None
        saver.save(Failing(), step=2)
        saver.close()

    assert steps(backend) == [1]


def test_a_thread_that_cannot_be_started_makes_nobody_wait_for_it(store, backend, monkeypatch):
    def fail(self):
        raise RuntimeError("can't start new thread")

    saver = Saver(store, max_pending=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            saver.save(Counter(), step=1)
    saver.save(Counter(), step=2)
    saver.close()

    assert steps(backend) == [1, 2]


def test_what_could_not_be_sent_is_left_to_the_next_process(store, place, process):
    place.error = StorageError("no network.")
    with checks.quiet(), pytest.raises(PendingSaveError), Saver(store) as saver:
        saver.save(Counter(7), step=7)

    assert [one.step for one in process().recover()] == [7]
    assert numbers(process) == [7]


def test_an_error_inside_the_block_is_the_one_that_is_raised(store, place):
    place.error = StorageError("no network.")

    def train():
        with Saver(store) as saver:
            saver.save(Counter(), step=1)
            raise ZeroDivisionError

    with checks.told("the save before failed"), pytest.raises(ZeroDivisionError):
        train()


def test_what_was_saved_before_an_error_inside_the_block_is_there(store, backend):
    def train():
        with Saver(store) as saver:
            saver.save(Counter(), step=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()

    assert steps(backend) == [1]


def test_a_workspace_that_fails_is_told_and_training_goes_on(process, backend, tmp_path):
    (tmp_path / "file").write_text("")
    store = process(workspace=tmp_path / "file" / "workspace")
    saver = Saver(store)

    with checks.told("saving step 1 failed: cannot make the workspace"):
        future = saver.save(Counter(), step=1)

    with pytest.raises(StorageError):
        future.result(0)
    with pytest.raises(PendingSaveError):
        saver.close()


# ------------------------------------------------------------- mistakes of others


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt(), OSError(5, "io")]
)
def test_a_state_that_cannot_be_written_is_told_and_nothing_else_is_lost(
    store, backend, workspace, error
):
    class Failing(Counter):
        def snapshot(self):
            return self

        def write_to(self, directory):
            (directory / "half").write_text("half")
            raise error

    saver = Saver(store)
    first = saver.save(Counter(), step=1)
    first.result(PATIENCE)
    with checks.told("saving step 2 failed"):
        second = saver.save(Failing(), step=2)
        assert second.exception(PATIENCE)
        saver._drain()
    third = saver.save(Counter(), step=3)
    saver.close()

    assert third.result(0).step == 3
    assert steps(backend) == [1, 3]
    assert not list(workspace.iterdir())


def test_a_state_that_cannot_be_copied_fails_in_the_training_loop(store, workspace, backend):
    class Failing(Counter):
        def snapshot(self):
            raise ZeroDivisionError

    with Saver(store) as saver:
        with pytest.raises(ZeroDivisionError):
            saver.save(Failing(), step=1)
        saver.save(Counter(), step=2)

    assert steps(backend) == [2]
    assert not list(workspace.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("a mistake of the backend"), SystemExit(1)])
def test_an_error_that_is_none_of_ours_ends_neither_the_worker_nor_the_wait(
    store, place, backend, error
):
    place.error = error
    place.failing = lambda verb, key: verb == "upload"
    saver = Saver(store)

    with checks.told("not one of Holdfast's"):
        future = saver.save(Counter(), step=1)
        with pytest.raises(PendingSaveError) as caught:
            future.result(PATIENCE)
        saver._drain(PATIENCE)
    place.error = None
    saver.save(Counter(), step=2)
    saver.close()

    assert caught.value.__cause__ is error
    assert steps(backend) == [1, 2]


def test_where_warnings_are_errors_the_worker_goes_on(store, place, backend):
    place.error = StorageError("no network.")
    saver = Saver(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        future = saver.save(Counter(), step=1)
        assert future.exception(PATIENCE)
        saver._drain(PATIENCE)

        place.error = None
        saver.save(Counter(), step=2)
        saver.close()

    assert steps(backend) == [1, 2]


def test_a_future_that_its_owner_cancelled_disturbs_nothing(store, place, backend):
    place.open.clear()
    with Saver(store, max_pending=5) as saver:
        saver.save(Counter(), step=1)
        assert saver.save(Counter(), step=2).cancel()
        place.open.set()

    assert steps(backend) == [1, 2]


def test_wrong_calls_raise_at_once_and_harm_nothing(store, backend, workspace):
    with Saver(store) as saver:
        for step, state in ((-1, Counter()), (1, None), (1, "missing")):
            with pytest.raises(InvalidInputError):
                saver.save(state, step=step)
        with pytest.raises(InvalidInputError):
            saver.save(Counter(), step=1, metrics={"loss": "low"})

    assert not backend.objects
    assert not list(workspace.iterdir())


@pytest.mark.parametrize("given", [{"max_pending": 0}, {"max_pending": -1}, {"on_error": "ignore"}])
def test_a_saver_that_makes_no_sense_is_refused(store, given):
    with pytest.raises(InvalidInputError):
        Saver(store, **given)


def test_a_closed_saver_takes_nothing_and_may_be_closed_again(store):
    saver = Saver(store)
    saver.close()
    saver.close()

    with pytest.raises(InvalidInputError, match="closed"):
        saver.save(Counter(), step=1)


# ------------------------------------------------------------- overtaken, forked, at the end


def test_a_superseded_saver_stops_its_process(store, process, backend, file, tmp_path, workspace):
    saver = Saver(store)
    saver.save(Counter(), step=1).result(PATIENCE)
    newer = process(workspace=tmp_path / "elsewhere").save(file, step=1)

    future = saver.save(Counter(), step=2)
    with pytest.raises(SupersededError):
        future.result(PATIENCE)
    saver._drain()
    for _ in range(2):
        with pytest.raises(SupersededError):
            saver.save(Counter(), step=3)
    with pytest.raises(SupersededError):
        saver.close()

    assert process().latest() == newer
    assert len(list(workspace.glob("*/seal.json"))) == 1
    with checks.told("is kept"):
        assert process().recover() == []


def test_the_age_is_that_of_the_newest_that_is_durable(process, place):
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    store = process(on=place.backend, clock=lambda: now[0])
    with Saver(store, clock=lambda: now[0]) as saver:
        assert saver.age is None
        assert saver.newest is None
        saver.save(Counter(), step=1).result(PATIENCE)
        now[0] += timedelta(minutes=7)
        place.error = StorageError("no network.")
        with checks.told(r"that of step 1, 0:07:00 old"):
            saver.save(Counter(), step=2)
            saver._drain()

        assert saver.age == timedelta(minutes=7)
        assert saver.newest.step == 1
        place.error = None


def test_a_forked_child_neither_saves_nor_waits(store, place, backend):
    place.open.clear()
    saver = Saver(store)
    saver.save(Counter(), step=1)
    assert place.reached.wait(PATIENCE)

    def child(inner, acknowledge):
        try:
            saver.save(Counter(), step=2)
        except InvalidInputError as error:
            acknowledge("forked" in str(error) and "refused")
        saver.wait()
        saver.close()
        saver._drain()
        acknowledge("ended")

    end = in_another_process(MemoryBackend(), child)

    assert end.acknowledged == ["refused", "ended"]
    place.open.set()
    saver.close()
    assert steps(backend) == [1]


def test_what_is_pending_at_the_end_of_the_interpreter_is_sent(tmp_path):
    script = (
        "import holdfast, pathlib, sys\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "(root / 'model').write_bytes(b'weights')\n"
        "saver = holdfast.Saver(holdfast.open_store(root / 'store'), max_pending=9)\n"
        "for step in range(5): saver.save(root / 'model', step=step)\n"
    )

    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)

    assert len(list((tmp_path / "store" / "manifests").iterdir())) == 5
    assert not list((tmp_path / "store" / ".workspace").iterdir())


def test_a_saver_that_is_dropped_leaves_no_thread_and_gives_its_drafts_up(process, place):
    store = process(on=place.backend)
    before = threading.active_count()
    place.error = StorageError("no network.")
    saver = Saver(store)
    with checks.told("no network"):
        saver.save(Counter(), step=1)
        saver._drain()

    place.error = None  # it holds the frames of its failure
    del saver
    gc.collect()

    assert threading.active_count() == before
    assert [each.step for each in store.recover()] == [1]


def test_who_resumes_in_the_same_process_waits_for_what_is_under_way(process, place):
    store = process(on=place.backend)
    place.open.clear()
    interrupted = Saver(store)
    interrupted.save(Counter(), step=1)
    assert place.reached.wait(PATIENCE)
    settled = threading.Thread(target=Saver.settle, args=(store.url,))

    settled.start()
    assert settled.is_alive()
    place.open.set()
    settled.join(PATIENCE)

    assert not settled.is_alive()
    assert store.latest().step == 1


def test_an_error_inside_the_block_does_not_wait_for_a_place_that_hangs(
    process, place, monkeypatch
):
    monkeypatch.setattr("holdfast.saver.EXIT_SECONDS", 0.01)
    place.open.clear()

    saver = Saver(process(on=place.backend))

    def train():
        with saver:
            saver.save(Counter(), step=1)
            assert place.reached.wait(PATIENCE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()

    place.open.set()
    saver._drain()


def test_what_is_no_store_and_no_bound_is_refused(store):
    for arguments in ({"store": "run"}, {"store": store, "max_pending": 1.5}):
        with pytest.raises(InvalidInputError):
            Saver(**arguments)


def test_a_callback_that_wants_to_end_the_thread_ends_no_wait(process, place):
    def end(_):
        raise SystemExit

    place.open.clear()
    saver = Saver(process(on=place.backend))
    saver.save(Counter(), step=1).add_done_callback(end)
    place.open.set()

    saver.close()

    assert saver.newest.step == 1
