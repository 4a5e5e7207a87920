"""The file formats that Keras writes, by suffix, and what each of them brings back."""

import contextlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from holdfast import disk, layout
from holdfast.errors import FormatError, InvalidInputError
from holdfast.keras import archive, shards

#: A field of a template: of a counter, which reads as a number, and any other.
_COUNTER = re.compile(r"\{(?:epoch|batch)\b[^{}]*\}")
_FIELD = re.compile(r"\{[^{}]*\}")
#: What makes people take the end of a name for a suffix. After a number's dot comes a digit.
_SUFFIX = re.compile(r"\.[A-Za-z][^.]*\Z")


@dataclass(frozen=True)
class Format:
    """
    One of Keras's file formats.

    Attributes:
        suffix (str): what the file's name ends with; empty for a SavedModel, which has none.
        whole (bool): the whole model can be made from it without the code that built it; otherwise
            it holds the weights and the optimizer.
        keeps_weights (bool): `model.load_weights` brings the weights back from it. Keras 3 reads no
            SavedModel.
        keeps_optimizer (bool): `model.load_weights` brings the optimizer back from it. Keras 3.15
            does not for its older HDF5 format: the optimizer starts again at step 0.
        directory (bool): it is a directory, and not a file.
    """

    suffix: str
    whole: bool = False
    keeps_weights: bool = True
    keeps_optimizer: bool = True
    directory: bool = False


KERAS = Format(".keras", whole=True)
WEIGHTS = Format(".weights.h5")
SHARDED = Format(".weights.json")
SAVED_MODEL = Format("", whole=True, keeps_weights=False, keeps_optimizer=False, directory=True)

#: The longest suffix first, since `.weights.h5` also ends with `.h5`.
FORMATS = (
    SHARDED,
    WEIGHTS,
    KERAS,
    Format(".hdf5", whole=True, keeps_optimizer=False),
    Format(".h5", whole=True, keeps_optimizer=False),
    SAVED_MODEL,
)

#: The format of older Keras, for whole models.
_HDF5 = (".h5", ".hdf5")

#: What to do about suffixes that older code has.
_CURES = {
    ".ckpt": "Keras no longer writes TensorFlow's checkpoints: for the weights take .weights.h5.",
    ".tf": "A SavedModel is a directory: leave the suffix out.",
    ".pb": "A SavedModel is a directory: leave the suffix out.",
    ".json": "The architecture comes beside a model's file: give the name of that one.",
}


def format_of(name: str, *, weights_only: bool = False) -> Format:
    """
    The format that a file's name asks for.

    A name is without a suffix if it has no dot, or if a digit or a counter of the template follows
    the last one, as in `weights.{epoch:02d}-{val_loss:.2f}`. Any other suffix than Keras's is
    refused.

    Parameters:
        name (str): a file's name, or a template of one.
        weights_only (bool): the caller wants the weights alone.

    Raises:
        InvalidInputError: Keras has no such format, or it holds more than the weights.
    """
    found = next((each for each in FORMATS if name.endswith(each.suffix)), SAVED_MODEL)
    if found is SAVED_MODEL:
        # A metric may be none or nan: what it reads as may look like a suffix.
        plain = _FIELD.sub("none", _COUNTER.sub("0", name))
        if unknown := _SUFFIX.search(plain):
            raise InvalidInputError(_unknown(name, unknown[0]))
    if weights_only and found.whole:
        what = found.suffix or "a name without a suffix"
        raise InvalidInputError(
            f"save_weights_only=True cannot write {name!r}: {what} holds the whole model. Nothing "
            "was touched. End the name in .weights.h5, or leave save_weights_only out."
        )
    return found


def check_name(name: str) -> Format:
    """
    Refuse a name whose files cannot be kept everywhere, beside those that Holdfast adds.

    Parameters:
        name (str): the file's name, without placeholders.

    Returns:
        Format: what it asks for.

    Raises:
        InvalidInputError: it has no format, or `layout.check_paths` refuses what would be written.
    """
    found = format_of(name)
    paths = [name, "training/state.json", architecture_name(name)]
    if found is SHARDED:
        paths.append(shards.first(name))
    layout.check_paths(paths)
    return found


def check_writable(found: Format, model: Any = None) -> None:
    """
    Refuse a format that Keras cannot write in this process, or not so that it can be read again.

    Parameters:
        found (Format): the format.
        model (keras.Model | None): the model, once it is known.

    Raises:
        InvalidInputError: a SavedModel is asked for, and TensorFlow is not there, or the backend of
            Keras is neither TensorFlow nor JAX; or the older HDF5 format for a type such as
            bfloat16, which it does not bring back.
    """
    backend = keras.backend.backend()
    if found is SAVED_MODEL and backend not in ("tensorflow", "jax"):
        # Keras calls its export from PyTorch experimental; 3.15.1 fails on a single dense layer.
        why = f"a name without a suffix asks for a SavedModel, and Keras writes none on {backend}"
    elif found is SAVED_MODEL and importlib.util.find_spec("tensorflow") is None:
        why = (
            "a name without a suffix asks for a SavedModel, and that takes TensorFlow "
            '(pip install "holdfast[tensorflow]"), which is not installed'
        )
    elif found.suffix in _HDF5 and (strange := _strange(model)):
        why = f"Keras reads no {strange} back from {found.suffix}, and this model has such weights"
    else:
        return
    raise InvalidInputError(
        f"{why}. Nothing was touched. End the name in .keras (the whole model) or .weights.h5 "
        "(weights and optimizer)."
    )


