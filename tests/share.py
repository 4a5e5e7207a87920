"""
Which share of many cases a run of the tests tries: another one each day.

HOLDFAST_SEED=739576 chooses the share of another day, HOLDFAST_LONG=1 takes everything.
"""

import os
from datetime import date

SEED = int(os.environ.get("HOLDFAST_SEED", date.today().toordinal()))
LONG = bool(os.environ.get("HOLDFAST_LONG"))


def turn(every: int, number: int = 0) -> tuple[int, int]:
    """
    From where, counted from 1, and by which stride cases are tried of which each `every`-th is.

    Parameters:
        every (int): the stride, if not everything is taken.
        number (int): of a test; those of different numbers share the cases out.
    """
    return (1, 1) if LONG else (1 + (SEED + number) % every, every)
