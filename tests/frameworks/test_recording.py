"""The walk through a model is kept, and made anew where the model is no longer the same."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast.keras import KerasState, recording
from tests.frameworks.kinds import Blocks, adam, after, fresh, sequential, subclassed, trained
from tests.frameworks.test_weights_file import members, tree


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Models that were walked through."""
    walked: list[Any] = []
    find = recording._find

    def found(model: Any) -> Any:
        walked.append(model.name)
        return find(model)

    monkeypatch.setattr(recording, "_find", found)
    return walked


def recorded(model: Any) -> None:
    recording.record(model, with_assets=True)


def test_a_model_that_trains_is_walked_through_once(walks: list[Any]) -> None:
    model = trained("two optimizers")
    model.run_eagerly = True

    for _ in range(3):
        recorded(model)
        model.train_on_batch(np.ones((2, 4)), np.ones((2, 2)))

    assert walks == [model.name]


#: Somebody may hold what a model no longer has.
_kept: list[Any] = []


def add(model: Any) -> None:
    model.add(keras.layers.Dense(2))


def low_rank(model: Any) -> None:
    model.layers[0].enable_lora(2)


def quantize(model: Any) -> None:
    model.layers[0].quantize("int8")


def compile_anew(model: Any) -> None:
    _kept.append(model.optimizer)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)


def rename(model: Any) -> None:
    model.layers[0].name = "otherwise"


def other_optimizers(model: Any) -> None:
    _kept.extend([model.optimizer, *model.rates])
    model.compile("sgd", "mse")


def one_optimizer_more(model: Any) -> None:
    model.further = keras.optimizers.SGD(0.1)


def exchange(model: Any) -> None:
    model.one, model.other = model.other, model.one


def sub_model(model: Any) -> None:
    inner = after((3,), keras.layers.Dense(2))
    inner.compile(adam(), "mse")
    model.add(inner)


CHANGES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "a layer more": ("sequential", add),
    "a model inside": ("sequential", sub_model),
    "low rank": ("sequential", low_rank),
    "quantized": ("sequential", quantize),
    "compiled anew": ("sequential", compile_anew),
    "renamed": ("sequential", rename),
    "other optimizers": ("two optimizers", other_optimizers),
    "an optimizer more": ("two optimizers", one_optimizer_more),
    "parts exchanged": ("two optimizers", exchange),
}


@pytest.mark.parametrize(("of", "change"), CHANGES.values(), ids=CHANGES)
def test_a_model_that_changes_is_walked_through_anew(
    of: str, change: Callable[[Any], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = trained(of)
    KerasState(model, "m.weights.h5").snapshot()

    change(model)
    KerasState(model, "m.weights.h5").snapshot().write_to(tmp_path)

    model.save_weights(tmp_path / "theirs.weights.h5")
    assert tree(tmp_path / "m.weights.h5") == tree(tmp_path / "theirs.weights.h5")
    assert caplog.text == ""


def test_a_walk_goes_with_its_model() -> None:
    model = fresh("sequential")
    recorded(model)
    number, alive = id(model), weakref.ref(model)
    assert number in recording._walks

    del model
    keras.utils.clear_session()
    gc.collect()

    assert alive() is None
    assert number not in recording._walks


class Counts(keras.metrics.Mean):
    """A part without arrays that has files all the same."""

    def save_assets(self, place: str) -> None:
        (Path(place) / "counts.txt").write_text("seven")

    def load_assets(self, place: str) -> None:
        pass


class Counting(Blocks):
    """A model with such a part."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()


def test_files_are_kept_of_parts_that_have_no_arrays(tmp_path: Path) -> None:
    model = subclassed(Counting)

    KerasState(model).snapshot().write_to(tmp_path)

    model.save(tmp_path / "theirs.keras")
    theirs = {name for name in members(tmp_path / "theirs.keras") if name.startswith("assets/")}
    ours = members(tmp_path / "model.keras")
    assert theirs == {name for name in ours if name.startswith("assets/")}
    assert b"seven" in ours.values()


def test_files_are_not_asked_for_where_nobody_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = subclassed(Counting)
    recorded(model)
    monkeypatch.setattr(Counts, "save_assets", lambda *_: pytest.fail("it was asked"))

    KerasState(model, "m.weights.h5").snapshot()
    with pytest.raises(pytest.fail.Exception):
        recorded(model)


class SaysItself(keras.optimizers.SGD):
    """An optimizer with a way of its own to save."""

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["more"] = np.ones(2)


@pytest.mark.parametrize("on", ["a class", "an object"])
def test_an_optimizer_may_save_in_its_own_way(on: str, tmp_path: Path) -> None:
    model = sequential()
    model.compile(SaysItself(0.1) if on == "a class" else keras.optimizers.SGD(0.1), "mse")
    if on == "an object":
        model.optimizer.save_own_variables = lambda store: store.__setitem__("more", np.ones(2))

    KerasState(model, "m.weights.h5").snapshot().write_to(tmp_path)

    model.save_weights(tmp_path / "theirs.weights.h5")
    ours = tree(tmp_path / "m.weights.h5")
    assert ours == tree(tmp_path / "theirs.weights.h5")
    assert "optimizer/vars/more" in ours


class Pair(keras.layers.Layer):
    """Two layers under names, and two in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = keras.layers.Dense(4), keras.layers.Dense(4)
        self.both = [keras.layers.Dense(4), keras.layers.Dense(4)]

    def call(self, x: Any) -> Any:
        for layer in (self.one, self.other, *self.both):
            x = layer(x)
        return x


def exchange_names(pair: Any) -> None:
    pair.one, pair.other = pair.other, pair.one


def exchange_in_a_list(pair: Any) -> None:
    pair.both[0], pair.both[1] = pair.both[1], pair.both[0]


@pytest.mark.parametrize("exchange", [exchange_names, exchange_in_a_list])
def test_layers_that_change_places_inside_another_are_followed(
    exchange: Callable[[Any], None], tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((4,)), Pair()])
    recorded(model)

    exchange(model.layers[0])
    KerasState(model, "m.weights.h5").snapshot().write_to(tmp_path)
    model.save_weights(tmp_path / "keras.weights.h5")

    assert tree(tmp_path / "m.weights.h5") == tree(tmp_path / "keras.weights.h5")
