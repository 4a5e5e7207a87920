"""The kill harness itself: it counts what it says, strikes where it says, and leaves nothing."""

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash import killer
from tests.crash.killer import (
    ActionFailedError,
    Call,
    TracingUnavailableError,
    Window,
    points,
    run,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ptrace and seccomp are Linux's")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def publish(place: Path) -> Callable[[], str]:
    """Eight calls that nearly every careful save is made of."""

    def act() -> str:
        descriptor = os.open(place / "part", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, b"12345678")
        os.fsync(descriptor)
        os.close(descriptor)
        (place / "part").rename(place / "whole")
        (place / "folder").mkdir()
        os.link(place / "whole", place / "folder" / "link")
        (place / "whole").unlink()
        os.truncate(place / "folder" / "link", 3)
        return "published"

    return act


def kinds(calls: tuple[Call, ...], place: Path) -> list[tuple[str, str]]:
    return [(call.kind, os.path.relpath(call.path, place)) for call in calls]


PUBLISHED = [
    ("open", "part"),
    ("write", "part"),
    ("sync", "part"),
    ("rename", "whole"),
    ("mkdir", "folder"),
    ("link", "folder/link"),
    ("unlink", "whole"),
    ("truncate", "folder/link"),
]


# Recording.


def test_a_recorded_run_lists_exactly_the_calls_that_were_made(place: Path) -> None:
    outcome = run(publish(place), under=place)

    assert kinds(outcome.calls, place) == PUBLISHED
    assert [call.size for call in outcome.calls] == [None, 8, None, None, None, None, None, 3]
    assert outcome.calls[3].source == str(place / "part")
    assert outcome.calls[5].source == str(place / "whole")
    assert (outcome.struck, outcome.killed, outcome.exit_code) == (None, False, 0)
    assert outcome.result == "published"
    assert (place / "folder" / "link").read_bytes() == b"123"


def test_a_call_outside_is_not_counted(place: Path, tmp_path: Path) -> None:
    def act() -> None:
        (tmp_path / "outside").write_bytes(b"1")
        (tmp_path / "placebo").mkdir()  # begins like the place, and is another
        (place / "inside").write_bytes(b"1")

    outcome = run(act, under=place)

    assert kinds(outcome.calls, place) == [("open", "inside"), ("write", "inside")]


def test_a_call_that_only_reads_is_not_counted(place: Path) -> None:
    (place / "file").write_bytes(b"1")

    outcome = run((place / "file").read_bytes, under=place)

    assert outcome.calls == ()
    assert outcome.result == b"1"


@pytest.mark.parametrize(("flags", "kinds_seen"), [(os.O_RDONLY, []), (os.O_RDWR, ["open"])])
def test_flags_that_lie_in_memory_are_read_there(
    place: Path, flags: int, kinds_seen: list[str]
) -> None:
    (place / "file").touch()

    def act() -> int:
        openat2, here, how = 437, -100, struct.pack("=QQQ", flags, 0, 0)
        name = os.fsencode(place / "file")
        return ctypes.CDLL(None).syscall(openat2, here, name, how, len(how))

    outcome = run(act, under=place)

    assert isinstance(outcome.result, int)
    assert outcome.result > 2
    assert [call.kind for call in outcome.calls] == kinds_seen


def test_several_places_may_be_watched(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"

    outcome = run(lambda: (other.mkdir(), (place / "a").mkdir()), under=[place, other])

    assert kinds(outcome.calls, tmp_path) == [("mkdir", "other"), ("mkdir", "place/a")]


def test_a_rename_out_of_the_place_counts(place: Path, tmp_path: Path) -> None:
    (place / "file").touch()

    outcome = run(lambda: (place / "file").rename(tmp_path / "file"), under=place)

    assert kinds(outcome.calls, tmp_path) == [("rename", "file")]


def test_paths_relative_to_a_folder_or_through_a_link_are_found(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(place)

    def act() -> None:
        os.chdir(place)
        Path("by-folder").mkdir()
        folder = os.open(".", os.O_RDONLY)
        os.mkdir("by-descriptor", dir_fd=folder)
        (tmp_path / "alias" / "by-link").mkdir()
        os.rmdir("by-folder", dir_fd=folder)

    outcome = run(act, under=tmp_path / "alias")

    assert kinds(outcome.calls, place) == [
        ("mkdir", "by-folder"),
        ("mkdir", "by-descriptor"),
        ("mkdir", "by-link"),
        ("rmdir", "by-folder"),
    ]


def test_each_file_changing_function_of_the_standard_library_is_seen(place: Path) -> None:
    def act() -> None:
        (place / "a").write_bytes(b"12345678")
        with (place / "a").open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"12", 0)
            os.writev(file.fileno(), [b"1", b"234"])
            os.pwritev(file.fileno(), [b"1", b"23"], 2)
            os.posix_fallocate(file.fileno(), 0, 16)
            os.fdatasync(file.fileno())
            os.fchmod(file.fileno(), 0o600)
            os.utime(file.fileno())
            os.truncate(file.fileno(), 8)
        shutil.copyfile(place / "a", place / "b")
        (place / "a").chmod(0o644)
        os.utime(place / "a")
        os.chown(place / "a", os.getuid(), os.getgid())
        (place / "c").symlink_to("a")
        os.mkfifo(place / "d")
        (place / "b").replace(place / "a")

    outcome = run(act, under=place)

    assert outcome.error is None
    assert kinds(outcome.calls, place) == [
        ("open", "a"),
        ("write", "a"),
        ("open", "a"),
        ("write", "a"),
        ("write", "a"),
        ("write", "a"),
        ("write", "a"),
        ("sync", "a"),
        ("mode", "a"),
        ("times", "a"),
        ("truncate", "a"),
        ("open", "b"),
        ("write", "b"),  # and not the second try, which answers that nothing is left
        ("mode", "a"),
        ("times", "a"),
        ("owner", "a"),
        ("symlink", "c"),
        ("open", "d"),
        ("rename", "a"),
    ]
    assert [call.size for call in outcome.calls if call.kind == "write"] == [8, 2, 4, 3, 16, 8]


def test_closing_counts_only_where_asked_for_and_for_writable_files(place: Path) -> None:
    def act() -> None:
        (place / "file").write_bytes(b"1")
        (place / "file").read_bytes()

    outcome = run(act, under=place, closes=True)

    assert [call.kind for call in outcome.calls] == ["open", "write", "close"]


def test_a_thread_is_followed(place: Path) -> None:
    def act() -> None:
        threads = [threading.Thread(target=(place / name).mkdir) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    outcome = run(act, under=place)

    assert sorted(kinds(outcome.calls, place)) == [("mkdir", "a"), ("mkdir", "b"), ("mkdir", "c")]


def test_a_command_that_the_action_starts_is_followed_even_into_a_session_of_its_own(
    place: Path,
) -> None:
    def act() -> None:
        subprocess.run(["mkdir", place / "a"], check=True)
        subprocess.run(["mkdir", place / "b"], check=True, start_new_session=True)

    outcome = run(act, under=place)

    assert kinds(outcome.calls, place) == [("mkdir", "a"), ("mkdir", "b")]


def test_only_what_happens_inside_the_window_counts(place: Path) -> None:
    window = Window()

    def act() -> None:
        (place / "before").mkdir()
        with window:
            (place / "inside").mkdir()
        (place / "after").mkdir()

    recorded = run(act, under=place, window=window)
    shutil.rmtree(place)
    place.mkdir()
    killed = run(act, under=place, window=window, at=1)

    assert kinds(recorded.calls, place) == [("mkdir", "inside")]
    assert killed.struck == killed.calls[0]
    assert [path.name for path in place.iterdir()] == ["before"]


# Killing.


def effects(place: Path) -> list[tuple[str, int]]:
    return sorted(
        (str(path.relative_to(place)), path.stat().st_size if path.is_file() else -1)
        for path in place.rglob("*")
    )


#: What lies in the place after the first 0, 1, 2 … calls.
STATES = [
    [],
    [("part", 0)],
    [("part", 8)],
    [("part", 8)],
    [("whole", 8)],
    [("folder", -1), ("whole", 8)],
    [("folder", -1), ("folder/link", 8), ("whole", 8)],
    [("folder", -1), ("folder/link", 8)],
    [("folder", -1), ("folder/link", 3)],
]


def test_a_kill_before_the_nth_call_leaves_what_the_calls_before_it_did(place: Path) -> None:
    def prepare() -> None:
        shutil.rmtree(place)
        place.mkdir()

    left = []
    for outcome in points(publish(place), under=place, prepare=prepare):
        left.append(effects(place))
        assert (outcome.killed, outcome.exit_code) == (True, -signal.SIGKILL)
        assert kinds(outcome.calls, place) == PUBLISHED[: len(left)]
        assert outcome.struck == outcome.calls[-1]

    assert left == STATES[:-1]
    assert effects(place) == STATES[-1]


def test_a_torn_call_happens_and_a_torn_write_happens_by_half(place: Path) -> None:
    def prepare() -> None:
        shutil.rmtree(place)
        place.mkdir()

    left = []
    for outcome in points(publish(place), under=place, prepare=prepare, how="torn"):
        left.append(effects(place))
        assert (outcome.killed, outcome.exit_code) == (True, -signal.SIGKILL)

    assert left == [STATES[1], [("part", 4)], *STATES[3:]]


@pytest.mark.parametrize(
    ("act", "half"),
    [
        (lambda file: os.write(file, b"123456"), b"123"),
        (lambda file: os.write(file, b"1"), b"1"),
        (lambda file: os.pwrite(file, b"123456", 1), b"\x00123"),
        (lambda file: os.writev(file, [b"1", b"", b"234", b"56"]), b"123"),
        (lambda file: os.writev(file, [b"1234", b"56"]), b"123"),
        (lambda file: os.pwritev(file, [b"12", b"34"], 1), b"\x0012"),
    ],
    ids=["write", "one byte", "pwrite", "writev", "writev in its first piece", "pwritev"],
)
def test_every_kind_of_write_can_be_torn(
    place: Path, act: Callable[[int], object], half: bytes
) -> None:
    (place / "file").touch()

    def write() -> None:
        act(os.open(place / "file", os.O_RDWR))

    run(write, under=place, at=2, how="torn")

    assert (place / "file").read_bytes() == half


@pytest.mark.parametrize("copy", ["sendfile", "copy_file_range"])
def test_a_copy_inside_the_kernel_is_torn_by_half_of_the_file(place: Path, copy: str) -> None:
    (place / "from").write_bytes(b"12345678")

    def act() -> None:
        source = os.open(place / "from", os.O_RDONLY)
        target = os.open(place / "to", os.O_WRONLY | os.O_CREAT)
        if copy == "sendfile":
            os.sendfile(target, source, 0, 1 << 20)
        else:
            os.copy_file_range(source, target, 1 << 20)

    outcome = run(act, under=place, at=2, how="torn")

    assert outcome.struck == Call(copy, "write", str(place / "to"), 8, str(place / "from"))
    assert (place / "to").read_bytes() == b"1234"


def test_a_kill_in_one_thread_ends_them_all(place: Path) -> None:
    def act() -> None:
        started = threading.Event()

        def wait_for_ever() -> None:
            started.set()
            threading.Event().wait()

        threading.Thread(target=wait_for_ever).start()
        started.wait()
        worker = threading.Thread(target=(place / "a").mkdir)
        worker.start()
        worker.join()
        (place / "b").mkdir()

    before = run(act, under=place, at=1)
    assert (before.killed, effects(place)) == (True, [])

    torn = run(act, under=place, at=1, how="torn")
    assert (torn.killed, effects(place)) == (True, [("a", -1)])


def test_a_kill_ends_the_commands_that_the_action_started(place: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)

    def act() -> None:
        subprocess.Popen(["sleep", "1000"], close_fds=False, start_new_session=True)
        (place / "a").mkdir()

    outcome = run(act, under=place, at=1)

    os.close(writer)
    assert outcome.killed
    assert os.read(reader, 1) == b""  # the last holder of the other end is gone
    os.close(reader)


def test_an_hdf5_file_is_struck_at_each_write_of_the_c_library(place: Path) -> None:
    h5py = pytest.importorskip("h5py")

    def act() -> None:
        with h5py.File(place / "file.h5", "w") as file:
            file["values"] = list(range(1000))

    seen = [outcome.struck for outcome in points(act, under=place, how="torn")]

    assert {call.path for call in seen if call} == {str(place / "file.h5")}
    assert sum(call.kind == "write" for call in seen if call) > 3


def test_runs_in_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    places = [tmp_path / str(at) for at in range(9)]
    for place in places:
        place.mkdir()

    def strike(at: int) -> list[tuple[str, int]]:
        run(publish(places[at]), under=places[at], at=at + 1)
        return effects(places[at])

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(strike, range(9))) == STATES


# Failing.


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE])
@pytest.mark.parametrize("at", range(1, 9))
def test_the_action_sees_the_errno_and_the_call_does_not_happen(
    place: Path, code: int, at: int
) -> None:
    outcome = run(publish(place), under=place, at=at, how=code)

    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.errno) == (type(OSError(code, "")).__name__, code)
    assert "Exception" in outcome.error.bases
    assert (outcome.killed, outcome.exit_code, outcome.result) == (False, 1, None)
    assert outcome.struck == outcome.calls[at - 1]
    assert effects(place) == STATES[at - 1]


