"""What a rule does not keep goes; the newest, the pinned and the damaged never do."""

import os

import pytest

from holdfast import (
    CheckpointStore,
    CheckpointWarning,
    InvalidInputError,
    KeepAll,
    KeepBest,
    KeepLast,
    NotFoundError,
    Rule,
    StorageError,
    layout,
)
from holdfast.backends.base import Traits
from holdfast.backends.local import LocalBackend
from holdfast.backends.retrying import RetryingBackend
from holdfast.catalog import Catalog
from holdfast.removal import Remover
from holdfast.retention import AllOf
from holdfast.testing.faults import Fault, FaultBackend
from holdfast.writer import Writer
from tests.store import checks
from tests.store.checks import steps


class KeepSteps(Rule):
    """Keeps what it is told to."""

    def __init__(self, *steps):
        self.steps = steps

    def keep(self, history):
        return [checkpoint for checkpoint in history if checkpoint.step in self.steps]


def test_without_a_rule_nothing_is_removed(store, backend, file):
    for step in range(30):
        store.save(file, step=step)

    with pytest.raises(InvalidInputError, match="without a retention"):
        store.prune()

    assert steps(backend) == list(range(30))


def test_a_dry_run_removes_nothing_and_tells_the_same(store, backend, file):
    for step in (1, 2, 3):
        store.save(file, step=step)
    before = dict(backend.objects)

    told = store.prune(KeepLast(1), dry_run=True)

    assert backend.objects == before
    done = store.prune(KeepLast(1))
    assert [one.step for one in told.remove] == [one.step for one in done.remove] == [1, 2]
    assert [kept.checkpoint.step for kept in told.keep] == [3]


def test_a_lost_reply_to_its_mark_does_not_end_a_prune(process, backend, file):
    for step in (1, 2):
        process().save(file, step=step)
    lost = FaultBackend(backend, [Fault(at=1, when="after", verb="create")])

    process(on=RetryingBackend(lost, sleep=lambda _: None)).prune(KeepLast(1))

    assert steps(backend) == [2]
    assert not [key for key in backend.objects if key.startswith("doomed/")]


def test_what_goes_goes_whole_and_nothing_else(store, backend, file):
    for step in (1, 2, 3):
        store.save(file, step=step)

    store.prune(KeepLast(1))

    assert steps(backend) == [3]
    assert not checks.leftovers(backend)
    assert not checks.broken(backend)


def test_the_newest_stays_whatever_the_rule_says(store, backend, file):
    for step in (1, 2, 3):
        store.save(file, step=step)

    plan = store.prune(KeepSteps(1))

    assert steps(backend) == [1, 3]
    assert "latest" in plan.keep[-1].reasons


def test_a_rule_that_keeps_nothing_is_refused(store, backend, file):
    for step in (1, 2):
        store.save(file, step=step)
    before = dict(backend.objects)

    for rule in (KeepSteps(), KeepBest("val_loss"), AllOf((KeepSteps(1), KeepSteps(2)))):
        with pytest.raises(InvalidInputError, match="nothing was removed"):
            store.prune(rule)

    assert backend.objects == before


def test_of_the_newest_damaged_one_the_newest_good_one_is_kept_too(store, backend, file):
    for step in (1, 2, 3):
        saved = store.save(file, step=step)
    del backend.objects[layout.file_key(saved.id, file.name)]

    store.prune(KeepLast(1))

    assert steps(backend) == [2, 3]


def test_a_damaged_one_counts_as_nothing_and_is_left_alone(store, backend, file):
    saved = {step: store.save(file, step=step) for step in (1, 2, 3, 4)}
    data, time = backend.objects[layout.file_key(saved[3].id, file.name)]
    backend.objects[layout.file_key(saved[3].id, file.name)] = (data[:-1], time)

    store.prune(KeepLast(2))

    assert steps(backend) == [2, 3, 4]


