"""
The whole model in one file, against the architecture and the weights apart.

Run it with `python examples/architecture_and_weights.py`. Both ways bring back the same
predictions, and the same next step of the optimizer.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

from holdfast.keras import ModelCheckpoint, load_model


def main(place: Path) -> None:
    """Save both ways in one training, load both, and compare."""
    digits = load_digits()
    x, y = digits.data / 16.0, digits.target
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    whole = ModelCheckpoint(place / "whole" / "model.keras")
    apart = ModelCheckpoint(
        place / "apart" / "model.weights.h5", save_weights_only=True, save_architecture=True
    )
    model.fit(x, y, epochs=2, callbacks=[whole, apart], verbose=0)

    one = load_model(whole.store)

    files = apart.store.download()
    other = keras.models.model_from_json((files / "model.json").read_text())
    # The architecture says how the model was compiled, too. The optimizer has to be built before
    # its variables can be loaded; without this line Keras begins it anew, and says nothing.
    other.optimizer.build(other.trainable_variables)
    other.load_weights(files / "model.weights.h5")

    for name, loaded in (("whole model", one), ("architecture and weights", other)):
        expected = model.predict(x[:8], verbose=0)
        same = np.array_equal(loaded.predict(x[:8], verbose=0), expected)
        print(f"{name}: {'the same' if same else 'OTHER'} predictions,", end=" ")
        print(f"optimizer at step {int(loaded.optimizer.iterations)}", end=", ")
        variables = zip(loaded.optimizer.variables, model.optimizer.variables, strict=True)
        equal = all(np.array_equal(left.numpy(), right.numpy()) for left, right in variables)
        print(f"{'equal' if equal else 'NOT EQUAL'} in every variable")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
