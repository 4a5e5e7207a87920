"""A directory keeps the contract, also where its mount lacks calls, and knows its disk."""

import errno
import os
import shutil
import socket
import stat
import threading
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import disk, record
from holdfast.backends import arrival, local, mounts, naming, tree
from holdfast.backends.base import Traits
from holdfast.backends.local import LocalBackend
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StorageFull,
)
from holdfast.testing.backends import BackendContract

SHM = Path("/dev/shm")
#: Files of the real calls, kept before any test replaces them.
REAL_LINK = os.link


class LocalContract(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path):
        return LocalBackend(tmp_path / "store")

    def behind(self, backend, key):
        path = backend.root / key
        return path.read_bytes() if path.exists() else None

    def another(self, backend):
        return LocalBackend(backend.root)

    def unplug(self, backend):
        backend.root.rename(backend.root.with_name("elsewhere"))


class TestLocal(LocalContract):
    pass


def failing(number, *_, **__):
    raise OSError(number, os.strerror(number))


class TestWithoutLinks(LocalContract):
    """As a FUSE mount answers: `renameat2` does it."""

    large_bytes = 16 * 1024 * 1024

    @pytest.fixture
    def backend(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "link", partial(failing, errno.EPERM))
        return LocalBackend(tmp_path / "store")


class TestWithOnlyExclusiveCreation(LocalContract):
    """As a mounted Google Drive answers: whoever creates the name exclusively has it."""

    large_bytes = 16 * 1024 * 1024

    @pytest.fixture
    def backend(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "link", partial(failing, errno.EPERM))
        monkeypatch.setattr(naming, "rename", partial(failing, errno.EINVAL))
        return LocalBackend(tmp_path / "store")

    @pytest.mark.skip(reason="a file that is being named is empty for a moment")
    def test_nobody_reads_part_of_what_is_being_created(self):
        pass

    @pytest.mark.skip(reason="a file that is being named is empty for a moment")
    def test_nobody_sees_part_of_what_is_being_uploaded(self):
        pass


class TestWhereLinksSeemToFail(LocalContract):
    """As a network mount may do: the link is made and the reply is lost."""

    large_bytes = 16 * 1024 * 1024

    @pytest.fixture
    def backend(self, tmp_path, monkeypatch):
        def link(source, target):
            REAL_LINK(source, target)
            raise OSError(errno.EIO, "the reply was lost")

        monkeypatch.setattr(os, "link", link)
        return LocalBackend(tmp_path / "store")


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="there is no other disk here")
class TestOnAnotherDisk(LocalContract):
    """The source is not on the store's disk, so it is copied."""

    @pytest.fixture
    def backend(self):
        root = SHM / f"holdfast-{disk.new_name()}"
        root.mkdir()
        yield LocalBackend(root / "store")
        shutil.rmtree(root)


@pytest.fixture
def backend(tmp_path):
    return LocalBackend(tmp_path / "store")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


def keys(backend, prefix="", after=""):
    return [entry.key for entry in backend.scan(prefix, after)]


