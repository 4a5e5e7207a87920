"""The command as a process of its own: streams, exit codes, what it imports."""

import json
import os
import signal
import subprocess
import sys

import pytest

#: What no command may load: it could run stored code, or take seconds.
MODELS = ["keras", "tensorflow", "torch", "jax", "h5py", "numpy", "pickle"]


def holdfast(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_checkpoint_goes_there_and_comes_back(root, file, here) -> None:
    pushed = holdfast("push", root, file, "--step", 1)
    pulled = holdfast("pull", root)

    assert (pushed.returncode, pushed.stderr) == (0, "")
    assert (pulled.returncode, pulled.stderr) == (0, "")
    assert pulled.stdout == pushed.stdout
    assert (here / pulled.stdout.strip() / "model.keras").read_bytes() == b"weights"


def test_each_push_is_a_session(root, file) -> None:
    holdfast("push", root, file, "--step", 5)
    holdfast("push", root, file, "--step", 1)

    listed = json.loads(holdfast("ls", root, "--json").stdout)["checkpoints"]

    assert [(each["session"], each["step"]) for each in listed] == [(1, 5), (2, 1)]


def test_an_error_is_on_stderr_and_in_the_exit_code(root) -> None:
    result = holdfast("ls", root)

    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_damage_is_in_the_exit_code(store, file, root) -> None:
    saved = store.save(file, step=1)
    (root / "files" / str(saved) / "model.keras").unlink()

    assert holdfast("verify", root).returncode == 4


def test_wrong_usage_is_in_the_exit_code(root) -> None:
    assert holdfast("prune", root, "--keep-last", "x").returncode == 2


def test_the_script_is_the_module(store, file, root) -> None:
    store.save(file, step=1)
    script = [sys.executable, "-c", "from holdfast.cli import main; main()", "ls", str(root)]

    printed = subprocess.run(script, capture_output=True, text=True, timeout=60)

    assert printed.stdout.splitlines()[0].startswith("ID")


def test_a_stream_that_cannot_write_a_letter_gets_it_escaped(store, file, root) -> None:
    store.save(file, step=1, metrics={"größe": 1.0})

    listed = holdfast("ls", root, PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert listed.returncode == 0
    assert "gr\\xf6\\xdfe" in listed.stdout


def test_an_interruption_ends_with_the_code_of_a_shell(store, file, root) -> None:
    for step in range(3):
        store.save(file, step=step)
    script = (
        "import signal, sys\n"
        "from holdfast import CheckpointStore\n"
        "from holdfast.cli import main\n"
        "def wait(store):\n"
        "    print('waiting', flush=True)\n"
        "    signal.pause()\n"
        "CheckpointStore.__reversed__ = wait\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "ls", str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr


def test_a_reader_that_leaves_is_no_error(store, file, root) -> None:
    for step in range(3):
        store.save(file, step=step, metadata={"note": "x" * 100_000})
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "ls", str(root), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()

    process.stdout.close()

    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=60)


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["show", "latest"],
        ["verify", "--deep"],
        ["pull", "latest", "there"],
        ["prune", "--keep-last", "1", "--yes"],
        ["pin", "latest", "paper"],
        ["sweep"],
    ],
    ids=lambda words: words[0],
)
def test_no_command_loads_a_model_library(store, file, root, here, words) -> None:
    for step in range(3):
        store.save(file, step=step)
    script = (
        "import sys\n"
        "from holdfast.cli import main\n"
        "code = main(sys.argv[1:], standalone_mode=False)\n"
        f"print('loaded', [name for name in {MODELS} if name in sys.modules], code)\n"
    )

    printed = subprocess.run(
        [sys.executable, "-c", script, words[0], str(root), *words[1:]],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert printed.stdout.splitlines()[-1] == "loaded [] 0", printed.stderr
