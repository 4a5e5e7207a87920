"""Files appear whole or not at all, leave nothing after a failure, and a lock has one holder."""

import contextlib
import errno
import fcntl
import io
import os
import resource
import shutil
import signal
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast import disk, hashing
from holdfast.disk import Lock
from holdfast.errors import AccessDenied, InvalidInputError, StorageError, StorageFull
from tests.unit.descriptors import open_below

#: What a child says when its act raised something that is no answer.
FAILED = "failed"


def in_child(act):
    """What an act answers in a forked child, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        answer = FAILED
        try:
            answer = str(act())
        finally:
            os.write(writing, answer.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answers:
        return answers.read()


@contextlib.contextmanager
def another_process(act):
    """A forked child that has acted and then waits, until it is killed at the end."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            act()
            os.write(told, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"!"
        yield
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


# Errors.


@pytest.mark.parametrize(
    ("number", "kind", "cure"),
    [
        (errno.ENOSPC, StorageFull, "Make room"),
        (errno.EDQUOT, StorageFull, "Make room"),
        (errno.EFBIG, StorageFull, "Make room"),
        (errno.EACCES, AccessDenied, "Grant"),
        (errno.EPERM, AccessDenied, "Grant"),
        (errno.EROFS, StorageError, "Mount"),
        (errno.EIO, StorageError, "repeated"),
        (errno.ENOENT, StorageError, "repeated"),
    ],
)
def test_what_the_system_reports_becomes_our_error(number, kind, cure):
    says = f"cannot write /place: .*untouched.*{cure}"

    with pytest.raises(StorageError, match=says) as caught, disk.disk_errors("write", "/place"):
        failing(number)()

    assert type(caught.value) is kind
    assert caught.value.errno == number
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("error", [StorageFull("ours"), InvalidInputError("ours"), KeyError("x")])
def test_what_is_ours_or_no_failure_of_the_disk_passes(error):
    with pytest.raises(type(error)) as caught, disk.disk_errors("write", "/place"):
        raise error

    assert caught.value is error


# Files.


@pytest.mark.parametrize("data", [b"", b"data", bytes(range(256)) * 4_096])
def test_a_new_file_has_its_content(tmp_path, data):
    disk.write_new(tmp_path / "file", data)

    assert (tmp_path / "file").read_bytes() == data


def test_a_file_that_is_written_in_pieces_is_whole(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))

    disk.write_new(tmp_path / "file", b"0123456789")

    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_file_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"first")

    with pytest.raises(FileExistsError):
        disk.write_new(tmp_path / "file", b"second")

    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_new_file_is_not_written_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="link"):
        disk.write_new(tmp_path / "link", b"data")

    assert names(tmp_path) == ["link"]


@pytest.mark.parametrize("call", ["write", "fsync", "close"])
def test_a_failed_call_leaves_nothing_of_a_new_file(tmp_path, monkeypatch, call):
    real = getattr(os, call)

    def fail(*given):
        if call == "close":
            real(*given)
        failing(errno.ENOSPC)()

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OSError, match="space"):
            disk.write_new(tmp_path / "file", b"data")

    assert names(tmp_path) == []


def test_a_disk_that_is_full_midway_leaves_nothing_of_a_new_file(tmp_path):
    def act():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        try:
            disk.write_new(tmp_path / "file", b"x" * 5_000)
        except OSError as error:
            return error.errno

    assert in_child(act) == str(errno.EFBIG)
    assert names(tmp_path) == []


def test_an_interrupt_leaves_nothing_of_a_new_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)

    with pytest.raises(KeyboardInterrupt):
        disk.write_new(tmp_path / "file", b"data")

    assert names(tmp_path) == []


