"""The laws of retention: every rule passes the contract, every plan equals that of an oracle."""

import random
from itertools import pairwise

from holdfast.retention import KeepAll, KeepBest, KeepEvery, KeepLast, KeepWithin
from holdfast.testing.rules import RuleContract
from tests import share
from tests.laws.oracle import plans, some_history

#: Random histories that plans are compared on, each with two rules.
COUNT = 5_000 if share.LONG else 1_000


# ------------------------------------------------------------------ the contract


class Contract(RuleContract):
    """A quarter of what a user's rule is tried on, others each day."""

    examples = RuleContract.examples // (1 if share.LONG else 4)
    seed = share.SEED


class TestKeepAll(Contract):
    rule = KeepAll()


class TestKeepLast(Contract):
    rule = KeepLast(3)


class TestKeepBest(Contract):
    rule = KeepBest("val_loss", 2)


class TestKeepBestOfTwoSpellings(Contract):
    rule = KeepBest("val_acc", 2)


class TestKeepEverySteps(Contract):
    rule = KeepEvery(steps=700, last=2)


class TestKeepEveryDay(Contract):
    rule = KeepEvery(days=1, last=3)


class TestKeepWithin(Contract):
    rule = KeepWithin(hours=30)


class TestEither(Contract):
    rule = KeepLast(2) | KeepBest("val_loss") | KeepEvery(hours=6, last=2)


class TestBoth(Contract):
    rule = (KeepEvery(steps=500) | KeepLast(4)) & KeepWithin(days=2) & KeepBest("val_acc", 5)


# ------------------------------------------------------------------ the oracle


def test_the_plans_are_those_of_the_oracle() -> None:
    ends = list(plans(share.SEED, COUNT))

    assert len(ends) == COUNT
    assert not any(ends), "\n".join(filter(None, ends))


def test_the_random_histories_are_worth_their_name() -> None:
    histories = [some_history(random.Random(seed)) for seed in range(1_000)]

    pairs = [pair for rows in histories for pair in pairwise(rows)]

    assert sum(later.step < earlier.step for earlier, later in pairs) > 100
    assert sum(later.step == earlier.step for earlier, later in pairs) > 100
    assert sum(later.created_at < earlier.created_at for earlier, later in pairs) > 100
    assert sum(not rows for rows in histories) > 10
