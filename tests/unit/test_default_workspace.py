"""Where drafts are staged unless somebody says otherwise."""

import hashlib
from pathlib import Path

import pytest

from holdfast import layout
from holdfast.staging import default_workspace, downloads_for, workspace_for


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
    """Drafts stay where the next start looks for them, which may write."""
    url = f"file://{tmp_path}"
    inside, given = workspace_for(url, None), workspace_for(url, tmp_path / "given")
    assert downloads_for(url, inside) is inside

    monkeypatch.setattr("os.access", lambda path, mode: False)

    assert default_workspace(url) == inside.path == tmp_path / layout.WORKSPACE
    assert downloads_for(url, inside).path.parent == cache
    assert downloads_for(url, given) is given
    missing = f"{url}/missing"
    assert downloads_for(missing, workspace_for(missing, None)).path.parent == tmp_path / "missing"


def test_what_comes_from_elsewhere_goes_where_drafts_are(cache: Path) -> None:
    workspace = workspace_for("s3://bucket/a", None)

    assert downloads_for("s3://bucket/a", workspace) is workspace


def test_it_is_where_every_version_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    digest = hashlib.sha256(b"s3://bucket/a").hexdigest()

    there = default_workspace("s3://bucket/a")

    assert there == tmp_path / ".cache" / "holdfast" / digest[:16]
