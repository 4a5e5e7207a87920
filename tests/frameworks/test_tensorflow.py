"""The manager beside TensorFlow's own: the same decisions, names and values; and what is ours."""

import gc
from pathlib import Path
from typing import Any

import pytest

from holdfast import CheckpointStore, KeepBest, KeepLast, open_store
from holdfast.errors import CheckpointWarning, CorruptionError, InvalidInputError, StorageError
from holdfast.testing import Fault, FaultBackend, MemoryBackend

tf = pytest.importorskip("tensorflow")

from holdfast.tensorflow import CheckpointManager  # noqa: E402 - it imports TensorFlow
from tests.frameworks.managed import Run, names, value_in, workspace_of  # noqa: E402 - it too

Peer = tf.train.CheckpointManager


@pytest.mark.parametrize(
    ("keep", "more", "numbers"),
    [
        pytest.param(3, {}, [None] * 5, id="the newest three"),
        pytest.param(1, {}, [None] * 2, id="the newest one"),
        pytest.param(None, {}, [None] * 4, id="all"),
        pytest.param(2, {}, [10, 20, 15, 3], id="the last saved, whatever their numbers"),
        pytest.param(2, {"checkpoint_name": "model"}, [7, None, None], id="numbers and counts"),
    ],
)
def test_the_same_saves_leave_the_same_checkpoints(
    tmp_path: Path, keep: Any, more: Any, numbers: Any
) -> None:
    peer, ours = (
        Run(Peer, tmp_path / "peer", keep, **more),
        Run(CheckpointManager, tmp_path / "ours", keep, **more),
    )

    saved = [
        names([run.save(value, number) for value, number in enumerate(numbers)])
        for run in (peer, ours)
    ]

    assert saved[0] == saved[1]
    assert names(ours.manager.checkpoints) == names(peer.manager.checkpoints)
    assert names([ours.manager.latest_checkpoint]) == names([peer.manager.latest_checkpoint])
    assert [value_in(each) for each in ours.manager.checkpoints] == [
        value_in(each) for each in peer.manager.checkpoints
    ]
    files = {file.path for each in ours.manager.store for file in each.files}
    assert files == {path.name for path in (tmp_path / "peer").iterdir()} - {"checkpoint"}
    assert int(ours.checkpoint.save_counter) == int(peer.checkpoint.save_counter)


@pytest.mark.parametrize("last", [None, 1])
def test_the_interval_decides_as_tensorflows_does(tmp_path: Path, last: Any) -> None:
    told = []
    for manager, place in ((Peer, "peer"), (CheckpointManager, "ours")):
        more = {"checkpoint_interval": 3, "last_checkpoint_step": last}
        run = Run(manager, tmp_path / place, None, **more)
        saved = []
        for step, check in enumerate([True, True, False, False, True, True, True, True]):
            run.step.assign(step)
            saved += [run.save(step, run.step, check_interval=check) for _ in range(2)]
        again = Run(manager, tmp_path / place, None, **more)
        again.manager.restore_or_initialize()
        saved.append(again.save(0.0, again.step, check_interval=False))  # saved at this step
        told.append([each and Path(each).name for each in saved])

    assert told[0] == told[1]
    assert {None, "ckpt-3"} <= set(told[1])


def test_what_was_saved_is_restored_with_nothing_left_over(tmp_path: Path) -> None:
    run = Run(CheckpointManager, tmp_path / "ours")
    prefix = run.save(3.0)
    run.save(4.0, metrics={"loss": 0.5})

    other = Run(CheckpointManager, tmp_path / "ours")
    restored = other.manager.restore_or_initialize()

    assert names([prefix, restored]) == ["ckpt-1", "ckpt-2"]
    assert (other.value(), int(other.checkpoint.save_counter)) == (4.0, 2)
    other.checkpoint.restore(other.manager.checkpoints[0]).assert_consumed()
    assert other.value() == 3.0
    latest = run.manager.store.latest()
    assert (latest.metrics, latest.metadata["tensorflow"]) == ({"loss": 0.5}, tf.__version__)
    other.save(5.0)
    assert other.manager.store.latest().parent == latest.id