def attempts(place: Path) -> Callable[[], list[str]]:
    def attempt(make: Callable[[], object]) -> str:
        try:
            make()
        except OSError as error:
            return errno.errorcode[error.errno]
        return "done"

    def act() -> list[str]:
        file = os.open(place / "file", os.O_WRONLY | os.O_CREAT)
        return [
            attempt(lambda: os.write(file, b"1")),
            attempt(lambda: os.pwrite(file, b"2", 1)),
            attempt(lambda: os.fsync(file)),
            attempt(lambda: os.write(file, b"3")),
        ]

    return act


def test_an_errno_strikes_once_or_the_same_kind_for_good(place: Path) -> None:
    once = run(attempts(place), under=place, at=2, how=errno.ENOSPC)
    for_good = run(attempts(place), under=place, at=2, how=errno.ENOSPC, sticky=True)

    assert once.result == ["ENOSPC", "done", "done", "done"]
    assert for_good.result == ["ENOSPC", "ENOSPC", "done", "ENOSPC"]


def test_a_close_that_fails_has_closed(place: Path) -> None:
    def act() -> bool:
        file = os.open(place / "file", os.O_WRONLY | os.O_CREAT)
        try:
            os.close(file)
        except OSError as error:
            return error.errno == errno.ENOSPC and not Path(f"/proc/self/fd/{file}").exists()
        return False

    outcome = run(act, under=place, at=2, how=errno.ENOSPC, closes=True)

    assert outcome.result is True


