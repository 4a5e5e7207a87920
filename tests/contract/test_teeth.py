"""The contract bites: each backend here is broken on purpose, and a named test of it fails."""

import contextlib
import errno
import inspect
import os
import shutil
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from holdfast import disk
from holdfast.backends import naming
from holdfast.backends.base import Entry
from holdfast.backends.fsspec import FsspecBackend
from holdfast.backends.local import LocalBackend
from holdfast.errors import AlreadyExists, InvalidInputError, NotFoundError, StorageError
from holdfast.testing.backends import BackendContract

MOMENT_S = 0.005


class Contract(BackendContract):
    """The contract as a mutant meets it; pytest does not collect it."""

    large_bytes = 16 * 1024 * 1024
    patience_s = 10.0

    def behind(self, backend, key):
        path = backend.root / key
        return path.read_bytes() if path.exists() else None

    def another(self, backend):
        return type(backend)(backend.root)

    def unplug(self, backend):
        backend.root.rename(backend.root.with_name("elsewhere"))


def fails(test, backend, tmp_path):
    """Whether a test of the contract fails with a backend."""
    method = getattr(Contract(), test)
    given = {"backend": backend, "tmp_path": tmp_path}
    try:
        method(**{name: given[name] for name in inspect.signature(method).parameters})
    except (Exception, pytest.fail.Exception):
        return True
    return False


@pytest.fixture(autouse=True)
def as_a_service_runs_it(monkeypatch):
    """With this pytest tells every difference: none may be so large that it takes long."""
    monkeypatch.setenv("CI", "true")


# Create and read.


class LooksThenWrites(LocalBackend):
    def create(self, key, data):
        target = self.root / key
        if target.exists():
            raise AlreadyExists(key)
        time.sleep(MOMENT_S)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


class OverwritesOnCreate(LocalBackend):
    def create(self, key, data):
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


class TakesTheSameContentForItsOwn(LocalBackend):
    def create(self, key, data):
        with contextlib.suppress(NotFoundError):
            if self.read(key) == data:
                return
        super().create(key, data)


class WritesInPlace(LocalBackend):
    """Leaves a part under the key until a reader has looked from beginning to end."""

    lies_there, was_looked_at = threading.Event(), threading.Event()

    def scan(self, prefix, after=""):
        lies_there = self.lies_there.is_set()
        yield from super().scan(prefix, after)
        if lies_there:
            self.was_looked_at.set()

    def write(self, key, data):
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            self.was_looked_at.clear()
            self.lies_there.set()
            self.was_looked_at.wait(Contract.patience_s)
            self.lies_there.clear()
            file.write(data[len(data) // 2 :])


class CreatesInPlace(WritesInPlace):
    def create(self, key, data):
        self.write(key, data)


class SharesOneTemporaryName(LocalBackend):
    def create(self, key, data):
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name("~temporary")
        temporary.write_bytes(data)
        time.sleep(MOMENT_S)
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise AlreadyExists(key) from None


class KeepsNothingOfNothing(LocalBackend):
    def create(self, key, data):
        if data:
            super().create(key, data)


class ReadsMissingAsEmpty(LocalBackend):
    def read(self, key):
        try:
            return super().read(key)
        except NotFoundError:
            return b""


class ReadsFailureAsMissing(LocalBackend):
    def read(self, key):
        try:
            return super().read(key)
        except StorageError as error:
            raise NotFoundError(key) from error


class RemembersWhatItRead(LocalBackend):
    def read(self, key):
        found = self.__dict__.setdefault("found", {})
        if key not in found:
            found[key] = super().read(key)
        return found[key]


class QuotesKeys(LocalBackend):
    def create(self, key, data):
        super().create(key.replace("+", " "), data)


# Upload and download.


class UploadsInPlace(WritesInPlace):
    def upload(self, source, key):
        self.write(key, source.read_bytes())


class OverwritesOnUpload(LocalBackend):
    def upload(self, source, key):
        self.delete(key)
        super().upload(source, key)


class ComparesSizesOnly(LocalBackend):
    def upload(self, source, key):
        try:
            super().upload(source, key)
        except AlreadyExists:
            if (self.root / key).stat().st_size != source.stat().st_size:
                raise


class ComparesTheBeginningOnly(LocalBackend):
    def upload(self, source, key):
        try:
            super().upload(source, key)
        except AlreadyExists:
            if not source.read_bytes().startswith((self.root / key).read_bytes()):
                raise


class UploadsOnce(LocalBackend):
    def upload(self, source, key):
        if (self.root / key).exists():
            raise AlreadyExists(key)
        super().upload(source, key)


class LeavesPartOfAFailedUpload(LocalBackend):
    def upload(self, source, key):
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).touch()
        super().upload(source, key)


class MovesTheSource(LocalBackend):
    def upload(self, source, key):
        super().upload(source, key)
        source.unlink()


class LinksByName(LocalBackend):
    def upload(self, source, key):
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).symlink_to(source)


