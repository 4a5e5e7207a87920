"""What the callbacks that save have in common: a store, a series in it, and the way back."""

import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Literal

import keras

from holdfast import layout, preflight, series
from holdfast.checkpoint import Checkpoint
from holdfast.errors import CheckpointError, InvalidInputError, SupersededError
from holdfast.keras import formats, resumption, training
from holdfast.keras.capture import KerasState
from holdfast.keras.coordinator import Coordinator
from holdfast.keras.progress import Position, Progress
from holdfast.keras.resumption import Resumption
from holdfast.keras.run import Hook, Run
from holdfast.keras.voice import Voice
from holdfast.preemption import Preemption
from holdfast.saver import Saver
from holdfast.store import CheckpointStore

_log = logging.getLogger(__name__)


class Keeper(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """
    A callback that saves the model into a store and resumes from it.

    Parameters:
        store (CheckpointStore): where the checkpoints lie.
        name (str): the template of the file's name, which is the name of its series as well.
        verbose (int): 1 prints lines.
        background (bool): publish on a worker thread.
        on_error (str): `warn` or `raise`.
        preemption (Preemption | bool): who says that the process has to end.
        architecture (bool): keep the architecture as JSON beside the file.

    Attributes:
        store (CheckpointStore): as given.
        preemption (Preemption | bool): as given.
    """

    def __init__(
        self,
        store: CheckpointStore,
        name: str,
        *,
        verbose: int,
        background: bool,
        on_error: Literal["warn", "raise"],
        preemption: Preemption | bool,
        architecture: bool = False,
    ) -> None:
        super().__init__()
        if on_error not in ("warn", "raise"):
            raise InvalidInputError(f"on_error is 'warn' or 'raise', not {on_error!r}.")
        if not isinstance(preemption, Preemption | bool):
            raise InvalidInputError(
                f"preemption is True, False or a holdfast.Preemption, not {preemption!r}."
            )
        self.store = store
        self.preemption = preemption
        self._series = name
        self._background = background
        self._on_error = on_error
        self._architecture = architecture
        self.store.latest()  # a place that cannot be looked at shows before the training
        self._saver: Saver | None = None
        self._newest: Checkpoint | None = None
        self._progress = Progress()
        self._saved_at: Position | None = None
        self._resumed_at: int | None = None
        self._coordinator = Coordinator(None)
        self._voice = Voice(verbose)

    @property
    def remembered_as(self) -> str:
        """What the state of this callback is kept under: a fit may have several of one class."""
        return f"{type(self).__qualname__} {self._series}"

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that this callback has made durable."""
        if self._saver is not None and self._saver.newest is not None:
            self._newest = self._saver.newest
        return self._newest

    # For those who build on it: a subclass saves in its hooks, and calls these first.

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Look at the store, before anything is trained."""
        self._voice.begin()
        formats.check_writable(formats.format_of(self._series), self.model)
        self._prove(self._on_error)
        if self._background and self._saver is None:
            self._saver = Saver(self.store, on_error=self._on_error)
        self._coordinator = Coordinator.beside(self)
        if self._coordinator.is_alone:
            self._coordinator.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count from here."""
        self._progress.begin_epoch(epoch, (self.params or {}).get("steps"))
        if self._coordinator.is_alone:
            self._coordinator.on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count the batch."""
        self._progress.end_batch(batch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count the epoch."""
        self._progress.end_epoch(epoch, has_left=self._coordinator.has_left_epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Wait until everything is durable."""
        self._close()
        if self._coordinator.is_alone:
            self._coordinator.on_train_end(logs)

    # For the coordinator.

    @property
    def is_inside_epoch(self) -> bool:
        """Whether what is saved now lies inside an epoch."""
        return self._progress.position.is_inside_epoch

    def go_on_from(self, position: Position) -> None:
        """Count from here: the run was resumed."""
        self._resumed_at = position.step
        self._progress.position = position
        self._progress.epoch = max(0, position.epoch - (0 if position.is_inside_epoch else 1))

    def save_before_the_end(self, run: Run) -> None:
        """Save what is trained; then the process ends."""
        if self._saved_at != self._progress.position:
            self._save(self._name_before_the_end(run), {}, run)

    def finish(self, timeout: float | None) -> None:
        """Wait until what was saved is durable, for so many seconds."""
        if self._saver is not None and not self._saver.wait(timeout):
            _log.warning(
                "what was saved last could not be sent in time. It is kept in %s, and the next "
                "start publishes it.",
                self.store.workspace.path,
            )

    # For subclasses.

    def _name_before_the_end(self, run: Run) -> str:
        """How the file is called that is saved because the process has to end."""
        raise NotImplementedError

    def _has_saved(self, checkpoint: Checkpoint, name: str) -> None:
        """A save is durable. Called on the thread that published it."""

    def _has_found_others(self, count: int) -> None:
        """The store holds so many checkpoints, and none of the series."""

    def _restore(self, model: Any) -> Position | None:
        """Bring a model to the newest good checkpoint of the series; None where there is none."""
        training.check_built(model)
        self._close()
        self._prove("raise")  # without an answer nothing can be resumed either
        Saver.settle(self.store.url)  # of a training that was interrupted in this process
        self.store.recover()
        history = self.store.checkpoints()
        if not any(self._is_own(each) for each in history):
            if history:
                self._has_found_others(len(history))
            return None
        state = KerasState(model, workspace=self.store.workspace)
        strategy = getattr(model, "distribute_strategy", None)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            found = self.store.restore(state, where=self._is_own)
        resumption.expect(model, Resumption.of(model, found, state.position, state.run))
        self.go_on_from(state.position)
        inside = f", after batch {state.position.batch}" if state.position.is_inside_epoch else ""
        self._voice.tell(f"Resuming from {found}, epoch {state.position.epoch + 1}{inside}")
        return state.position

    def _run(self, hook: Hook, number: int, logs: Mapping[str, Any]) -> Run | None:
        """What a save in this hook keeps of the `fit`."""
        if hook == "on_epoch_end" and self._progress.position.is_inside_epoch:
            return self._coordinator.at_last_batch  # the epoch was left, and goes on there
        return self._coordinator.capture(hook, number, logs, self)

    def _save(self, name: str, metrics: Mapping[str, float], run: Run | None) -> bool:
        """Save the model as it is; False where that failed at once and training goes on."""
        position = self._progress.position
        if self._is_there(position):
            return True
        state = KerasState(
            self.model,
            name,
            position=position,
            run=run,
            architecture=self._architecture,
            workspace=self.store.workspace,
        )
        metadata = {
            series.KEY: self._series,
            "epoch": position.epoch,
            "batch": position.batch,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        }
        try:
            if self._saver is None:
                self._newest = self.store.save(
                    state, step=position.step, metrics=metrics, metadata=metadata
                )
                self._saved_at = position
                self._has_saved(self._newest, name)
                return True
            future = self._saver.save(state, step=position.step, metrics=metrics, metadata=metadata)
        except Exception as error:  # noqa: BLE001 - a layer that is saved may raise anything
            self._failed(error, f"saving epoch {self._progress.epoch + 1} failed: {error}")
            return False

        def report(done: "Future[Checkpoint]") -> None:
            if not done.cancelled() and done.exception() is None:
                self._has_saved(done.result(), name)

        future.add_done_callback(report)
        self._saved_at = position
        return not (future.done() and future.exception())

    def _is_there(self, position: Position) -> bool:
        """Whether a run that was resumed here, and has trained nothing since, has this saved."""
        return position.step == self._resumed_at and any(
            each.step == position.step
            and each.metadata.get("epoch") == position.epoch
            and each.metadata.get("batch") == position.batch
            for each in self._own()
        )

    def _own(self) -> list[Checkpoint]:
        """The checkpoints of the series, in the order of training."""
        return [each for each in self.store.checkpoints() if self._is_own(each)]

    def _is_own(self, checkpoint: Checkpoint) -> bool:
        return series.belongs(checkpoint, self._series)

    def _where(self, checkpoint: Checkpoint, name: str) -> str:
        return f"{self.store.url}/{layout.file_key(checkpoint.id, name)}"

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