def files_below(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


# What lies on the disk.


def test_an_upload_on_one_disk_is_a_link(backend, source):
    backend.upload(source, "files/a/model")

    assert (backend.root / "files/a/model").samefile(source)


def test_a_source_that_somebody_may_write_to_under_another_name_is_copied(
    backend, source, tmp_path
):
    os.link(source, tmp_path / "another name")
    content = source.read_bytes()

    backend.upload(source, "files/a/b")
    with (tmp_path / "another name").open("r+b") as file:
        file.write(b"changed")

    assert backend.read("files/a/b") == content


def test_an_object_is_as_old_as_its_upload(backend, source):
    os.utime(source, (1, 1))
    begun = datetime.now(UTC).timestamp()

    backend.upload(source, "files/a/model")

    [entry] = backend.scan("")
    assert abs(entry.modified.timestamp() - begun) < 60


def test_nothing_temporary_is_left(backend, source, monkeypatch):
    backend.create("manifests/a", b"a")
    with pytest.raises(AlreadyExists):
        backend.create("manifests/a", b"b")
    monkeypatch.setattr(os, "link", partial(failing, errno.EXDEV))
    backend.upload(source, "files/a/model")

    assert files_below(backend.root) == ["files/a/model", "manifests/a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "write", "close", "link"])
def test_a_create_that_fails_leaves_nothing(backend, monkeypatch, number, call):
    backend.create("manifests/a", b"a")
    with monkeypatch.context() as patch:
        real = getattr(os, call)

        def fail(*arguments):
            if call == "close":
                real(*arguments)
            failing(number)

        patch.setattr(os, call, fail)
        with pytest.raises(StorageError) as caught:
            backend.create("manifests/b", b"b" * 1000)

    kinds = {errno.ENOSPC: StorageFull, errno.EIO: StorageError, errno.EACCES: AccessDenied}
    assert (type(caught.value), caught.value.errno) == (kinds[number], number)
    assert files_below(backend.root) == ["manifests/a"]


def test_an_upload_that_fails_half_way_leaves_nothing(backend, source, monkeypatch):
    monkeypatch.setattr(os, "link", partial(failing, errno.EXDEV))

    with pytest.raises(StorageFull):
        backend.upload(source, "files/a/model", full_after_the_first_bytes)

    assert files_below(backend.root) == []


def test_a_download_that_fails_half_way_leaves_no_target(backend, source, tmp_path):
    backend.upload(source, "files/a/model")

    with pytest.raises(StorageFull):
        backend.download("files/a/model", tmp_path / "target", full_after_the_first_bytes)

    assert not (tmp_path / "target").exists()


def full_after_the_first_bytes(count):
    assert count
    failing(errno.ENOSPC)


def test_deleting_removes_directories_that_it_leaves_empty(backend):
    for key in ("files/a/x/y/model", "files/a/x/other", "pins/paper/a", "manifests/a"):
        backend.create(key, b"")

    backend.delete("files/a/x/y/model")
    assert not (backend.root / "files/a/x/y").exists()
    for key in ("files/a/x/other", "pins/paper/a", "manifests/a"):
        backend.delete(key)

    left = sorted(path.name for path in backend.root.rglob("*"))
    assert left == ["doomed", "files", "manifests", "pins"]


def test_deleting_again_removes_the_directories_that_a_dead_process_left(backend):
    backend.create("files/a/x/model", b"")
    (backend.root / "files/a/x/model").unlink()

    backend.delete("files/a/x/model")

    assert not (backend.root / "files/a").exists()


def test_an_upload_meets_a_delete_that_takes_its_directory_away(backend, source):
    stop = threading.Event()

    def delete():
        while not stop.is_set():
            backend.delete("files/a/x/other")

    deleting = threading.Thread(target=delete)
    deleting.start()
    try:
        for number in range(200):
            backend.upload(source, f"files/a/x/{number}")
            backend.delete(f"files/a/x/{number}")
    finally:
        stop.set()
        deleting.join()

    assert keys(backend) == []


# Scan.

_PART = st.text("ab-.0A+,=@_", min_size=1, max_size=3).filter(lambda part: part.strip("."))
_PATHS = st.lists(st.lists(_PART, min_size=1, max_size=4).map("/".join), max_size=12, unique=True)


@given(paths=_PATHS, data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_scan_is_the_sorted_list_of_keys(paths, data, tmp_path_factory):
    root = tmp_path_factory.mktemp("scan")
    there = [path for path in paths if not any(other.startswith(path + "/") for other in paths)]
    for path in there:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    around = st.sampled_from([*there, ""]).flatmap(
        lambda key: st.integers(0, len(key)).map(lambda end: key[:end])
    )
    prefix, after = data.draw(around), data.draw(around)

    found = keys(LocalBackend(root), prefix, after)

    assert found == sorted(key for key in there if key.startswith(prefix) and key > after)


def test_a_scan_after_a_key_looks_at_nothing_before_it(backend, monkeypatch):
    for number in range(50):
        backend.create(f"files/{number:04d}/model", b"")
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: listed.append(str(place)) or real(place))

    found = keys(backend, "files/", "files/0047/model")

    assert found == ["files/0048/model", "files/0049/model"]
    assert [Path(place).name for place in listed] == ["files", "0047", "0048", "0049"]


def test_a_scan_does_not_show_the_workspace(backend):
    backend.create("manifests/a", b"")
    (backend.root / ".workspace/draft").mkdir(parents=True)
    (backend.root / ".workspace/draft/seal.json").write_bytes(b"")
    backend.create("files/.workspace/is-a-name-like-any", b"")

    assert keys(backend) == ["files/.workspace/is-a-name-like-any", "manifests/a"]


def test_a_scan_shows_what_was_left_unfinished(backend):
    (backend.root / "files/a").mkdir(parents=True)
    (backend.root / "files/a/~0123").write_bytes(b"half")

    assert keys(backend) == ["files/a/~0123"]


def test_a_scan_passes_over_what_vanishes_while_it_walks(backend, monkeypatch):
    for key in ("files/a/model", "files/b/model", "files/c/model"):
        backend.create(key, b"")
    scan = backend.scan("files/")

    first = next(scan).key
    shutil.rmtree(backend.root / "files/b")

    assert [first, *(entry.key for entry in scan)] == ["files/a/model", "files/c/model"]


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, StorageError), (errno.EACCES, AccessDenied)]
)
def test_a_listing_that_fails_is_never_empty(backend, monkeypatch, number, kind):
    backend.create("manifests/a", b"")
    monkeypatch.setattr(os, "scandir", partial(failing, number))

    with pytest.raises(kind):
        keys(backend)