# What comes back.


def test_an_exception_comes_back_with_its_traceback(place: Path) -> None:
    def act() -> None:
        raise ValueError("no")

    outcome = run(act, under=place)

    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("ValueError", "no")
    assert "in act" in outcome.error.traceback
    assert outcome.exit_code == 1


def test_a_large_result_and_large_output_come_back(place: Path) -> None:
    def act() -> bytes:
        print("x" * 1_000_000, flush=True)
        os.write(2, b"y")
        return bytes(1_000_000)

    outcome = run(act, under=place)

    assert outcome.result == bytes(1_000_000)
    assert outcome.output == "x" * 1_000_000 + "\ny"


def test_a_result_that_cannot_be_pickled_comes_back_described(place: Path) -> None:
    outcome = run(lambda: lambda: 1, under=place)

    assert "lambda" in str(outcome.result)


def test_an_end_by_exit_or_by_a_signal_is_told(place: Path) -> None:
    assert run(lambda: os._exit(3), under=place).exit_code == 3

    outcome = run(lambda: os.kill(os.getpid(), signal.SIGTERM), under=place)

    assert (outcome.exit_code, outcome.killed) == (-signal.SIGTERM, False)


def test_a_signal_handler_of_the_action_runs(place: Path) -> None:
    def act() -> list[int]:
        seen: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
        os.kill(os.getpid(), signal.SIGTERM)
        return seen

    assert run(act, under=place).result == [signal.SIGTERM]


