"""Which backend a path or a URL gives, and which places are refused before anything is touched."""

import subprocess
import sys
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from holdfast.backends import open_backend
from holdfast.backends.fsspec import FsspecBackend
from holdfast.backends.local import LocalBackend
from holdfast.backends.retrying import RetryingBackend
from holdfast.errors import InvalidInputError, StorageError


@pytest.mark.parametrize("write", ["{}", "{}/", "file://{}", "FILE://{}", "local://{}"])
def test_a_path_is_a_directory_of_this_machine(tmp_path, write):
    backend = open_backend(write.format(tmp_path / "runs"))

    assert isinstance(backend, LocalBackend)
    assert backend.url == f"file://{tmp_path}/runs"


def test_a_path_may_be_relative_or_an_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert open_backend("runs/a").url == f"file://{tmp_path}/runs/a"
    assert open_backend(Path("runs/a")).url == f"file://{tmp_path}/runs/a"
    assert open_backend("./s3:/a").url == f"file://{tmp_path}/s3:/a"


@pytest.mark.parametrize("name", ["a b", "a%20b", "a#b", "a?b", "ä", "a@b", "a:b", "a::b"])
def test_a_path_is_taken_as_it_stands(tmp_path, name):
    backend = open_backend(tmp_path / name)

    assert backend.url == f"file://{tmp_path}/{name}"
    if "::" not in name:
        assert open_backend(backend.url).url == backend.url


@pytest.mark.parametrize("url", ["memory://", "memory://run", "memory://run/", "memory://a/b"])
def test_memory_has_no_network_to_wait_for(url):
    backend = open_backend(url)

    assert isinstance(backend, FsspecBackend)
    assert backend.url == url.rstrip("/") + ("//" if url == "memory://" else "")


class Elsewhere(MemoryFileSystem):
    """A filesystem that stands for any that is reached over a network."""

    protocol = "elsewhere"
    cachable = False

    def __init__(self, key=None, secret=None):
        super().__init__()
        self.key = key
        self.secret = secret

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("elsewhere://").strip("/")


class Unreachable(MemoryFileSystem):
    protocol = "unreachable"

    def __init__(self, **_):
        raise ConnectionRefusedError(111, "refused, token=canary-token")


class Strict(MemoryFileSystem):
    protocol = "strict"

    def __init__(self, project):
        super().__init__()


@pytest.fixture(autouse=True)
def filesystems(monkeypatch):
    for kind in (Elsewhere, Unreachable, Strict):
        monkeypatch.setitem(_registry, kind.protocol, kind)


def test_a_place_on_a_network_has_deadlines_and_repetition():
    backend = open_backend("elsewhere://bucket/run/", {"key": "k", "secret": "canary"})

    assert isinstance(backend, RetryingBackend)
    assert backend.url == "elsewhere://bucket/run"
    with backend.inner._clients.one() as filesystem:
        assert filesystem.key == "k"
    assert backend.inner._root == "/bucket/run"
    assert "canary" not in repr(backend)


def test_each_backend_has_a_filesystem_of_its_own():
    one, other = open_backend("memory://a"), open_backend("memory://a")

    with one._clients.one() as ones, other._clients.one() as others:
        assert ones is not others


@pytest.mark.parametrize("place", ["", "   ", "file://", "s3://", "s3:///"])
def test_an_empty_place_is_refused(place):
    with pytest.raises(InvalidInputError, match="touched"):
        open_backend(place)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("simplecache::s3://bucket/run", "chain"),
        ("zip://a::file:///x.zip", "chain"),
        ("simplecache://run", "copies"),
        ("s3://user:canary@bucket/run", "user info"),
        ("s3://canary@bucket/run", "user info"),
        ("sftp://host/run?password=canary", "a query"),
        ("sftp://host/run#canary", "a fragment"),
        ("https://[bad/x", "cannot be read"),
        ("nothing://bucket/run", "knows nothing"),
        ("s3:/bucket/run", "neither"),
        ("gs:bucket/run", "neither"),
        ("file://host/run", "machine"),
        ("file://runs", "machine"),
        ("memory://a/../b", "has . or .."),
    ],
)
def test_a_place_that_names_no_single_plain_place_is_refused(place, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidInputError, match=why) as caught:
        open_backend(place)

    assert "canary" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_options_for_a_directory_are_refused_by_name_only(tmp_path):
    with pytest.raises(InvalidInputError, match="'key'") as caught:
        open_backend(tmp_path / "runs", {"key": "canary"})

    assert "canary" not in str(caught.value)
    assert open_backend(tmp_path / "runs", {}).url


def test_a_missing_library_is_named_with_its_cure(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("holdfast.backends.s3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(InvalidInputError, match=r"s3:// needs s3fs: pip install 'holdfast\[s3\]'"):
        open_backend("s3://bucket/run")


def test_a_package_that_is_called_otherwise_is_named_as_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "smbclient", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.smb", raising=False)

    with pytest.raises(InvalidInputError, match="pip install smbprotocol"):
        open_backend("smb://host/run")


def test_options_that_do_not_fit_are_wrong_input():
    with pytest.raises(InvalidInputError, match="nonsense") as caught:
        open_backend("strict://run", {"nonsense": "canary"})

    assert "canary" not in str(caught.value)


def test_a_place_that_cannot_be_reached_is_a_failure_of_the_place():
    with pytest.raises(StorageError) as caught:
        open_backend("unreachable://run", {"token": "canary-token"})

    assert "canary" not in str(caught.value)
    assert not isinstance(caught.value, InvalidInputError)


def test_importing_the_backends_does_not_import_fsspec(tmp_path):
    code = (
        "import sys; from holdfast.backends import open_backend\n"
        f"open_backend({str(tmp_path / 'runs')!r})\n"
        "print(*(name for name in sys.modules if name.split('.')[0] == 'fsspec'))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
