"""A workspace that fails: a state is staged once more, and nothing is left or kept locked."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from holdfast import AccessDenied, CheckpointWarning, Files, StorageError, StorageFull, disk


@pytest.fixture
def fail(monkeypatch):
    """Lets the next calls of this name fail; gives how many of them there were."""

    def failing(name, number, times):
        call, count = getattr(os, name), [0]

        def strike(*given):
            count[0] += 1
            if count[0] > times:
                return call(*given)
            raise OSError(number, os.strerror(number), str(given[0]))

        monkeypatch.setattr(os, name, strike)
        return count

    return failing


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_a_workspace_that_fails_once_costs_a_save_nothing(store, file, fail, number):
    fail("writev", number, times=1)

    saved = store.save(file, step=10)

    assert store.latest() == saved
    assert store.verify(deep=True).ok
    assert not list(store.workspace.path.iterdir())


def test_a_workspace_that_fails_again_is_told_and_nothing_is_left(store, file, fail):
    count = fail("writev", errno.EIO, times=9)

    with pytest.raises(StorageError, match=r"cannot stage into .*Input/output error") as failed:
        store.save(file, step=10)

    assert failed.value.errno == errno.EIO
    assert count == [2]
    assert store.latest() is None
    assert not list(store.workspace.path.iterdir())


def test_a_right_that_is_missing_is_told_at_once(store, file, fail):
    count = fail("writev", errno.EACCES, times=9)

    with pytest.raises(AccessDenied):
        store.save(file, step=10)

    assert count == [1]


def test_a_full_workspace_is_freed_of_what_a_dead_process_has_left(
    process, store, file, monkeypatch
):
    dead = process()
    sealed, unfinished = dead.draft(step=5), dead.draft(step=6)
    shutil.copy(file, sealed.directory)
    dead.seal(sealed)
    for draft in (sealed, unfinished):
        draft.release()
    seen = []
    writev = os.writev

    def full(descriptor, views):
        seen.append(len(list(store.workspace.path.iterdir())))
        if len(seen) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writev(descriptor, views)

    monkeypatch.setattr(os, "writev", full)

    store.save(file, step=10)

    assert seen == [3, 1], "the second time there has to be nothing beside the draft"
    assert [checkpoint.step for checkpoint in store] == [5, 10]


@pytest.mark.parametrize("name", ["lock", "files"])
def test_a_directory_that_cannot_be_made_is_neither_left_nor_locked(store, file, monkeypatch, name):
    make, take, held = Path.mkdir, disk.Lock.take, dict(disk.Lock._held)

    def refuse(path):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def mkdir(self, *given, **how):
        refuse(self)
        make(self, *given, **how)

    def lock(path, **how):
        refuse(path)
        return take(path, **how)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(disk.Lock, "take", lock)
    with pytest.raises(StorageFull, match="cannot make the workspace"):
        store.save(file, step=10)

    assert not list(store.workspace.path.iterdir())
    assert disk.Lock._held == held


def test_a_draft_that_cannot_be_read_just_now_is_kept_and_published_later(
    process, store, file, monkeypatch
):
    dead = process()
    draft = dead.draft(step=5)
    shutil.copy(file, draft.directory)
    dead.seal(draft)
    draft.release()

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", fail)
        with pytest.warns(CheckpointWarning, match="model.bin cannot be read: Input/output error"):
            store.recover()
    assert store.latest() is None

    assert [checkpoint.step for checkpoint in store.recover()] == [5]


def test_a_snapshot_that_finds_no_room_says_so(tmp_path, file, fail):
    fail("write", errno.ENOSPC, times=9)

    with pytest.raises(StorageFull, match=r"cannot copy for a snapshot .*No space left"):
        Files(file).snapshot()
