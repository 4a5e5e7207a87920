"""The file formats that Keras writes, by suffix, and what each of them brings back."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import disk
from holdfast.errors import FormatError, InvalidInputError


@dataclass(frozen=True)
class Format:
    """
    One of Keras's file formats.

    Attributes:
        suffix (str): what the file's name ends with.
        whole (bool): the file holds the whole model; otherwise its weights and its optimizer.
        keeps_optimizer (bool): `model.load_weights` brings the optimizer back from it. Keras 3.15
            does not for its older HDF5 format: the optimizer starts again at step 0.
    """

    suffix: str
    whole: bool
    keeps_optimizer: bool


#: The longest suffix first, since `.weights.h5` also ends with `.h5`.
FORMATS = (
    Format(".weights.h5", whole=False, keeps_optimizer=True),
    Format(".keras", whole=True, keeps_optimizer=True),
    Format(".hdf5", whole=True, keeps_optimizer=False),
    Format(".h5", whole=True, keeps_optimizer=False),
)


def format_of(name: str, *, weights_only: bool = False) -> Format:
    """
    The format that a file's name asks for.

    Parameters:
        name (str): a file's name, or a template of one.
        weights_only (bool): the caller wants the weights alone.

    Raises:
        InvalidInputError: Keras has no such format, we do not write it, or it holds more than the
            weights.
    """
    for each in FORMATS:
        if name.endswith(each.suffix):
            if weights_only and each.whole:
                raise InvalidInputError(
                    f"save_weights_only=True cannot write {name!r}: {each.suffix} holds the whole "
                    "model. Nothing was touched. End the name in .weights.h5, or leave "
                    "save_weights_only out."
                )
            return each
    raise InvalidInputError(
        f"{name!r} does not end in a suffix that says how to save a model; nothing was touched. "
        "End it in .keras (the whole model), .weights.h5 (weights and optimizer), or .h5 or .hdf5 "
        "(the whole model as older Keras wrote it)."
    )


def write(model: Any, path: Path) -> None:
    """
    Write a model into a file that does not exist yet, in the format that its suffix asks for.

    Raises:
        StorageError: the disk failed.
        Exception: whatever Keras or a layer of the model raises; the file is then worthless.
    """
    with disk.disk_errors("write", path), _compiled_as_before(model):
        if format_of(path.name).whole:
            model.save(_local(path))
        else:
            model.save_weights(_local(path))


def read(model: Any, path: Path) -> None:
    """
    Load the weights in a file into a built model, with the optimizer where the format keeps it.

    No architecture is deserialized, and no stored code runs.

    Raises:
        FormatError: Keras cannot load the file, or would skip a part of it. The model may have
            changed in part.
    """
    try:
        with warnings.catch_warnings():
            # Keras skips an optimizer or a layer that does not fit with a warning alone.
            warnings.filterwarnings("error", message="Skipping", category=UserWarning)
            model.load_weights(_local(path))
    except Exception as error:
        raise FormatError(
            f"Keras cannot load {path.name} into this model: {error} The checkpoint is untouched; "
            "the model may have changed in part, so build it again before you use it."
        ) from error


@contextlib.contextmanager
def _compiled_as_before(model: Any) -> Iterator[None]:
    """Put back what Keras takes away from a model that it saves in its older HDF5 format."""
    # It removes the optimizer from what the model was compiled with, so that every `.keras` file
    # that is saved later says RMSprop (keras/src/legacy/saving/saving_utils.py, model_metadata).
    held = getattr(getattr(model, "_compile_config", None), "config", None)
    before = dict(held or {})
    try:
        yield
    finally:
        if held is not None:
            held.update(before)


def _local(path: Path) -> str:
    """A path that Keras takes for a local one, whatever its first directory is called."""
    # Keras takes every path below /gcs, /hdfs and a few others for a remote one
    # (keras/src/utils/file_utils.py, is_remote_path).
    return f"/.{path.absolute()}"
