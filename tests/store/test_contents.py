"""A state reads straight from the store: in place, hashed once, and never what is damaged."""

import io
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast import (
    CheckpointWarning,
    CorruptionError,
    Files,
    FormatError,
    InvalidInputError,
    KeepLast,
    NotFoundError,
    StorageFull,
    layout,
)
from holdfast.backends.base import Traits
from holdfast.backends.local import LocalBackend
from holdfast.fetching import CheckpointContents
from holdfast.staging import Workspace
from holdfast.state import ReadsContents
from holdfast.testing import FaultBackend, MemoryBackend
from tests.store.hooked import HookedBackend

WEIGHTS = bytes(range(256)) * 40


class Reading(Files):
    """Reads what it needs, and assigns it when all of it has come."""

    assigned = None

    def restore_from(self, contents):
        self.tries = getattr(self, "tries", 0) + 1
        self.seen = contents.paths()
        note = contents.read("deep/note")
        first, last = bytearray(100), bytearray(50)
        wanted = [(len(WEIGHTS) - 50, memoryview(last)), (0, memoryview(first))]
        contents.read_into("weights", wanted)
        self.assigned = (note, bytes(first), bytes(last))


#: With a backend that opens files, and with one that does not.
BOTH = pytest.mark.parametrize("backend", ["in place", "brought"], indirect=True)


@pytest.fixture
def backend(request, tmp_path):
    is_local = getattr(request, "param", "brought") == "in place"
    return LocalBackend(tmp_path / "run") if is_local else MemoryBackend()


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    (directory / "deep").mkdir(parents=True)
    (directory / "weights").write_bytes(WEIGHTS)
    (directory / "deep" / "note").write_bytes(b"step")
    return directory


def change(backend, key, data):
    """Behind the verbs; without data the object goes."""
    if isinstance(backend, MemoryBackend):
        backend.objects.pop(key)
        if data is not None:
            backend.create(key, data)
        return
    (backend.root / key).unlink()
    if data is not None:
        (backend.root / key).write_bytes(data)


ASSIGNED = (b"step", WEIGHTS[:100], WEIGHTS[-50:])


@BOTH
def test_a_state_reads_what_it_needs(process, model, workspace):
    saved = process().save(model, step=1)
    state = Reading(model)
    assert isinstance(state, ReadsContents)

    assert process().restore(state) == saved

    assert state.assigned == ASSIGNED
    assert state.seen == ["deep/note", "weights"]
    assert not list(workspace.iterdir())


def test_a_local_store_is_read_where_it_lies(tmp_path, process, model, workspace, monkeypatch):
    local = LocalBackend(tmp_path / "run")
    process(on=local).save(model, step=1)
    store, state = process(on=local), Reading(model)
    monkeypatch.setattr(store.workspace, "scratch", lambda: pytest.fail("it brings files here"))

    store.restore(state)
    report = store.verify(deep=True)

    assert state.assigned == ASSIGNED
    assert report.ok


def test_every_file_is_read_once(tmp_path, process, model, monkeypatch):
    local = LocalBackend(tmp_path / "run")
    process(on=local).save(model, step=1)
    read = []

    readv = os.readv

    def counted(*arguments):
        read.append(count := readv(*arguments))
        return count

    class Counted(io.FileIO):
        def read(self, size=-1):
            read.append(len(data := super().read(size)))
            return data

    monkeypatch.setattr(os, "readv", counted)
    monkeypatch.setattr(local, "open_file", lambda key: Counted(local.root / key))

    process(on=local).restore(Reading(model))

    assert sum(read) == len(WEIGHTS) + len(b"step")


def test_what_is_brought_is_brought_once_with_one_scan(process, model):
    medium = MemoryBackend()
    process(on=medium).save(model, step=1)
    counted = FaultBackend(medium)

    process(on=counted).restore(Reading(model))

    calls = sorted(call.verb for call in counted.calls)
    assert calls == ["download", "download", "read", "scan", "scan"]


def test_all_that_is_brought_is_brought_at_once_where_a_place_gains_by_it(process, model):
    medium = MemoryBackend()
    process(on=medium).save(model, step=1)
    medium.traits = Traits(parallel=2)
    both = threading.Barrier(2, timeout=60)

    def beside_the_other(verb, key, call):
        if verb == "download":
            both.wait()
        return call()

    state = Reading(model)
    process(on=HookedBackend(medium, beside_the_other)).restore(state)

    assert state.assigned == ASSIGNED


def test_room_is_asked_for_before_anything_is_brought_and_once(process, model, monkeypatch):
    class Both(Reading):
        def restore_from(self, contents):
            super().restore_from(contents)
            room.free = 0  # what was brought has taken it
            contents.directory()

    medium = MemoryBackend()
    size = process(on=medium).save(model, step=1).size
    room = SimpleNamespace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    state = Both(model)

    process(on=medium).restore(state)

    assert state.assigned == ASSIGNED
    room.free = size - 1
    counted = FaultBackend(medium)
    with pytest.raises(StorageFull, match="has room for"):
        process(on=counted).restore(state)
    assert "download" not in [call.verb for call in counted.calls]


