"""Who saves a model: Holdfast, Keras's callbacks, Orbax and TensorFlow, all driven alike."""

import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Contestant:
    """
    A way to save a model into a directory of its own.

    Parameters:
        model (keras.Model): built and compiled.
        place (Path): the directory, which does not exist yet.
    """

    def __init__(self, model: Any, place: Path) -> None:
        place.mkdir(parents=True)
        self.model = model
        self.place = place

    def callback(self, every: int) -> Any:
        """What saves in `fit`, after every so many batches."""
        from keras.callbacks import LambdaCallback

        def saved(batch: int, logs: object = None) -> None:  # noqa: ARG001 - as Keras calls it
            if (batch + 1) % every == 0:
                self.begin(batch + 1)

        return LambdaCallback(on_train_batch_end=saved)

    def begin(self, step: int) -> None:
        """Save; it may go on when this returns."""
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until what was begun is written."""

    def save(self, step: int) -> None:
        """Save, and wait until it is written."""
        self.begin(step)
        self.wait()

    def tidy(self) -> None:
        """Remove what was saved before the last save."""

    def restore(self) -> Any:
        """Bring back what was saved last; returns the model that has it."""
        raise NotImplementedError


class HoldfastStore(Contestant):
    """`store.save(KerasState(model))`, which is durable when it returns."""

    def __init__(self, model: Any, place: Path) -> None:
        from holdfast import open_store

        super().__init__(model, place)
        self.store = open_store(place)

    def begin(self, step: int) -> None:
        self.store.save(self._state(), step=step)

    def tidy(self) -> None:
        from holdfast import KeepLast

        self.store.prune(KeepLast(1))

    def restore(self) -> Any:
        self.store.restore(self._state())
        return self.model

    def _state(self) -> Any:
        from holdfast.keras import KerasState

        return KerasState(self.model, workspace=self.store.workspace)


class HoldfastCallback(HoldfastStore):
    """`holdfast.keras.ModelCheckpoint`; outside of `fit`, the saver that it saves with."""

    def callback(self, every: int) -> Any:
        from holdfast.keras import ModelCheckpoint

        return ModelCheckpoint(f"{self.store.url}/model.keras", save_freq=every, on_error="raise")

    def begin(self, step: int) -> None:
        from holdfast import Saver

        if not hasattr(self, "_saver"):
            self._saver = Saver(self.store, on_error="raise")
        self._saved = self._saver.save(self._state(), step=step)

    def wait(self) -> None:
        from holdfast import Saver

        Saver.settle(self.store.url)
        if hasattr(self, "_saved"):
            self._saved.result()


class KerasCallback(Contestant):
    """One of Keras's own callbacks; outside of `fit` it is told that an epoch ended."""

    def make(self, save_freq: int | str) -> Any:
        """The callback."""
        raise NotImplementedError

    def callback(self, every: int) -> Any:
        self._last = self.make(every)
        return self._last

    def begin(self, step: int) -> None:
        if not hasattr(self, "_last"):
            self._last = self.make("epoch")
            self._last.set_model(self.model)
        self._last.on_epoch_end(step, {})


class KerasModelFile(KerasCallback):
    """`keras.callbacks.ModelCheckpoint` to a `.keras` file, which `load_model` builds anew."""

    def make(self, save_freq: int | str) -> Any:
        from keras.callbacks import ModelCheckpoint

        return ModelCheckpoint(self.place / "model.keras", save_freq=save_freq)

    def restore(self) -> Any:
        from keras.models import load_model

        return load_model(self.place / "model.keras")


class KerasWeightsFile(KerasCallback):
    """`keras.callbacks.ModelCheckpoint` to a `.weights.h5` file, and `load_weights`."""

    def make(self, save_freq: int | str) -> Any:
        from keras.callbacks import ModelCheckpoint

        path = self.place / "model.weights.h5"
        return ModelCheckpoint(path, save_freq=save_freq, save_weights_only=True)

    def restore(self) -> Any:
        self.model.load_weights(self.place / "model.weights.h5")
        return self.model


class KerasBackup(KerasCallback):
    """`keras.callbacks.BackupAndRestore`."""

    def make(self, save_freq: int | str) -> Any:
        from keras.callbacks import BackupAndRestore

        # One place for each: it would go on from what it finds.
        place = self.place / str(save_freq)
        return BackupAndRestore(place, save_freq=save_freq, delete_checkpoint=False)


class KerasOrbax(KerasCallback):
    """`keras.callbacks.OrbaxCheckpoint`, in the background, as is its default."""

    def make(self, save_freq: int | str) -> Any:
        from keras.callbacks import OrbaxCheckpoint

        return OrbaxCheckpoint(self.place / str(save_freq), save_freq=save_freq)

    def wait(self) -> None:
        self._last.wait_until_finished()


