"""A `tf.train.Checkpoint` is a state like any other, and is restored whole or not at all."""

from pathlib import Path
from typing import Any

import pytest

from holdfast import Saver, open_store
from holdfast.errors import FormatError, InvalidInputError
from holdfast.testing import StateContract

tf = pytest.importorskip("tensorflow")

from holdfast.tensorflow import CheckpointState  # noqa: E402 - it imports TensorFlow


def objects() -> Any:
    """Variables, a random generator and a place in a data set."""
    numbers = tf.data.Dataset.range(100).shuffle(10, seed=3).batch(2)
    return tf.train.Checkpoint(
        weight=tf.Variable([0.5, 0.25]),
        step=tf.Variable(0, dtype=tf.int64),
        generator=tf.random.Generator.from_seed(1),
        batches=iter(numbers),
    )


class TestCheckpointState(StateContract):
    def make(self) -> CheckpointState:
        return CheckpointState(objects())

    def part(self, state: Any, name: str) -> Any:
        return getattr(state.checkpoint, name)

    def train(self, state: Any) -> None:
        noise = self.part(state, "generator").normal([2])
        batch = tf.cast(next(self.part(state, "batches")), tf.float32)
        self.part(state, "weight").assign_add(batch * noise)
        self.part(state, "step").assign_add(1)

    def look(self, state: Any) -> object:
        values = [self.part(state, name) for name in ("weight", "step")]
        values.append(self.part(state, "generator").state)
        return [value.numpy().tobytes() for value in values]


class TestCheckpointStateOfARoot(TestCheckpointState):
    """Some of it in an object that is given without a name; staged in a workspace."""

    @pytest.fixture(autouse=True)
    def workspace(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._workspace = open_store(tmp_path_factory.mktemp("store")).workspace

    def make(self) -> CheckpointState:
        parts, root = objects(), tf.Module()
        root.weight, root.batches = parts.weight, parts.batches
        checkpoint = tf.train.Checkpoint(root, step=parts.step, generator=parts.generator)
        return CheckpointState(checkpoint, "model", workspace=self._workspace)

    def part(self, state: Any, name: str) -> Any:
        is_below = name in ("weight", "batches")
        return getattr(state.checkpoint.root if is_below else state.checkpoint, name)


def test_a_saver_keeps_it_behind_the_training(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    state = CheckpointState(objects(), workspace=store.workspace)
    state.checkpoint.save_counter.assign(7)

    with Saver(store) as saver:
        for step in (1, 2):
            state.checkpoint.step.assign(step)
            saver.save(state, step=step)
    state.checkpoint.step.assign(9)
    other = CheckpointState(objects())
    store.restore(other)

    assert (int(other.checkpoint.step), int(other.checkpoint.save_counter)) == (2, 7)
    assert [file.path for file in store.latest().files] == [
        "ckpt.data-00000-of-00001",
        "ckpt.index",
    ]
    assert list(store.workspace.path.iterdir()) == []


def test_the_slots_of_an_optimizer_of_tensorflow_1_are_kept(tmp_path: Path) -> None:
    def make() -> tuple[Any, CheckpointState]:
        weight, optimizer = tf.Variable([1.0, 2.0]), tf.compat.v1.train.AdamOptimizer(0.1)
        optimizer.apply_gradients([(tf.constant([0.5, 0.5]), weight)])
        return weight, CheckpointState(tf.train.Checkpoint(weight=weight, optimizer=optimizer))

    weight, state = make()
    store = open_store(tmp_path / "store")
    store.save(state, step=1)
    other, other_state = make()
    store.restore(other_state)

    for each, one in ((weight, state), (other, other_state)):
        one.checkpoint.optimizer.apply_gradients([(tf.constant([0.1, 0.9]), each)])
    assert weight.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"weight": [0.0]}, r"not alike: weight float32\(2,\) there, float32\(1,\) here"),
        ({"weight": [0, 0]}, r"not alike: weight float32\(2,\) there, int32\(2,\) here"),
        ({"weight": [0.0, 0.0], "bias": [0.0]}, "only here: bias"),
        ({}, "only in the checkpoint: .*weight"),
    ],
)
def test_what_does_not_match_is_named_before_anything_is_assigned(
    tmp_path: Path, parts: dict[str, Any], told: str
) -> None:
    weight = tf.Variable([3.0, 3.0])
    store = open_store(tmp_path / "store")
    store.save(CheckpointState(tf.train.Checkpoint(weight=weight)), step=1)
    checkpoint = tf.train.Checkpoint(**{name: tf.Variable(value) for name, value in parts.items()})

    with pytest.raises(InvalidInputError, match=told):
        store.restore(CheckpointState(checkpoint))

    assert {name: getattr(checkpoint, name).numpy().tolist() for name in parts} == parts


def test_many_that_do_not_match_are_counted(tmp_path: Path) -> None:
    weights = {f"weight{number:02}": tf.Variable(0.0) for number in range(12)}
    store = open_store(tmp_path / "store")
    store.save(CheckpointState(tf.train.Checkpoint(**weights)), step=1)

    with pytest.raises(
        InvalidInputError, match=r"checkpoint: weight00, .*weight07 and 4 more\. No"
    ):
        store.restore(CheckpointState(tf.train.Checkpoint()))


def test_what_it_cannot_read_is_told(tmp_path: Path) -> None:
    weight = tf.Variable([1.0])
    store = open_store(tmp_path / "store")
    with store.stage(step=1) as draft:
        tf.compat.v1.train.Saver([weight]).save(
            None, str(draft.directory / "model.ckpt"), global_step=1, write_state=False
        )

    with pytest.raises(
        InvalidInputError, match=r"no ckpt.index, only model.ckpt-1.data.*name that"
    ):
        store.restore(CheckpointState(tf.train.Checkpoint(weight=weight)))
    with pytest.raises(FormatError, match=r"a tf.compat.v1.train.Saver has written"):
        store.restore(CheckpointState(tf.train.Checkpoint(weight=weight), "model.ckpt-1"))


def test_a_wrong_argument_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Wrap the objects in one"):
        CheckpointState(tf.Variable(1.0))
    with pytest.raises(InvalidInputError, match=r"the name 'a/b'"):
        CheckpointState(tf.train.Checkpoint(), "a/b")
    with tf.Graph().as_default(), pytest.raises(InvalidInputError, match="builds a graph here"):
        CheckpointState(tf.train.Checkpoint()).snapshot()
