"""
Kill, tear or fail the N-th file-changing call of a real process, and say which calls it made.

`run` forks, and the child runs a callable. A seccomp filter stops every thread and process of the
child before each call that may change a file, and the parent, which traces it with ptrace, counts
those below given directories. At the N-th it does what it was asked for and lets all others
pass. So the code under test is the real one, with its threads, its libraries and its own files.

Out of reach, because the kernel shows no call for them: writes into a mapped file, io_uring and
asynchronous I/O, cloning by `ioctl`. Nothing that Holdfast, h5py or Keras does goes that way.

Proven on x86-64; aarch64 follows the kernel's headers and has not been run.
"""

import contextlib
import ctypes
import errno
import gc
import itertools
import mmap
import os
import pickle
import platform
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

#: What to do at the N-th call: kill before it, kill after half of it, or fail it with an errno.
How = Literal["before", "torn"] | int


@dataclass(frozen=True)
class Call:
    """
    One counted call, as it was asked for.

    Parameters:
        name (str): the system call; it differs between machines (`rename`, `renameat`).
        kind (str): what it does, the same on every machine: `open` (so that writing is possible),
            `write`, `rename`, `link`, `symlink`, `unlink`, `mkdir`, `rmdir`, `truncate`, `sync`,
            `mode`, `owner`, `times`, `attribute`, and `close` where it was asked for.
        path (str): the file that it changes, absolute.
        size (int | None): bytes to write, or the new length; None where that means nothing.
        source (str | None): where a rename, link or copy takes from.
        data (bytes | None): what is written, where that was asked for.
        start (int): where in the file that goes.
        empties (bool): an open that leaves nothing of what the file had.
    """

    name: str
    kind: str
    path: str
    size: int | None = None
    source: str | None = None
    data: bytes | None = None
    start: int = 0
    empties: bool = False


@dataclass(frozen=True)
class Raised:
    """The exception that ended the action, described: the live one died with its process."""

    type: str
    message: str
    errno: int | None
    bases: tuple[str, ...]
    traceback: str


@dataclass(frozen=True)
class Outcome:
    """
    How one run ended.

    Parameters:
        calls (tuple[Call, ...]): what was counted, in order; a struck call is among them.
        struck (Call | None): the call that `at` chose, None where the run made fewer.
        killed (bool): the harness killed it.
        exit_code (int): as in `subprocess`: a signal is negative; 1 after an exception.
        result (object): what the action returned, or its `repr` where that cannot be pickled.
        error (Raised | None): what the action raised.
        output (str): what it printed, both streams together.
    """

    calls: tuple[Call, ...]
    struck: Call | None
    killed: bool
    exit_code: int
    result: object
    error: Raised | None
    output: str


class TracingUnavailableError(RuntimeError):
    """This machine does not let us trace a child, so no kill test can say anything."""


class ActionFailedError(AssertionError):
    """The action failed although nothing was done to it."""


class Window:
    """
    Count only what happens while the action is inside `with window:`.

    One byte of memory that parent and child share, so opening it costs no call of its own.
    """

    def __init__(self) -> None:
        self._open = mmap.mmap(-1, 1)

    def shut(self) -> None:
        self._open[0] = 0

    def __enter__(self) -> None:
        self._open[0] = 1

    def __exit__(self, *_: object) -> None:
        self.shut()

    def __bool__(self) -> bool:
        return self._open[0] == 1