def test_a_very_deep_tree_is_no_trouble():
    def names(directory):
        return [("d/" if len(directory) < 4000 else "f", None)]

    assert list(tree.walk(names, "", "")) == [("d/" * 2000 + "f", None)]


@pytest.mark.parametrize("seconds", [1e12, 1e17, 1e300])
def test_a_time_that_no_calendar_has_is_no_time(seconds):
    assert local._modified(SimpleNamespace(st_mtime=1.0)) is not None
    assert local._modified(SimpleNamespace(st_mtime=seconds)) is None


# Links, and keys that lead outside.


@pytest.fixture
def outside(tmp_path):
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_bytes(b"secret")
    return directory


VERBS = {
    "create": lambda backend, key, _: backend.create(key, b"new"),
    "read": lambda backend, key, _: backend.read(key),
    "upload": lambda backend, key, path: backend.upload(path / "source", key),
    "download": lambda backend, key, path: backend.download(key, path / "target"),
    "scan": lambda backend, key, _: list(backend.scan(key)),
    "delete": lambda backend, key, _: backend.delete(key),
    "open_file": lambda backend, key, _: backend.open_file(key),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_linked_directory_in_the_store_is_refused(verb, backend, source, outside, tmp_path):
    backend.create("manifests/a", b"")
    (backend.root / "files").symlink_to(outside)

    with pytest.raises(StorageError, match="not followed"):
        VERBS[verb](backend, "files/secret", tmp_path)

    assert files_below(outside) == ["secret"]


@pytest.mark.parametrize("verb", ["create", "read", "upload", "download", "open_file"])
def test_a_linked_file_in_the_store_is_refused(verb, backend, source, outside, tmp_path):
    backend.create("files/a", b"")
    (backend.root / "files/link").symlink_to(outside / "secret")

    with pytest.raises(StorageError):
        VERBS[verb](backend, "files/link", tmp_path)

    assert (outside / "secret").read_bytes() == b"secret"
    assert not (tmp_path / "target").exists()


def test_a_scan_passes_over_links_and_special_files(backend, outside):
    backend.create("files/a", b"")
    (backend.root / "files/link").symlink_to(outside / "secret")
    (backend.root / "files/directory").symlink_to(outside)
    (backend.root / "other").symlink_to(outside)
    os.mkfifo(backend.root / "files/pipe")

    assert keys(backend) == ["files/a"]


def test_reading_a_pipe_does_not_wait_for_ever(backend):
    backend.create("files/a", b"")
    os.mkfifo(backend.root / "files/pipe")

    with pytest.raises(StorageError, match="not a file"):
        backend.read("files/pipe")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("key", ["../x", "files/../../x", "/nowhere/x", "files//x", "./x", "a\0/b"])
def test_a_key_that_could_lead_outside_is_refused(verb, key, backend, source, tmp_path):
    with pytest.raises(InvalidInputError):
        VERBS[verb](backend, key, tmp_path)

    assert not backend.root.exists()


def test_the_root_itself_may_be_reached_by_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    backend = LocalBackend(tmp_path / "link" / "store")
    backend.create("manifests/a", b"a")

    assert backend.url == f"file://{tmp_path}/real/store"
    assert (tmp_path / "real/store/manifests/a").read_bytes() == b"a"


# Opening.


def test_opening_writes_nothing(tmp_path):
    backend = LocalBackend(tmp_path / "store")

    assert (keys(backend), list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "~no-such-user-here/x"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(InvalidInputError, match="touched"):
        LocalBackend(path)


@pytest.mark.parametrize("below", ["", "/store", "/a/store"])
def test_a_file_is_no_store(source, below):
    with pytest.raises(InvalidInputError, match="is a file"):
        LocalBackend(f"{source}{below}")


def test_the_home_of_the_user_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert LocalBackend("~/runs").root == tmp_path / "runs"


# The disk.


def mounted(*places):
    return lambda path: path in map(Path, (*places, "/"))


@pytest.mark.parametrize("path", ["/content/drive", "/content/drive/MyDrive/runs"])
def test_drive_that_is_not_mounted_is_refused_with_what_to_run(path):
    with pytest.raises(StorageError, match=r"drive\.mount\('/content/drive'\)") as caught:
        mounts.refuse_absent(Path(path), is_mount=mounted())

    assert "Nothing was written" in str(caught.value)
    mounts.refuse_absent(Path(path), is_mount=mounted("/content/drive"))
    mounts.refuse_absent(Path("/content/other"), is_mount=mounted())


def test_a_disk_of_the_table_that_is_not_mounted_is_refused(tmp_path):
    table = tmp_path / "fstab"
    table.write_text(
        "# /dev/old /old ext4\n"
        "UUID=1 / ext4 defaults 0 1\n"
        "UUID=2 none swap sw 0 0\n"
        "nas:/x /data/my\\040disk nfs defaults,noauto 0 0\n"
        "broken\n"
    )
    refuse = partial(mounts.refuse_absent, fstab=table, parents=())

    with pytest.raises(StorageError, match="not mounted"):
        refuse(Path("/data/my disk/runs/a"), is_mount=mounted())
    refuse(Path("/data/my disk/runs/a"), is_mount=mounted("/data/my disk"))
    refuse(Path("/old/runs"), is_mount=mounted())
    refuse(Path("/data/other"), is_mount=mounted())


def test_a_missing_directory_where_disks_are_mounted_is_not_made(tmp_path):
    refuse = partial(mounts.refuse_absent, is_mount=mounted(), parents=[tmp_path / "mnt"])
    (tmp_path / "mnt/there").mkdir(parents=True)

    with pytest.raises(StorageError, match="does not exist"):
        refuse(tmp_path / "mnt/nas/runs")
    refuse(tmp_path / "mnt/there/runs")
    refuse(tmp_path / "mnt")


def test_a_backend_asks_before_it_makes_its_root(tmp_path):
    absent = []

    def refuse(path):
        if absent:
            raise StorageError(f"{path}: absent")

    backend = LocalBackend(tmp_path / "store", refuse_absent=refuse)
    absent.append("now")

    with pytest.raises(StorageError, match="absent"):
        backend.create("manifests/a", b"a")
    assert not backend.root.exists()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="there is no other disk here")
def test_a_root_on_another_disk_than_before_is_refused(verb, backend, source, tmp_path):
    backend.create("manifests/a", b"a")
    other = SHM / f"holdfast-{disk.new_name()}"
    other.mkdir()
    backend.root.rename(tmp_path / "unmounted")
    backend.root.symlink_to(other)

    try:
        with pytest.raises(StorageError, match="another disk"):
            VERBS[verb](backend, "manifests/b", tmp_path)
        assert list(other.iterdir()) == []
    finally:
        shutil.rmtree(other)


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="there is no other disk here")
def test_a_disk_that_was_mounted_again_is_the_same_disk(tmp_path):
    root = SHM / f"holdfast-{disk.new_name()}"
    backend = LocalBackend(root)
    try:
        backend.create("manifests/a", b"a")
        device, place = backend._disk
        backend._disk = (device + 1, place)  # as if it had had another number before

        assert backend.read("manifests/a") == b"a"
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("verb", VERBS)
def test_a_root_that_is_gone_is_neither_empty_nor_made_anew(verb, backend, source, tmp_path):
    backend.create("manifests/a", b"a")
    shutil.rmtree(backend.root)

    with pytest.raises(StorageError, match="is gone"):
        VERBS[verb](backend, "manifests/a", tmp_path)

    assert not backend.root.exists()


