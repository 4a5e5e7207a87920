"""S3 keeps the contract, on moto, on a second server, and on a real bucket where one is named."""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from s3fs import S3FileSystem

from holdfast.backends import open_backend, ranges
from holdfast.backends.retrying import RetryingBackend
from holdfast.backends.s3 import S3Backend, wire
from holdfast.backends.s3 import client as s3_client
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    InvalidInputError,
    StorageError,
)
from holdfast.testing.backends import BackendContract
from tests.servers.proxy import Answer, Fault, FaultProxy
from tests.servers.s3 import MotoServer, RcloneServer

_MIB = 1024 * 1024
#: The smallest part that S3 takes, so that a few of them are soon sent.
_PART = 5 * _MIB
_numbers = itertools.count()
_HIDDEN = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture(scope="module", autouse=True)
def nobody_at_home(tmp_path_factory):
    """No credentials and no settings of whoever runs the tests, but for the real bucket's."""
    if "HOLDFAST_TEST_S3_URL" in os.environ:
        yield
        return
    nothing = tmp_path_factory.mktemp("home") / "nothing"
    with pytest.MonkeyPatch.context() as patch:
        found = [name for name in os.environ if name.startswith("AWS_")]
        for name in {*_HIDDEN, *found} - {"AWS_CA_BUNDLE"}:
            patch.delenv(name, raising=False)
        patch.setenv("AWS_CONFIG_FILE", str(nothing))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def moto():
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def rclone():
    with RcloneServer() as server:
        yield server


@pytest.fixture(scope="module")
def moto_clients(moto):
    return clients_of(moto)


@pytest.fixture(scope="module")
def rclone_clients(rclone):
    return clients_of(rclone)


def clients_of(server):
    """Two, for the whole contract: to make one takes longer than what most tests do with it."""
    return [S3Backend(server.url(), server.storage_options())._client for _ in range(2)]


class OnServer(BackendContract):
    @pytest.fixture
    def backend(self, server, clients):
        self.server = server
        url = server.url(f"runs/{next(_numbers)}")
        backend, self.other = (self.opened(url, client) for client in clients)
        return backend

    def opened(self, url, client):
        backend = S3Backend(url, self.server.storage_options())
        backend._client = client
        return backend

    def behind(self, backend, key):
        return self.server.behind(f"{backend._root}{key}")

    def another(self, backend):
        return self.other

    def unplug(self, backend):
        nowhere = {**self.server.storage_options(), "endpoint_url": "http://127.0.0.1:9"}
        backend.__init__(backend.url, nowhere)


class TestMoto(OnServer):
    keeps_in_memory = True  # the server's memory is that of this process

    @pytest.fixture
    def server(self, moto):
        return moto

    @pytest.fixture
    def clients(self, moto_clients):
        return moto_clients


class TestRclone(OnServer):
    """
    A server that ignores `If-None-Match`: of what follows from it nothing can hold.

    A store that is opened for writing there is told so. It also fails now and then where one
    caller's delete takes away the directory that another is about to write to, so calls are
    repeated here, as they are in use.
    """

    @pytest.fixture
    def server(self, rclone):
        return rclone

    @pytest.fixture
    def clients(self, rclone_clients):
        return rclone_clients

    def opened(self, url, client):
        return RetryingBackend(super().opened(url, client), sleep=lambda _: None)

    def behind(self, backend, key):
        return super().behind(backend.inner, key)

    def unplug(self, backend):
        super().unplug(backend.inner)

    def ignored(self):
        pytest.skip("this server ignores If-None-Match")

    test_a_key_that_is_taken_keeps_its_content = ignored
    test_the_same_create_again_is_refused_too = ignored
    test_what_another_created_is_taken = ignored
    test_of_many_callers_exactly_one_creates_a_key = ignored
    test_an_empty_object_takes_its_key_too = ignored
    test_an_upload_does_not_change_what_has_its_key = ignored


class TestRealBucket(BackendContract):
    """The place that `HOLDFAST_TEST_S3_URL` names, in a directory of its own, removed again."""

    @pytest.fixture
    def backend(self):
        url = os.environ.get("HOLDFAST_TEST_S3_URL")
        if not url:
            pytest.skip("HOLDFAST_TEST_S3_URL names no bucket")
        backend = open_backend(f"{url.rstrip('/')}/holdfast-{secrets.token_hex(8)}")
        self.other = open_backend(backend.url)
        yield backend
        backend.delete(*[entry.key for entry in backend.scan("")])

    def behind(self, backend, key):
        try:
            return S3FileSystem(skip_instance_cache=True).cat_file(f"{backend.url}/{key}")
        except FileNotFoundError:
            return None

    def another(self, backend):
        return self.other


