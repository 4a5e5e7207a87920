"""
Scripts in processes that have Keras and TensorFlow already, for to import them takes seconds.

They are forks of one process, which imports and does nothing else: TensorFlow's runtime starts with
the first tensor, and would not survive the fork.
"""

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Imported:
    """Runs scripts, one at a time, as `python SCRIPT` would."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.imported"],
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: Path, *arguments: str, cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """What a script printed, and its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = [str(script), *arguments]
        with tempfile.TemporaryDirectory() as directory:
            out, err = Path(directory, "out"), Path(directory, "err")
            task = {"command": command, "cwd": str(cwd), "env": {**env}}
            self._process.stdin.write(json.dumps({**task, "out": str(out), "err": str(err)}) + "\n")
            self._process.stdin.flush()
            code = self._process.stdout.readline()
            assert code, f"the process that imports ended with {self._process.wait()}"
            return subprocess.CompletedProcess(command, int(code), out.read_text(), err.read_text())

    def close(self) -> None:
        self._process.communicate()  # the end of its input ends it


@functools.cache
def imported() -> Imported:
    """The one of this process, with which it ends."""
    started = Imported()
    atexit.register(started.close)
    return started


def _serve() -> Mapping[str, Any] | None:
    """Fork for each task; in the child that is its task, in the parent None in the end."""
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _become(task: Mapping[str, Any]) -> None:
    """Go on as a process that was started for a task, to the same end as every other."""
    for descriptor, path in enumerate((os.devnull, task["out"], task["err"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"])
    sys.argv = task["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    import holdfast.keras
    import holdfast.tensorflow  # noqa: F401

    if (mine := _serve()) is not None:
        _become(mine)
