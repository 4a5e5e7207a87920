"""A pin that was acknowledged holds."""

import pytest

from holdfast import InvalidInputError, KeepLast, NotFoundError, layout
from tests.store import checks


def test_a_pinned_checkpoint_outlives_every_rule(store, file):
    old, _, _ = (store.save(file, step=step) for step in (1, 2, 3))
    store.pin(old, "paper")

    plan = store.prune(KeepLast(1))

    assert [checkpoint.step for checkpoint in store] == [1, 3]
    assert any("paper" in reason for kept in plan.keep for reason in kept.reasons)


def test_pins_are_listed_by_name(store, file):
    first, second = (store.save(file, step=step) for step in (1, 2))
    for checkpoint, name in ((second, "paper"), (first, "paper"), (first, "demo")):
        store.pin(checkpoint, name)

    assert store.pins() == {"demo": [first.id], "paper": [first.id, second.id]}
    assert list(store.pins()) == ["demo", "paper"]


def test_a_checkpoint_its_id_and_the_ids_text_may_be_pinned(store, file):
    saved = store.save(file, step=1)

    store.pin(saved, "a")
    store.pin(str(saved.id), "b")
    store.pin(saved.id, "c")

    assert store.pins() == {name: [saved.id] for name in "abc"}


def test_pinning_twice_is_fine(store, file):
    saved = store.save(file, step=1)

    store.pin(saved, "paper")
    store.pin(saved, "paper")

    assert store.pins() == {"paper": [saved.id]}


def test_unpinning_sets_free(store, file):
    first, second = (store.save(file, step=step) for step in (1, 2))
    store.pin(first, "paper")
    store.pin(second, "paper")

    store.unpin("paper", first)
    assert store.pins() == {"paper": [second.id]}
    store.unpin("paper")

    assert store.pins() == {}
    store.prune(KeepLast(1))
    assert [checkpoint.step for checkpoint in store] == [2]


def test_one_pin_of_two_still_holds(store, file):
    first, _ = (store.save(file, step=step) for step in (1, 2))
    store.pin(first, "paper")
    store.pin(first, "demo")

    store.unpin("demo")
    store.prune(KeepLast(1))

    assert [checkpoint.step for checkpoint in store] == [1, 2]


def test_an_unknown_pin_is_not_found(store, file):
    saved = store.save(file, step=1)
    store.pin(saved, "paper")

    with pytest.raises(NotFoundError, match="holds no pin 'demo'"):
        store.unpin("demo")
    with pytest.raises(NotFoundError, match="on 0001"):
        store.unpin("paper", "0001-000000000007-00000000")

    assert store.pins() == {"paper": [saved.id]}


def test_what_is_gone_cannot_be_pinned(store, backend, file):
    first, _ = (store.save(file, step=step) for step in (1, 2))
    store.prune(KeepLast(1))

    with pytest.raises(NotFoundError):
        store.pin(first, "paper")

    assert not [key for key in backend.objects if key.startswith("pins/")]


def test_a_pin_on_what_was_swept_meanwhile_is_refused(tmp_path):
    checks.a_pin_on_what_was_swept_is_refused(tmp_path)


def test_a_mark_of_a_dead_prune_refuses_a_pin_and_goes_with_the_next_prune(store, backend, file):
    old, _ = (store.save(file, step=step) for step in (1, 2))
    backend.create(layout.doomed_key(old.id, "00000000"), b"")

    with pytest.raises(NotFoundError, match="a prune is removing it"):
        store.pin(old, "paper")

    assert [checkpoint.step for checkpoint in store] == [1, 2]
    store.unpin("paper")
    store.prune(KeepLast(1))
    assert not checks.leftovers(backend)


def test_a_mark_whose_name_begins_alike_concerns_another_checkpoint(store, backend, file):
    saved = store.save(file, step=1)
    other = type(saved.id)(1, 1, "00000000")
    backend.create(layout.doomed_key(other, saved.id.token), b"")

    store.pin(saved, "paper")

    assert store.pins() == {"paper": [saved.id]}


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "../x", ".", "-x", "a b", "ä", "con", "x" * 129, "a.", "~a", "a\0"]
)
def test_a_name_that_is_not_portable_is_refused(store, backend, file, name):
    saved = store.save(file, step=1)
    before = dict(backend.objects)

    with pytest.raises(InvalidInputError, match="pin"):
        store.pin(saved, name)

    assert backend.objects == before


@pytest.mark.parametrize("name", ["latest", "1200", "0001-000000000001-00000000"])
def test_a_name_that_means_something_else_is_refused(store, file, name):
    saved = store.save(file, step=1)

    with pytest.raises(InvalidInputError, match="cannot be called"):
        store.pin(saved, name)


def test_the_last_known_pin_survives_the_removal_of_others_files(tmp_path):
    checks.files_of_others_stay(tmp_path)


def test_a_pin_is_empty(store, backend, file):
    saved = store.save(file, step=1)

    store.pin(saved, "paper")

    assert backend.objects[layout.pin_key("paper", saved.id)][0] == b""