@pytest.fixture
def place(moto):
    """A place of its own on a server whose requests are counted from now on."""
    url = moto.url(f"runs/{next(_numbers)}")
    moto.requests.clear()
    return url


@pytest.fixture
def backend(moto, place):
    return S3Backend(place, moto.storage_options(), part_bytes=_PART)


@pytest.fixture
def proxy(moto):
    with FaultProxy(moto.endpoint) as proxy:
        yield proxy


@pytest.fixture
def through(moto, place, proxy):
    """A backend that meets the proxy's faults."""
    options = {**moto.storage_options(), "endpoint_url": proxy.endpoint}
    return S3Backend(place, options, part_bytes=_PART)


def write(path, size, byte=b"x"):
    path.write_bytes(byte * size)
    return path


def behind(moto, backend, key):
    return moto.behind(f"{backend._root}{key}")


# Requests.


def test_no_call_makes_more_requests_than_it_has_to(moto, backend, tmp_path):
    source = write(tmp_path / "source", 1000)
    keys = [f"many/{number:04}" for number in range(3)]
    calls = {
        "create": (lambda: backend.create("a", b"a"), {"PutObject": 1}),
        "read": (lambda: backend.read("a"), {"GetObject": 1}),
        "upload": (lambda: backend.upload(source, "b"), {"PutObject": 1}),
        "upload again": (
            lambda: backend.upload(source, "b"),
            {"PutObject": 1, "HeadObject": 1},
        ),
        "download": (lambda: backend.download("b", tmp_path / "target"), {"GetObject": 1}),
        "scan": (lambda: list(backend.scan("")), {"ListObjectsV2": 1}),
        "delete": (lambda: backend.delete("a"), {"DeleteObject": 1}),
        "delete many": (lambda: backend.delete(*keys), {"DeleteObjects": 1}),
        "delete none": (backend.delete, {}),
    }

    counted = {}
    for name, (call, _) in calls.items():
        moto.requests.clear()
        call()
        counted[name] = dict(moto.counted())

    assert counted == {name: wanted for name, (_, wanted) in calls.items()}


def test_a_thousand_keys_are_listed_and_deleted_with_one_request(moto, backend):
    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    keys = [f"manifests/{number:04}" for number in range(2001)]
    for key in keys:
        bucket.put_object(moto.bucket, backend._root + key, b"")

    found = [entry.key for entry in backend.scan("manifests/")]
    backend.delete(*found)

    assert found == keys
    assert moto.counted() == {"ListObjectsV2": 3, "DeleteObjects": 3}
    assert list(backend.scan("")) == []


def test_a_scan_asks_for_a_page_when_it_comes_to_it(moto, backend):
    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(1001):
        bucket.put_object(moto.bucket, f"{backend._root}manifests/{number:04}", b"")

    scan = backend.scan("manifests/")
    next(scan)

    assert moto.counted() == {"ListObjectsV2": 1}
    assert len(list(scan)) == 1000


def test_nothing_but_what_checkpoints_need_is_ever_asked(moto, place, tmp_path):
    trainer = S3Backend(place, moto.storage_options("trainer"), part_bytes=_PART)
    source = write(tmp_path / "source", 2 * _PART)

    trainer.create("a", b"a")
    trainer.upload(source, "b")
    trainer.upload(source, "b")
    trainer.download("b", tmp_path / "target")
    assert trainer.read("a") == b"a"
    assert [entry.key for entry in trainer.scan("")] == ["a", "b"]

    assert {request.status for request in moto.requests} <= {200, 206, 404}


# Uploads in parts.


def test_a_large_file_goes_up_in_parts_and_none_is_left(moto, backend, tmp_path):
    content = os.urandom(2 * _PART + 1000)
    source = tmp_path / "source"
    source.write_bytes(content)
    told = []

    backend.upload(source, "files/a/model", told.append)

    assert behind(moto, backend, "files/a/model") == content
    assert sum(told) == len(content)
    assert max(told) <= wire.PIECE_BYTES
    assert moto.uploads() == []
    assert moto.counted() == {
        "HeadObject": 1,
        "CreateMultipartUpload": 1,
        "UploadPart": 3,
        "CompleteMultipartUpload": 1,
    }


