"""
One mistake at a time, in a copy of a process that has imported everything and collected the tests.

A mistake inside a function is put into the function where it stands. Any other is compiled into the
module as it is imported, in a copy of a process that has not imported the library yet.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import os
import pwd
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import coverage
import hypothesis
import pytest

#: What a copy may take of the processor beyond three times what its tests usually take, in seconds,
#: and for how long it may do nothing at all: by then it hangs.
_SPARE_S, _STILL_S = 20, 30
#: Where it works if there is memory for it: a mistake may make more files than a disk soon removes.
_MEMORY = "/dev/shm"
_SCRATCH_BYTES = 2**28
#: capabilities(7), prctl(2) and capset(2).
_CAP_DAC_READ_SEARCH, _PR_SET_KEEPCAPS, _CAPABILITY_VERSION = 1 << 2, 8, 0x20080522
_NO_REWRITE = "ignore::pytest.PytestAssertRewriteWarning"


class Tests:
    """
    Collects tests once, and then does with them what it is told to.

    Attributes:
        items: the tests by their names.
        failed: the name of the first that failed since it was last cleared.
    """

    def __init__(self, then: Callable[["Tests"], None]) -> None:
        self.items: dict[str, pytest.Item] = {}
        self.failed = ""
        self._then = then

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self._then(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def run(self, names: Sequence[str]) -> str:
        """The name of the first of these that fails, or nothing."""
        self.failed = ""
        items = [self.items[name] for name in names]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                break
        return self.failed

    def traced(self, modules: Sequence[Path]) -> dict[str, Any]:
        """How long each takes, and which lines of the modules it runs; without those that fail."""
        took: dict[str, float] = {}
        tracer = coverage.Coverage(data_file=None, include=[str(path) for path in modules])
        with tracer.collect():
            for name in self.items:
                tracer.switch_context(name)
                began = time.process_time()
                if not self.run([name]):
                    took[name] = time.process_time() - began
        found: dict[str, Any] = {name: (seconds, {}) for name, seconds in took.items()}
        data = tracer.get_data()
        for path in data.measured_files():
            for line, names in data.contexts_by_lineno(path).items():
                for name in took.keys() & set(names):
                    found[name][1].setdefault(path, []).append(line)
        return found


def collected(files: Sequence[str], then: Callable[[Tests], None]) -> int:
    """Collect the tests of some files and do something with them; what pytest returns."""
    hypothesis.settings.register_profile(
        "mutation",
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutation")
    asked = ["-q", "-p", "no:cacheprovider", "-W", _NO_REWRITE]
    return int(pytest.main([*asked, *files], plugins=[Tests(then)]))


def apart(act: Callable[[], str], seconds: float) -> str:
    """
    What an act in a copy of this process says; `hangs`, or how it died, if it says nothing.

    The copy has a directory of its own for what it writes.
    """
    inside = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="holdfast-mutant-", dir=inside))
    child = os.fork()
    if not child:
        try:
            _shut_in(directory, seconds)
            told = act()
            (directory / "told").write_text(told)
            os._exit(0)
        finally:
            os._exit(1)
    try:
        status = _ended(child)
        if status:
            return f"ended with {status}"
        return "hangs" if status is None else (directory / "told").read_text()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _shut_in(directory: Path, seconds: float) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for which, most in (
        (resource.RLIMIT_CPU, int(3 * seconds + _SPARE_S)),
        (resource.RLIMIT_FSIZE, _SCRATCH_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["HOME"] = os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    os.fsync = lambda _: None  # what a power cut leaves is tried elsewhere
    sys.dont_write_bytecode = True
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)


def give_rights_up() -> None:
    """
    Go on as anybody, who may at most read what is not his: a mistake may remove what lies anywhere.

    To read is left to who had it, since Python itself may lie in root's home.
    """
    if os.getuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    library = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    library.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    kept = (ctypes.c_uint32 * 6)(_CAP_DAC_READ_SEARCH, _CAP_DAC_READ_SEARCH)
    none = (ctypes.c_uint32 * 6)()
    if library.capset(header, kept) != 0 and library.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "the rights of root cannot be given up")


def _ended(child: int) -> int | None:
    """How a copy ended; None if it took nothing of the processor for long, or far too much."""
    used, since, pause = -1.0, time.monotonic(), 0.005
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # whom it has left behind
            code = os.waitstatus_to_exitcode(status)
            return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code
        now = time.monotonic()
        if (taken := _processor_time(child)) != used:
            used, since = taken, now
        if now - since > _STILL_S:
            os.killpg(child, signal.SIGINT)  # so that what it has made elsewhere goes
            time.sleep(1)
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.2)


def _processor_time(group: int) -> float:
    """What a process has taken, and its children that have ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return -1.0


# A mistake inside a function.


def put_in_place(module: ModuleType, name: str, tree: Any) -> None:
    """
    Give a function of an imported module the code of another version of it.

    Raises:
        LookupError: there is no such function, or its code does not fit.
    """
    code = _code(compile(tree, module.__file__ or "", "exec"), name.split("."))
    function = _function(module, name.split("."))
    try:
        function.__code__ = code
    except ValueError as error:
        raise LookupError(name) from error


def _code(outer: CodeType, way: list[str]) -> CodeType:
    for part in way:
        inner = [each for each in outer.co_consts if isinstance(each, CodeType)]
        outer = next((each for each in inner if each.co_name == part), outer)
    return outer


def _function(module: ModuleType, way: list[str]) -> FunctionType:
    found: Any = module
    for part in way:
        found = vars(found).get(part)
    found = getattr(found, "fget", None) or getattr(found, "__func__", found)
    found = inspect.unwrap(found) if callable(found) else found
    if not isinstance(found, FunctionType) or found.__name__ != way[-1]:
        raise LookupError(".".join(way))
    return found


# Any other mistake.


class Mistaken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, and has something else executed in the place of its source."""

    def __init__(self, name: str, tree: Any) -> None:
        self._name = name
        self._tree = tree
        self._path = ""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        self._path = spec.origin or ""
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, self._path, "exec"), vars(module))


def imported_with(module: str, tree: Any, names: Sequence[str]) -> str:
    """The first of some tests that fails where a module is imported with a mistake."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("holdfast", "tests")]:
        del sys.modules[name]
    sys.meta_path.insert(0, Mistaken(module, tree))
    told: list[str] = []
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))

    def run(tests: Tests) -> None:
        give_rights_up()
        told.append(tests.run(names))

    collected(files, run)
    return told[0] if told else "the tests could not be collected"