@pytest.mark.parametrize("left", [None, b"from a process that died here"])
def test_a_file_is_replaced_whole(tmp_path, left):
    (tmp_path / "file").write_bytes(b"old")
    if left:
        (tmp_path / "~file").write_bytes(left)

    disk.replace(tmp_path / "file", b"new", temporary="~file")

    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_file_that_could_not_be_replaced_is_as_it_was(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def act():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        try:
            disk.replace(tmp_path / "file", b"x" * 5_000, temporary="~file")
        except OSError as error:
            return error.errno

    assert in_child(act) == str(errno.EFBIG)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_hash_is_that_of_the_content_with_its_name(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")

    assert hashing.hash_file(tmp_path / "file") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


# Directories.


def test_a_directory_is_made_with_its_parents_and_again(tmp_path):
    for _ in range(2):
        disk.make_directory(tmp_path / "a" / "b" / "c")

    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_many_callers_make_one_directory(tmp_path):
    target = tmp_path.joinpath(*"abcdefgh")
    together = threading.Barrier(16)

    def make(_):
        together.wait(10)
        disk.make_directory(target)

    with ThreadPoolExecutor(16) as callers:
        list(callers.map(make, range(16)))

    assert target.is_dir()


def test_a_directory_that_somebody_else_makes_first_is_taken(tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def late(path, mode=0o777):
        mkdir(path)
        mkdir(path, mode)

    monkeypatch.setattr(Path, "mkdir", late)

    disk.make_directory(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_way_of_a_directory_is_left_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"file")

    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OSError, match="exists"):
            disk.make_directory(path)

    assert (tmp_path / "a").read_bytes() == b"file"


@pytest.mark.parametrize(
    ("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_only_a_filesystem_that_cannot_sync_directories_is_excused(
    tmp_path, monkeypatch, number, passes
):
    monkeypatch.setattr(os, "fsync", failing(number))

    with contextlib.nullcontext() if passes else pytest.raises(OSError, match="error"):
        disk.sync_directory(tmp_path)


def test_a_walk_meets_every_file_and_no_directory(tmp_path):
    for path in ("b", "a/y", "a/x/z", ".hidden/c"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "empty").mkdir()

    found = [(path, status.st_size) for path, status in disk.walk(tmp_path)]

    assert found == [(".hidden/c", 9), ("a/x/z", 5), ("a/y", 3), ("b", 1)]


def a_link(path):
    path.symlink_to(__file__)


def a_link_to_a_directory(path):
    path.symlink_to(Path(__file__).parent)


def a_link_to_nothing(path):
    path.symlink_to("nothing")


def a_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def test_a_walk_goes_as_deep_as_there_are_directories(tmp_path):
    depth = 1_500  # deeper than calls may be nested, those of who removes what tests leave too
    with contextlib.chdir(tmp_path):
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("file").write_bytes(b"content")
        try:
            ((path, status),) = disk.walk(tmp_path)
        finally:
            Path("file").unlink()
            for _ in range(depth):
                os.chdir("..")
                Path("d").rmdir()

    assert path == "d/" * depth + "file"
    assert status.st_size == len(b"content")


@pytest.mark.parametrize(
    "make", [a_link, a_link_to_a_directory, a_link_to_nothing, a_socket, os.mkfifo]
)
def test_a_walk_refuses_what_is_neither_file_nor_directory(tmp_path, make):
    (tmp_path / "a").mkdir()
    make(tmp_path / "a" / "special")

    with pytest.raises(InvalidInputError, match="special is neither"):
        list(disk.walk(tmp_path))


def test_removing_what_is_missing_is_fine(tmp_path):
    disk.remove(tmp_path / "missing")
    disk.remove(tmp_path / "missing", but="lock")

    assert names(tmp_path) == []


def test_removing_does_not_follow_links(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    for name in ("gone", "emptied"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "link").symlink_to(tmp_path / "kept")
        (tmp_path / name / "inner" / "link").symlink_to(tmp_path / "kept")
        (tmp_path / name / "lock").touch()

    disk.remove(tmp_path / "gone")
    disk.remove(tmp_path / "emptied", but="lock")

    assert names(tmp_path) == ["emptied", "kept"]
    assert names(tmp_path / "emptied") == ["lock"]
    assert names(tmp_path / "kept") == ["file"]


# Moving.


@pytest.fixture(params=["here", "from another disk"])
def source(request, tmp_path):
    """A directory to move, on this disk and on another."""
    if request.param == "here":
        root = tmp_path / "source"
        root.mkdir()
    else:
        here = tmp_path.stat().st_dev
        shared = [Path("/dev/shm"), Path("/var/tmp")]
        others = [each for each in shared if each.is_dir() and each.stat().st_dev != here]
        if not others:
            pytest.skip("needs a second filesystem")
        root = Path(tempfile.mkdtemp(dir=others[0], prefix="holdfast-"))
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "file").write_text("moved")
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("there", ["free", "empty", "below missing parents"])
def test_a_directory_is_moved_to_a_free_name_or_an_empty_directory(source, tmp_path, there):
    target = tmp_path / "target"
    if there == "empty":
        target.mkdir()
    elif there == "below missing parents":
        target = tmp_path / "a" / "b" / "target"

    disk.move_directory(source, target)

    assert (target / "deep" / "er" / "file").read_text() == "moved"
    assert names(target.parent) in (["target"], ["source", "target"])


def test_a_directory_that_is_not_empty_is_left_alone(source, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "theirs").write_text("theirs")

    with pytest.raises(OSError, match="empty"):
        disk.move_directory(source, tmp_path / "target")

    assert names(tmp_path / "target") == ["theirs"]
    assert not [name for name in names(tmp_path) if name.startswith("~")]
    assert (source / "deep" / "er" / "file").read_text() == "moved"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to watch the calls")
def test_what_is_moved_is_synced_before_it_appears(source, tmp_path, monkeypatch):
    is_copied = source.parent != tmp_path
    synced = []
    fsync = os.fsync

    def watched(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_relative_to(tmp_path):
            synced.append(path.relative_to(tmp_path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)

    disk.move_directory(source, tmp_path / "target")

    below = {path.relative_to(path.parts[0]).as_posix() for path in synced[:-1]}
    assert below == {"deep/er/file", "deep/er", "deep", "."}
    assert all(path.parts[0].startswith("~" if is_copied else "source") for path in synced[:-1])
    assert synced[-1] == Path()


def test_a_copy_that_fails_leaves_nothing(source, tmp_path, monkeypatch):
    if source.parent == tmp_path:
        pytest.skip("nothing is copied")
    monkeypatch.setattr(disk, "sync_file", failing(errno.EIO))

    with pytest.raises(OSError, match="error"):
        disk.move_directory(source, tmp_path / "target")

    assert names(tmp_path) == []


# A private directory.


def test_a_new_workspace_is_private(tmp_path):
    disk.make_private(tmp_path / "a" / "workspace")

    assert (tmp_path / "a" / "workspace").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o711])
def test_a_directory_that_only_its_owner_writes_is_taken(tmp_path, mode):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace").chmod(mode)

    disk.make_private(tmp_path / "workspace")

    assert (tmp_path / "workspace").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777, 0o720])
def test_a_directory_that_others_may_write_is_refused(tmp_path, mode):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace").chmod(mode)

    with pytest.raises(InvalidInputError, match="chmod 700"):
        disk.make_private(tmp_path / "workspace")

    assert (tmp_path / "workspace").stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "workspace").mkdir(0o700)
    os.chown(tmp_path / "workspace", 65_534, -1)

    with pytest.raises(InvalidInputError, match="another user"):
        disk.make_private(tmp_path / "workspace")


