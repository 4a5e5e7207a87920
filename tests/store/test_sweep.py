"""What no manifest names goes, once nobody can commit it any more."""

from datetime import UTC, datetime, timedelta

import pytest

from holdfast import (
    CheckpointId,
    CheckpointStore,
    FormatError,
    KeepLast,
    StorageError,
    layout,
    manifest,
)
from holdfast.errors import AlreadyExists
from holdfast.manifest import Tombstone
from holdfast.testing import MemoryBackend
from holdfast.testing.faults import Fault, FaultBackend
from holdfast.writer import Writer
from tests.store import checks
from tests.store.checks import NOW, slow_attempt, steps
from tests.store.hooked import HookedBackend


@pytest.fixture
def scene(tmp_path):
    scene = checks.Scene(tmp_path)
    scene.process().save(scene.directory, step=1)
    return scene


def test_what_is_committed_stays(scene):
    before = dict(scene.backend.objects)

    assert scene.process().sweep(older_than=NOW) == []

    assert scene.backend.objects == before


def test_what_an_attempt_left_goes_and_its_id_is_closed(scene):
    attempt = slow_attempt(scene)

    gone = scene.process().sweep(older_than=NOW)

    assert gone == [layout.file_key(attempt, path) for path in ("a.bin", "b/c.bin")]
    assert steps(scene.backend) == [1]
    closed = scene.backend.objects[layout.manifest_key(attempt)][0]
    assert manifest.read(closed, attempt) == Tombstone(attempt)


def test_a_manifest_that_a_listing_missed_stays_though_the_place_overwrites(scene):
    """As some servers of S3 do, whatever they are told."""

    def around(verb, key, call):
        if verb == "scan" and key == layout.MANIFESTS:
            return iter(())
        if verb == "create":
            scene.backend.objects.pop(key, None)
        return call()

    before = dict(scene.backend.objects)

    gone = scene.process(HookedBackend(scene.backend, around)).sweep(older_than=NOW)

    assert gone == []
    assert scene.backend.objects == before


def test_the_slow_writer_comes_through_under_a_new_id(scene):
    attempt = slow_attempt(scene)
    scene.process().sweep(older_than=NOW)

    (published,) = scene.process().recover()

    assert published.id != attempt
    assert published.step == 2
    assert scene.process().latest() == published


def test_what_is_young_is_spared(scene):
    slow_attempt(scene)
    later = datetime.now(UTC) + timedelta(hours=23)

    assert scene.process(clock=lambda: later).sweep() == []
    assert scene.process().sweep() == []


def test_what_is_a_day_old_goes(scene):
    slow_attempt(scene)
    later = datetime.now(UTC) + timedelta(hours=25)

    assert len(scene.process(clock=lambda: later).sweep()) == 2


def test_one_young_file_spares_the_whole_attempt(tmp_path):
    now = datetime(2026, 1, 10, tzinfo=UTC)
    times = iter([now - timedelta(days=3), now - timedelta(hours=1)])
    scene = checks.Scene(tmp_path)
    backend = MemoryBackend(clock=lambda: next(times))
    id = CheckpointId(1, 1, "00000000")
    for path in ("a", "b"):
        backend.create(layout.file_key(id, path), b"")

    assert scene.process(backend, clock=lambda: now).sweep() == []

    assert len(backend.objects) == 2


def test_what_has_no_time_counts_as_young(scene):
    slow_attempt(scene)

    class Timeless(MemoryBackend):
        def scan(self, prefix, after=""):
            for entry in super().scan(prefix, after):
                yield type(entry)(entry.key, entry.size)

    timeless = Timeless()
    timeless.objects = scene.backend.objects
    far = datetime.now(UTC) + timedelta(days=900)

    assert scene.process(timeless, clock=lambda: far).sweep() == []
    assert len(scene.process(timeless, clock=lambda: far).sweep(older_than=NOW)) == 2


@pytest.mark.parametrize("skew", [timedelta(hours=-24), timedelta(days=-3000)])
def test_a_clock_that_lags_makes_a_sweep_wait_and_nothing_else(scene, skew):
    slow_attempt(scene)
    wrong = datetime.now(UTC) + skew

    assert scene.process(clock=lambda: wrong).sweep() == []
    assert steps(scene.backend) == [1]


def test_a_dry_run_tells_and_touches_nothing(scene):
    slow_attempt(scene)
    before = dict(scene.backend.objects)

    told = scene.process().sweep(older_than=NOW, dry_run=True)

    assert scene.backend.objects == before
    assert told == scene.process().sweep(older_than=NOW)


def test_twice_is_fine(scene):
    slow_attempt(scene)

    assert len(scene.process().sweep(older_than=NOW)) == 2
    assert scene.process().sweep(older_than=NOW) == []
    scene.settle()


def test_two_at_once_are_fine(scene):
    slow_attempt(scene)
    other = []

    def at_the_tombstone(verb, key, call):
        if verb == "create" and not other:
            other.append(scene.process().sweep(older_than=NOW))
        return call()

    mine = scene.process(checks.HookedBackend(scene.backend, at_the_tombstone))

    assert mine.sweep(older_than=NOW) == other[0]
    assert steps(scene.backend) == [1]
    scene.settle()