def write(model: Any, path: Path, *, max_shard_size: float = shards.MAX_SIZE) -> None:
    """
    Write a model into a file that does not exist yet, in the format that its suffix asks for.

    Parameters:
        model (keras.Model): built.
        path (Path): the file, or the directory of a SavedModel. Shards are written beside it.
        max_shard_size (float): GiB that one file of a sharded format may have; a larger variable
            has its room all the same.

    Raises:
        InvalidInputError: as `check_writable`.
        StorageError: the disk failed.
        Exception: whatever Keras or a layer of the model raises; the file is then worthless.
    """
    found = format_of(path.name)
    check_writable(found, model)
    with disk.disk_errors("write", path), _compiled_as_before(model), _without_advice():
        if found is SAVED_MODEL:
            model.export(local(path), verbose=False)
        elif found is SHARDED:
            size = shards.size_for(model, max_shard_size)
            model.save_weights(local(path), max_shard_size=size)
        elif found.whole:
            model.save(local(path))
        else:
            model.save_weights(local(path))


def read(model: Any, path: Path) -> None:
    """
    Load the weights in a file into a built model, with the optimizer where the format keeps it.

    No architecture is deserialized, and no stored code runs.

    Raises:
        FormatError: Keras cannot load the file, or would skip a part of it: then the model may
            have changed in part. Or the file leads elsewhere, or unpacks to far more than it has.
    """
    _check(path)  # before anything is assigned
    try:
        with warnings.catch_warnings():
            # Keras skips an optimizer or a layer that does not fit with a warning alone.
            warnings.filterwarnings("error", message="Skipping", category=UserWarning)
            model.load_weights(local(path))
    except Exception as error:
        raise FormatError(
            f"Keras cannot load {path.name} into this model: {error} The checkpoint is untouched; "
            "the model may have changed in part, so build it again before you use it."
        ) from error


def read_whole(path: Path, custom_objects: Mapping[str, Any] | None, **choices: bool) -> Any:
    """
    Make the model that a file of a whole model holds.

    Parameters:
        path (Path): the file.
        custom_objects (Mapping[str, Any] | None): classes and functions by name.
        **choices (bool): `compile` and `safe_mode` of `keras.saving.load_model`.

    Raises:
        FormatError: Keras cannot load it, or it unpacks to far more than it has.
    """
    _check(path)
    try:
        return keras.saving.load_model(
            local(path), custom_objects=dict(custom_objects or {}), **choices
        )
    except Exception as error:
        raise FormatError(
            f"Keras cannot load {path.name}: {error} The checkpoint is untouched. Name your own "
            "classes and functions in custom_objects, or import what registers them; compile=False "
            "leaves out how the model was compiled."
        ) from error


def architecture_name(name: str) -> str:
    """The file that the architecture lies in, beside the model's file: `m.json` by `m.keras`."""
    return f"{name.removesuffix(format_of(name).suffix)}.json"


def architecture(model: Any) -> str:
    """
    The architecture of a model as JSON, which `keras.models.model_from_json` reads.

    It holds no weights. How the model was compiled is in it.

    Parameters:
        model (keras.Model): the model.

    Raises:
        InvalidInputError: the model, or a part of it, does not say how it is configured.
    """
    cure = (
        "Nothing was written. Give the class a get_config() that returns its constructor's "
        "arguments, or leave save_architecture out: weights need no architecture."
    )
    # Keras writes a class that only inherits get_config without an error, and drops its arguments.
    if type(model).get_config is keras.Model.get_config:
        raise InvalidInputError(
            f"the architecture of {model.name!r} cannot be saved: {type(model).__name__} has no "
            f"get_config() of its own. {cure}"
        )
    try:
        return str(model.to_json())
    except Exception as error:
        raise InvalidInputError(
            f"the architecture of {model.name!r} cannot be saved: {error} {cure}"
        ) from error


def local(path: Path) -> str:
    """A path that Keras takes for a local one, whatever its first directory is called."""
    # Keras takes every path below /gcs, /hdfs and a few others for a remote one
    # (keras/src/utils/file_utils.py, is_remote_path).
    return f"/.{path.absolute()}"


def _check(path: Path) -> None:
    """Refuse what Keras would follow, or make room for, unasked."""
    found = format_of(path.name)
    if found is SHARDED:
        shards.check(path)
    elif found is KERAS:
        archive.check(path)


def _unknown(name: str, suffix: str) -> str:
    cure = f"{_CURES[suffix]} " if suffix in _CURES else ""
    return (
        f"what follows the last dot of {name!r} does not say how to save a model; nothing was "
        f"touched. {cure}End it in .keras (the whole model), .weights.h5 (weights and optimizer), "
        ".weights.json (the same in several files), or .h5 or .hdf5 (the whole model as older "
        "Keras wrote it). Without a dot, or with a digit or {epoch} after it, a SavedModel is made."
    )


def _strange(model: Any) -> str | None:
    """A type that HDF5 does not know among a model's weights."""
    types = {str(weight.dtype) for weight in (model.weights if model is not None else ())}
    return next((each for each in sorted(types) if np.dtype(each).isbuiltin != 1), None)


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


def _is_news(record: logging.LogRecord) -> bool:
    # `.h5` was asked for by name, and the path of a SavedModel is that of a draft.
    text = str(record.msg)
    return not text.startswith(("You are saving your model as an HDF5", "Assets written to"))


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keep what Keras and TensorFlow log at every save in an older format to themselves."""
    loggers = [logging.getLogger("absl"), logging.getLogger("tensorflow")]
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)