def run(
    action: Callable[[], object],
    *,
    under: Path | Sequence[Path],
    at: int | None = None,
    how: How = "before",
    sticky: bool = False,
    window: Window | None = None,
    closes: bool = False,
    contents: bool = False,
    timeout: float = 60.0,
) -> Outcome:
    """
    Run the action in a forked child and strike its `at`-th file-changing call.

    Several threads may do so at once.

    Parameters:
        action (Callable): runs in the child, which ends with it: exit handlers do not run, and
            processes and threads that it left behind are killed.
        under (Path | Sequence[Path]): only calls below these directories count.
        at (int | None): which call to strike, from 1; None only records.
        how (How): "before" kills the child and all it started before the call happens. "torn"
            shortens a write to half of its bytes, lets it happen, then kills; any other call, and
            a write of one byte, happens whole before the kill. An errno makes the call fail
            without happening.
        sticky (bool): after an errno, all later counted calls of the same kind fail as well.
        window (Window | None): count only while the action is inside it.
        closes (bool): count the closing of writable files too. A close that is made to fail does
            close, as the kernel's own does.
        contents (bool): keep what is written, too.
        timeout (float): seconds after which all is killed.

    Raises:
        TimeoutError: the time was over.
        TracingUnavailableError: ptrace or seccomp is missing or forbidden here.
    """
    if at is not None and at < 1:
        raise ValueError(f"calls are counted from 1, not from {at}")
    machine = _this_machine()
    program = _filter(machine, closes=closes)
    places = [under] if isinstance(under, Path) else list(under)
    if window is not None:
        window.shut()
    # Memory, not pipes: nobody reads while the child runs, and a full pipe would block it.
    with (
        os.fdopen(os.memfd_create("answer"), "w+b", buffering=0) as answer,
        os.fdopen(os.memfd_create("output"), "w+b", buffering=0) as output,
    ):
        gate, opener = os.pipe()
        with os.fdopen(gate, "rb", 0) as entry, os.fdopen(opener, "wb", 0) as key:
            child = os.fork()
            if child == 0:
                key.close()
                _be_the_child(action, entry.fileno(), answer.fileno(), output.fileno(), program)
            tracer = _Tracer(machine, child, places, at, how, sticky, window, contents)
            tracer.follow(key.write, timeout)
        answer.seek(0)
        output.seek(0)
        return _outcome(tracer, answer.read(), output.read().decode(errors="replace"), timeout)


def points(
    action: Callable[[], object],
    *,
    under: Path | Sequence[Path],
    prepare: Callable[[], object] = lambda: None,
    how: How = "before",
    sticky: bool = False,
    window: Window | None = None,
    closes: bool = False,
    timeout: float = 60.0,
    first: int = 1,
    every: int = 1,
) -> Iterator[Outcome]:
    """
    Strike the first call, the second, the third, until a run makes fewer calls than that.

    `first` and `every` strike a share of them only.

    `prepare` runs in this process before each run, to put the directories in order.
    Yields every struck run, so that the caller looks at what it left.

    Raises:
        ActionFailedError: the last run, to which nothing was done, did not end well.
    """
    for at in itertools.count(first, every):
        prepare()
        outcome = run(
            action,
            under=under,
            at=at,
            how=how,
            sticky=sticky,
            window=window,
            closes=closes,
            timeout=timeout,
        )
        if outcome.struck is None:
            if outcome.exit_code != 0:
                reason = outcome.error.traceback if outcome.error else outcome.output
                raise ActionFailedError(f"undisturbed, it ended with {outcome.exit_code}: {reason}")
            return
        yield outcome


# The child.


def _be_the_child(
    action: Callable[[], object], gate: int, answer: int, output: int, program: "_Program"
) -> NoReturn:
    """Wait for the tracer, put on the filter, act; never return into the caller's stack."""
    code = 1
    try:
        gc.freeze()  # a collection would copy every page of what the parent has imported
        os.dup2(output, 1)
        os.dup2(output, 2)
        # What the parent had buffered belongs to the parent: a new stream, not a flush of the old.
        sys.stdout = sys.stderr = open(output, "w", buffering=1, closefd=False)  # noqa: SIM115
        if os.read(gate, 1):
            failure = program.install()
            reply: tuple[str, object] = ("unfiltered", failure)
            if not failure:
                reply = _perform(action)
            code = 0 if reply[0] == "returned" else 1
            os.write(answer, _pickled(reply))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _perform(action: Callable[[], object]) -> tuple[str, object]:
    try:
        return "returned", action()
    except BaseException as error:  # whatever it is, the caller hears of it
        return "raised", Raised(
            type=type(error).__qualname__,
            message=str(error),
            errno=error.errno if isinstance(error, OSError) else None,
            bases=tuple(base.__qualname__ for base in type(error).__mro__[1:]),
            traceback="".join(traceback.format_exception(error)),
        )


def _pickled(reply: tuple[str, object]) -> bytes:
    try:
        return pickle.dumps(reply)
    except Exception:  # pickle raises whatever the object's own methods raise
        return pickle.dumps((reply[0], repr(reply[1])))


