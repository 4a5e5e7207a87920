"""Where TensorFlow's manager and Saver fail and ours do not; a row whose peer is mended goes."""

from pathlib import Path
from typing import Any

import pytest

from holdfast import KeepLast, open_store
from holdfast.errors import CheckpointWarning

tf = pytest.importorskip("tensorflow")

from holdfast.tensorflow import CheckpointManager  # noqa: E402 - it imports TensorFlow

Peer = tf.train.CheckpointManager


def new(manager: Any, place: Path, keep: Any = None, **more: Any) -> tuple[Any, Any]:
    """A manager as a new process has it, and the variable that it saves."""
    weight = tf.Variable([0.0, 0.0])
    return manager(tf.train.Checkpoint(weight=weight), place, keep, **more), weight


def trained(manager: Any, place: Path, saves: int = 2) -> None:
    saved, weight = new(manager, place)
    for number in range(1, saves + 1):
        weight.assign([number, number])
        saved.save()


def resumed(manager: Any, place: Path) -> float:
    """The value that a new process goes on with."""
    again, weight = new(manager, place)
    again.restore_or_initialize()
    return float(weight[0])


def test_tm1_there_is_no_pointer_to_lose(tmp_path: Path) -> None:
    trained(Peer, tmp_path / "peer")
    (tmp_path / "peer" / "checkpoint").unlink()
    assert resumed(Peer, tmp_path / "peer") == 0.0  # afresh, in silence, beside two whole ones

    trained(CheckpointManager, tmp_path / "ours")

    assert not list((tmp_path / "ours").rglob("checkpoint"))
    assert resumed(CheckpointManager, tmp_path / "ours") == 2.0


def test_tm2_nor_one_to_be_damaged(tmp_path: Path) -> None:
    trained(Peer, tmp_path / "peer")
    (tmp_path / "peer" / "checkpoint").write_bytes(b"")
    with pytest.raises(ValueError, match="Invalid checkpoint state"):
        resumed(Peer, tmp_path / "peer")

    trained(CheckpointManager, tmp_path / "ours")
    for path in (tmp_path / "ours" / "files").iterdir():  # an empty one of somebody else's
        (path / "checkpoint").write_bytes(b"")

    assert resumed(CheckpointManager, tmp_path / "ours") == 2.0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("what", ["data-00000-of-00001", "index"])
def test_tm3_a_damaged_newest_is_passed_over(tmp_path: Path, damage: Any, what: str) -> None:
    trained(Peer, tmp_path / "peer")
    damage(tmp_path / "peer" / f"ckpt-2.{what}")
    with pytest.raises((tf.errors.OpError, IndexError)):
        resumed(Peer, tmp_path / "peer")

    trained(CheckpointManager, tmp_path / "ours")
    (path,) = (tmp_path / "ours" / "files").rglob(f"ckpt-2.{what}")
    damage(path)

    with pytest.warns(CheckpointWarning, match="Passing over it"):
        assert resumed(CheckpointManager, tmp_path / "ours") == 1.0
    manager, _ = new(CheckpointManager, tmp_path / "ours")
    with pytest.warns(CheckpointWarning, match="Passing over it"):
        assert Path(manager.latest_checkpoint).name == "ckpt-1"
    assert Path(manager.latest_checkpoint).name == "ckpt-1"  # told once, and brought once


def test_tm4_a_second_manager_removes_nothing_of_the_first(tmp_path: Path) -> None:
    trained(Peer, tmp_path / "peer", saves=4)
    new(Peer, tmp_path / "peer", 1, checkpoint_name="other")[0].save()
    assert [path.name for path in (tmp_path / "peer").glob("*.index")] == ["other-1.index"]

    trained(CheckpointManager, tmp_path / "ours", saves=4)
    new(CheckpointManager, tmp_path / "ours", 1, checkpoint_name="other")[0].save()

    assert len(new(CheckpointManager, tmp_path / "ours")[0].checkpoints) == 4
    assert resumed(CheckpointManager, tmp_path / "ours") == 4.0


def test_tm5_what_an_earlier_process_saved_is_removed_too(tmp_path: Path) -> None:
    """The `Saver` of TensorFlow 1 lists in memory what it has saved."""
    weight = tf.Variable([1.0])
    (tmp_path / "peer").mkdir()
    store = open_store(tmp_path / "ours", retention=KeepLast(2))

    for first in (1, 3):
        saver = tf.compat.v1.train.Saver([weight], max_to_keep=2)
        for step in (first, first + 1):
            saver.save(None, str(tmp_path / "peer" / "model.ckpt"), global_step=step)
            with store.stage(step=step) as draft:
                prefix = str(draft.directory / "model.ckpt")
                saver.save(None, prefix, global_step=step, write_state=False)

    assert len(list((tmp_path / "peer").glob("*.index"))) == 4
    assert [each.step for each in store] == [3, 4]
    assert len(list((tmp_path / "ours" / "files").rglob("*.index"))) == 2