def test_where_the_store_is_empty_it_initializes(tmp_path: Path) -> None:
    called: list[str] = []
    run = Run(CheckpointManager, tmp_path / "ours", init_fn=lambda: called.append("init"))

    assert run.manager.restore_or_initialize() is None
    assert (run.manager.latest_checkpoint, len(run.manager.checkpoints)) == (None, 0)
    run.save(1.0)
    assert run.manager.restore_or_initialize() == run.manager.latest_checkpoint
    assert called == ["init"]


def test_it_is_asked_for_as_tensorflows_is(tmp_path: Path) -> None:
    run = Run(CheckpointManager, str(tmp_path / "ours"), 2, checkpoint_interval=4)
    given = Run(CheckpointManager, open_store(tmp_path / "given", retention=KeepLast(1)), None)

    run.manager.sync()

    assert run.manager.checkpoint is run.checkpoint
    assert run.manager.directory == str(tmp_path / "ours")
    assert run.manager.checkpoint_interval == 4
    assert given.manager.directory == given.manager.store.url
    given.save(1.0)
    given.save(2.0)
    assert names(given.manager.checkpoints) == ["ckpt-2"]
    hours = Run(CheckpointManager, tmp_path / "hours", 2, keep_checkpoint_every_n_hours=6)
    assert str(hours.manager.store.retention) == "KeepLast(2) | KeepEvery(hours=6) in ckpt"


def test_a_save_that_failed_is_published_at_the_next_start(tmp_path: Path) -> None:
    backend = MemoryBackend()
    failing = FaultBackend(backend, [Fault(2, verb="upload", lasting=True)])  # its second file
    run = Run(CheckpointManager, CheckpointStore(failing, workspace=tmp_path / "work"), None)
    with pytest.raises(StorageError, match="on purpose"):
        run.save(3.0)
    assert len(run.manager.store) == 0

    other = Run(CheckpointManager, CheckpointStore(backend, workspace=tmp_path / "work"), None)

    assert other.manager.restore_or_initialize()
    assert other.value() == 3.0


def test_a_number_again_overwrites_nothing(tmp_path: Path) -> None:
    run = Run(CheckpointManager, tmp_path / "ours", None)
    for value, number in ((1.0, 500), (2.0, 500), (3.0, 100)):
        run.save(value, number)

    assert [value_in(each) for each in run.manager.checkpoints] == [1.0, 2.0, 3.0]
    assert [each.session for each in run.manager.store] == [1, 1, 2]


def test_two_names_in_one_directory_keep_to_themselves(tmp_path: Path) -> None:
    first = Run(CheckpointManager, tmp_path / "ours", 4)
    for value in range(4):
        first.save(value)
    second = Run(CheckpointManager, tmp_path / "ours", 1, checkpoint_name="other")

    with pytest.warns(CheckpointWarning, match="holds 4 checkpoints, and none called 'other'"):
        assert second.manager.restore_or_initialize() is None
    for value in (8.0, 9.0):
        second.save(value)

    assert names(first.manager.checkpoints) == [f"ckpt-{number}" for number in (1, 2, 3, 4)]
    assert names(second.manager.checkpoints) == ["other-2"]
    assert first.manager.restore_or_initialize()
    assert first.value() == 3.0


def test_every_place_is_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = f"memory://{tmp_path.name}/run"
    run = Run(CheckpointManager, place, 2, storage_options={})
    for value in (1.0, 2.0, 3.0):
        run.save(value)

    other = Run(CheckpointManager, place, 2)

    assert names([other.manager.restore_or_initialize()]) == ["ckpt-3"]
    assert other.value() == 3.0
    assert repr(other.manager.checkpoints[:1]).startswith(f"['{place}/files/0001-")
    assert len(workspace_of(other)) == 2  # one of each run: what was only printed was not brought


