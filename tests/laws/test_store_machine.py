"""A store does what a plain dictionary does, whatever is done to it and wherever it is killed."""

from tests import share
from tests.laws.machine import games


def test_the_store_is_the_dictionary(apart):
    ends = apart(played, share.SEED, 100 if share.LONG else 40)

    assert not any(ends), "\n".join(filter(None, ends))


def played(seed, count):
    return list(games(seed, count))
