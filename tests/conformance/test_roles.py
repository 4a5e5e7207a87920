"""A trainer needs no right to delete; who lacks a right is told which."""

import pytest

from holdfast import CheckpointStore, CheckpointWarning, Files, KeepLast
from holdfast.errors import AccessDenied
from holdfast.writer import Writer
from tests.conformance.requests import history

WITH_ROLES = ["moto", "gcs"]
CREATE = {"moto": "s3:PutObject", "gcs": "storage.objects.create"}
DELETE = {"moto": "s3:DeleteObject", "gcs": "storage.objects.delete"}


@pytest.fixture
def as_role(place, proxy, home):
    """Opens a store of three checkpoints as somebody with these rights."""
    place.fill(history(home / "roles", 3))

    def open_as(role: str, **more) -> CheckpointStore:
        backend = place.backend(role=role, endpoint=proxy.endpoint)
        return CheckpointStore(
            backend, workspace=home / "roles" / "workspace", writer=Writer(), **more
        )

    return open_as


@pytest.fixture
def file(home):
    (home / "model.bin").write_bytes(b"weights of step 10")
    return home / "model.bin"


@pytest.mark.parametrize("place", WITH_ROLES, indirect=True)
def test_a_trainer_saves_lists_and_resumes_without_one_delete(
    place, proxy, as_role, file, tmp_path
) -> None:
    store = as_role("trainer")
    store.restore(Files(tmp_path / "restored"))
    saved = store.save(file, step=10)
    store.pin(saved, "paper")
    resumed = as_role("trainer").restore(Files(tmp_path / "resumed"))

    assert resumed == saved
    assert [each.step for each in as_role("trainer")] == [0, 1, 2, 10]
    assert (tmp_path / "resumed" / "model.bin").read_bytes() == b"weights of step 10"
    deletes = [each for each in proxy.requests if each.method == "DELETE" or each.query == "delete"]
    assert deletes == []


@pytest.mark.parametrize("place", WITH_ROLES, indirect=True)
def test_a_trainer_with_a_retention_saves_and_is_told_that_nothing_goes(
    place, as_role, file
) -> None:
    store = as_role("trainer", retention=KeepLast(1))

    with pytest.warns(CheckpointWarning, match=DELETE[place.name]):
        saved = store.save(file, step=10)

    assert saved in as_role("reader").checkpoints()


@pytest.mark.parametrize("place", WITH_ROLES, indirect=True)
def test_a_reader_lists_and_restores_and_is_told_what_saving_takes(
    place, as_role, file, tmp_path
) -> None:
    store = as_role("reader")
    before = place.objects()

    assert store.restore(Files(tmp_path / "restored")).step == 2
    assert store.verify(deep=True).ok
    with pytest.raises(AccessDenied, match=CREATE[place.name]):
        store.save(file, step=10)

    assert place.objects() == before


@pytest.mark.parametrize("place", WITH_ROLES, indirect=True)
def test_a_pruner_prunes_and_sweeps(place, as_role) -> None:
    store = as_role("pruner")

    store.prune(KeepLast(1))
    store.sweep()

    assert [each.step for each in store] == [2]
    assert len(place.objects()) == 2