def test_an_unreadable_manifest_is_left_alone_with_its_files(process, backend, file):
    saved = {step: process().save(file, step=step) for step in (1, 2, 3)}
    key = layout.manifest_key(saved[1].id)
    backend.objects[key] = (b"garbage", backend.objects[key][1])

    with pytest.warns(CheckpointWarning, match="is passed over"):
        process().prune(KeepLast(1))
    process().sweep(older_than=checks.NOW)

    assert key in backend.objects
    assert layout.file_key(saved[1].id, file.name) in backend.objects
    assert [id.step for id in checks.committed(backend, unreadable=True)] == [3]


def test_what_was_just_saved_stays_even_behind_a_newer_session(process, backend, file, tmp_path):
    store = process(retention=KeepSteps(1))
    store.save(file, step=1)

    store.save(file, step=2)

    assert steps(backend) == [1, 2]


def test_the_rule_of_the_store_prunes_after_every_save(process, backend, file):
    store = process(retention=KeepLast(2))

    for step in range(5):
        store.save(file, step=step)

    assert steps(backend) == [3, 4]
    assert not checks.leftovers(backend)


def test_a_prune_goes_on_with_what_an_earlier_one_left(process, backend, file):
    for step in (1, 2, 3):
        process().save(file, step=step)
    killed = FaultBackend(backend, [Fault(at=2, verb="delete")])
    with pytest.raises(StorageError):
        process(on=killed).prune(KeepLast(1))
    assert checks.leftovers(backend)

    process().prune(KeepAll())

    assert not checks.leftovers(backend)


def test_a_dry_run_touches_nothing_of_what_an_earlier_one_left(process, backend, file):
    for step in (1, 2):
        process().save(file, step=step)
    killed = FaultBackend(backend, [Fault(at=2, verb="delete")])
    with pytest.raises(StorageError):
        process(on=killed).prune(KeepLast(1))
    before = dict(backend.objects)

    process().prune(KeepLast(1), dry_run=True)

    assert backend.objects == before


def test_a_prune_of_two_at_once_by_two_is_fine(process, backend, file):
    for step in (1, 2, 3):
        process().save(file, step=step)
    one, other = process(), process()
    one.checkpoints()
    other.checkpoints()

    one.prune(KeepLast(1))
    other.prune(KeepLast(1))

    assert steps(backend) == [3]
    assert not checks.leftovers(backend)


def test_a_pin_that_comes_between_the_plan_and_the_mark_holds(process, backend, file):
    old = process().save(file, step=1)
    process().save(file, step=2)

    def pin_at_the_mark(verb, key, call):
        if verb == "create":
            process().pin(old, "paper")
        return call()

    plan = process(on=checks.HookedBackend(backend, pin_at_the_mark)).prune(KeepLast(1))

    assert steps(backend) == [1, 2]
    assert plan.remove == ()
    assert [kept.checkpoint.step for kept in plan.keep] == [1, 2]
    assert not checks.leftovers(backend)


def test_files_of_others_stay(tmp_path):
    checks.files_of_others_stay(tmp_path)


def test_an_empty_store_is_pruned_to_nothing(store, backend):
    plan = store.prune(KeepLast(1))

    assert plan.keep == plan.remove == ()
    assert not backend.objects


def test_what_lies_only_in_the_cache_of_a_mount_counts_as_nothing(tmp_path, file, monkeypatch):
    place = LocalBackend(tmp_path / "mount")
    place.traits = Traits(durable=False)
    store = CheckpointStore(place, workspace=tmp_path / "workspace", writer=Writer())
    saved = [store.save(file, step=step) for step in (1, 2, 3)]
    sent = {place.root / layout.manifest_key(saved[1].id)}
    sent.add(place.root / layout.file_key(saved[1].id, file.name))
    sent.add(place.root / layout.manifest_key(saved[2].id))
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"id" if path in sent else b"local-1")

    planned = store.prune(KeepLast(1))

    assert not planned.remove
    assert [kept.checkpoint.step for kept in planned.keep] == [2]
    sent.add(place.root / layout.file_key(saved[2].id, file.name))
    assert [gone.step for gone in store.prune(KeepLast(1)).remove] == [2]
    assert [each.step for each in store] == [1, 3]


