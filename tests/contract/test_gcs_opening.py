"""Options, credentials and processes: how a bucket is come to, and let go."""

import gc
import json
import os
import subprocess
import sys
import warnings

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from google.oauth2.credentials import Credentials

from holdfast.backends import open_backend
from holdfast.backends.gcs import GcsBackend
from holdfast.backends.gcs import credentials as gcs_credentials
from holdfast.errors import (
    AccessDenied,
    InvalidInputError,
    StorageError,
)
from tests.contract.gcs_setup import VERBS, opened
from tests.servers.gcs import GcsServer


@pytest.fixture
def server():
    with GcsServer() as server:
        yield server


@pytest.fixture
def nothing_set(monkeypatch, tmp_path):
    """A machine where nobody has ever logged in."""
    for name in (*os.environ,):
        if name.startswith(("GOOGLE_", "GCSFS_", "STORAGE_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.mark.parametrize("options", [{}, {"token": None}, {"token": "google_default"}])
def test_without_credentials_nothing_is_opened_in_silence(nothing_set, options):
    with pytest.raises(AccessDenied, match="gcloud auth application-default login"):
        open_backend("gs://bucket/runs/a", options)


def test_a_cache_of_gcsfs_without_credentials_is_not_taken_for_anonymous(nothing_set, monkeypatch):
    monkeypatch.setattr("gcsfs.credentials.GoogleCredentials.tokens", {("", "full_control"): 1})

    with pytest.raises(AccessDenied, match="has no credentials"):
        open_backend("gs://bucket/runs/a", {"token": "cache"})


def test_the_default_credentials_are_used_with_their_project(server, nothing_set, monkeypatch):
    asked = []

    def default(scopes):
        asked.extend(scopes)
        return Credentials("token-of-reader"), "lab"

    monkeypatch.setattr(google.auth, "default", default)
    endpoint = server.endpoint
    monkeypatch.setattr(gcs_credentials, "_is_plain", lambda _: False)

    backend = GcsBackend.open(
        f"gs://{server.bucket}/runs/a", {"endpoint_url": endpoint, "requester_pays": True}
    )
    list(backend.scan(""))

    assert asked == ["https://www.googleapis.com/auth/devstorage.read_write"]
    assert server.requests[-1].headers["authorization"] == "Bearer token-of-reader"
    assert server.requests[-1].query["userProject"] == "lab"


@pytest.mark.parametrize("prefix", ["", "http://"])
def test_an_emulator_is_found_by_the_usual_variable_and_gets_no_credentials(
    server, nothing_set, monkeypatch, prefix
):
    def default(scopes):
        raise DefaultCredentialsError("was asked for")

    monkeypatch.setattr(google.auth, "default", default)
    host = server.endpoint.removeprefix("http://")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", prefix + host)

    backend = open_backend(f"gs://{server.bucket}/runs/a")
    backend.create("manifests/a", b"a")

    assert server.behind("runs/a/manifests/a") == b"a"
    assert "authorization" not in server.requests[-1].headers


def test_an_access_token_is_used_as_it_is(server):
    backend = opened(server, token="token-of-pruner")

    backend.delete("manifests/a")

    assert server.requests[-1].headers["authorization"] == "Bearer token-of-pruner"


@pytest.mark.parametrize("as_file", [True, False])
def test_a_login_of_gcloud_is_taken_as_a_file_or_as_its_content(server, tmp_path, as_file):
    login = {"client_id": "a", "client_secret": "b", "refresh_token": "c"}
    (tmp_path / "login.json").write_text(json.dumps(login))

    backend = opened(server, token=str(tmp_path / "login.json") if as_file else login)

    assert backend._clients.get().credentials.credentials.refresh_token == "c"


def test_credentials_that_the_user_made_are_used(server):
    backend = opened(server, token=Credentials("token-of-reader"))

    assert list(backend.scan("")) == []


def test_a_token_that_has_expired_is_told_with_its_cure(server):
    with pytest.raises(AccessDenied, match=r"expired.*authenticate_user"):
        opened(server, token="token-of-yesterday").create("manifests/a", b"a")


class _Expired(Credentials):
    """What Google's library does when it cannot renew."""

    def __init__(self, error):
        super().__init__(None)
        self.error = error

    def refresh(self, request):
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RefreshError("invalid_grant: canary-of-a-grant"), AccessDenied),
        (
            RefreshError("the credentials do not contain the necessary fields need to refresh"),
            AccessDenied,
        ),
        (RefreshError("try later", retryable=True), StorageError),
        (TransportError("no network"), StorageError),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_credentials_that_cannot_be_renewed_are_told_from_a_network_that_is_down(
    server, tmp_path, error, kind, verb
):
    (tmp_path / "source").write_bytes(b"source")
    backend = opened(server, token=_Expired(error))

    with pytest.raises(StorageError) as caught:
        VERBS[verb](backend, tmp_path)

    assert type(caught.value) is kind
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tokken": "anon"}, "no option tokken"),
        ({"token": "/nowhere/key.json"}, "does not exist"),
        ({"token": {"client_id": "x"}}, "do not fit"),
        ({"token": 7}, "do not fit"),
        ({"token": "anon", "access": "everything"}, "do not fit"),
        ({"token": "anon", "endpoint_url": "localhost:4443"}, "endpoint_url"),
        ({"token": "anon", "endpoint_url": "https://host/path"}, "endpoint_url"),
    ],
)
def test_options_that_do_not_fit_are_told_before_anything_is_asked(nothing_set, options, text):
    with pytest.raises(InvalidInputError, match=text):
        open_backend("gs://bucket/runs/a", options)


def test_options_of_fsspec_that_change_nothing_are_taken(server):
    backend = opened(server, use_listings_cache=True, skip_instance_cache=False)

    assert backend._clients.get().dircache.use_listings_cache is False


def test_a_forked_child_has_connections_of_its_own_and_leaves_those_of_its_parent(server):
    backend = opened(server)
    backend.create("manifests/a", b"a")
    script = f"""
import gc, os, sys
from holdfast.backends.gcs import GcsBackend
backend = GcsBackend.open({backend.url!r}, {server.storage_options()!r})
backend.read("manifests/a")
child = os.fork()
if not child:
    backend.create("manifests/b", b"b")
    gc.collect()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert backend.read("manifests/a") == b"a"  # on the connection that the child had inherited
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert server.behind("runs/a/manifests/b") == b"b"


def test_a_client_that_is_let_go_closes_its_connections(server):
    backend = opened(server)
    list(backend.scan(""))
    session = backend._clients.get().session

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del backend
        gc.collect()

    assert session.closed


def test_a_process_ends_in_silence(server):
    script = f"""
from holdfast.backends import open_backend
backend = open_backend("gs://{server.bucket}/runs/a", {server.storage_options()!r})
backend.create("manifests/a", b"a")
"""
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_what_is_still_to_be_sent_is_sent_while_the_process_ends(server, tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 9 * 1024 * 1024)
    options = {**server.storage_options(), "endpoint_url": _by_name(server.endpoint)}
    script = f"""
import atexit, pathlib
from holdfast.backends import open_backend
backend = open_backend("gs://{server.bucket}/runs/a", {options!r})
def send():
    backend.upload(pathlib.Path({str(tmp_path / "source")!r}), "files/a")
    backend.create("manifests/a", b"a")
atexit.register(send)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert server.behind("runs/a/manifests/a") == b"a"
    assert server.behind("runs/a/files/a") == (tmp_path / "source").read_bytes()


def _by_name(endpoint):
    """With a host that has to be looked up."""
    return endpoint.replace("127.0.0.1", "localhost")
