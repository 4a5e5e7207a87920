"""`holdfast pull` and `holdfast push`."""

import json
from pathlib import Path

import pytest


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def damage(root: Path, checkpoint: object) -> None:
    (root / "files" / str(checkpoint) / "model.keras").unlink()


def test_a_pull_brings_the_newest_under_its_id(run, store, file, here) -> None:
    store.save(file, step=1)
    newest = store.save(file, step=2)

    result = run("pull", store.url)

    assert result.exit_code == 0
    assert result.stdout == f"{newest}\n"
    assert (here / str(newest) / "model.keras").read_bytes() == b"weights"
    assert names(here) == [str(newest)]


def test_a_pull_passes_over_a_damaged_one_with_a_warning(run, store, file, root, here) -> None:
    good, damaged = store.save(file, step=1), store.save(file, step=2)
    damage(root, damaged)

    result = run("pull", store.url)

    assert result.exit_code == 0
    assert result.stdout == f"{good}\n"
    assert result.stderr.startswith(f"warning: {damaged} is damaged")
    assert names(here) == [str(good)]


def test_a_pull_from_a_store_that_is_all_damaged_leaves_nothing(run, store, file, root, here):
    damage(root, store.save(file, step=1))

    result = run("pull", store.url)

    assert result.exit_code == 4
    assert not list(here.iterdir())


def test_a_damaged_checkpoint_that_was_asked_for_is_an_error(run, store, file, root, here) -> None:
    store.save(file, step=1)
    damage(root, store.save(file, step=2))

    result = run("pull", store.url, "latest")

    assert result.exit_code == 4
    assert not list(here.iterdir())


def test_a_pull_goes_where_it_is_told(run, store, file, here) -> None:
    saved = store.save(file, step=1)

    result = run("pull", store.url, "1", "models/one", "--json")

    document = json.loads(result.stdout)
    assert document.keys() == {"store", "checkpoint", "path"}
    assert document["path"] == "models/one"
    assert document["checkpoint"]["id"] == str(saved)
    assert (here / "models/one/model.keras").read_bytes() == b"weights"


@pytest.mark.parametrize("words", [[], ["1"]], ids=["newest", "by step"])
def test_a_pull_overwrites_nothing(run, store, file, here, words) -> None:
    taken = here / str(store.save(file, step=1))
    taken.mkdir()
    (taken / "mine").touch()

    result = run("pull", store.url, *words)

    assert result.exit_code == 2
    assert "nothing was touched" in result.stderr
    assert names(here) == [taken.name]
    assert names(taken) == ["mine"]


def test_a_pull_from_a_store_of_others_uses_a_workspace_of_mine(
    run, store, file, root, here, tmp_path
) -> None:
    saved = store.save(file, step=1)
    (root / ".workspace").chmod(0o777)

    refused = run("pull", store.url)
    pulled = run("pull", store.url, "--workspace", tmp_path / "work")

    assert refused.exit_code == 2
    assert pulled.exit_code == 0
    assert names(here) == [str(saved)]


def test_a_pull_from_an_empty_store_is_not_found(run, root, here) -> None:
    root.mkdir()

    assert run("pull", root).exit_code == 3


def test_a_push_saves_a_file_and_prints_its_id(run, store, file) -> None:
    result = run(
        "push", store.url, file, "--step", 1200,
        "--metric", "val_loss=0.25", "--metric", "acc=1e-1",
        "--meta", "lr=0.5", "--meta", "host=node-7", "--meta", "done=true", "--meta", "none=null",
        "--meta", 'quoted="12"', "--meta", "equation=a=b",
    )  # fmt: skip

    saved = store.latest()
    assert saved is not None
    assert result.stdout == f"{saved}\n"
    assert saved.step == 1200
    assert saved.metrics == {"val_loss": 0.25, "acc": 0.1}
    assert saved.metadata == {
        "lr": 0.5, "host": "node-7", "done": True, "none": None, "quoted": "12", "equation": "a=b",
    }  # fmt: skip


def test_a_push_saves_a_directory_with_all_below_it(run, store, tmp_path) -> None:
    (tmp_path / "model/variables").mkdir(parents=True)
    (tmp_path / "model/saved_model.pb").write_bytes(b"graph")
    (tmp_path / "model/variables/data").write_bytes(b"values")

    document = json.loads(run("push", store.url, tmp_path / "model", "--step", 1, "--json").stdout)

    paths = [each["path"] for each in document["checkpoint"]["files"]]
    assert paths == ["saved_model.pb", "variables/data"]


def test_a_metric_that_is_not_finite_is_a_warning(run, store, file) -> None:
    result = run("push", store.url, file, "--step", 1, "--metric", "loss=nan")

    assert result.exit_code == 0
    assert result.stderr.startswith("warning: the metric 'loss' is nan")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--step", "x"],
        ["--step", "-1"],
        ["--step", "1", "--metric", "loss"],
        ["--step", "1", "--metric", "loss=low"],
        ["--step", "1", "--meta", "tags=[1]"],
        ["--step", "1", "--meta", "=x"],
    ],
    ids=" ".join,
)
def test_a_push_that_is_written_wrongly_touches_nothing(run, store, file, root, words) -> None:
    result = run("push", store.url, file, *words)

    assert result.exit_code == 2
    assert not root.exists()


def test_a_push_of_nothing_touches_nothing(run, store, root, here) -> None:
    result = run("push", store.url, here / "typo", "--step", 1)

    assert result.exit_code == 2
    assert not root.exists()
