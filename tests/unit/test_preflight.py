"""Whether a place can take a save is known before the first epoch, and asked with few requests."""

import contextlib
import dataclasses
import errno
import os
import shutil
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from holdfast import (
    AccessDenied,
    CheckpointStore,
    CheckpointWarning,
    DeadlineExceeded,
    FormatError,
    NotFoundError,
    Saver,
    StorageError,
    StorageFull,
    layout,
    open_store,
    preflight,
    record,
)
from holdfast.backends.base import Traits
from holdfast.testing import Fault, FaultBackend, MemoryBackend
from holdfast.writer import Writer


class Place(MemoryBackend):
    """A place in memory that ignores put-if-absent, has little room, or is not what it should."""

    def __init__(self, *, ignores=False, free=None, traits=None, gives=None):
        super().__init__()
        self.traits = traits or Traits()
        self._ignores = ignores
        self._free = free
        self._gives = gives

    def free_bytes(self):
        return self._free

    def create(self, key, data):
        if self._ignores:
            self.objects.pop(key, None)
        super().create(key, data)

    def read(self, key):
        if key == layout.PROBE and self._gives is not None:
            return self._gives(super().read(key))
        return super().read(key)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "model").write_bytes(b"weights " * 100)
    return tmp_path / "model"


@pytest.fixture
def opened(tmp_path):
    def opened(backend):
        return CheckpointStore(backend, workspace=tmp_path / "workspace", writer=Writer())

    return opened


def verbs(backend):
    return [call.verb for call in backend.calls]


# ------------------------------------------------------------------ what it asks


def test_a_place_that_can_take_a_save_is_asked_four_times(opened):
    backend = FaultBackend(MemoryBackend())

    found = opened(backend).preflight()

    assert verbs(backend) == ["scan", "create", "create", "read"]
    assert (found.url, found.remarks) == (backend.url, ())


def test_and_four_times_from_the_second_time_on(opened, file):
    medium = MemoryBackend()
    opened(medium).preflight()
    opened(medium).save(file, step=1)
    backend = FaultBackend(medium)

    opened(backend).preflight()

    assert Counter(verbs(backend)) == {"scan": 1, "read": 2, "create": 1}


def test_it_deletes_nothing_and_leaves_one_object_that_belongs_to_no_checkpoint(opened, file):
    backend = FaultBackend(MemoryBackend())
    store = opened(backend)

    store.preflight()
    store.preflight()
    opened(FaultBackend(backend.inner)).sweep(older_than=timedelta(0))

    assert set(backend.inner.objects) == {layout.PROBE}
    assert "delete" not in verbs(backend)
    assert store.latest() is None
    store.save(file, step=1)
    assert store.verify(deep=True).ok


def test_it_leaves_nothing_in_the_workspace(opened):
    store = opened(MemoryBackend())

    store.preflight()

    assert list(store.workspace.path.iterdir()) == []


def test_any_number_of_processes_may_do_it_at_once(opened):
    medium = MemoryBackend()
    stores = [opened(medium) for _ in range(16)]
    barrier = threading.Barrier(len(stores), timeout=60)

    def look(store):
        barrier.wait()
        return store.preflight().remarks

    with ThreadPoolExecutor(len(stores)) as pool:
        remarks = list(pool.map(look, stores))

    assert remarks == [()] * len(stores)


# ------------------------------------------------------------------ what it raises


@pytest.mark.parametrize("verb", ["scan", "create", "read"])
@pytest.mark.parametrize("error", [AccessDenied, StorageFull, DeadlineExceeded, StorageError])
def test_what_a_save_needs_and_the_place_refuses_is_raised(opened, verb, error):
    plan = [Fault(1, verb=verb, error=error, lasting=True)]
    store = opened(FaultBackend(MemoryBackend(), plan))

    with pytest.raises(StorageError, match=verb) as caught:
        store.preflight()

    assert type(caught.value) is error


