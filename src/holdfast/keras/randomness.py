"""The random states that do not belong to a model: Python's, NumPy's and the framework's."""

import importlib
import random
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator


def capture() -> dict[str, Any]:
    """
    Take the random states of this process.

    They are those of Python's `random`, of NumPy's global generator, of Keras's global seed
    generator, of TensorFlow's global generator, and of PyTorch's, which a `DataLoader` draws from
    on any backend. JAX has none. What TensorFlow's older functions draw (`tf.random.uniform` and
    the like) comes from states that cannot be read.

    Returns:
        dict[str, Any]: plain values and NumPy arrays, by library.
    """
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": [version, np.array(words, dtype=np.uint64), gauss],
        "numpy": np.random.get_state(legacy=False),
    }
    # Keras and TensorFlow make theirs when something draws from it; looking must not make one.
    generator = global_state.get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR)
    if generator is not None:
        states["keras"] = generator.state.numpy()
    if _runs_on("tensorflow"):
        drawn = importlib.import_module("tensorflow.python.ops.stateful_random_ops")
        if (made := drawn.global_generator) is not None:
            states["tensorflow"] = [int(made.algorithm), made.state.numpy()]
    if (torch := _torch()) is not None:
        states["torch"] = torch.get_rng_state().numpy()
        # To ask for a state would begin to use the devices.
        drawn_on = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        states["cuda"] = [each.numpy() for each in drawn_on]
    return states


def put_back(states: Mapping[str, Any]) -> None:
    """
    Bring this process to random states that were taken before.

    What belongs to a framework that Keras does not run on here is left out.

    Raises:
        TypeError, ValueError, LookupError: they are not what `capture` took.
    """
    if "keras" in states:
        seed_generator.global_seed_generator().state.assign(states["keras"])
    if "tensorflow" in states and _runs_on("tensorflow"):
        tensorflow: Any = sys.modules["tensorflow"]
        algorithm, state = states["tensorflow"]
        drawn = importlib.import_module("tensorflow.python.ops.stateful_random_ops")
        if drawn.global_generator is None:
            generator = tensorflow.random.Generator.from_state(state, algorithm)
            tensorflow.random.set_global_generator(generator)
        else:  # functions that were traced before hold on to it
            drawn.global_generator.reset(state)
    if "torch" in states and (torch := _torch()) is not None:
        torch.set_rng_state(torch.from_numpy(states["torch"]))
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([torch.from_numpy(each) for each in states["cuda"]])
    # These last: making a generator draws from Python's.
    np.random.set_state(states["numpy"])
    version, words, gauss = states["python"]
    random.setstate((version, tuple(int(word) for word in words), gauss))


def _torch() -> Any | None:
    """PyTorch, if anything has imported it: what draws from its random state has."""
    return sys.modules.get("torch")


def _runs_on(name: str) -> bool:
    """Whether Keras runs on this framework here; by then it has been imported."""
    return bool(keras.backend.backend() == name)