def test_the_plan_tells_why_what_stays_does(process, backend, file):
    store = process()
    saved = {step: store.save(file, step=step) for step in (1, 2, 3, 4)}
    store.pin(saved[1], "paper")

    for dry_run in (True, False):
        told = store.prune(KeepSteps(3), dry_run=dry_run)

        assert [kept.checkpoint.step for kept in told.keep] == [1, 3, 4]
        assert told.keep[0].reasons == ("pinned: paper",)
        assert told.keep[-1].reasons == ("latest",)
        assert [gone.step for gone in told.remove] == [2]


def test_a_pin_that_came_meanwhile_is_told_as_the_reason(process, backend, file):
    saved = [process().save(file, step=step) for step in (1, 2, 3)]

    def pin_the_first_at_its_mark(verb, key, call):
        if verb == "create" and str(saved[0].id) in key:
            process().pin(saved[0], "paper")
        return call()

    planned = process(on=checks.HookedBackend(backend, pin_the_first_at_its_mark)).prune(
        KeepLast(1)
    )

    assert [gone.step for gone in planned.remove] == [2]
    assert planned.keep[0].reasons == ("pinned: paper",)
    assert steps(backend) == [1, 3]


def test_what_was_just_saved_is_told_as_a_reason(process, backend, file, monkeypatch):
    plans = []
    prune = Remover.prune
    monkeypatch.setattr(
        Remover, "prune", lambda *given, **named: plans.append(prune(*given, **named)) or plans[-1]
    )
    store = process(retention=KeepSteps(1))
    store.save(file, step=1)

    store.save(file, step=2)

    assert "just saved" in plans[-1].keep[-1].reasons
    assert "just saved" not in plans[-1].keep[0].reasons


def test_a_prune_looks_at_the_pins_once_and_once_more_after_each_mark(process, backend, file):
    for step in (1, 2, 3):
        process().save(file, step=step)
    counted = FaultBackend(backend)

    process(on=counted).prune(KeepLast(1))

    looks = [call for call in counted.calls if (call.verb, call.key) == ("scan", layout.PINS)]
    assert len(looks) == 3


def test_marks_are_empty(process, backend, file):
    marks = []

    def seen(verb, key, call):
        result = call()
        if verb == "create" and key.startswith(layout.DOOMED):
            marks.append(backend.objects[key][0])
        return result

    for step in (1, 2):
        process().save(file, step=step)
    process(on=checks.HookedBackend(backend, seen)).prune(KeepLast(1))

    assert marks == [b""]


def test_where_a_pin_came_and_went_the_plan_tells_what_is_gone(process, backend, file):
    saved = [process().save(file, step=step) for step in (1, 2, 3)]
    pin = layout.pin_key("paper", saved[0].id)

    def pinned_for_a_moment(verb, key, call):
        if verb == "create" and str(saved[0].id) in key:
            backend.create(pin, b"")
        if verb == "delete" and str(saved[1].id) in key:
            backend.objects.pop(pin, None)
        return call()

    planned = process(on=checks.HookedBackend(backend, pinned_for_a_moment)).prune(KeepLast(1))

    assert [gone.step for gone in planned.remove] == [2]
    assert steps(backend) == [1, 3]


def test_what_was_just_saved_stays_a_reason_where_a_pin_came_meanwhile(process, backend, file):
    first = process().save(file, step=1)

    def pin_at_the_mark(verb, key, call):
        if verb == "create" and key.startswith(layout.DOOMED):
            process().pin(first, "paper")
        return call()

    last = process().save(file, step=2)
    hooked = checks.HookedBackend(backend, pin_at_the_mark)

    planned = Remover(hooked, Catalog(hooked)).prune(KeepLast(1), dry_run=False, just_saved=last.id)

    assert [kept.reasons[0] for kept in planned.keep] == ["pinned: paper", "KeepLast(1)"]
    assert "just saved" in planned.keep[-1].reasons


def test_what_this_process_has_removed_it_does_not_take_for_there(store, file):
    gone = store.save(file, step=1)
    store.save(file, step=2)

    store.prune(KeepLast(1))

    with pytest.raises(NotFoundError):
        store.find(str(gone))
    with pytest.raises(NotFoundError):
        store.pin(gone, "paper")
