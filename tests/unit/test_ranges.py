"""An object comes down in ranges, each of which goes on where it broke off."""

import asyncio
import os
import stat
import threading

import pytest

from holdfast.backends import ranges
from holdfast.backends.base import unwatched
from holdfast.backends.ranges import download_ranges, several_at_once
from holdfast.errors import AccessDenied, NotFoundError, StorageError, StorageFull

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    monkeypatch.setattr(ranges, "RANGE_BYTES", 1000)
    monkeypatch.setattr(ranges, "_FIRST_PAUSE_S", 0.0)


class Place:
    """Holds `CONTENT`, gives it in pieces, and fails where it is told to."""

    def __init__(self, fail=None):
        self.asked = []
        self.open = 0
        self.fail = fail or (lambda start, at: None)

    async def get(self, start, end, put):
        self.asked.append((start, end))
        self.open += 1
        try:
            for at in range(start, end, 300):
                await asyncio.sleep(0)
                if self.fail(start, at) == "end":
                    return
                put(CONTENT[at : min(at + 300, end)])
        finally:
            self.open -= 1


def download(place, target, size=SIZE, moved=unwatched, slots=8):
    async def run():
        await download_ranges(place.get, size, target, moved=moved, slots=asyncio.Semaphore(slots))

    asyncio.run(run())


def failing(error, at, times=1):
    """Raise once the place `at` is to be given, so many times."""
    left = [error] * times

    def fail(_, now):
        if now == at and left:
            raise left.pop()

    return fail


def test_a_download_writes_every_byte_at_its_place_and_tells_of_each(tmp_path):
    place, told = Place(), []

    download(place, tmp_path / "target", moved=told.append)

    assert (tmp_path / "target").read_bytes() == CONTENT
    assert sum(told) == len(CONTENT)
    assert sorted(place.asked)[:2] == [(0, 1000), (1000, 2000)]
    assert max(place.asked) == (10000, len(CONTENT))


def test_of_nothing_no_range_is_asked_for(tmp_path):
    place = Place()

    download(place, tmp_path / "target", size=0)

    assert (tmp_path / "target").read_bytes() == b""
    assert place.asked == []


