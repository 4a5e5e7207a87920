"""A run that was killed and resumed ends with the bytes of one that never was."""

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast import CheckpointStore, open_store
from holdfast.errors import (
    CheckpointWarning,
    CorruptionError,
    FormatError,
    InvalidInputError,
    StorageError,
)
from holdfast.keras import KerasState, ModelCheckpoint, Position
from tests.frameworks.runs import EPOCHS, new_model, play, quiet, same, set_all, train, values

FORMATS = [".keras", ".weights.h5", ".h5", ".hdf5"]


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for each format, left by a run that ended after two of its four epochs."""
    root = tmp_path_factory.mktemp("halfway")
    callbacks = [
        ModelCheckpoint(root / suffix / f"m-{{epoch}}{suffix}", background=False)
        for suffix in FORMATS
    ]
    train(new_model(), 2, callbacks)
    return root


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_resumed_run_ends_with_the_same_bytes(
    suffix: str, halfway: Path, unbroken: dict[int, list[Any]]
) -> None:
    model = new_model()
    again = ModelCheckpoint(halfway / suffix / f"m-{{epoch}}{suffix}", background=False)
    before = again.store.checkpoints()

    epoch = again.resume(model)
    restored = values(model)
    train(model, EPOCHS, [again], initial_epoch=epoch)

    assert epoch == 2
    assert same(restored, unbroken[2])
    assert same(values(model), unbroken[EPOCHS])
    assert [each.step for each in again.store] == [10, 20, 30, 40]
    assert again.store.checkpoints()[2].parent == before[-1].id


KILLED = """
import os, signal, sys
import keras
from holdfast.keras import ModelCheckpoint
from tests.frameworks.runs import new_model, train

