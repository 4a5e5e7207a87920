"""A model that is not the one that was saved: an error says what differs, nothing is changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast import CheckpointStore, open_store
from holdfast.errors import InvalidInputError
from holdfast.keras import KerasState, ModelCheckpoint
from tests.frameworks.runs import new_model, play, same, set_all


def narrow() -> Any:
    return new_model(units=2)


def renamed() -> Any:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="other"),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1),
        ],
        name="sequential",
    )
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    return model


def longer() -> Any:
    model = new_model()
    model.add(keras.layers.Dense(1, name="more"))
    return model


def frozen() -> Any:
    model = new_model()
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    return model


def half() -> Any:
    model = new_model()
    for weight in model.weights:
        weight._dtype = "float16"
    return model


def without_dropout() -> Any:
    model = keras.Sequential([keras.Input((4,)), *[keras.layers.Dense(n) for n in (3, 1)]])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


MISMATCHES: dict[str, tuple[Callable[[], Any], str]] = {
    "shape": (narrow, r"dense\S*/kernel float32\[4, 3\] there, \S*/kernel float32\[4, 2\] here"),
    "name": (renamed, r"dense\S*/kernel float32\[4, 3\] there, sequential\S*/other/kernel"),
    "more": (longer, r"only in the model: \S*more/kernel float32\[1, 1\]"),
    "frozen": (frozen, r"the optimizer in .* only in the checkpoint: \S*kernel_momentum"),
    "type": (half, r"float32\[4, 3\] there, \S* float16"),
    "seeds": (without_dropout, r"the seed generators in .* only in the checkpoint: seed_gen"),
    "optimizer": (lambda: new_model(optimizer="sgd"), r"holds the Adam .* compiled with SGD"),
    "cousin": (lambda: new_model(optimizer="adamw"), r"holds the Adam .* compiled with AdamW"),
}


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.parametrize(("make", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_a_variable_without_a_match_is_an_error(
    make: Callable[[], Any], message: str, suffix: str, tmp_path: Path, model: Any
) -> None:
    ours = ModelCheckpoint(tmp_path / f"m{suffix}")
    play(model, [ours], [{}])
    other = make()
    before = [weight.numpy() for weight in other.weights]

    with pytest.raises(InvalidInputError, match=message):
        ours.resume(other)

    assert same([weight.numpy() for weight in other.weights], before)


def test_a_model_that_is_not_built_is_told_how_to_be_even_by_an_empty_store(
    tmp_path: Path,
) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("adam", "mse")

    with pytest.raises(InvalidInputError, match=r"is not built yet.*keras\.Input\(shape\)"):
        ours.resume(unbuilt)


def test_a_model_that_is_not_compiled_is_told_to_be(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")
    play(model, [ours], [{}])
    uncompiled = keras.Sequential.from_config(model.get_config())

    with pytest.raises(InvalidInputError, match=r"the Adam optimizer after 10 steps.*compile"):
        ours.resume(uncompiled)


def test_a_checkpoint_without_an_optimizer_is_told(tmp_path: Path, model: Any) -> None:
    store = open_store(tmp_path)
    uncompiled = keras.Sequential.from_config(model.get_config())
    store.save(KerasState(uncompiled), step=1)

    with pytest.raises(InvalidInputError, match=r"Restore before model\.compile"):
        store.restore(KerasState(model))

    set_all(uncompiled, 1)
    store.restore(KerasState(uncompiled))
    assert not np.array_equal(uncompiled.get_weights()[0], np.ones((4, 3)))


def test_a_checkpoint_of_something_else_is_told(tmp_path: Path, model: Any) -> None:
    store: CheckpointStore = open_store(tmp_path / "store")
    (tmp_path / "file").write_text("x")
    store.save(tmp_path / "file", step=1)

    with pytest.raises(InvalidInputError, match=r"no training/state\.json.*it holds file"):
        store.restore(KerasState(model))