class HoldsUploadsInMemory(LocalBackend):
    def upload(self, source, key):
        data = source.read_bytes()
        with contextlib.suppress(AlreadyExists):
            self.create(key, data)


class HoldsDownloadsInMemory(LocalBackend):
    def download(self, key, target):
        disk.write_new(target, self.read(key))


class OpensBehindTheBeginning(LocalBackend):
    def open_file(self, key):
        file = super().open_file(key)
        file.seek(1)
        return file


class OpensWhatIsMissing(LocalBackend):
    def open_file(self, key):
        return (self.root / key).open("rb", buffering=0)


class LeavesTheTarget(LocalBackend):
    def download(self, key, target):
        with disk.disk_errors("download to", target), target.open("xb") as file:
            file.write(self.read(key))


class OverwritesTheTarget(LocalBackend):
    def download(self, key, target):
        with disk.disk_errors("download to", target):
            target.write_bytes(self.read(key))


class LinksTheTarget(LocalBackend):
    def download(self, key, target):
        os.link(self.root / key, target)


class LeavesErrorsAsTheyAre(LocalBackend):
    def download(self, key, target):
        with target.open("xb") as file:
            file.write(self.read(key))


# Scan and delete.


class ListsFromACache(LocalBackend):
    def scan(self, prefix, after=""):
        found = self.__dict__.setdefault("found", {})
        if (prefix, after) not in found:
            found[prefix, after] = list(super().scan(prefix, after))
        return iter(found[prefix, after])


class ListsInAnyOrder(LocalBackend):
    def scan(self, prefix, after=""):
        return iter(sorted(super().scan(prefix, after), key=lambda entry: hash(entry.key)))


class ListsInTheOrderOfNames(LocalBackend):
    """Sorts each directory by its names, as a walk that looks right does."""

    def scan(self, prefix, after=""):
        return iter(sorted(super().scan(prefix, after), key=lambda entry: entry.key.split("/")))


class ListsTheKeyItself(LocalBackend):
    def scan(self, prefix, after=""):
        with contextlib.suppress(NotFoundError, StorageError):
            yield Entry(after, len(self.read(after)))
        yield from super().scan(prefix, after)


class ListsAllAfterADirectory(LocalBackend):
    """Takes a directory for done once a key in it was given."""

    def scan(self, prefix, after=""):
        done = after.rpartition("/")[0] + "/" if "/" in after else ""
        for entry in super().scan(prefix, after):
            if not done or not entry.key.startswith(done):
                yield entry


class ListsWholeDirectories(LocalBackend):
    def scan(self, prefix, after=""):
        return super().scan(prefix[: prefix.rfind("/") + 1], after)


class ListsFailureAsEmpty(LocalBackend):
    def scan(self, prefix, after=""):
        with contextlib.suppress(StorageError):
            yield from super().scan(prefix, after)


class ListsAtMostAPage(LocalBackend):
    def scan(self, prefix, after=""):
        for entry, _ in zip(super().scan(prefix, after), range(64), strict=False):
            yield entry


class ListsTimesWithoutAZone(LocalBackend):
    def scan(self, prefix, after=""):
        for entry in super().scan(prefix, after):
            yield Entry(entry.key, entry.size, entry.modified.replace(tzinfo=None))


class ListsNoSizes(LocalBackend):
    def scan(self, prefix, after=""):
        for entry in super().scan(prefix, after):
            yield Entry(entry.key, 0, entry.modified)