def _outcome(tracer: "_Tracer", answer: bytes, output: str, timeout: float) -> Outcome:
    """Put together what the tracer saw and what the child said."""
    calls = tuple(tracer.calls)
    if tracer.expired:
        raise TimeoutError(f"not over after {timeout} s; calls: {calls}; output: {output}")
    said, value = pickle.loads(answer) if answer else ("nothing", None)
    if said == "unfiltered":
        raise _unavailable("a seccomp filter", value)
    struck = tracer.at is not None and tracer.at <= len(calls)
    return Outcome(
        calls=calls,
        struck=calls[tracer.at - 1] if tracer.at is not None and struck else None,
        killed=tracer.killed,
        exit_code=os.waitstatus_to_exitcode(tracer.status),
        result=value if said == "returned" else None,
        error=value if isinstance(value, Raised) and said == "raised" else None,
        output=output,
    )


def _unavailable(what: str, code: Any) -> TracingUnavailableError:
    return TracingUnavailableError(
        f"{what} is refused here ({errno.errorcode.get(code, code)}: {os.strerror(code)}), so "
        "nothing can be killed at a chosen call. In a container allow it (for Docker: --cap-add "
        "SYS_PTRACE, or a seccomp profile with ptrace); under strace or a debugger it cannot work."
    )


# The calls.


class _Syscall(NamedTuple):
    """
    A call that may change a file.

    `path` and `source` say which argument names a file and how: `fd:0` a descriptor, `path:0` a
    path, `at:0` a directory's descriptor with the path in the argument after it. `size` is the
    number of an argument; of a gathered write it is the number of pieces.
    """

    name: str
    kind: str
    x86_64: int | None
    aarch64: int | None
    path: str
    source: str = ""
    size: int | None = None


#: Numbers from the kernel's asm/unistd_64.h (x86-64) and asm-generic/unistd.h (aarch64).
_SYSCALLS = [
    _Syscall("open", "open", 2, None, "path:0"),
    _Syscall("creat", "open", 85, None, "path:0"),
    _Syscall("openat", "open", 257, 56, "at:0"),
    _Syscall("openat2", "open", 437, 437, "at:0"),
    _Syscall("write", "write", 1, 64, "fd:0", size=2),
    _Syscall("pwrite64", "write", 18, 68, "fd:0", size=2),
    _Syscall("writev", "write", 20, 66, "fd:0", size=2),
    _Syscall("pwritev", "write", 296, 70, "fd:0", size=2),
    _Syscall("pwritev2", "write", 328, 287, "fd:0", size=2),
    _Syscall("copy_file_range", "write", 326, 285, "fd:2", "fd:0", size=4),
    _Syscall("sendfile", "write", 40, 71, "fd:0", "fd:1", size=3),
    _Syscall("fallocate", "write", 285, 47, "fd:0", size=3),
    _Syscall("rename", "rename", 82, None, "path:1", "path:0"),
    _Syscall("renameat", "rename", 264, 38, "at:2", "at:0"),
    _Syscall("renameat2", "rename", 316, 276, "at:2", "at:0"),
    _Syscall("link", "link", 86, None, "path:1", "path:0"),
    _Syscall("linkat", "link", 265, 37, "at:2", "at:0"),
    _Syscall("symlink", "symlink", 88, None, "path:1"),
    _Syscall("symlinkat", "symlink", 266, 36, "at:1"),
    _Syscall("unlink", "unlink", 87, None, "path:0"),
    _Syscall("unlinkat", "unlink", 263, 35, "at:0"),
    _Syscall("rmdir", "rmdir", 84, None, "path:0"),
    _Syscall("mkdir", "mkdir", 83, None, "path:0"),
    _Syscall("mkdirat", "mkdir", 258, 34, "at:0"),
    _Syscall("mknod", "open", 133, None, "path:0"),
    _Syscall("mknodat", "open", 259, 33, "at:0"),
    _Syscall("truncate", "truncate", 76, 45, "path:0", size=1),
    _Syscall("ftruncate", "truncate", 77, 46, "fd:0", size=1),
    _Syscall("fsync", "sync", 74, 82, "fd:0"),
    _Syscall("fdatasync", "sync", 75, 83, "fd:0"),
    _Syscall("sync_file_range", "sync", 277, 84, "fd:0"),
    _Syscall("syncfs", "sync", 306, 267, "fd:0"),
    _Syscall("chmod", "mode", 90, None, "path:0"),
    _Syscall("fchmod", "mode", 91, 52, "fd:0"),
    _Syscall("fchmodat", "mode", 268, 53, "at:0"),
    _Syscall("fchmodat2", "mode", 452, 452, "at:0"),
    _Syscall("chown", "owner", 92, None, "path:0"),
    _Syscall("lchown", "owner", 94, None, "path:0"),
    _Syscall("fchown", "owner", 93, 55, "fd:0"),
    _Syscall("fchownat", "owner", 260, 54, "at:0"),
    _Syscall("utime", "times", 132, None, "path:0"),
    _Syscall("utimes", "times", 235, None, "path:0"),
    _Syscall("futimesat", "times", 261, None, "at:0"),
    _Syscall("utimensat", "times", 280, 88, "at:0"),
    _Syscall("setxattr", "attribute", 188, 5, "path:0"),
    _Syscall("lsetxattr", "attribute", 189, 6, "path:0"),
    _Syscall("fsetxattr", "attribute", 190, 7, "fd:0"),
    _Syscall("removexattr", "attribute", 197, 14, "path:0"),
    _Syscall("lremovexattr", "attribute", 198, 15, "path:0"),
    _Syscall("fremovexattr", "attribute", 199, 16, "fd:0"),
    _Syscall("close", "close", 3, 57, "fd:0"),
]
_OPEN_FLAGS = {"open": 1, "openat": 2}  # which argument holds them
_CHANGING = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR
_GATHERED = {"writev", "pwritev", "pwritev2"}
_COPIED = {"copy_file_range": 1, "sendfile": 2}  # which argument points to the source's offset
_AT_REMOVEDIR = 0x200
_AT_FDCWD = -100


