"""
Whole models in the older formats: HDF5 and SavedModel, with classes of your own.

Run it with `python examples/save_and_load.py`. Each is a checkpoint in a store: whole or not there,
and verified when it is read.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

from holdfast import FormatError, open_store
from holdfast.keras import KerasState, load_model


class Scale(keras.layers.Layer):
    """A layer that Keras does not know."""

    def __init__(self, by: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.by = by

    def call(self, inputs: object) -> object:
        return inputs * self.by

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "by": self.by}


def main(place: Path) -> None:
    """Save the model in each way, and load it again."""
    digits = load_digits()
    x, y = digits.data.astype("float32"), digits.target
    model = new_model()
    model.fit(x, y, epochs=1, verbose=0)
    expected = model.predict(x[:8], verbose=0)

    # HDF5, with the optimizer. Keras 3 writes it into the file and does not bring it back, so
    # KerasState keeps what the format loses beside it, and load_model puts it together again.
    store = open_store(place / "hdf5")
    store.save(KerasState(model, "model.h5"), step=1)
    loaded = load_model(store, custom_objects={"Scale": Scale})
    check("HDF5", loaded, x, expected)
    print("  it is compiled, its optimizer at step", int(loaded.optimizer.iterations))

    # Not compiled, for predictions alone.
    loaded = load_model(store, custom_objects={"Scale": Scale}, compile=False)
    check("HDF5, compile=False", loaded, x, expected)
    print("  it is compiled:", loaded.compiled)

    # HDF5 without the optimizer, about a third of the bytes. Whatever is written into the directory
    # of a draft becomes a checkpoint when the block ends.
    store = open_store(place / "small")
    with store.stage(step=1) as draft:
        keras.saving.save_model(model, draft.directory / "model.h5", include_optimizer=False)
    loaded = load_model(store, custom_objects={"Scale": Scale}, compile=False)
    check("HDF5, include_optimizer=False", loaded, x, expected)

    # Without custom_objects the error says what is missing.
    try:
        load_model(store)
    except FormatError as error:
        print("without custom_objects:", str(error).split(". ")[0])

    # A SavedModel holds the computation itself, so it needs neither the classes nor Keras.
    store = open_store(place / "saved_model")
    with store.stage(step=1) as draft:
        model.export(draft.directory / "model", verbose=False)
    layer = keras.layers.TFSMLayer(store.download() / "model", call_endpoint="serve")
    check("SavedModel", keras.Sequential([layer]), x, expected)


def check(what: str, loaded: keras.Model, x: object, expected: object) -> None:
    """The loaded model predicts the same."""
    same = np.allclose(np.asarray(loaded(x[:8])), expected, rtol=0, atol=1e-6)
    print(f"{what}: {'the same predictions' if same else 'OTHER PREDICTIONS'}")


def new_model() -> keras.Model:
    """A model with a layer of ours."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            Scale(1 / 16),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
