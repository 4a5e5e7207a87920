"""Keras's own way through a model when it saves, with what each part of it would save."""

import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.saving import saving_lib

from holdfast.keras import values


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
        held (tuple[Any, ...]): the values of all their sources, in order, as `values.array` takes.
        assets (Mapping[str, bytes]): the files beside the arrays, such as vocabularies.
    """

    entries: tuple[Entry, ...]
    held: tuple[Any, ...]
    assets: Mapping[str, bytes]


@dataclass(frozen=True)
class _Visit:
    part: "weakref.ref[Any]"
    path: str
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True)
class _Walk:
    """The parts of a model that save something, in Keras's order, and what they were found in."""

    of: tuple[object, ...]
    visits: tuple[_Visit, ...]


#: The walks that are known, by the model's id; each goes with its model.
_walks: dict[int, _Walk] = {}


def record(model: Any) -> Record:
    """
    Take what a built model would save.

    Raises:
        Exception: this Keras saves otherwise, or a part of the model raises while it saves.
    """
    parts = list(_parts(model))
    entries = tuple(_entry(part, visit) for part, visit in parts)
    sources = [source for entry in entries for source in entry.sources.values()]
    return Record(entries, tuple(values.hold(sources)), _assets(parts))


def variables(model: Any) -> dict[str, Any] | None:
    """
    The variables of a built model, by the path that their arrays have in Keras's files.

    None where a part of the model does not load what it saved by assigning it to variables.

    Raises:
        Exception: as `record`.
    """
    found: dict[str, Any] = {}
    for part, visit in _parts(model):
        entry = _entry(part, visit)
        if entry.sources and not _assigns_plainly(part):
            return None
        for name, source in entry.sources.items():
            if not isinstance(source, keras.Variable):
                return None
            found[array_path(entry.path, name)] = source
    return found


def array_path(path: str, name: str) -> str:
    """Where an array lies in Keras's files."""
    return f"{path}/vars/{name}" if path else f"vars/{name}"


def _parts(model: Any) -> Iterator[tuple[Any, _Visit]]:
    """The parts of a model that save something, each with where; found anew if it has changed."""
    key = _key(model)
    walk = _walks.get(id(model))
    if walk is None or walk.of != key or any(visit.part() is None for visit in walk.visits):
        if id(model) not in _walks:
            weakref.finalize(model, _walks.pop, id(model), None)
        walk = _walks[id(model)] = _Walk(key, _find(model))
    for visit in walk.visits:
        yield visit.part(), visit


def _key(model: Any) -> tuple[object, ...]:
    optimizer = getattr(model, "optimizer", None)
    layers = model._flatten_layers()  # noqa: SLF001 - its layers, whatever they are kept in
    return (
        id(optimizer),
        len(model.variables),
        0 if optimizer is None else len(optimizer.variables),
        *map(id, layers),
    )


def _find(model: Any) -> tuple[_Visit, ...]:
    finder, assets = _Finder(), saving_lib.DiskIOStore("assets", mode="w")
    try:
        saving_lib._save_state(  # noqa: SLF001 - it has no other name
            model,
            weights_store=finder,
            assets_store=assets,
            inner_path="",
            visited_saveables=set(),
        )
    finally:
        assets.close()
    return tuple(finder.visits)


class _Finder(saving_lib.H5IOStore):  # type: ignore[misc]  # Keras ships no types
    """In the place of Keras's file: notes which part is asked for what it saves, and where."""

    def __init__(self) -> None:
        self.visits: list[_Visit] = []

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The part is not handed over, so it is taken from where it is asked."""
        part = sys._getframe(1).f_locals["saveable"]  # noqa: SLF001
        self.visits.append(_Visit(weakref.ref(part), path, metadata))
        return {}


def _entry(part: Any, visit: _Visit) -> Entry:
    sources: dict[str, Any] = {}
    if type(part).save_own_variables is BaseOptimizer.save_own_variables:
        # Keras's own reads every variable of an optimizer into a new array, so it is given some
        # that have nothing to read.
        BaseOptimizer.save_own_variables(_Unread(part), sources)
    else:
        part.save_own_variables(sources)
    return Entry(visit.path, visit.metadata, sources)


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


def _assigns_plainly(part: Any) -> bool:
    return type(part).load_own_variables in _PLAIN


def _assets(parts: list[tuple[Any, _Visit]]) -> dict[str, bytes]:
    savers = [(part, visit.path) for part, visit in parts if hasattr(part, "save_assets")]
    if not savers:
        return {}
    store = saving_lib.DiskIOStore("assets", mode="w")
    try:
        for part, path in savers:
            part.save_assets(store.make(path))
        root = Path(store.working_dir)
        found = sorted(each for each in root.rglob("*") if each.is_file())
        return {f"assets/{each.relative_to(root).as_posix()}": each.read_bytes() for each in found}
    finally:
        store.close()
