"""What comes back is what went in, or another good checkpoint and a word about it, or an error."""

import shutil
from dataclasses import replace

import pytest

from holdfast import (
    CheckpointWarning,
    CorruptionError,
    Files,
    FormatError,
    InvalidInputError,
    KeepLast,
    NotFoundError,
    StorageError,
    StorageFull,
    layout,
    manifest,
)
from tests.store import checks
from tests.store.hooked import HookedBackend


def content(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def model(tmp_path):
    """A directory as a framework writes it."""
    directory = tmp_path / "model"
    (directory / "deep" / "er").mkdir(parents=True)
    for path in ("weights.h5", "deep/a.json", "deep/er/.zarray", "empty"):
        (directory / path).write_bytes(b"" if path == "empty" else path.encode() * 50)
    return directory


def test_what_comes_back_is_what_went_in(process, model, tmp_path):
    process().save(model, step=1)

    process().restore(Files(tmp_path / "restored"))

    assert content(tmp_path / "restored") == content(model)


def test_each_checkpoint_can_be_asked_for(process, file, tmp_path):
    saved = []
    for step in (1, 2, 3):
        file.write_bytes(bytes([step]) * 9)
        saved.append(process().save(file, step=step))

    for checkpoint in saved:
        for name in (checkpoint, str(checkpoint.id), checkpoint.id):
            found = process().restore(Files(tmp_path / "restored"), name)
            assert found == checkpoint
            (restored,) = (tmp_path / "restored").iterdir()
            assert restored.read_bytes() == bytes([checkpoint.step]) * 9


def test_without_a_checkpoint_it_is_the_newest(process, file, tmp_path):
    for step in (5, 9, 2):
        process().save(file, step=step)

    assert process().restore(Files(tmp_path / "restored")).step == 2


def test_only_those_count_that_the_caller_wants(process, file, tmp_path):
    for step in (1, 2, 3):
        process().save(file, step=step, metadata={"phase": "a" if step < 3 else "b"})

    found = process().restore(
        Files(tmp_path / "restored"), where=lambda one: one.metadata["phase"] == "a"
    )

    assert found.step == 2
    with pytest.raises(NotFoundError):
        process().download(where=lambda one: False)


def test_every_damage_is_noticed(tmp_path):
    checks.every_damage_is_noticed(tmp_path)


def test_every_flip_in_a_manifest_is_noticed(tmp_path):
    assert checks.every_flip_in_a_manifest_is_noticed(tmp_path) > 3000


def test_what_was_damaged_on_the_way_is_fetched_again(process, backend, file, tmp_path):
    process().save(file, step=1)
    damaged = []

    def flip(verb, key, call):
        if verb != "download" or len(damaged) == 2:
            return call()
        data, time = backend.objects[key]
        damaged.append(key)
        backend.objects[key] = (bytes(len(data)), time)
        try:
            return call()
        finally:
            backend.objects[key] = (data, time)

    process(on=HookedBackend(backend, flip)).restore(Files(tmp_path / "restored"))

    assert content(tmp_path / "restored") == {file.name: file.read_bytes()}
    assert len(damaged) == 2


def test_a_manifest_that_was_damaged_on_the_way_is_read_again(process, backend, file):
    saved = process().save(file, step=1)
    came = []

    def flip(verb, key, call):
        if verb != "read":
            return call()
        came.append(key)
        return call() if len(came) > 1 else bytes(100)

    assert process(on=HookedBackend(backend, flip)).latest() == saved

    assert came == [layout.manifest_key(saved.id)] * 2


def test_an_empty_store_is_not_restored_from(store, tmp_path):
    with pytest.raises(NotFoundError, match="holds no checkpoint to restore"):
        store.restore(Files(tmp_path / "restored"))
    with pytest.raises(NotFoundError):
        store.download()


def test_an_unknown_checkpoint_is_not_found(store, file, tmp_path):
    store.save(file, step=1)

    with pytest.raises(NotFoundError):
        store.restore(Files(tmp_path / "restored"), "0001-000000000007-00000000")

    assert not (tmp_path / "restored").exists()


def test_a_swept_attempt_is_not_found(tmp_path):
    scene = checks.Scene(tmp_path)
    attempt = checks.slow_attempt(scene)
    scene.process().sweep(older_than=checks.NOW)

    with pytest.raises(NotFoundError, match="was swept"):
        scene.process().restore(Files(tmp_path / "restored"), str(attempt))


def test_a_removal_is_no_emptiness(tmp_path):
    checks.a_removal_is_no_emptiness(tmp_path)


def test_what_is_removed_while_it_is_fetched_is_not_called_damaged(process, backend, file):
    old = process().save(file, step=1)
    process().save(file, step=2)

    for at in range(1, 4):
        beginning = dict(backend.objects)

        def prune_and_sweep():
            process().prune(KeepLast(1))
            process().sweep(older_than=checks.NOW)

        around = checks.at_call(at, prune_and_sweep)
        with pytest.raises(NotFoundError):
            process(on=HookedBackend(backend, around)).download(old)
        backend.objects = beginning


def test_a_file_that_is_listed_and_cannot_be_had_is_damage(process, backend, file):
    saved = process().save(file, step=1)

    def lost(verb, key, call):
        if verb == "download":
            raise NotFoundError(key)
        return call()

    with pytest.raises(CorruptionError, match="missing"):
        process(on=HookedBackend(backend, lost)).download(saved)


def test_the_unreadable_are_passed_over_with_a_warning(process, backend, file, tmp_path):
    good = process().save(file, step=1)
    bad = process().save(file, step=2)
    backend.objects[layout.manifest_key(bad.id)] = (b"garbage", None)

    with pytest.warns(CheckpointWarning, match=f"manifest of {bad.id} is passed over"):
        assert process().latest() == good
    with pytest.warns(CheckpointWarning, match="passed over"):
        assert process().restore(Files(tmp_path / "restored")) == good
    with pytest.raises(FormatError):
        process().restore(Files(tmp_path / "restored"), str(bad.id))


def test_a_manifest_that_is_listed_as_too_large_is_not_even_read(process, backend, file):
    good, bad = (process().save(file, step=step) for step in (1, 2))
    backend.objects[layout.manifest_key(bad.id)] = (bytes(2**20 + 1), None)
    counted = checks.FaultBackend(backend)

    with pytest.warns(CheckpointWarning, match=f"manifest of {bad.id} is passed over: .*too large"):
        assert process(on=counted).latest() == good

    assert [call.key for call in counted.calls if call.verb == "read"] == [
        layout.manifest_key(good.id)
    ]


def test_where_none_can_be_read_it_is_an_error_and_no_fresh_start(process, backend, file, tmp_path):
    for step in (1, 2):
        saved = process().save(file, step=step)
        backend.objects[layout.manifest_key(saved.id)] = (b"garbage", None)
    before = dict(backend.objects)

    for look in (
        lambda: process().latest(),
        lambda: process().checkpoints(),
        lambda: process().restore(Files(tmp_path / "restored")),
    ):
        with (
            pytest.warns(CheckpointWarning),
            pytest.raises(FormatError, match="do not start afresh"),
        ):
            look()

    assert backend.objects == before


def test_a_newer_format_is_not_passed_over(tmp_path):
    checks.a_newer_format_is_not_passed_over(tmp_path)


def test_a_failed_listing_is_no_empty_store(tmp_path):
    checks.a_failed_listing_is_no_empty_store(tmp_path)


# ------------------------------------------------------------- where it goes


def test_a_download_goes_where_nothing_is_yet(process, model, tmp_path):
    process().save(model, step=1)

    copy = process().download(to=tmp_path / "new" / "deeper" / "copy")

    assert copy == tmp_path / "new" / "deeper" / "copy"
    assert content(copy) == content(model)


def test_a_download_goes_into_an_empty_directory(process, model, tmp_path):
    process().save(model, step=1)
    (tmp_path / "copy").mkdir()

    process().download(to=str(tmp_path / "copy"))

    assert content(tmp_path / "copy") == content(model)


def test_a_download_goes_to_another_filesystem(process, model, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    process().save(model, step=1)

    process().download(to=elsewhere)

    assert content(elsewhere) == content(model)
    assert [path.name for path in elsewhere.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("what", ["a file", "a directory with something", "a link to one"])
def test_what_is_there_is_never_touched(process, backend, model, tmp_path, what):
    process().save(model, step=1)
    target = tmp_path / "target"
    if what == "a file":
        target.write_text("mine")
    else:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis").write_text("mine")
        target = tmp_path / "mine"
        if what == "a link to one":
            target = tmp_path / "link"
            target.symlink_to(tmp_path / "mine")
    counted = checks.FaultBackend(backend)

    with pytest.raises(InvalidInputError, match="nothing was touched"):
        process(on=counted).download(to=target)

    assert counted.calls == []
    assert "mine" in (target.read_text() if target.is_file() else (target / "thesis").read_text())


def test_a_target_below_a_file_is_an_error_of_ours(process, model, tmp_path):
    process().save(model, step=1)
    (tmp_path / "file").write_text("mine")

    with pytest.raises(StorageError, match="target"):
        process().download(to=tmp_path / "file" / "target")

    assert (tmp_path / "file").read_text() == "mine"


def test_without_a_target_it_lies_in_the_workspace_as_long_as_the_process_lives(
    process, model, workspace
):
    process().save(model, step=1)
    store = process()

    copy = store.download()
    process().recover()

    assert copy.is_relative_to(workspace)
    assert content(copy) == content(model)


def test_a_workspace_without_room_is_told_before_anything_is_fetched(
    process, backend, model, monkeypatch, workspace
):
    process().save(model, step=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    counted = checks.FaultBackend(backend)

    with pytest.raises(StorageFull, match="room for 5"):
        process(on=counted).download()

    assert "download" not in [call.verb for call in counted.calls]
    assert not list(workspace.iterdir())


def test_nothing_is_left_in_the_workspace(process, backend, model, workspace, tmp_path):
    saved = process().save(model, step=1)

    process().restore(Files(tmp_path / "restored"))
    process().download(to=tmp_path / "copy")
    backend.objects[layout.file_key(saved.id, "empty")] = (b"x", None)
    with pytest.raises(CorruptionError):
        process().download(saved)

    assert not list(workspace.iterdir())


def test_a_state_that_fails_leaves_nothing_in_the_workspace(process, model, workspace):
    class Failing(Files):
        def restore(self, directory):
            raise ZeroDivisionError

    process().save(model, step=1)

    with pytest.raises(ZeroDivisionError):
        process().restore(Failing(model))

    assert not list(workspace.iterdir())


def test_a_checkpoint_that_was_not_loaded_is_nobodys_parent(process, file):
    class Failing(Files):
        def restore(self, directory):
            raise ZeroDivisionError

    store = process()
    store.save(file, step=1)
    with pytest.raises(ZeroDivisionError):
        store.restore(Failing(file))

    assert store.save(file, step=2).parent is None


def test_only_this_user_can_read_what_is_being_fetched(process, model, workspace):
    process().save(model, step=1)

    copy = process().download()

    assert workspace.stat().st_mode & 0o777 == 0o700
    assert copy.parent.stat().st_mode & 0o777 == 0o700


def test_a_hostile_manifest_leads_nowhere(tmp_path):
    assert checks.no_manifest_leads_elsewhere(tmp_path) > 100


def test_what_was_swept_while_it_is_fetched_is_not_called_damaged(process, backend, file):
    process().save(file, step=1)
    saved = process().save(file, step=2)
    key = layout.file_key(saved.id, file.name)

    def swept_before_it_is_fetched(verb, at, call):
        if (verb, at) == ("download", key):
            del backend.objects[key]
            tombstone = manifest.write_tombstone(saved.id, "another")
            backend.objects[layout.manifest_key(saved.id)] = (tombstone, None)
        return call()

    store = process(on=HookedBackend(backend, swept_before_it_is_fetched))

    with pytest.raises(NotFoundError, match="was removed"):
        store.download(saved)


@pytest.fixture
def lagging(backend):
    """The place as one whose listings lag behind: those of what was saved last are empty yet."""
    hooked = HookedBackend(backend, lambda verb, _, call: [] if verb == "scan" else call())
    hooked.traits = replace(backend.traits, fresh=False)
    return hooked


def test_a_file_that_a_listing_does_not_show_yet_is_fetched(process, lagging, file, tmp_path):
    saved = process().save(file, step=1)

    found = process(on=lagging).download(saved, to=tmp_path / "copy")

    assert (found / file.name).read_bytes() == file.read_bytes()


def test_a_listing_that_shows_nothing_of_what_was_there_is_no_empty_store(
    process, backend, lagging, file
):
    around = lagging._around
    lagging._around = lambda verb, key, call: call()
    store = process(on=lagging)
    store.save(file, step=1)
    backend.objects.clear()
    lagging._around = around

    with pytest.raises(StorageError, match="unknown"):
        store.latest()
