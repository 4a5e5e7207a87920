"""Deadlines and repetition: the contract, and the budget on a clock that the tests move."""

import errno
import itertools
import threading
from functools import partial

import pytest

from holdfast.backends.retrying import RetryingBackend
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    NotFoundError,
    StorageError,
    StorageFull,
)
from holdfast.testing.backends import BackendContract
from holdfast.testing.faults import Died, Fault, FaultBackend
from holdfast.testing.memory import MemoryBackend


class TestRetrying(BackendContract):
    keeps_in_memory = True

    @pytest.fixture
    def backend(self):
        return RetryingBackend(MemoryBackend(), sleep=lambda _: None)

    def behind(self, backend, key):
        found = backend.inner.objects.get(key)
        return found and found[0]

    def another(self, backend):
        return RetryingBackend(backend.inner)

    def unplug(self, backend):
        backend.inner = FaultBackend(backend.inner, [Fault(1, lasting=True)])


class World:
    """A clock that only the tests move, and a record of what was slept."""

    def __init__(self, draw=1.0):
        self.now = 1000.0
        self.slept = []
        self.draw = draw

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def wait(self, event, seconds):
        """Waits for calls that end; one that is in `hanging` never does."""
        if event.wait(0 if self.hanging else 10):
            return True
        self.now += seconds
        return False

    hanging = False

    def around(self, inner):
        return RetryingBackend(
            inner,
            clock=lambda: self.now,
            sleep=self.sleep,
            random=lambda: self.draw,
            wait=self.wait,
        )


VERBS = {
    "create": lambda backend, _: backend.create("manifests/b", b"b"),
    "read": lambda backend, _: backend.read("manifests/a"),
    "upload": lambda backend, path: backend.upload(path / "source", "files/b"),
    "download": lambda backend, path: backend.download("files/a", path / "target"),
    "scan": lambda backend, _: list(backend.scan("manifests/")),
    "delete": lambda backend, _: backend.delete("manifests/a"),
}