def test_points_end_with_an_error_where_the_action_fails_by_itself(place: Path) -> None:
    def act() -> None:
        (place / "a").mkdir(exist_ok=True)
        raise ValueError("by itself")

    with pytest.raises(ActionFailedError, match="by itself"):
        list(points(act, under=place))


# What it needs, and what it leaves.


def test_time_over_kills_all_and_raises(place: Path) -> None:
    def act() -> None:
        (place / "a").mkdir()
        threading.Event().wait()

    before = children()

    with pytest.raises(TimeoutError, match="place/a"):
        run(act, under=place, timeout=0.2)

    assert children() == before


def test_no_process_and_no_descriptor_is_left(place: Path) -> None:
    def outcomes() -> None:
        run(publish(place), under=place)
        run(publish(place), under=place, at=2)
        run(publish(place), under=place, at=2, how="torn")
        run(lambda: threading.Thread(target=threading.Event().wait).start(), under=place)
        run(lambda: subprocess.Popen(["sleep", "1000"]) and None, under=place)

    outcomes()
    before = holdings()

    outcomes()

    assert holdings() == before


def holdings() -> tuple[list[str], int, set[int]]:
    """The descriptors, threads and children of this process."""
    return os.listdir("/proc/self/fd"), threading.active_count(), children()  # noqa: PTH208


