"""Keras's `BackupAndRestore`, over any storage, and exact."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from holdfast import series
from holdfast.errors import InvalidInputError, StorageError
from holdfast.keras.keeper import Keeper
from holdfast.keras.monitor import finite
from holdfast.keras.run import Hook, Run
from holdfast.keras.schedule import Schedule
from holdfast.preemption import Preemption
from holdfast.retention import KeepLast
from holdfast.store import CheckpointStore, open_store

#: The file in each checkpoint, which names the series of all of them.
_FILE = "backup.weights.h5"


class BackupAndRestore(Keeper):
    """
    Save a run while it trains, and let it go on by itself when the same script is started again.

    It goes on at the batch where it was saved: weights, optimizer, seed generators, random states,
    what the metrics had summed up, History and what the other callbacks had counted all come back.
    A damaged checkpoint is passed over for the one before. When `fit` ends the checkpoints are
    removed, if you do not say otherwise.

    The arguments are those of `keras.callbacks.BackupAndRestore`.

    Parameters:
        backup_dir (str | os.PathLike | CheckpointStore): the store, a directory or a URL of any
            fsspec protocol.
        save_freq ("epoch" | int | timedelta | str | False): at every epoch's end, every so many
            batches, or at the first batch end after so much time, such as `"15min"`. False saves
            only when the process is asked to end.
        double_checkpoint (bool): taken, and without effect: the two newest checkpoints are kept in
            any case, so that there is one to fall back to.
        delete_checkpoint (bool): remove the checkpoints of this callback when `fit` has come to its
            end. What is pinned stays, and so does everything else in the store. After an exception,
            or where the process is asked to end, they stay.
        save_before_preemption (bool): from older Keras: as `preemption`. A save on SIGTERM is what
            happens in any case.
        background (bool): publish on a worker thread; otherwise each save waits for its commit.
        storage_options (Mapping | None): handed on to the fsspec filesystem.
        on_error ("warn" | "raise"): what a save that failed does to the training.
        preemption (Preemption | bool): SIGTERM saves at the next batch end, waits for the commit,
            and ends the process with the signal's own exit code. Hand in a `holdfast.Preemption`
            for other notices; False leaves the signal alone.
        verbose (int): 1 prints a line when a run is resumed.

    Attributes:
        store (CheckpointStore): where the checkpoints lie.
        newest (Checkpoint | None): the newest that this callback has made durable.

    Raises:
        InvalidInputError: an argument is wrong; nothing was touched.
        StorageError: the place cannot be looked at.
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str] | CheckpointStore,
        save_freq: str | int | timedelta = "epoch",
        double_checkpoint: bool = False,  # noqa: FBT001, FBT002 - Keras's own order
        delete_checkpoint: bool = True,  # noqa: FBT001, FBT002 - Keras's own order
        *,
        save_before_preemption: bool = False,
        background: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        preemption: Preemption | bool = True,
        verbose: int = 0,
    ) -> None:
        self._schedule = None if save_freq is False else Schedule(save_freq)
        listens = preemption is not False or save_before_preemption
        if self._schedule is None and not listens:
            raise InvalidInputError(
                "save_freq=False with preemption=False would never save; nothing was touched. Give "
                "save_freq='epoch' or a number of batches, or leave preemption out."
            )
        super().__init__(
            _opened(backup_dir, storage_options),
            _FILE,
            verbose=verbose,
            background=background,
            on_error=on_error,
            preemption=preemption or save_before_preemption,
        )
        self.backup_dir = backup_dir
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint

    def state_dict(self) -> dict[str, Any]:
        """What this callback counts, for a run that is resumed."""
        return {"counts": None if self._schedule is None else self._schedule.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        if self._schedule is not None and state["counts"] is not None:
            self._schedule.counts = state["counts"]

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Bring the model to the newest good checkpoint, if there is one."""
        self._voice.begin()
        position = self._restore(self.model)
        super().on_train_begin(logs)
        if position is not None:
            self._coordinator.begin_at(position.epoch)
        if self._schedule is not None:
            self._schedule.begin()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count the batch, and save if it is time."""
        super().on_train_batch_end(batch, logs)
        if self._schedule is not None and self._schedule.due_after_batch(batch):
            self._back_up("on_train_batch_end", batch, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if it is time."""
        super().on_epoch_end(epoch, logs)
        if self._schedule is not None and self._schedule.due_after_epoch():
            self._back_up("on_epoch_end", epoch, logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Wait until everything is durable, or remove it."""
        super().on_train_end(logs)
        if self.delete_checkpoint and not self._coordinator.is_asked_to_end:
            try:
                self.store.remove(*self._own())
            except StorageError as error:
                self._failed(error, f"the training has ended, and its checkpoints stay: {error}")

    def _back_up(self, hook: Hook, number: int, logs: Mapping[str, Any] | None) -> None:
        self._save(_FILE, finite(logs or {}), self._run(hook, number, logs or {}))

    def _name_before_the_end(self, run: Run) -> str:  # noqa: ARG002 - each has this one
        return _FILE


def _opened(place: object, storage_options: Mapping[str, Any] | None) -> CheckpointStore:
    if isinstance(place, CheckpointStore):
        if storage_options is not None:
            raise InvalidInputError(
                "a CheckpointStore has its own storage_options; nothing was touched. Give them to "
                "open_store, or give a path in the place of the store."
            )
        return place
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):
        raise InvalidInputError(
            f"backup_dir is a directory, a URL or a CheckpointStore, not {place!r}; nothing was "
            "touched."
        )
    if "{" in str(place):
        raise InvalidInputError(
            f"{str(place)!r} has a brace in it, and the store is one directory for all epochs; "
            "nothing was touched. Leave the placeholder out."
        )
    rule = series.KeepInSeries(_FILE, KeepLast(2))
    return open_store(place, retention=rule, storage_options=storage_options)
