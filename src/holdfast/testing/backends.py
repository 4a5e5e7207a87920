"""What every backend has to hold, as a test suite: subclass `BackendContract`."""

# ruff: noqa: D102 - a test's name is its sentence

import hashlib
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from holdfast.backends.base import MOST_READ, Backend, Entry, OpensFiles
from holdfast.errors import AlreadyExists, NotFoundError, StorageError
from holdfast.testing.threads import begin

_MIB = 1024 * 1024
#: `-` and `.` sort before `/`, digits and letters after it: what lies in a directory comes in
#: between the files beside it.
_KEYS = (
    "files/0001-000000000001-0badc0de/a-b",
    "files/0001-000000000001-0badc0de/a.b",
    "files/0001-000000000001-0badc0de/a/b",
    "files/0001-000000000001-0badc0de/a/b-c/d",
    "files/0001-000000000001-0badc0de/a/b.c",
    "files/0001-000000000001-0badc0de/a0",
    "files/0001-000000000001-0badc0de/aa",
    "files/0001-000000000002-0badc0de/a",
    "manifests/0001-000000000001-0badc0de.json",
    "manifests/0001-000000000002-0badc0de.json",
    "pins/paper/0001-000000000001-0badc0de",
)
T = TypeVar("T")


class BackendContract:
    """
    The contract of a backend: `holdfast.backends.base.Backend` as one behaviour per test.

    Subclass it, give a fixture `backend` with a fresh and empty backend, and say how to look at the
    medium past the six verbs:

        class TestTape(BackendContract):
            @pytest.fixture
            def backend(self, tmp_path: Path) -> TapeBackend:
                return TapeBackend(tmp_path)

            def behind(self, backend: TapeBackend, key: str) -> bytes | None:
                return backend.reel.find(key)

    A place that cannot keep a promise overrides that test and says why.

    Attributes:
        racing_callers (int): how many threads race for one key.
        large_bytes (int): the size of a file that memory must not grow with.
        keeps_in_memory (bool): the medium is memory itself, so the bound on it is not looked at.
        patience_s (float): seconds until a thread of a test that did not end fails it.
    """

    racing_callers = 16
    large_bytes = 64 * _MIB
    keeps_in_memory = False
    patience_s = 60.0

    # What a subclass gives.

    @pytest.fixture
    def backend(self) -> Any:
        """A fresh and empty backend."""
        raise NotImplementedError("give a fixture `backend`")

    def behind(self, backend: Any, key: str) -> bytes | None:
        """The bytes that lie in the medium under a key, past the verbs; None if there are none."""
        raise NotImplementedError("say how to look at the medium")

    def another(self, backend: Any) -> Any:
        """A second backend on the same medium, as another process would have it."""
        return backend

    def unplug(self, backend: Any) -> None:
        """Make the place fail from now on, in whatever way it can."""
        del backend
        pytest.skip("this place does not say how it could fail")

    # Create and read.

    def test_what_was_created_is_read_back(self, backend: Backend) -> None:
        data = bytes(range(256)) * 5

        backend.create("manifests/a.json", data)

        assert backend.read("manifests/a.json") == data
        assert self.behind(backend, "manifests/a.json") == data

    def test_of_a_large_object_a_read_gives_the_start(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        data = bytes(range(256)) * (MOST_READ // 256 + 8)
        for size in (MOST_READ - 1, MOST_READ, len(data)):
            backend.upload(_file(tmp_path / str(size), data[:size]), f"manifests/{size}.json")

            backend.download(f"manifests/{size}.json", tmp_path / f"{size} again")

            assert backend.read(f"manifests/{size}.json") == data[: min(size, MOST_READ)]
            assert (tmp_path / f"{size} again").read_bytes() == data[:size]

    def test_a_key_that_is_taken_keeps_its_content(self, backend: Backend) -> None:
        backend.create("manifests/a.json", b"first")

        with pytest.raises(AlreadyExists):
            backend.create("manifests/a.json", b"second")

        assert self.behind(backend, "manifests/a.json") == b"first"

    def test_the_same_create_again_is_refused_too(self, backend: Backend) -> None:
        backend.create("manifests/a.json", b"same")

        with pytest.raises(AlreadyExists):
            backend.create("manifests/a.json", b"same")

        assert self.behind(backend, "manifests/a.json") == b"same"

    def test_what_another_created_is_taken(self, backend: Backend) -> None:
        self.another(backend).create("manifests/a.json", b"first")

        with pytest.raises(AlreadyExists):
            backend.create("manifests/a.json", b"second")

        assert self.behind(backend, "manifests/a.json") == b"first"

    def test_of_many_callers_exactly_one_creates_a_key(self, backend: Backend) -> None:
        backends = [backend, self.another(backend)]

        for number in range(5):
            key = f"manifests/{number}.json"

            def create(caller: int, key: str = key) -> bool:
                try:
                    backends[caller % 2].create(key, b"%d" % caller)
                except AlreadyExists:
                    return False
                return True

            won = self._at_once(create, range(self.racing_callers))

            winner = b"%d" % won.index(True)
            assert (won.count(True), self.behind(backend, key)) == (1, winner)

    def test_nobody_reads_part_of_what_is_being_created(self, backend: Backend) -> None:
        data = b"x" * _MIB
        reader = self.another(backend)
        seen: set[int] = set()

        def look() -> None:
            for entry in reader.scan("manifests/a"):
                seen.add(entry.size)
                seen.add(len(reader.read(entry.key)))

        self._while(look, lambda: backend.create("manifests/a.json", data))

        assert seen <= {len(data)}

    def test_an_object_may_be_empty(self, backend: Backend, tmp_path: Path) -> None:
        source = _file(tmp_path / "source", b"")

        backend.create("pins/paper/a", b"")
        backend.upload(source, "files/a/empty")
        backend.download("files/a/empty", tmp_path / "target")

        assert backend.read("pins/paper/a") == b""
        assert [entry.size for entry in backend.scan("")] == [0, 0]
        assert (tmp_path / "target").read_bytes() == b""

    def test_an_empty_object_takes_its_key_too(self, backend: Backend) -> None:
        backend.create("pins/paper/a", b"")

        with pytest.raises(AlreadyExists):
            backend.create("pins/paper/a", b"more")

        assert self.behind(backend, "pins/paper/a") == b""

    def test_reading_a_missing_key_says_that_it_is_missing(self, backend: Backend) -> None:
        backend.create("manifests/a.json", b"there")

        for missing in ("manifests/b.json", "manifests/a", "pins/none/a", "elsewhere"):
            with pytest.raises(NotFoundError):
                backend.read(missing)

    def test_keys_may_have_every_character_that_is_allowed(self, backend: Backend) -> None:
        keys = [
            "files/a/ABCXYZabcxyz0189._-+=,@",
            "files/a/.hidden/..b",
            "files/a/1/2/3/4/5/6",
            "files/a/" + "n" * 128,
            "files/a/with=equals,comma+plus@at",
        ]

        for key in keys:
            backend.create(key, key.encode())

        assert [entry.key for entry in backend.scan("files/a/")] == sorted(keys)
        assert [backend.read(key) for key in keys] == [key.encode() for key in keys]

    # Upload and download.

    def test_an_uploaded_file_comes_back_as_it_was(self, backend: Backend, tmp_path: Path) -> None:
        content = bytes(range(256)) * 4096
        source = _file(tmp_path / "source", content)

        backend.upload(source, "files/a/sub/model.keras")
        backend.download("files/a/sub/model.keras", tmp_path / "target")

        assert _hash((tmp_path / "target").read_bytes()) == _hash(content)
        assert _hash(self.behind(backend, "files/a/sub/model.keras")) == _hash(content)
        if isinstance(backend, OpensFiles):
            with backend.open_file("files/a/sub/model.keras") as file:
                assert _hash(file.readall()) == _hash(content)

    def test_an_upload_leaves_its_source_alone(self, backend: Backend, tmp_path: Path) -> None:
        source = _file(tmp_path / "source", b"content")

        backend.upload(source, "files/a/model")

        assert source.read_bytes() == b"content"
        assert not source.is_symlink()

    def test_an_object_outlives_the_file_it_came_from(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        source = _file(tmp_path / "source", b"content")
        backend.upload(source, "files/a/model")

        source.unlink()

        assert self.behind(backend, "files/a/model") == b"content"

    def test_an_object_does_not_change_with_its_copies(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        backend.upload(_file(tmp_path / "source", b"content"), "files/a/model")
        backend.download("files/a/model", tmp_path / "target")

        (tmp_path / "target").write_bytes(b"changed")

        assert self.behind(backend, "files/a/model") == b"content"

    def test_the_same_upload_may_be_repeated(self, backend: Backend, tmp_path: Path) -> None:
        source = _file(tmp_path / "source", b"content")
        equal = _file(tmp_path / "equal", b"content")
        backend.upload(source, "files/a/model")

        backend.upload(source, "files/a/model")
        self.another(backend).upload(equal, "files/a/model")

        assert self.behind(backend, "files/a/model") == b"content"

    def test_an_upload_does_not_change_what_has_its_key(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        backend.upload(_file(tmp_path / "source", b"content"), "files/a/model")

        for other in (b"CONTENT", b"longer content", b"content and more", b""):
            with pytest.raises(AlreadyExists):
                backend.upload(_file(tmp_path / "other", other), "files/a/model")

            assert self.behind(backend, "files/a/model") == b"content"

    def test_nobody_sees_part_of_what_is_being_uploaded(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        source = _large_file(tmp_path / "source", self.large_bytes)
        reader = self.another(backend)
        seen: set[int] = set()

        def look() -> None:
            seen.update(entry.size for entry in reader.scan("files/a/model"))

        self._while(look, lambda: backend.upload(source, "files/a/model"))

        assert seen <= {self.large_bytes}

    def test_an_upload_without_a_source_leaves_nothing(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        source = tmp_path / "missing"

        with pytest.raises(StorageError):
            backend.upload(source, "files/a/model")

        assert self.behind(backend, "files/a/model") is None
        assert _keys(backend) == []

    def test_a_large_file_takes_little_memory(self, backend: Backend, tmp_path: Path) -> None:
        if self.keeps_in_memory:
            pytest.skip("the medium is memory itself")
        source = _large_file(tmp_path / "source", self.large_bytes)
        tracemalloc.start()
        try:
            backend.upload(source, "files/a/model")
            backend.upload(source, "files/a/model")
            backend.read("files/a/model")
            backend.download("files/a/model", tmp_path / "target")

            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert peak < self.large_bytes // 2
        assert (tmp_path / "target").stat().st_size == self.large_bytes

    def test_downloading_a_missing_key_leaves_no_target(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        target = tmp_path / "target"

        with pytest.raises(NotFoundError):
            backend.download("files/a/missing", target)

        assert not target.exists()
        if isinstance(backend, OpensFiles):
            with pytest.raises(NotFoundError):
                backend.open_file("files/a/missing")

    def test_a_download_leaves_an_existing_file_alone(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        backend.create("files/a/model", b"content")
        target = _file(tmp_path / "target", b"mine")

        with pytest.raises(StorageError):
            backend.download("files/a/model", target)

        assert target.read_bytes() == b"mine"

    def test_a_download_into_no_directory_fails_as_storage_does(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        backend.create("files/a/model", b"content")

        with pytest.raises(StorageError):
            backend.download("files/a/model", tmp_path / "missing" / "target")

        assert not (tmp_path / "missing").exists()

    # Scan.

    def test_nothing_lies_in_a_new_place(self, backend: Backend) -> None:
        for prefix in ("", "manifests/", "manifests/0001", "files/a/"):
            assert list(backend.scan(prefix)) == []

    def test_a_scan_gives_keys_in_their_order(self, backend: Backend) -> None:
        for key in reversed(_KEYS):
            backend.create(key, b"")

        found = [entry.key for entry in backend.scan("")]

        assert found == sorted(_KEYS)

    def test_a_scan_gives_what_starts_with_the_prefix(self, backend: Backend) -> None:
        for key in _KEYS:
            backend.create(key, b"")

        for prefix in _beginnings(_KEYS):
            found = [entry.key for entry in backend.scan(prefix)]

            assert found == sorted(key for key in _KEYS if key.startswith(prefix)), prefix

    def test_a_scan_gives_what_sorts_after_a_key(self, backend: Backend) -> None:
        for key in _KEYS:
            backend.create(key, b"")

        for prefix in ("", "files/", "manifests/0001"):
            for after in (*_KEYS, *_beginnings(_KEYS), *(key + "-" for key in _KEYS), "zzz"):
                found = [entry.key for entry in backend.scan(prefix, after)]

                wanted = [key for key in _KEYS if key.startswith(prefix) and key > after]
                assert found == sorted(wanted), (prefix, after)

    def test_a_scan_tells_sizes_and_times_with_their_zone(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        backend.create("manifests/a.json", b"12345")
        backend.upload(_file(tmp_path / "source", b"x" * 1000), "files/a/model")

        entries = list(backend.scan(""))

        assert [(entry.key, entry.size) for entry in entries] == [
            ("files/a/model", 1000),
            ("manifests/a.json", 5),
        ]
        assert all(_has_zone_or_nothing(entry) for entry in entries)

    def test_a_scan_sees_all_that_was_there_before_it(self, backend: Backend) -> None:
        for number in range(20):
            backend.create(f"manifests/{number:03d}.json", b"")

            found = [entry.key for entry in backend.scan("manifests/")]

            assert found == [f"manifests/{seen:03d}.json" for seen in range(number + 1)]

    def test_a_scan_never_comes_from_a_cache(self, backend: Backend) -> None:
        other = self.another(backend)
        backend.create("manifests/a.json", b"")
        backend.create("manifests/b.json", b"")
        assert _keys(backend, "manifests/") == ["manifests/a.json", "manifests/b.json"]

        other.create("manifests/c.json", b"")
        other.delete("manifests/a.json")

        assert _keys(backend, "manifests/") == ["manifests/b.json", "manifests/c.json"]

    def test_a_read_never_comes_from_a_cache(self, backend: Backend, tmp_path: Path) -> None:
        other = self.another(backend)
        backend.create("manifests/a.json", b"first")
        assert backend.read("manifests/a.json") == b"first"

        other.delete("manifests/a.json")

        with pytest.raises(NotFoundError):
            backend.read("manifests/a.json")
        with pytest.raises(NotFoundError):
            backend.download("manifests/a.json", tmp_path / "target")

    def test_a_scan_of_many_keys_gives_each_once(self, backend: Backend) -> None:
        keys = [f"files/{number % 7}/{number:04d}" for number in range(100)]
        for key in keys:
            backend.create(key, b"")

        found = _keys(backend)

        assert found == sorted(keys)

    def test_a_scan_goes_on_while_others_delete(self, backend: Backend) -> None:
        keys = [f"files/{number}/model" for number in range(20)]
        for key in keys:
            backend.create(key, b"")

        scan = backend.scan("files/")
        first = next(scan).key
        for key in keys[10:]:
            self.another(backend).delete(key)
        rest = [entry.key for entry in scan]

        assert first == min(keys)
        assert {*keys[1:10]} <= {*rest} | {first} <= {*keys}

    def test_a_place_that_fails_is_never_empty_or_without_a_key(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        backend.create("manifests/a.json", b"there")

        self.unplug(backend)

        with pytest.raises(StorageError):
            list(backend.scan("manifests/"))
        with pytest.raises(StorageError):
            backend.read("manifests/a.json")
        with pytest.raises(StorageError):
            backend.download("manifests/a.json", tmp_path / "target")

    # Delete.

    def test_what_was_deleted_is_missing(self, backend: Backend) -> None:
        backend.create("manifests/a.json", b"a")
        backend.create("manifests/b.json", b"b")

        backend.delete("manifests/a.json")

        assert self.behind(backend, "manifests/a.json") is None
        assert _keys(backend) == ["manifests/b.json"]
        with pytest.raises(NotFoundError):
            backend.read("manifests/a.json")

    def test_deleting_what_is_missing_is_fine(self, backend: Backend) -> None:
        backend.create("manifests/a.json", b"a")
        backend.delete("manifests/a.json")

        for missing in ("manifests/a.json", "files/a/b/c", "nowhere"):
            backend.delete(missing)

        assert _keys(backend) == []

    def test_a_deleted_key_is_free_again(self, backend: Backend, tmp_path: Path) -> None:
        backend.create("files/a/sub/model", b"first")
        backend.delete("files/a/sub/model")

        backend.upload(_file(tmp_path / "source", b"second"), "files/a/sub/model")

        assert self.behind(backend, "files/a/sub/model") == b"second"

    def test_a_delete_leaves_the_neighbours(self, backend: Backend) -> None:
        for key in _KEYS:
            backend.create(key, b"kept")

        backend.delete(_KEYS[2])

        assert _keys(backend) == sorted({*_KEYS} - {_KEYS[2]})

    # Threads.

    def test_verbs_may_be_called_from_many_threads(self, backend: Backend, tmp_path: Path) -> None:
        def work(caller: int) -> bytes:
            own = self.another(backend) if caller % 2 else backend
            for turn in range(5):
                content = b"%d-%d" % (caller, turn)
                key = f"files/{turn}/{caller}"
                own.create(f"manifests/{caller}-{turn}.json", content)
                own.upload(_file(tmp_path / f"source-{caller}-{turn}", content), key)
                own.download(key, tmp_path / f"target-{caller}-{turn}")
                assert key in _keys(own, f"files/{turn}/")
                assert own.read(f"manifests/{caller}-{turn}.json") == content
                assert (tmp_path / f"target-{caller}-{turn}").read_bytes() == content
                own.delete(key)
            return b"done"

        done = self._at_once(work, range(8))

        assert done == [b"done"] * 8
        assert len(_keys(backend, "manifests/")) == 40
        assert _keys(backend, "files/") == []

    def _at_once(self, call: Callable[[int], T], callers: Sequence[int]) -> list[T]:
        """Call from as many threads at the same moment; what each got, in order."""
        barrier = threading.Barrier(len(callers), timeout=self.patience_s)

        def act(caller: int) -> T:
            barrier.wait()
            return call(caller)

        acting = [begin(partial(act, caller)) for caller in callers]
        return [each.result(self.patience_s) for each in acting]

    def _while(self, look: Callable[[], None], act: Callable[[], None]) -> None:
        """Look again and again while somebody acts, and once more when he is done."""
        acting = begin(act)
        end = time.monotonic() + self.patience_s
        while not acting.done() and time.monotonic() < end:
            look()
        acting.result(0)
        look()


def _hash(content: bytes | None) -> str | None:
    """
    What stands for much content where it is compared.

    With the variable CI set pytest tells every difference, and takes hours over a megabyte.
    """
    return None if content is None else hashlib.sha256(content).hexdigest()


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _large_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        for start in range(0, size, _MIB):
            file.write(bytes([start // _MIB % 251]) * min(_MIB, size - start))
    return path


def _keys(backend: Backend, prefix: str = "") -> list[str]:
    return [entry.key for entry in backend.scan(prefix)]


def _beginnings(keys: Sequence[str]) -> list[str]:
    """Every beginning of some key that ends at a `/` or beside one, or within a name."""
    return sorted(
        {key[:end] for key in keys for end in (len(key), key.rfind("/"), key.rfind("/") + 1)}
        | {key[:end] for key in keys for end in (0, 3, 6, 7, 15, len(key) - 1)}
    )


def _has_zone_or_nothing(entry: Entry) -> bool:
    return entry.modified is None or entry.modified.tzinfo is not None