def children() -> set[int]:
    """Every process whose parent is this one, the dead that nobody waited for included."""
    found = set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit():
                # pid (name) state parent …; the name may hold anything, brackets too
                state = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(state[1]) == os.getpid():
                    found.add(int(folder.name))
    return found


def refuse(call: int, code: int) -> None:
    """Put a filter on this process that answers one system call with an errno."""
    load, equal, answer, fail, allow = 0x20, 0x15, 0x06, 0x00050000, 0x7FFF0000
    program = [
        (load, 0, 0, 0),
        (equal, 0, 1, call),
        (answer, 0, 0, fail | code),
        (answer, 0, 0, allow),
    ]
    code_bytes = b"".join(struct.pack("=HBBI", *line) for line in program)
    text = ctypes.create_string_buffer(code_bytes)
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program), ctypes.addressof(text)), 16
    )
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(header)), 0, 0) == 0


PTRACE, PRCTL = (101, 157) if os.uname().machine == "x86_64" else (117, 167)


@pytest.mark.parametrize(
    ("call", "code", "what"),
    [(PTRACE, errno.EPERM, "ptrace"), (PRCTL, errno.EINVAL, "a seccomp filter")],
    ids=["ptrace", "seccomp"],
)
def test_where_the_system_forbids_it_the_error_says_so(
    place: Path, call: int, code: int, what: str
) -> None:
    def forbidden() -> None:
        refuse(call, code)
        run(publish(place), under=place)

    said = in_a_fork(forbidden)

    assert said.startswith(f"TracingUnavailableError: {what} is refused here")
    assert errno.errorcode[code] in said
    assert effects(place) == []


def in_a_fork(action: Callable[[], object]) -> str:
    """What the action raises in a child that nobody traces."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:  # it is told to the parent
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 65536).decode()
    os.close(reader)
    os.waitpid(child, 0)
    return said


def test_a_run_inside_a_run_is_refused(place: Path) -> None:
    outcome = run(lambda: run(publish(place), under=place), under=place)

    assert outcome.error is not None
    assert outcome.error.type == TracingUnavailableError.__name__


def test_another_machine_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(TracingUnavailableError, match="not on linux on riscv64"):
        killer._this_machine.__wrapped__()


def test_calls_are_counted_from_one(place: Path) -> None:
    with pytest.raises(ValueError, match="from 1"):
        run(publish(place), under=place, at=0)
