"""Cloud Storage keeps the contract, also when its answers are lost, late, cut, or no."""

import itertools
import os
import time

import pytest
from gcsfs.core import GCSFileSystem

import holdfast
from holdfast.backends import open_backend, ranges
from holdfast.backends.gcs import GcsBackend
from holdfast.backends.gcs import upload as gcs_upload
from holdfast.errors import (
    AlreadyExists,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from holdfast.testing.backends import BackendContract
from tests.contract.gcs_setup import CHUNK, VERBS, in_chunks, opened
from tests.servers.gcs import GcsServer
from tests.servers.proxy import Answer, Fault, FaultProxy

_numbers = itertools.count()
REAL_URL = os.environ.get("HOLDFAST_TEST_GCS_URL")


@pytest.fixture(scope="module")
def shared():
    with GcsServer() as server:
        yield server


@pytest.fixture
def server():
    with GcsServer() as server:
        yield server


@pytest.fixture
def proxy(server):
    with FaultProxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(gcs_upload, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(ranges, "_FIRST_PAUSE_S", 0.0)


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that is sent in five chunks, the last of them short."""
    monkeypatch.setattr("holdfast.backends.gcs.backend._SMALL_BYTES", 1)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(4 * CHUNK + 1000))
    return path


def is_chunk(request):
    return "upload_id" in request.query and request.method == "PUT"


class TestGcs(BackendContract):
    @pytest.fixture
    def backend(self, shared):
        self.server = shared
        return opened(shared, place=f"runs/{next(_numbers)}")

    def another(self, backend):
        return GcsBackend.open(backend.url, self.server.storage_options())

    def behind(self, backend, key):
        return self.server.behind(f"{backend.url.split('/', 3)[3]}/{key}")

    def unplug(self, backend):
        backend._clients.get()._endpoint = "http://127.0.0.1:1"


if REAL_URL:

    class TestRealBucket(BackendContract):
        @pytest.fixture
        def backend(self):
            backend = open_backend(f"{REAL_URL}/{os.getpid()}-{time.time_ns()}")
            yield backend
            backend.delete(*[entry.key for entry in backend.scan("")])

        def another(self, backend):
            return open_backend(backend.url)

        def behind(self, backend, key):
            files = GCSFileSystem(token="google_default")
            try:
                return files.cat_file(f"{backend.url}/{key}")
            except FileNotFoundError:
                return None


# Places.


def test_a_store_may_be_a_whole_bucket(server):
    backend = opened(server, place="")
    backend.create("manifests/a", b"a")

    assert (backend.url, backend.read("manifests/a")) == (f"gs://{server.bucket}", b"a")
    assert [entry.key for entry in backend.scan("")] == ["manifests/a"]
    assert server.behind("manifests/a") == b"a"


def test_a_store_does_not_see_its_neighbours(server):
    for place in ("runs/a", "runs/a2", "runs"):
        opened(server, place=place).create("manifests/a", place.encode())

    assert [entry.key for entry in opened(server, place="runs/a").scan("")] == ["manifests/a"]


def test_folders_as_the_console_makes_them_are_no_objects(server):
    server.put("runs/a/", b"")
    server.put("runs/a/files/", b"")
    server.put("runs/a/files/b", b"b")

    assert [entry.key for entry in opened(server).scan("")] == ["files/b"]


def test_a_prefix_is_taken_as_it_stands(server):
    backend = opened(server, place="my runs/50%25 ü+&?=#".replace("?", "").replace("#", ""))
    backend.create("manifests/a", b"a")

    assert backend.read("manifests/a") == b"a"
    assert server.behind("my runs/50%25 ü+&=/manifests/a") == b"a"


def test_both_schemes_are_one_place(server):
    options = server.storage_options()

    urls = {
        open_backend(f"{scheme}://{server.bucket}/runs/a/", options).url for scheme in ("gs", "gcs")
    }

    assert urls == {f"gs://{server.bucket}/runs/a"}


@pytest.mark.parametrize("url", ["gs:///runs", "gs://Bucket/runs", "gs://b/runs", "gs://a b/c"])
def test_a_url_without_a_bucket_is_refused(url):
    with pytest.raises(InvalidInputError, match="names no bucket"):
        open_backend(url, {"token": "anon"})


# Requests.


def test_each_verb_makes_as_few_requests_as_there_can_be(server, tmp_path):
    backend = opened(server)
    (tmp_path / "source").write_bytes(b"source")
    calls = {
        "create": lambda: backend.create("manifests/a", b"a"),
        "read": lambda: backend.read("manifests/a"),
        "upload": lambda: backend.upload(tmp_path / "source", "files/a"),
        "upload again": lambda: backend.upload(tmp_path / "source", "files/a"),
        "download": lambda: backend.download("files/a", tmp_path / "target"),
        "scan": lambda: list(backend.scan("")),
        "delete": lambda: backend.delete("manifests/a", "files/a"),
    }
    counts = {}

    for name, call in calls.items():
        server.requests.clear()
        call()
        counts[name] = [request.verb for request in server.requests]

    assert counts == {
        "create": ["objects.insert"],
        "read": ["objects.media"],
        "upload": ["objects.insert"],
        "upload again": ["objects.insert", "objects.get"],
        "download": ["objects.get", "objects.media"],
        "scan": ["objects.list"],
        "delete": ["objects.delete"] * 2,
    }


def test_a_scan_asks_for_a_page_of_a_thousand_when_it_is_wanted(server):
    for number in range(2500):
        server.put(f"runs/a/manifests/{number:05d}", b"")
    scan = opened(server).scan("manifests/", "manifests/00099")

    first = next(scan)
    after_one = len(server.requests)
    rest = list(scan)

    assert (first.key, len(rest)) == ("manifests/00100", 2399)
    assert (after_one, len(server.requests)) == (1, 3)


def test_a_scan_after_a_key_starts_there(server):
    for number in range(3000):
        server.put(f"runs/a/manifests/{number:05d}", b"")

    found = [entry.key for entry in opened(server).scan("manifests/", "manifests/02997")]

    assert found == ["manifests/02998", "manifests/02999"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["answer", "lost", "refuse"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_fails_is_asked_once_and_the_repetition_is_left_to_whoever_called(
    server, proxy, tmp_path, verb, kind
):
    (tmp_path / "source").write_bytes(b"source")
    backend = opened(server, endpoint=proxy.endpoint)
    list(backend.scan(""))  # so that there is a connection, which a client may find lost
    proxy.plan(Fault(kind, lasting=True))

    with pytest.raises(StorageError):
        VERBS[verb](backend, tmp_path)

    assert len(proxy.requests) == 1


def test_a_removal_is_not_believed_where_something_else_is_said(server, proxy):
    server.put("runs/a/manifests/1", b"1")
    backend = opened(server, endpoint=proxy.endpoint)
    error = b'{"error": {"code": 500, "message": "internalError"}}'
    proxy.plan(Fault("answer", answer=Answer(200, error)))

    with pytest.raises(StorageError, match="did not say that this was deleted"):
        backend.delete("manifests/1")

    assert backend.read("manifests/1") == b"1"


def test_what_is_used_of_gcsfs_is_still_there(server):
    client = opened(server, "trainer")._clients.get()

    # Names that gcsfs does not promise. If this fails, look at GcsClient.
    assert client._location == server.endpoint
    assert client._get_params({"a": "b"}) == {"a": "b"}
    assert client._get_headers({})["authorization"] == "Bearer token-of-trainer"
    assert client.credentials.credentials.token == "token-of-trainer"
    assert isinstance(client.loop.is_running(), bool)
    assert callable(client.close_session)
    assert not type(client).cachable


# Large files.


def test_a_large_file_goes_in_chunks_and_is_confirmed_by_its_checksum(server, large):
    told = []

    in_chunks(server).upload(large, "files/a", told.append)

    chunks = [request for request in server.requests if request.verb == "session.chunk"]
    assert server.behind("runs/a/files/a") == large.read_bytes()
    assert [chunk.status for chunk in chunks] == [308] * 4 + [200]
    assert [name for name in chunks[-1].headers if name == "x-goog-hash"] == ["x-goog-hash"]
    assert sum(told) == large.stat().st_size


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize("kind", ["refuse", "lost", "cut request", "answer", "answer after"])
def test_a_chunk_that_failed_is_gone_on_with(server, proxy, large, kind, at):
    proxy.plan(Fault(kind, at=at, only=is_chunk, answer=Answer(503)))

    in_chunks(server, proxy.endpoint).upload(large, "files/a")

    assert len(proxy.struck) == 1
    assert server.behind("runs/a/files/a") == large.read_bytes()
    sent = sum(int(each.header("Content-Length")) for each in proxy.requests if is_chunk(each))
    again = 0 if kind in ("lost", "answer after") else CHUNK  # what had arrived is not sent again
    assert sent <= large.stat().st_size + again
    assert server.unfinished == 0


def test_a_chunk_of_which_the_server_kept_a_part_is_gone_on_with_from_there(server, large):
    server.keeps = CHUNK
    backend = in_chunks(server, chunk_bytes=3 * CHUNK)

    backend.upload(large, "files/a")

    size = large.stat().st_size
    chunks = [each for each in server.requests if each.verb == "session.chunk"]
    assert [each.headers["content-range"] for each in chunks] == [
        f"bytes {start}-{min(start + 3 * CHUNK, size) - 1}/{size}"
        for start in range(0, size, CHUNK)
    ]
    assert server.behind("runs/a/files/a") == large.read_bytes()


def test_an_upload_that_fails_again_and_again_is_given_up(server, proxy, large):
    proxy.plan(Fault("lost", lasting=True, only=is_chunk))

    with pytest.raises(StorageError) as caught:
        in_chunks(server, proxy.endpoint).upload(large, "files/a")

    assert not caught.value.lasting
    assert len(proxy.requests) == 8  # begun, sent, asked five times, cancelled
    assert server.behind("runs/a/files/a") is None


def test_a_server_that_never_keeps_anything_is_given_up(server, proxy, large):
    proxy.plan(Fault("answer", lasting=True, only=is_chunk, answer=Answer(308)))

    with pytest.raises(StorageError, match="does not go on"):
        in_chunks(server, proxy.endpoint).upload(large, "files/a")


def test_a_session_that_was_forgotten_fails_the_try_and_no_more(server, proxy, large):
    proxy.plan(Fault("answer", at=2, only=is_chunk, answer=Answer(404, b"Not Found")))

    with pytest.raises(StorageError, match="forgotten") as caught:
        in_chunks(server, proxy.endpoint).upload(large, "files/a")

    assert not caught.value.lasting


def test_what_was_damaged_on_its_way_there_never_becomes_an_object(server, proxy, tmp_path):
    (tmp_path / "source").write_bytes(os.urandom(1000))
    backend = opened(server, endpoint=proxy.endpoint)
    calls = (
        lambda: backend.upload(tmp_path / "source", "files/a"),
        lambda: backend.create("files/a", b"x" * 1000),
    )

    for call in calls:
        proxy.plan(Fault("flip request"))
        with pytest.raises(StorageError, match="calculated") as caught:
            call()

        assert not caught.value.lasting
        assert server.behind("runs/a/files/a") is None


@pytest.mark.parametrize("at", range(1, 6))
def test_a_chunk_that_was_damaged_on_its_way_never_becomes_part_of_an_object(
    server, proxy, large, at
):
    backend = in_chunks(server, proxy.endpoint)
    proxy.plan(Fault("flip request", at=at, only=is_chunk))

    with pytest.raises(StorageError, match="calculated") as caught:
        backend.upload(large, "files/a")

    assert not caught.value.lasting
    assert server.behind("runs/a/files/a") is None
    backend.upload(large, "files/a")
    assert server.behind("runs/a/files/a") == large.read_bytes()


def test_a_server_that_compares_nothing_is_found_out(server, proxy, large):
    server.checks_hashes = False
    proxy.plan(Fault("flip request", only=is_chunk))

    with pytest.raises(StorageError, match="did not arrive whole"):
        in_chunks(server, proxy.endpoint).upload(large, "files/a")
    with pytest.raises(AlreadyExists):
        in_chunks(server).upload(large, "files/a")


class _OverError(StorageError):
    pass


def test_an_upload_that_was_given_up_ends_and_leaves_no_session(server, large):
    told = []

    def moved(count):
        told.append(count)
        if len(told) == 2:
            raise _OverError("given up")

    with pytest.raises(_OverError):
        in_chunks(server).upload(large, "files/a", moved)

    assert server.unfinished == 0
    assert [each.verb for each in server.requests].count("session.chunk") <= 2


def test_a_download_that_was_given_up_ends_and_leaves_no_file(server, tmp_path):
    server.put("runs/a/files/a", b"x" * 1000)

    def moved(count):
        raise _OverError("given up")

    with pytest.raises(_OverError):
        opened(server).download("files/a", tmp_path / "target", moved)

    assert not (tmp_path / "target").exists()


def test_a_source_that_becomes_shorter_is_no_object(server, large):
    def moved(count):
        os.truncate(large, CHUNK)

    with pytest.raises(StorageError, match="shorter"):
        in_chunks(server).upload(large, "files/a", moved)

    assert server.behind("runs/a/files/a") is None
    assert server.unfinished == 0


# Taken keys.


@pytest.mark.parametrize("rights_first", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_trainer_meets_what_is_there_as_taken(server, tmp_path, rights_first, chunked):
    server.rights_first = rights_first
    backend = in_chunks(server, role="trainer") if chunked else opened(server, "trainer")
    source = tmp_path / "source"
    source.write_bytes(b"a" * (9 * 1024 * 1024 if chunked else 10))
    backend.upload(source, "files/a")
    backend.create("manifests/a", b"a")

    backend.upload(source, "files/a")
    source.write_bytes(b"b" * source.stat().st_size)

    with pytest.raises(AlreadyExists):
        backend.upload(source, "files/a")
    with pytest.raises(AlreadyExists):
        backend.create("manifests/a", b"b")
    assert server.behind("runs/a/manifests/a") == b"a"


def test_an_upload_whose_key_is_taken_while_it_is_sent_changes_nothing(
    server, proxy, large, tmp_path
):
    (tmp_path / "other").write_bytes(b"other")
    proxy.plan()
    proxy.before = lambda request: (
        is_chunk(request)
        and server.behind("runs/a/files/a") is None
        and opened(server).upload(tmp_path / "other", "files/a")
    )

    with pytest.raises(AlreadyExists):
        in_chunks(server, proxy.endpoint).upload(large, "files/a")

    assert server.behind("runs/a/files/a") == b"other"


# Reads.


@pytest.mark.parametrize("kind", ["cut reply", "short reply", "flip reply"])
def test_a_read_that_was_damaged_on_its_way_fails(server, proxy, kind):
    server.put("runs/a/manifests/a", b"x" * 1000)
    proxy.plan(Fault(kind))

    with pytest.raises(StorageError) as caught:
        opened(server, endpoint=proxy.endpoint).read("manifests/a")

    assert not isinstance(caught.value, NotFoundError)
    assert not caught.value.lasting


@pytest.mark.parametrize("kind", ["refuse", "lost", "cut reply", "short reply", "answer"])
def test_a_range_that_broke_off_is_gone_on_with(server, proxy, tmp_path, kind):
    content = os.urandom(3_000_000)
    server.put("runs/a/files/a", content)
    proxy.plan(Fault(kind, only=lambda request: "alt=media" in request.query))

    opened(server, endpoint=proxy.endpoint).download("files/a", tmp_path / "target")

    assert len(proxy.struck) == 1
    assert (tmp_path / "target").read_bytes() == content


def test_ranges_are_of_one_generation_and_never_of_two(server, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast.backends.ranges.RANGE_BYTES", 1000)
    server.put("runs/a/files/a", b"a" * 5000)
    proxy.plan()
    proxy.before = lambda request: (
        server.put("runs/a/files/a", b"b" * 5000) if "alt=media" in request.query else None
    )

    with pytest.raises(NotFoundError):
        opened(server, endpoint=proxy.endpoint).download("files/a", tmp_path / "target")

    assert not (tmp_path / "target").exists()


def test_an_answer_that_is_not_the_range_is_no_content(server, proxy, tmp_path):
    server.put("runs/a/files/a", b"a" * 5000)
    whole = Answer(200, b"b" * 5000)
    proxy.plan(
        Fault("answer", lasting=True, only=lambda each: "alt=media" in each.query, answer=whole)
    )

    with pytest.raises(StorageError):
        opened(server, endpoint=proxy.endpoint).download("files/a", tmp_path / "target")

    assert not (tmp_path / "target").exists()


def test_what_is_stored_compressed_is_read_as_it_is_stored(server, tmp_path):
    stored = bytes.fromhex("1f8b080000000000000003cb48cdc9c90700 86a6103605000000".replace(" ", ""))
    server.put("runs/a/files/a", stored, contentEncoding="gzip")
    backend = opened(server)

    backend.download("files/a", tmp_path / "target")

    assert backend.read("files/a") == stored
    assert (tmp_path / "target").read_bytes() == stored


# A store in it.


def test_a_trainer_saves_lists_and_resumes_and_asks_for_nothing_else(server, tmp_path):
    options = server.storage_options("trainer")
    (tmp_path / "model").write_bytes(b"weights")

    for step in (1, 2):
        store = holdfast.open_store(
            f"gs://{server.bucket}/runs/a", storage_options=options, workspace=tmp_path / "w"
        )
        store.save(tmp_path / "model", step=step)
    files = store.download(to=tmp_path / "here")

    assert (files / "model").read_bytes() == b"weights"
    assert store.latest().step == 2
    assert {request.status for request in server.requests} <= {200, 206}
    assert {request.verb for request in server.requests} <= {
        "objects.insert",
        "objects.get",
        "objects.media",
        "objects.list",
    }