class StopsAtWhatVanished(LocalBackend):
    def scan(self, prefix, after=""):
        for entry in list(super().scan(prefix, after)):
            if not (self.root / entry.key).exists():
                raise StorageError(entry.key)
            yield entry


class DeletesOnce(LocalBackend):
    def delete(self, *keys):
        for key in keys:
            with disk.disk_errors("delete", key):
                (self.root / key).unlink()


class DeletesNothing(LocalBackend):
    def delete(self, *keys):
        pass


class DeletesTheDirectory(LocalBackend):
    def delete(self, *keys):
        for key in keys:
            shutil.rmtree((self.root / key).parent, ignore_errors=True)


MUTANTS = {
    LooksThenWrites: "test_of_many_callers_exactly_one_creates_a_key",
    OverwritesOnCreate: "test_a_key_that_is_taken_keeps_its_content",
    TakesTheSameContentForItsOwn: "test_the_same_create_again_is_refused_too",
    CreatesInPlace: "test_nobody_reads_part_of_what_is_being_created",
    SharesOneTemporaryName: "test_of_many_callers_exactly_one_creates_a_key",
    KeepsNothingOfNothing: "test_an_object_may_be_empty",
    ReadsMissingAsEmpty: "test_reading_a_missing_key_says_that_it_is_missing",
    ReadsFailureAsMissing: "test_a_place_that_fails_is_never_empty_or_without_a_key",
    RemembersWhatItRead: "test_a_read_never_comes_from_a_cache",
    QuotesKeys: "test_keys_may_have_every_character_that_is_allowed",
    UploadsInPlace: "test_nobody_sees_part_of_what_is_being_uploaded",
    OverwritesOnUpload: "test_an_upload_does_not_change_what_has_its_key",
    ComparesSizesOnly: "test_an_upload_does_not_change_what_has_its_key",
    ComparesTheBeginningOnly: "test_an_upload_does_not_change_what_has_its_key",
    UploadsOnce: "test_the_same_upload_may_be_repeated",
    LeavesPartOfAFailedUpload: "test_an_upload_without_a_source_leaves_nothing",
    MovesTheSource: "test_an_upload_leaves_its_source_alone",
    LinksByName: "test_an_object_outlives_the_file_it_came_from",
    HoldsUploadsInMemory: "test_a_large_file_takes_little_memory",
    HoldsDownloadsInMemory: "test_a_large_file_takes_little_memory",
    OpensBehindTheBeginning: "test_an_uploaded_file_comes_back_as_it_was",
    OpensWhatIsMissing: "test_downloading_a_missing_key_leaves_no_target",
    LeavesTheTarget: "test_downloading_a_missing_key_leaves_no_target",
    OverwritesTheTarget: "test_a_download_leaves_an_existing_file_alone",
    LinksTheTarget: "test_an_object_does_not_change_with_its_copies",
    LeavesErrorsAsTheyAre: "test_a_download_into_no_directory_fails_as_storage_does",
    ListsFromACache: "test_a_scan_never_comes_from_a_cache",
    ListsInAnyOrder: "test_a_scan_gives_keys_in_their_order",
    ListsInTheOrderOfNames: "test_a_scan_gives_keys_in_their_order",
    ListsTheKeyItself: "test_a_scan_gives_what_sorts_after_a_key",
    ListsAllAfterADirectory: "test_a_scan_gives_what_sorts_after_a_key",
    ListsWholeDirectories: "test_a_scan_gives_what_starts_with_the_prefix",
    ListsFailureAsEmpty: "test_a_place_that_fails_is_never_empty_or_without_a_key",
    ListsAtMostAPage: "test_a_scan_of_many_keys_gives_each_once",
    ListsTimesWithoutAZone: "test_a_scan_tells_sizes_and_times_with_their_zone",
    ListsNoSizes: "test_a_scan_tells_sizes_and_times_with_their_zone",
    StopsAtWhatVanished: "test_a_scan_goes_on_while_others_delete",
    DeletesOnce: "test_deleting_what_is_missing_is_fine",
    DeletesNothing: "test_what_was_deleted_is_missing",
    DeletesTheDirectory: "test_a_delete_leaves_the_neighbours",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_backend_is_caught(mutant, tmp_path):
    assert fails(MUTANTS[mutant], mutant(tmp_path / "store"), tmp_path)


@pytest.mark.parametrize("test", sorted({*MUTANTS.values()}))
def test_what_catches_them_passes_a_backend_that_is_whole(test, tmp_path):
    assert not fails(test, LocalBackend(tmp_path / "store"), tmp_path)


def test_a_listing_from_fsspec_s_own_cache_is_caught(tmp_path):
    class Caching(LocalFileSystem):
        cachable = False

        def ls(self, path, **kwargs):
            if path not in self.dircache:
                self.dircache[path] = super().ls(path, **kwargs)
            return self.dircache[path]

    class CachedContract(Contract):
        def another(self, backend):
            return FsspecBackend(Caching(auto_mkdir=True), str(tmp_path / "store"), "caching://")

    backend = CachedContract().another(None)
    with backend._clients.one() as filesystem:
        filesystem.dircache.use_listings_cache = True

    with pytest.raises(AssertionError):
        CachedContract().test_a_scan_never_comes_from_a_cache(backend)


# What a power cut would leave cannot be seen while the kernel lives. So the calls are watched.


class Watch:
    """
    Which names a power cut would take away now, and which names have content that it would.

    A name is safe once its directory is synced after it came or went; content, once its file is.
    """

    def __init__(self, monkeypatch):
        self.unsafe = set()
        self.synced = set()
        self.torn = []
        for call in ("mkdir", "link", "rename", "unlink", "rmdir", "fsync"):
            monkeypatch.setattr(os, call, partial(getattr(self, call), getattr(os, call)))

    def mkdir(self, real, path, *arguments):
        real(path, *arguments)
        self.unsafe.add(Path(path))

    def link(self, real, source, target):
        real(source, target)
        self.named(target)

    def rename(self, real, source, target):
        real(source, target)
        self.named(target)

    def unlink(self, real, path):
        real(path)
        if not Path(path).name.startswith("~"):
            self.unsafe.add(Path(path))

    def rmdir(self, real, path):
        real(path)
        self.unsafe.add(Path(path))

    def fsync(self, real, descriptor):
        real(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self.synced.add(os.fstat(descriptor).st_ino)
        self.unsafe = {name for name in self.unsafe if name.parent != path}

    def named(self, target):
        self.unsafe.add(Path(target))
        if Path(target).stat().st_ino not in self.synced:
            self.torn.append(Path(target))

    @property
    def harmless(self):
        """Whether a power cut now would take nothing away and tear nothing."""
        # A directory that is gone has no names to lose.
        return not self.torn and not [path for path in self.unsafe if path.parent.exists()]


def no_links(monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)


def only_claims(monkeypatch):
    def rename(*_):
        raise OSError(errno.EINVAL, "no such call here")

    no_links(monkeypatch)
    monkeypatch.setattr(naming, "rename", rename)


def all_calls(monkeypatch):
    pass


def another_disk(monkeypatch):
    real = os.link

    def link(source, target):
        if not Path(source).name.startswith("~"):
            raise OSError(errno.EXDEV, "another disk")
        real(source, target)

    monkeypatch.setattr(os, "link", link)


WAYS = [all_calls, another_disk, only_claims]
ACTS = {
    "create": lambda backend, _: backend.create("manifests/a", b"a"),
    "upload": lambda backend, source: backend.upload(source, "files/a/x/model"),
    "delete": lambda backend, _: backend.delete("pins/paper/a"),
    "delete of several": lambda backend, _: backend.delete(*GONE),
}
#: Objects of which one leaves its directory to another, and two leave theirs empty.
GONE = ("files/b/one", "files/c/deep/one", "files/c/two")


@pytest.fixture
def place(tmp_path):
    """A store with a pin and some files in it, and a file to upload that nobody synced."""
    backend = LocalBackend(tmp_path / "runs" / "store")
    for key in ("pins/paper/a", "files/b/stays", *GONE):
        backend.create(key, b"")
    (tmp_path / "source").write_bytes(b"source")
    return backend, tmp_path / "source"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to watch the calls")
class TestPowerCut:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("act", ACTS)
    def test_what_was_acknowledged_survives_it(self, act, way, place, monkeypatch):
        way(monkeypatch)
        watch = Watch(monkeypatch)

        ACTS[act](*place)

        assert watch.harmless, (watch.unsafe, watch.torn)

    def test_a_new_root_survives_it(self, tmp_path, monkeypatch):
        watch = Watch(monkeypatch)

        LocalBackend(tmp_path / "a" / "b" / "store").create("manifests/a", b"a")

        assert watch.harmless, (watch.unsafe, watch.torn)

    def test_a_key_that_is_taken_survives_it(self, place, monkeypatch):
        backend, source = place
        (backend.root / "files/a").mkdir(parents=True)
        os.link(source, backend.root / "files/a/model")
        watch = Watch(monkeypatch)
        watch.unsafe |= {backend.root / name for name in ("files", "files/a", "files/a/model")}

        backend.upload(source, "files/a/model")
        with pytest.raises(AlreadyExists):
            backend.create("files/a/model", b"other")

        assert watch.harmless, (watch.unsafe, watch.torn)
        assert source.stat().st_ino in watch.synced

    def test_what_was_deleted_before_a_key_that_fails_survives_it(self, place, monkeypatch):
        backend, _ = place
        watch = Watch(monkeypatch)

        with pytest.raises(InvalidInputError):
            backend.delete("files/b/one", "pins/../no key")

        assert not (backend.root / "files/b/one").exists()
        assert watch.harmless, watch.unsafe

    def test_a_delete_where_another_process_changed_directories_survives_it(
        self, place, monkeypatch
    ):
        backend, _ = place
        watch = Watch(monkeypatch)
        watch.unsafe |= {backend.root / "files/b", backend.root / "files/b/gone already"}

        backend.delete("files/b/gone already")

        assert watch.harmless, watch.unsafe

    def test_a_delete_of_several_syncs_each_directory_once(self, place, monkeypatch):
        backend, _ = place
        sync, synced = disk.sync_directory, []
        monkeypatch.setattr(disk, "sync_directory", lambda at: sync(at) or synced.append(at))

        backend.delete(*GONE)

        assert synced == [backend.root / "files/b", backend.root / "files"]

    @pytest.mark.parametrize("act", ACTS)
    def test_directories_that_are_not_synced_are_caught(self, act, place, monkeypatch):
        monkeypatch.setattr(disk, "sync_directory", lambda _: None)
        watch = Watch(monkeypatch)

        ACTS[act](*place)

        assert not watch.harmless

    @pytest.mark.parametrize("act", ["create", "upload"])
    def test_a_directory_synced_before_the_name_is_there_is_caught(self, act, place, monkeypatch):
        backend, source = place
        put = backend._put
        monkeypatch.setattr(backend, "_sync", lambda *_: None)

        def early(target, act):
            target.parent.mkdir(parents=True, exist_ok=True)
            LocalBackend._sync(backend, target.parent, backend.root)
            return put(target, act)

        monkeypatch.setattr(backend, "_put", early)
        watch = Watch(monkeypatch)

        ACTS[act](backend, source)

        assert not watch.harmless

    @pytest.mark.parametrize("act", ["create", "upload"])
    def test_a_new_directory_s_own_name_that_is_not_synced_is_caught(self, act, place, monkeypatch):
        backend, source = place
        monkeypatch.setattr(backend, "_sync", lambda place, *_: disk.sync_directory(place))
        watch = Watch(monkeypatch)

        ACTS[act](backend, source)

        assert not watch.harmless

    def test_a_linked_source_that_is_not_synced_is_caught(self, place, monkeypatch):
        monkeypatch.setattr(disk, "sync_file", lambda _: None)
        watch = Watch(monkeypatch)

        ACTS["upload"](*place)

        assert watch.torn

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("act", ["create", "upload"])
    def test_content_that_is_not_synced_is_caught(self, act, way, place, monkeypatch):
        way(monkeypatch)
        watch = Watch(monkeypatch)
        sync = os.fsync

        def only_directories(descriptor):
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - no path is at hand
                sync(descriptor)

        monkeypatch.setattr(os, "fsync", only_directories)

        ACTS[act](*place)

        assert watch.torn
