"""Small models of every kind that a format has to bring back."""

import warnings
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


def after(shape: tuple[int, ...], *layers: Any) -> Any:
    return keras.Sequential([keras.Input(shape), *layers])


def recurrent() -> Any:
    cells = [keras.layers.LSTMCell(2, recurrent_dropout=0.3), keras.layers.GRUCell(2)]
    return after((3, 4), keras.layers.Bidirectional(keras.layers.RNN(cells)))


def attending() -> Any:
    tokens = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(8, 4)(tokens)
    return keras.Model(tokens, keras.layers.MultiHeadAttention(2, 2, dropout=0.1)(x, x))


def normalized() -> Any:
    layer = keras.layers.Normalization()
    layer.adapt(np.arange(8.0).reshape(2, 4))
    return after((4,), layer, keras.layers.Dense(1))


def of_texts() -> Any:
    """With files beside the arrays, and an array that is no variable."""
    counted = keras.layers.TextVectorization(output_mode="tf_idf")
    looked_up = keras.layers.StringLookup(output_mode="one_hot")
    for layer in (counted, looked_up):
        layer.adapt(["a b ü", "b c"])
    text = keras.Input((), dtype="string")
    joined = keras.layers.Concatenate()([counted(text), looked_up(text)])
    return keras.Model(text, keras.layers.Dense(1)(joined))


def quantized() -> Any:
    model = after((4,), keras.layers.Dense(8), keras.layers.Dense(2))
    with warnings.catch_warnings(action="ignore"):  # that an input cannot be quantized
        model.quantize("int8")
    return model


@keras.saving.register_keras_serializable("tests")
class Own(keras.layers.Layer):
    """Saves arrays that are no variables, and goes on to change them in place."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(), name="scale")
        self.table = np.arange(6.0)

    def call(self, x: Any) -> Any:
        return x * self.scale

    def save_own_variables(self, store: Any) -> None:
        store["scale/inside"] = self.scale
        store["ü"] = self.scale.value
        store["table"] = self.table
        store["turned"] = self.table.reshape(2, 3).T
        store["plain"] = [1, 2]

    def load_own_variables(self, store: Any) -> None:
        self.scale.assign(store["scale/inside"])
        self.table = store["table"]


@keras.saving.register_keras_serializable("tests")
class EveryType(keras.layers.Layer):
    """A variable of each type, some without a dimension and some without an element."""

    def build(self, shape: Any) -> None:
        whole = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
        for kind in ("bool", "float16", "bfloat16", "float64", *whole):
            self.add_weight(shape=(2, 3), dtype=kind, trainable=False, initializer="zeros")
        for size in ((), (0, 3), (2, 0)):
            self.add_weight(shape=size)
        self.wave = keras.Variable(np.zeros(2, np.complex64), dtype="complex64", trainable=False)

    def call(self, x: Any) -> Any:
        return x


class TwoOptimizers(keras.Model):
    """Two parts of a model, each trained by an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = keras.layers.Dense(2), keras.layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.one(x) + self.other(x)

    def compile(self, *given: Any, **more: Any) -> None:
        super().compile(*given, **more)
        self.rates = [adam(), keras.optimizers.SGD(0.1, momentum=0.9)]
        for optimizer, part in zip(self.rates, (self.one, self.other), strict=True):
            optimizer.build(part.trainable_variables)


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

#: Those that say something of how a file is written and read, and of no format beside.
MORE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "recurrent": (recurrent, adam),
    "attending": (attending, adam),
    "normalized": (normalized, adam),
    "of texts": (of_texts, adam),
    "quantized": (quantized, adam),
    "of its own arrays": (lambda: after((4,), keras.layers.Dense(2), Own()), adam),
    "of every type": (lambda: after((4,), keras.layers.Dense(2), EveryType()), adam),
    "two optimizers": (lambda: subclassed(TwoOptimizers), adam),
    "of no layers": (lambda: after((4,), keras.layers.Flatten()), adam),
}


def fresh(kind: str) -> Any:
    """A compiled model of a kind, as its code makes it."""
    make, optimizer = {**KINDS, **MORE}[kind]
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
        type_ = np.dtype(variable.dtype)
        is_whole = type_.kind in "biu"
        variable.assign((value if is_whole else value / 8).astype(type_))
    return model