@pytest.mark.parametrize("make", [a_link_to_a_directory, Path.touch, os.mkfifo])
def test_what_is_no_directory_is_refused(tmp_path, make):
    make(tmp_path / "workspace")

    with pytest.raises(InvalidInputError, match="not a directory"):
        disk.make_private(tmp_path / "workspace")


def test_two_names_differ():
    assert len({disk.new_name() for _ in range(100)}) == 100


# The lock.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


def taken(path):
    """Whether a lock can be taken here and now; it is let go at once."""
    lock = Lock.take(path)
    if lock:
        lock.release()
    return lock is not None


def test_a_lock_has_one_holder_in_a_process(path):
    lock = Lock.take(path)

    assert Lock.take(path) is None
    lock.release()
    lock.release()
    assert taken(path)


@pytest.mark.parametrize("spell", ["relative", "through a link", "with a detour"])
def test_a_lock_has_one_holder_however_its_path_is_spelled(path, spell, monkeypatch):
    monkeypatch.chdir(path.parent)
    (path.parent / "link").symlink_to(path.parent)
    (path.parent / "detour").mkdir()
    other = {
        "relative": Path("lock"),
        "through a link": path.parent / "link" / "lock",
        "with a detour": path.parent / "detour" / ".." / "lock",
    }[spell]
    lock = Lock.take(path)

    assert Lock.take(other) is None

    assert in_child(lambda: taken(path)) == "False"
    lock.release()
    assert taken(other)


