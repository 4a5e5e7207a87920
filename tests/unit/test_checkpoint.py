"""The id's grammar and order, tokens, steps, and the two spellings of a metric."""

import dataclasses
import math
import secrets
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.checkpoint import (
    MAX_SESSION,
    MAX_STEP,
    Checkpoint,
    CheckpointId,
    File,
    check_step,
    metric,
    new_token,
    next_try,
)
from holdfast.errors import InvalidInputError

tokens = st.integers(0, 2**32 - 1).map("{:08x}".format)
ids = st.builds(CheckpointId, st.integers(1, MAX_SESSION), st.integers(0, MAX_STEP), tokens)


def made(**given):
    return Checkpoint(CheckpointId(1, 5, "0badc0de"), datetime(2026, 1, 1, tzinfo=UTC), **given)


@settings(deadline=None)
@given(ids)
def test_an_id_is_read_back(id):
    assert CheckpointId.parse(str(id)) == id


@settings(deadline=None)
@given(ids, ids)
def test_ids_are_ordered_by_session_then_step_then_token(one, other):
    assert (one < other) == (
        (one.session, one.step, int(one.token, 16))
        < (other.session, other.step, int(other.token, 16))
    )


def test_an_earlier_step_in_a_later_session_is_later():
    assert CheckpointId(2, 500, "00000000") > CheckpointId(1, 10_000, "ffffffff")
    assert CheckpointId(10_000, 0, "00000000") > CheckpointId(9_999, 0, "00000000")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1-5-0badc0de",
        "0000-000000000005-0badc0de",
        "00001-000000000005-0badc0de",
        "0012345-000000000005-0badc0de",
        "1234567890-000000000005-0badc0de",
        "0001-5-0badc0de",
        "0001-0000000000005-0badc0de",
        "0001-000000000005-0BADC0DE",
        "0001-000000000005-0badc0d",
        "0001-000000000005-0badc0de0",
        "0001-000000000005-0badc0dg",
        "0001-000000000005",
        "0001_000000000005_0badc0de",
        "0001-000000000005-0badc0de\n",
        " 0001-000000000005-0badc0de",
        "+001-000000000005-0badc0de",
        "\u0660\u0660\u0660\u0661-000000000005-0badc0de",
        "0001-00000000000\u096b-0badc0de",
        "../1-000000000005-0badc0de",
        "-001-000000000005-0badc0de",
    ],
)
def test_what_is_not_written_as_we_write_it_is_no_id(text):
    assert CheckpointId.parse(text) is None


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_an_id_that_is_written_so_or_none(text):
    parsed = CheckpointId.parse(text)

    assert parsed is None or str(parsed) == text


def test_a_first_token_leaves_room_for_those_after_it():
    for token in (new_token() for _ in range(1_000)):
        assert len(token) == 8
        assert 0 <= int(token, 16) < 2**31


def test_each_token_sorts_after_the_one_before_and_after_its_tries():
    token = new_token()

    for _ in range(1_000):
        last_try = token
        for _ in range(255):
            earlier, last_try = last_try, next_try(last_try)
            assert last_try > earlier
        token = new_token(after=token)
        assert token > last_try
        assert len(token) == 8


def test_two_drawn_after_the_same_token_differ():
    drawn = {new_token(after="00000000") for _ in range(50)}

    assert len(drawn) > 40


def test_a_first_token_has_room_for_tens_of_thousands_and_then_says_so():
    drawn = ["7fffffff"]

    with pytest.raises(OverflowError):
        drawn.extend(new_token(after=drawn[-1]) for _ in range(2**31))

    assert len(drawn) > 32_000
    assert len(next_try(drawn[-1])) == 8


@pytest.mark.parametrize("step", [0, 7, MAX_STEP, np.int64(7), np.uint8(7), np.array(7)], ids=repr)
def test_a_whole_number_is_a_step(step):
    checked = check_step(step)

    assert checked == int(step)
    assert type(checked) is int


@pytest.mark.parametrize(
    "step",
    [-1, MAX_STEP + 1, 2**80, True, False, 1.0, "7", None, [7], math.nan, np.float32(7)],
    ids=repr,
)
def test_what_is_no_whole_number_from_0_to_12_digits_is_no_step(step):
    with pytest.raises(InvalidInputError, match="nothing was saved"):
        check_step(step)


def test_a_metric_has_two_spellings_and_its_own_comes_first():
    assert metric({"acc": 0.5}, "accuracy") == 0.5
    assert metric({"val_accuracy": 0.5}, "val_acc") == 0.5
    assert metric({"acc": 0.5, "accuracy": 0.75}, "acc") == 0.5
    assert metric({"my_val_acc": 0.5}, "my_val_accuracy") == 0.5


@pytest.mark.parametrize("name", ["loss", "val_acc", "Accuracy", "accuracy_", "balanced"])
def test_another_metric_is_missing(name):
    assert metric({"acc": 0.5}, name) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_counts_as_missing(value):
    assert made(metrics={"loss": value}).metric("loss") is None


def test_a_checkpoint_says_its_place_and_its_size():
    checkpoint = made(files=(File("a", 3, "sha256:a"), File("b", 4, "sha256:b")))

    assert (checkpoint.session, checkpoint.step, checkpoint.size) == (1, 5, 7)
    assert str(checkpoint) == "0001-000000000005-0badc0de"


def test_a_checkpoint_never_changes_and_can_be_kept_in_a_set():
    checkpoint = made(metrics={"loss": 1.0}, metadata={"note": "x"})

    with pytest.raises(dataclasses.FrozenInstanceError):
        checkpoint.files = ()
    assert {checkpoint, made()} == {checkpoint}


def test_a_token_is_drawn_from_as_many_as_are_told(monkeypatch):
    monkeypatch.setattr(secrets, "randbelow", lambda count: count - 1)

    assert new_token() == f"{2**31 - 1:08x}"
    assert new_token(after="00000000") == f"{256 + 65_535:08x}"


def test_the_last_token_leaves_room_for_its_tries(monkeypatch):
    monkeypatch.setattr(secrets, "randbelow", lambda _: 0)
    last = 2**32 - 256 - 1

    assert new_token(after=f"{last - 256:08x}") == f"{last:08x}"
    with pytest.raises(OverflowError):
        new_token(after=f"{last - 255:08x}")


def test_the_largest_session_and_step_make_an_id_and_no_larger_one_does():
    largest = CheckpointId(999_999_999, 999_999_999_999, "ffffffff")

    assert (largest.session, largest.step) == (MAX_SESSION, MAX_STEP)
    assert CheckpointId.parse(str(largest)) == largest
    for larger in ({"session": MAX_SESSION + 1}, {"step": MAX_STEP + 1}):
        assert CheckpointId.parse(str(dataclasses.replace(largest, **larger))) is None


def test_a_checkpoint_is_told_by_its_content_and_not_by_its_time():
    id = CheckpointId(1, 2, "0badc0de")
    files = (File("model", 3, "sha256:" + "0" * 64),)
    one = Checkpoint(id, datetime(2026, 1, 1, tzinfo=UTC), files)
    other = Checkpoint(id, datetime(2026, 1, 2, tzinfo=UTC), files, metrics={"loss": 1.0})

    assert len({one, other}) == 1
    assert one != dataclasses.replace(other, files=())
    assert (one.writer, one.version, one.parent) == ("", "", None)