def test_a_place_that_only_looks_is_asked_to_write_all_the_same(opened):
    place = Place(traits=Traits(exclusive=False))
    with pytest.warns(CheckpointWarning):
        opened(place).preflight()
    refusing = FaultBackend(place, [Fault(2, verb="create", error=AccessDenied)])
    without_delete = FaultBackend(place, [Fault(1, verb="delete", error=AccessDenied)])

    with pytest.raises(AccessDenied):
        opened(refusing).preflight()
    opened(place).preflight()
    assert set(place.objects) == {layout.PROBE}
    opened(without_delete).preflight()

    assert all(layout.is_left_by_probe(key) for key in set(place.objects) - {layout.PROBE})


def test_a_right_that_was_taken_away_since_is_noticed(opened):
    medium = MemoryBackend()
    opened(medium).preflight()
    store = opened(FaultBackend(medium, [Fault(1, verb="create", error=AccessDenied)]))

    with pytest.raises(AccessDenied):
        store.preflight()


@pytest.mark.parametrize("free", [0, 799])
def test_a_place_without_room_for_another_checkpoint_is_full(opened, file, free):
    place = Place(free=10**9)
    opened(place).save(file, step=1)
    place._free = free

    with pytest.raises(StorageFull, match=f"{free:,} bytes, and the newest checkpoint has 800"):
        opened(place).preflight()


def test_a_place_with_room_for_one_more_is_told(opened, file):
    place = Place(free=10**9)
    opened(place).save(file, step=1)
    place._free = 1599

    with pytest.warns(CheckpointWarning, match="room for 1,599 bytes"):
        found = opened(place).preflight()

    assert found.free_bytes == 1599


def test_a_place_with_room_for_two_more_is_in_order(opened, file):
    place = Place(free=10**9)
    opened(place).save(file, step=1)
    place._free = 1600

    assert opened(place).preflight().remarks == ()


def test_a_workspace_without_room_for_another_checkpoint_is_full(opened, file, monkeypatch):
    store = opened(MemoryBackend())
    store.save(file, step=1)
    usage = shutil.disk_usage(store.workspace.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))

    with pytest.raises(StorageFull, match="the workspace"):
        store.preflight()


def test_a_workspace_that_cannot_be_written_is_told_before_the_place_is_asked(tmp_path):
    backend = FaultBackend(MemoryBackend())
    (tmp_path / "file").write_bytes(b"")
    store = CheckpointStore(backend, workspace=tmp_path / "file" / "workspace")

    with pytest.raises(StorageError):
        store.preflight()

    assert backend.calls == []


def test_a_store_of_a_newer_format_is_refused(opened, file):
    medium = MemoryBackend()
    saved = opened(medium).save(file, step=1)
    newer = dataclasses.replace(saved.id, step=2)
    medium.create(layout.manifest_key(newer), record.encode({"format": 2, "kind": "new"}))

    with pytest.raises(FormatError):
        opened(medium).preflight()


def test_a_newest_that_cannot_be_read_or_is_gone_keeps_nobody_from_saving(opened, file):
    medium = MemoryBackend()
    saved = opened(medium).save(file, step=1)
    medium.objects[layout.manifest_key(saved.id)] = (b"damaged", medium._clock())

    opened(medium).preflight()
    opened(FaultBackend(medium, [Fault(1, verb="read", error=NotFoundError)])).preflight()


@pytest.mark.parametrize("gives", [lambda data: data[:-1], lambda data: b""])
def test_a_place_that_gives_back_other_bytes_is_refused(opened, gives):
    with pytest.raises(StorageError, match="other bytes"):
        opened(Place(gives=gives)).preflight()


def test_a_place_that_loses_what_it_took_is_refused(opened):
    def lose(_):
        raise NotFoundError("gone")

    with pytest.raises(StorageError, match="says that there is none"):
        opened(Place(gives=lose)).preflight()


# ------------------------------------------------------------------ what it tells


def test_a_place_that_ignores_put_if_absent_is_told_each_time_it_is_found(opened):
    place = Place(ignores=True)

    with pytest.warns(CheckpointWarning, match="put-if-absent is ignored. Let one process save"):
        first = opened(place).preflight()
    again = opened(place).preflight()

    assert first.remarks == again.remarks != ()


