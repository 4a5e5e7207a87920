"""A `tf.train.Checkpoint` as a state that a store can keep."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from holdfast import disk, layout
from holdfast.errors import FormatError, InvalidInputError
from holdfast.staging import Workspace
from holdfast.tensorflow.matching import Written


class CheckpointState:
    """
    The objects of a `tf.train.Checkpoint`: models, optimizers, variables, iterators of `tf.data`.

    Kept are the files that TensorFlow writes, `ckpt.index` and `ckpt.data-00000-of-00001`. A
    restore is strict: what was kept and what is here have to match, name by name.

    The seed generators of Keras's layers, which dropout draws from, are no part of a
    `tf.train.Checkpoint(model=model)`. Give their variables to it by a name of their own.

    Parameters:
        checkpoint (tf.train.Checkpoint): the live objects, in eager mode.
        name (str): what the files are called before the dot.
        workspace (Workspace | None): where a snapshot is written. Give the store's: then its files
            are moved and not copied. None takes the system's temporary directory.

    Raises:
        InvalidInputError: it is no `tf.train.Checkpoint`, or the name cannot be kept.
    """

    def __init__(
        self, checkpoint: Any, name: str = "ckpt", *, workspace: Workspace | None = None
    ) -> None:
        check(checkpoint)
        layout.check_part(f"{name}.index", f"the name {name!r}")
        self.checkpoint = checkpoint
        self.name = name
        self._workspace = workspace

    def snapshot(self) -> "CheckpointSnapshot":
        """
        Write the objects into local files of their own, which later training steps do not show in.

        Raises:
            InvalidInputError: TensorFlow builds a graph here.
            StorageError: the workspace failed.
            tf.errors.OpError: TensorFlow cannot write.
        """
        check_eager()
        if self._workspace is None:
            directory = Path(tempfile.mkdtemp(prefix="holdfast-"))
            snapshot = CheckpointSnapshot(directory, lambda: disk.remove(directory))
        else:
            scratch = self._workspace.scratch()
            snapshot = CheckpointSnapshot(scratch.directory, scratch.discard)
        write(self.checkpoint, snapshot.directory / self.name)
        return snapshot

    def restore(self, directory: Path) -> None:
        """
        Read what was kept into the live objects.

        All names, types and shapes are compared before the first value is assigned.

        Raises:
            InvalidInputError: nothing was kept under this name, or a value has no match; nothing
                was changed.
            FormatError: TensorFlow cannot read the files.
        """
        prefix = directory / self.name
        if not prefix.with_name(f"{self.name}.index").exists():
            held = ", ".join(path for path, _ in disk.walk(directory)) or "nothing"
            raise InvalidInputError(
                f"the checkpoint holds no {self.name}.index, only {held}. Nothing was changed. "
                "Give the name that it was saved under."
            )
        written = Written(str(prefix))
        if "save_counter" in written.parts:
            self.checkpoint.save_counter  # noqa: B018 - it is made when it is first asked for
        written.compare(self.checkpoint).check(partial=False)
        try:
            self.checkpoint.read(str(prefix)).assert_consumed()
        except Exception as error:
            raise FormatError(
                f"TensorFlow cannot read {self.name} into these objects: {error} The checkpoint is "
                "untouched; the objects may have changed in part, so make them again before you "
                "use them."
            ) from error


class CheckpointSnapshot:
    """
    Files that TensorFlow has written, which are moved from there.

    Attributes:
        directory (Path): where they lie.
    """

    def __init__(self, directory: Path, discard: Callable[[], object]) -> None:
        self.directory = directory
        # A snapshot that gives way to a newer one is never written: its files go with it.
        self._discard = weakref.finalize(self, discard)

    def write_to(self, directory: Path) -> None:
        """Move the files into the directory."""
        with disk.disk_errors("move the snapshot into", directory):
            for child in self.directory.iterdir():
                shutil.move(child, directory / child.name)
        self._discard()


def check(checkpoint: object) -> None:
    """Refuse what is no `tf.train.Checkpoint`."""
    if not isinstance(checkpoint, tf.train.Checkpoint):
        raise InvalidInputError(
            f"a tf.train.Checkpoint can be kept, not {checkpoint!r}; nothing was touched. Wrap the "
            "objects in one: tf.train.Checkpoint(model=model, optimizer=optimizer)."
        )


def check_eager() -> None:
    """Refuse to save where TensorFlow builds a graph."""
    if not tf.executing_eagerly():
        raise InvalidInputError(
            "a tf.train.Checkpoint is saved in eager mode, and TensorFlow builds a graph here; "
            "nothing was saved. Save outside of tf.function, or, in a session, with "
            "tf.compat.v1.train.Saver inside store.stage(step=…)."
        )


def write(checkpoint: Any, prefix: Path, options: Any = None) -> None:
    """
    Write a `tf.train.Checkpoint`; when this returns, its files are whole.

    Raises:
        tf.errors.OpError: TensorFlow cannot write.
    """
    checkpoint.write(str(prefix), options)
    checkpoint.sync()  # with options that ask for it, TensorFlow writes behind the call
