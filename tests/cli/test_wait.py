"""`holdfast wait`."""

import json

import pytest

from holdfast import open_store
from tests.servers.fuse import NotPossibleError
from tests.servers.mounted_drive import MountedDrive


@pytest.fixture
def drive(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "drive"
    place.mkdir()
    try:
        mounted = MountedDrive(place)
    except NotPossibleError as error:
        pytest.skip(f"no filesystem can be mounted here: {error}")
    with mounted:
        yield mounted


@pytest.fixture
def on_drive(drive, file):
    store = open_store(drive.place / "run")
    store.save(file, step=1)
    store.save(file, step=2)
    return store


def test_it_ends_when_drive_has_the_newest_or_the_one_that_is_named(run, on_drive, drive) -> None:
    drive.tell("arrive")

    newest, named = run("wait", on_drive.url), run("wait", on_drive.url, 1, "--json")

    assert newest.stdout == f"{on_drive.latest()}\n"
    assert json.loads(named.stdout)["checkpoint"]["id"] == str(on_drive[1])
    assert (newest.exit_code, named.exit_code) == (0, 0)


def test_what_does_not_arrive_in_time_is_no_answer_in_time(run, on_drive) -> None:
    result = run("wait", on_drive.url, "--timeout", "0.2s")

    assert result.exit_code == 9
    assert "Nothing is lost" in result.stderr


def test_a_place_that_does_not_tell_is_a_wrong_call(run, store, file) -> None:
    store.save(file, step=1)

    result = run("wait", store.url)

    assert result.exit_code == 2
    assert "drive.flush_and_unmount()" in result.stderr


def test_an_empty_store_has_nothing_to_wait_for(run, root) -> None:
    root.mkdir()

    assert run("wait", root).exit_code == 3
