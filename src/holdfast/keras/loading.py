"""A whole model from a store, for use without the code that built it."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast import disk
from holdfast.checkpoint import Checkpoint
from holdfast.errors import CheckpointWarning, FormatError, InvalidInputError
from holdfast.keras import training
from holdfast.keras.formats import FORMATS, format_of, read_whole
from holdfast.keras.variables import describe, difference
from holdfast.state import DirectoryContents
from holdfast.store import CheckpointStore, open_store


def load_model(
    store: CheckpointStore | str | os.PathLike[str],
    checkpoint: Checkpoint | str | None = None,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,  # noqa: A002 - Keras's own word
    safe_mode: bool = True,
) -> Any:
    """
    Load the whole model that a checkpoint holds, from a copy whose every byte was hashed.

    The checkpoint holds it in a `.keras`, `.h5` or `.hdf5` file. To go on with a training use
    `ModelCheckpoint.resume` or a `KerasState`: a loaded model has other seed generators.

    Loading a model runs what is written in it: layers that you name or have imported, and, with
    `safe_mode=False`, code of the file. The hashes prove that it is what was saved, not that it is
    harmless.

    Parameters:
        store (CheckpointStore | str | os.PathLike): where the checkpoint lies; a path or a URL is
            opened with `open_store`.
        checkpoint (Checkpoint | str | None): which one, or its id. None takes the newest good one.
        custom_objects (Mapping[str, Any] | None): your own classes and functions by name, where
            they are not registered with Keras.
        compile (bool): compile the model as it was.
        safe_mode (bool): refuse code that is stored in the file, such as a lambda.

    Returns:
        keras.Model: the model.

    Raises:
        InvalidInputError: the checkpoint holds no whole model, or more than one.
        FormatError: Keras cannot load the file.
        others: as `CheckpointStore.download`.
    """
    opened = store if isinstance(store, CheckpointStore) else open_store(_place(store))
    scratch = opened.downloads.scratch()
    try:
        files = opened.download(checkpoint, to=scratch.directory)
        name = _model_file([path for path, _ in disk.walk(files)], opened.url)
        model = read_whole(files / name, custom_objects, compile=compile, safe_mode=safe_mode)
        if model.compiled and not format_of(name).keeps_optimizer:
            _bring_optimizer(model, files)
    finally:
        scratch.discard()
    return model


def _bring_optimizer(model: Any, files: Path) -> None:
    """Give a model of the older HDF5 format the optimizer that it was saved with."""
    # Keras 3.15 builds it for no variables, so that the next training step raises
    # (keras/src/legacy/saving/legacy_h5_format.py, load_model_from_hdf5).
    model.optimizer = model.optimizer.from_config(model.optimizer.get_config())
    model.optimizer.build(model.trainable_variables)
    try:
        contents = DirectoryContents(files)
        state = training.read(contents)
    except InvalidInputError as error:
        text = f"The model is loaded, and its optimizer begins anew: {error}"
        warnings.warn(text, CheckpointWarning, stacklevel=3)
        return
    kept, live = state.optimizer or (), model.optimizer.variables
    if told := difference(kept, describe(live)):
        raise FormatError(
            f"the optimizer in {state.file} is not the one that was saved with it: {told}. The "
            "checkpoint is untouched. Load it with compile=False."
        )
    arrays = training.read_arrays(contents, training.OPTIMIZER, kept)
    for variable, array in zip(live, arrays, strict=True):
        variable.assign(array)


def _place(given: str | os.PathLike[str]) -> str | os.PathLike[str]:
    name = os.path.basename(os.fspath(given))  # noqa: PTH119 - it may be a URL
    if any(each.suffix and name.endswith(each.suffix) for each in FORMATS):
        raise InvalidInputError(
            f"{os.fspath(given)!r} names a file, and a store is a directory. Nothing was loaded. "
            "Give what precedes the name, as in load_model('runs/a'); a file that no store holds "
            "is loaded by keras.saving.load_model."
        )
    return given


def _model_file(paths: Sequence[str], url: str) -> str:
    found = [path for path in paths if _is_model(path)]
    if len(found) == 1:
        return found[0]
    held = ", ".join(path for path in paths if not path.startswith("training/")) or "nothing"
    if found:
        raise InvalidInputError(
            f"the checkpoint in {url} holds {len(found)} models: {held}. Nothing was loaded. "
            "store.download() it, and load one with keras.saving.load_model."
        )
    raise InvalidInputError(
        f"the checkpoint in {url} holds no whole model in .keras, .h5 or .hdf5, only {held}. "
        "Nothing was loaded. Build the model by its code and restore into it: "
        "store.restore(KerasState(model)); or give another checkpoint. A SavedModel is loaded with "
        "tensorflow.saved_model.load."
    )


def _is_model(path: str) -> bool:
    form = next(each for each in FORMATS if path.endswith(each.suffix))
    return "/" not in path and form.whole and not form.directory