def test_a_lock_that_was_taken_by_a_relative_path_is_let_go_elsewhere(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    lock = Lock.take(Path("lock"))
    monkeypatch.chdir("/")

    lock.release()

    assert taken(path)


def test_of_many_threads_one_takes_the_lock(path):
    together = threading.Barrier(16)

    def take(_):
        together.wait(10)
        return Lock.take(path)

    with ThreadPoolExecutor(16) as threads:
        locks = [lock for lock in threads.map(take, range(16)) if lock]

    assert len(locks) == 1
    locks[0].release()


def test_a_lock_may_be_let_go_of_while_its_thread_takes_another(path, monkeypatch):
    """As by a finalizer, which Python may run at any moment."""
    first, real = Lock.take(path), os.open

    def opened(*given):
        first.release()
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        second = Lock.take(path.with_name("other"))

    assert second
    again = Lock.take(path)
    assert again
    for lock in (second, again):
        lock.release()


def test_another_process_is_refused_until_the_lock_is_let_go(path):
    lock = Lock.take(path)

    refused = in_child(lambda: taken(path))
    lock.release()
    admitted = in_child(lambda: taken(path))

    assert (refused, admitted) == ("False", "True")


def test_a_try_of_another_process_does_not_let_the_lock_go(path):
    lock = Lock.take(path)

    answers = [in_child(lambda: taken(path)) for _ in range(3)]

    assert answers == ["False"] * 3
    lock.release()


def test_a_lock_ends_with_the_process_that_holds_it(path):
    with another_process(lambda: Lock.take(path)):
        before = taken(path)

    assert (before, taken(path)) == (False, True)


def test_a_forked_child_does_not_keep_a_dead_parent_s_lock(path):
    ready, told = os.pipe()
    waiting, go = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            Lock.take(path)
            if not os.fork():  # the orphan: it outlives the one that took the lock
                os.write(told, b"!")
                os.read(waiting, 1)
        finally:
            os._exit(0)
    os.waitpid(parent, 0)
    assert os.read(ready, 1) == b"!"

    free = taken(path)

    os.write(go, b"!")
    for descriptor in (go, waiting, ready, told):
        os.close(descriptor)
    assert free


def test_a_forked_child_cannot_let_its_parent_s_lock_go(path):
    lock = Lock.take(path)

    in_child(lock.release)

    assert in_child(lambda: taken(path)) == "False"
    lock.release()


def test_a_lock_that_is_not_made_has_to_be_there(path):
    with pytest.raises(FileNotFoundError):
        Lock.take(path, make=False)

    assert not path.exists()
    assert taken(path)
    assert Lock.take(path, make=False).release() is None


def test_a_lock_is_not_taken_through_a_link(path):
    path.symlink_to(path.parent / "elsewhere")

    with pytest.raises(OSError, match="link"):
        Lock.take(path)

    assert not (path.parent / "elsewhere").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to count descriptors")
def test_a_lock_that_was_refused_leaves_no_descriptor_open(path):
    with another_process(lambda: Lock.take(path)):
        before = len(names(Path("/proc/self/fd")))

        refused = [Lock.take(path) for _ in range(5)]

        assert refused == [None] * 5
        assert len(names(Path("/proc/self/fd"))) == before


def test_a_child_waits_for_no_thread_of_its_parent(path, monkeypatch):
    held = threading.Lock()
    held.acquire()
    monkeypatch.setattr(disk.Lock, "_guard", held)

    disk.Lock.after_fork()
    lock = disk.Lock.take(path)

    assert lock is not None
    lock.release()


# What others may have put there.


def test_a_small_file_is_read_whole_and_of_a_larger_one_so_much_that_it_shows(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")

    assert [disk.read_small(tmp_path / "file", size) for size in (9, 5, 4, 0)] == [
        b"12345",
        b"12345",
        b"12345",
        b"1",
    ]


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a directory", "nothing"])
def test_only_a_file_is_opened(tmp_path, kind):
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "place"
    {
        "a link": lambda: place.symlink_to("file"),
        "a pipe": lambda: os.mkfifo(place),
        "a directory": place.mkdir,
        "nothing": lambda: None,
    }[kind]()

    with pytest.raises(OSError, match="place"):
        disk.open_file(place)


def test_a_small_file_that_comes_in_pieces_is_whole(tmp_path, monkeypatch):
    class Slow(io.BytesIO):
        def read(self, most):
            return super().read(min(most, 2))

    monkeypatch.setattr(disk, "open_file", lambda path: Slow(b"12345"))

    assert disk.read_small(tmp_path / "file", 9) == b"12345"


def test_what_is_no_file_is_not_left_open(tmp_path):
    with pytest.raises(OSError, match="not a file"):
        disk.open_file(tmp_path)

    assert open_below(tmp_path) == []


def test_a_new_file_that_somebody_has_removed_fails_as_it_failed(tmp_path):
    def write_and_fail():
        with disk.new_file(tmp_path / "file"):
            (tmp_path / "file").unlink()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        write_and_fail()


def test_a_directory_is_made_with_the_rights_that_were_asked_for(tmp_path):
    disk.make_directory(tmp_path / "a" / "b", 0o700)

    rights = [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")]
    assert rights == [0o700, 0o700]


def test_a_lock_is_for_its_owner_alone(path):
    lock = Lock.take(path)

    assert path.stat().st_mode & 0o777 == 0o600
    lock.release()


def test_a_lock_that_cannot_be_closed_is_let_go(path, monkeypatch):
    lock, close = Lock.take(path), os.close

    def fail(number):
        close(number)
        raise OSError(errno.EIO, "a disk that fails")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        lock.release()

    assert taken(path)


def test_two_threads_do_not_take_a_lock_at_the_same_moment(path, monkeypatch):
    locks, real = [], os.open

    def opened(*given):
        """The first is on its way while the second tries."""
        if not others:
            others.append(threading.Thread(target=lambda: locks.append(Lock.take(path))))
            others[0].start()
            others[0].join(0.2)
        return real(*given)

    others = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        locks.append(Lock.take(path))
        others[0].join()

    assert [lock is not None for lock in locks].count(True) == 1
    for lock in filter(None, locks):
        lock.release()


def test_a_directory_that_is_not_there_is_not_private(tmp_path):
    with pytest.raises(FileNotFoundError):
        disk.check_private(tmp_path / "missing")

    assert not (tmp_path / "missing").exists()


def test_a_lock_that_the_system_refuses_for_another_reason_is_an_error(path, monkeypatch):
    closed = []
    close = os.close
    monkeypatch.setattr(fcntl, "lockf", failing(errno.ENOLCK))
    monkeypatch.setattr(os, "close", lambda number: closed.append(number) or close(number))

    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        Lock.take(path)

    assert len(closed) == 1
    monkeypatch.undo()
    lock = Lock.take(path)
    assert lock is not None
    lock.release()
