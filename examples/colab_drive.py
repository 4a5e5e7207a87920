"""
The Colab tutorial: save into a mounted Drive after each epoch, lose the machine, go on.

Run it with `python examples/colab_drive.py`, or with the folder of your mounted Drive:
`python examples/colab_drive.py /content/drive/MyDrive/digits`.

The tutorials end the first session by hand, and so does this one: an exception in the fourth epoch
stands for the machine that is taken away. `examples/kill_and_resume.py` kills a real process.
"""

import sys
import tempfile
from pathlib import Path

import keras
from sklearn.datasets import load_digits

from holdfast import KeepBest, KeepLast, open_store
from holdfast.keras import ModelCheckpoint, load_model

EPOCHS = 6


class Disconnected(Exception):
    """The machine is gone."""


class Disconnects(keras.callbacks.Callback):
    """Takes the machine away in the fourth epoch."""

    def on_train_batch_end(self, _batch: int, logs: object = None) -> None:
        del logs
        if self.model.optimizer.iterations > 3 * self.params["steps"] + 5:
            raise Disconnected


def main(drive: Path) -> None:
    """Play both sessions."""
    digits = load_digits()
    data = {"x": digits.data / 16.0, "y": digits.target, "validation_split": 0.2, "verbose": 0}

    # The line that everybody copies. The old suffix and the old name of the metric work. Training
    # waits for each save, since epochs of a tenth of a second outrun what is saved behind them.
    checkpoint = ModelCheckpoint(
        f"{drive}/weights-{{epoch:02d}}-{{val_acc:.3f}}.hdf5",
        monitor="val_acc",
        retention=KeepLast(2) | KeepBest("val_acc"),
        background=False,
    )
    try:
        new_model().fit(**data, epochs=EPOCHS, callbacks=[checkpoint, Disconnects()])
    except Disconnected:
        print("first session: disconnected in epoch 4")

    # The next day, in a new notebook. `wait_for_drive` is for the mount of Colab alone: a file
    # that was closed there is in the machine's cache first, and reaches Drive a while later.
    store = open_store(drive)
    for each in store:
        print("in Drive:", each, [file.path for file in each.files if file.path.endswith(".hdf5")])

    # As the tutorials go on: load the whole model, and say which epoch comes next.
    model = load_model(store)
    first = int(store.latest().metadata["epoch"])
    history = model.fit(**data, epochs=EPOCHS, initial_epoch=first)
    print(f"second session, by load_model: epochs {[epoch + 1 for epoch in history.epoch]}")

    # With one line less, and with everything: dropout's random state, the optimizer, History.
    model = new_model()
    checkpoint = ModelCheckpoint(checkpoint.filepath, monitor="val_acc")
    history = model.fit(
        **data,
        epochs=EPOCHS,
        initial_epoch=checkpoint.resume(model),
        shuffle=False,
        callbacks=[checkpoint],
    )
    print(f"second session, by resume: History of epochs {[epoch + 1 for epoch in history.epoch]}")
    print(f"best: {store.best('val_acc')}")


def new_model() -> keras.Model:
    """The model of both sessions."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(Path(directory) / "MyDrive" / "digits")
