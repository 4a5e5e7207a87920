"""Google Drive as a mount: a real FUSE filesystem that has what Colab's has, and lacks the same."""

import errno
import fcntl
import itertools
import os
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from holdfast import CheckpointStore, CheckpointWarning, Files, KeepLast, disk, layout
from holdfast.backends import arrival, mounts, open_backend
from holdfast.backends.base import Traits
from holdfast.backends.local import LocalBackend
from holdfast.backends.retrying import RetryingBackend
from holdfast.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InvalidInputError,
    StorageError,
    StorageFull,
)
from holdfast.staging import default_workspace
from holdfast.testing.backends import BackendContract
from holdfast.writer import Writer
from tests import share
from tests.crash import killer, scenes
from tests.crash.points import memory
from tests.servers.fuse import NotPossibleError
from tests.servers.mounted_drive import MountedDrive

#: The requests that change something, and those that only look.
CHANGES = ["create", "write", "flush", "fsync", "mkdir", "rename", "unlink", "rmdir", "fsyncdir"]
LOOKS = ["lookup", "getattr", "open", "opendir", "readdir"]
SHORT, LONG = timedelta(seconds=0.3), timedelta(seconds=60)


@pytest.fixture
def mounted(tmp_path):
    """Mounts another one on each call; all go when the test is over."""
    made = []

    def mount(**how):
        place = tmp_path / f"drive-{len(made)}"
        place.mkdir()
        try:
            made.append(MountedDrive(place, **how))
        except NotPossibleError as error:
            pytest.skip(f"no filesystem can be mounted here: {error}")
        return made[-1]

    yield mount
    for drive in made:
        drive.__exit__()


@pytest.fixture
def drive(mounted):
    return mounted()


class MountContract(BackendContract):
    large_bytes = 16 * 1024 * 1024
    kind = "drive"

    @pytest.fixture
    def backend(self, mounted):
        self.drive = mounted(kind=self.kind)
        return LocalBackend(self.drive.place / "store")

    def behind(self, backend, key):
        path = backend.root / key
        return path.read_bytes() if path.exists() else None

    def another(self, backend):
        return LocalBackend(backend.root)

    def unplug(self, backend):
        self.drive.tell("fail", at=1, code=errno.EIO, every=True)


class TestMountedDrive(MountContract):
    pass


class TestAnotherMount(MountContract):
    """Not Drive's: there a name created exclusively may keep other machines out."""

    kind = "sshfs"

    @pytest.mark.skip(reason="a file that is being named is empty for a moment")
    def test_nobody_reads_part_of_what_is_being_created(self):
        pass

    @pytest.mark.skip(reason="a file that is being named is empty for a moment")
    def test_nobody_sees_part_of_what_is_being_uploaded(self):
        pass


# A store on the mount, used by one process after the other.


def write_model(path, step):
    scenes.write_model(path / "model", step)
    return path / "model"


def opened(place, path, *, machine="machine", retention=None):
    """A handle as another process has it; another machine has another workspace."""
    return CheckpointStore(
        LocalBackend(place),
        retention=retention,
        workspace=path / machine / "workspace",
        writer=Writer(),
    )


def steps(store):
    return [checkpoint.step for checkpoint in store.checkpoints()]


def restored_step(store, path):
    """The step of what a restore brings, whose every byte has to be of it."""
    target = path / f"restored-{disk.new_name()}"
    found = store.restore(Files(target))
    assert (target / "model.bin").read_bytes() == f"weights of step {found.step}\n".encode() * 50
    assert (target / "training/state.json").read_text() == f'{{"step": {found.step}}}'
    return found.step