@pytest.fixture
def place(tmp_path):
    backend = MemoryBackend()
    backend.create("manifests/a", b"a")
    backend.create("files/a", b"a")
    (tmp_path / "source").write_bytes(b"source")
    return backend


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_fails_five_times_is_asked_a_sixth_time(verb, place, tmp_path):
    world = World(draw=0.5)
    faults = FaultBackend(place, [Fault(at) for at in range(1, 6)])

    VERBS[verb](world.around(faults), tmp_path)

    assert [call.verb for call in faults.calls] == [verb] * 6
    assert world.slept == [0.25, 0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_goes_on_failing_is_asked_six_times(verb, place, tmp_path):
    world = World(draw=0.0)
    faults = FaultBackend(place, [Fault(1, lasting=True)])

    with pytest.raises(StorageError) as caught:
        VERBS[verb](world.around(faults), tmp_path)

    assert len(faults.calls) == 6
    assert "6 times" in caught.value.__notes__[0]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", [AccessDenied, StorageFull, AlreadyExists, NotFoundError, Died])
def test_an_answer_is_not_asked_for_again(verb, kind, place, tmp_path):
    world = World()
    faults = FaultBackend(place, [Fault(1, error=kind)])

    with pytest.raises(kind):
        VERBS[verb](world.around(faults), tmp_path)

    assert (len(faults.calls), world.slept) == (1, [])


@pytest.mark.parametrize("verb", VERBS)
def test_what_no_repetition_changes_is_not_repeated(verb, place, tmp_path):
    world = World()
    faults = FaultBackend(place, [Fault(1, error=partial(StorageError, errno=errno.EEXIST))])

    with pytest.raises(StorageError):
        VERBS[verb](world.around(faults), tmp_path)

    assert (len(faults.calls), world.slept) == (1, [])


def test_a_late_answer_is_asked_for_again_while_there_is_time(place, tmp_path):
    world = World()
    faults = FaultBackend(place, [Fault(1, error=DeadlineExceeded)])

    assert world.around(faults).read("manifests/a") == b"a"
    assert len(faults.calls) == 2


@pytest.mark.parametrize("verb", ["create", "read", "delete", "scan"])
def test_no_pause_goes_past_the_deadline(verb, place, tmp_path):
    world = World()
    faults = FaultBackend(place, [Fault(1, lasting=True)])
    slow = partial(strike_after, world, 9.0)

    with pytest.raises(StorageError):
        VERBS[verb](world.around(Slowly(faults, slow)), tmp_path)

    assert world.now - 1000.0 <= 30.0
    assert len(faults.calls) == 3


class Slowly:
    """A backend whose every call is preceded by something."""

    def __init__(self, inner, first):
        self.inner = inner
        self.first = first
        self.url = inner.url

    def __getattr__(self, verb):
        def call(*args):
            self.first()
            return getattr(self.inner, verb)(*args)

        return call


def strike_after(world, seconds):
    world.now += seconds


@pytest.mark.parametrize("verb", ["create", "read", "delete", "scan"])
def test_a_call_that_hangs_is_left_at_the_deadline(verb, place, tmp_path):
    world = World()
    world.hanging = True
    go_on = threading.Event()
    backend = world.around(Slowly(place, go_on.wait))

    with pytest.raises(DeadlineExceeded, match=r"unknown.*untouched"):
        VERBS[verb](backend, tmp_path)

    assert world.now == 1030.0
    go_on.set()


@pytest.mark.parametrize("verb", ["upload", "download"])
def test_a_transfer_that_stands_still_for_a_minute_is_given_up(verb, place, tmp_path):
    world = World(draw=0.0)
    world.hanging = True
    go_on = threading.Event()
    backend = world.around(Slowly(place, go_on.wait))

    with pytest.raises(DeadlineExceeded, match=r"60 seconds.*untouched"):
        VERBS[verb](backend, tmp_path)

    assert world.now == 1060.0
    go_on.set()
    assert not (tmp_path / "target").exists()


class Trickling:
    """A transfer that moves a byte every fifty seconds, ten in all, and may be told to go on."""

    url = "trickling://"

    def __init__(self, world):
        self.world = world
        self.moved = []

    def upload(self, source, key, moved):
        for _ in range(10):
            self.world.now += 50.0
            moved(1)

    def download(self, key, target, moved):
        self.upload(None, key, moved)
        target.write_bytes(b"x" * 10)


def test_a_slow_transfer_that_moves_meets_no_deadline(tmp_path):
    world = World()
    backend = world.around(Trickling(world))
    counts = []

    backend.upload(tmp_path / "source", "files/a", counts.append)
    backend.download("files/a", tmp_path / "target", counts.append)

    assert sum(counts) == 20
    assert world.now == 2000.0


def test_a_transfer_that_was_given_up_ends_when_it_comes_back(place, tmp_path):
    world = World(draw=0.0)
    world.hanging = True
    go_on, ended = threading.Event(), threading.Event()
    told = []

    class Late:
        url = "late://"

        def download(self, key, target, moved):
            go_on.wait()
            try:
                moved(1)
            finally:
                ended.set()

    with pytest.raises(DeadlineExceeded):
        world.around(Late()).download("files/a", tmp_path / "target", told.append)
    go_on.set()

    assert ended.wait(10)
    assert told == []
    assert list(tmp_path.iterdir()) == [tmp_path / "source"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_lasting_failure_is_not_repeated(verb, place, tmp_path):
    world = World()
    faults = FaultBackend(place, [Fault(1, error=partial(StorageError, lasting=True))])

    with pytest.raises(StorageError):
        VERBS[verb](world.around(faults), tmp_path)

    assert (len(faults.calls), world.slept) == (1, [])


def test_a_place_that_says_when_is_asked_again_then(place):
    world = World(draw=0.0)
    faults = FaultBackend(place, [Fault(1, error=partial(StorageError, retry_after=7.0))])

    world.around(faults).read("manifests/a")

    assert world.slept == [7.0]


def test_a_place_that_wants_to_be_asked_after_the_deadline_is_not(place):
    world = World(draw=0.0)
    faults = FaultBackend(place, [Fault(1, error=partial(StorageError, retry_after=60.0))])

    with pytest.raises(StorageError):
        world.around(faults).read("manifests/a")

    assert (len(faults.calls), world.slept) == (1, [])


def test_no_place_makes_a_transfer_wait_for_a_day(place, tmp_path):
    world = World(draw=0.0)
    faults = FaultBackend(place, [Fault(1, error=partial(StorageError, retry_after=86400.0))])

    world.around(faults).upload(tmp_path / "source", "files/b")

    assert world.slept == [60.0]


def test_an_interrupted_transfer_is_told_to_end(place, tmp_path):
    begun, ended = threading.Event(), threading.Event()
    told = []

    class Endless:
        url = "endless://"

        def upload(self, source, key, moved):
            begun.set()
            try:
                while True:
                    moved(1)
            finally:
                ended.set()

    def interrupt(event, seconds):
        if not told:
            begun.wait(10)
            told.append("interrupted")
            raise KeyboardInterrupt
        return event.wait(10)

    with pytest.raises(KeyboardInterrupt):
        RetryingBackend(Endless(), wait=interrupt).upload(tmp_path / "source", "files/a")

    assert ended.is_set()


def test_many_keys_are_deleted_in_batches_with_a_deadline_each():
    place = MemoryBackend()
    keys = [f"files/{number:04d}" for number in range(1001)]
    for key in keys:
        place.create(key, b"")
    world, batches = World(), []

    class Batched:
        url = "batched://"

        def delete(self, *some):
            world.now += 29.0
            batches.append(len(some))
            place.delete(*some)

    world.around(Batched()).delete(*keys)

    assert batches == [200, 200, 200, 200, 200, 1]
    assert place.objects == {}


def test_a_hanging_call_does_not_keep_the_process_from_ending(place, tmp_path):
    world = World()
    world.hanging = True
    go_on = threading.Event()
    with pytest.raises(DeadlineExceeded):
        world.around(Slowly(place, go_on.wait)).read("manifests/a")

    left = [thread for thread in threading.enumerate() if thread.name.startswith("holdfast read")]

    assert left
    assert all(thread.daemon for thread in left)
    go_on.set()


def test_a_create_whose_reply_was_lost_says_that_the_key_is_taken(place):
    world = World()
    faults = FaultBackend(place, [Fault(1, "after")])

    with pytest.raises(AlreadyExists):
        world.around(faults).create("manifests/b", b"ours")

    assert place.read("manifests/b") == b"ours"


def test_a_failed_download_is_repeated_into_the_same_target(place, tmp_path):
    world = World()
    faults = FaultBackend(place, [Fault(1), Fault(2)])

    world.around(faults).download("files/a", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"a"


class Breaking:
    """A listing that breaks off after every so many entries, and takes time for each."""

    url = "breaking://"

    def __init__(self, keys, *, every, world, seconds=0.0):
        self.place = MemoryBackend()
        for key in keys:
            self.place.create(key, b"")
        self.every = every
        self.world = world
        self.seconds = seconds
        self.scans = []

    def scan(self, prefix, after=""):
        self.scans.append(after)
        for number, entry in enumerate(self.place.scan(prefix, after)):
            if number == self.every:
                raise StorageError("the line broke", errno=errno.EPIPE)
            self.world.now += self.seconds
            yield entry


def test_a_scan_that_breaks_off_goes_on_after_what_it_gave():
    keys = [f"manifests/{number:05d}" for number in range(4500)]
    world = World(draw=0.0)
    breaking = Breaking(keys, every=2100, world=world)

    found = [entry.key for entry in world.around(breaking).scan("manifests/")]

    assert found == keys
    assert breaking.scans == ["", keys[1999], keys[3999]]


def test_a_slow_scan_that_goes_on_meets_no_deadline():
    keys = [f"manifests/{number:02d}" for number in range(60)]
    world = World()
    breaking = Breaking(keys, every=1000, world=world, seconds=5.0)

    found = [entry.key for entry in world.around(breaking).scan("")]

    assert found == keys
    assert world.now == 1300.0
    assert breaking.scans == [""]


def test_a_scan_that_was_given_pages_begins_after_the_key_it_was_given():
    keys = [f"manifests/{number:05d}" for number in range(2500)]
    world = World()
    breaking = Breaking(keys, every=10_000, world=world)

    found = world.around(breaking).scan("manifests/", keys[99])

    assert [entry.key for entry in found] == keys[100:]


def test_pauses_are_drawn_evenly_up_to_a_bound_that_doubles(place):
    draws = itertools.cycle([0.0, 0.25, 1.0])
    world = World()
    backend = RetryingBackend(
        FaultBackend(place, [Fault(1, lasting=True)]),
        clock=lambda: 0.0,
        sleep=world.sleep,
        random=lambda: next(draws),
    )

    with pytest.raises(StorageError):
        backend.read("manifests/a")

    assert world.slept == [0.0, 0.25, 2.0, 0.0, 2.0]
