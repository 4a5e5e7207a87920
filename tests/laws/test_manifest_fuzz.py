"""Whatever lies where a record belongs is a valid record or a FormatError, and nothing else."""

import pytest

from tests.laws import fuzzing, worst
from tests.share import LONG, SEED, turn

#: Of each kind of change; others in each run, as `tests.share` says.
COUNT = 15_000 if LONG else 3_000


@pytest.mark.parametrize(
    "changed", [fuzzing.damaged, fuzzing.hostile, fuzzing.resealed, fuzzing.keys]
)
def test_a_changed_record_is_refused_or_safe_to_act_on(changed):
    ends = list(changed(SEED, COUNT))

    assert len(ends) == COUNT
    assert not any(ends), "\n".join(filter(None, ends))


@pytest.mark.parametrize(
    ("changed", "least", "most"),
    [(fuzzing.damaged, 0.95, 1.0), (fuzzing.hostile, 0.3, 0.95), (fuzzing.resealed, 0.3, 0.99)],
)
def test_the_changes_are_worth_their_name(changed, least, most, monkeypatch):
    refused = []
    judged = fuzzing.judged

    def counting(kind, data):
        trouble, found = judged(kind, data)
        refused.append(found is None)
        return trouble, found

    monkeypatch.setattr(fuzzing, "judged", counting)

    list(changed(SEED, 300))

    assert least < sum(refused) / 300 <= most


def test_the_worst_records_take_little_memory():
    first, every = turn(16)

    for name in [*worst.RECORDS][first - 1 :: every]:
        assert worst.peak(worst.RECORDS[name]()) < worst.MOST_BYTES, name