def test_a_sweep_never_takes_what_commits_meanwhile(tmp_path):
    checks.a_sweep_never_takes_what_commits_meanwhile(tmp_path)


def test_what_prunes_left_goes_and_so_do_pins_on_nothing(scene):
    scene.process().save(scene.file, step=2)
    killed = FaultBackend(scene.backend, [Fault(at=2, verb="delete")])
    with pytest.raises(StorageError):
        scene.process(killed).prune(KeepLast(1))
    gone = CheckpointId(1, 9, "00000000")
    scene.backend.create(layout.pin_key("paper", gone), b"")

    scene.process().sweep(older_than=NOW)

    assert not checks.leftovers(scene.backend)
    assert scene.process().pins() == {}


def test_the_mark_of_a_prune_at_work_stays_while_its_checkpoint_stands(scene):
    (id,) = checks.committed(scene.backend)
    scene.backend.create(layout.doomed_key(id, "00000000"), b"")

    assert scene.process().sweep(older_than=NOW) == []

    assert layout.doomed_key(id, "00000000") in scene.backend.objects


def test_what_a_backend_left_unfinished_goes_wherever_it_lies(scene):
    (id,) = checks.committed(scene.backend)
    unfinished = [
        f"{layout.FILES}{id}/~0123",
        f"{layout.FILES}{id}/b/~0123",
        f"{layout.MANIFESTS}~0123",
        f"{layout.DOOMED}~0123",
        f"{layout.PINS}paper/~0123",
    ]
    for key in unfinished:
        scene.backend.create(key, b"half")

    assert scene.process().sweep() == []
    assert scene.process().sweep(older_than=NOW) == sorted(unfinished)
    assert not checks.broken(scene.backend)


def test_an_unreadable_manifest_protects_its_files(scene):
    (id,) = checks.committed(scene.backend)
    key = layout.manifest_key(id)
    scene.backend.objects[key] = (b"garbage", scene.backend.objects[key][1])
    before = dict(scene.backend.objects)

    assert scene.process().sweep(older_than=NOW) == []

    assert scene.backend.objects == before


def test_an_unreadable_manifest_that_comes_meanwhile_protects_its_files(scene):
    attempt = slow_attempt(scene)
    before = {key for key in scene.backend.objects if key.startswith(layout.FILES)}

    def garbage_first(verb, key, call):
        if verb == "create":
            scene.backend.create(key, b"garbage")
        return call()

    sweeper = scene.process(checks.HookedBackend(scene.backend, garbage_first))

    assert sweeper.sweep(older_than=NOW) == []
    assert {key for key in scene.backend.objects if key.startswith(layout.FILES)} == before
    with pytest.raises(FormatError):
        scene.process().find(str(attempt))


def test_a_sweep_that_fails_midway_may_be_repeated(scene):
    slow_attempt(scene)
    for when in ("before", "after"):
        for verb in ("create", "delete"):
            beginning = dict(scene.backend.objects)
            failing = FaultBackend(scene.backend, [Fault(at=1, when=when, verb=verb)])
            with pytest.raises(StorageError):
                scene.process(failing).sweep(older_than=NOW)
            assert steps(scene.backend) == [1]
            scene.process().sweep(older_than=NOW)
            assert not checks.leftovers(scene.backend)
            scene.backend.objects = beginning


def test_a_pin_on_what_cannot_be_read_stays(scene):
    (id,) = checks.committed(scene.backend)
    scene.process().pin(str(id), "paper")
    key = layout.manifest_key(id)
    scene.backend.objects[key] = (b"garbage", scene.backend.objects[key][1])

    assert scene.process().sweep(older_than=NOW) == []

    assert layout.pin_key("paper", id) in scene.backend.objects


def test_what_is_as_old_as_told_and_no_older_is_spared(tmp_path):
    scene = checks.Scene(tmp_path)
    slow_attempt(scene)
    written = max(time for key, (_, time) in scene.backend.objects.items() if "files/" in key)
    span = timedelta(hours=1)

    at = CheckpointStore(
        scene.backend, workspace=tmp_path / "sweeper", writer=Writer(), clock=lambda: written + span
    )

    assert at.sweep(older_than=span) == []
    assert at.sweep(older_than=span - timedelta(microseconds=1))


def test_a_record_that_goes_before_it_is_read_leaves_its_files_alone(scene):
    attempt = slow_attempt(scene)
    key = layout.manifest_key(attempt)

    def there_and_gone(verb, at, call):
        if (verb, at) == ("create", key):
            raise AlreadyExists("it was there a moment ago")
        return call()

    sweeper = scene.process(checks.HookedBackend(scene.backend, there_and_gone))

    assert sweeper.sweep(older_than=NOW) == []
    assert [at for at in scene.backend.objects if at.startswith(layout.files_prefix(attempt))]
