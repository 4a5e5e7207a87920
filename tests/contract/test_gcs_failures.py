"""Whatever Cloud Storage answers, or does not, is told for what it is."""

import json
import logging
import socket
import traceback

import aiohttp
import pytest

from holdfast.backends.gcs import GcsBackend
from holdfast.backends.gcs import client as gcs_client
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    NotFoundError,
    StorageError,
)
from tests.contract.gcs_setup import VERBS, opened
from tests.servers.gcs import GcsServer
from tests.servers.proxy import Answer, Fault, FaultProxy


@pytest.fixture
def server():
    with GcsServer() as server:
        yield server


@pytest.fixture
def proxy(server):
    with FaultProxy(server.endpoint) as proxy:
        yield proxy


def refusal(status, reason, message):
    said = {"code": status, "message": message, "errors": [{"reason": reason}]}
    return Answer(status, json.dumps({"error": said}).encode())


EVERY = tuple(VERBS)
NO_BUCKET = "The specified bucket does not exist."
PAYER = "Bucket is a requester pays bucket but no user project provided."
NOBODY = "Anonymous caller does not have storage.objects.get access to the object."
ANSWERS = [
    (("read",), refusal(401, "required", NOBODY), AccessDenied, "needs storage", False, None),
    (EVERY, Answer(503, b"", (("Retry-After", "7"),)), StorageError, "503", False, 7.0),
    (EVERY, Answer(500), StorageError, "500", False, None),
    (EVERY, Answer(502, b"<html>Bad Gateway"), StorageError, "502", False, None),
    (EVERY, Answer(429, b"slow", (("Retry-After", "3"),)), StorageError, "429", False, 3.0),
    (EVERY, Answer(408), StorageError, "408", False, None),
    (EVERY, refusal(403, "rateLimitExceeded", "Slow down"), StorageError, "Slow", False, None),
    (EVERY, refusal(403, "userRateLimitExceeded", "x"), StorageError, "user", False, None),
    (EVERY, refusal(429, "rateLimitExceeded", "invalid rate"), StorageError, "429", False, None),
    (
        EVERY,
        refusal(401, "authError", "Invalid Credentials"),
        AccessDenied,
        "gcloud auth",
        False,
        None,
    ),
    (EVERY, refusal(403, "accountDisabled", "off"), AccessDenied, "billing", False, None),
    (EVERY, refusal(403, "accessNotConfigured", "off"), AccessDenied, "Enable", False, None),
    (EVERY, refusal(403, "insufficientPermissions", "scope"), AccessDenied, "scope", False, None),
    (
        EVERY,
        refusal(403, "UserProjectAccessDenied", "x"),
        AccessDenied,
        "serviceusage",
        False,
        None,
    ),
    (EVERY, refusal(400, "required", PAYER), StorageError, "requester_pays", True, None),
    (EVERY, refusal(400, "invalid", "invalid thing"), StorageError, "invalid thing", True, None),
    (EVERY, Answer(404, b"<html>nginx"), StorageError, "not Cloud Storage", True, None),
    (
        EVERY,
        Answer(302, b"", (("Location", "http://127.0.0.1:1/x"),)),
        StorageError,
        "302",
        True,
        None,
    ),
    (
        EVERY,
        Answer(308, b"", (("Location", "http://127.0.0.1:1/x"),)),
        StorageError,
        "308",
        True,
        None,
    ),
    (EVERY, refusal(404, "notFound", NO_BUCKET), StorageError, "bucket does not exist", True, None),
    (
        ("create", "upload"),
        refusal(403, "forbidden", "no"),
        AccessDenied,
        "objects.create",
        False,
        None,
    ),
    (
        ("read", "download"),
        refusal(403, "forbidden", "no"),
        AccessDenied,
        "objects.get",
        False,
        None,
    ),
    (("scan",), refusal(403, "forbidden", "no"), AccessDenied, "objects.list", False, None),
    (("delete",), refusal(403, "forbidden", "no"), AccessDenied, "objects.delete", False, None),
    (
        ("delete",),
        refusal(403, "retentionPolicyNotMet", "x"),
        AccessDenied,
        "retention",
        False,
        None,
    ),
    (("delete",), refusal(403, "objectUnderActiveHold", "x"), AccessDenied, "Release", False, None),
    (("create",), refusal(403, "retentionPolicyNotMet", "x"), AlreadyExists, "taken", False, None),
    (("create",), refusal(412, "conditionNotMet", "x"), AlreadyExists, "taken", False, None),
    (("create",), refusal(409, "conflict", "x"), StorageError, "409", False, None),
    (
        ("read", "download"),
        Answer(404, b"No such object: b/x"),
        NotFoundError,
        "no gs://",
        None,
        None,
    ),
    (
        ("read", "download"),
        refusal(404, "notFound", "Not Found"),
        NotFoundError,
        "no gs",
        None,
        None,
    ),
    (("scan",), Answer(200, b"<html>Log in to the network"), StorageError, "list", False, None),
    (("scan",), Answer(200, b"{}"), StorageError, "no listing", False, None),
    (("scan",), Answer(200, b"[]"), StorageError, "list", False, None),
    (("create", "upload"), Answer(200, b"<html>"), StorageError, "", False, None),
]


