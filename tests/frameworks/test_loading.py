"""A whole model from a store, and files that try to have more than their own bytes read."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from holdfast import CheckpointStore, open_store
from holdfast.errors import CheckpointWarning, FormatError, InvalidInputError, NotFoundError
from holdfast.keras import KerasState, formats
from holdfast.keras.loading import load_model
from tests.frameworks.kinds import Blocks, fresh, trained
from tests.frameworks.runs import same, values

X = np.ones((2, 4), np.float32)


@pytest.fixture(scope="module")
def blocks() -> Any:
    """A model of a class of ours."""
    return trained("subclassed")


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_a_whole_model_is_loaded_with_its_optimizer_and_trains_on(
    file: str, store: CheckpointStore, tmp_path: Path
) -> None:
    model = trained("sequential")
    store.save(KerasState(model, file), step=1)

    loaded = load_model(tmp_path / "store")

    assert np.array_equal(loaded(X), model(X))
    one, other = ([each.numpy() for each in m.optimizer.variables] for m in (loaded, model))
    assert same(one, other)
    loaded.run_eagerly = True
    loaded.train_on_batch(X, np.ones((2, 3)))
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) + 1
    assert list(store.workspace.path.iterdir()) == []


def test_a_file_that_somebody_else_saved_begins_with_a_fresh_optimizer(
    store: CheckpointStore,
) -> None:
    model = trained("sequential")
    with store.stage(step=1) as draft:
        model.save(draft.directory / "m.h5")

    with pytest.warns(CheckpointWarning, match="its optimizer begins anew"):
        loaded = load_model(store)

    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert np.array_equal(loaded(X), model(X))


def test_the_checkpoint_may_be_named_and_the_newest_good_one_is_taken(
    store: CheckpointStore, blocks: Any
) -> None:
    first = store.save(KerasState(blocks), step=1)
    second = store.save(KerasState(blocks), step=2)
    (Path(store.url.removeprefix("file://")) / f"files/{second.id}/model.keras").write_bytes(b"")

    with pytest.warns(CheckpointWarning, match="Passing over it"):
        loaded = load_model(store, custom_objects={"Blocks": Blocks})

    assert np.array_equal(loaded(X), blocks(X))
    load_model(store, first, custom_objects={"Blocks": Blocks}, compile=False)


def test_an_empty_store_has_no_model(store: CheckpointStore) -> None:
    with pytest.raises(NotFoundError):
        load_model(store)


@pytest.mark.parametrize("file", ["m.weights.h5", "m.weights.json", "m"])
def test_what_holds_no_whole_model_is_told(file: str, store: CheckpointStore, blocks: Any) -> None:
    store.save(KerasState(blocks, file), step=1)

    with pytest.raises(InvalidInputError, match=rf"no whole model.*only {file}.*KerasState\(model"):
        load_model(store)


def test_two_models_in_one_checkpoint_are_told(store: CheckpointStore, blocks: Any) -> None:
    with store.stage(step=1) as draft:
        for name in ("one.keras", "other.h5"):
            formats.write(blocks, draft.directory / name)

    with pytest.raises(InvalidInputError, match=r"2 models: one\.keras, other\.h5"):
        load_model(store)


def test_a_class_that_is_not_known_is_told(store: CheckpointStore, blocks: Any) -> None:
    store.save(KerasState(blocks), step=1)

    with pytest.raises(FormatError, match=r"Blocks.*The checkpoint is untouched.*custom_objects"):
        load_model(store)


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_code_in_the_file_runs_only_if_asked_to(file: str, store: CheckpointStore) -> None:
    layer = keras.layers.Lambda(lambda x: x * 2)
    store.save(KerasState(keras.Sequential([keras.Input((4,)), layer]), file), step=1)

    with pytest.raises(FormatError, match=r"Lambda"):
        load_model(store)

    assert np.array_equal(load_model(store, safe_mode=False)(X), 2 * X)


def test_an_architecture_with_code_is_not_run(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    (tmp_path / "m.json").write_text(formats.architecture(model))

    with pytest.raises(ValueError, match="Lambda"):
        keras.models.model_from_json((tmp_path / "m.json").read_text())


# Files that lead elsewhere. Keras refuses them; this watches that it goes on to.

SECRET = 4711.0


def external_link(file: h5py.File, name: str, like: h5py.Dataset, secret: Path) -> None:
    with h5py.File(secret, "w") as other:
        other["it"] = np.full(like.shape, SECRET, like.dtype)
    file[name] = h5py.ExternalLink(str(secret), "it")


def soft_link(file: h5py.File, name: str, like: h5py.Dataset, secret: Path) -> None:
    file["elsewhere"] = np.full(like.shape, SECRET, like.dtype)
    file[name] = h5py.SoftLink("/elsewhere")


def external_storage(file: h5py.File, name: str, like: h5py.Dataset, secret: Path) -> None:
    secret.write_bytes(np.full(like.shape, SECRET, like.dtype).tobytes())
    whole = (str(secret), 0, h5py.h5f.UNLIMITED)
    file.create_dataset(name, like.shape, like.dtype, external=[whole])


def virtual_dataset(file: h5py.File, name: str, like: h5py.Dataset, secret: Path) -> None:
    with h5py.File(secret, "w") as other:
        other["it"] = np.full(like.shape, SECRET, like.dtype)
    layout = h5py.VirtualLayout(like.shape, like.dtype)
    layout[...] = h5py.VirtualSource(str(secret), "it", shape=like.shape)
    file.create_virtual_dataset(name, layout)


def bomb(file: h5py.File, name: str, like: h5py.Dataset, secret: Path) -> None:
    file.create_dataset(name, (2**20, 2**20), like.dtype, chunks=True, compression="gzip")


class Shape:
    """What a dataset looked like that is no longer there."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.shape, self.dtype = dataset.shape, dataset.dtype


