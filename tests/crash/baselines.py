"""
What is left of a second save that is killed midway, and how many flipped bits nobody notices.

`python -m tests.crash.baselines` prints the tables for Keras's own callbacks and for Holdfast's.
Each kill point is a real `fit` of two epochs in a process of its own, killed before or after one
file call of its second save; afterwards a clean process looks at what lies there, the way a
resumed run would.

The backend is TensorFlow. Its runtime starts with the first tensor and does not survive a fork, so
this process only imports it, and every model is made, trained and looked at in a child.
"""

import hashlib
import mmap
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, cast

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a device that a thousand children would fight for
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from holdfast import KeepLast
from holdfast.keras import ModelCheckpoint
from tests.crash.killer import How, Window, run

#: What a clean look finds: a whole save with its own epoch, an error, the weights of one save with
#: the epoch of the other, or something else that loads without an error.
Verdict = Literal["usable", "unreadable", "mixed", "wrong"]


@dataclass(frozen=True)
class Subject:
    """
    Something that saves twice.

    Parameters:
        name (str): its row in the table.
        prepare (Callable): puts a new, empty directory in order before each run. It runs in the
            process that forks, so it must not start TensorFlow.
        act (Callable): saves into the directory twice, the second time inside the window. What it
            returns in an undisturbed run goes to `judge`.
        judge (Callable): looks at a directory, in a process of its own that judges many of them.
    """

    name: str
    prepare: Callable[[Path], object]
    act: Callable[[Path, Window], object]
    judge: Callable[[Path, Any], Verdict]


@dataclass(frozen=True)
class KillRow:
    """What the kills during a second save left; each call is killed twice, before and torn."""

    name: str
    calls: int
    points: int
    usable: int
    unreadable: int
    mixed: int
    wrong: int

    @property
    def bad(self) -> int:
        return self.points - self.usable


@dataclass(frozen=True)
class FlipRow:
    """How many files with one flipped bit raise, load other values unnoticed, or load the same."""

    name: str
    size: int
    flips: int
    raised: int
    crashed: int
    wrong: int
    harmless: int


def kill_row(subject: Subject, root: Path, *, parallel: int = 2) -> KillRow:
    """Kill the second save before and after each of its calls, and judge what each kill left."""
    recorded = _save(subject, root / "undisturbed", None, "before")
    reference, calls = recorded.result, len(recorded.calls)
    if recorded.error is not None or not calls:
        raise RuntimeError(f"{subject.name} fails undisturbed: {recorded}")
    hows: list[How] = ["before", "torn"]
    kills = [(root / f"{how}-{at}", at, how) for how in hows for at in range(1, calls + 1)]

    with ThreadPoolExecutor(parallel) as pool:
        struck = list(pool.map(lambda kill: _save(subject, *kill).killed, kills))
        if not all(struck):
            raise RuntimeError(f"{subject.name} makes other calls each time")
        shares = [[folder for folder, _, _ in kills[i::parallel]] for i in range(parallel)]
        verdicts = Counter(
            verdict
            for share in pool.map(lambda share: _judge(subject, share, reference), shares)
            for verdict in share
        )

    return KillRow(
        subject.name,
        calls,
        len(kills),
        usable=verdicts["usable"],
        unreadable=verdicts["unreadable"],
        mixed=verdicts["mixed"],
        wrong=verdicts["wrong"],
    )


def _save(subject: Subject, folder: Path, at: int | None, how: How) -> Any:
    folder.mkdir(parents=True)
    subject.prepare(folder)
    window = Window()
    return run(lambda: subject.act(folder, window), under=folder, at=at, how=how, window=window)


def _judge(subject: Subject, folders: Sequence[Path], reference: Any) -> list[Verdict]:
    outcome = run(
        lambda: [subject.judge(folder, reference) for folder in folders],
        under=list(folders),
        timeout=300,
    )
    if outcome.error is not None or not isinstance(outcome.result, list):
        raise RuntimeError(f"{subject.name} cannot be judged: {outcome}")
    return outcome.result


