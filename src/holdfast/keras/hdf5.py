"""
Keras's weights file, written at the speed of the disk.

A file of HDF5 is a skeleton (groups, names, types) with the arrays between its parts. The HDF5
library makes the skeleton, in memory and once for all saves of the same model; the arrays are put
into their places by us, straight from the memory that holds them.
"""

import functools
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from keras.src.saving import saving_lib

from holdfast import disk
from holdfast.keras.recording import Record, array_path

_PAGE_BYTES = 4096
#: Bytes that are read at a time of a file that Keras's store has written. So few are gathered by a
#: `HashedFile`, which lets only some of what it gathered wait.
_BLOCK_BYTES = 512 * 1024

#: Takes bytes to be written, in order.
Put = Callable[[memoryview], object]


@dataclass(frozen=True)
class Placed:
    """
    Where an array lies in a model's file.

    Attributes:
        path (str): its path in the weights file.
        dtype (str): such as `float32`.
        shape (tuple[int, ...]): its dimensions.
        offset (int): bytes before it in the model's file.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class _UnknownTypeError(Exception):
    """HDF5 does not keep a type of this model as the bytes that it has in memory."""


@dataclass(frozen=True)
class _Group:
    path: str
    metadata: tuple[tuple[str, Any], ...] | None
    arrays: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


@dataclass(frozen=True)
class _Layout:
    size: int
    pieces: tuple[bytes | int, ...]  # of the skeleton, or the number of an array
    offsets: tuple[int, ...]  # of each array


def write(record: Record, put: Put, *, offset: int = 0, scratch: Path) -> tuple[Placed, ...]:
    """
    Write a weights file.

    A type that HDF5 does not keep as it lies in memory is written by Keras's own store.

    Parameters:
        record (Record): what the model saves.
        put (Callable[[memoryview], object]): takes the bytes in order, and may hold them.
        offset (int): bytes before the weights file in the model's file.
        scratch (Path): a directory for a file that is gone when this returns.

    Returns:
        tuple[Placed, ...]: where each array lies, in the order of the file; empty where that is
            not known.
    """
    groups = _groups(record)
    try:
        layout = _layout(groups)
    except _UnknownTypeError:
        _put_replayed(record, put, scratch)
        return ()
    for piece in layout.pieces:
        if isinstance(piece, bytes):
            put(memoryview(piece))
        else:
            put(_bytes(record.arrays[piece]))
    names = [
        (array_path(group.path, name), kind, shape)
        for group in groups
        for name, kind, shape in group.arrays
    ]
    placed = (
        Placed(path, kind.name, shape, offset + at)
        for (path, kind, shape), at in zip(names, layout.offsets, strict=True)
    )
    return tuple(sorted(placed, key=lambda each: each.offset))


def replay(record: Record, store: saving_lib.H5IOStore) -> None:
    """
    Write a weights file as Keras does: the same bytes, by its own store.

    Parameters:
        record (Record): what the model saves.
        store (H5IOStore): of Keras, open for writing; the caller closes it.
    """
    arrays = iter(record.arrays)
    for entry in record.entries:
        group = store.make(entry.path, metadata=entry.metadata)
        for name in entry.sources:
            group[name] = next(arrays)


def _put_replayed(record: Record, put: Put, scratch: Path) -> None:
    path = scratch / f"~{disk.new_name()}"
    try:
        store = saving_lib.H5IOStore(path, mode="w")
        try:
            replay(record, store)
        finally:
            store.close()
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                put(memoryview(block))
    finally:
        path.unlink(missing_ok=True)


def _groups(record: Record) -> tuple[_Group, ...]:
    arrays = iter(record.arrays)
    return tuple(
        _Group(
            entry.path,
            None if entry.metadata is None else tuple(entry.metadata.items()),
            tuple(
                (name, each.dtype, each.shape) for name in entry.sources for each in (next(arrays),)
            ),
        )
        for entry in record.entries
    )


@functools.lru_cache(maxsize=8)
def _layout(groups: tuple[_Group, ...]) -> _Layout:
    memory = _Memory()
    spans: list[tuple[int, int]] = []
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(memory, "w") as file:
        for group in groups:
            if group.metadata is None and not group.arrays:
                continue
            into = file.create_group(f"{group.path}/vars" if group.path else "vars")
            for name, value in group.metadata or ():
                into.attrs[name] = value
            for name, kind, shape in group.arrays:
                spans.append(_span(into, name, kind, shape, early))
    return _Layout(memory.end, tuple(_pieces(memory, spans)), tuple(at for at, _ in spans))


def _span(
    group: Any, name: str, kind: np.dtype[Any], shape: tuple[int, ...], early: Any
) -> tuple[int, int]:
    """Make a dataset without its array; where that belongs, and how long it is."""
    count = kind.itemsize * math.prod(shape)
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    try:
        # By the inner interface: the outer one leaves `early` aside for single numbers.
        type_ = h5py.h5t.py_create(kind, logical=True)
        made = h5py.h5d.create(group.id, name.encode(), type_, space, early)
    except (TypeError, ValueError) as error:
        raise _UnknownTypeError(f"HDF5 has no type for {kind}") from error
    if kind.name == "bfloat16":  # as Keras marks it
        h5py.Dataset(made).attrs["dtype"] = "bfloat16"
    if kind.hasobject or made.get_storage_size() != count:
        raise _UnknownTypeError(f"HDF5 keeps {kind} otherwise than it lies in memory")
    return (made.get_offset() if count else 0), count


def _pieces(memory: "_Memory", spans: list[tuple[int, int]]) -> Iterator[bytes | int]:
    at = 0
    for (offset, count), number in sorted(zip(spans, range(len(spans)), strict=True)):
        if count:
            if offset > at:
                yield memory.read_at(at, offset - at)
            yield number
            at = offset + count
    if memory.end > at:
        yield memory.read_at(at, memory.end - at)


class _Memory(io.RawIOBase):
    """A file in memory that has room for the skeleton alone, however long it is."""

    def __init__(self) -> None:
        super().__init__()
        self.end = 0
        self._at = 0
        self._pages: dict[int, bytearray] = {}

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.end}[whence]
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self.end = self._at if size is None else size
        return self.end

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = self.read_at(self._at, len(view))
        self._at += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for at, page, inside in self._within(self._at, len(view)):
            stored = self._pages.setdefault(page, bytearray(_PAGE_BYTES))
            stored[inside] = view[at : at + (inside.stop - inside.start)]
        self._at += len(view)
        self.end = max(self.end, self._at)
        return len(view)

    def read_at(self, offset: int, count: int) -> bytes:
        """Bytes of the skeleton; zeros where nothing was written."""
        parts = []
        for _, page, inside in self._within(offset, count):
            stored = self._pages.get(page)
            parts.append(bytes(inside.stop - inside.start) if stored is None else stored[inside])
        return b"".join(parts)

    @staticmethod
    def _within(offset: int, count: int) -> Iterator[tuple[int, int, slice]]:
        """The pages that a stretch lies on: where in the stretch, which page, and where in it."""
        at = 0
        while at < count:
            page, start = divmod(offset + at, _PAGE_BYTES)
            length = min(_PAGE_BYTES - start, count - at)
            yield at, page, slice(start, start + length)
            at += length


def _bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """An array's memory as bytes; also of types that Python's buffers do not know."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
