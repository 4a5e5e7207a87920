"""Keras's own way through a model when it saves, with what each part of it would save."""

import functools
import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable

from holdfast.keras.values import Array, Held


@dataclass(frozen=True)
class Entry:
    """
    What one part of a model saves: a group of arrays.

    Attributes:
        path (str): of the part, as in Keras's files; empty for the model itself.
        metadata (Mapping[str, Any] | None): what is noted with the group; with None there is no
            group unless there is an array.
        sources (Mapping[str, Any]): what was saved by name: variables, tensors, arrays.
    """

    path: str
    metadata: Mapping[str, Any] | None
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """
    What a model would save, held so that later training does not show in it.

    Attributes:
        entries (tuple[Entry, ...]): in the order in which Keras writes them.
        held (Held): the values of all their sources, in order.
        assets (Mapping[str, bytes]): the files beside the arrays, such as vocabularies.
    """

    entries: tuple[Entry, ...]
    held: Held
    assets: Mapping[str, bytes]

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """What is held, as arrays that are not to be changed."""
        return self.held.arrays


@dataclass(frozen=True)
class _Visit:
    part: "weakref.ref[Any]"
    path: str
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Walk:
    """
    The parts of a model that save something, in Keras's order.

    Attributes:
        of (tuple[object, ...]): what they were found in.
        arrays, files (tuple[_Visit, ...]): those that save arrays, and those that save files.
    """

    of: tuple[object, ...]
    arrays: tuple[_Visit, ...]
    files: tuple[_Visit, ...]


#: The walks that are known, by the model's id; each goes with its model.
_walks: dict[int, _Walk] = {}


def record(model: Any, *, with_assets: bool) -> Record:
    """
    Take what a built model would save.

    Parameters:
        model (keras.Model): the model.
        with_assets (bool): also the files beside the arrays, which a weights file has no room for.

    Raises:
        Exception: this Keras saves otherwise, or a part of the model raises while it saves.
    """
    walk = _walk(model)
    entries = tuple(_entry(visit) for visit in walk.arrays)
    sources = [source for entry in entries for source in entry.sources.values()]
    return Record(entries, Held(sources), _assets(walk) if with_assets else {})


def variables(model: Any) -> dict[str, Any] | None:
    """
    The variables of a built model, by the path that their arrays have in Keras's files.

    None where a part of the model does not load what it saved by assigning it to variables.

    Raises:
        Exception: as `record`.
    """
    found: dict[str, Any] = {}
    for visit in _walk(model).arrays:
        part, entry = visit.part(), _entry(visit)
        if not (_assigns_plainly(part) or _is_idle(part, entry)):
            return None
        for name, source in entry.sources.items():
            if not isinstance(source, keras.Variable):
                return None
            found[array_path(entry.path, name)] = source
    return found


def array_path(path: str, name: str) -> str:
    """Where an array lies in Keras's files."""
    return f"{path}/vars/{name}" if path else f"vars/{name}"


def _walk(model: Any) -> _Walk:
    """The walk through a model that is kept, made anew if the model has changed."""
    key = _key(model)
    walk = _walks.get(id(model))
    if (
        walk is None
        or walk.of != key
        or any(each.part() is None for each in (*walk.arrays, *walk.files))
    ):
        if id(model) not in _walks:
            weakref.finalize(model, _walks.pop, id(model), None)
        walk = _walks[id(model)] = _Walk(key, *_find(model))
    return walk


def _key(model: Any) -> tuple[object, ...]:
    """What a walk follows from: the layers, and what each of them holds under which name."""
    key: list[object] = []
    for layer in model._flatten_layers():  # noqa: SLF001 - its layers, whatever they are kept in
        key += (id(layer), layer.name)
        if layer._layers or not type(layer).__module__.startswith("keras."):  # noqa: SLF001
            for name, value in vars(layer).items():
                held = list(_held_in(value, set()))
                key += (name, *held) if held else ()
    return tuple(key)


def _held_in(value: Any, seen: set[int]) -> Iterator[int]:
    """The parts in an attribute, also in lists in it, by their ids."""
    if isinstance(value, KerasSaveable):
        yield id(value)
    elif isinstance(value, list | tuple | dict) and id(value) not in seen:
        seen.add(id(value))
        for each in value.values() if isinstance(value, dict) else value:
            yield from _held_in(each, seen)


