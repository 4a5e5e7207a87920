"""A process that dies before or after any of its calls leaves nothing that cannot be put right."""

import contextlib

import pytest

from tests import share
from tests.store import checks, killed, test_teeth

#: Deaths on drawn stores, of each kind of place.
DEATHS = 25


def test_a_save_killed_anywhere(apart, tmp_path):
    assert apart(checks.a_save_killed_anywhere, tmp_path) >= 16


def test_a_save_with_a_rule_killed_anywhere(apart, tmp_path):
    assert apart(checks.a_save_with_a_rule_killed_anywhere, tmp_path) >= 40


def test_a_prune_killed_anywhere(apart, tmp_path):
    assert apart(checks.a_prune_killed_anywhere, tmp_path) >= 30


def test_a_sweep_killed_anywhere(apart, tmp_path):
    assert apart(checks.a_sweep_killed_anywhere, tmp_path) >= 16


def test_a_pin_killed_anywhere(apart, tmp_path):
    assert apart(checks.a_pin_killed_anywhere, tmp_path) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_recovery_killed_anywhere(apart, tmp_path, when):
    assert apart(checks.a_recovery_killed_anywhere, tmp_path, when) >= 40


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_recovery_after_a_sweep_killed_anywhere(apart, tmp_path, when):
    assert apart(checks.a_recovery_killed_anywhere, tmp_path, when, swept=True) >= 40


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_save_interrupted_anywhere(apart, tmp_path, when):
    assert apart(checks.a_save_that_fails_anywhere, tmp_path, KeyboardInterrupt, when) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_save_that_fails_anywhere(apart, tmp_path, when):
    assert apart(checks.a_save_that_fails_anywhere, tmp_path, checks.StorageError, when) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_prune_that_fails_anywhere_may_be_repeated(apart, tmp_path, when):
    assert apart(checks.a_prune_that_fails_anywhere, tmp_path, when) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_restore_that_fails_anywhere_leaves_the_target_untouched(apart, tmp_path, when):
    assert apart(checks.a_restore_that_fails_anywhere, tmp_path, when) >= 4


@pytest.mark.parametrize("kind", killed.KINDS)
def test_a_process_killed_at_any_call_on_a_drawn_store_leaves_nothing_that_cannot_be_healed(
    apart, kind
):
    found = apart(played, share.SEED, DEATHS, kind=kind)

    assert len(found) == DEATHS
    assert not any(found), list(filter(None, found))


def played(seed, count, **given):
    return list(killed.points(seed, count, **given))


@pytest.mark.parametrize(
    ("mutant", "kind", "operation"),
    [
        (test_teeth.commit_before_upload, "s3", "save"),
        (test_teeth.draft_discarded_before_the_commit, "drive", "save"),
        (test_teeth.acknowledged_before_the_commit, "gcs", "save"),
        (test_teeth.recovered_twice, "gcs", "recover"),
        (test_teeth.files_deleted_before_the_manifest, "local", "prune"),
        (test_teeth.only_the_key_is_compared, "s3", "recover"),
    ],
)
def test_code_broken_on_purpose_is_caught(apart, mutant, kind, operation):
    assert apart(is_caught, kind=kind, only=operation, mutant=mutant)


def is_caught(**given):
    with contextlib.closing(killed.points(0, 100, **given)) as found:
        return any(found)
