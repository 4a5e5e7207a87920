"""A model gets nothing of a checkpoint in which one bit is not as it was."""

import pytest

from tests.damage import models
from tests.damage.test_damaged import no_hash_on_restore
from tests.share import LONG, SEED

FLIPS = 1_000 if LONG else 8


def test_every_flipped_bit_of_a_model_is_noticed() -> None:
    assert not list(filter(None, models.flips_in_models(SEED, FLIPS)))


def test_a_model_that_is_not_hashed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    no_hash_on_restore(monkeypatch)

    assert any(models.flips_in_models(SEED, 8))
