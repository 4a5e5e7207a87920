"""A real SFTP server keeps the contract, through fsspec and paramiko."""

import itertools
import os
import signal
import time
import traceback
import tracemalloc

import paramiko
import pytest

from holdfast import open_store
from holdfast.backends import open_backend
from holdfast.backends.fsspec import sftp
from holdfast.backends.retrying import RetryingBackend
from holdfast.errors import AccessDenied, AlreadyExists, InvalidInputError, StorageError
from holdfast.testing import backends
from holdfast.testing.backends import BackendContract
from tests import share
from tests.servers.sftp import SftpServer

_numbers = itertools.count()
#: Seconds after which a process counts as one that never ends.
PATIENCE_S = 60


@pytest.fixture(scope="module")
def any_server():
    with SftpServer() as server:
        yield server


@pytest.fixture
def server(any_server):
    any_server.start()  # a test may have stopped it
    return any_server


@pytest.fixture
def place():
    return f"runs/{next(_numbers)}"


@pytest.fixture
def opened(server, place):
    """Opens the place of this test, as another process would, and loses no time with pauses."""

    def opened(role="owner", **options):
        given = {**server.storage_options(role), **options}
        backend = open_backend(f"{server.url}/{place}", given)
        return RetryingBackend(backend.inner, sleep=lambda _: None)

    return opened


class TestSftp(BackendContract):
    large_bytes = 32 * 1024 * 1024

    @pytest.fixture
    def backend(self, opened, server, place):
        self.opened, self.server, self.place = opened, server, place
        return opened()

    def another(self, backend):
        return self.opened()

    def behind(self, backend, key):
        return self.server.behind(f"{self.place}/{key}")

    def unplug(self, backend):
        self.server.stop()

    def test_a_scan_gives_what_sorts_after_a_key(self, backend, monkeypatch):
        """A scan is a dozen requests here, so a run begins after every eighth place only."""
        first, every = share.turn(8)
        places = backends._beginnings
        monkeypatch.setattr(backends, "_beginnings", lambda keys: places(keys)[first - 1 :: every])

        super().test_a_scan_gives_what_sorts_after_a_key(backend)


def test_checkpoints_are_kept_and_pruned_there(server, place, tmp_path):
    (tmp_path / "model").write_bytes(b"weights")
    store = open_store(
        f"{server.url}/{place}",
        storage_options=server.storage_options(),
        workspace=tmp_path / "workspace",
    )

    saved = [store.save(tmp_path / "model", step=step) for step in (1, 2)]

    assert store.checkpoints() == saved
    assert (store.download() / "model").read_bytes() == b"weights"
    assert store.verify(deep=True).ok


def test_a_connection_that_was_lost_is_made_anew(server, opened, tmp_path):
    backend = opened()
    (tmp_path / "source").write_bytes(b"content")
    backend.create("manifests/a", b"a")

    server.disconnect()
    backend.upload(tmp_path / "source", "files/a/model")
    server.disconnect()

    assert backend.read("manifests/a") == b"a"
    assert [entry.key for entry in backend.scan("")] == ["files/a/model", "manifests/a"]


def test_the_place_may_be_named_from_a_forked_process(opened):
    backend = opened()
    backend.create("manifests/a", b"a")

    child = os.fork()
    if not child:
        ended = 1
        signal.alarm(PATIENCE_S)  # ends a child that hangs
        try:
            backend.create("manifests/b", backend.read("manifests/a"))
            ended = 0
        finally:
            os._exit(ended)
    _, status = os.waitpid(child, 0)
    backend.create("manifests/c", b"c")

    assert status == 0
    assert [backend.read(f"manifests/{name}") for name in "abc"] == [b"a", b"a", b"c"]


def test_a_transfer_tells_how_far_it_is(opened, tmp_path):
    backend = opened()
    (tmp_path / "source").write_bytes(bytes(300_000))
    sent, fetched = [], []

    backend.upload(tmp_path / "source", "files/a/model", sent.append)
    backend.download("files/a/model", tmp_path / "target", fetched.append)

    assert (sum(sent), sum(fetched)) == (300_000, 300_000)
    assert min(len(sent), len(fetched)) > 3


