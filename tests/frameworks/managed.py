"""A manager of `tf.train`, Holdfast's or TensorFlow's own, with something to save."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf


class Run:
    """A variable, what saves it, and the counter of its steps."""

    def __init__(self, manager: Callable[..., Any], place: Any, keep: Any = 3, **more: Any) -> None:
        self.step = tf.Variable(0, dtype=tf.int64)
        self.weight = tf.Variable([0.0, 0.0])
        self.checkpoint = tf.train.Checkpoint(weight=self.weight, step=self.step)
        if "checkpoint_interval" in more:
            more["step_counter"] = self.step
        self.manager = manager(self.checkpoint, place, keep, **more)

    def save(self, value: float, number: Any = None, **more: Any) -> Any:
        self.weight.assign([value, value])
        return self.manager.save(number, **more)

    def value(self) -> float:
        return float(self.weight[0])


def names(prefixes: Any) -> list[str]:
    return [Path(prefix).name for prefix in prefixes]


def value_in(prefix: str) -> float:
    return float(tf.train.load_variable(prefix, "weight/.ATTRIBUTES/VARIABLE_VALUE")[0])


def workspace_of(run: Run) -> list[Path]:
    return list(run.manager.store.workspace.path.iterdir())