def _find(model: Any) -> tuple[tuple[_Visit, ...], tuple[_Visit, ...]]:
    arrays, files = _ArrayFinder(), _FileFinder("assets", mode="w")
    try:
        saving_lib._save_state(  # noqa: SLF001 - it has no other name
            model,
            weights_store=arrays,
            assets_store=files,
            inner_path="",
            visited_saveables=set(),
        )
    finally:
        files.close()
    return tuple(arrays.visits), tuple(files.visits)


class _ArrayFinder(saving_lib.H5IOStore):  # type: ignore[misc]  # Keras ships no types
    """In the place of Keras's file: notes which part is asked for what it saves, and where."""

    def __init__(self) -> None:
        self.visits: list[_Visit] = []

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The part is not handed over, so it is taken from where it is asked."""
        part = sys._getframe(1).f_locals["saveable"]  # noqa: SLF001
        self.visits.append(_Visit(weakref.ref(part), path, metadata))
        return _Dropped() if _saves_copies(part) else {}


class _FileFinder(saving_lib.DiskIOStore):  # type: ignore[misc]
    """The same for what a part saves in files of its own."""

    def __init__(self, root_path: str, mode: str) -> None:
        super().__init__(root_path, mode=mode)
        self.visits: list[_Visit] = []

    def make(self, path: str) -> Any:
        """As `_ArrayFinder.make`."""
        part = sys._getframe(1).f_locals["saveable"]  # noqa: SLF001
        self.visits.append(_Visit(weakref.ref(part), path))
        return super().make(path)


class _Dropped(dict[str, Any]):
    """Takes the copies of an optimizer's variables, which are not to lie in memory together."""

    def __setitem__(self, name: str, value: Any) -> None:
        pass


def _entry(visit: _Visit) -> Entry:
    part: Any = visit.part()
    sources: dict[str, Any] = {}
    if _saves_copies(part):
        BaseOptimizer.save_own_variables(_Unread(part), sources)
    else:
        part.save_own_variables(sources)
    return Entry(visit.path, visit.metadata, sources)


def _saves_copies(part: Any) -> bool:
    """
    Whether a part reads each of its variables into a new array when it saves.

    Keras's optimizers do, so they are given variables that have nothing to read.
    """
    return _function(part.save_own_variables) is BaseOptimizer.save_own_variables


class _Unread:
    """An optimizer whose variables give themselves when they are asked for their values."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.variables = [_Itself(variable) for variable in optimizer.variables]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


class _Itself:
    def __init__(self, variable: Any) -> None:
        self._variable = variable

    def numpy(self) -> Any:
        return self._variable


#: Those who give each of their variables the array that they have saved of it, and do no more.
_PLAIN = frozenset(
    (
        keras.layers.Layer.load_own_variables,
        keras.layers.Dense.load_own_variables,
        keras.layers.EinsumDense.load_own_variables,
        keras.layers.Embedding.load_own_variables,
        keras.layers.Conv2D.load_own_variables,
        BaseOptimizer.load_own_variables,
    )
)


#: How a layer was quantized whose loading also notes that it was.
_CALIBRATED = ("gptq", "awq")


def _assigns_plainly(part: Any) -> bool:
    is_calibrated = getattr(part, "quantization_mode", None) in _CALIBRATED
    return _function(part.load_own_variables) in _PLAIN and not is_calibrated


def _is_idle(part: Any, entry: Entry) -> bool:
    """Whether it saved nothing, and is of Keras, whose layers then have nothing to load."""
    return not entry.sources and type(part).load_own_variables.__module__.startswith("keras.")


def _function(method: Any) -> Any:
    """What a method is of all objects of its class; none if it was set on the object itself."""
    return getattr(method, "__func__", None)


def _assets(walk: _Walk) -> dict[str, bytes]:
    if not walk.files:
        return {}
    store = saving_lib.DiskIOStore("assets", mode="w")
    try:
        for visit in walk.files:
            part: Any = visit.part()
            part.save_assets(store.make(visit.path))
        root = Path(store.working_dir)
        found = sorted(each for each in root.rglob("*") if each.is_file())
        return {f"assets/{each.relative_to(root).as_posix()}": each.read_bytes() for each in found}
    finally:
        store.close()