def test_a_file_that_is_there_already_is_left_alone(tmp_path):
    (tmp_path / "target").write_bytes(b"mine")
    place = Place()

    with pytest.raises(StorageError):
        download(place, tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"mine"
    assert place.asked == []


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "target").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StorageError):
        download(Place(), tmp_path / "target")

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), StorageError("busy")], ids=repr)
def test_a_range_that_breaks_off_goes_on_where_it_stopped(tmp_path, error):
    place = Place(failing(error, at=2600))

    download(place, tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == CONTENT
    assert (2600, 3000) in place.asked
    assert len(place.asked) == 12


def test_a_range_that_ends_too_early_goes_on_too(tmp_path):
    place = Place(lambda start, at: "end" if at == start + 300 else None)

    download(place, tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == CONTENT


def test_a_range_that_never_comes_whole_fails_and_leaves_nothing(tmp_path):
    place = Place(lambda start, at: "end" if at >= 2300 and at < 3000 else None)

    with pytest.raises(StorageError, match="broke off 6 times"):
        download(place, tmp_path / "target")

    assert not (tmp_path / "target").exists()
    assert place.asked.count((2300, 3000)) == 5
    assert place.open == 0


def test_a_failure_that_stays_is_raised_as_it_is(tmp_path):
    place = Place(failing(ConnectionResetError("reset"), at=2300, times=99))

    with pytest.raises(ConnectionResetError):
        download(place, tmp_path / "target")

    assert not (tmp_path / "target").exists()
    assert place.open == 0


@pytest.mark.parametrize(
    "error",
    [AccessDenied("no"), NotFoundError("gone"), StorageError("never", lasting=True)],
    ids=repr,
)
def test_what_no_repetition_changes_is_not_asked_for_again(tmp_path, error):
    place = Place(failing(error, at=2300, times=99))

    with pytest.raises(type(error)):
        download(place, tmp_path / "target")

    assert (2300, 3000) not in place.asked


def test_a_place_is_asked_again_only_when_it_wants_to_be(tmp_path, monkeypatch):
    slept, sleep = [], asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda pause: slept.append(pause) or sleep(0))
    place = Place(failing(StorageError("busy", retry_after=7.0), at=2000))

    download(place, tmp_path / "target")

    assert max(slept) == 7.0


def test_a_place_that_gives_more_than_it_was_asked_for_is_not_believed(tmp_path):
    class Deaf(Place):
        async def get(self, start, end, put):
            put(CONTENT)

    with pytest.raises(StorageError, match="more bytes") as caught:
        download(Deaf(), tmp_path / "target")

    assert caught.value.lasting
    assert not (tmp_path / "target").exists()


def test_a_full_disk_is_told_as_such_and_not_tried_again(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    place = Place()

    with pytest.raises(StorageFull):
        download(place, tmp_path / "target")

    assert len(place.asked) <= ranges._AT_ONCE
    assert not (tmp_path / "target").exists()


def test_a_short_write_is_gone_on_with(tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:7], at))

    download(Place(), tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == CONTENT


def test_a_download_that_was_given_up_ends_and_leaves_nothing(tmp_path):
    def given_up(_):
        raise StorageError("the attempt was given up.")

    place = Place()

    with pytest.raises(StorageError, match="given up"):
        download(place, tmp_path / "target", moved=given_up)

    assert not (tmp_path / "target").exists()
    assert place.open == 0


def test_a_cancelled_download_leaves_nothing_open(tmp_path):
    begun = threading.Event()

    class Endless(Place):
        async def get(self, start, end, put):
            self.open += 1
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                self.open -= 1

    place, target = Endless(), tmp_path / "target"

    async def run():
        task = asyncio.create_task(
            download_ranges(place.get, 5000, target, moved=unwatched, slots=asyncio.Semaphore(8))
        )
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())

    assert not target.exists()
    assert place.open == 0


def test_what_comes_after_a_download_has_failed_is_written_nowhere(tmp_path):
    late = []

    class Threaded(Place):
        async def get(self, start, end, put):
            if start == 0:
                raise StorageError("never", lasting=True)
            late.append(put)

    with pytest.raises(StorageError, match="never"):
        download(Threaded(), tmp_path / "target")
    # What is opened next has the descriptor that the download had.
    with (tmp_path / "another").open("wb"), pytest.raises(StorageError, match="given up"):
        late[0](CONTENT[:300])

    assert (tmp_path / "another").read_bytes() == b""


def test_each_range_under_way_holds_a_slot(tmp_path):
    most = []
    place = Place(lambda start, at: most.append(place.open))

    download(place, tmp_path / "target", slots=2)

    assert max(most) == 2


def test_a_large_object_is_fetched_by_a_bounded_number_of_workers(tmp_path):
    most = []
    place = Place(lambda start, at: most.append(place.open))

    download(place, tmp_path / "target", slots=1000)

    assert max(most) == ranges._AT_ONCE


def test_a_file_may_be_read_by_whom_the_user_lets(tmp_path):
    umask = os.umask(0o027)
    try:
        download(Place(), tmp_path / "target")
    finally:
        os.umask(umask)

    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o640


def test_the_first_failure_ends_the_others_and_keeps_its_cause():
    ended = []

    async def work(item):
        try:
            if item == 1:
                raise StorageError("first") from KeyError("why")
            await asyncio.Event().wait()
        finally:
            ended.append(item)

    with pytest.raises(StorageError, match="first") as caught:
        asyncio.run(several_at_once(work, range(100)))

    assert sorted(ended) == list(range(ranges._AT_ONCE))
    assert isinstance(caught.value.__cause__, KeyError)