def test_a_large_file_comes_down_in_ranges_of_one_object(moto, backend, tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "RANGE_BYTES", 1000)
    monkeypatch.setattr("holdfast.backends.s3.backend.RANGE_BYTES", 1000)
    content = os.urandom(3500)
    backend.create("a", content)
    told = []

    backend.download("a", tmp_path / "target", told.append)

    assert (tmp_path / "target").read_bytes() == content
    assert sum(told) == len(content)
    asked = [request for request in moto.requests if request.operation == "GetObject"]
    assert len(asked) == 4
    assert len({request.headers.get("if-match") for request in asked[1:]} - {None}) == 1


def test_an_object_replaced_while_it_comes_down_is_not_mixed(moto, backend, tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "RANGE_BYTES", 1000)
    monkeypatch.setattr(ranges, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(ranges, "_AT_ONCE", 1)
    monkeypatch.setattr("holdfast.backends.s3.backend.RANGE_BYTES", 1000)
    backend.create("a", b"a" * 3000)
    medium = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def replace(_):
        medium.put_object(moto.bucket, backend._root + "a", b"b" * 3000)

    with pytest.raises(StorageError, match="replaced"):
        backend.download("a", tmp_path / "target", replace)

    assert not (tmp_path / "target").exists()


def test_a_large_upload_again_sends_nothing_again(moto, backend, tmp_path):
    source = write(tmp_path / "source", 2 * _PART)
    backend.upload(source, "files/a/model")
    moto.requests.clear()

    backend.upload(source, "files/a/model")

    assert moto.counted() == {"HeadObject": 1}


def test_a_large_file_does_not_replace_another(moto, backend, tmp_path):
    backend.upload(write(tmp_path / "first", 2 * _PART, b"1"), "files/a/model")

    with pytest.raises(AlreadyExists):
        backend.upload(write(tmp_path / "second", 2 * _PART, b"2"), "files/a/model")

    assert behind(moto, backend, "files/a/model") == b"1" * 2 * _PART


def test_of_two_large_uploads_at_once_one_wins(moto, backend, tmp_path):
    files = [write(tmp_path / "a", 2 * _PART, b"a"), write(tmp_path / "b", 2 * _PART, b"b")]
    both_begun = threading.Barrier(2, timeout=60)

    def upload(source):
        both_begun.wait()
        try:
            backend.upload(source, "files/a/model")
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(upload, files))

    assert sorted(won) == [False, True]
    assert behind(moto, backend, "files/a/model") == files[won.index(True)].read_bytes()
    assert moto.uploads() == []


def test_an_upload_that_fails_takes_away_its_own_parts_and_nobody_elses(
    moto, through, proxy, tmp_path
):
    medium = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    medium.create_multipart_upload(
        moto.bucket, "somebody/elses", {}, "STANDARD", [], None, "", None
    )
    proxy.plan(
        Fault("refuse", at=2, lasting=True, only=lambda request: "partNumber" in request.query)
    )

    with pytest.raises(StorageError):
        through.upload(write(tmp_path / "source", 3 * _PART), "files/a/model")

    assert moto.uploads() == ["somebody/elses"]
    assert behind(moto, through, "files/a/model") is None


def test_an_upload_that_was_given_up_ends_and_takes_away_its_parts(moto, backend, tmp_path):
    def given_up(_):
        raise StorageError("the attempt was given up.")

    with pytest.raises(StorageError):
        backend.upload(write(tmp_path / "source", 3 * _PART), "files/a/model", given_up)

    assert moto.counted()["AbortMultipartUpload"] == 1
    assert behind(moto, backend, "files/a/model") is None


def test_a_part_that_was_given_up_is_read_no_more(tmp_path):
    with write(tmp_path / "source", 2 * wire.PIECE_BYTES).open("rb") as file:
        told = []
        part = wire.FilePart(file.fileno(), 0, 2 * wire.PIECE_BYTES, told.append)
        sending = part.watched()
        next(sending)

        part.give_up()

        with pytest.raises(StorageError, match="given up"):
            next(sending)
    assert told == [wire.PIECE_BYTES]


