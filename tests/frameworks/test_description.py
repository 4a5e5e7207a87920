"""What is kept of a model's description is what Keras would write at that moment."""

import gc
import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.saving import saving_lib

from holdfast.keras import description
from holdfast.keras.description import Description
from tests.frameworks.kinds import KINDS, fresh


class Own(keras.layers.Layer):
    """A layer of the user's, whose configuration changes from within."""

    def __init__(self, rates: list[float], **more: Any) -> None:
        super().__init__(**more)
        self.rates = rates

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rates": list(self.rates)}


def anything(x: Any) -> Any:
    return x


def made() -> Any:
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="inner")])
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, kernel_regularizer="l2", activation="relu", name="dense"),
            layers.Dropout(0.25, name="dropout"),
            inner,
            Own([0.5], name="own"),
            layers.Normalization(mean=0.0, variance=1.0, name="normal"),
            layers.GaussianNoise(0.5, name="noise"),
            layers.Dense(1, kernel_regularizer=Ridge(0.25), name="out"),
        ]
    )
    model.get_layer("noise").stddev = np.float32(0.25)
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
    return model


class Ridge(keras.regularizers.Regularizer):
    """A regularizer of the user's."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, x: Any) -> Any:
        return self.weight * keras.ops.sum(keras.ops.square(x))

    def get_config(self) -> dict[str, Any]:
        return {"weight": self.weight}


CHANGES: dict[str, Callable[[Any], object]] = {
    "frozen": lambda model: setattr(model.get_layer("dense"), "trainable", False),
    "a rate": lambda model: setattr(model.get_layer("dropout"), "rate", 0.75),
    "a regularizer": lambda model: setattr(model.get_layer("dense").kernel_regularizer, "l2", 0.5),
    "an activation": lambda model: setattr(model.get_layer("dense"), "activation", anything),
    "a number of NumPy": lambda model: setattr(
        model.get_layer("noise"), "stddev", np.float32(model.get_layer("noise").stddev + 1)
    ),
    "a part of one's own": lambda model: setattr(
        model.get_layer("out").kernel_regularizer, "weight", 0.5
    ),
    "a layer inside": lambda model: setattr(model.layers[2].layers[0], "trainable", False),
    "a learning rate": lambda model: setattr(model.optimizer, "learning_rate", 0.01),
    "a layer of one's own": lambda model: model.get_layer("own").rates.append(0.25),
    "what is no plain layer": lambda model: setattr(model.get_layer("normal"), "input_mean", 2.0),
    "compiled": lambda model: model.compile("sgd", "mae"),
    "a type": lambda model: setattr(model.get_layer("out"), "dtype_policy", "mixed_float16"),
    "a layer more": lambda model: model.add(keras.layers.Dense(2, name="more")),
    "one of its compiled": lambda model: model.layers[2].compile(keras.optimizers.SGD(0.5), "mse"),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often Keras was asked for a whole description."""
    calls: list[int] = []
    serialize = saving_lib._serialize_model_as_json

    def counted(model: Any) -> Any:
        calls.append(id(model))
        return serialize(model)

    monkeypatch.setattr(saving_lib, "_serialize_model_as_json", counted)
    return calls


def by_keras(model: Any) -> Any:
    return json.loads(saving_lib._serialize_model_as_json(model)[0])


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str) -> None:
    model = made()
    before = Description.of(model)
    assert json.loads(before.config) == by_keras(model)

    CHANGES[change](model)

    assert json.loads(Description.of(model).config) == by_keras(model)
    assert json.loads(Description.of(model).config) == by_keras(model)
    assert json.loads(before.config) != by_keras(model)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_keras_writes_it(kind: str, asked: list[int]) -> None:
    model = fresh(kind)

    texts = {Description.of(model).config for _ in range(3)}

    assert len(asked) == 1
    assert texts == {saving_lib._serialize_model_as_json(model)[0]}


def test_a_learning_rate_that_changes_while_it_trains_asks_for_nothing_more(
    asked: list[int],
) -> None:
    model = made()
    Description.of(model)

    model.optimizer.learning_rate.assign(0.5)
    members = Description.of(model).members

    assert len(asked) == 1
    assert members["compile_config"]["optimizer"]["config"]["learning_rate"] == 0.5


def test_a_compiled_model_inside_is_asked_each_time(asked: list[int]) -> None:
    model = made()
    inner = model.layers[2]
    inner.compile(keras.optimizers.SGD(0.5), "mse")
    Description.of(model)

    inner.optimizer.learning_rate.assign(0.25)

    assert json.loads(Description.of(model).config) == by_keras(model)
    assert len(asked) == 3


def test_what_is_kept_goes_with_its_model() -> None:
    gc.collect()
    before = len(description._kept)
    model = fresh("sequential")
    Description.of(model)
    assert len(description._kept) == before + 1

    del model
    gc.collect()

    assert len(description._kept) == before
