"""Small models of every kind that a format has to bring back."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class Blocks(keras.Model):
    """Layers in a list and in a dictionary, a weight of its own, and a configuration."""

    def __init__(self, width: int = 3, **more: Any) -> None:
        super().__init__(**more)
        self.width = width
        self.blocks = [keras.layers.Dense(width) for _ in range(2)]
        self.named = {"norm": keras.layers.BatchNormalization(), "out": keras.layers.Dense(1)}
        self.noise = keras.layers.Dropout(0.3)
        self.scale = self.add_weight(shape=(), name="scale", initializer="ones")

    def call(self, x: Any, training: bool = False) -> Any:
        for block in self.blocks:
            x = block(x)
        x = self.noise(self.named["norm"](x, training=training), training=training)
        return self.named["out"](x) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


class Unconfigured(Blocks):
    """The same, and nobody says how it is made."""

    get_config = keras.Model.get_config


def sequential(dtype: str = "float32") -> Any:
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, dtype=dtype),
            keras.layers.BatchNormalization(dtype=dtype),
            keras.layers.Dropout(0.4, dtype=dtype),
        ]
    )


def functional() -> Any:
    """With a layer that is shared, and a model inside the model."""
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Dropout(0.2)])
    shared = keras.layers.Dense(3)
    one, other = keras.Input((4,), name="one"), keras.Input((4,), name="other")
    joined = keras.layers.Concatenate()([inner(shared(one)), inner(shared(other))])
    return keras.Model([one, other], keras.layers.Dense(1)(joined))


def subclassed(kind: Callable[[], Any] = Blocks) -> Any:
    model = kind()
    model(np.zeros((1, 4), np.float32))
    return model


def low_rank() -> Any:
    model = sequential()
    model.layers[0].enable_lora(2)
    return model


def adam(**more: Any) -> Any:
    return keras.optimizers.Adam(0.01, **more)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "sequential": (sequential, adam),
    "functional": (functional, adam),
    "subclassed": (subclassed, adam),
    "unconfigured": (lambda: subclassed(Unconfigured), adam),
    "mixed precision": (
        lambda: sequential("mixed_float16"),
        lambda: keras.optimizers.LossScaleOptimizer(adam()),
    ),
    "in halves": (lambda: sequential("bfloat16"), adam),
    "averaged": (sequential, lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)),
    "accumulated": (sequential, lambda: adam(gradient_accumulation_steps=4)),
    "low rank": (low_rank, adam),
}


def fresh(kind: str) -> Any:
    """A compiled model of a kind, as its code makes it."""
    make, optimizer = KINDS[kind]
    keras.utils.set_random_seed(1)
    model = make()
    model.compile(optimizer(), "mean_squared_error")
    return model


def trained(kind: str) -> Any:
    """The same with an optimizer that is built, and every variable of it and the model changed."""
    model = fresh(kind)
    model.optimizer.build(model.trainable_variables)
    random = np.random.default_rng(2)
    for variable in [*model.variables, *model.optimizer.variables]:
        value = random.integers(1, 100, tuple(variable.shape))
        whole = np.issubdtype(np.dtype(variable.dtype), np.integer)
        variable.assign(value if whole else value / 8)
    return model