def test_a_scan_that_loses_its_disk_half_way_fails(backend, tmp_path):
    for key in ("files/a/model", "files/b/model"):
        backend.create(key, b"")
    scan = backend.scan("files/")
    next(scan)

    backend.root.rename(tmp_path / "unmounted")

    with pytest.raises(StorageError, match="is gone"):
        list(scan)


TABLE = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:40 / /content/gdrive rw,nosuid - fuse.drive drive rw,user_id=0
23 21 0:41 / /home/me/my\\040files rw shared:2 master:1 - fuse.sshfs me@host: rw
24 21 0:42 / /data rw - nfs4 nas:/x rw
25 24 8:2 / /data/scratch rw - xfs /dev/sdb1 rw
26 21 0:43 / /merged rw - fuse.mergerfs a:b rw
27 21 0:44 / /usb rw - fuseblk /dev/sdc1 rw
28 21 0:45 / /plain rw - fuse something rw
29 21 0:46 / /twice rw - ext4 /dev/sdd1 rw
30 29 0:47 / /twice rw - cifs //nas/x rw
31 21 0:48 / /torn
"""
NOTHING = Traits(exclusive=False, fresh=False, durable=False)


@pytest.mark.parametrize(
    ("path", "kind", "traits"),
    [
        ("/home/me/run", "ext4", Traits()),
        ("/content/gdrive", "fuse.drive", NOTHING),
        ("/content/gdrive/MyDrive/run", "fuse.drive", NOTHING),
        ("/content/gdrives", "ext4", Traits()),
        ("/home/me/my files/run", "fuse.sshfs", NOTHING),
        ("/data/run", "nfs4", Traits(fresh=False)),
        ("/data/scratch/run", "xfs", Traits()),
        ("/merged/run", "fuse.mergerfs", Traits()),
        ("/usb/run", "fuseblk", Traits()),
        ("/plain/run", "fuse", NOTHING),
        ("/twice/run", "cifs", Traits(fresh=False)),
        ("/torn/run", "ext4", Traits()),
    ],
)
def test_what_a_mount_can_be_relied_on_for_is_told_by_its_kind(path, kind, traits, tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)

    assert mounts.kind(Path(path), table) == kind
    assert mounts.traits(Path(path), table) == traits


@pytest.mark.parametrize(
    ("path", "on_drive"),
    [
        ("/content/drive/MyDrive/run", True),
        ("/content/gdrive/MyDrive/run", True),
        ("/Users/me/Library/CloudStorage/GoogleDrive-me@example.org/My Drive/run", True),
        ("/Users/me/Library/CloudStorage/OneDrive/run", False),
        ("/home/me/my files/run", False),
        ("/content/run", False),
    ],
)
def test_drive_is_known_by_its_place_or_by_its_client(path, on_drive, tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)

    assert mounts.is_on_drive(Path(path), table) is on_drive


def test_drive_on_macos_that_is_not_there_is_refused(tmp_path):
    root = tmp_path / "Library/CloudStorage/GoogleDrive-me@example.org/My Drive/run"

    with pytest.raises(StorageError, match="does not exist"):
        mounts.refuse_absent(root, is_mount=mounted())
    root.parents[1].mkdir(parents=True)
    mounts.refuse_absent(root, is_mount=mounted())


def test_without_a_table_nothing_is_known_of_a_mount_and_a_disk_is_a_disk(tmp_path):
    assert mounts.kind(Path("/data"), tmp_path / "none") == ""
    assert mounts.traits(Path("/data"), tmp_path / "none") == Traits()


def test_what_no_mount_tells_is_taken_to_have_arrived(backend):
    backend.create("manifests/a", b"a")

    assert arrival.have_arrived(backend.url, ["manifests/a"])
    assert arrival.have_arrived("memory://run", ["manifests/a"])
    assert not arrival.have_arrived(backend.url, ["manifests/gone"])


def test_this_machine_s_own_mounts_are_known():
    assert mounts.is_mount(Path("/"))
    assert mounts.mount_point(Path("/proc/self")) == Path("/proc")


# Rights.


def test_an_object_is_readable_for_whom_the_umask_lets(backend):
    backend.create("manifests/a", b"a")

    mask = os.umask(0)
    os.umask(mask)
    mode = stat.S_IMODE((backend.root / "manifests/a").stat().st_mode)
    assert mode == 0o666 & ~mask


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_directory_without_the_right_to_write_is_named(tmp_path):
    (tmp_path / "store").mkdir(mode=0o500)

    with pytest.raises(AccessDenied, match="Grant"):
        LocalBackend(tmp_path / "store").create("manifests/a", b"a")


def test_a_missing_key_in_a_place_that_is_a_file_is_missing(backend):
    backend.create("files/a", b"")

    with pytest.raises(NotFoundError):
        backend.read("files/a/b")
    backend.delete("files/a/b")
    assert keys(backend, "files/a/") == []


# What is no object of ours.


def test_of_an_object_that_no_record_can_be_as_large_as_only_the_first_is_read(backend):
    backend.create("manifests/a", b"a")
    with (backend.root / "manifests/a").open("r+b") as file:
        file.truncate(2**40)

    assert len(backend.read("manifests/a")) == record.MAX_BYTES + 1


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a socket"])
def test_what_is_no_file_is_told_and_neither_followed_nor_waited_for(
    backend, kind, tmp_path, monkeypatch
):
    backend.create("manifests/a", b"a")
    place = backend.root / "manifests/b"
    monkeypatch.chdir(place.parent)  # the path of a socket is bounded
    if kind == "a link":
        place.symlink_to("a")
    elif kind == "a pipe":
        os.mkfifo(place)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("b")

    for look in (
        lambda: backend.read("manifests/b"),
        lambda: backend.open_file("manifests/b"),
        lambda: backend.download("manifests/b", tmp_path / "target"),
    ):
        with pytest.raises(StorageError, match=r"is not a file\. Nothing was touched"):
            look()


def test_it_is_shown_as_its_directory(tmp_path):
    assert repr(LocalBackend(tmp_path)) == f"LocalBackend({str(tmp_path)!r})"


def test_what_is_free_is_told_of_the_disk_before_the_directory_is_made(tmp_path, monkeypatch):
    asked = []
    usage = SimpleNamespace(free=7)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: asked.append(place) or usage)

    assert LocalBackend(tmp_path / "not" / "made").free_bytes() == 7
    assert asked == [tmp_path]


def test_a_directory_that_goes_again_and_again_ends_in_an_error(backend, monkeypatch):
    tried = []

    def gone(*_):
        tried.append(1)
        failing(errno.ENOENT)

    monkeypatch.setattr(naming, "name_new", gone)

    with pytest.raises(StorageError, match="cannot create"):
        backend.create("manifests/a", b"")

    assert len(tried) > 1


def test_an_upload_whose_link_was_made_though_the_reply_was_lost_is_there(
    backend, source, monkeypatch
):
    def link(source, target):
        REAL_LINK(source, target)
        failing(errno.EIO)

    monkeypatch.setattr(os, "link", link)

    backend.upload(source, "files/a")

    assert (backend.root / "files/a").read_bytes() == b"content"


def test_an_upload_whose_link_fails_leaves_nothing(backend, source, monkeypatch):
    monkeypatch.setattr(os, "link", partial(failing, errno.EIO))

    with pytest.raises(StorageError, match="cannot upload"):
        backend.upload(source, "files/a")

    assert keys(backend) == []


def test_a_file_that_goes_after_it_was_listed_is_none(backend, monkeypatch):
    backend.create("files/a", b"")
    backend.create("files/b", b"")
    names = LocalBackend._names

    def gone_when_it_is_looked_at(self, directory):
        found = names(self, directory)
        if directory == "files/":
            (self.root / "files/a").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(LocalBackend, "_names", gone_when_it_is_looked_at)

    assert keys(backend) == ["files/b"]


def test_a_name_that_is_there_is_made_durable_up_to_the_root(backend, monkeypatch):
    backend.create("files/a/b/model", b"")
    synced = []
    monkeypatch.setattr(disk, "sync_directory", synced.append)

    backend.sync_name("files/a/b/model")

    assert {"files/a/b", "files/a", "files", "."} == {
        path.relative_to(backend.root).as_posix() for path in synced
    }
    assert keys(backend) == ["files/a/b/model"]


def test_an_object_that_cannot_be_opened_is_not_missing(backend, monkeypatch):
    backend.create("manifests/a", b"a")
    open_ = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, *given, **named: (
            failing(errno.EIO) if Path(path).name == "a" else open_(path, *given, **named)
        ),
    )

    with pytest.raises(StorageError, match="cannot read") as caught:
        backend.read("manifests/a")

    assert caught.value.errno == errno.EIO