@pytest.mark.parametrize(("name", "stride"), [("save, staged elsewhere", 5), ("prune", 11)])
def test_a_process_killed_at_a_file_operation_on_the_mount_loses_nothing(name, stride, drive):
    drive.tell("set_attribute", there=False)  # so that a prune has not to wait for Drive
    count = 0
    with memory() as elsewhere:
        scene = next(each for each in scenes.scenes(elsewhere / "work") if each.name == name)
        scene.build(drive.place / "template")
        place = drive.place / "run"

        for at in itertools.count(*share.turn(stride)):
            scene.prepare(place)
            outcome = killer.run(partial(scene.act, scene, place), under=place, at=at)
            if outcome.struck is None:
                break
            scenes.judge(scene, place)
            count += 1

    assert count >= 5, "the harness saw too few calls to say anything"


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done, but the reply was lost"])
@pytest.mark.parametrize(
    ("requests", "stride"), [(CHANGES, 3), (LOOKS, 29)], ids=["change", "look"]
)
def test_an_io_error_at_any_request_of_a_save_costs_nothing(
    requests, stride, after, drive, tmp_path
):
    messages = []
    for at in itertools.count(*share.turn(stride, after)):
        place, here = drive.place / f"{at}", tmp_path / f"{at}"
        store = opened(place, here)
        store.save(write_model(here, 10), step=10)
        drive.tell("fail", at=at, code=errno.EIO, requests=requests, after=after)
        try:
            store.save(write_model(here, 20), step=20)
        except StorageError as error:
            messages.append(str(error))
        if drive.tell("heal") < at:
            break

        again = opened(place, here)
        assert steps(again) in ([10], [10, 20])
        assert again.verify(deep=True).ok
        again.recover()
        assert steps(again) == [10, 20]
        assert restored_step(again, here) == 20

    assert at > 20, "the save made too few requests to say anything"
    assert messages
    assert [each for each in messages if "committed" not in each] == []


def test_a_mount_that_fails_now_and_then_is_got_through(drive, tmp_path):
    backend = RetryingBackend(LocalBackend(drive.place / "run"), sleep=lambda _: None)
    store = CheckpointStore(backend, workspace=tmp_path / "workspace", writer=Writer())
    drive.tell("fail", at=211, code=errno.EIO, after=True, every=True)

    for step in (10, 20, 30):
        store.save(write_model(tmp_path, step), step=step)
    drive.tell("set_attribute", there=False)
    store.prune(KeepLast(2))

    assert steps(store) == [20, 30]
    assert restored_step(store, tmp_path) == 30
    assert drive.tell("heal") > 211 * 5