@pytest.mark.parametrize(
    ("trait", "text"),
    [("exclusive", "one process save"), ("fresh", "lag behind"), ("durable", "cache of this")],
)
def test_what_a_place_cannot_promise_is_told_once_with_what_to_do(opened, trait, text):
    place = Place(traits=Traits(**{trait: False}))

    with pytest.warns(CheckpointWarning, match=text):
        opened(place).preflight()

    opened(place).preflight()  # a warning would be an error here


# ------------------------------------------------------------------ when it is done


def test_the_first_saver_of_a_place_does_it_and_later_ones_need_not(opened):
    backend = FaultBackend(MemoryBackend())

    for _ in range(2):
        with Saver(opened(backend)):
            pass

    assert verbs(backend) == ["scan", "create", "create", "read"]


def test_a_forked_child_does_it_anew(opened):
    backend = FaultBackend(MemoryBackend())
    Saver(opened(backend)).close()
    before = len(backend.calls)

    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            Saver(opened(backend))
        os._exit(len(backend.calls) == before)

    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("on_error", ["warn", "raise"])
@pytest.mark.parametrize(
    "error",
    [
        AccessDenied,
        StorageFull,
        lambda text: StorageError(text, lasting=True),
        lambda text: StorageError(text, errno=errno.ENOENT),
        lambda text: StorageError(text, errno=errno.EROFS),
        FormatError,
    ],
)
def test_what_no_waiting_changes_is_raised_before_the_training(opened, on_error, error):
    backend = FaultBackend(MemoryBackend(), [Fault(1, verb="create", error=error, lasting=True)])
    store = opened(backend)

    for _ in range(2):  # a cell of a notebook that is run again
        with pytest.raises((StorageError, FormatError), match="a fault on purpose"):
            Saver(store, on_error=on_error)


@pytest.mark.parametrize("error", [DeadlineExceeded, StorageError])
def test_a_place_that_cannot_be_reached_just_now_keeps_nobody_from_training(opened, file, error):
    backend = FaultBackend(MemoryBackend(), [Fault(1, verb="create", error=error)])
    store = opened(backend)

    with pytest.warns(CheckpointWarning, match="Training may begin"):
        saver = Saver(store)
    with saver:
        saver.save(file, step=1)

    assert store.latest().step == 1


@pytest.mark.parametrize("error", [DeadlineExceeded, StorageError])
def test_unless_errors_are_to_be_raised(opened, error):
    store = opened(FaultBackend(MemoryBackend(), [Fault(1, verb="create", error=error)]))

    with pytest.raises(error):
        Saver(store, on_error="raise")


def test_opening_a_store_for_reading_writes_nothing(tmp_path):
    open_store(tmp_path / "run").latest()

    assert not (tmp_path / "run").exists()


def test_opening_a_store_with_preflight_proves_it(tmp_path):
    store = open_store(tmp_path / "run", preflight=True)

    assert (tmp_path / "run" / layout.PROBE).read_bytes().startswith(b"Holdfast")
    assert store.latest() is None


def test_a_read_only_directory_is_refused_when_it_is_opened(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "run").mkdir()
    monkeypatch.setattr("holdfast.disk.write_new", refuse)

    with pytest.raises(StorageError, match="Mount it for writing"):
        open_store(tmp_path / "run", workspace=tmp_path / "workspace", preflight=True)


def test_warnings_that_are_errors_end_it_as_they_end_anything(opened):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)

        with pytest.raises(CheckpointWarning):
            opened(Place(ignores=True)).preflight()


def test_every_message_says_what_is_safe_and_what_to_do():
    for trait in ("exclusive", "fresh", "durable"):
        (remark,) = preflight.unkept(Traits(**{trait: False}))

        assert remark.endswith(".")
        assert remark.count(". ") >= 1


def test_what_an_attempt_that_died_left_is_swept(opened):
    medium = MemoryBackend()
    left = [f"{layout.PROBES}{layout.PARTIAL}0123", layout.probe_prefix("0badc0de") + "race-1"]
    for key in [layout.PROBE, *left]:
        medium.create(key, b"")

    assert opened(medium).sweep(older_than=timedelta(0)) == sorted(left)
    assert set(medium.objects) == {layout.PROBE}