class Orbax(Contestant):
    """Orbax's own checkpointer, which is asynchronous, on the arrays of the model."""

    def __init__(self, model: Any, place: Path) -> None:
        from orbax.checkpoint import StandardCheckpointer

        super().__init__(model, place)
        self._checkpointer = StandardCheckpointer()
        self._names = itertools.count()
        self._newest = place

    def begin(self, step: int) -> None:  # noqa: ARG002 - in `fit` they begin anew
        from benchmarks.models import arrays

        self._newest = self.place / str(next(self._names))
        tree = {str(number): array for number, array in enumerate(arrays(self.model))}
        self._checkpointer.save(self._newest, tree)

    def wait(self) -> None:
        self._checkpointer.wait_until_finished()

    def tidy(self) -> None:
        for old in self.place.iterdir():
            if old != self._newest:
                shutil.rmtree(old)

    def restore(self) -> Any:
        from benchmarks.models import state

        tree = self._checkpointer.restore(self._newest)
        for number, variable in enumerate(state(self.model)):
            variable.assign(tree[str(number)])
        return self.model


class TensorFlow(Contestant):
    """`tf.train.CheckpointManager` on the model, which keeps the last one."""

    def __init__(self, model: Any, place: Path) -> None:
        from tensorflow.train import CheckpointManager

        super().__init__(model, place)
        self._manager = CheckpointManager(self.checkpoint(), str(place), max_to_keep=1)

    def checkpoint(self) -> Any:
        """What is saved."""
        from tensorflow.train import Checkpoint

        return Checkpoint(model=self.model)

    def begin(self, step: int) -> None:
        self._manager.save(checkpoint_number=step)

    def restore(self) -> Any:
        self._manager.checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()
        return self.model


class TensorFlowAsync(TensorFlow):
    """The same asynchronously: on the variables beneath, since it takes Keras's own only once."""

    def checkpoint(self) -> Any:
        from tensorflow.train import Checkpoint

        from benchmarks.models import state

        return Checkpoint(variables=[variable.value for variable in state(self.model)])

    def begin(self, step: int) -> None:
        from tensorflow.train import CheckpointOptions

        options = CheckpointOptions(experimental_enable_async_checkpoint=True)
        self._manager.save(checkpoint_number=step, options=options)

    def wait(self) -> None:
        self._manager.sync()


class RawWrite(Contestant):
    """The limit of what a background can be: the state's bytes, written and synced by a thread."""

    def begin(self, step: int) -> None:  # noqa: ARG002 - there is only one file
        from benchmarks import limits, models

        arrays = models.arrays(self.model)
        self._start(lambda: limits.write(arrays, self.place / "file"))

    def wait(self) -> None:
        self._thread.join()

    def _start(self, work: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=work)
        self._thread.start()


class KerasThread(RawWrite):
    """`model.save` in a thread, as those do who want Keras's file in the background."""

    def begin(self, step: int) -> None:  # noqa: ARG002 - there is only one file
        self._start(lambda: self.model.save(self.place / "model.keras"))


CONTESTANTS: dict[str, type[Contestant]] = {
    "Holdfast `ModelCheckpoint`": HoldfastCallback,
    "Holdfast `store.save`": HoldfastStore,
    "Keras `ModelCheckpoint`, `.keras`": KerasModelFile,
    "Keras `ModelCheckpoint`, `.weights.h5`": KerasWeightsFile,
    "Keras `BackupAndRestore`": KerasBackup,
    "Keras `OrbaxCheckpoint`": KerasOrbax,
    "Orbax, async": Orbax,
    "`tf.train.CheckpointManager`": TensorFlow,
    "`tf.train.CheckpointManager`, async": TensorFlowAsync,
    "`model.save` in a thread": KerasThread,
    "raw write in a thread": RawWrite,
}
#: Left out beyond 1 GB, where each takes minutes: who works as another one that is measured.
ALIKE = {"Keras `ModelCheckpoint`, `.weights.h5`", "Keras `OrbaxCheckpoint`", "Keras `load_model`"}
#: Who saves in `fit`, who goes on in the background, and by which call each is brought back.
SAVES = [name for name, made in CONTESTANTS.items() if not issubclass(made, RawWrite)]
BACKGROUND = [name for name, made in CONTESTANTS.items() if made.wait is not Contestant.wait]
RESTORES = {
    "Holdfast `store.restore`": "Holdfast `store.save`",
    "Keras `load_weights`": "Keras `ModelCheckpoint`, `.weights.h5`",
    "Keras `load_model`": "Keras `ModelCheckpoint`, `.keras`",
    "Orbax": "Orbax, async",
    "`tf.train.Checkpoint.restore`": "`tf.train.CheckpointManager`",
}
