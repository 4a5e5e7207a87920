"""Keras's `ModelCheckpoint`, over any storage."""

import os
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Literal

import keras

from holdfast import layout, preflight
from holdfast.checkpoint import Checkpoint
from holdfast.errors import CheckpointError, InvalidInputError, SupersededError
from holdfast.keras import series
from holdfast.keras.capture import KerasState
from holdfast.keras.formats import format_of
from holdfast.keras.monitor import Monitor, finite, value_of
from holdfast.keras.progress import Progress
from holdfast.keras.schedule import Schedule
from holdfast.keras.template import Template, split
from holdfast.keras.voice import Voice
from holdfast.retention import Rule
from holdfast.saver import Saver
from holdfast.store import CheckpointStore, open_store


class ModelCheckpoint(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
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
            `model.weights.h5`. The suffix chooses the format: `.keras`, `.weights.h5`, `.h5`,
            `.hdf5`.
        monitor (str): the metric to compare; `acc` and `accuracy` are one name.
        verbose (int): 1 prints a line before a save and after its commit, and where nothing
            improved.
        save_best_only (bool): save only what is better than everything in the store's series. NaN
            never is; a missing metric skips the save with one warning.
        save_weights_only (bool): the file has to be a `.weights.h5`, which is weights in any case.
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
        on_error ("warn" | "raise"): what a save that failed does to the training. A missing right
            or a full disk is raised before it in any case, by `resume` or as it begins.
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
        period: int | None = None,
        options: None = None,
        load_weights_on_restart: bool | None = None,
    ) -> None:
        super().__init__()
        _check_choices(retention, on_error, options, load_weights_on_restart)
        self._schedule = Schedule(save_freq, period)
        self._monitor = Monitor(monitor, mode, initial_value_threshold)
        self.monitor = monitor
        self.mode = self._monitor.mode
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.min_delta = 0
        self._background = background
        self._on_error = on_error
        self.filepath, self._template, self.store = _opened(
            filepath, save_weights_only, retention, storage_options
        )
        self.store.latest()  # a place that cannot be looked at shows before the training
        self._saver: Saver | None = None
        self._newest: Checkpoint | None = None
        self._progress = Progress()
        self._last_epoch_logs: Mapping[str, Any] | None = None
        self._voice = Voice(verbose)

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

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that this callback has made durable."""
        if self._saver is not None and self._saver.newest is not None:
            self._newest = self._saver.newest
        return self._newest

    def resume(self, model: Any) -> int:
        """
        Bring a model to the newest good checkpoint of this series, to go on training from there.

        Restored are weights, optimizer and seed generators, into your own model: no architecture is
        deserialized, and no stored code runs. Names, types and shapes are compared first. Drafts
        that a killed process left are published before.

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
        self._close()
        self._prove("raise")  # without an answer nothing can be resumed either
        Saver.settle(self.store.url)  # of a training that was interrupted in this process
        self.store.recover()
        history = self.store.checkpoints()
        if not any(self._is_own(each) for each in history):
            if history:
                self._voice.warn(
                    f"{self.store.url} holds {len(history)} checkpoints, and none of the series "
                    f"{self._template.text!r}: training starts at its beginning. They are "
                    "untouched. To resume one of them, give the file name that it was saved with."
                )
            return 0
        state = KerasState(model, workspace=self.store.workspace)
        found = self.store.restore(state, where=self._is_own)
        self._progress.position = state.position
        if state.position.is_inside_epoch:
            self._voice.warn(
                f"{found} lies inside epoch {state.position.epoch + 1}, after its batch "
                f"{state.position.batch}. The epoch begins again at its first batch, with the "
                "weights of that one. Save at the end of epochs to resume exactly."
            )
        self._voice.tell(f"Resuming from {found}, epoch {state.position.next_epoch + 1}")
        return state.position.next_epoch

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Look at the store, before anything is trained."""
        self._voice.begin()
        self._prove(self._on_error)
        if self.save_best_only:
            self._monitor.decide(self.model)
            Saver.settle(self.store.url)
            self.store.recover()  # the best may lie in a draft that a killed process left
            self._monitor.learn([each for each in self.store.checkpoints() if self._is_own(each)])
        if self._background and self._saver is None:
            self._saver = Saver(self.store, on_error=self._on_error)
        self._schedule.begin()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count from here."""
        self._progress.begin_epoch(epoch, (self.params or {}).get("steps"))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count the batch, and save if it is time."""
        self._progress.end_batch(batch)
        if self._schedule.due_after_batch(batch):
            self._save_if_best(logs or {}, batch=batch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if it is time."""
        self._progress.end_epoch(epoch, stopping=self.model.stop_training)
        self._last_epoch_logs = dict(logs or {})
        if self._schedule.due_after_epoch():
            self._save_if_best(self._last_epoch_logs, batch=None)
        elif self.save_best_only and not self._schedule.by_epoch:
            self._compared(self._last_epoch_logs)  # warns in time if the metric never comes

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Wait until everything is durable."""
        self._close()

    def _save_if_best(self, logs: Mapping[str, Any], *, batch: int | None) -> None:
        epoch = self._progress.epoch + 1
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
        number = None if batch is None else batch + 1
        name, missing = self._template.fill(epoch=epoch, batch=number, logs=logs)
        if missing:
            self._voice.warn_once(
                "name",
                f"the file name {self._template.text!r} asks for {', '.join(sorted(missing))}, and "
                f"the logs hold {', '.join(logs) or 'nothing'}: those fields read 'none'. "
                "The checkpoint is saved. Change the name.",
            )
        self._voice.tell(f"\nEpoch {epoch}: {told}saving model to {self.store.url}/{name}")
        if self._save(name, metrics, epoch) and compared is not None:
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

    def _save(self, name: str, metrics: Mapping[str, float], epoch: int) -> bool:
        position = self._progress.position
        state = KerasState(self.model, name, position=position, workspace=self.store.workspace)
        metadata = {
            series.KEY: self._template.text,
            "epoch": position.epoch,
            "batch": position.batch,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        }
        step = position.step
        try:
            if self._saver is None:
                self._newest = self.store.save(state, step=step, metrics=metrics, metadata=metadata)
                self._tell_saved(self._newest, name, epoch)
                return True
            future = self._saver.save(state, step=step, metrics=metrics, metadata=metadata)
        except Exception as error:  # noqa: BLE001 - a layer that is saved may raise anything
            self._failed(error, f"saving epoch {epoch} failed: {error}")
            return False

        def report(done: "Future[Checkpoint]") -> None:
            if not done.cancelled() and done.exception() is None:
                self._tell_saved(done.result(), name, epoch)

        future.add_done_callback(report)
        return not (future.done() and future.exception())

    def _prove(self, on_error: Literal["warn", "raise"]) -> None:
        preflight.once(self.store.url, self.store.preflight, on_error=on_error)

    def _close(self) -> None:
        saver, self._saver = self._saver, None
        if saver is None:
            return
        failure: CheckpointError | None = None
        try:
            saver.close()
        except CheckpointError as error:
            failure = error
        self._newest = saver.newest or self._newest
        if failure is not None:
            self._failed(failure, str(failure))

    def _failed(self, error: Exception, text: str) -> None:
        if self._on_error == "raise" or isinstance(error, SupersededError | InvalidInputError):
            raise error
        newest = (
            f"{self.newest} is the newest durable one" if self.newest else "None is durable yet"
        )
        self._voice.warn(f"{text} Training goes on. {newest} of this callback.")

    def _is_own(self, checkpoint: Checkpoint) -> bool:
        return series.belongs(checkpoint, self._template.text)

    def _tell_saved(self, checkpoint: Checkpoint, name: str, epoch: int) -> None:
        where = f"{self.store.url}/{layout.file_key(checkpoint.id, name)}"
        self._voice.tell(f"\nEpoch {epoch}: finished saving model to {where}")


def _check_choices(retention: Any, on_error: Any, options: Any, load_on_restart: Any) -> None:
    if retention is not None and not isinstance(retention, Rule):
        raise InvalidInputError(
            f"retention is a rule such as KeepLast(3), not {retention!r}; nothing was touched."
        )
    if on_error not in ("warn", "raise"):
        raise InvalidInputError(f"on_error is 'warn' or 'raise', not {on_error!r}.")
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
    format_of(text, weights_only=weights_only)
    template = Template(text)
    rule = None if retention is None else series.KeepInSeries(text, retention)
    store = open_store(place, retention=rule, storage_options=storage_options)
    return os.fspath(filepath), template, store
