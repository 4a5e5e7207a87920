"""What happens in a `fit` once all its callbacks were called: going on exactly, and preemption."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, Protocol, Self

import keras

from holdfast.errors import CheckpointError, InvalidInputError
from holdfast.keras import companions, inputs, opening, packing, randomness, resumption, sums
from holdfast.keras.opening import Opening
from holdfast.keras.progress import Position
from holdfast.keras.resumption import Resumption
from holdfast.keras.run import Hook, Run
from holdfast.keras.skipping import Skipping
from holdfast.keras.voice import Voice
from holdfast.preemption import Preemption

_log = logging.getLogger(__name__)


class Keeping(Protocol):
    """A callback that saves, as the coordinator knows it."""

    @property
    def preemption(self) -> Preemption | bool:
        """Who says that the process has to end; False where nobody shall."""

    @property
    def is_inside_epoch(self) -> bool:
        """Whether what it would save lies inside an epoch."""

    def go_on_from(self, position: Position) -> None:
        """Count from here: the run was resumed."""

    def save_before_the_end(self, run: Run) -> None:
        """Save what is trained, if that is what this callback keeps; then the process ends."""

    def finish(self, timeout: float | None) -> None:
        """Wait until what was saved is durable, for so many seconds."""


class Coordinator(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """
    The last callback of a `fit`, put there by ours: one for all of them.

    Some things can be done only when all callbacks were called. Keras's own forget in
    `on_train_begin` what they counted, so it is put back after the last of them. A process that is
    asked to end does so when all have heard of the batch.

    A run that was saved inside an epoch goes on there. `fit` begins an epoch at its first batch, so
    the batches that were trained pass with nothing done to them and nobody told, and then
    everything is put back.

    Parameters:
        callbacks (keras.callbacks.CallbackList | None): the list that it belongs to. None where
            ours is called by somebody else; then it knows of no other callback.
    """

    def __init__(self, callbacks: Any | None) -> None:
        super().__init__()
        self._list = callbacks
        self._keepers: list[Keeping] = []
        self._voice = Voice(0)
        self._preemption: Preemption | None = None
        self._resumption: Resumption | None = None
        self._skipping: Skipping | None = None
        self._first_epoch: int | None = None
        self._next_epoch: int | None = None
        self._fit: CodeType | None = None
        self._began: Mapping[str, Any] | None = None
        self._last: tuple[int, Mapping[str, Any]] = (0, {})
        self._at_last_batch: Run | None = None
        self._sums: Mapping[str, Any] | None = None
        self._has_left_epoch = False

    @classmethod
    def beside(cls, keeper: Any) -> Self:
        """The coordinator of the list whose `on_train_begin` is calling a callback of ours."""
        found = companions.list_of(keeper)
        callbacks = [] if found is None else found.callbacks
        coordinator: Self | None = next((each for each in callbacks if isinstance(each, cls)), None)
        if coordinator is None:
            coordinator = cls(found)
            coordinator.set_model(keeper.model)
            coordinator.set_params(keeper.params)
            callbacks.append(coordinator)  # the loop that is running comes to it, too
            # Now, while the learning rate is what the user has set; callbacks may set it, too.
            coordinator._resumption = resumption.expected(keeper.model)
        if all(each is not keeper for each in coordinator._keepers):
            coordinator._keepers.append(keeper)
        return coordinator

    @property
    def is_alone(self) -> bool:
        """Whether it belongs to no list, so that a callback of ours has to call it."""
        return self._list is None

    @property
    def is_asked_to_end(self) -> bool:
        """Whether the process is about to be ended."""
        return self._preemption is not None and self._preemption.notice is not None

    def begin_at(self, epoch: int) -> None:
        """Let `fit` begin with an epoch, whatever its `initial_epoch` says."""
        self._first_epoch = epoch

    def capture(self, hook: Hook, number: int, logs: Mapping[str, Any], until: Any) -> Run:
        """
        Take what belongs to this `fit` and not to the model.

        Parameters:
            hook (str): what the callbacks are being told.
            number (int): the batch or the epoch that they are told of.
            logs (Mapping[str, Any]): with which values.
            until (keras.callbacks.Callback | None): the one that is being told; None where all
                were.
        """
        is_inside = hook == "on_train_batch_end"
        if is_inside and hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        return Run(
            hook=hook,
            number=number,
            logs=packing.only_plain(logs),
            callbacks=tuple(companions.remember(self._others(), until)),
            metrics=(self._sums or sums.read(self.model)) if is_inside else {},
            began=self._began if is_inside else None,
        ).copy()

    @property
    def at_last_batch(self) -> Run | None:
        """What was to be kept after the last batch of an epoch that was left before its end."""
        return self._at_last_batch

    @property
    def has_left_epoch(self) -> bool:
        """Whether a callback ended the training after the last batch, and so left the epoch."""
        return self._has_left_epoch

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Go on from where the run was saved, and listen for the end."""
        fit = None if self._list is None else companions.trainer_of(self._list)
        self._fit = None if fit is None else fit.f_code
        self._listen()
        self._skipping = self._at_last_batch = self._sums = None
        self._resumption = resumption.expected(self.model) or self._resumption
        if self._resumption is None:
            return
        for complaint in inputs.not_replayable(fit):
            self._voice.warn(complaint)
        if not self._resumption.position.is_inside_epoch:
            self._next_epoch = self._resumption.position.epoch
            self._put_back()
            if self.model.stop_training:  # a callback had ended the training when it was saved
                self._first_epoch = (self.params or {}).get("epochs")
        if self._first_epoch is not None:
            # As Keras's own BackupAndRestore does; but here it is taken back, so nothing stays.
            self.model._initial_epoch = self._first_epoch  # noqa: SLF001

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Let the batches pass that were trained, if it is the epoch in which the run was saved."""
        self._take_epoch_back()
        self._at_last_batch = self._sums = None
        self._has_left_epoch = False
        trained = self._trained(epoch)
        run = self._resumption.run if trained and self._resumption is not None else None
        if run is not None and run.began is not None:
            randomness.put_back(run.began)
        self._began = randomness.capture()
        opening.announce(Opening(epoch, trained, (self.params or {}).get("steps")))
        if trained:
            logs_then = {} if run is None else run.logs
            self._skipping = Skipping(self.model, self._fit, self._list, self, logs_then)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """The data of the epoch is open by now."""
        opening.withdraw()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Arrive where the run was saved; end the process, if that was asked for."""
        if self._skipping is not None:
            self._pass(batch)
            return
        self._last = (batch, dict(logs or {}))
        # On JAX every look at `model` copies all values into its variables: too much for a batch.
        if self._model.stop_training:
            self._has_left_epoch = True
            self._at_last_batch = self._after_batch()
        self._end_if_asked(self._after_batch)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Validation begins, and with it the metrics begin anew."""
        self._sums = sums.read(self.model)

    # Where Keras runs on JAX or PyTorch it may tell of a batch's end on other threads.
    def on_test_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """End the process, if that was asked for."""
        self._end_if_asked(lambda: self._at_last_batch or self._after_batch())

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """End the process, if asked for; or say so if less data came than was trained of it."""
        if (skipping := self._skipping) is None:
            self._end_if_asked(lambda: self._after_epoch(epoch, logs or {}))
            return
        self._skipping = None
        skipping.end()
        position = self._resumption.position if self._resumption else Position()
        raise InvalidInputError(
            f"the checkpoint lies after batch {position.batch:,} of epoch {epoch + 1}, and the "
            "data of this fit ends before. The model has the values of the checkpoint, and nothing "
            "was trained or saved. Give the data and the batch size of the run that is resumed."
        )

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Leave nothing behind."""
        self._take_epoch_back()
        opening.withdraw()
        preemption, self._preemption = self._preemption, None
        if self._list is not None:
            self._list.callbacks = self._others()
        if preemption is not None:
            is_asked = preemption.notice is not None
            preemption.uninstall()
            if is_asked:
                preemption.end()

    def _others(self) -> list[Any]:
        callbacks = [] if self._list is None else self._list.callbacks
        return [each for each in callbacks if each is not self]

    def _after_batch(self) -> Run:
        number, logs = self._last
        return self.capture("on_train_batch_end", number, logs, None)

    def _after_epoch(self, epoch: int, logs: Mapping[str, Any]) -> Run | None:
        if any(keeper.is_inside_epoch for keeper in self._keepers):
            return self._at_last_batch  # the epoch was left, and goes on there
        return self.capture("on_epoch_end", epoch, logs, None)

    def _trained(self, epoch: int) -> int:
        """How many batches of an epoch are trained already."""
        due, self._next_epoch = self._next_epoch, None
        if due not in (None, epoch):
            self._voice.warn(
                f"the run was restored from the end of {due} epochs, and this training begins "
                f"epoch {epoch + 1}: what callbacks and History count does not fit. The weights "
                "are those of the checkpoint, and it is untouched. To go on exactly there, call "
                "model.fit(..., initial_epoch=checkpoint.resume(model), callbacks=[checkpoint])."
            )
        position = self._resumption.position if self._resumption is not None else Position()
        if not position.is_inside_epoch:
            self._resumption = None
            return 0
        steps, then = (self.params or {}).get("steps"), position.steps_per_epoch
        is_other = None not in (steps, then) and steps != then
        if epoch == position.epoch and self._list is not None and not is_other:
            return position.batch
        self._resumption = None
        length = f" An epoch has {steps:,} batches now, and had {then:,}." if is_other else ""
        self._voice.warn(
            f"the run was restored from inside epoch {position.epoch + 1}, after its batch "
            f"{position.batch:,}, and this training begins epoch {epoch + 1} at its first batch."
            f"{length} The weights are those of the checkpoint, and it is untouched. To go on "
            "exactly there, give the data and the batch size of the run that is resumed, and call "
            "model.fit(..., initial_epoch=checkpoint.resume(model), callbacks=[checkpoint])."
        )
        return 0

    def _pass(self, batch: int) -> None:
        """A batch has passed that was trained already."""
        assert self._skipping is not None and self._resumption is not None  # noqa: S101, PT018
        if batch + 1 >= self._resumption.position.batch:
            skipping, self._skipping = self._skipping, None
            skipping.end()
            self._last = (batch, self._resumption.run.logs if self._resumption.run else {})
            self._put_back(skipping.first_batch)
        self._end_if_asked(None)  # there is nothing that is not saved

    def _put_back(self, batch: Any = None) -> None:
        assert self._resumption is not None  # noqa: S101
        found, self._resumption = self._resumption, None
        for keeper in self._keepers:
            keeper.go_on_from(found.position)
        wrong = found.put_back(self.model, self._others(), batch)
        if wrong:
            self._voice.warn(
                f"{found.checkpoint} keeps {'; and '.join(wrong)}. It was left out; the weights "
                "and the rest are as they were saved. To resume exactly, give fit the callbacks "
                "and compile with the metrics of the run that is resumed."
            )

    def _take_epoch_back(self) -> None:
        if self._first_epoch is not None:
            self._first_epoch = None
            self.model._initial_epoch = None  # noqa: SLF001

    # The end of the process.

    def _listen(self) -> None:
        asked = [each.preemption for each in self._keepers if each.preemption is not False]
        if not asked:
            return
        given = [each for each in asked if isinstance(each, Preemption)]
        self._preemption = given[0] if given else _sigterm()
        self._preemption.install(heeded=functools.partial(_is_running, self._fit))

    def _end_if_asked(self, run: Callable[[], Run | None] | None) -> None:
        preemption = self._preemption
        if preemption is None or not self.is_asked_to_end:
            return
        taken = None if run is None else run()
        for keeper in self._keepers:
            try:
                if taken is not None:
                    keeper.save_before_the_end(taken)
                keeper.finish(preemption.remaining())
            except CheckpointError as error:  # the process ends all the same
                _log.warning("%s", error)
        preemption.end()


@functools.cache
def _sigterm() -> Preemption:
    """Who listens for SIGTERM where nobody else was given: one for the process."""
    return Preemption()


def _is_running(fit: CodeType | None, frame: FrameType | None) -> bool:
    """Whether a `fit` is under way: one that ended by an exception told no callback of it."""
    return any(each.f_code is fit for each in _stack(frame))


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
