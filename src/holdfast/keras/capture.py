"""A live Keras model as a state that a store can keep."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, Protocol

import keras

from holdfast import disk
from holdfast.errors import InvalidInputError
from holdfast.keras import formats, shards, training
from holdfast.keras.progress import Position
from holdfast.keras.run import Run
from holdfast.staging import Workspace


class KerasState:
    """
    A Keras model with its optimizer, its seed generators and the random states of the process.

    Kept are the model's file in one of Keras's formats, under a name of your choice, and
    `training/`: the position in the run, the seed generators that dropout draws from, the random
    states of Python, NumPy and the framework, and the weights or the optimizer where the format
    drops them. Restoring assigns values to the variables of the live model and sets the random
    states; no architecture is deserialized, and no stored code runs.

    Parameters:
        model (keras.Model): the live model.
        file (str): how its file is called; the suffix chooses the format. `.keras`, `.h5` and
            `.hdf5` hold the whole model, `.weights.h5` its weights and optimizer, `.weights.json`
            the same in several files. Without a suffix it is the directory of a SavedModel.
        position (Position): where the training stands; kept with the model.
        run (Run | None): what belongs to a `fit` that is under way. The callbacks give it.
        architecture (bool): also keep the architecture as JSON, beside the file.
        max_shard_size (float): GiB that one of the files of `.weights.json` may have.
        workspace (Workspace | None): where a snapshot is written. Give the store's: then its files
            are moved and not copied. None takes the system's temporary directory.

    Attributes:
        position (Position): as given; after a restore, where the kept training stood.
        run (Run | None): as given; after a restore, what was kept.

    Raises:
        InvalidInputError: the model is none, or the file's name cannot be kept.
    """

    def __init__(
        self,
        model: Any,
        file: str = "model.keras",
        *,
        position: Position | None = None,
        run: Run | None = None,
        architecture: bool = False,
        max_shard_size: float = shards.MAX_SIZE,
        workspace: Workspace | None = None,
    ) -> None:
        if not isinstance(model, keras.Model):
            raise InvalidInputError(f"a Keras model can be kept, not {model!r}.")
        formats.check_writable(formats.check_name(file))
        self.model = model
        self.file = file
        self.position = position or Position()
        self.run = run
        self._architecture = architecture
        self._max_shard_size = max_shard_size
        self._workspace = workspace

    def snapshot(self) -> "KerasSnapshot":
        """
        Write the model into a local file of its own, which later training steps do not show in.

        Raises:
            InvalidInputError: the model is not built.
            StorageError: the local disk failed.
            Exception: whatever Keras or a layer of the model raises while it saves.
        """
        if not self.model.built:
            raise InvalidInputError(
                f"the model {self.model.name!r} is not built yet, so it has nothing to save. Begin "
                "it with keras.Input(shape), call model.build(input_shape), or train it first."
            )
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()  # inside an epoch the values lie beside the model
        place = _Temporary() if self._workspace is None else self._workspace.scratch()
        try:
            path = place.directory / self.file
            formats.write(self.model, path, max_shard_size=self._max_shard_size)
            if self._architecture:
                name = formats.architecture_name(self.file)
                formats.write_architecture(self.model, place.directory / name)
            training.write(self.model, self.file, self.position, self.run, place.directory)
        except BaseException:
            place.discard()
            raise
        return KerasSnapshot(place)

    def restore(self, directory: Path) -> None:
        """
        Load what was kept into the live model, and its place in the training into `position`.

        All names, types and shapes are compared before the first value is assigned.

        Raises:
            InvalidInputError: no Keras state was kept there, the model is not built or compiled,
                or a variable has no match; the model's values are unchanged.
            FormatError: a file cannot be read, or is of a newer format.
        """
        state = training.read(directory)
        self.run = training.load(state, self.model, directory)
        self.position = state.position


class KerasSnapshot:
    """A model that was written to the local disk, and is moved from there."""

    def __init__(self, place: "_Place") -> None:
        self._place = place
        # A snapshot that gives way to a newer one is never written: its files go with it.
        self._discard = weakref.finalize(self, place.discard)

    def write_to(self, directory: Path) -> None:
        """Move the files into the directory."""
        with disk.disk_errors("move the snapshot into", directory):
            for child in self._place.directory.iterdir():
                shutil.move(child, directory / child.name)
        self._discard()


class _Place(Protocol):
    @property
    def directory(self) -> Path: ...

    def discard(self) -> object: ...


class _Temporary:
    """A directory in the system's temporary one."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="holdfast-")
        self.directory = Path(self._temporary.name)

    def discard(self) -> None:
        self._temporary.cleanup()
