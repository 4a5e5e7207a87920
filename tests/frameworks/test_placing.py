"""Arrays that are put straight into a model give what Keras's own loading gives."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from holdfast.errors import FormatError
from holdfast.keras import KerasState, placing, recording
from holdfast.keras.training_state import PATH
from tests import share
from tests.frameworks.kinds import KINDS, MORE, adam, after, fresh, trained
from tests.frameworks.runs import X, Y, new_model, same, values

#: Whose loading does more than to assign what was saved.
ODD = {"low rank", "normalized", "of texts", "of its own arrays"}
_FIRST, _EACH = share.turn(3, 3)
SUFFIXES = (".keras", ".weights.h5")


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the arrays were put into the model, at each restore."""
    outcomes: list[bool] = []
    load = placing.load

    def told(*given: Any) -> bool:
        outcomes.append(load(*given))
        return outcomes[-1]

    monkeypatch.setattr(placing, "load", told)
    return outcomes


def keep(model: Any, directory: Path, file: str = "m.weights.h5") -> Path:
    directory.mkdir(exist_ok=True)
    KerasState(model, file).snapshot().write_to(directory)
    return directory


def restored_by_keras(kept: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(placing, "load", lambda *_: False)
        KerasState(model).restore(kept)
    return model


@pytest.mark.parametrize("kind", [*KINDS, *MORE][_FIRST - 1 :: _EACH])
def test_what_is_placed_is_what_keras_loads(
    kind: str, tmp_path: Path, placed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(kind)
    file = f"m{SUFFIXES[share.SEED % 2]}"
    kept = keep(model, tmp_path / "kept", file)
    one, other = fresh(kind), fresh(kind)

    KerasState(one).restore(kept)

    restored_by_keras(kept, other, monkeypatch)
    assert same(values(one), values(other))
    assert same(values(one), values(model))
    assert placed == [kind not in ODD]


# Whatever else a part of the model does when it is loaded.


class Derives(keras.layers.Layer):
    """Says when it is loaded."""

    has_weight = True
    is_loaded = False

    def build(self, shape: Any) -> None:
        if self.has_weight:
            self.add_weight(shape=())

    def call(self, x: Any) -> Any:
        return x

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self.is_loaded = True


def own() -> Any:
    return after((4,), keras.layers.Dense(2), Derives())


def own_without_a_weight() -> Any:
    layer = Derives()
    layer.has_weight = False
    return after((4,), keras.layers.Dense(2), layer)


def own_on_one_object() -> Any:
    model = after((4,), keras.layers.Dense(2), keras.layers.Dense(2))
    layer = model.layers[-1]
    load = layer.load_own_variables

    def also(store: Any) -> None:
        load(store)
        layer.is_loaded = True

    layer.load_own_variables = also
    return model


@pytest.mark.parametrize("make", [own, own_without_a_weight, own_on_one_object])
def test_a_layer_that_loads_in_its_own_way_does_so(
    make: Callable[[], Any], tmp_path: Path, placed: list[bool]
) -> None:
    model, other = make(), make()
    for each in (model, other):
        each.compile(adam(), "mse")
    kept = keep(model, tmp_path)

    KerasState(other).restore(kept)

    assert other.layers[-1].is_loaded
    assert placed == [False]


def test_a_layer_is_left_to_keras_that_notes_how_it_was_quantized() -> None:
    one, other = (
        after((4,), keras.layers.Dense(4, dtype=f"{kind}_from_float32"))
        for kind in ("gptq/4/2", "int8")
    )

    assert recording.variables(one) is None
    assert recording.variables(other)


class Loads(keras.Model):
    """Says when it is loaded."""

    is_loaded = False

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.build((None, 4))

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        super().build(shape)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def load_weights(self, *given: Any, **more: Any) -> None:
        super().load_weights(*given, **more)
        self.is_loaded = True


def test_a_model_that_loads_in_its_own_way_does_so(tmp_path: Path) -> None:
    model = Loads()
    kept = keep(model, tmp_path)

    KerasState(model).restore(kept)

    assert model.is_loaded


# Places that are not those of the file.


def overlapping(rows: list[Any]) -> None:
    rows[1][3] = rows[0][3] + 1


def beyond(rows: list[Any]) -> None:
    rows[-1][3] = 2**40


def twice(rows: list[Any]) -> None:
    rows[1] = list(rows[0])


def of_another_type(rows: list[Any]) -> None:
    rows[0][1] = "int32"


def of_no_type(rows: list[Any]) -> None:
    rows[0][1] = "object"


def enormous(rows: list[Any]) -> None:
    rows[0][2] = [2**40, 2**10]


def negative(rows: list[Any]) -> None:
    rows[0][3] = -8


def unknown(rows: list[Any]) -> None:
    rows[0][0] = "elsewhere"


def fewer(rows: list[Any]) -> None:
    del rows[0]


@pytest.mark.parametrize("make", [overlapping, beyond, negative])
def test_places_that_cannot_be_are_refused(
    make: Callable[[list[Any]], None], tmp_path: Path, model: Any
) -> None:
    kept = keep(model, tmp_path)
    state = json.loads((kept / PATH).read_text())
    make(state["placed"])
    (kept / PATH).write_text(json.dumps(state))
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 3))
    before = values(model)

    with pytest.raises(FormatError, match="is unchanged"):
        KerasState(model).restore(kept)

    assert same(values(model), before)


@pytest.mark.parametrize("make", [twice, of_another_type, of_no_type, enormous, unknown, fewer])
def test_places_that_are_not_those_of_the_model_are_left_aside(
    make: Callable[[list[Any]], None], tmp_path: Path, model: Any, placed: list[bool]
) -> None:
    kept, before = keep(model, tmp_path), values(model)
    state = json.loads((kept / PATH).read_text())
    make(state["placed"])
    (kept / PATH).write_text(json.dumps(state))
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 3))

    KerasState(model).restore(kept)

    assert placed == [False]
    assert same(values(model), before)


def test_a_file_that_was_cut_is_refused_before_anything_changes(tmp_path: Path, model: Any) -> None:
    kept, before = keep(model, tmp_path), values(model)
    (kept / "m.weights.h5").write_bytes((kept / "m.weights.h5").read_bytes()[:-100])

    with pytest.raises(FormatError, match="is unchanged"):
        KerasState(model).restore(kept)

    assert same(values(model), before)


# The memory that was handed over.


@pytest.mark.parametrize("jit_compile", [share.SEED % 2 == 0])
def test_a_training_goes_on_as_after_keras_has_loaded(
    jit_compile: bool, tmp_path: Path, placed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_model()
    first.optimizer.build(first.trainable_variables)
    kept = keep(first, tmp_path)
    reached = []

    model = new_model()
    model.jit_compile = jit_compile
    for by_keras in (False, True, False):
        if by_keras:
            restored_by_keras(kept, model, monkeypatch)
        else:
            KerasState(model).restore(kept)
        snapshot = KerasState(model, "m.weights.h5").snapshot()
        gc.collect()
        for step in range(3):
            model.train_on_batch(X[step::3], Y[step::3])
        model.reset_metrics()
        reached.append(values(model))
        (tmp_path / str(len(reached))).mkdir()
        snapshot.write_to(tmp_path / str(len(reached)))

    assert placed == [True, True]
    assert same(reached[0], reached[1])
    assert same(reached[0], reached[2])
    assert not same(reached[0], values(first))
    files = [(tmp_path / name / "m.weights.h5").read_bytes() for name in ("1", "2", "3")]
    assert len(set(files)) == 1