@BOTH
@pytest.mark.parametrize("path", ["weights", "deep/note"])
@pytest.mark.parametrize("damage", ["flipped", "short", "missing"])
def test_damage_is_passed_over_before_anything_is_assigned(
    process, backend, model, workspace, path, damage
):
    good, bad = (process().save(model, step=step) for step in (1, 2))
    content = (model / path).read_bytes()
    data = {"flipped": content[:-1] + b"!", "short": content[:-1], "missing": None}[damage]
    change(backend, layout.file_key(bad.id, path), data)
    state = Reading(model)

    with pytest.warns(CheckpointWarning, match="Passing over it"):
        found = process().restore(state)

    assert found == good
    assert state.assigned == ASSIGNED
    with pytest.raises(CorruptionError):
        process().restore(state, bad)
    assert not list(workspace.iterdir())


@BOTH
@pytest.mark.parametrize("change_to", [WEIGHTS[:-1], b"", None], ids=["short", "empty", "gone"])
def test_what_is_damaged_after_the_sizes_were_compared_is_damage(
    process, backend, model, change_to
):
    good, bad = (process().save(model, step=step) for step in (1, 2))

    class Late(Reading):
        def restore_from(self, contents):
            if not self.assigned and not getattr(self, "tries", 0):
                contents.read("deep/note")
                if isinstance(backend, MemoryBackend):
                    (contents._place() / "weights").unlink()
                change(backend, layout.file_key(bad.id, "weights"), change_to)
            super().restore_from(contents)

    state = Late(model)
    with pytest.warns(CheckpointWarning, match="Passing over it"):
        found = process().restore(state)

    assert (found, state.tries) == (good, 2)


def test_what_was_damaged_on_the_way_is_read_again(tmp_path, process, model, monkeypatch):
    local = LocalBackend(tmp_path / "run")
    process(on=local).save(model, step=1)
    opened, open_file = [], local.open_file

    def flipped_once(key):
        opened.append(key)
        if len(opened) > 1:
            return open_file(key)
        (tmp_path / "flipped").write_bytes(b"STEP")
        return io.FileIO(tmp_path / "flipped")

    monkeypatch.setattr(local, "open_file", flipped_once)
    state = Reading(model)

    process(on=local).restore(state)

    assert state.assigned == ASSIGNED
    assert len(opened) == 3


@BOTH
def test_what_is_removed_meanwhile_leads_to_a_fresh_look(process, backend, model):
    removed = process().save(model, step=1)

    class Meanwhile(Reading):
        def restore_from(self, contents):
            if not getattr(self, "tries", 0):
                self.tries = 1
                process().save(model, step=2)
                process().prune(KeepLast(1))
            super().restore_from(contents)

    state = Meanwhile(model)
    assert process().restore(state).step == 2
    assert state.assigned == ASSIGNED
    with pytest.raises(NotFoundError):
        process().restore(state, removed)


def test_what_is_open_is_read_to_its_end_though_it_is_pruned(tmp_path, process, model):
    local = LocalBackend(tmp_path / "run")
    saved = process(on=local).save(model, step=1)

    with local.open_file(layout.file_key(saved.id, "weights")) as file:
        process(on=local).remove(saved)
        assert file.readall() == WEIGHTS


@pytest.mark.parametrize("kind", [NotFoundError, CorruptionError, InvalidInputError])
def test_an_error_of_the_state_s_own_is_no_damage(process, model, recwarn, kind):
    class Failing(Reading):
        def restore_from(self, contents):
            super().restore_from(contents)
            raise kind("of another store")

    for step in (1, 2):
        process().save(model, step=step)
    state = Failing(model)

    with pytest.raises(kind, match="of another store"):
        process().restore(state)

    assert state.tries == 1
    assert not recwarn.list


@BOTH
def test_a_state_may_take_the_directory_and_what_it_asks_wrongly_is_its_own(
    process, backend, model, workspace
):
    class Asking(Reading):
        def restore_from(self, contents):
            contents.read("deep/note")
            directory = contents.directory()
            self.files = {path: (directory / path).read_bytes() for path in contents.paths()}
            assert contents.directory() == directory
            assert contents.read("weights") == WEIGHTS
            for ask, error in (
                (lambda: contents.read("nothing"), FileNotFoundError),
                (lambda: contents.read("../../seal.json"), FileNotFoundError),
                (lambda: contents.read_into("weights", [(10_239, memory(2))]), EOFError),
                (
                    lambda: contents.read_into("weights", [(0, memory(2)), (1, memory(1))]),
                    ValueError,
                ),
            ):
                with pytest.raises(error):
                    ask()

    def memory(size):
        return memoryview(bytearray(size))

    process().save(model, step=1)
    state = Asking(model)

    process().restore(state)

    assert state.files == {"deep/note": b"step", "weights": WEIGHTS}
    assert not list(workspace.iterdir())