def test_a_download_whose_requests_come_late_takes_little_memory(opened, tmp_path, monkeypatch):
    """What was asked for has come before more is asked for; paramiko then reads part by part."""
    ask = paramiko.SFTPClient._async_request

    def ask_and_pause(client, source, *asked):
        number = ask(client, source, *asked)
        if isinstance(source, paramiko.SFTPFile) and id(source) not in paused:
            paused.append(id(source))
            time.sleep(0.05)
        return number

    backend, paused, size = opened(), [], 16 * 1024 * 1024
    monkeypatch.setattr(sftp, "_AHEAD", 64)
    (tmp_path / "source").write_bytes(bytes(size))
    backend.upload(tmp_path / "source", "files/a/model")
    monkeypatch.setattr(paramiko.SFTPClient, "_async_request", ask_and_pause)
    tracemalloc.start()
    try:
        backend.download("files/a/model", tmp_path / "target")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert paused
    assert peak < size // 2
    assert (tmp_path / "target").stat().st_size == size


def test_a_transfer_that_is_given_up_leaves_nothing(opened, tmp_path):
    backend = opened().inner
    (tmp_path / "source").write_bytes(bytes(300_000))

    def give_up(_):
        raise StorageError("given up")

    with pytest.raises(StorageError, match="given up"):
        backend.upload(tmp_path / "source", "files/a/model", give_up)

    assert list(backend.scan("")) == []


def test_a_delete_leaves_no_empty_directories(server, place, opened):
    backend = opened()
    backend.create("files/a/sub/model", b"a")
    backend.create("files/b/model", b"b")

    backend.delete("files/a/sub/model", "files/b/model")

    assert list((server.root / place / "files").iterdir()) == []


def test_a_user_who_may_only_read_reads_and_is_told_what_is_missing(opened):
    opened().create("manifests/a", b"a")
    reader = opened("reader")

    with pytest.raises(AccessDenied, match="Permission denied"):
        reader.create("manifests/b", b"b")
    with pytest.raises(AccessDenied, match="Permission denied"):
        reader.delete("manifests/a")

    assert reader.read("manifests/a") == b"a"
    assert [entry.key for entry in reader.scan("")] == ["manifests/a"]


def test_a_wrong_password_is_told_with_its_cure_and_without_the_password(opened):
    password = "-".join(["not", "the", "password"])  # a traceback shows this line

    with pytest.raises(AccessDenied, match="key_filename") as caught:
        opened(password=password)

    assert password not in "".join(traceback.format_exception(caught.value))


def test_a_server_with_another_key_than_is_known_is_refused(server, opened, tmp_path, monkeypatch):
    host = server.url.removeprefix("sftp://127.0.0.1:")
    another = paramiko.RSAKey.generate(2048)
    known = tmp_path / ".ssh" / "known_hosts"
    known.parent.mkdir()
    known.write_text(f"[127.0.0.1]:{host} ssh-rsa {another.get_base64()}\n")
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(StorageError, match="right server") as caught:
        opened()

    assert caught.value.lasting


def test_a_server_that_is_not_known_is_refused_on_request(opened):
    with pytest.raises(StorageError, match="known_hosts"):
        opened(host_key_policy="reject")


def test_a_wrong_option_is_wrong_input(opened):
    with pytest.raises(InvalidInputError, match="nonsense"):
        opened(nonsense=1)


def test_a_server_that_is_not_there_is_a_failure_of_the_place(server):
    options = server.storage_options()
    server.stop()

    with pytest.raises(StorageError, match="What is committed is untouched"):
        open_backend(f"{server.url}/run", options)


def test_what_a_lost_reply_left_is_found_to_be_taken(opened):
    backend = opened().inner
    with backend._clients.one() as filesystem:
        rename = filesystem.mv

        def rename_and_lose_the_reply(old, new):
            rename(old, new)
            raise EOFError("connection lost")

        filesystem.mv = rename_and_lose_the_reply

    with pytest.raises(AlreadyExists):
        backend.create("manifests/a", b"a")

    assert backend.read("manifests/a") == b"a"
    assert [entry.key for entry in backend.scan("")] == ["manifests/a"]
