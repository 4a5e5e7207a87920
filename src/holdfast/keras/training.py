"""The training part of a checkpoint: what a run needs to go on, and no format of Keras keeps."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from holdfast.errors import CheckpointWarning, FormatError, InvalidInputError
from holdfast.hashing import HashedFile
from holdfast.keras import formats, packing, placing, randomness, variables
from holdfast.keras.hdf5 import Placed
from holdfast.keras.progress import Position
from holdfast.keras.run import Run
from holdfast.keras.training_state import PATH, TrainingState, decode, encode
from holdfast.keras.values import Held
from holdfast.keras.variables import Described, describe, difference
from holdfast.state import Contents

DIRECTORY = "training"
#: The weights, where the format of the model's file does not bring them back.
WEIGHTS = f"{DIRECTORY}/model.weights.h5"
#: The optimizer, where the format does not bring it back.
OPTIMIZER = "optimizer.npz"
#: The weights that Keras writes otherwise than they are, such as those of LoRA.
_ALTERED = "weights.npz"
#: The arrays that the state speaks of.
_ARRAYS = "arrays.npz"
#: Bytes that the state may have: 100,000 variables take about 20 MiB.
_MAX_BYTES = 128 * 1024 * 1024

_BUILD = (
    "To build it, begin it with keras.Input(shape), call model.build(input_shape), or call it once "
    "on a batch."
)


@dataclass(frozen=True)
class Part:
    """
    The training part of a checkpoint, taken at one moment.

    Attributes:
        state (TrainingState): what changes while the model trains, without the arrays.
        variables (tuple[Sequence[keras.Variable], Sequence[keras.Variable]]): the model's weights
            and its optimizer's variables, of which only the descriptions count.
        arrays (tuple[numpy.ndarray, ...]): those that the state speaks of.
        altered (Held): the weights that Keras writes otherwise than they are.
        optimizer (Held | None): the optimizer's variables, where the format of the model's file
            does not bring them back.
    """

    state: TrainingState
    variables: tuple[Sequence[Any], Sequence[Any]]
    arrays: tuple[packing.Array, ...]
    altered: Held
    optimizer: Held | None

    @classmethod
    def of(cls, model: Any, file: str, position: Position, run: Run | None) -> Self:
        """
        Take it.

        Parameters:
            model (keras.Model): built.
            file (str): the model's file in the checkpoint.
            position (Position): where the training stands.
            run (Run | None): what belongs to the `fit` that is under way, if one is.

        Raises:
            InvalidInputError: a callback has to remember what has no plain form.
        """
        rest = {"random": randomness.capture(), "run": None if run is None else run.plain()}
        packed = packing.pack(rest, "the training")
        state, kind = TrainingState.of(model, file, position, packed), formats.format_of(file)
        weights = model.weights
        optimizer = () if state.optimizer is None else model.optimizer.variables
        is_left_out = kind.keeps_weights and not kind.keeps_optimizer
        return cls(
            state=state,
            variables=(weights, optimizer),
            arrays=packed.arrays,
            altered=Held([weights[number] for number in state.altered]),
            optimizer=Held(optimizer) if is_left_out and optimizer else None,
        )

    def detach(self, *, beside: bool) -> None:
        """Copy what it is written from, as `values.Held.detach`."""
        self.altered.detach(beside=beside)
        if self.optimizer is not None:
            self.optimizer.detach(beside=beside)

    def write_to(self, directory: Path, placed: Sequence[Placed]) -> dict[str, str]:
        """
        Write it.

        Parameters:
            directory (Path): the checkpoint's.
            placed (Sequence[Placed]): where the arrays lie in the model's file.

        Returns:
            dict[str, str]: by path, the hashes that are known.

        Raises:
            OSError: the disk failed.
        """
        part = directory / DIRECTORY
        part.mkdir(exist_ok=True)
        with HashedFile(directory / PATH) as file:
            file.write(encode(self.state.described(*self.variables, placed)))
        variables.write_arrays(part / _ARRAYS, self.arrays)
        if altered := self.altered.arrays:
            variables.write_arrays(part / _ALTERED, altered)
        if self.optimizer is not None:
            variables.write_arrays(part / OPTIMIZER, self.optimizer.arrays)
        return {PATH: file.hash}


def read(contents: Contents) -> TrainingState:
    """
    Read what the training part of a checkpoint says.

    Raises:
        InvalidInputError: the checkpoint has no training part.
        FormatError: it cannot be read, or is of a newer format.
    """
    try:
        return decode(contents.read(PATH, at_most=_MAX_BYTES))
    except FileNotFoundError as error:
        held = ", ".join(contents.paths()) or "nothing"
        raise InvalidInputError(
            f"the checkpoint holds no {PATH}, so no Keras state of ours was "
            f"saved in it; it holds {held}. The model is unchanged. Take another checkpoint, "
            "or store.download() it and load its files with Keras."
        ) from error


def load(state: TrainingState, model: Any, contents: Contents) -> Run | None:
    """
    Bring a model, and the random states of the process, to what a checkpoint holds.

    The optimizer is built first. Names, types and shapes are compared, and everything of ours is
    read, before the first value is assigned.

    Returns:
        Run | None: what was kept of a `fit` that was under way.

    Raises:
        InvalidInputError: the model is not built or not compiled, or a variable has no match; the
            model's values are unchanged.
        FormatError: a file of the checkpoint cannot be loaded.
    """
    check_built(model)
    _check(state, "weights", state.weights, describe(model.weights), model)
    optimizer = _built_optimizer(state, model)
    seeds = variables.seed_states(model)
    _check(state, "seed generators", [each for each, _ in state.seeds], describe(seeds), model)
    kind = formats.format_of(state.file)
    beside: list[tuple[Any, packing.Array]] = []
    if optimizer is not None and state.optimizer is not None:
        _check(state, "optimizer", state.optimizer, describe(optimizer.variables), model)
        if kind.keeps_weights and not kind.keeps_optimizer:
            arrays = read_arrays(contents, OPTIMIZER, state.optimizer)
            beside += zip(optimizer.variables, arrays, strict=True)
    if state.altered:
        weights = [model.weights[number] for number in state.altered]
        arrays = read_arrays(contents, _ALTERED, [state.weights[each] for each in state.altered])
        beside += zip(weights, arrays, strict=True)
    beside += (
        (variable, np.array(numbers).astype(variable.dtype).reshape(variable.shape))
        for variable, (_, numbers) in zip(seeds, state.seeds, strict=True)
    )
    random, run = _rest(state, contents)
    _read(state, model, contents)
    for variable, array in beside:
        variable.assign(array)
    reached = None if optimizer is None else int(optimizer.iterations.numpy())
    if reached != state.iterations:
        raise FormatError(
            f"{state.file} brought the optimizer to step {reached:,}, and "
            f"{PATH} says {state.iterations:,}. The checkpoint is untouched; the "
            "model has changed, so build it again before you use it."
        )
    if random is not None:
        _put_back_random(random)
    if state.backend != keras.backend.backend():
        warnings.warn(_moved(state), CheckpointWarning, stacklevel=3)
    return run


def _put_back_random(states: Mapping[str, Any]) -> None:
    """
    Bring the process to random states that were kept.

    Raises:
        FormatError: they are not what this version keeps.
    """
    try:
        randomness.put_back(states)
    except (TypeError, ValueError, LookupError) as error:
        raise FormatError(
            f"the random states in {DIRECTORY}/ are not valid: {error!r}. The checkpoint is "
            "untouched; the model has its values. Restore another checkpoint to resume exactly."
        ) from error


def read_arrays(
    contents: Contents, name: str, expected: Sequence[Described]
) -> list[packing.Array]:
    """
    Read arrays that lie in the training part.

    Raises:
        FormatError: they are missing, or not as the descriptions say.
    """
    path = f"{DIRECTORY}/{name}"
    try:
        data = contents.read(path, at_most=variables.most_bytes(expected))
        return list(variables.read_arrays(io.BytesIO(data), name, expected))
    except FileNotFoundError as error:
        raise FormatError(
            f"the checkpoint holds no {path}. The model is unchanged. Restore another checkpoint."
        ) from error


def _rest(state: TrainingState, contents: Contents) -> tuple[Mapping[str, Any] | None, Run | None]:
    """The random states and the run that were kept beside the model."""
    if state.rest is None:
        return None, None
    arrays = read_arrays(contents, _ARRAYS, state.arrays)
    try:
        rest = packing.unpack(state.rest, arrays)
        return rest["random"], None if rest["run"] is None else Run.of(rest["run"])
    except (TypeError, ValueError, LookupError) as error:
        raise FormatError(
            f"{PATH} is not valid: {error!r}. The model is unchanged. Restore another checkpoint."
        ) from error


def check_built(model: Any) -> None:
    """
    Refuse what a run cannot be resumed into.

    Raises:
        InvalidInputError: it is no Keras model, or it is not built.
    """
    if not isinstance(model, keras.Model):
        raise InvalidInputError(f"a Keras model is restored into, not {model!r}.")
    if not model.built:
        raise InvalidInputError(
            f"the model {model.name!r} is not built yet, so it has no variables to restore into; "
            f"it is unchanged. {_BUILD}"
        )


def _built_optimizer(state: TrainingState, model: Any) -> Any:
    optimizer = getattr(model, "optimizer", None)
    if state.optimizer is None and optimizer is not None:
        raise InvalidInputError(
            "the checkpoint holds no optimizer, since its model was not compiled; the one in "
            f"{model.name!r} would go on from where it stands. The model is unchanged. Restore "
            "before model.compile(...)."
        )
    if state.optimizer is not None and optimizer is None:
        raise InvalidInputError(
            f"the checkpoint holds the {state.optimizer_class} optimizer after "
            f"{state.iterations:,} steps, and the model {model.name!r} has none to restore it "
            "into; it is unchanged. Call model.compile(...) first, as in the run that is resumed. "
            "For inference alone, store.download() the checkpoint and load its file with Keras."
        )
    if state.optimizer_class != (None if optimizer is None else type(optimizer).__name__):
        raise InvalidInputError(
            f"the checkpoint holds the {state.optimizer_class} optimizer, and the model "
            f"{model.name!r} is compiled with {type(optimizer).__name__}; it is unchanged. Compile "
            "it as in the run that is resumed."
        )
    # Its variables exist only once it is built, and what does not exist is not loaded.
    if optimizer is not None and not optimizer.built and _is_built(state):
        optimizer.build(model.trainable_variables)
    return optimizer


def _is_built(state: TrainingState) -> bool:
    """Whether the kept optimizer had more than its step and its learning rate."""
    return state.optimizer is not None and any(each.shape for each in state.optimizer)


def _check(
    state: TrainingState,
    what: str,
    kept: Sequence[Described],
    live: Sequence[Described],
    model: Any,
) -> None:
    told = difference(kept, live)
    if told is not None and state.backend != keras.backend.backend():
        # Counts and seeds are integers of another size on each backend.
        told = difference([_sizeless(each) for each in kept], [_sizeless(each) for each in live])
    if told is None:
        return
    unbuilt = [layer.name for layer in model.layers if not layer.built]
    hint = f" Not built yet: {', '.join(unbuilt)}. {_BUILD}" if unbuilt else ""
    raise InvalidInputError(
        f"the {what} in the checkpoint and in the model {model.name!r} differ: {told}. The model's "
        f"values are unchanged. Build and compile it as in the run that is resumed.{hint}"
        f"{_elsewhere(state)}"
    )


def _sizeless(each: Described) -> Described:
    is_integer = each.dtype.removeprefix("u").startswith("int")
    return replace(each, dtype="integer") if is_integer else each


def _moved(state: TrainingState) -> str:
    there, here = state.backend, keras.backend.backend()
    return (
        f"the checkpoint was written by Keras {state.keras} on {there}, and this is {here}. The "
        "weights, the optimizer and the place in the run are those that were saved. What is drawn "
        f"at random and how sums are rounded is not as on {there}, so it will not end with the "
        f"same bytes as a run that stayed there. To resume exactly, set KERAS_BACKEND={there}."
    )


def _read(state: TrainingState, model: Any, contents: Contents) -> None:
    """Bring the model's file into the model, and the optimizer where the file holds it."""
    keeps_weights = formats.format_of(state.file).keeps_weights
    try:
        if not placing.load(model, state.file, state.placed, contents):
            formats.read(model, contents.directory() / (state.file if keeps_weights else WEIGHTS))
    except FormatError as error:
        raise FormatError(f"{error}{_elsewhere(state)}") from error


def _elsewhere(state: TrainingState) -> str:
    """What wrote the checkpoint, where that is not what reads it."""
    there = f"Keras {state.keras} on {state.backend}"
    here = f"Keras {keras.__version__} on {keras.backend.backend()}"
    if there == here:
        return ""
    return (
        f" It was written by {there}, and this is {here}: resume it there, or store.download() it "
        "and load its weights with model.load_weights."
    )