@dataclass(frozen=True)
class _Machine:
    """Where a processor keeps the number, the arguments and the result of a call."""

    audit: int
    words: int
    number: int
    arguments: tuple[int, ...]
    result: int
    calls: dict[int, _Syscall]
    leaving: tuple[int, int]  # setsid, setpgid


@cache
def _this_machine() -> _Machine:
    name = platform.machine() if sys.platform == "linux" and sys.maxsize > 2**32 else "another"
    if name == "x86_64":
        # The order of user_regs_struct: orig_rax 15, rax 10; rdi, rsi, rdx, r10, r8, r9.
        calls = {call.x86_64: call for call in _SYSCALLS if call.x86_64 is not None}
        return _Machine(0xC000003E, 27, 15, (14, 13, 12, 7, 9, 8), 10, calls, (112, 109))
    if name == "aarch64":
        calls = {call.aarch64: call for call in _SYSCALLS if call.aarch64 is not None}
        return _Machine(0xC00000B7, 34, 8, (0, 1, 2, 3, 4, 5), 0, calls, (157, 154))
    raise TracingUnavailableError(
        f"calls can be counted on 64-bit Linux on x86-64 and aarch64, not on {sys.platform} on "
        f"{platform.machine()}"
    )


# The filter.


class _Program:
    """A seccomp filter in the kernel's form, kept alive until it is installed."""

    class _Header(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    def __init__(self, instructions: Sequence[tuple[int, int, int, int]]) -> None:
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
        self._header = self._Header(len(instructions), code)
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._prctl.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 4

    def install(self) -> int:
        """Put it on this process for good; 0, or the errno that says why not."""
        set_no_new_privileges, set_seccomp, filtered = 38, 22, 2
        if self._prctl(set_no_new_privileges, 1, 0, 0, 0):
            return ctypes.get_errno()
        if self._prctl(set_seccomp, filtered, ctypes.addressof(self._header), 0, 0):
            return ctypes.get_errno()
        return 0


def _filter(machine: _Machine, *, closes: bool) -> _Program:
    """Stop at what may change a file, and let everything else run at full speed."""
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    trace, allow, fail = 0x7FF00000, 0x7FFF0000, 0x00050000
    number, architecture, arguments = 0, 4, 16
    code = [
        (load, 0, 0, architecture),
        (equal, 1, 0, machine.audit),
        (answer, 0, 0, allow),
        (load, 0, 0, number),
    ]
    for call_number, call in machine.calls.items():
        if call.kind == "close" and not closes:
            continue
        if call.name in _OPEN_FLAGS:  # most opens only read: thousands, while a framework loads
            flags = arguments + 8 * _OPEN_FLAGS[call.name]
            code += [
                (equal, 0, 4, call_number),
                (load, 0, 0, flags),
                (any_bit, 0, 1, _CHANGING),
                (answer, 0, 0, trace),
                (answer, 0, 0, allow),
            ]
        else:
            code += [(equal, 0, 1, call_number), (answer, 0, 0, trace)]
    for call_number in machine.leaving:
        # Answered "done" and not done: one kill, and one wait, must reach all that was started.
        code += [(equal, 0, 1, call_number), (answer, 0, 0, fail)]
    return _Program([*code, (answer, 0, 0, allow)])


# The tracer.

_CONT, _SYSCALL, _SEIZE, _LISTEN = 7, 24, 0x4206, 0x4208
_GETREGSET, _SETREGSET = 0x4204, 0x4205
_NT_PRSTATUS, _NT_ARM_SYSTEM_CALL = 1, 0x404
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_OPTIONS = (
    0x01  # tell the return of a call from a trap
    | 0x02  # follow fork
    | 0x04  # follow vfork
    | 0x08  # follow clone, which starts threads
    | 0x10  # an exec is an event of its own, not a signal
    | 0x80  # stop where the filter says so
    | 0x100000  # should this process die, the child dies too
)
_WALL = 0x40000000
_STOPS = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


@cache
def _libc_ptrace() -> Any:
    function = ctypes.CDLL(None, use_errno=True).ptrace
    function.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    function.restype = ctypes.c_long
    return function


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _libc_ptrace()(request, tid, address, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class _Registers:
    """The registers of a stopped thread."""

    class _Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    def __init__(self, machine: _Machine, tid: int) -> None:
        self._machine = machine
        self._tid = tid
        self._words = (ctypes.c_uint64 * machine.words)()
        self._move(_GETREGSET, _NT_PRSTATUS, self._words)

    def _move(self, request: int, kind: int, value: ctypes.Array[Any]) -> None:
        part = self._Part(ctypes.addressof(value), ctypes.sizeof(value))
        _ptrace(request, self._tid, kind, ctypes.addressof(part))

    @property
    def call(self) -> _Syscall:
        return self._machine.calls[self._words[self._machine.number]]

    def argument(self, index: int) -> int:
        return int(self._words[self._machine.arguments[index]])

    def descriptor(self, index: int) -> int:
        return ctypes.c_int(self.argument(index) & 0xFFFFFFFF).value

    def set_argument(self, index: int, value: int) -> None:
        self._words[self._machine.arguments[index]] = value
        self._move(_SETREGSET, _NT_PRSTATUS, self._words)

    def set_result(self, code: int) -> None:
        self._words[self._machine.result] = 2**64 - code
        self._move(_SETREGSET, _NT_PRSTATUS, self._words)

    def skip(self, code: int) -> None:
        """Make the call that is about to happen fail with this errno instead."""
        if self._machine.number == 8:  # aarch64 keeps the number to run apart from x8
            self._move(_SETREGSET, _NT_ARM_SYSTEM_CALL, (ctypes.c_int * 1)(-1))
        else:
            self._words[self._machine.number] = 2**64 - 1
        self.set_result(code)


class _Tracer:
    """The parent's side of one run: follows every thread, counts, strikes once."""

    def __init__(
        self,
        machine: _Machine,
        child: int,
        places: Sequence[Path],
        at: int | None,
        how: How,
        sticky: bool,
        window: Window | None,
        contents: bool,
    ) -> None:
        self.calls: list[Call] = []
        self.status = 0
        self.killed = False
        self.expired = False
        self.at = at
        self._machine = machine
        self._child = child
        self._places = [os.path.realpath(place) for place in places]
        self._how = how
        self._sticky = sticky
        self._window = window
        self._contents = contents
        #: Threads inside a call whose return matters: 0 kills there, an errno replaces the result.
        self._inside: dict[int, int] = {}

    def follow(self, let_go: Callable[[bytes], object], timeout: float) -> None:
        """Attach, let the child go, and stay until the last of its processes is gone."""
        watchdog = threading.Timer(timeout, self._expire)
        try:
            # A group of its own, so that one kill and one wait mean all that it starts.
            os.setpgid(self._child, self._child)
            try:
                _ptrace(_SEIZE, self._child, 0, _OPTIONS)
            except OSError as error:
                raise _unavailable("ptrace", error.errno) from error
            let_go(b"!")
            watchdog.start()
            self._wait(self._stopped)
        finally:
            watchdog.cancel()
            self._kill()
            self._wait(lambda _tid, _status: None)
            if watchdog.ident is not None:
                watchdog.join()

    def _wait(self, stopped: Callable[[int, int], None]) -> None:
        while True:
            try:
                tid, status = os.waitpid(-self._child, _WALL)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                stopped(tid, status)
            elif tid == self._child:
                self.status = status
                self._kill()  # what it left running would change files behind the caller's back

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child, signal.SIGKILL)

    def _expire(self) -> None:
        self.expired = True
        self._kill()

    def _stopped(self, tid: int, status: int) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        # A thread killed in the meantime is gone from ptrace and /proc; its end comes by `waitpid`.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if self.killed:
                return
            if event == _EVENT_SECCOMP:
                self._called(tid)
            elif number == signal.SIGTRAP | 0x80:
                self._returned(tid)
            elif event == _EVENT_STOP and number in _STOPS:
                _ptrace(_LISTEN, tid)
            else:
                _ptrace(_CONT, tid, 0, 0 if event else number)

    def _called(self, tid: int) -> None:
        registers = _Registers(self._machine, tid)
        call = self._describe(tid, registers)
        if call is None:
            _ptrace(_CONT, tid)
            return
        self.calls.append(call)
        at = self.at or sys.maxsize
        if len(self.calls) < at:
            _ptrace(_CONT, tid)
        elif isinstance(self._how, int):
            self._fail(tid, registers, self._how, call, at)
        elif self._how == "before":
            self.killed = True
            self._kill()
        else:
            self._halve(tid, registers, call)
            self._inside[tid] = 0
            _ptrace(_SYSCALL, tid)

    def _fail(self, tid: int, registers: _Registers, code: int, call: Call, at: int) -> None:
        chosen = len(self.calls) == at or (self._sticky and call.kind == self.calls[at - 1].kind)
        if chosen and call.kind == "close":
            self._inside[tid] = code
            _ptrace(_SYSCALL, tid)
            return
        if chosen:
            registers.skip(code)
        _ptrace(_CONT, tid)

    def _returned(self, tid: int) -> None:
        code = self._inside.pop(tid)
        if code:
            _Registers(self._machine, tid).set_result(code)
            _ptrace(_CONT, tid)
        else:
            self.killed = True
            self._kill()

    def _describe(self, tid: int, registers: _Registers) -> Call | None:
        """What the call is about to do; None where it does not count."""
        if self._window is not None and not self._window:
            return None
        call = registers.call
        path = _path(tid, registers, call.path)
        source = _path(tid, registers, call.source) if call.source else None
        moves = call.kind in {"rename", "link"}
        if not (self._covers(path) or (moves and self._covers(source))):
            return None
        kind = call.kind
        if call.name == "unlinkat" and registers.argument(2) & _AT_REMOVEDIR:
            kind = "rmdir"
        if call.name == "openat2" and not _flags(tid, registers, call) & _CHANGING:
            return None
        if kind == "close" and not _writable(tid, registers.descriptor(0)):
            return None
        size = None if call.size is None else _size(tid, registers, call)
        if kind == "write" and size == 0:  # a copy asks until nothing is left: no change
            return None
        data: bytes | None = None
        start = 0
        if self._contents and kind == "write" and call.name != "fallocate":
            data, start = _content(tid, registers, call, size or 0)
        empties = kind == "open" and bool(_flags(tid, registers, call) & os.O_TRUNC)
        return Call(call.name, kind, path or "", size, source, data, start, empties)

    def _covers(self, path: str | None) -> bool:
        return path is not None and any(
            path == place or path.startswith(place.rstrip("/") + "/") for place in self._places
        )

    def _halve(self, tid: int, registers: _Registers, call: Call) -> None:
        index = registers.call.size
        if call.kind != "write" or call.name == "fallocate" or index is None or not call.size:
            return
        half = call.size // 2
        if half == 0:
            return
        if call.name not in _GATHERED:
            registers.set_argument(index, half)
            return
        for number, (_, length) in enumerate(_pieces(tid, registers)):
            if length >= half:
                # The child dies before it could notice that its own list was changed.
                _poke(tid, registers.argument(1) + 16 * number + 8, struct.pack("=Q", half))
                registers.set_argument(index, number + 1)
                return
            half -= length


def _peek(tid: int, address: int, length: int) -> bytes:
    """Up to this many bytes of a thread's memory; fewer where its memory ends."""
    with Path(f"/proc/{tid}/mem").open("rb", buffering=0) as memory:
        return os.pread(memory.fileno(), length, address)


def _poke(tid: int, address: int, data: bytes) -> None:
    with Path(f"/proc/{tid}/mem").open("r+b", buffering=0) as memory:
        os.pwrite(memory.fileno(), data, address)


def _path(tid: int, registers: _Registers, where: str) -> str | None:
    """The file that an argument names, its directory freed of links; None where it names none."""
    how, argument = where.split(":")
    index = int(argument)
    if how == "fd":
        return _opened(tid, registers.descriptor(index))
    directory = registers.descriptor(index) if how == "at" else _AT_FDCWD
    pointer = registers.argument(index + 1 if how == "at" else index)
    name = os.fsdecode(_peek(tid, pointer, 4096).partition(b"\0")[0]) if pointer else ""
    if not name:  # utimensat and linkat may mean the descriptor itself
        return _opened(tid, directory)
    if not name.startswith("/"):
        start = "cwd" if directory == _AT_FDCWD else f"fd/{directory}"
        name = f"/proc/{tid}/{start}/{name}"
    folder, _, last = name.rstrip("/").rpartition("/")
    return f"{os.path.realpath(folder or '/').rstrip('/')}/{last}"


def _opened(tid: int, descriptor: int) -> str | None:
    try:
        path = str(Path(f"/proc/{tid}/fd/{descriptor}").readlink())
    except OSError:
        return None
    return path.removesuffix(" (deleted)") if path.startswith("/") else None


def _writable(tid: int, descriptor: int) -> bool:
    return bool(_descriptor_info(tid, descriptor, "flags:", 8) & (os.O_WRONLY | os.O_RDWR))


def _descriptor_info(tid: int, descriptor: int, key: str, base: int) -> int:
    lines = Path(f"/proc/{tid}/fdinfo/{descriptor}").read_text().splitlines()
    return next(int(line.split()[1], base) for line in lines if line.startswith(key))


def _size(tid: int, registers: _Registers, call: _Syscall) -> int:
    """Bytes that the call can move."""
    size = registers.argument(call.size or 0)
    if call.name in _GATHERED:
        return sum(length for _, length in _pieces(tid, registers))
    if call.name in _COPIED:
        # Callers ask for more than there is, and half of that would be all of the file.
        source = registers.descriptor(int(call.source.split(":")[1]))
        pointer = registers.argument(_COPIED[call.name])
        if pointer:
            (offset,) = struct.unpack("=q", _peek(tid, pointer, 8))
        else:
            offset = _descriptor_info(tid, source, "pos:", 10)
        left = Path(f"/proc/{tid}/fd/{source}").stat().st_size - int(offset)
        return max(0, min(size, left))
    return size


def _flags(tid: int, registers: _Registers, call: _Syscall) -> int:
    """How a file is opened."""
    if call.name == "openat2":
        (flags,) = struct.unpack("=Q", _peek(tid, registers.argument(2), 8))
        return int(flags)
    if call.name == "creat":
        return os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    return registers.argument(_OPEN_FLAGS[call.name]) if call.name in _OPEN_FLAGS else os.O_CREAT


def _content(tid: int, registers: _Registers, call: _Syscall, size: int) -> tuple[bytes, int]:
    """What a call writes, and where in the file."""
    if call.name in _COPIED:
        source = registers.descriptor(int(call.source.split(":")[1]))
        pointer = registers.argument(_COPIED[call.name])
        at = (
            int(struct.unpack("=q", _peek(tid, pointer, 8))[0])
            if pointer
            else _descriptor_info(tid, source, "pos:", 10)
        )
        with Path(f"/proc/{tid}/fd/{source}").open("rb") as file:
            data = os.pread(file.fileno(), size, at)
    elif call.name in _GATHERED:
        data = b"".join(_peek(tid, at, length) for at, length in _pieces(tid, registers))
    else:
        data = _peek(tid, registers.argument(1), size)
    if call.name.startswith("pwrite"):
        return data, registers.argument(3)
    descriptor = registers.descriptor(int(call.path.split(":")[1]))
    flags = _descriptor_info(tid, descriptor, "flags:", 8)
    if flags & os.O_APPEND:
        return data, Path(f"/proc/{tid}/fd/{descriptor}").stat().st_size
    return data, _descriptor_info(tid, descriptor, "pos:", 10)


def _pieces(tid: int, registers: _Registers) -> list[tuple[int, int]]:
    """The addresses and lengths of a gathered write."""
    return list(
        struct.iter_unpack("=QQ", _peek(tid, registers.argument(1), registers.argument(2) * 16))
    )
