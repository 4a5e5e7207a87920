"""Trainings that are killed, here by an exception, and started again as in a new process."""

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from holdfast.keras import ModelCheckpoint
from tests.frameworks.runs import X, Y, values


class Killed(Exception):
    """What stands here for SIGKILL: nothing of ours hears of it."""


class Kills(keras.callbacks.Callback):
    """Ends a run at the so-many-eth call of a hook."""

    def __init__(self, hook: str, count: int) -> None:
        super().__init__()
        self.left = count
        setattr(self, hook, self._count)

    def _count(self, *args: Any, **more: Any) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


class Counts(keras.callbacks.Callback):
    """Counts the batches that are trained."""

    batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1


class Draws(keras.callbacks.Callback):
    """Draws from every random state of the process, and remembers what came."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = state["drawn"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._draw()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._draw()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._draw()

    def _draw(self) -> None:
        generator = tf.random.get_global_generator()
        self.drawn += [
            random.random(),
            np.random.random(),
            float(keras.random.uniform(())),
            float(generator.uniform(())),
        ]


@dataclass(frozen=True)
class Ended:
    """All that is to be the same in the end."""

    values: list[bytes]
    history: Mapping[str, Any]
    callbacks: list[Mapping[str, Any]]
    random: tuple[float, ...]


class Traced:
    """Makes a model once, since Keras traces each anew; then it is as it was at first."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.model: Any = None

    def __call__(self) -> Any:
        if self.model is None:
            self.model = self.make()
            self.model.optimizer.build(self.model.trainable_variables)
            self.first = values(self.model)
        variables = [*self.model.variables, *self.model.optimizer.variables]
        for variable, value in zip(variables, self.first, strict=True):
            variable.assign(value)
        self.model._initial_epoch = None  # Keras's own BackupAndRestore leaves one behind
        return self.model


class Script:
    """
    What is started again and again: a model, its data, and the callbacks around the saver.

    Parameters:
        make: the model, compiled; scripts may share one that is traced.
        before, after: the callbacks in front of the saver and behind it.
        data: what `fit` is given.
        more: what it is given besides.

    Attributes:
        heard: of how many batches the callbacks were told in the run that came to its end last.
    """

    heard = 0

    def __init__(
        self,
        make: Callable[[], Any] | Traced,
        *,
        before: Callable[[], Sequence[Any]] = list,
        after: Callable[[], Sequence[Any]] = list,
        data: Callable[[], Mapping[str, Any]] = lambda: {"x": X, "y": Y, "batch_size": 8},
        **more: Any,
    ) -> None:
        self.traced = make if isinstance(make, Traced) else Traced(make)
        self.before, self.after = before, after
        self.data = data
        self.more = {"epochs": 3, "verbose": 0, "shuffle": False, **more}

    @functools.cached_property
    def unbroken(self) -> Ended:
        """How it ends if nothing is saved and nobody kills it."""
        return self.ended()

    def ended(self, saver: Any = None, *, anew: bool = False) -> Ended:
        """Run it to its end; with a model that was never used if it is to be anew."""
        model = self._begin(anew=anew)
        callbacks, others = self._callbacks(saver)
        counts = Counts()
        history = self._fit(model, saver, [*callbacks, counts])
        self.heard = counts.batches
        return Ended(
            [value.tobytes() for value in values(model)],
            {**history.history, "epochs": history.epoch},
            [_counted(each) for each in others],
            (random.random(), np.random.random()),
        )

    def killed(self, saver: Any, hook: str, count: int) -> None:
        """Run it until a hook is called for the so-many-eth time."""
        model = self._begin(anew=False)
        callbacks, _ = self._callbacks(saver)
        with pytest.raises(Killed):
            self._fit(model, saver, [*callbacks, Kills(hook, count)])

    def _begin(self, *, anew: bool) -> Any:
        _forget_the_process()
        model = self.traced.make() if anew else self.traced()
        _forget_the_process()  # one that makes a model draws, and one that uses it again does not
        return model

    def _callbacks(self, saver: Any) -> tuple[list[Any], list[Any]]:
        before, after = self.before(), self.after()
        ours = [] if saver is None else [saver]
        return [*before, *ours, *after], [*before, *after]

    def _fit(self, model: Any, saver: Any, callbacks: list[Any]) -> Any:
        more = dict(self.more)
        if isinstance(saver, ModelCheckpoint):
            more["initial_epoch"] = saver.resume(model)
        return model.fit(**self.data(), callbacks=callbacks, **more)


def _forget_the_process() -> None:
    global_state.set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, None)
    tf.random.set_global_generator(tf.random.Generator.from_seed(7))
    keras.utils.set_random_seed(7)


def _counted(callback: Any) -> Mapping[str, Any]:
    """Everything in a callback but the model."""
    return {
        name: keras.tree.map_structure(_plain, value)
        for name, value in vars(callback).items()
        if name not in ("_model", "params") and not callable(value)
    }


def _plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value
