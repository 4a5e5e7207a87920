"""What somebody asks for by name goes, the newest too; what is pinned stays."""

import pytest

from holdfast import KeepLast, NotFoundError, StorageError, SupersededError
from holdfast.testing.faults import Fault, FaultBackend
from tests.store.checks import steps


def test_the_newest_goes_too_and_with_its_files(store, backend, file):
    saved = [store.save(file, step=step) for step in (1, 2)]

    gone = store.remove(saved[1], saved[0].id)

    assert gone == [saved[1].id, saved[0].id]
    assert store.latest() is None
    assert not [key for key in backend.objects if key.startswith(("files/", "doomed/"))]


def test_what_is_pinned_stays(store, backend, file):
    saved = [store.save(file, step=step) for step in (1, 2)]
    store.pin(saved[0], "paper")

    assert store.remove(*saved) == [saved[1].id]
    assert steps(backend) == [1]


def test_what_is_not_there_is_told_and_nothing_is_removed(store, backend, file):
    saved = store.save(file, step=1)

    with pytest.raises(NotFoundError):
        store.remove(saved, "0007-000000000007-0000000a")

    assert steps(backend) == [1]


def test_a_process_that_was_overtaken_removes_nothing(process, backend, file, tmp_path):
    old, new = process(), process(workspace=tmp_path / "elsewhere")
    saved = old.save(file, step=1)
    new.save(file, step=2)
    with pytest.raises(SupersededError):
        old.save(file, step=3)

    with pytest.raises(SupersededError):
        old.remove(saved)

    assert steps(backend) == [1, 2]


def test_a_removal_that_failed_midway_may_be_repeated(process, backend, file):
    kept, gone = (process().save(file, step=step) for step in (1, 2))
    failing = FaultBackend(backend, [Fault(at=2, verb="delete")])

    with pytest.raises(StorageError):
        process(on=failing).remove(gone)

    assert steps(backend) == [1]  # the manifest went first, so no reader sees a part of it
    process().prune(KeepLast(1))
    assert not [key for key in backend.objects if str(gone.id) in key]
    assert kept.id == process().latest().id