def test_parts_under_way_are_bounded_over_all_uploads(backend, tmp_path, monkeypatch):
    source = write(tmp_path / "source", 4 * _PART)
    monkeypatch.setattr(s3_client, "PARTS_AT_ONCE", 2)
    client = backend._client.get()
    under_way, most, send = [], [], client.send

    async def counting(method, body, **parameters):
        under_way.append(body)
        most.append(len(under_way))
        try:
            return await send(method, body, **parameters)
        finally:
            under_way.remove(body)

    monkeypatch.setattr(client, "send", counting)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda key: backend.upload(source, f"files/{key}"), range(3)))

    assert len(most) == 12
    assert max(most) == 2


def test_a_lost_reply_is_settled_by_the_repeat(moto, through, proxy, tmp_path):
    source = write(tmp_path / "source", 1000)
    proxy.plan(Fault("lost"))
    with pytest.raises(StorageError):
        through.upload(source, "files/a/model")

    through.upload(source, "files/a/model")

    assert behind(moto, through, "files/a/model") == source.read_bytes()


def test_a_lost_reply_to_the_end_of_a_large_upload_is_settled_too(moto, through, proxy, tmp_path):
    source = write(tmp_path / "source", 2 * _PART)
    proxy.plan(Fault("lost", only=lambda request: request.query.startswith("uploadId=")))
    with pytest.raises(StorageError):
        through.upload(source, "files/a/model")
    moto.requests.clear()

    through.upload(source, "files/a/model")

    assert moto.counted() == {"HeadObject": 1}


@pytest.mark.parametrize("size", [1000, 2 * _PART])
def test_an_upload_damaged_on_the_way_is_noticed_and_its_key_stays_taken(
    moto, through, proxy, tmp_path, size
):
    source = write(tmp_path / "source", size)
    proxy.plan(
        Fault(
            "flip request",
            only=lambda request: request.method == "PUT" and request.header("Content-MD5"),
        )
    )

    with pytest.raises(StorageError, match="damaged") as caught:
        through.upload(source, "files/a/model")

    assert type(caught.value) is StorageError
    assert not caught.value.lasting
    assert behind(moto, through, "files/a/model") != source.read_bytes()  # this server checks none
    with pytest.raises(AlreadyExists):
        through.upload(source, "files/a/model")


def test_a_small_object_damaged_on_the_way_is_noticed_too(moto, through, proxy):
    proxy.plan(Fault("flip request"))

    with pytest.raises(StorageError, match="damaged"):
        through.create("manifests/a.json", b"a" * 1000)

    with pytest.raises(AlreadyExists):
        through.create("manifests/a.json", b"a" * 1000)


def test_what_has_a_digest_of_another_kind_is_compared_by_its_bytes(moto, backend, tmp_path):
    large = S3Backend(backend.url, moto.storage_options(), part_bytes=6 * _MIB)
    source = write(tmp_path / "source", 12 * _MIB)
    large.upload(source, "files/a/model")  # its ETag is made of other parts
    moto.requests.clear()

    backend.upload(source, "files/a/model")
    with pytest.raises(AlreadyExists):
        backend.upload(write(tmp_path / "other", 12 * _MIB, b"y"), "files/a/model")

    assert moto.counted() == {"HeadObject": 2, "GetObject": 2}


def test_the_users_additional_parameters_go_along_where_they_fit(moto, place, tmp_path):
    encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "the-key"}
    options = {**moto.storage_options(), "s3_additional_kwargs": encrypted}
    backend = S3Backend(place, options, part_bytes=_PART)

    backend.create("a", b"a")
    backend.upload(write(tmp_path / "small", 10), "b")
    backend.upload(write(tmp_path / "large", 2 * _PART), "c")
    assert backend.read("a") == b"a"

    encrypting = [
        request.operation
        for request in moto.requests
        if request.headers.get("x-amz-server-side-encryption") == "aws:kms"
    ]
    assert encrypting == ["PutObject", "PutObject", "CreateMultipartUpload"]


