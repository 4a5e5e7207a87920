"""Keras's `ModelCheckpoint`, over any storage."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from holdfast import series
from holdfast.checkpoint import Checkpoint
from holdfast.errors import InvalidInputError
from holdfast.keras import packing
from holdfast.keras.formats import check_writable, format_of
from holdfast.keras.keeper import Keeper
from holdfast.keras.monitor import Monitor, finite, value_of
from holdfast.keras.run import Hook, Run
from holdfast.keras.schedule import Schedule
from holdfast.keras.template import Template, split
from holdfast.preemption import Preemption
from holdfast.retention import Rule
from holdfast.saver import Saver
from holdfast.store import CheckpointStore, open_store


class ModelCheckpoint(Keeper):
    """
    Save the model while it trains, as `keras.callbacks.ModelCheckpoint` does, into any storage.

    Every save is a checkpoint of its own in a store: whole or not there, verified when it is read,
    never overwritten. A failing save leaves the previous one, and does not stop the training unless
    `on_error="raise"`. The callback changes nothing in the training.

    A checkpoint's step is the number of batches trained so far, which goes on over `resume`. Under
    `steps_per_execution`, where Keras does not know the length of an epoch, the last block of an
    epoch counts in full.

    Several callbacks may save into one store. Each notes the template of its file names in its
    checkpoints, its series, and compares, prunes and resumes within it.

    Parameters:
        filepath (str | os.PathLike | CheckpointStore): the last component names the file in each
            checkpoint, what precedes it is the store, a directory or a URL of any fsspec protocol.
            `{epoch}`, `{batch}` and every key of the logs may stand in the last component. A name
            alone gets a directory named after it. Of a store the file is `model.keras` or
            `model.weights.h5`. The suffix chooses the format: `.keras`, `.weights.h5`,
            `.weights.json`, `.h5`, `.hdf5`, and without one the directory of a SavedModel.
        monitor (str): the metric to compare; `acc` and `accuracy` are one name.
        verbose (int): 1 prints a line before a save and after its commit, and where nothing
            improved.
        save_best_only (bool): save only what is better than everything in the store's series. NaN
            never is; a missing metric skips the save with one warning.
        save_weights_only (bool): the file has to be a `.weights.h5` or a `.weights.json`, which
            are weights in any case.
        mode ("auto" | "min" | "max"): which values are better. `auto` asks the metric, then its
            name.
        save_freq ("epoch" | int | timedelta | str): at every epoch's end, every so many batches, or
            at the first batch end after so much time: a timedelta, or a number with `s`, `min`,
            `h` or `d`, such as `"15min"`.
        initial_value_threshold (float | None): the first value to be better than, unless the store
            holds a better one.
        retention (Rule | None): what to keep of the series whenever a checkpoint was committed;
            its newest always stays. None keeps all.
        background (bool): publish on a worker thread; otherwise each save waits for its commit.
        storage_options (Mapping | None): handed on to the fsspec filesystem.
        preemption (Preemption | bool): SIGTERM saves at the next batch end, waits for the commit,
            and ends the process with the signal's own exit code. With `save_best_only` it only
            waits for what is under way. Hand in a `holdfast.Preemption` for other notices; False
            leaves the signal alone.
        on_error ("warn" | "raise"): what a save that failed does to the training. A missing right
            or a full disk is raised before it in any case, by `resume` or as it begins.
        save_architecture (bool): keep the architecture as JSON beside the file, for
            `keras.models.model_from_json`.
        period (int | None): from older Keras: epochs between saves.
        options (None), load_weights_on_restart (None | False): from older Keras, accepted so.

    Attributes:
        store (CheckpointStore): where the checkpoints lie.
        best (float | None): the best value so far; the store's from the start of training on.

    Raises:
        InvalidInputError: an argument is wrong; nothing was touched.
        StorageError: the place cannot be looked at.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str] | CheckpointStore,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,  # noqa: FBT001, FBT002 - Keras's own order
        save_weights_only: bool = False,  # noqa: FBT001, FBT002 - Keras's own order
        mode: str = "auto",
        save_freq: str | int | timedelta = "epoch",
        initial_value_threshold: float | None = None,
        *,
        retention: Rule | None = None,
        background: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        preemption: Preemption | bool = True,
        save_architecture: bool = False,
        period: int | None = None,
        options: None = None,
        load_weights_on_restart: bool | None = None,
    ) -> None:
        _check_choices(retention, options, load_weights_on_restart)
        self._schedule = Schedule(save_freq, period)
        self._monitor = Monitor(monitor, mode, initial_value_threshold)
        self.filepath, self._template, store = _opened(
            filepath, save_weights_only, retention, storage_options
        )
        super().__init__(
            store,
            self._template.text,
            verbose=verbose,
            background=background,
            on_error=on_error,
            preemption=preemption,
            architecture=save_architecture,
        )
        self.monitor = monitor
        self.mode = self._monitor.mode
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.min_delta = 0
        self._last_epoch_logs: Mapping[str, Any] | None = None

    @property
    def best(self) -> float | None:
        """The best value so far; may be set."""
        return self._monitor.best

    @best.setter
    def best(self, value: float | None) -> None:
        self._monitor.best = value

    @property
    def monitor_op(self) -> Any:
        """`numpy.less` or `numpy.greater`; None until training begins, or if nothing compares."""
        return self._monitor.operation

    @property
    def period(self) -> int:
        """Epochs between saves."""
        return self._schedule.period

    @property
    def epochs_since_last_save(self) -> int:
        """Epochs that have ended since a save was last due."""
        return self._schedule.epochs_since_save

    def resume(self, model: Any) -> int:
        """
        Bring a model to the newest good checkpoint of this series, to go on training from there.

        Restored are weights, optimizer and seed generators, into your own model: no architecture is
        deserialized, and no stored code runs. Names, types and shapes are compared first. The rest
        of the run, the place inside the epoch, the random states, History and what the other
        callbacks had counted, comes back in the next `fit` of this model. Drafts that a killed
        process left are published before.

            model.fit(..., initial_epoch=checkpoint.resume(model), callbacks=[checkpoint])

        Parameters:
            model (keras.Model): built, and compiled as in the run that is resumed.

        Returns:
            int: the epoch to go on with, from 0. 0 where the store was listed whole and holds none
                of this series; if it holds others, a warning says so.

        Raises:
            InvalidInputError: the model is not built or compiled, or a variable has no match; its
                values are unchanged.
            CorruptionError: all checkpoints of the series are damaged.
            FormatError: the newest cannot be read by this version.
            AccessDenied, StorageFull: what is trained now could not be saved.
            StorageError: the place failed; whether there is a checkpoint is unknown.
        """
        position = self._restore(model)
        return 0 if position is None else position.epoch

    def state_dict(self) -> dict[str, Any]:
        """What this callback counts, for a run that is resumed."""
        logs = self._last_epoch_logs
        plain = None if logs is None else packing.only_plain(logs)
        return {"counts": self._schedule.counts, "last_epoch_logs": plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        self._schedule.counts = state["counts"]
        self._last_epoch_logs = state["last_epoch_logs"]

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Look at the store, before anything is trained."""
        super().on_train_begin(logs)
        if self.save_best_only:
            self._monitor.decide(self.model)
            Saver.settle(self.store.url)
            self.store.recover()  # the best may lie in a draft that a killed process left
            self._monitor.learn(self._own())
        self._schedule.begin()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count the batch, and save if it is time."""
        super().on_train_batch_end(batch, logs)
        if self._schedule.due_after_batch(batch):
            self._save_if_best("on_train_batch_end", batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if it is time."""
        super().on_epoch_end(epoch, logs)
        self._last_epoch_logs = dict(logs or {})
        if self._schedule.due_after_epoch():
            self._save_if_best("on_epoch_end", epoch, self._last_epoch_logs)
        elif self.save_best_only and not self._schedule.by_epoch:
            self._compared(self._last_epoch_logs)  # warns in time if the metric never comes

    def save_before_the_end(self, run: Run) -> None:
        """Save what is trained, unless only the best is to be saved; then the process ends."""
        if not self.save_best_only:
            super().save_before_the_end(run)

    def _has_found_others(self, count: int) -> None:
        self._voice.warn(
            f"{self.store.url} holds {count} checkpoints, and none of the series "
            f"{self._series!r}: training starts at its beginning. They are untouched. To resume "
            "one of them, give the file name that it was saved with."
        )

    def _name_before_the_end(self, run: Run) -> str:
        known = {**(self._last_epoch_logs or {}), **run.logs}
        position = self._progress.position
        epoch, batch = self._progress.epoch + 1, position.batch or None
        return self._template.fill(epoch=epoch, batch=batch, logs=known)[0]

    def _save_if_best(self, hook: Hook, number: int, logs: Mapping[str, Any]) -> None:
        epoch, batch = self._progress.epoch + 1, number if hook == "on_train_batch_end" else None
        metrics, compared, told = finite(logs), None, ""
        if self.save_best_only:
            known = self._last_epoch_logs or {}
            compared = self._compared(logs if batch is None else {**known, **logs})
            if compared is None:
                return
            best = "None" if self.best is None else f"{self.best:.5f}"
            if not self._monitor.improves(compared):
                self._voice.tell(f"\nEpoch {epoch}: {self.monitor} did not improve from {best}")
                return
            told = f"{self.monitor} improved from {best} to {compared:.5f}, "
            metrics.setdefault(self.monitor, compared)
        counted = None if batch is None else batch + 1
        name, missing = self._template.fill(epoch=epoch, batch=counted, logs=logs)
        if missing:
            self._voice.warn_once(
                "name",
                f"the file name {self._template.text!r} asks for {', '.join(sorted(missing))}, and "
                f"the logs hold {', '.join(logs) or 'nothing'}: those fields read 'none'. "
                "The checkpoint is saved. Change the name.",
            )
        self._voice.tell(f"\nEpoch {epoch}: {told}saving model to {self.store.url}/{name}")
        if self._save(name, metrics, self._run(hook, number, logs)) and compared is not None:
            self.best = compared

    def _compared(self, logs: Mapping[str, Any]) -> float | None:
        try:
            value = value_of(logs, self.monitor)
            why = f"the logs hold no {self.monitor!r}, only {', '.join(logs) or 'nothing'}"
        except InvalidInputError as error:
            value, why = None, str(error)
        # Before the first epoch has ended there is no validation yet.
        if value is None and self._last_epoch_logs is not None:
            self._voice.warn_once(
                "metric",
                f"save_best_only skips this save: {why}. What was saved before is untouched. "
                "Give the name of a metric as monitor; val_ ones need validation data.",
            )
        return value

    def _has_saved(self, checkpoint: Checkpoint, name: str) -> None:
        where = self._where(checkpoint, name)
        epoch = int(checkpoint.metadata["epoch"]) + bool(checkpoint.metadata["batch"])
        self._voice.tell(f"\nEpoch {epoch}: finished saving model to {where}")


def _check_choices(retention: Any, options: Any, load_on_restart: Any) -> None:
    if retention is not None and not isinstance(retention, Rule):
        raise InvalidInputError(
            f"retention is a rule such as KeepLast(3), not {retention!r}; nothing was touched."
        )
    if options is not None:
        raise InvalidInputError(
            f"options={options!r} is from older Keras and has no counterpart; nothing was touched. "
            "Leave it out; storage_options goes to the filesystem."
        )
    if load_on_restart not in (None, False):
        raise InvalidInputError(
            "load_weights_on_restart is from older Keras; nothing was touched. Leave it out, and "
            "call model.fit(..., initial_epoch=checkpoint.resume(model)): it brings back the "
            "weights, the optimizer and the epoch."
        )


def _opened(
    filepath: str | os.PathLike[str] | CheckpointStore,
    weights_only: bool,  # noqa: FBT001 - as the callback takes it
    retention: Rule | None,
    storage_options: Mapping[str, Any] | None,
) -> tuple[str, Template, CheckpointStore]:
    if isinstance(filepath, CheckpointStore):
        if retention is not None or storage_options is not None:
            raise InvalidInputError(
                "a CheckpointStore has its own retention and storage_options; nothing was touched. "
                "Give them to open_store, or give a path in the place of the store."
            )
        template = Template("model.weights.h5" if weights_only else "model.keras")
        return f"{filepath.url}/{template.text}", template, filepath
    place, text = split(filepath)
    check_writable(format_of(text, weights_only=weights_only))
    template = Template(text)
    rule = None if retention is None else series.KeepInSeries(text, retention)
    store = open_store(place, retention=rule, storage_options=storage_options)
    return os.fspath(filepath), template, store