def twist(path: Path, trick: Callable[..., None], secret: Path) -> None:
    """Put something else in the place of the first dataset of weights."""
    with h5py.File(path, "a") as file:
        found: list[str] = []
        file.visititems(
            lambda name, each: found.append(name) if isinstance(each, h5py.Dataset) else None
        )
        name = next(each for each in found if "optimizer" not in each and len(file[each].shape))
        like = Shape(file[name])
        del file[name]
        trick(file, name, like, secret)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each format."""
    directory = tmp_path_factory.mktemp("good")
    model = trained("sequential")
    for name in ("m.keras", "m.weights.h5", "m.weights.json", "m.h5"):
        formats.write(model, directory / name)
    return directory


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.weights.json", "m.h5"])
@pytest.mark.parametrize(
    "trick", [external_link, soft_link, external_storage, virtual_dataset, bomb]
)
def test_a_file_that_leads_elsewhere_is_refused(
    trick: Callable[..., None], name: str, good: Path, tmp_path: Path
) -> None:
    here = shutil.copytree(good, tmp_path / "here")
    if name == "m.keras":
        with zipfile.ZipFile(here / name) as archive:
            archive.extractall(here / "open")
        twist(here / "open" / "model.weights.h5", trick, tmp_path / "secret")
        with zipfile.ZipFile(here / name, "w") as archive:
            for path in (here / "open").iterdir():
                archive.write(path, path.name)
    else:
        file = "m_00000.weights.h5" if name == "m.weights.json" else name
        twist(here / file, trick, tmp_path / "secret")
    model = fresh("sequential")
    model.optimizer.build(model.trainable_variables)

    with pytest.raises(FormatError, match=r"Not allowed: H5"):
        formats.read(model, here / name)

    assert not any((value == SECRET).any() for value in values(model))
    if name in ("m.keras", "m.h5"):
        with pytest.raises(FormatError, match=r"Not allowed: H5"):
            formats.read_whole(here / name, None, compile=True, safe_mode=True)