def test_what_a_restore_copies_is_not_synced_and_what_a_download_keeps_is(
    tmp_path, process, model, monkeypatch
):
    local = LocalBackend(tmp_path / "run")
    saved = process(on=local).save(model, step=1)
    synced = set()

    def sync(file):
        synced.add(Path(f"/proc/self/fd/{file}").readlink().name)

    monkeypatch.setattr(os, "fsync", sync)

    process(on=local).restore(Files(tmp_path / "restored"))
    process(on=local).download()
    local.download(layout.file_key(saved.id, "weights"), tmp_path / "downloaded")
    assert not {"weights", "note", "downloaded"} & synced

    process(on=local).download(to=tmp_path / "copy")
    assert {"weights", "note", "deep", "files", tmp_path.name} <= synced


def test_from_what_stands_around_a_backend_it_is_downloaded(process, model, tmp_path):
    local = LocalBackend(tmp_path / "run")
    process(on=local).save(model, step=1)
    verbs = []
    hooked = HookedBackend(local, lambda verb, key, call: (verbs.append(verb), call())[1])
    state = Reading(model)

    process(on=hooked).restore(state)

    assert state.assigned == ASSIGNED
    assert verbs.count("download") == 2


# What lies in a store, taken by itself.


@pytest.fixture
def saved(process, model):
    (model / "deep" / "er").mkdir()
    (model / "deep" / "er" / "note").write_bytes(b"more")
    return process().save(model, step=1)


@pytest.fixture
def contents(saved, backend, workspace):
    return CheckpointContents(saved, backend, Workspace(workspace))


@BOTH
def test_a_directory_is_made_once(contents):
    def take(lent):
        first = lent.directory()
        (first / "weights").unlink()
        (first / "weights").write_bytes(b"the caller's")
        return lent.directory() == first and (first / "weights").read_bytes()

    assert contents.lend(take) == b"the caller's"


@BOTH
def test_each_file_lies_where_it_lay(contents, model):
    scratch = contents.hand_over()

    for path in contents.paths():
        assert (scratch.directory / path).read_bytes() == (model / path).read_bytes()
    scratch.discard()


@BOTH
def test_what_is_asked_for_wrongly_is_told_before_anything_is_read(contents, saved, backend):
    for file in saved.files:
        change(backend, layout.file_key(saved.id, file.path), None)

    for ask in (contents.read, lambda path: contents.read_into(path, [])):
        with pytest.raises(FileNotFoundError):
            ask("no such file")
    with pytest.raises(FormatError, match="may have 3"):
        contents.read("deep/note", at_most=3)


@BOTH
def test_a_file_may_be_checked_again(contents, saved):
    for _ in range(2):
        contents.check(saved.files[0])


@BOTH
def test_what_has_other_content_is_not_handed_over(contents, saved, backend):
    change(backend, layout.file_key(saved.id, "deep/note"), b"pets")

    with pytest.raises(CorruptionError, match="deep/note: its content"):
        contents.directory()
    assert contents.failure is not None


@BOTH
def test_another_size_is_told_before_anything_is_brought(contents, saved, backend):
    change(backend, layout.file_key(saved.id, "weights"), b"short")

    with pytest.raises(CorruptionError, match="weights: 5 bytes in the place of 10,240"):
        contents.lend(lambda _: pytest.fail("it was lent"))


@BOTH
def test_what_a_listing_that_may_lag_leaves_out_is_missed_when_it_cannot_be_read(
    contents, saved, backend
):
    """But what it shows of another size is damage."""
    backend.traits = Traits(fresh=False)
    change(backend, layout.file_key(saved.id, "deep/er/note"), None)

    with pytest.raises(CorruptionError, match="deep/er/note: missing"):
        contents.lend(lambda lent: lent.read("deep/er/note"))
    change(backend, layout.file_key(saved.id, "weights"), b"short")
    with pytest.raises(CorruptionError, match="weights: 5 bytes"):
        contents.lend(lambda _: pytest.fail("it was lent"))


@BOTH
def test_a_file_that_is_missing_beside_a_manifest_that_is_damaged_is_missing(
    contents, saved, backend
):
    change(backend, layout.manifest_key(saved.id), b"garbage")
    change(backend, layout.file_key(saved.id, "weights"), None)

    with pytest.raises(CorruptionError, match="weights: missing"):
        contents.lend(lambda _: pytest.fail("it was lent"))


@BOTH
def test_a_file_that_goes_once_it_was_lent_is_missing(contents, saved, backend):
    def take(lent):
        change(backend, layout.file_key(saved.id, "weights"), None)
        lent.read("weights")

    with pytest.raises(CorruptionError, match="weights: missing"):
        contents.lend(take)
