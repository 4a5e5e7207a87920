"""Every format of Keras brings back what was saved, and says beforehand what it cannot do."""

import functools
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from holdfast.errors import CheckpointError, FormatError, InvalidInputError
from holdfast.keras import KerasState, formats, shards
from tests import share
from tests.frameworks.kinds import KINDS, Blocks, fresh, subclassed, trained
from tests.frameworks.runs import same, values

FILES = ["m.keras", "m.weights.h5", "m.weights.json", "m.h5", "m"]
X = np.ones((2, 4), np.float32)
#: So small that the smallest model has several shards: its largest variable has one.
TINY = 1e-9

once = functools.cache(trained)


def keep(state: KerasState, directory: Path) -> Path:
    directory.mkdir()
    state.snapshot().write_to(directory)
    return directory


#: Where a format is refused, and where a SavedModel, which takes long, goes the way of another.
LEFT_OUT = {("in halves", "m.h5")} | {
    (kind, "m") for kind in KINDS if kind not in ("functional", "unconfigured", "low rank")
}

_PAIRS = sorted({(kind, file) for kind in KINDS for file in FILES} - LEFT_OUT)
#: A run tries each second of them.
_FIRST, _EACH = share.turn(2, 1)


@pytest.mark.parametrize(("kind", "file"), _PAIRS[_FIRST - 1 :: _EACH])
def test_weights_optimizer_and_seeds_come_back(kind: str, file: str, tmp_path: Path) -> None:
    model = once(kind)
    before = values(model)
    kept = keep(KerasState(model, file), tmp_path / "kept")
    restored = fresh(kind)

    KerasState(restored, file).restore(kept)

    assert same(values(restored), before)
    assert same(values(model), before)


def test_each_format_writes_its_own_files_and_says_nothing(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("tensorflow"), "propagate", True)
    caplog.set_level(logging.INFO, "tensorflow")
    model = once("sequential")
    capfd.readouterr()

    for file in [*FILES, "m.hdf5"]:
        formats.write(model, tmp_path / file)
    logging.getLogger("absl").warning("something else")

    assert [record.getMessage() for record in caplog.records] == ["something else"]
    assert capfd.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*FILES, "m.hdf5", "m_00000.weights.h5"]
    )
    assert (tmp_path / "m" / "saved_model.pb").is_file()


def test_a_saved_model_is_served_without_its_code(tmp_path: Path) -> None:
    model = once("subclassed")

    kept = keep(KerasState(model, "m.05"), tmp_path / "kept")

    loaded = tf.saved_model.load(str(kept / "m.05"))
    assert np.array_equal(loaded.serve(X), model(X))


# The name chooses the format.

NAMES = {
    "m.keras": ".keras",
    "m.weights.h5": ".weights.h5",
    "m.weights.json": ".weights.json",
    "m.{epoch}.hdf5": ".hdf5",
    "m{tag}.h5": ".h5",
    "model": "",
    "weights-{epoch:02d}-{val_acc:.3f}": "",
    "weights-07-0.913": "",
    "weights.{epoch:02d}-{val_loss:.2f}": "",
    "weights.07-nan": "",
    "model.{epoch:02d}": "",
    "{batch.real}": "",
    "v1.5": "",
}


@pytest.mark.parametrize(("name", "suffix"), NAMES.items(), ids=str)
def test_a_name_chooses_its_format(name: str, suffix: str) -> None:
    assert formats.format_of(name).suffix == suffix


UNKNOWN = {
    "cp-{epoch:04d}.ckpt": "no longer writes TensorFlow's checkpoints.*weights.h5",
    "m.tf": "leave the suffix out",
    "m.pb": "leave the suffix out",
    "m.json": "beside a model's file",
    "my.model": "does not say how to save a model",
    "m.{val_loss:.2f}": "does not say how to save a model",  # it may read m.nan
    "m.{tag}": "does not say how to save a model",
    "m.H5": "does not say how to save a model",
}


@pytest.mark.parametrize(("name", "message"), UNKNOWN.items(), ids=str)
def test_an_unknown_suffix_is_told_the_right_one(name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        formats.format_of(name)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.hdf5", "m", "m-{epoch}"])
def test_weights_alone_go_into_no_whole_model(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"holds the whole model.*\.weights\.h5"):
        formats.format_of(name, weights_only=True)


@pytest.mark.parametrize(
    "name", ["training", "Training", "a" * 125, "a" * 116 + ".weights.json", "-m", "m."]
)
def test_a_name_whose_files_cannot_lie_together_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"Rename"):
        formats.check_name(name)


def test_a_saved_model_takes_tensorflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"holdfast\[tensorflow\].*End the name in .keras"):
        formats.write(once("sequential"), tmp_path / "m")

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(InvalidInputError, match="writes none on torch"):
        formats.check_writable(formats.SAVED_MODEL)
    for each in formats.FORMATS[:-1]:
        formats.check_writable(each, once("sequential"))