@pytest.mark.parametrize("at_close", [False, True], ids=["at the write", "at the close"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
def test_a_quota_that_is_used_up_is_said_and_costs_nothing(code, at_close, drive, tmp_path):
    store = opened(drive.place / "run", tmp_path)
    store.save(write_model(tmp_path, 10), step=10)
    used = sum(each.stat().st_size for each in drive.place.rglob("*") if each.is_file())
    drive.tell("set_quota", size=used + 100, code=code, at_close=at_close)

    with pytest.raises(StorageError, match="committed is untouched") as caught:
        store.save(write_model(tmp_path, 20), step=20)

    assert type(caught.value) is (StorageError if code == errno.EIO else StorageFull)
    assert steps(store) == [10]
    drive.tell("set_quota", size=1 << 30, code=code, at_close=False)
    assert [checkpoint.step for checkpoint in opened(drive.place / "run", tmp_path).recover()] == [
        20
    ]
    assert restored_step(store, tmp_path) == 20


def test_what_another_machine_saved_is_found_once_the_mount_shows_it(drive, mounted, tmp_path):
    other = mounted()
    write_model(tmp_path, 20)
    opened(other.place / "run", tmp_path, machine="other").save(tmp_path / "model", step=20)
    mine = opened(drive.place / "run", tmp_path)
    mine.save(write_model(tmp_path, 10), step=10)

    for path in sorted(other.place.rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            drive.tell("put", path=str(path.relative_to(other.place)), data=text, lag=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # its files show later than its manifest
        seen = [restored_step(mine, tmp_path) for _ in range(6)]

    assert (seen[0], seen[-1]) == (10, 20)
    assert seen == sorted(seen)


# The machine dies.


@pytest.mark.parametrize("seed", range(20))
def test_what_drive_had_when_the_machine_died_is_restored_and_nothing_partial_is_believed(
    seed, mounted, tmp_path
):
    drive = mounted(seed=seed, settle=0.02 / (1 + seed % 5))
    rule = KeepLast(1 + seed % 2)
    store = opened(drive.place / "run", tmp_path, retention=rule)
    waited_for = 0
    for step in range(10, 70, 10):
        store.save(write_model(tmp_path, step), step=step)
        if step == 10 * (1 + seed % 4):
            drive.tell("arrive")
            waited_for = store.wait_for_drive().step

    drive.tell("die")
    after = opened(drive.place / "run", tmp_path, machine="another", retention=rule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        newest = restored_step(after, tmp_path)
        after.prune()
        again = restored_step(after, tmp_path)
        saved = after.save(write_model(tmp_path, 99), step=99)

    assert newest >= waited_for
    assert again == newest
    assert after.latest() == saved


def test_a_manifest_that_arrived_before_its_files_counts_as_nothing(drive, tmp_path):
    store = opened(drive.place / "run", tmp_path)
    store.save(write_model(tmp_path, 10), step=10)
    drive.tell("arrive")
    store.save(write_model(tmp_path, 20), step=20)
    drive.tell("arrive_below", path="run/manifests")

    drive.tell("die")
    after = opened(drive.place / "run", tmp_path, machine="another")

    with pytest.warns(CheckpointWarning, match=r"model\.bin: missing.*Passing over it"):
        assert restored_step(after, tmp_path) == 10
    after.prune(KeepLast(1))
    assert [path.split("/")[1] for path in drive.tell("arrived")].count("manifests") == 2
    with pytest.warns(CheckpointWarning):
        assert restored_step(after, tmp_path) == 10


def test_a_prune_removes_nothing_for_what_drive_has_yet_to_get(drive, tmp_path):
    store = opened(drive.place / "run", tmp_path, retention=KeepLast(1))
    store.save(write_model(tmp_path, 10), step=10)
    drive.tell("arrive")
    store.save(write_model(tmp_path, 20), step=20)
    assert steps(store) == [10, 20]

    drive.tell("arrive")
    store.prune()

    assert steps(store) == [20]


def test_what_drive_is_sent_under_a_key_is_always_whole(mounted, tmp_path):
    drive = mounted(settle=1.0, moment=0)
    store = opened(drive.place / "run", tmp_path)

    for step in (10, 20):
        store.save(write_model(tmp_path, step), step=step)

    sizes = {path: drive.place.joinpath(path).stat().st_size for path in drive.tell("arrived")}
    sent = [(path, size) for path, size in drive.tell("sent") if not layout.is_partial(path)]
    assert len(sizes) == 6
    assert [(path, size) for path, size in sent if sizes[path] != size] == []


# Waiting for Drive.


@pytest.fixture
def saved(drive, tmp_path):
    store = opened(drive.place / "run", tmp_path)
    store.save(write_model(tmp_path, 10), step=10)
    return store


def test_waiting_ends_when_the_manifest_and_all_files_are_in_drive(saved, drive):
    drive.tell("arrive_by_looks", looks=5)

    assert saved.wait_for_drive(timeout=timedelta.max) == saved.latest()

    assert len(drive.tell("arrived")) == 3


@pytest.mark.parametrize("missing", ["manifests", "files"])
def test_waiting_ends_in_time_and_says_that_nothing_is_lost(missing, saved, drive):
    drive.tell("arrive_below", path=f"run/{'files' if missing == 'manifests' else 'manifests'}")

    with pytest.raises(DeadlineExceeded, match="Nothing is lost"):
        saved.wait_for_drive(timeout=SHORT)

    drive.tell("arrive")
    assert saved.wait_for_drive(saved.latest(), timeout=LONG).step == 10


def test_an_io_error_is_waited_out(saved, drive):
    drive.tell("arrive")
    drive.tell("fail", at=2, code=errno.EIO, requests=["getxattr"])

    assert saved.wait_for_drive(timeout=LONG).step == 10

    assert drive.tell("heal") > 3


def test_a_mount_that_hangs_does_not_keep_the_wait(saved, drive):
    found = saved.latest()
    drive.tell("hang", still=True)

    with pytest.raises(DeadlineExceeded, match="Nothing is lost"):
        arrival.wait_until_in_drive(saved.url, [f"manifests/{found}.json"], SHORT)

    drive.tell("hang", still=False)


def test_a_mount_that_does_not_tell_is_said_at_once_with_what_to_do(saved, drive, tmp_path):
    drive.tell("set_attribute", there=False)
    on_disk = opened(tmp_path / "disk", tmp_path)
    on_disk.save(tmp_path / "model", step=10)

    for store in (saved, on_disk):
        with pytest.raises(InvalidInputError, match=r"flush_and_unmount.*gdrive://"):
            store.wait_for_drive(timeout=LONG)
    with pytest.raises(InvalidInputError, match="nothing tells"):
        arrival.wait_until_in_drive("memory://run", ["manifests/a.json"], LONG)
    with pytest.raises(InvalidInputError, match="more than nothing"):
        saved.wait_for_drive(timeout=timedelta(0))


def test_what_is_removed_while_it_is_waited_for_is_a_failure_and_no_arrival(saved):
    with pytest.raises(StorageError, match="cannot look at"):
        arrival.wait_until_in_drive(saved.url, ["manifests/gone.json"], LONG)


# Opening.


def test_a_place_on_drive_is_opened_with_deadlines_and_repetition_and_stages_elsewhere(
    drive, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backend = open_backend(drive.place / "run")

    assert isinstance(backend, RetryingBackend)
    assert backend.traits == Traits(exclusive=False, fresh=False, durable=False)
    assert default_workspace(backend.url).is_relative_to(tmp_path / "cache")
    assert isinstance(open_backend(tmp_path / "disk"), LocalBackend)


def test_opening_on_a_mount_that_hangs_is_over_by_its_deadline(drive, monkeypatch):
    monkeypatch.setattr(mounts, "_PATIENCE_S", 0.2)
    drive.tell("hang", still=True)

    with pytest.raises(DeadlineExceeded, match="force_remount"):
        open_backend(drive.place / "run")

    drive.tell("hang", still=False)


def test_a_call_on_a_mount_that_hangs_is_over_by_its_deadline(drive):
    late = iter([True, False, False])
    backend = RetryingBackend(
        LocalBackend(drive.place / "run"),
        clock=itertools.count(0.0, 31.0).__next__,
        wait=lambda event, _: event.wait(60) if next(late) else False,
    )
    backend.create("manifests/a.json", b"a")
    drive.tell("hang", still=True)

    with pytest.raises(DeadlineExceeded):
        backend.read("manifests/a.json")

    drive.tell("hang", still=False)


# Names.


@pytest.mark.parametrize("kind", ["drive", "sshfs"])
@pytest.mark.parametrize("request_name", ["rename", "create", "unlink"])
@pytest.mark.parametrize("after", [False, True])
def test_a_failing_call_leaves_the_whole_object_or_none(
    kind, request_name, after, mounted, tmp_path
):
    drive = mounted(kind=kind)
    backend = LocalBackend(drive.place / "run")
    for at in range(1, 4):
        key = f"manifests/{at}.json"
        drive.tell("fail", at=at, code=errno.EIO, requests=[request_name], after=after)
        try:
            backend.create(key, b"whole")
        except StorageError as error:
            acknowledged = isinstance(error, AlreadyExists)
        else:
            acknowledged = True
        drive.tell("heal")

        if acknowledged:
            assert backend.read(key) == b"whole"
        else:
            found = [entry.size for entry in backend.scan(key)]
            assert found in ([], [5], [0]), found


def test_a_rename_that_took_effect_and_lost_its_reply_is_a_success(mounted):
    for kind in ("drive", "sshfs"):
        drive = mounted(kind=kind)
        backend = LocalBackend(drive.place / "run")
        drive.tell("fail", at=1, code=errno.EIO, requests=["rename"], after=True)

        backend.create("manifests/a.json", b"whole")

        assert backend.read("manifests/a.json") == b"whole"
        assert [entry.key for entry in backend.scan("")] == ["manifests/a.json"]


def test_of_many_processes_exactly_one_gets_a_name(drive):
    backend = LocalBackend(drive.place / "run")
    for number in range(3):
        gate, opener = os.pipe()
        children = []
        for caller in range(8):
            child = os.fork()
            if child == 0:
                os.close(opener)
                os.read(gate, 1)  # until all are there
                try:
                    backend.create(f"manifests/{number}.json", b"%d" % caller)
                except AlreadyExists:
                    os._exit(1)
                except BaseException:
                    os._exit(2)
                os._exit(0)
            children.append(child)
        os.close(gate)
        os.close(opener)

        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

        assert sorted(codes) == [0] + [1] * 7
        assert backend.read(f"manifests/{number}.json") == b"%d" % codes.index(0)


def test_a_child_forked_while_a_name_is_given_does_not_hold_the_turn(drive, monkeypatch):
    backend = LocalBackend(drive.place / "run")
    backend.create("manifests/a.json", b"a")
    real, children = Path.rename, []

    def rename(path, target):
        gate, opener = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(opener)
            os.read(gate, 1)  # until the parent is done
            os._exit(0)
        os.close(gate)
        children.append((child, opener))
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        backend.create("manifests/b.json", b"b")
    directory = os.open(drive.place / "run/manifests", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(directory)
        for child, opener in children:
            os.close(opener)
            os.waitpid(child, 0)

    assert len(children) == 1