def flip_row(
    name: str,
    root: Path,
    *,
    make: Callable[[Path], tuple[Path, Any]],
    load: Callable[[Path], Any],
    flips: int = 1000,
    seed: int = 0,
    parallel: int = 2,
) -> FlipRow:
    """
    Flip one bit of a file at a time and load it.

    Parameters:
        make (Callable): makes the file in a directory; returns its path and what it holds.
        load (Callable): reads the file and returns what it holds, or raises.
    """
    root.mkdir(parents=True)
    made = run(lambda: make(root), under=root)
    if made.error is not None:
        raise RuntimeError(f"{name} cannot be made: {made.error.traceback}")
    path, reference = cast("tuple[Path, Any]", made.result)
    bits = 8 * path.stat().st_size
    chosen = random.Random(seed).sample(range(bits), flips)
    with ThreadPoolExecutor(parallel) as pool:
        shares = [chosen[i::parallel] for i in range(parallel)]
        found = Counter(
            letter
            for letters in pool.map(lambda share: _flip(path, share, load, reference), shares)
            for letter in letters
        )
    return FlipRow(
        name,
        bits // 8,
        flips,
        raised=found["r"],
        crashed=found["c"],
        wrong=found["w"],
        harmless=found["h"],
    )


def _flip(path: Path, bits: Sequence[int], load: Callable[[Path], Any], reference: Any) -> str:
    """One letter for each flip: raised, crashed, wrong, harmless."""
    letters = mmap.mmap(-1, len(bits))  # shared with the child, and still there if it crashes
    content = path.read_bytes()
    copy = path.with_name(f"{bits[0]}-{path.name}")

    def look(start: int) -> None:
        for number, bit in enumerate(bits[start:], start):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            copy.write_bytes(flipped)
            letters[number] = ord("c")
            try:
                letters[number] = ord("h" if load(copy) == reference else "w")
            except Exception:  # any error is a detection
                letters[number] = ord("r")

    done = 0
    while done < len(bits):
        run(partial(look, done), under=path.parent / "nothing", timeout=300)
        done = len(letters[:].rstrip(b"\0"))
    return letters[:].decode()


# Keras's own callbacks.


def build() -> keras.Model:
    """One layer and Adam, the same values in every process."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(256)])
    # Eagerly: tracing a graph would take longer than the two epochs.
    model.compile("adam", "mse", run_eagerly=True, jit_compile=False)
    return model


def train(model: keras.Model, callbacks: Iterable[keras.callbacks.Callback], epochs: int) -> None:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(32, 64)).astype("float32")
    targets = draw.normal(size=(32, 256)).astype("float32")
    model.fit(inputs, targets, epochs=epochs, batch_size=32, verbose=0, callbacks=list(callbacks))


def fingerprint(model: keras.Model) -> str:
    """A hash of every value that training changes, the optimizer's among them."""
    values = [*model.variables, *model.optimizer.variables]
    return hashlib.sha256(
        b"".join(keras.ops.convert_to_numpy(value).tobytes() for value in values)
    ).hexdigest()


class OpenBefore(keras.callbacks.Callback):
    """Opens the window when the second epoch ends: listed before the callback that saves."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window

    def on_epoch_end(self, epoch: int, _logs: Any = None) -> None:
        if epoch == 1:
            self._window.__enter__()


class ShutAfter(keras.callbacks.Callback):
    """Shuts the window again and notes what each save held: listed after the one that saves."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window
        self.seen: list[str] = []

    def on_epoch_end(self, _epoch: int, _logs: Any = None) -> None:
        self._window.shut()
        self.seen.append(fingerprint(self.model))


