"""How a model is built, as its `.keras` file says it; asked of Keras again where it has changed."""

import functools
import json
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import keras
import numpy as np
from keras.src.saving import saving_lib, serialization_lib

#: What Keras calls the moment of a save, and how it writes it (keras/src/saving/saving_lib.py).
_DATE, _DATE_FORM = "date_saved", "%Y-%m-%d@%H:%M:%S"
_COMPILED = "compile_config"

#: Where the layers of Keras say how they are configured by attributes that are set, and never
#: changed from within; `lambda_layer` and what is not listed may say anything at any time.
_PLAIN_LAYERS = (
    "keras.src.layers.activations",
    "keras.src.layers.attention",
    "keras.src.layers.convolutional",
    "keras.src.layers.core",
    "keras.src.layers.input_spec",
    "keras.src.layers.layer",
    "keras.src.layers.merging",
    "keras.src.layers.normalization",
    "keras.src.layers.pooling",
    "keras.src.layers.regularization",
    "keras.src.layers.reshaping",
    "keras.src.layers.rnn",
    "keras.src.models",
)
_ODD_LAYERS = ("keras.src.layers.core.lambda_layer",)
#: What such an attribute may be: an object of plain attributes, a value, or one that stands for it.
_PLAIN_PARTS = (
    "keras.src.constraints",
    "keras.src.dtype_policies",
    "keras.src.initializers",
    "keras.src.regularizers",
)
#: Whose objects in a layer do not say how it is built, but for those above.
_FRAMEWORKS = ("keras.", "tensorflow.", "jax", "torch")
_VALUES = frozenset((bool, int, float, str, type(None)))
_OBJECTS = frozenset((type, types.FunctionType, types.BuiltinFunctionType))


@dataclass(frozen=True)
class Description:
    """
    What a `.keras` file says of its model, beside the values.

    Attributes:
        members (dict[str, Any]): how it is built and compiled, as Keras serializes it; not to be
            changed.
        metadata (str): who wrote it and when, as JSON.
    """

    members: dict[str, Any]
    metadata: str

    @classmethod
    def of(cls, model: Any) -> "Description":
        """
        Describe a model, as Keras does.

        Keras takes longer for that than it takes to hold the values. So the description is kept,
        and made anew where an attribute was set in one of the layers or in what they are made of.
        Layers of the user's own are asked for their configuration each time, and so is what the
        model was compiled with: its learning rate changes while it trains.

        Raises:
            Exception: this Keras does it otherwise, or a part of the model does not say how it is
                built.
        """
        kept = _kept.get(id(model))
        if kept is not None and kept.looked_at == _look_at(model):
            members = {**kept.members, _COMPILED: _compiled(model)}
            return cls(members, _dated(kept.metadata))
        config, metadata = saving_lib._serialize_model_as_json(model)  # noqa: SLF001
        members = json.loads(config)
        if _can_be_kept(model, members):
            if id(model) not in _kept:
                weakref.finalize(model, _kept.pop, id(model), None)
            _kept[id(model)] = _Kept(members, metadata, _look_at(model))
        return cls(members, metadata)

    @property
    def config(self) -> str:
        """How the model is built, as JSON."""
        return json.dumps(self.members)


@dataclass(frozen=True)
class _Kept:
    members: dict[str, Any]
    metadata: str
    looked_at: list[Any]


#: What is known of models, by their id; each goes with its model.
_kept: dict[int, _Kept] = {}


def _can_be_kept(model: Any, members: dict[str, Any]) -> bool:
    layers = model._flatten_layers(include_self=False)  # noqa: SLF001
    is_compiled_inside = any(getattr(layer, "compiled", False) for layer in layers)
    return not is_compiled_inside and members.get(_COMPILED) == _compiled(model)


def _compiled(model: Any) -> Any:
    """What the model was compiled with, as a file says it."""
    with serialization_lib.ObjectSharingScope():
        config = serialization_lib.serialize_dict(model.get_compile_config())
    return json.loads(json.dumps(config))


def _dated(metadata: str) -> str:
    members = json.loads(metadata)
    if _DATE in members:
        members[_DATE] = datetime.now().strftime(_DATE_FORM)  # local time, as Keras has it
    return json.dumps(members)


class _Same:
    """A value that equals itself alone, as long as it lives."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value: Callable[[], Any]
        try:
            self._value = weakref.ref(value)  # it may hold the model, which is not to be kept alive
        except TypeError:
            self._value = lambda: value

    def __eq__(self, other: object) -> bool:
        value = self._value()
        return isinstance(other, _Same) and value is not None and value is other._value()

    __hash__ = None  # type: ignore[assignment]  # it is compared, and nothing else


class _UnknownPartError(Exception):
    """A layer holds something of the user's, which may change from within."""


def _look_at(model: Any) -> list[Any]:
    """What the description of a model follows from, but for what it was compiled with."""
    seen: list[Any] = []
    for layer in model._flatten_layers():  # noqa: SLF001 - its layers, whatever they are kept in
        seen.append(id(layer))
        try:
            if _is_plain(type(layer)):  # type: ignore[arg-type]  # a class can be hashed
                # What a model of Keras holds beside its layers says nothing of how it is built.
                seen += list(_attributes(layer, is_strict=not isinstance(layer, keras.Model)))
                continue
        except _UnknownPartError:
            pass
        config = serialization_lib.serialize_keras_object(layer.get_config())
        seen.append(json.dumps(config))
    return seen


def _attributes(whole: Any, *, is_strict: bool) -> Iterator[Any]:
    for value in vars(whole).values():
        kind = _kind(type(value))  # type: ignore[arg-type]  # a class can be hashed
        if kind is _VALUE:
            yield type(value)  # since True equals 1, and 1 equals 1.0
            yield value
        elif kind is _NUMBERS:
            yield value if all(type(each) in _VALUES for each in value) else None
        elif kind is _ITSELF:
            yield _Same(value)
        elif kind is _PARTS:
            yield _Same(value)
            yield from _attributes(value, is_strict=is_strict)
        elif kind is _UNKNOWN and is_strict:
            raise _UnknownPartError


_VALUE, _NUMBERS, _ITSELF, _PARTS, _UNKNOWN = "value", "numbers", "itself", "parts", "unknown"


@functools.cache
def _kind(type_: Any) -> str | None:
    """How an attribute of a type is looked at; None where it says nothing of the layer."""
    if type_ in _VALUES or issubclass(type_, np.generic):
        return _VALUE
    if type_ is tuple:
        return _NUMBERS
    if type_ in _OBJECTS:
        return _ITSELF
    if type_.__module__.startswith(_PLAIN_PARTS):
        return _PARTS
    # Among the bases, since every class can be called itself.
    names = {name for base in type_.__mro__ for name in vars(base)}
    is_part = not names.isdisjoint(("__call__", "get_config"))
    return _UNKNOWN if is_part and not type_.__module__.startswith(_FRAMEWORKS) else None


@functools.cache
def _is_plain(type_: Any) -> bool:
    module = type_.get_config.__module__
    return module.startswith(_PLAIN_LAYERS) and not module.startswith(_ODD_LAYERS)
