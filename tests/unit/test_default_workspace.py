"""Where drafts are staged unless somebody says otherwise."""

from pathlib import Path

import pytest

from holdfast import layout
from holdfast.staging import default_workspace


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "holdfast"


def test_a_local_store_stages_inside_itself(cache: Path, tmp_path: Path) -> None:
    assert default_workspace(f"file://{tmp_path}") == tmp_path / layout.WORKSPACE


def test_any_other_place_stages_in_the_cache_each_in_its_own_directory(cache: Path) -> None:
    one, other = default_workspace("s3://bucket/a"), default_workspace("s3://bucket/b")

    assert one.parent == other.parent == cache
    assert one != other
    assert one == default_workspace("s3://bucket/a")


def test_a_mounted_drive_is_not_staged_on(cache: Path) -> None:
    assert default_workspace("file:///content/drive/MyDrive/run").parent == cache


def test_a_store_that_one_may_only_read_is_downloaded_from_by_way_of_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)

    assert default_workspace(f"file://{tmp_path}").parent == cache
