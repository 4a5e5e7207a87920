"""A live Keras model as a state that a store can keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from holdfast import disk
from holdfast.errors import InvalidInputError
from holdfast.hashing import HashedFile
from holdfast.keras import formats, shards, training
from holdfast.keras.progress import Position
from holdfast.keras.run import Run
from holdfast.keras.snapshot import ModelFile, take
from holdfast.keras.training import Part
from holdfast.staging import Workspace
from holdfast.state import Contents, DirectoryContents


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
        workspace (Workspace | None): where a snapshot is written that cannot be held. Give the
            store's: then its files are moved and not copied. None takes the system's temporary
            directory.

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
        Take the model, so that later training steps do not show in it.

        Its values are held and not copied where the framework can hold them; the file is written
        from them later. See `holdfast.keras.snapshot.take`.

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
        return KerasSnapshot(
            take(self.model, self.file, self._max_shard_size, self._workspace),
            Part.of(self.model, self.file, self.position, self.run),
            self._architectures(),
            is_compiled=bool(self.model.jit_compile),
        )

    def restore(self, directory: Path) -> None:
        """
        Load what was kept into the live model, and its place in the training into `position`.

        As `restore_from`.
        """
        self.restore_from(DirectoryContents(directory))

    def restore_from(self, contents: Contents) -> None:
        """
        Load what was kept into the live model, and its place in the training into `position`.

        All names, types and shapes are compared before the first value is assigned.

        Parameters:
            contents (Contents): the checkpoint's files.

        Raises:
            InvalidInputError: no Keras state was kept there, the model is not built or compiled,
                or a variable has no match; the model's values are unchanged.
            FormatError: a file cannot be read, or is of a newer format.
            CorruptionError, NotFoundError, StorageError: as `Contents`.
        """
        state = training.read(contents)
        self.run = training.load(state, self.model, contents)
        self.position = state.position

    def _architectures(self) -> dict[str, str]:
        if not self._architecture:
            return {}
        return {formats.architecture_name(self.file): formats.architecture(self.model)}


class KerasSnapshot:
    """
    A model as it was at one moment.

    Parameters:
        file (ModelFile): its file.
        part (Part): what goes into `training/`.
        texts (Mapping[str, str]): further files, by name.
        is_compiled (bool): XLA compiles its training steps. Then it is decided before a step what
            has to be copied in it, else where a variable changes.
    """

    def __init__(
        self, file: ModelFile, part: Part, texts: Mapping[str, str], *, is_compiled: bool
    ) -> None:
        self._file = file
        self._part = part
        self._texts = texts
        self._is_compiled = is_compiled

    def detach(self) -> None:
        """Copy the values at once, or beside the next step where that is early enough."""
        beside = not self._is_compiled
        self._file.detach(beside=beside)
        self._part.detach(beside=beside)

    def write_to(self, directory: Path) -> Mapping[str, str]:
        """Write the files, hashed in the same pass."""
        with disk.disk_errors("stage into", directory):
            written = self._file.write_to(directory)
            hashes = {**written.hashes, **self._part.write_to(directory, written.placed)}
            for name, text in self._texts.items():
                with HashedFile(directory / name) as file:
                    file.write(text.encode())
                hashes[name] = file.hash
        return hashes
