"""The callbacks beside ours in a `fit`: found, and their state kept and put back."""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np


@runtime_checkable
class Stateful(Protocol):
    """
    A callback that says what it has to remember: the hook for your own.

    The names are those of PyTorch. A callback that ended the training sets
    `self.model.stop_training` again in `load_state_dict`.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """Numbers, texts, lists, dictionaries and arrays."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, after `on_train_begin` was called."""


@dataclass(frozen=True)
class Remembered:
    """
    What one callback had to remember.

    Attributes:
        name (str): its class and what it monitors, or what it calls itself; with a number where
            several have one name.
        told (bool): at the time of the save it had heard of the batch or epoch that ended.
        state (Mapping[str, Any]): by name.
    """

    name: str
    told: bool
    state: Mapping[str, Any]


#: What Keras's own callbacks count from epoch to epoch, by the names of their attributes.
_ATTRIBUTES: Mapping[type, tuple[str, ...]] = {
    keras.callbacks.History: ("history", "epoch"),
    keras.callbacks.EarlyStopping: ("best", "wait", "stopped_epoch", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        *("best", "epochs_since_last_save", "_current_epoch"),
        *("_batches_seen_since_last_saving", "_last_batch_seen"),
    ),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.LearningRateScheduler: (),  # it adds to the logs, which others remember
}
_SAVERS = frozenset({"ModelCheckpoint", "BackupAndRestore"})
#: The direction of a metric, which Keras settles at the first epoch's end.
_DIRECTION = "direction"


def list_of(callback: Any) -> Any | None:
    """
    The list whose hook of a callback is being called just now; None where there is none.

    Keras hands a callback its model and no more. The list is found in the frame that calls.
    """
    for frame in _callers():
        found = frame.f_locals.get("self")
        if isinstance(found, keras.callbacks.CallbackList):
            return found if any(each is callback for each in found.callbacks) else None
    return None


def trainer_of(callbacks: Any) -> FrameType | None:
    """The frame that calls the hooks of a list just now: that of `fit`, as a rule."""
    frames = _callers()
    for frame in frames:
        if frame.f_locals.get("self") is callbacks:
            return next(frames, None)
    return None


def remember(callbacks: Sequence[Any], until: Any) -> list[Remembered]:
    """
    What the callbacks of a list have to remember.

    Parameters:
        callbacks (Sequence): in the order in which they are called.
        until (keras.callbacks.Callback | None): the one being called; those after it have not heard
            yet. None where all have.
    """
    kept, told = [], True
    for name, callback in _named(callbacks):
        told = told and callback is not until
        state = _state(callback)
        if state is not None:
            # The one that saves counts its save before it asks.
            kept.append(Remembered(name, told or callback is until, state))
    return kept


def put_back(
    callbacks: Sequence[Any], kept: Sequence[Remembered], tell: Callable[[Any], object]
) -> list[str]:
    """
    Give callbacks what they had to remember, and tell those that had not heard.

    Parameters:
        callbacks (Sequence): in the order in which they are called.
        kept (Sequence[Remembered]): what was kept.
        tell (Callable): calls the hook that was under way, on one callback.

    Returns:
        list[str]: what was kept for callbacks that are not in the list, by name; without those
            that only save, which change nothing in the training.
    """
    states = {each.name: each for each in kept}
    untold = []
    for name, callback in _named(callbacks):
        found = states.pop(name, None)
        if found is not None and _state(callback) is not None:
            _load(callback, found.state)
            if not found.told:
                untold.append(callback)
    for callback in untold:
        tell(callback)
    return [name for name in states if name.split()[0] not in _SAVERS]


def _callers() -> Iterator[FrameType]:
    frame = sys._getframe(1)  # noqa: SLF001 - documented, and the only way to the caller
    while frame.f_back is not None:
        frame = frame.f_back
        yield frame


def _named(callbacks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    seen: Counter[str] = Counter()
    for callback in callbacks:
        name = getattr(callback, "remembered_as", None) or _called(callback)
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name} {seen[name]}"), callback


def _called(callback: Any) -> str:
    monitor = getattr(callback, "monitor", None)
    name = type(callback).__qualname__
    return f"{name} of {monitor}" if isinstance(monitor, str) else name


def _state(callback: Any) -> Mapping[str, Any] | None:
    """What a callback has to remember; None where it says nothing and Keras's own is not known."""
    if isinstance(callback, Stateful):
        state: Mapping[str, Any] = _detached(callback.state_dict())
        return state
    names = _attributes(callback)
    if names is None:
        return None
    state = {name: getattr(callback, name) for name in names if hasattr(callback, name)}
    if hasattr(callback, "monitor_op"):
        if callback.monitor_op is None and hasattr(callback, "_set_monitor_op"):
            # It asks metrics that a resumed model has only after its first batch. Where nothing
            # tells, Keras says so itself a moment later.
            with contextlib.suppress(ValueError):
                callback._set_monitor_op()  # noqa: SLF001
        state[_DIRECTION] = getattr(callback.monitor_op, "__name__", None)
    return state


def _detached(value: Any) -> Any:
    """A state with arrays of its own: a callback of the user's may go on changing those it gave."""
    if isinstance(value, np.ndarray):
        return np.array(value)
    if isinstance(value, Mapping):
        return {key: _detached(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_detached(each) for each in value)
    return value


def _load(callback: Any, state: Mapping[str, Any]) -> None:
    if isinstance(callback, Stateful):
        callback.load_state_dict(state)
        return
    for name in _attributes(callback) or ():
        if name in state:
            setattr(callback, name, state[name])
    if state.get(_DIRECTION) is not None and getattr(callback, "monitor_op", 0) is None:
        is_less = state[_DIRECTION] == "less"
        callback.monitor_op = keras.ops.less if is_less else keras.ops.greater
        callback.min_delta = abs(callback.min_delta) * (-1 if is_less else 1)
    if isinstance(callback, keras.callbacks.EarlyStopping) and callback.stopped_epoch > 0:
        if callback.wait >= callback.patience:
            callback.model.stop_training = True
        else:  # it was given more patience since
            callback.stopped_epoch = 0


def _attributes(callback: Any) -> tuple[str, ...] | None:
    return next((names for kind, names in _ATTRIBUTES.items() if isinstance(callback, kind)), None)