def test_the_older_format_takes_no_bfloat16(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no bfloat16 back from \.h5.*in \.keras"):
        formats.write(once("in halves"), tmp_path / "m.h5")

    assert list(tmp_path.iterdir()) == []


# Shards.


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The index of several shards."""
    formats.write(once("sequential"), tmp_path / "m.weights.json", max_shard_size=TINY)
    return tmp_path / "m.weights.json"


def test_shards_lie_beside_their_index(sharded: Path) -> None:
    restored = fresh("sequential")
    restored.optimizer.build(restored.trainable_variables)

    formats.read(restored, sharded)

    names = sorted(path.name for path in sharded.parent.iterdir())
    assert names[:3] == ["m.weights.json", "m_00000.weights.h5", "m_00001.weights.h5"]
    one, other = ([*m.weights, *m.optimizer.variables] for m in (restored, once("sequential")))
    assert same([each.numpy() for each in one], [each.numpy() for each in other])


def test_a_missing_shard_is_told_before_anything_changes(sharded: Path) -> None:
    model = fresh("sequential")
    before = values(model)
    (sharded.parent / "m_00001.weights.h5").unlink()

    with pytest.raises(FormatError, match=r"m_00001\.weights\.h5, which is no file.*unchanged"):
        formats.read(model, sharded)

    assert same(values(model), before)


HOSTILE = {
    "above": "../m_00000.weights.h5",
    "absolute": "/m_00000.weights.h5",
    "below": "training/m_00000.weights.h5",
    "no shard": "m.weights.json",
    "no text": 7,
    "no text in a list": [["m_00000.weights.h5"]],
    "a link": "link_00000.weights.h5",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_an_index_that_leads_elsewhere_is_refused(
    name: Any, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_: pytest.fail("Keras was asked"))
    (sharded.parent / "link_00000.weights.h5").symlink_to("m_00000.weights.h5")
    index = json.loads(sharded.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], name)
    sharded.write_text(json.dumps(index))

    with pytest.raises(FormatError, match=r"is no name of a shard|which is no file"):
        formats.read(once("sequential"), sharded)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_an_index_that_is_none_is_refused(text: str, sharded: Path) -> None:
    sharded.write_text(text)

    with pytest.raises(FormatError, match=r"the index m\.weights\.json cannot be read"):
        formats.read(once("sequential"), sharded)


def test_an_index_without_end_is_not_read(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MAX_BYTES", 10)

    with pytest.raises(FormatError, match="more than 10 bytes"):
        formats.read(once("sequential"), sharded)


# The architecture beside the weights.

ARCHITECTURES = {
    "m-07.keras": "m-07.json",
    "m.weights.h5": "m.json",
    "m.weights.json": "m.json",
    "m.h5": "m.json",
    "m.05": "m.05.json",
}


@pytest.mark.parametrize(("name", "expected"), ARCHITECTURES.items(), ids=str)
def test_the_architecture_is_named_after_the_file(name: str, expected: str) -> None:
    assert formats.architecture_name(name) == expected


def test_architecture_and_weights_make_the_model_again(tmp_path: Path) -> None:
    model = once("subclassed")

    (tmp_path / "m.json").write_text(formats.architecture(model))
    formats.write(model, tmp_path / "m.weights.h5")
    loaded = keras.models.model_from_json(
        (tmp_path / "m.json").read_text(), custom_objects={"Blocks": Blocks}
    )
    loaded.load_weights(tmp_path / "m.weights.h5")

    assert np.array_equal(loaded(X), model(X))
    assert same(
        [each.numpy() for each in loaded.optimizer.variables],
        [each.numpy() for each in model.optimizer.variables],
    )


class Fragile(Blocks):
    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("how would one write this down?")


@pytest.mark.parametrize("make", [lambda: once("unconfigured"), lambda: subclassed(Fragile)])
def test_a_class_without_a_configuration_is_told(make: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Nothing was written.*get_config\(\)"):
        formats.architecture(make())

    assert list(tmp_path.iterdir()) == []


# What does not fit.


def test_an_optimizer_with_other_variables_is_told(tmp_path: Path) -> None:
    kept = keep(KerasState(once("sequential")), tmp_path / "kept")
    other = fresh("sequential")
    other.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse")
    before = [weight.numpy() for weight in other.weights]

    with pytest.raises(InvalidInputError, match=r"the optimizer .* only in the model: \S*average"):
        KerasState(other).restore(kept)

    assert same([weight.numpy() for weight in other.weights], before)


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5", "m.h5", "m_00000.weights.h5"])
def test_a_file_that_is_damaged_is_told(file: str, tmp_path: Path) -> None:
    name = "m.weights.json" if file.startswith("m_") else file
    kept = keep(KerasState(once("sequential"), name), tmp_path / "kept")
    (kept / file).write_bytes((kept / file).read_bytes()[: (kept / file).stat().st_size // 2])

    with pytest.raises(CheckpointError, match=rf"cannot load {name}.*The checkpoint is untouched"):
        KerasState(fresh("sequential"), name).restore(kept)


def test_what_wrote_a_checkpoint_is_named_only_where_it_does_not_fit(tmp_path: Path) -> None:
    kept = keep(KerasState(once("sequential"), "m.weights.h5"), tmp_path / "kept")
    path = kept / "training" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "keras": "2.9"}))

    KerasState(fresh("sequential")).restore(kept)

    named = f"It was written by Keras 2.9 on tensorflow, and this is Keras {keras.__version__} on"
    with pytest.raises(InvalidInputError, match=named):
        KerasState(fresh("accumulated")).restore(kept)
    (kept / "m.weights.h5").write_bytes(b"")
    with pytest.raises(FormatError, match=named):
        KerasState(fresh("sequential")).restore(kept)
