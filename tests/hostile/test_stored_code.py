"""What looks at a store, copies from it and prunes it runs nothing that lies in it."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from holdfast import open_store

#: Does everything, in a process of its own, and prints what it has imported or unpickled.
_EVERYTHING = """
import json, sys, warnings
from datetime import timedelta
seen = set()
def hear(event, given):
    if event == "import":
        seen.add(given[0].partition(".")[0])
    elif event.startswith(("pickle.", "marshal.load", "ctypes.dlopen", "os.exec", "subprocess.")):
        seen.add(event)
sys.addaudithook(hear)
from click.testing import CliRunner
from holdfast import Files, KeepLast, open_store
from holdfast.cli import main
root, target = sys.argv[1:]
store = open_store(root)
newest = store.latest()
store.checkpoints(), store.best("loss"), store.verify(deep=True), store.preflight()
store.restore(Files(target))
store.download(to=target + "-copy")
store.pin(newest, "paper"), store.pins(), store.unpin("paper")
store.prune(KeepLast(1)), store.sweep(older_than=timedelta(0)), store.recover()
for line in ("ls", "show latest", "verify --deep", "pull latest " + target + "-pulled",
             "prune --keep-last 1", "pin latest x", "unpin x", "sweep", "doctor"):
    name, *rest = line.split()
    done = CliRunner().invoke(main, [name, root, *rest])
    assert done.exit_code == 0, (line, done.output, done.exc_info)
EXTRA
print(json.dumps(sorted(seen)))
"""
_FORBIDDEN = {"h5py", "keras", "tensorflow", "torch", "jax", "numpy", "fsspec", "joblib", "dill"}


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def root(tmp_path: Path, mark: Path) -> Path:
    """A store whose checkpoints hold code in every form in which models come."""
    poison = pickle.dumps(Payload(mark))
    array = io.BytesIO()
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    array.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + poison)
    model = tmp_path / "model"
    (model / "training").mkdir(parents=True)
    for path, member in (
        ("training/optimizer.npz", "0.npy"),
        ("model.keras", "config.json"),
        ("model.pt", "archive/data.pkl"),
    ):
        with zipfile.ZipFile(model / path, "w") as archive:
            archive.writestr(member, array.getvalue() if member == "0.npy" else poison)
    for path in ("state.pkl", "sitecustomize.py", "model.joblib", "conftest.py", "x.pth"):
        (model / path).write_bytes(poison if "py" not in path else b"import os; os.mkdir('mark')")
    (model / "training" / "state.json").write_bytes(b'{"format": 1, "code": "__import__"}')
    (model / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    store = open_store(tmp_path / "store")
    for step in (1, 2):
        store.save(model, step=step, metrics={"loss": 1.0})
    return tmp_path / "store"


def everything(root: Path, tmp_path: Path, *, extra: str = "") -> set[str]:
    done = subprocess.run(
        [
            *(sys.executable, "-c", _EVERYTHING.replace("EXTRA", extra)),
            *(str(root), str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_nothing_that_is_stored_is_run_and_no_library_of_models_is_imported(
    root: Path, tmp_path: Path, mark: Path
) -> None:
    seen = everything(root, tmp_path)

    assert not seen & _FORBIDDEN
    assert not [event for event in seen if event.startswith("pickle.")]
    assert not mark.exists()


def test_what_is_unpickled_or_imported_would_be_seen(
    root: Path, tmp_path: Path, mark: Path
) -> None:
    extra = 'import pickle, numpy; pickle.load(open(target + "/state.pkl", "rb"))'

    seen = everything(root, tmp_path, extra=extra)

    assert {"numpy", "pickle.find_class"} <= seen
    assert mark.exists()
