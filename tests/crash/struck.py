"""
A function in a forked child, which tells what it does and is sent a signal at its moment.

The child tells in lines of JSON over a pipe, which outlive it.
"""

import gc
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

#: Says what the process is doing from here on: a word, and figures that belong to it.
Tell = Callable[..., object]
#: Seconds after which a process is taken to hang.
PATIENCE = 300.0
#: The exit code of a process that a handler of SIGTERM has ended, as a shell gives it.
TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Moment:
    """
    When a process gets its signal.

    Parameters:
        at (int): when it has told so many things.
        delay (float | None): and so many seconds are over, or a share of a run's time where `at`
            is 0; None sends it to itself at once.
    """

    at: int
    delay: float | None


def end_by_a_handler(tell: Tell) -> None:
    """Give the process a handler of SIGTERM of its own, which tells that it was called."""

    def handler(*_: Any) -> NoReturn:
        tell("", handled=True)
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, handler)


@dataclass
class Died:
    """
    How one process of a run ended.

    Attributes:
        code (int): as in `subprocess`: a signal is negative.
        doing (str): what it told last.
        struck (str | None): what it did when it was sent the signal.
        late (bool): the signal came some time after that was told.
        begun, trained (int | None): the first batch that it began and the last that it trained,
            counted from the beginning of the run.
        found (int | None): how many batches the newest checkpoint had before it began.
        handled (bool): its own handler of SIGTERM was called.
        parts (Mapping[str, str]): what it ended with, if it came to its end.
        error (str): what it raised.
    """

    code: int = 0
    doing: str = ""
    struck: str | None = None
    late: bool = False
    begun: int | None = None
    trained: int | None = None
    found: int | None = None
    handled: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    def take(self, line: Mapping[str, Any]) -> None:
        """Note what the process has told."""
        self.doing = line["doing"] or self.doing
        if self.begun is None:
            self.begun = line.get("begun")
        self.trained = line.get("trained", self.trained)
        self.found = line.get("found", self.found)
        self.handled |= line.get("handled", False)
        self.parts = line.get("parts", self.parts)
        self.error = line.get("error", self.error)


def start(
    act: Callable[[Tell], object], moment: Moment | None, strike: int, seconds: float
) -> Died:
    """Run something in a forked child that is sent a signal at its moment."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_the_child(act, writer, moment, strike)
    os.close(writer)
    died = Died()
    until = time.monotonic() + PATIENCE
    due = None if moment is None or moment.at else time.monotonic() + (moment.delay or 0) * seconds
    told, rest = 0, b""
    with os.fdopen(reader, "rb", 0) as pipe:
        while True:
            now = time.monotonic()
            ready, _, _ = select.select([pipe], [], [], max(0.0, min(due or until, until) - now))
            if ready:
                if not (read := pipe.read(65536)):
                    break
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    told += 1
                    died.take(json.loads(line))
                    if moment is None or moment.at != told:
                        continue
                    if moment.delay is None:
                        died.struck = died.doing  # by itself
                    else:
                        due = time.monotonic() + moment.delay
            elif due is not None and time.monotonic() >= due:
                os.kill(child, strike)
                died.struck, died.late, due = died.doing, True, None
            elif time.monotonic() >= until:
                os.kill(child, signal.SIGKILL)
                died.error = f"hangs while {died.doing}"
    died.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return died


def _be_the_child(
    act: Callable[[Tell], object], writer: int, moment: Moment | None, strike: int
) -> NoReturn:
    """Act, and never return into the caller's stack."""
    told, code = 0, 1

    def tell(doing: str, **more: Any) -> None:
        nonlocal told
        told += 1
        os.write(writer, json.dumps({"doing": doing, **more}).encode() + b"\n")
        if moment is not None and moment.at == told and moment.delay is None:
            os.kill(os.getpid(), strike)

    try:
        gc.freeze()  # a collection would copy every page of what the parent has imported
        act(tell)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        tell("failing", error=traceback.format_exc()[-3000:])
    finally:
        os._exit(code)
