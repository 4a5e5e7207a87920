"""
Keras's `.keras` file: an uncompressed zip around a weights file, written from front to back.

One that comes from elsewhere may be compressed, and then unpack to far more than it has.
"""

import contextlib
import zipfile
from pathlib import Path

from keras.src.saving import saving_lib

from holdfast.errors import FormatError
from holdfast.hashing import HashedFile
from holdfast.keras import hdf5
from holdfast.keras.description import Description
from holdfast.keras.hdf5 import Placed
from holdfast.keras.recording import Record

#: Bytes that are counted into the zip's checksum at a time; the disk and the hash are busy with
#: those before.
_BLOCK_BYTES = 8 * 1024 * 1024
#: From so many bytes of arrays on the zip is told to be a large one. A zip needs its larger numbers
#: from 4 GiB on (PKWARE's APPNOTE.TXT, 4.3.9.2), Python's zipfile draws the line at half of that,
#: and the skeleton comes on top.
_LARGE_BYTES = 1 << 30
#: How many times its own bytes a file may unpack to, and what any may beside. Zeros, such as those
#: of an optimizer that has just begun, pack a thousand times smaller, but are never all of a model.
_MOST_TIMES, _MOST_BESIDE = 20, 16 * 1024 * 1024


def write(
    file: HashedFile, description: Description, record: Record, *, scratch: Path
) -> tuple[Placed, ...]:
    """
    Write a `.keras` file.

    Parameters:
        file (HashedFile): empty.
        description (Description): of the model.
        record (Record): what it saves.
        scratch (Path): as `hdf5.write`.

    Returns:
        tuple[Placed, ...]: where each array lies in the file, as `hdf5.write`.
    """
    size = sum(array.nbytes for array in record.arrays)
    # It cannot be gone back in, so the zip has its checksums behind the contents.
    with zipfile.ZipFile(file, "w") as archive:  # type: ignore[call-overload]
        archive.writestr(saving_lib._METADATA_FILENAME, description.metadata)  # noqa: SLF001
        archive.writestr(saving_lib._CONFIG_FILENAME, description.config)  # noqa: SLF001
        name = saving_lib._VARS_FNAME_H5  # noqa: SLF001
        with archive.open(name, "w", force_zip64=size >= _LARGE_BYTES) as weights:

            def put(data: memoryview) -> None:
                for at in range(0, len(data), _BLOCK_BYTES):
                    weights.write(data[at : at + _BLOCK_BYTES])

            placed = hdf5.write(record, put, offset=file.size, scratch=scratch)
        for path, data in record.assets.items():
            archive.writestr(path, data)
    return placed


def check(path: Path) -> None:
    """
    Refuse a `.keras` file that unpacks to far more than it has, before Keras makes room for it.

    What Python's zipfile reads of a member is never more than it declares. A file that is no zip is
    Keras's to refuse.

    Raises:
        FormatError: it does.
        OSError: it cannot be read.
    """
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        size = path.stat().st_size
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MOST_TIMES * size + _MOST_BESIDE:
            raise FormatError(
                f"{path.name} has {size:,} bytes and would unpack to {unpacked:,}. Nothing was "
                "loaded. No training saves such a file: find out where it comes from. Restore "
                "another checkpoint."
            )
