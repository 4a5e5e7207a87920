"""What is brought here goes again."""

import subprocess
import sys

from holdfast import CheckpointStore
from holdfast.backends.local import LocalBackend
from holdfast.writer import Writer


def test_a_download_goes_when_its_process_ends(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    CheckpointStore(LocalBackend(tmp_path / "run")).save(tmp_path / "model.bin", step=1)
    code = (
        "import holdfast, sys; path = holdfast.open_store(sys.argv[1]).download();"
        "print((path / 'model.bin').read_bytes())"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True
    )

    assert ran.stdout == "b'weights'\n", ran.stderr
    assert list((tmp_path / "run" / ".workspace").iterdir()) == []


def test_a_sweep_deletes_what_a_killed_process_left_unfinished(tmp_path):
    code = (
        "import holdfast, os, sys; draft = holdfast.open_store(sys.argv[1]).draft(step=1);"
        "(draft.directory / 'half').write_bytes(b'x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "run"])
    workspace = tmp_path / "run" / ".workspace"
    assert len(list(workspace.iterdir())) == 1
    store = CheckpointStore(LocalBackend(tmp_path / "run"), writer=Writer())

    store.sweep(dry_run=True)
    assert len(list(workspace.iterdir())) == 1
    store.sweep()

    assert list(workspace.iterdir()) == []
