"""A model's file between the moment that it shows and the moment that it is written."""

import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
from keras.src.saving import saving_lib

from holdfast import disk
from holdfast.hashing import HashedFile
from holdfast.keras import archive, formats, hdf5, recording, shards, training
from holdfast.keras.description import Description
from holdfast.keras.hdf5 import Placed
from holdfast.keras.recording import Record
from holdfast.staging import Workspace

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """
    What is known of files that were written.

    Attributes:
        hashes (Mapping[str, str]): by path, of those that were hashed as they were written.
        placed (tuple[Placed, ...]): where each array lies in the model's file; empty where that is
            not known.
    """

    hashes: Mapping[str, str] = field(default_factory=dict)
    placed: tuple[Placed, ...] = ()


class ModelFile(Protocol):
    """A model's file, with what belongs beside it, as it was at one moment."""

    def write_to(self, directory: Path) -> Outcome:
        """Write it, once."""

    def detach(self, *, beside: bool) -> None:
        """Copy what it is written from, as `values.Held.detach`."""


def take(model: Any, name: str, max_shard_size: float, workspace: Workspace | None) -> ModelFile:
    """
    Take a model's file, so that later training does not show in it.

    Keras's way through the model is recorded and its values are held. A format that Keras writes
    otherwise, a model with a way of its own to save, and a Keras that is not as expected are saved
    at once, into a local file; but for the format, a line in the log says so.

    Parameters:
        model (keras.Model): built.
        name (str): how its file is called.
        max_shard_size (float): GiB that one file of a sharded format may have.
        workspace (Workspace | None): where files are written until they are asked for; None takes
            the system's temporary directory.

    Raises:
        InvalidInputError: as `formats.check_writable`.
        StorageError: the local disk failed.
        Exception: whatever Keras or a layer of the model raises while it saves.
    """
    kind = formats.format_of(name)
    formats.check_writable(kind, model)
    if kind in (formats.KERAS, formats.WEIGHTS, formats.SHARDED):
        own = "save" if kind is formats.KERAS else "save_weights"
        try:
            if getattr(getattr(model, own), "__func__", None) is getattr(keras.Model, own):
                return _record(model, name, kind, max_shard_size)
            why = f"{type(model).__name__} has a {own}() of its own"
        except Exception as error:  # noqa: BLE001 - Keras itself tells what is wrong, if it is
            why = repr(error)
        _tell(model, why)
    return Written(model, name, max_shard_size, workspace)


def _record(model: Any, name: str, kind: formats.Format, max_shard_size: float) -> ModelFile:
    record = recording.record(model, with_assets=kind is formats.KERAS)
    if kind is formats.SHARDED:
        return RecordedShards(name, record, shards.size_for(model, max_shard_size))
    return Recorded(name, record, Description.of(model) if kind is formats.KERAS else None)


class Recorded:
    """A model's values, held until they are written in one pass."""

    def __init__(self, name: str, record: Record, description: Description | None) -> None:
        self._name = name
        self._record = record
        self._description = description

    def detach(self, *, beside: bool) -> None:
        """As `ModelFile.detach`."""
        self._record.held.detach(beside=beside)

    def write_to(self, directory: Path) -> Outcome:
        """Write and hash the file."""
        with HashedFile(directory / self._name) as file:
            if self._description is None:
                placed = hdf5.write(self._record, file.write, scratch=directory)
            else:
                placed = archive.write(file, self._description, self._record, scratch=directory)
        return Outcome({self._name: file.hash}, placed)


class RecordedShards:
    """A model's values, held until Keras's own store has written them into several files."""

    def __init__(self, name: str, record: Record, max_shard_size: float) -> None:
        self._name = name
        self._record = record
        self._max_shard_size = max_shard_size

    def detach(self, *, beside: bool) -> None:
        """As `ModelFile.detach`."""
        self._record.held.detach(beside=beside)

    def write_to(self, directory: Path) -> Outcome:
        """Write the index and the shards."""
        path = formats.local(directory / self._name)
        store = saving_lib.ShardedH5IOStore(path, self._max_shard_size, mode="w")
        try:
            hdf5.replay(self._record, store)
        finally:
            store.close()
        return Outcome()


class Written:
    """A model's file that Keras has written already, and that is moved from there."""

    def __init__(
        self, model: Any, name: str, max_shard_size: float, workspace: Workspace | None
    ) -> None:
        self._place = _Temporary() if workspace is None else workspace.scratch()
        try:
            path = self._place.directory / name
            formats.write(model, path, max_shard_size=max_shard_size)
            if not formats.format_of(name).keeps_weights:
                weights = self._place.directory / training.WEIGHTS
                weights.parent.mkdir()
                formats.write(model, weights)
        except BaseException:
            self._place.discard()
            raise
        # What gives way to a newer one is never written: its files go with it.
        self._discard = weakref.finalize(self, self._place.discard)

    def detach(self, *, beside: bool) -> None:
        """Nothing to do: it is written."""

    def write_to(self, directory: Path) -> Outcome:
        """Move the files."""
        with disk.disk_errors("move the snapshot into", directory):
            for child in self._place.directory.iterdir():
                shutil.move(child, directory / child.name)
        self._discard()
        return Outcome()


class _Temporary:
    """A directory in the system's temporary one."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="holdfast-")
        self.directory = Path(self._temporary.name)
        self.discard: Callable[[], object] = self._temporary.cleanup


#: The models that were told of.
_told: "weakref.WeakSet[Any]" = weakref.WeakSet()


def _tell(model: Any, why: str) -> None:
    if model not in _told:
        _told.add(model)
        _log.warning(
            "%r is written while training waits, and not behind it: %s. What is saved is the same.",
            model.name,
            why,
        )
