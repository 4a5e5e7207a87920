"""TensorFlow's `CheckpointManager`, over any storage."""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from holdfast import disk, layout, preflight, series
from holdfast.checkpoint import Checkpoint, CheckpointId, check_step
from holdfast.errors import CheckpointWarning, InvalidInputError
from holdfast.retention import KeepEvery, KeepLast, Rule
from holdfast.saver import Saver
from holdfast.state import copy_files
from holdfast.store import CheckpointStore, Metrics, open_store
from holdfast.tensorflow.copies import Copies, Prefixes
from holdfast.tensorflow.matching import Written
from holdfast.tensorflow.state import CheckpointState, check, check_eager, write


class CheckpointManager:
    """
    Save a `tf.train.Checkpoint` as `tf.train.CheckpointManager` does, into any storage.

    Every save is a checkpoint of its own in a store: whole or not there, verified when it is read,
    never overwritten. No file `checkpoint` says which is the latest, so none can be lost.

    TensorFlow reads files of this machine, so a prefix is that of a verified local copy in the
    workspace. The one that `save` returns is good until the next save, any other for as long as its
    checkpoint is in the store. All go with the `tf.train.Checkpoint`, or when the process ends.

    Several managers may save into one directory. Each notes its `checkpoint_name` in its
    checkpoints, its series, and lists, removes and restores within it.

    Parameters:
        checkpoint (tf.train.Checkpoint): what to save, in eager mode.
        directory (str | os.PathLike | CheckpointStore): a directory, a URL of any fsspec protocol,
            or a store, which brings its own retention: then `max_to_keep` is None.
        max_to_keep (int | None): how many of the newest stay, as `KeepLast`. None keeps all.
        keep_checkpoint_every_n_hours (float | None): beside them one of each span of so many hours
            stays, as `KeepEvery`. Spans begin at fixed hours, not where the last one was kept.
        checkpoint_name (str): the files of a checkpoint are called so, with `-` and its number.
        step_counter (tf.Variable | None): counts training steps, for `checkpoint_interval`.
        checkpoint_interval (int | None): steps that have to lie between two saves.
        init_fn (Callable | None): called by `restore_or_initialize` where the store is empty.
        last_checkpoint_step (int | None): the step of the last save, where one is known.
        storage_options (Mapping | None): handed on to the fsspec filesystem.

    Attributes:
        store (CheckpointStore): where the checkpoints lie.

    Raises:
        InvalidInputError: an argument is wrong; nothing was touched.
        AccessDenied, StorageFull, FormatError, StorageError: no save can succeed, as
            `CheckpointStore.preflight`.
    """

    def __init__(
        self,
        checkpoint: Any,
        directory: str | os.PathLike[str] | CheckpointStore,
        max_to_keep: int | None,
        keep_checkpoint_every_n_hours: float | None = None,
        checkpoint_name: str = "ckpt",
        step_counter: Any = None,
        checkpoint_interval: int | None = None,
        init_fn: Callable[[], object] | None = None,
        last_checkpoint_step: int | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        check(checkpoint)
        layout.check_part(f"{checkpoint_name}-0.index", f"checkpoint_name {checkpoint_name!r}")
        if checkpoint_interval is not None and step_counter is None:
            raise InvalidInputError(
                "checkpoint_interval counts steps, and no step_counter says which one it is; "
                "nothing was touched. Give the variable that counts them as step_counter."
            )
        if isinstance(directory, CheckpointStore):
            _check_store_alone(max_to_keep, keep_checkpoint_every_n_hours, storage_options)
            self.store, self._directory = directory, directory.url
        else:
            rule = _rule(checkpoint_name, max_to_keep, keep_checkpoint_every_n_hours)
            self.store = open_store(directory, retention=rule, storage_options=storage_options)
            self._directory = os.fspath(directory)
        self._checkpoint = checkpoint
        self._name = checkpoint_name
        self._step_counter = step_counter
        self._interval = None if checkpoint_interval is None else check_step(checkpoint_interval)
        self._init_fn = init_fn
        self._last_step = last_checkpoint_step
        self._copies = Copies(checkpoint, self.store, checkpoint_name)
        self._saved: CheckpointId | None = None
        # Without an answer nothing can be resumed either.
        preflight.once(self.store.url, self.store.preflight, on_error="raise")

    @property
    def checkpoint(self) -> Any:
        """The `tf.train.Checkpoint`."""
        return self._checkpoint

    @property
    def directory(self) -> str:
        """The directory or URL that was given; of a store its URL."""
        return self._directory

    @property
    def checkpoint_interval(self) -> int | None:
        """Steps that have to lie between two saves."""
        return self._interval

    @property
    def latest_checkpoint(self) -> str | None:
        """
        The prefix of the newest good checkpoint, for `tf.train.Checkpoint.restore`.

        A damaged one is passed over with a warning. It is looked for whenever it is asked for, and
        brought here if it is new.

        Returns:
            str | None: None only for a store that was listed whole and holds none of this name.

        Raises:
            CorruptionError: all are damaged.
            FormatError, StorageError: as `CheckpointStore.latest`.
        """
        history = self._history()
        return self._copies.bring_newest(history) if history else None

    @property
    def checkpoints(self) -> Prefixes:
        """The prefixes of all checkpoints of this name, oldest first, each brought when asked."""
        return Prefixes(self._copies, self._history())

    def save(
        self,
        checkpoint_number: Any = None,
        check_interval: bool = True,  # noqa: FBT001, FBT002 - TensorFlow's own order
        options: Any = None,
        *,
        metrics: Metrics | None = None,
    ) -> str | None:
        """
        Save; when this returns, the checkpoint is durable, and those that no rule keeps are gone.

        Parameters:
            checkpoint_number (int | tf.Variable | tf.Tensor | None): the checkpoint's step. None
                takes `checkpoint.save_counter`, which counts every save. A number again, or a lower
                one, overwrites nothing: what is saved later is later.
            check_interval (bool): False saves before `checkpoint_interval` has passed too, but
                never twice at one step.
            options (tf.train.CheckpointOptions | None): handed on to TensorFlow.
            metrics (Mapping[str, float] | None): numbers measured at this step.

        Returns:
            str | None: the prefix; None where nothing was saved, since it is not time yet.

        Raises:
            InvalidInputError: an argument is wrong, or TensorFlow builds a graph here.
            SupersededError: a newer session writes into the store.
            StorageError: the place or the workspace failed. A draft that was staged already is
                kept, and the next start publishes it.
            tf.errors.OpError: TensorFlow cannot write.
        """
        check_eager()
        step = None if self._interval is None else check_step(_value(self._step_counter))
        if step is not None and not self._is_due(step, check_interval):
            return None
        given = None if checkpoint_number is None else check_step(_value(checkpoint_number))
        number = int(self._checkpoint.save_counter) + 1 if given is None else given
        name = f"{self._name}-{number}"
        metadata = {series.KEY: self._name, "tensorflow": tf.__version__}
        if self._saved is not None:
            self._copies.drop([self._saved])  # first, since there may be no room for two
        with self._copies.room() as scratch:
            with self.store.stage(step=number, metrics=metrics, metadata=metadata) as draft:
                self._checkpoint.save_counter.assign_add(1)
                write(self._checkpoint, draft.directory / name, options)
                with disk.disk_errors("copy into", scratch.directory):
                    copy_files(draft.directory, scratch.directory)
            assert draft.checkpoint is not None  # noqa: S101 - it was committed
        self._last_step, self._saved = step, draft.checkpoint.id
        return self._copies.hold(draft.checkpoint, scratch)

    def restore_or_initialize(self) -> str | None:
        """
        Restore the newest good checkpoint; where there is none at all, call `init_fn`.

        Drafts that a killed process left are published before. A damaged checkpoint is passed over
        with a warning. Every variable that is here has to be in the checkpoint, of the same type
        and shape, or nothing is assigned; what is not built yet is restored when it is.

        Returns:
            str | None: the prefix of what was restored. None where the store was listed whole and
                holds none of this name; if it holds others, a warning says so.

        Raises:
            InvalidInputError: a variable has no match; nothing was changed.
            CorruptionError: all are damaged.
            FormatError: the newest cannot be read by this version, or by TensorFlow.
            StorageError: the place failed; whether there is a checkpoint is unknown.
        """
        Saver.settle(self.store.url)
        self.store.recover()
        if not self._history():
            self._warn_of_others()
            if self._init_fn is not None:
                self._init_fn()
            return None
        with self._copies.room() as scratch:
            state = _Resumed(self._checkpoint, self._name, scratch.directory)
            found = self.store.restore(state, where=self._is_own)
        if self._interval is not None:
            self._last_step = check_step(_value(self._step_counter))
        return self._copies.hold(found, scratch)

    def sync(self) -> None:
        """Wait for what is under way; what `save` has returned from is durable already."""
        self._checkpoint.sync()
        Saver.settle(self.store.url)

    def _is_due(self, step: int, check_interval: bool) -> bool:  # noqa: FBT001 - as `save` takes it
        if self._last_step is None or self._interval is None:
            return True
        has_passed = step >= self._last_step + self._interval
        return step != self._last_step and (has_passed or not check_interval)

    def _is_own(self, checkpoint: Checkpoint) -> bool:
        return series.belongs(checkpoint, self._name)

    def _history(self) -> list[Checkpoint]:
        history = [each for each in self.store if self._is_own(each)]
        self._copies.drop_all_but(history)
        return history

    def _warn_of_others(self) -> None:
        others = len(self.store)
        if others:
            warnings.warn(
                f"{self.store.url} holds {others} checkpoints, and none called {self._name!r}: "
                "training starts at its beginning. They are untouched. To resume one of them, give "
                "the checkpoint_name that it was saved with.",
                CheckpointWarning,
                stacklevel=3,
            )


class _Resumed(CheckpointState):
    """A manager's objects, some of which may be built later, from files that stay for them."""

    def __init__(self, checkpoint: Any, name: str, directory: Path) -> None:
        super().__init__(checkpoint, name)
        self._directory = directory

    def restore(self, directory: Path) -> None:
        with disk.disk_errors("move into", self._directory):
            disk.move_directory(directory, self._directory)
        written = (path.stem for path in self._directory.glob(f"{self.name}-*.index"))
        prefix = str(self._directory / next(written, self.name))
        Written(prefix).compare(self.checkpoint).check(partial=True)
        self.checkpoint.restore(prefix)


def _value(number: Any) -> Any:
    """The value of a variable or a tensor; a number is its own."""
    return number.numpy() if hasattr(number, "numpy") else number


def _rule(name: str, max_to_keep: Any, hours: Any) -> Rule | None:
    try:
        spans = None if hours is None else KeepEvery(hours=hours)
        newest = None if max_to_keep is None else KeepLast(max_to_keep)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"max_to_keep={max_to_keep!r} with keep_checkpoint_every_n_hours={hours!r} is no "
            f"retention: {error} Nothing was touched. Without one, max_to_keep=None keeps all."
        ) from error
    if newest is None:
        return None
    return series.KeepInSeries(name, newest if spans is None else newest | spans)


def _check_store_alone(*given: object) -> None:
    if any(each is not None for each in given):
        raise InvalidInputError(
            "a CheckpointStore has its own retention and storage_options; nothing was touched. "
            "Give max_to_keep=None, and the rules to open_store: "
            "open_store(…, retention=KeepLast(3)); or give a path in the place of the store."
        )
