"""A process that dies before or after any of its calls leaves nothing that cannot be put right."""

import pytest

from tests.store import checks


def test_a_save_killed_anywhere(tmp_path):
    assert checks.a_save_killed_anywhere(tmp_path) >= 16


def test_a_save_with_a_rule_killed_anywhere(tmp_path):
    assert checks.a_save_with_a_rule_killed_anywhere(tmp_path) >= 40


def test_a_prune_killed_anywhere(tmp_path):
    assert checks.a_prune_killed_anywhere(tmp_path) >= 30


def test_a_sweep_killed_anywhere(tmp_path):
    assert checks.a_sweep_killed_anywhere(tmp_path) >= 16


def test_a_pin_killed_anywhere(tmp_path):
    assert checks.a_pin_killed_anywhere(tmp_path) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_recovery_killed_anywhere(tmp_path, when):
    assert checks.a_recovery_killed_anywhere(tmp_path, when) >= 40


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_recovery_after_a_sweep_killed_anywhere(tmp_path, when):
    assert checks.a_recovery_killed_anywhere(tmp_path, when, swept=True) >= 40


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_save_interrupted_anywhere(tmp_path, when):
    assert checks.a_save_that_fails_anywhere(tmp_path, KeyboardInterrupt, when) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_save_that_fails_anywhere(tmp_path, when):
    assert checks.a_save_that_fails_anywhere(tmp_path, checks.StorageError, when) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_prune_that_fails_anywhere_may_be_repeated(tmp_path, when):
    assert checks.a_prune_that_fails_anywhere(tmp_path, when) >= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_restore_that_fails_anywhere_leaves_the_target_untouched(tmp_path, when):
    assert checks.a_restore_that_fails_anywhere(tmp_path, when) >= 4
