"""A place that is no store: it must not look like an empty one, and looking leaves no trace."""

import json
from pathlib import Path

import pytest

READING = [
    ["ls"],
    ["show", "latest"],
    ["verify"],
    ["verify", "--deep"],
    ["pull"],
    ["pull", "latest", "there"],
    ["prune", "--keep-last", "1"],
    ["prune", "--keep-last", "1", "--dry-run"],
    ["pin", "latest", "paper"],
    ["unpin", "paper"],
    ["sweep"],
    ["sweep", "--dry-run"],
]


def on(place: Path, words: list[str]) -> list[str]:
    """A command line with its store in the first place."""
    return [words[0], str(place), *words[1:]]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_directory_that_does_not_exist_is_not_found(run, root, here, words) -> None:
    result = run(*on(root, words))

    assert result.exit_code == 3
    assert result.stdout == ""
    assert f"there is no directory {root}" in result.stderr
    assert not root.exists()
    assert not list(here.iterdir())


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_directory_of_other_files_is_not_found(run, root, words) -> None:
    root.mkdir()
    (root / "notes.txt").touch()

    result = run(*on(root, words))

    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: {root} holds other files and no store")
    assert [each.name for each in root.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_an_empty_directory_stays_empty(run, root, words) -> None:
    root.mkdir()

    result = run(*on(root, words))

    assert result.exit_code in (0, 3)
    assert not list(root.iterdir())


def test_the_stores_below_a_directory_are_named(run, store, file, root) -> None:
    store.save(file, step=1)
    (root.parent / "other").mkdir()

    result = run("ls", root.parent)

    assert result.exit_code == 3
    assert "stores: run." in result.stderr


def test_the_error_for_programs_has_its_type(run, root) -> None:
    result = run("ls", root, "--json")

    error = json.loads(result.stderr)["error"]
    assert error.keys() == {"type", "message", "notes"}
    assert error["type"] == "NotFoundError"
    assert str(root) in error["message"]


def test_a_file_is_no_place_for_a_store(run, file) -> None:
    result = run("ls", file)

    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_a_push_makes_the_store(run, root, file) -> None:
    result = run("push", root, file, "--step", 1)

    assert result.exit_code == 0
    assert run("ls", root).exit_code == 0


def test_a_push_beside_other_files_warns(run, root, file) -> None:
    root.mkdir()
    (root / "notes.txt").touch()

    result = run("push", root, file, "--step", 1)

    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {root} holds no store yet")


def test_a_store_that_only_holds_pins_is_one(run, store, file, root) -> None:
    root.mkdir()
    (root / "pins").mkdir()
    (root / "notes.txt").touch()

    assert run("ls", root).exit_code == 0
