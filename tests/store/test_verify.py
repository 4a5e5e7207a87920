"""A report tells every difference, and takes nothing for one that is none."""

import pytest

from holdfast import KeepLast, NotFoundError, layout
from tests.store import checks
from tests.store.hooked import HookedBackend


@pytest.fixture
def saved(store, file):
    return [store.save(file, step=step) for step in (1, 2, 3)]


def damages(report):
    return [(damage.checkpoint.step, damage.path, damage.what) for damage in report.damage]


def test_a_whole_store_is_reported_whole(process, saved):
    for deep in (False, True):
        report = process().verify(deep=deep)

        assert report.ok
        assert report.deep == deep
        assert list(report.checked) == saved


def test_one_checkpoint_can_be_asked_about(process, saved):
    report = process().verify(saved[1], deep=True)

    assert report.checked == (saved[1],)


def test_what_is_missing_or_of_another_size_is_seen_at_once(process, backend, saved, file):
    del backend.objects[layout.file_key(saved[0].id, file.name)]
    backend.objects[layout.file_key(saved[2].id, file.name)] = (b"short", None)

    report = process().verify()

    assert damages(report) == [
        (1, file.name, "missing"),
        (3, file.name, f"5 bytes in the place of {file.stat().st_size}"),
    ]
    assert not report.ok


def test_other_content_is_seen_when_every_byte_is_read(process, backend, saved, file, workspace):
    key = layout.file_key(saved[1].id, file.name)
    backend.objects[key] = (bytes(file.stat().st_size), None)

    assert process().verify().ok
    assert damages(process().verify(deep=True)) == [(2, file.name, "other content")]
    assert not process().verify(saved[1], deep=True).ok
    assert process().verify(saved[0], deep=True).ok
    assert not list(workspace.iterdir())


def test_a_manifest_that_cannot_be_read_is_damage(process, backend, saved):
    backend.objects[layout.manifest_key(saved[1].id)] = (b"garbage", None)

    report = process().verify()

    assert [damage.checkpoint.step for damage in report.damage] == [2]
    assert [checkpoint.step for checkpoint in report.checked] == [1, 3]


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_removed_meanwhile_is_not_damaged(process, backend, saved, deep):
    beginning = dict(backend.objects)
    at = 0
    while True:
        at += 1
        backend.objects = dict(beginning)

        def prune_and_sweep():
            process().prune(KeepLast(1))
            process().sweep(older_than=checks.NOW)

        around = checks.at_call(at, prune_and_sweep)
        report = process(on=HookedBackend(backend, around)).verify(deep=deep)

        assert report.ok, at
        assert report.checked[-1].step == 3
        if around.keywords["count"][0] < at:
            break


def test_one_that_is_removed_meanwhile_is_not_found(process, backend, saved):
    for at in (2, 3):
        beginning = dict(backend.objects)
        around = checks.at_call(at, lambda: process().prune(KeepLast(1)))
        with pytest.raises(NotFoundError):
            process(on=HookedBackend(backend, around)).verify(saved[0], deep=True)
        backend.objects = beginning


def test_verifying_changes_nothing(process, backend, saved):
    before = dict(backend.objects)

    process().verify(deep=True)

    assert backend.objects == before


def test_a_damage_is_told_in_a_line(process, backend, saved, file):
    del backend.objects[layout.file_key(saved[0].id, file.name)]

    (damage,) = process().verify().damage

    assert str(damage) == f"{saved[0]} {file.name}: missing"
