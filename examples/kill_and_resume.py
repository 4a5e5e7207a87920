"""
Train a network on real images, kill it in the middle of a save, and let it resume.

Run it with `make demo`, or, where `holdfast[tensorflow]` and scikit-learn are installed, with
`python examples/kill_and_resume.py`. It takes about two minutes on two cores.

With `--place URL` the checkpoints go anywhere else, such as s3://bucket/demo; nothing else changes.

Three processes train the same convolutional network on scikit-learn's handwritten digits, with
dropout, augmentation and batch normalization, and save it in the middle of epochs:

  1. one that is killed with SIGKILL while it saves,
  2. one that is started again in the same way, resumes at the next batch and finishes,
  3. one that is never interrupted, to compare with.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 4
#: Batches between saves; an epoch has 45.
SAVE_EVERY = 20
#: On the processor, whose kernels repeat to the bit, and without TensorFlow's notes on start-up.
ENVIRONMENT = {
    **os.environ,
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
#: How many checkpoints the first process may commit before it is killed.
SAVED_BEFORE_THE_KILL = 4


def main(place: str | None) -> None:
    """Play the three processes, and show what each did."""
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as directory:
        here = Path(directory)
        journal = here / "journal"
        journal.mkdir()
        # Where drafts are staged for a place that is no directory.
        ENVIRONMENT["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"] = str(here / "cache")
        store, other = f"{place or directory}/run", f"{place or directory}/uninterrupted"

        heading("1. Train, and be killed with SIGKILL in the middle of a save")
        train_and_kill(store, journal, here)

        heading("2. What the killed process left")
        show_remains(store, here)

        heading("3. Start the same script again")
        run(training(store, journal, "second"))

        heading("4. The checkpoints")
        holdfast("ls", store, "--metric", "accuracy", "--metric", "loss")
        holdfast("verify", store, "--deep")

        heading("5. The same run, never interrupted")
        run(training(other, journal, "alone"))

        heading("6. What it came to")
        conclude(journal)


def train_and_kill(store: str, journal: Path, here: Path) -> None:
    """Start the training, watch it from outside, and kill while a save is under way."""
    with (journal / "first.log").open("wb") as log:
        command = training(store, journal, "first")
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=log)
    saved, saving = 0, False
    while process.poll() is None:
        before, saving = saving, bool(unfinished(here))
        if saving and saved >= SAVED_BEFORE_THE_KILL:  # the next save has begun
            process.send_signal(signal.SIGKILL)
        elif before and not saving:
            saved += 1
        time.sleep(0.0005)
    if process.returncode != -signal.SIGKILL:
        print((journal / "first.log").read_text(), file=sys.stderr)
    check(process.returncode == -signal.SIGKILL, "the training ended before it could be killed")
    print(f"\nkilled: exit code {process.returncode} (SIGKILL) while the next save was under way")


def unfinished(here: Path) -> dict[Path, int]:
    """The files of a save that is not committed yet, with their bytes."""
    files = {}
    for workspace in (here / "run" / ".workspace", here / "cache"):
        for folder, _, names in os.walk(workspace):
            for path in [Path(folder, name) for name in names]:
                with contextlib.suppress(FileNotFoundError):  # it was committed while we looked
                    files[path] = path.stat().st_size
    return {path: size for path, size in files.items() if "files" in path.parts}


def show_remains(store: str, here: Path) -> None:
    """The committed checkpoints are whole, and the torn one is none."""
    for path, size in unfinished(here).items():
        print(f"in the workspace: {path.relative_to(here)}, {size:,} bytes")
    holdfast("ls", store, "--metric", "accuracy")
    holdfast("verify", store, "--deep")


def conclude(journal: Path) -> None:
    """Compare what the three processes noted, byte by byte."""
    first, second, alone = (
        json.loads((journal / f"{name}.json").read_text()) for name in ("first", "second", "alone")
    )
    resumed_at, restored = second["resumed"], second["restored"]
    check(resumed_at > 0, "the second process did not resume")
    check(restored == first["after"][str(resumed_at)], "the restored bytes differ")
    print(f"resumed after batch {resumed_at} of {alone['batches']}")
    print(f"bytes saved after batch {resumed_at}:   sha256 {first['after'][str(resumed_at)]}")
    print(f"bytes restored:              sha256 {restored}  equal")
    print(f"test accuracy, killed and resumed:    {second['accuracy']:.4f}")
    print(f"test accuracy, never interrupted:     {alone['accuracy']:.4f}")
    check(second["final"] == alone["final"], "the resumed run ended elsewhere")
    print(f"final bytes of both runs:    sha256 {second['final']}  equal")
    check(second["history"] == alone["history"], "the runs have another History")
    print(f"History of both runs:        {len(alone['history']['loss'])} epochs  equal")


def train(store: str, journal: Path) -> None:
    """The training script: the two lines that a user adds are marked."""
    # Here and not above: the process that kills has no use for them, and they take seconds.
    import keras
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from holdfast import KeepBest, KeepLast
    from holdfast.keras import ModelCheckpoint, ReplayableDataset

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images[..., None] / 16.0, digits.target, test_size=0.2, random_state=0
    )
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.RandomTranslation(0.1, 0.1),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    checkpoint = ModelCheckpoint(  # the first line
        f"{store}/digits-{{epoch:02d}}-{{batch:03d}}.keras",
        save_freq=SAVE_EVERY,
        retention=KeepLast(3) | KeepBest("accuracy"),
    )
    initial_epoch = checkpoint.resume(model)  # the second line

    batches = int(model.optimizer.iterations)
    print(f"this process starts after batch {batches}, in epoch {initial_epoch + 1} of {EPOCHS}")
    sys.stdout.flush()
    notes = {"resumed": batches, "restored": fingerprint(model), "after": {}}

    def note(_batch: int, logs: dict[str, float]) -> None:
        step = int(model.optimizer.iterations)
        if step % SAVE_EVERY == 0:
            notes["after"][step] = fingerprint(model)
            journal.write_text(json.dumps(notes))
            print(f"batch {step}: loss {logs['loss']:.4f}", flush=True)

    history = model.fit(
        ReplayableDataset(x_train, y_train, batch_size=32, seed=0),  # shuffles, by the seed
        epochs=EPOCHS,
        initial_epoch=initial_epoch,
        validation_data=(x_test, y_test),
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note), checkpoint],
        verbose=0,
    )
    notes["batches"] = int(model.optimizer.iterations)
    notes["final"], notes["history"] = fingerprint(model), history.history
    notes["accuracy"] = history.history["val_accuracy"][-1]
    journal.write_text(json.dumps(notes))


def fingerprint(model: object) -> str:
    """A hash over the bytes of every weight, seed generator and variable of the optimizer."""
    digest = hashlib.sha256()
    for variable in [*model.variables, *model.optimizer.variables]:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()[:16]


def training(store: str, journal: Path, name: str) -> list[str]:
    """The command that trains."""
    return [sys.executable, __file__, "--train", store, str(journal / f"{name}.json")]


def holdfast(*arguments: str) -> None:
    """Run the command line tool, as a person would."""
    print(f"$ holdfast {' '.join(arguments)}", flush=True)
    run([sys.executable, "-m", "holdfast", *arguments])


def run(command: list[str]) -> None:
    """Run a command that has to succeed; what TensorFlow notes on its start shows if it fails."""
    ended = subprocess.run(command, env=ENVIRONMENT, check=False, stderr=subprocess.PIPE, text=True)
    if ended.returncode != 0:
        print(ended.stderr, file=sys.stderr)
    check(ended.returncode == 0)


def heading(text: str) -> None:
    """Say what comes next."""
    print(f"\n== {text}\n", flush=True)


def check(condition: object, otherwise: str = "a command failed") -> None:
    """End with an error where the demonstration did not show what it should."""
    if not condition:
        sys.exit(f"the demonstration failed: {otherwise}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--train", nargs=2, metavar=("STORE", "JOURNAL"), help=argparse.SUPPRESS)
    parser.add_argument("--place", help="where to keep the checkpoints, such as s3://bucket/demo")
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train[0], Path(arguments.train[1]))
    else:
        main(arguments.place)