class Dies(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

train(new_model(), 4, [ModelCheckpoint(sys.argv[1], background=False), Dies()])
"""


def test_a_run_that_was_killed_ends_with_the_same_bytes(
    tmp_path: Path, unbroken: dict[int, list[Any]]
) -> None:
    path = tmp_path / "m-{epoch}.keras"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], env=environment, timeout=300, check=False
    )
    assert died.returncode == -signal.SIGKILL

    model, again = new_model(), ModelCheckpoint(path, background=False)
    epoch = again.resume(model)
    train(model, EPOCHS, [again], initial_epoch=epoch)

    assert epoch == 2
    assert same(values(model), unbroken[EPOCHS])


def test_without_the_seed_generators_it_would_not(
    halfway: Path, unbroken: dict[int, list[Any]]
) -> None:
    store = open_store(halfway / ".keras")
    kept = store.download(next(each for each in store if each.step == 20))

    model = keras.saving.load_model(kept / "m-2.keras")
    train(model, EPOCHS, initial_epoch=2)

    assert not same(values(model), unbroken[EPOCHS])


def test_an_empty_store_begins_at_epoch_0(tmp_path: Path) -> None:
    model = new_model()
    before = values(model)

    assert ModelCheckpoint(tmp_path / "m.keras").resume(model) == 0
    assert same(values(model), before)


def test_a_place_that_does_not_answer_is_not_empty(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")

    def fails(*args: Any) -> Any:
        raise StorageError("the place does not answer.")

    monkeypatch.setattr(ours.store._backend, "scan", fails)
    with pytest.raises(StorageError, match="does not answer"):
        ours.resume(model)


def test_a_draft_that_was_left_is_published_first(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")
    draft = ours.store.draft(step=7, metadata={"series": "m.keras"})
    KerasState(model, "m.keras", position=Position(3, 0, 7)).snapshot().write_to(draft.directory)
    ours.store.seal(draft)
    draft.release()

    assert ours.resume(new_model()) == 3
    assert [each.step for each in ours.store] == [7]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "{epoch}.keras", background=False)
    play(model, [ours], [{}] * 2)
    (newest,) = tmp_path.glob("files/*/2.keras")
    newest.write_bytes(b"x" * newest.stat().st_size)

    with pytest.warns(CheckpointWarning, match="Passing over it"):
        assert ours.resume(new_model()) == 1

    (first,) = tmp_path.glob("files/*/1.keras")
    first.unlink()
    with pytest.warns(CheckpointWarning), pytest.raises(CorruptionError, match="none of the 2"):
        ours.resume(new_model())


def test_a_checkpoint_inside_an_epoch_begins_that_epoch_again(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=4, background=False)
    play(model, [ours], [{}], batches=[{}] * 6)

    with pytest.warns(CheckpointWarning, match="inside epoch 1, after its batch 4"):
        assert ours.resume(new_model()) == 0

    play(model, [ours], [{}], batches=[{}] * 6)
    assert [each.step for each in ours.store] == [4, 6, 10]


def test_a_checkpoint_at_the_last_batch_goes_on_with_the_next_epoch(
    tmp_path: Path, model: Any
) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", save_freq=6)

    play(model, [ours], [{}], batches=[{}] * 6)

    assert ours.resume(new_model()) == 1


def test_an_epoch_that_was_stopped_is_not_finished(tmp_path: Path, model: Any) -> None:
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 3

    ours, fresh = ModelCheckpoint(tmp_path / "m.keras"), new_model()
    train(fresh, 2, [Stops(), ours])

    assert ours.store.checkpoints()[-1].metadata["batch"] == 4
    with pytest.warns(CheckpointWarning, match="after its batch 4"):
        assert ours.resume(new_model()) == 0


def test_stopping_at_the_end_of_an_epoch_finishes_it(tmp_path: Path) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras", background=False)
    early = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=10)

    train(new_model(), 3, [early, ours])

    assert ours.resume(new_model()) == 2


def subclassed() -> Any:
    keras.utils.set_random_seed(3)

    class Nested(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [keras.layers.Dense(4) for _ in range(2)]
            self.named = {"norm": keras.layers.BatchNormalization(), "out": keras.layers.Dense(1)}
            self.noise = keras.layers.GaussianNoise(0.3)
            self.cell = keras.layers.SimpleRNN(2, recurrent_dropout=0.2)
            self.scale = self.add_weight(shape=(), name="scale", initializer="ones")

        def call(self, x: Any, training: bool = False) -> Any:
            for block in self.blocks:
                x = block(x)
            x = self.noise(self.named["norm"](x, training=training), training=training)
            x = self.cell(x[:, :, None], training=training)
            return self.named["out"](x) * self.scale

    model = Nested()
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9), momentum=0.9, use_ema=True
    )
    model.compile(optimizer, "mse")
    model(np.zeros((1, 4), np.float32))
    return model


def test_a_subclassed_model_with_averaged_weights(tmp_path: Path) -> None:
    whole, first, second = subclassed(), subclassed(), subclassed()
    train(whole, 2)
    ours = ModelCheckpoint(tmp_path / "m.weights.h5")

    train(first, 1, [ours])
    train(second, 2, initial_epoch=ours.resume(second))

    assert same(values(second), values(whole))


def test_names_may_have_other_numbers(tmp_path: Path) -> None:
    first = subclassed()
    ours = ModelCheckpoint(tmp_path / "m.weights.h5")
    play(first, [ours], [{}])
    keras.layers.Dense(1), keras.layers.Dense(1)

    second = new_model()
    del second
    other = subclassed()

    assert {weight.path for weight in other.weights} != {weight.path for weight in first.weights}
    assert ours.resume(other) == 1


def narrow() -> Any:
    return new_model(units=2)


def renamed() -> Any:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="other"),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1),
        ],
        name="sequential",
    )
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    return model


def longer() -> Any:
    model = new_model()
    model.add(keras.layers.Dense(1, name="more"))
    return model


def frozen() -> Any:
    model = new_model()
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    return model


def half() -> Any:
    model = new_model()
    for weight in model.weights:
        weight._dtype = "float16"
    return model


def without_dropout() -> Any:
    model = keras.Sequential([keras.Input((4,)), *[keras.layers.Dense(n) for n in (3, 1)]])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


MISMATCHES: dict[str, tuple[Callable[[], Any], str]] = {
    "shape": (narrow, r"dense\S*/kernel float32\[4, 3\] there, \S*/kernel float32\[4, 2\] here"),
    "name": (renamed, r"dense\S*/kernel float32\[4, 3\] there, sequential\S*/other/kernel"),
    "more": (longer, r"only in the model: \S*more/kernel float32\[1, 1\]"),
    "frozen": (frozen, r"the optimizer in .* only in the checkpoint: \S*kernel_momentum"),
    "type": (half, r"float32\[4, 3\] there, \S* float16"),
    "seeds": (without_dropout, r"the seed generators in .* only in the checkpoint: seed_gen"),
    "optimizer": (lambda: new_model(optimizer="sgd"), r"holds the Adam .* compiled with SGD"),
    "cousin": (lambda: new_model(optimizer="adamw"), r"holds the Adam .* compiled with AdamW"),
}


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.parametrize(("make", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_a_variable_without_a_match_is_an_error(
    make: Callable[[], Any], message: str, suffix: str, tmp_path: Path, model: Any
) -> None:
    ours = ModelCheckpoint(tmp_path / f"m{suffix}")
    play(model, [ours], [{}])
    other = make()
    before = [weight.numpy() for weight in other.weights]

    with pytest.raises(InvalidInputError, match=message):
        ours.resume(other)

    assert same([weight.numpy() for weight in other.weights], before)


def test_a_model_that_is_not_built_is_told_how_to_be(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")
    play(model, [ours], [{}])
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("adam", "mse")

    with pytest.raises(InvalidInputError, match=r"is not built yet.*keras\.Input\(shape\)"):
        ours.resume(unbuilt)


def test_a_model_that_is_not_compiled_is_told_to_be(tmp_path: Path, model: Any) -> None:
    ours = ModelCheckpoint(tmp_path / "m.keras")
    play(model, [ours], [{}])
    uncompiled = keras.Sequential.from_config(model.get_config())

    with pytest.raises(InvalidInputError, match=r"the Adam optimizer after 10 steps.*compile"):
        ours.resume(uncompiled)


def test_a_checkpoint_without_an_optimizer_is_told(tmp_path: Path, model: Any) -> None:
    store = open_store(tmp_path)
    uncompiled = keras.Sequential.from_config(model.get_config())
    store.save(KerasState(uncompiled), step=1)

    with pytest.raises(InvalidInputError, match=r"Restore before model\.compile"):
        store.restore(KerasState(model))

    set_all(uncompiled, 1)
    store.restore(KerasState(uncompiled))
    assert not np.array_equal(uncompiled.get_weights()[0], np.ones((4, 3)))


@pytest.fixture
def kept(tmp_path: Path, model: Any) -> Path:
    """The files of a checkpoint in the older format."""
    directory = tmp_path / "kept"
    directory.mkdir()
    KerasState(model, "m.h5").snapshot().write_to(directory)
    return directory


def test_a_checkpoint_of_something_else_is_told(tmp_path: Path, model: Any) -> None:
    store: CheckpointStore = open_store(tmp_path / "store")
    (tmp_path / "file").write_text("x")
    store.save(tmp_path / "file", step=1)

    with pytest.raises(InvalidInputError, match=r"no training/state\.json.*it holds file"):
        store.restore(KerasState(model))


def rewrite(kept: Path, **more: Any) -> None:
    path = kept / "training" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


WRONG: dict[str, dict[str, Any]] = {
    "a path that leads elsewhere": {"file": "../m.h5"},
    "an unknown suffix": {"file": "m.pkl"},
    "a negative count": {"step": -1},
    "a truth for a number": {"epoch": True},
    "no variables": {"weights": 3},
    "a variable without a type": {"weights": [["kernel", None, [1]]]},
    "seeds that are no numbers": {"seeds": [["seed", "int64", [2], ["x", "y"]]]},
    "no format": {"format": None},
}


@pytest.mark.parametrize("more", WRONG.values(), ids=WRONG)
def test_a_training_part_that_is_not_valid_is_refused(
    more: dict[str, Any], kept: Path, model: Any
) -> None:
    before = values(model)
    rewrite(kept, **more)

    with pytest.raises(FormatError, match="is not valid"):
        KerasState(model).restore(kept)

    assert same(values(model), before)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '{"format": 1e999}']
)
def test_a_training_part_that_is_no_json_is_refused(text: str, kept: Path, model: Any) -> None:
    (kept / "training" / "state.json").write_text(text)

    with pytest.raises(FormatError, match="is not valid"):
        KerasState(model).restore(kept)


def test_a_newer_training_part_asks_for_an_upgrade(kept: Path, model: Any) -> None:
    rewrite(kept, format=2)

    with pytest.raises(FormatError, match="Upgrade holdfast") as error:
        KerasState(model).restore(kept)

    assert error.value.newer


def pickled(shape: Any, dtype: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}] * 3, dtype=object), allow_pickle=True)
    return file.getvalue()


def enormous(shape: Any, dtype: Any) -> bytes:
    file = io.BytesIO()
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def cut(shape: Any, dtype: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    return file.getvalue()[:-1]


@pytest.mark.parametrize("make", [pickled, enormous, cut])
def test_an_optimizer_that_is_hostile_is_refused(
    make: Callable[[Any, Any], bytes], kept: Path, model: Any
) -> None:
    before = values(model)
    with zipfile.ZipFile(kept / "training" / "optimizer.npz", "w") as archive:
        for number, variable in enumerate(model.optimizer.variables):
            archive.writestr(f"{number}.npy", make(tuple(variable.shape), variable.dtype))

    with pytest.raises(FormatError, match=r"optimizer\.npz cannot be read"):
        KerasState(model).restore(kept)

    assert same(values(model), before)


def test_a_missing_file_is_an_error(kept: Path, model: Any) -> None:
    (kept / "m.h5").unlink()

    with pytest.raises(FormatError, match=r"Keras cannot load m\.h5"):
        KerasState(model).restore(kept)


def test_what_keras_would_skip_is_an_error(kept: Path, model: Any, tmp_path: Path) -> None:
    other = new_model(optimizer="sgd")
    other.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.weights.h5").rename(kept / "m.weights.h5")
    rewrite(kept, file="m.weights.h5")

    with quiet(), pytest.raises(FormatError, match="Skipping variable loading for optimizer"):
        KerasState(model).restore(kept)
