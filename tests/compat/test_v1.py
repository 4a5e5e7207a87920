"""A store that the first release wrote, read by every later one."""

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast import CheckpointStore, Files, FormatError, KeepLast, manifest, open_store, record
from holdfast.checkpoint import CheckpointId
from holdfast.errors import CheckpointWarning

GOLDEN = Path(__file__).parent / "v1" / "store"
FIRST = "0001-000000000100-35410a2b"
SECOND = "0001-000000000200-1de5fc59"
ROLLED_BACK = "0002-000000000150-1fcbbacf"
LATEST = "0002-000000000150-1fcc50aa"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "store"))


@pytest.fixture
def store(place: Path) -> CheckpointStore:
    return open_store(place)


def test_its_checkpoints_are_read_in_order(store: CheckpointStore) -> None:
    assert [str(each) for each in store] == [FIRST, SECOND, ROLLED_BACK, LATEST]


def test_every_member_of_a_manifest_is_read(store: CheckpointStore) -> None:
    second, rolled_back = store.find(SECOND), store.find(ROLLED_BACK)

    assert second.created_at == datetime(2026, 11, 21, 4, 20, tzinfo=UTC)
    assert second.metrics == {"val_loss": 0.25}
    assert second.metadata == {"note": "grün", "lr": 0.001, "warm": True, "tag": None, "n": 3}
    assert second.writer == "trainer-1:17:0123456789abcdef"
    assert [file.path for file in second.files] == ["model.bin", "training/state.json"]
    assert second.version == "0.1.0"
    assert str(rolled_back.parent) == SECOND
    assert store.pins() == {"paper": [CheckpointId.parse(FIRST)]}


def test_it_restores_to_the_byte(store: CheckpointStore, tmp_path: Path) -> None:
    store.restore(Files(tmp_path / "restored"), SECOND)

    content = (tmp_path / "restored" / "model.bin").read_bytes()
    assert content == bytes(range(256)) * 2 + b"200"
    assert hashlib.sha256(content).hexdigest() == store.find(SECOND).files[0].hash[7:]
    assert store.verify(deep=True).ok


def test_all_of_it_is_downloaded_to_the_byte(
    store: CheckpointStore, place: Path, tmp_path: Path
) -> None:
    for each in store:
        copy = store.download(each, to=tmp_path / str(each))

        assert contents(copy) == contents(GOLDEN / "files" / str(each))
    assert contents(place) == contents(GOLDEN), "who reads has changed something"


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".workspace" not in path.parts
    }


def test_its_manifests_are_written_again_to_the_byte(store: CheckpointStore, place: Path) -> None:
    for each in store:
        assert manifest.write(each) == (place / "manifests" / f"{each}.json").read_bytes()


def test_it_goes_on(store: CheckpointStore, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"new")

    saved = store.save(tmp_path / "model.bin", step=400)

    assert saved.session == 4, "the tombstone of session 3 counts for the numbering"
    plan = store.prune(KeepLast(1))
    assert {str(kept.checkpoint) for kept in plan.keep} == {str(saved), FIRST}


@pytest.mark.parametrize("kind", ["checkpoint", "tombstone", "hologram"])
def test_a_store_of_a_newer_format_is_left_alone(
    store: CheckpointStore, place: Path, tmp_path: Path, kind: str
) -> None:
    newer = CheckpointId(3, 500, "00000001")
    members = {"format": 2, "kind": kind, "id": str(newer)}
    (place / "manifests" / f"{newer}.json").write_bytes(record.encode(members))
    (tmp_path / "model.bin").write_bytes(b"new")
    before = contents(place)

    for act in (
        store.latest,
        store.checkpoints,
        store.download,
        store.verify,
        store.preflight,
        lambda: store.best("val_loss"),
        lambda: store.find("latest"),
        lambda: store.restore(Files(tmp_path / "restored")),
        lambda: store.pin(str(newer), "demo"),
        lambda: store.prune(KeepLast(1)),
        lambda: store.prune(KeepLast(1), dry_run=True),
        store.sweep,
        lambda: store.sweep(older_than=timedelta(0)),
        lambda: store.save(tmp_path / "model.bin", step=600),
    ):
        with pytest.raises(FormatError, match="Upgrade holdfast") as caught:
            act()
        assert caught.value.newer

    assert contents(place) == before
    assert not (tmp_path / "restored").exists()


def test_a_draft_of_a_newer_format_is_kept(store: CheckpointStore, place: Path) -> None:
    draft = place / ".workspace" / "0123456789abcdef"
    draft.mkdir(parents=True)
    draft.parent.chmod(0o700)
    (draft / "lock").touch()
    (draft / "seal.json").write_bytes(record.encode({"format": 2, "kind": "draft"}))

    with pytest.warns(CheckpointWarning, match="Upgrade holdfast"):
        assert store.recover() == []

    assert (draft / "seal.json").exists()
