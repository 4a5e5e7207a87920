"""
When to save: every so many batches, every so often, only the best, only the weights.

Run it with `python examples/save_every.py`. It trains one small network on handwritten digits with
one callback for each way, and prints what each of them kept.
"""

import tempfile
from pathlib import Path

import keras
from sklearn.datasets import load_digits

from holdfast import KeepLast
from holdfast.keras import ModelCheckpoint


def main(place: Path) -> None:
    """Train, and show what is there."""
    digits = load_digits()
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    # Each has a directory of its own here. In one directory they work as well: each compares,
    # prunes and resumes among what it saved itself. Training waits for each save, so that none
    # gives way to the next: these epochs are shorter than a save takes.
    ways = {
        "every 20 batches": ModelCheckpoint(
            place / "batches" / "{epoch:02d}-{batch:03d}.keras", save_freq=20, background=False
        ),
        "every quarter of an hour": ModelCheckpoint(
            place / "time" / "{epoch:02d}.keras", save_freq="15min", background=False
        ),
        "only the newest": ModelCheckpoint(
            place / "newest" / "model.keras", retention=KeepLast(1), background=False
        ),
        "only the weights": ModelCheckpoint(
            place / "weights" / "{epoch:02d}.weights.h5", save_weights_only=True, background=False
        ),
        "only the best, the least loss": ModelCheckpoint(
            place / "min" / "{epoch:02d}.keras",
            monitor="val_loss",
            mode="min",
            save_best_only=True,
            background=False,
        ),
        "only the best, the most accuracy": ModelCheckpoint(
            place / "max" / "{epoch:02d}-{val_accuracy:.3f}.keras",
            monitor="val_accuracy",
            mode="max",
            save_best_only=True,
            background=False,
        ),
        "only the best, which way is known": ModelCheckpoint(
            place / "auto" / "{epoch:02d}.keras",
            monitor="val_acc",  # the old name of the same metric
            save_best_only=True,
            background=False,
        ),
    }
    model.fit(
        digits.data / 16.0,
        digits.target,
        validation_split=0.2,
        epochs=3,
        callbacks=list(ways.values()),
        verbose=0,
    )
    for way, checkpoint in ways.items():
        names = [file.path for each in checkpoint.store for file in each.files]
        print(
            f"{way}: {', '.join(sorted(name for name in names if '/' not in name)) or 'none yet'}"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