def fitting(
    make: Callable[[Path], keras.callbacks.Callback],
) -> Callable[[Path, Window], list[str]]:
    def act(folder: Path, window: Window) -> list[str]:
        after = ShutAfter(window)
        train(build(), [OpenBefore(window), make(folder), after], epochs=2)
        return after.seen

    return act


class Started(Exception):
    """Training was about to begin: nothing more needs to be known."""


class StopAtStart(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[int, str] = (-1, "")

    def on_epoch_begin(self, epoch: int, _logs: Any = None) -> None:
        self.found = (epoch, fingerprint(self.model))
        raise Started


def resumed(
    make: Callable[[Path], keras.callbacks.Callback],
) -> Callable[[Path, list[str]], Verdict]:
    """Start `fit` again, and look where it begins and with which weights."""

    def judge(folder: Path, saves: list[str]) -> Verdict:
        start = StopAtStart()
        try:
            train(build(), [make(folder), start], epochs=3)
        except Started:
            epoch, weights = start.found
        except Exception:  # the resumed run does not start, for whatever reason
            return "unreadable"
        if weights not in saves:
            return "wrong"
        return "usable" if epoch == saves.index(weights) + 1 else "mixed"

    return judge


def loaded(load: Callable[[Path], str]) -> Callable[[Path, list[str]], Verdict]:
    def judge(folder: Path, saves: list[str]) -> Verdict:
        try:
            weights = load(folder)
        except Exception:  # it does not load, for whatever reason
            return "unreadable"
        return "usable" if weights in saves else "wrong"

    return judge


def load_model(path: Path) -> str:
    return fingerprint(keras.models.load_model(path))


def load_weights(path: Path) -> str:
    model = blank()
    for value in [*model.variables, *model.optimizer.variables]:
        value.assign(keras.ops.zeros_like(value))  # what the file leaves out must not look loaded
    model.load_weights(path)
    return fingerprint(model)


@cache
def blank() -> keras.Model:
    """One network for all loads of a process: building it takes longer than loading."""
    model = build()
    model.optimizer.build(model.trainable_variables)
    return model


def back_up(folder: Path) -> keras.callbacks.Callback:
    return keras.callbacks.BackupAndRestore(str(folder / "backup"))


def back_up_twice(folder: Path) -> keras.callbacks.Callback:
    return keras.callbacks.BackupAndRestore(str(folder / "backup"), double_checkpoint=True)


def keep_best_model(folder: Path) -> keras.callbacks.Callback:
    return keras.callbacks.ModelCheckpoint(
        str(folder / "best.keras"), monitor="loss", save_best_only=True
    )


def keep_best_weights(folder: Path) -> keras.callbacks.Callback:
    return keras.callbacks.ModelCheckpoint(
        str(folder / "best.weights.h5"),
        monitor="loss",
        save_best_only=True,
        save_weights_only=True,
    )


def nothing(_: Path) -> None:
    """Keras's callbacks need no preparation."""


KERAS = [
    Subject("BackupAndRestore", nothing, fitting(back_up), resumed(back_up)),
    Subject(
        "BackupAndRestore, double_checkpoint",
        nothing,
        fitting(back_up_twice),
        resumed(back_up_twice),
    ),
    Subject(
        "ModelCheckpoint, .keras",
        nothing,
        fitting(keep_best_model),
        loaded(lambda folder: load_model(folder / "best.keras")),
    ),
    Subject(
        "ModelCheckpoint, .weights.h5",
        nothing,
        fitting(keep_best_weights),
        loaded(lambda folder: load_weights(folder / "best.weights.h5")),
    ),
]


def make_model(folder: Path) -> tuple[Path, str]:
    model = build()
    train(model, [], epochs=1)
    model.save(folder / "model.keras")
    return folder / "model.keras", fingerprint(model)


def make_weights(folder: Path) -> tuple[Path, str]:
    model = build()
    train(model, [], epochs=1)
    model.save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5", fingerprint(model)


# Holdfast's callback.


def keep_checkpoints(name: str, folder: Path) -> ModelCheckpoint:
    # In the foreground, so that the calls of the second save are those inside the window.
    return ModelCheckpoint(folder / "run" / name, retention=KeepLast(1), background=False)


def resumed_by_holdfast(name: str) -> Callable[[Path, list[str]], Verdict]:
    def judge(folder: Path, saves: list[str]) -> Verdict:
        model = build()
        try:
            epoch = keep_checkpoints(name, folder).resume(model)
        except Exception:  # the resumed run does not start, for whatever reason
            return "unreadable"
        weights = fingerprint(model)
        if weights not in saves:
            return "wrong" if epoch else "unreadable"
        return "usable" if epoch == saves.index(weights) + 1 else "mixed"

    return judge


HOLDFAST = [
    Subject(
        f"holdfast ModelCheckpoint, {suffix}",
        nothing,
        fitting(partial(keep_checkpoints, f"model{suffix}")),
        resumed_by_holdfast(f"model{suffix}"),
    )
    for suffix in (".keras", ".weights.h5")
]


def make_checkpoint(name: str, folder: Path) -> tuple[Path, str]:
    model = build()
    train(model, [keep_checkpoints(name, folder)], epochs=1)
    (path,) = (folder / "run" / "files").glob(f"*/{name}")
    return path, fingerprint(model)


def resume_flipped(copy: Path) -> str:
    """Resume from a copy of the store in which the flipped file has the place of the whole one."""
    name, folder = copy.name.partition("-")[2], copy.parents[3]
    mine = folder / f"process-{os.getpid()}"
    if not mine.exists():
        shutil.copytree(
            folder / "run", mine / "run", ignore=shutil.ignore_patterns("[0-9]*-model*")
        )
    (place,) = (mine / "run" / "files").glob(f"*/{name}")
    place.write_bytes(copy.read_bytes())
    model = blank()
    for value in [*model.variables, *model.optimizer.variables]:
        value.assign(keras.ops.zeros_like(value))
    keep_checkpoints(name, mine).resume(model)
    return fingerprint(model)


# The tables.


def print_kills(rows: Iterable[KillRow]) -> None:
    print(f"{'killed during its second save':38}{'calls':>6}{'kills':>7}", end="")
    print(f"{'usable':>8}{'unreadable':>12}{'mixed':>7}{'wrong':>7}{'bad':>10}")
    for row in rows:
        print(f"{row.name:38}{row.calls:6}{row.points:7}{row.usable:8}", end="")
        print(f"{row.unreadable:12}{row.mixed:7}{row.wrong:7}{row.bad:5} of {row.points}")


def print_flips(rows: Iterable[FlipRow]) -> None:
    print(f"{'one flipped bit':38}{'bytes':>8}{'flips':>7}", end="")
    print(f"{'raised':>8}{'crashed':>9}{'harmless':>10}{'silently wrong':>16}")
    for row in rows:
        print(f"{row.name:38}{row.size:8}{row.flips:7}", end="")
        print(f"{row.raised:8}{row.crashed:9}{row.harmless:10}{row.wrong:16}")


def main() -> None:
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="baselines-"))
    try:
        print(f"keras {keras.version()}, backend {keras.config.backend()}")
        print_kills(
            kill_row(subject, root / f"kill-{i}") for i, subject in enumerate(KERAS + HOLDFAST)
        )
        print_flips(
            [
                flip_row(".weights.h5", root / "weights", make=make_weights, load=load_weights),
                flip_row(".keras", root / "model", make=make_model, load=load_model),
                *[
                    flip_row(
                        f"holdfast, {suffix}",
                        root / f"checkpoint{suffix}",
                        make=partial(make_checkpoint, f"model{suffix}"),
                        load=resume_flipped,
                    )
                    for suffix in (".weights.h5", ".keras")
                ],
            ]
        )
        print(f"{time.monotonic() - began:.0f} s")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