def test_every_body_has_a_digest_and_no_newer_checksum(moto, backend, tmp_path):
    backend.create("a", b"a")
    backend.upload(write(tmp_path / "large", 2 * _PART), "c")
    backend.delete("x", "y")

    bodies = [
        request
        for request in moto.requests
        if request.operation in ("PutObject", "UploadPart", "DeleteObjects")
    ]
    assert len(bodies) == 4
    assert all("content-md5" in request.headers for request in bodies)
    assert not any("x-amz-checksum-crc32" in request.headers for request in bodies[:3])
    hashed_twice = {request.headers["x-amz-content-sha256"] for request in bodies[:3]}
    assert hashed_twice == {"UNSIGNED-PAYLOAD"}


@pytest.mark.parametrize("where", ["config_kwargs", "profile"])
def test_bodies_are_signed_where_the_user_wants_it(moto, place, where, tmp_path, monkeypatch):
    options = moto.storage_options()
    if where == "config_kwargs":
        options["config_kwargs"] = {"s3": {"payload_signing_enabled": True}}
    else:
        settings = tmp_path / "config"
        settings.write_text("[profile lab]\ns3 =\n    payload_signing_enabled = true\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(settings))
        options["profile"] = "lab"
    source = write(tmp_path / "source", 1000)

    S3Backend(place, options).upload(source, "a")

    wanted = hashlib.sha256(source.read_bytes()).hexdigest()
    assert moto.requests[0].headers["x-amz-content-sha256"] == wanted


@pytest.mark.parametrize("where", ["config_kwargs", "environment", "profile"])
def test_what_the_user_set_is_left_as_it_is(moto, place, where, tmp_path, monkeypatch):
    options = moto.storage_options()
    if where == "config_kwargs":
        options["config_kwargs"] = {"request_checksum_calculation": "when_supported"}
    elif where == "environment":
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    else:
        settings = tmp_path / "config"
        settings.write_text("[profile lab]\nrequest_checksum_calculation = when_supported\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(settings))
        options["profile"] = "lab"

    S3Backend(place, options).create("a", b"a")

    assert "x-amz-checksum-crc32" in moto.requests[0].headers


# Downloads.


@pytest.mark.parametrize("kind", ["short reply", "cut reply"])
def test_a_range_that_breaks_off_is_gone_on_with(moto, through, proxy, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(wire, "PIECE_BYTES", 1000)  # what was read of one when it broke off is lost
    content = os.urandom(4 * _MIB)
    through.create("a", content)
    proxy.plan(Fault(kind))

    through.download("a", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == content
    asked = [request.headers["range"] for request in moto.requests if "range" in request.headers]
    assert len(asked) == 2
    assert asked[1] not in (asked[0], f"bytes=0-{len(content) - 1}")


def test_a_place_that_fails_for_good_leaves_no_target(through, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "_FIRST_PAUSE_S", 0.0)
    through.create("a", b"a" * _MIB)
    proxy.plan(Fault("short reply", lasting=True))

    with pytest.raises(StorageError):
        through.download("a", tmp_path / "target")

    assert not (tmp_path / "target").exists()


# Names.


def test_a_store_may_be_a_whole_bucket(tmp_path):
    with MotoServer() as server:
        backend = S3Backend(server.url(), server.storage_options())
        backend.create("manifests/a.json", b"a")
        backend.upload(write(tmp_path / "source", 10), "files/a/model")

        assert server.behind("manifests/a.json") == b"a"
        assert [entry.key for entry in backend.scan("")] == ["files/a/model", "manifests/a.json"]
        assert [entry.key for entry in backend.scan("", "files/b")] == ["manifests/a.json"]


def test_what_lies_beside_a_store_is_not_in_it(moto, backend):
    medium = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    root = backend._root.rstrip("/")
    for key in ("", "0/manifests/a.json", ".json", "-other/a"):
        medium.put_object(moto.bucket, root + key, b"somebody else's")
    backend.create("manifests/a.json", b"a")

    found = [entry.key for entry in backend.scan("")]

    assert found == ["manifests/a.json"]


def test_the_markers_of_directories_are_no_entries(moto, backend):
    medium = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for key in ("", "manifests/", "files/a/"):
        medium.put_object(moto.bucket, backend._root + key, b"")
    backend.create("manifests/a.json", b"a")

    found = [entry.key for entry in backend.scan("")]

    assert found == ["manifests/a.json"]


def test_s3a_is_the_same_place(moto):
    backend = open_backend(moto.url("a").replace("s3://", "s3a://"), moto.storage_options())
    backend.create("x", b"x")

    assert isinstance(backend, RetryingBackend)
    assert moto.behind("a/x") == b"x"


def test_a_server_that_lists_out_of_order_is_not_relied_on(through, proxy):
    page = (
        "<ListBucketResult><IsTruncated>false</IsTruncated>"
        f"<Contents><Key>{through._root}b</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified>"
        f"</Contents><Contents><Key>{through._root}a</Key><Size>1</Size>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
    )
    proxy.plan(Fault("answer", answer=Answer(200, page.encode())))

    with pytest.raises(StorageError, match="out of order") as caught:
        list(through.scan(""))

    assert caught.value.lasting


@pytest.mark.parametrize("body", [b"", b"<html><body>Please log in</body></html>"])
def test_an_answer_that_is_no_listing_is_never_an_empty_place(through, proxy, body):
    proxy.plan(Fault("answer", answer=Answer(200, body), lasting=True))

    with pytest.raises(StorageError) as caught:
        list(through.scan(""))

    assert "What is committed is untouched" in str(caught.value)


def test_a_server_that_does_not_say_what_it_has_deleted_is_not_relied_on(through, proxy):
    proxy.plan(Fault("answer", answer=Answer(200, b"<DeleteResult></DeleteResult>")))

    with pytest.raises(StorageError, match="what it has deleted"):
        through.delete("files/a", "files/b")


# Where credentials and the endpoint come from.


def test_credentials_and_the_endpoint_may_come_from_the_environment(moto, place, monkeypatch):
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)

    S3Backend(place, {}).create("a", b"a")

    assert moto.counted() == {"PutObject": 1}


def test_credentials_and_the_endpoint_may_come_from_a_profile(moto, place, tmp_path, monkeypatch):
    settings = tmp_path / "config"
    settings.write_text(
        "[profile lab]\naws_access_key_id = key-of-owner\naws_secret_access_key = secret\n"
        f"region = us-east-1\nendpoint_url = {moto.endpoint}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(settings))

    S3Backend(place, {"profile": "lab"}).create("a", b"a")

    assert moto.counted() == {"PutObject": 1}


def test_what_anybody_may_read_needs_no_credentials(moto, backend, place):
    backend.create("a", b"a")
    anybody = S3Backend(place, moto.storage_options("anonymous"))

    assert anybody.read("a") == b"a"
    assert [entry.key for entry in anybody.scan("")] == ["a"]
    assert "authorization" not in moto.requests[-1].headers
    with pytest.raises(AccessDenied, match="s3:PutObject"):
        anybody.create("b", b"b")


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"config_kwargs": {"no_such_option": 1}},
        {"profile": "nobody-has-this"},
        {"key": "a", "username": "b"},
    ],
    ids=repr,
)
def test_options_that_do_not_fit_are_told_at_once(options):
    with pytest.raises(InvalidInputError, match="Nothing was touched"):
        open_backend("s3://bucket/run", {**options, "secret": "canary-secret"})


# What is refused.


@pytest.mark.parametrize(
    ("role", "verb", "right"),
    [
        ("nobody", "create", "s3:PutObject"),
        ("nobody", "upload", "s3:PutObject"),
        ("nobody", "upload large", "s3:PutObject"),
        ("nobody", "read", "s3:GetObject"),
        ("nobody", "download", "s3:GetObject"),
        ("nobody", "scan", "s3:ListBucket"),
        ("reader", "create", "s3:PutObject"),
        ("trainer", "delete", "s3:DeleteObject"),
        ("trainer", "delete many", "s3:DeleteObject"),
    ],
)
def test_a_refusal_names_the_missing_right(moto, place, tmp_path, role, verb, right):
    backend = S3Backend(place, moto.storage_options(role), part_bytes=_PART)
    small, large = write(tmp_path / "small", 10), write(tmp_path / "large", 2 * _PART)
    calls = {
        "create": lambda: backend.create("a", b"a"),
        "upload": lambda: backend.upload(small, "a"),
        "upload large": lambda: backend.upload(large, "a"),
        "read": lambda: backend.read("a"),
        "download": lambda: backend.download("a", tmp_path / "target"),
        "scan": lambda: list(backend.scan("")),
        "delete": lambda: backend.delete("a"),
        "delete many": lambda: backend.delete("a", "b"),
    }

    with pytest.raises(AccessDenied) as caught:
        calls[verb]()

    assert f"the right {right} is missing" in str(caught.value)
    assert "What is committed is untouched" in str(caught.value)


def test_who_may_not_list_is_told_that_a_key_may_be_missing(moto, place):
    backend = S3Backend(place, moto.storage_options("blind"))

    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        backend.read("missing")


@pytest.mark.parametrize(
    ("role", "why"), [("expired", "have expired"), ("stranger", "does not know the access key")]
)
def test_credentials_that_do_not_work_are_told_apart(moto, place, tmp_path, role, why):
    backend = S3Backend(place, moto.storage_options(role), part_bytes=_PART)
    large = write(tmp_path / "large", 2 * _PART)
    calls = (
        lambda: backend.read("a"),
        lambda: list(backend.scan("")),
        lambda: backend.create("a", b""),
        lambda: backend.upload(large, "a"),
        lambda: backend.delete("a"),
    )

    for call in calls:
        with pytest.raises(AccessDenied, match=why):
            call()


def test_without_credentials_it_is_said_where_they_are_looked_for(moto, place):
    backend = S3Backend(place, {"endpoint_url": moto.endpoint})

    with pytest.raises(AccessDenied, match="aws sso login"):
        backend.read("a")


def test_a_bucket_that_does_not_exist_is_never_empty_and_never_made(moto, tmp_path):
    backend = S3Backend("s3://no-such-bucket/run", moto.storage_options(), part_bytes=_PART)
    large = write(tmp_path / "large", 2 * _PART)
    calls = (
        lambda: backend.read("a"),
        lambda: backend.download("a", tmp_path / "target"),
        lambda: list(backend.scan("")),
        lambda: backend.create("a", b""),
        lambda: backend.upload(large, "a"),
    )

    for call in calls:
        with pytest.raises(StorageError, match="no-such-bucket does not exist") as caught:
            call()
        assert caught.value.lasting

    assert "CreateBucket" not in moto.counted()


def test_an_endpoint_that_cannot_be_reached_is_named(place):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    options = {"key": "key-of-owner", "secret": "secret", "endpoint_url": f"http://{nobody}"}

    with pytest.raises(StorageError, match=f"{nobody} cannot be reached"):
        S3Backend(place, options).read("a")


def test_a_redirect_is_not_followed(moto, through, proxy, tmp_path):
    with FaultProxy(moto.endpoint) as elsewhere:
        answer = Answer(307, headers=(("Location", f"{elsewhere.endpoint}/somewhere"),))
        proxy.plan(Fault("answer", lasting=True, answer=answer))

        for call in (
            lambda: through.read("a"),
            lambda: through.upload(write(tmp_path / "source", 10), "a"),
        ):
            with pytest.raises(StorageError, match="redirects are not followed") as caught:
                call()
            assert caught.value.lasting

        assert elsewhere.requests == []
        assert len(proxy.requests) <= 4


def test_the_region_where_a_bucket_lies_is_named(through, proxy):
    body = (
        b"<Error><Code>IllegalLocationConstraintException</Code>"
        b"<Message>no</Message><Region>eu-central-1</Region></Error>"
    )
    proxy.plan(Fault("answer", lasting=True, answer=Answer(400, body)))

    with pytest.raises(StorageError, match="lies in the region eu-central-1") as caught:
        through.create("a", b"a")

    assert caught.value.lasting


def test_a_server_that_never_answers_is_not_waited_for(moto, place, proxy):
    options = {
        **moto.storage_options(),
        "endpoint_url": proxy.endpoint,
        "config_kwargs": {"read_timeout": 0.2},
    }
    proxy.plan(Fault("hang", lasting=True))

    with pytest.raises(DeadlineExceeded, match="did not answer in time"):
        S3Backend(place, options).read("a")


def test_an_upload_that_stands_still_gives_its_place_to_others(
    moto, backend, tmp_path, monkeypatch
):
    monkeypatch.setattr(wire, "_STANDSTILL_S", 0.3)
    monkeypatch.setattr(s3_client, "PARTS_AT_ONCE", 1)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:  # takes, never asks
        options = {
            **moto.storage_options(),
            "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        standing = S3Backend(backend.url, options)

        more_than_sockets_hold = write(tmp_path / "source", 12 * _MIB)
        for _ in range(2):  # the second would wait for ever for the slot of the first
            with pytest.raises(DeadlineExceeded, match="took nothing"):
                standing.upload(more_than_sockets_hold, "a")


# Processes, threads and secrets.


def test_a_script_that_ends_can_still_reach_a_host_by_its_name(moto, place, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, sys\n"
        "from holdfast.backends.s3 import S3Backend\n"
        "url, endpoint = sys.argv[1:]\n"
        "options = {'key': 'key-of-owner', 'secret': 'secret', 'endpoint_url': endpoint,\n"
        "    'config_kwargs': {'max_pool_connections': 1}}\n"
        "backend = S3Backend(url, options)\n"
        "backend.create('before', b'before')\n"
        "for client in backend._client.get()._clients:\n"
        "    [session] = client._endpoint.http_session._sessions.values()\n"
        "    session.connector.clear_dns_cache()\n"
        "    session.connector._conns.clear()  # what was open is gone by then\n"
        "atexit.register(backend.create, 'at exit', b'at exit')\n"
    )

    ran = subprocess.run(
        [sys.executable, script, place, moto.endpoint.replace("127.0.0.1", "localhost")],
        capture_output=True,
        text=True,
    )

    assert ran.stderr == ""
    assert {request.key.rpartition("/")[2] for request in moto.requests} == {"before", "at exit"}


def test_a_forked_child_has_a_client_of_its_own_and_leaves_the_parents_alone(moto, backend):
    backend.create("before", b"before")

    child = os.fork()
    if child == 0:
        try:
            backend.create("child", backend.read("before"))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert backend.read("child") == b"before"
    assert behind(moto, backend, "child") == b"before"


def test_an_interrupted_call_is_cancelled(backend):
    client = backend._client.get()
    main, cancelled = threading.main_thread().ident, threading.Event()

    async def interrupting():
        try:
            while sys._current_frames()[main].f_code is not threading.Condition.wait.__code__:
                await asyncio.sleep(0)
            signal.pthread_kill(main, signal.SIGINT)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        client.run(interrupting())

    assert cancelled.wait(60)


def test_no_secret_is_shown(moto, place, tmp_path, caplog, proxy):
    caplog.set_level(logging.INFO)
    secret_options = {
        "key": "key-of-expired",
        "secret": "canary-secret-key",
        "token": "canary-session-token",
        "s3_additional_kwargs": {"SSECustomerKey": "canary-customer-key"},
        "endpoint_url": proxy.endpoint,
    }
    unknown_option = {**secret_options, "no_such_option": "canary-option"}
    words = " ".join(["AKIAIOSFODNN7CANARY", *map(str, secret_options.values())])
    body = f"<Error><Code>Odd</Code><Message>{words}</Message></Error>"
    backend = S3Backend(place, secret_options)
    wrapped = open_backend(place, secret_options)
    shown = [repr(backend), repr(wrapped), str(vars(backend._client))]
    calls = [
        lambda: backend.read("a"),
        lambda: backend.create("a", b"a"),
        lambda: backend.upload(write(tmp_path / "source", 10), "a"),
        lambda: backend.download("a", tmp_path / "target"),
        lambda: list(backend.scan("")),
        lambda: backend.delete("a"),
        lambda: S3Backend(place, unknown_option),
    ]

    for faults in ([], [Fault("answer", lasting=True, answer=Answer(400, body.encode()))]):
        proxy.plan(*faults)
        for call in calls:
            with pytest.raises((StorageError, InvalidInputError)) as caught:
                call()
            shown.append("".join(traceback.format_exception(caught.value)))

    seen = "".join(shown) + caplog.text
    assert "canary" not in seen
    assert "AKIA" not in seen


def test_a_backend_is_not_pickled_with_its_secrets(backend):
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pickle.dumps(backend)


def test_a_client_that_is_no_longer_needed_closes_its_connections(moto, place):
    backend = S3Backend(place, moto.storage_options())
    backend.create("a", b"a")
    backend.read("a")
    [client] = backend._client.get()._clients
    session = client._endpoint.http_session
    assert len(session._large._manager.pools) == 1

    del backend

    async def closed():
        # Set to None, and emptied, when it is closed.
        while session._sessions is not None or len(session._large._manager.pools):
            await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(closed(), s3_client.get_loop()).result(60)