@pytest.mark.parametrize(
    ("verb", "answer", "kind", "text", "lasting", "retry_after"),
    [(verb, *row) for verbs, *row in ANSWERS for verb in verbs],
)
def test_each_answer_is_told_for_what_it_is(
    server, proxy, tmp_path, monkeypatch, verb, answer, kind, text, lasting, retry_after
):
    (tmp_path / "source").write_bytes(b"source")
    monkeypatch.setattr("holdfast.backends.gcs.backend._DELETES", 1)
    backend = opened(server, endpoint=proxy.endpoint)
    proxy.plan(Fault("answer", lasting=True, answer=answer))

    with pytest.raises(kind) as caught:
        VERBS[verb](backend, tmp_path)

    error = caught.value
    assert type(error) is kind
    assert text in str(error)
    assert not (tmp_path / "target").exists()
    assert (getattr(error, "lasting", None), getattr(error, "retry_after", None)) == (
        lasting,
        retry_after,
    )


@pytest.mark.parametrize("verb", VERBS)
def test_a_role_is_told_which_right_it_lacks(server, tmp_path, verb):
    (tmp_path / "source").write_bytes(b"source")
    server.put("runs/a/manifests/a", b"a")

    with pytest.raises(AccessDenied, match=r"storage\.objects\.(create|get|list|delete)"):
        VERBS[verb](opened(server, "nobody"), tmp_path)


@pytest.mark.parametrize("verb", VERBS)
def test_a_bucket_that_does_not_exist_is_neither_empty_nor_without_a_key(server, tmp_path, verb):
    (tmp_path / "source").write_bytes(b"source")
    backend = GcsBackend.open("gs://no-such-bucket/runs/a", server.storage_options())

    with pytest.raises(StorageError, match="bucket does not exist") as caught:
        VERBS[verb](backend, tmp_path)

    assert caught.value.lasting


def test_the_delete_of_many_tells_the_first_failure(server):
    for number in range(50):
        server.put(f"runs/a/files/{number}", b"")

    with pytest.raises(AccessDenied):
        opened(server, "trainer").delete(*[f"files/{number}" for number in range(50)])

    assert len(server.requests) < 50
    opened(server, "pruner").delete(*[f"files/{number}" for number in range(60)])
    assert list(opened(server).scan("")) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_does_not_answer_is_not_waited_for(
    server, proxy, tmp_path, monkeypatch, verb
):
    (tmp_path / "source").write_bytes(b"source")
    timeout = aiohttp.ClientTimeout(total=None, sock_read=0.05)
    monkeypatch.setitem(gcs_client._SETTINGS, "timeout", timeout)
    backend = opened(server, endpoint=proxy.endpoint)
    proxy.plan(Fault("hang", lasting=True))

    with pytest.raises(DeadlineExceeded, match="fell silent"):
        VERBS[verb](backend, tmp_path)


def test_a_server_that_does_not_listen_is_not_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(gcs_client, "_SILENCE_S", 0.1)
    (tmp_path / "source").write_bytes(b"x" * 7 * 1024 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"

        with pytest.raises(DeadlineExceeded):
            opened(server, endpoint=endpoint).upload(tmp_path / "source", "files/a")


@pytest.mark.parametrize("verb", VERBS)
def test_no_secret_is_shown(server, proxy, tmp_path, caplog, verb):
    caplog.set_level(logging.DEBUG)
    canary = "canary-of-a-token"
    (tmp_path / "source").write_bytes(b"source")
    backend = opened(server, endpoint=proxy.endpoint, token=canary)
    shown = repr(backend)
    for answer in (
        None,
        refusal(403, "forbidden", f"Bearer {canary} may not"),
        Answer(200, canary.encode()),
        Answer(302, b"", (("Location", f"http://x/?token={canary}"),)),
    ):
        proxy.plan(*([Fault("answer", lasting=True, answer=answer)] if answer else []))
        try:
            VERBS[verb](backend, tmp_path)
        except StorageError as error:
            shown += "".join(traceback.format_exception(error))

    assert canary not in shown + caplog.text