def test_copies_go_with_the_save_after_with_their_checkpoint_and_with_their_reader(
    tmp_path: Path,
) -> None:
    run = Run(CheckpointManager, tmp_path / "ours", 2)
    for value in range(4):
        run.save(value)
        assert len(workspace_of(run)) == 1
    kept = list(run.manager.checkpoints)
    assert len(workspace_of(run)) == 2

    for value in range(2):
        run.save(value)
    assert Path(f"{kept[0]}.index").exists()
    assert run.manager.latest_checkpoint
    assert not Path(f"{kept[0]}.index").exists()  # its checkpoint was pruned

    workspace = run.manager.store.workspace.path
    del run
    gc.collect()
    assert list(workspace.iterdir()) == []


def test_what_is_built_after_the_restore_and_a_save_takes_its_values_then(tmp_path: Path) -> None:
    Run(CheckpointManager, tmp_path / "ours").save(3.0)
    checkpoint = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64))
    CheckpointManager(checkpoint, tmp_path / "ours", 3).restore_or_initialize()
    CheckpointManager(checkpoint, tmp_path / "ours", 3).save()

    checkpoint.weight = tf.Variable([0.0, 0.0])

    assert float(checkpoint.weight[0]) == 3.0


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"weight": [0.0]}, r"not alike: weight float32\(2,\) there, float32\(1,\) here"),
        ({"weight": [0, 0]}, r"not alike: weight float32\(2,\) there, int32\(2,\) here"),
        ({"weight": [0.0, 0.0], "bias": [0.0]}, "only here: bias"),
        ({"net": [0.0, 0.0]}, "only here: net; only in the checkpoint: step, weight, save_counter"),
    ],
)
def test_what_does_not_match_is_named_before_anything_is_assigned(
    tmp_path: Path, parts: dict[str, Any], told: str
) -> None:
    Run(CheckpointManager, tmp_path / "ours").save(3.0)
    checkpoint = tf.train.Checkpoint(**{name: tf.Variable(value) for name, value in parts.items()})
    manager = CheckpointManager(checkpoint, tmp_path / "ours", 3)

    with pytest.raises(InvalidInputError, match=told):
        manager.restore_or_initialize()

    assert {name: getattr(checkpoint, name).numpy().tolist() for name in parts} == parts
    if "weight" not in told:  # TensorFlow's own way takes over what there is
        checkpoint.restore(manager.latest_checkpoint)
        assert checkpoint.weight.numpy().tolist() == [3.0, 3.0]


def test_a_place_in_the_data_without_a_match_is_named_too(tmp_path: Path) -> None:
    Run(CheckpointManager, tmp_path / "ours").save(3.0)
    batches = iter(tf.data.Dataset.range(3))
    checkpoint = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64), batches=batches)

    with pytest.raises(InvalidInputError, match="only here: batches"):
        CheckpointManager(checkpoint, tmp_path / "ours", 3).restore_or_initialize()


def test_work_behind_the_call_is_waited_for(tmp_path: Path) -> None:
    run = Run(CheckpointManager, tmp_path / "ours")

    prefix = run.save(
        3.0, options=tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True)
    )

    assert value_in(prefix) == 3.0
    assert run.manager.store.verify(deep=True).ok


def test_a_metric_decides_what_a_store_keeps(tmp_path: Path) -> None:
    store = open_store(tmp_path / "ours", retention=KeepBest("loss"))
    run = Run(CheckpointManager, store, None)
    for loss in (0.5, 0.2, 0.9, 0.4):
        run.save(loss, metrics={"loss": loss})

    assert names(run.manager.checkpoints) == ["ckpt-2", "ckpt-4"]


def test_all_damaged_is_told(tmp_path: Path) -> None:
    run = Run(CheckpointManager, tmp_path / "ours")
    run.save(1.0)
    run.save(2.0)
    for path in (tmp_path / "ours" / "files").rglob("*.data*"):
        path.write_bytes(path.read_bytes()[:-1])
    other = Run(CheckpointManager, tmp_path / "ours")

    for look in (other.manager.restore_or_initialize, lambda: other.manager.latest_checkpoint):
        with (
            pytest.warns(CheckpointWarning, match="Passing over it"),
            pytest.raises(CorruptionError, match="none of the 2"),
        ):
            look()

    assert other.value() == 0.0
