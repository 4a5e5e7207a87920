"""What was found out about a place, one thing at a time."""

from dataclasses import dataclass
from typing import Literal

from holdfast.errors import CheckpointError


@dataclass(frozen=True)
class Finding:
    """
    What was found out about one thing.

    Attributes:
        check (str): what was tried.
        outcome (str): `ok`; `no` for what is not so; `note` for what is good to know.
        text (str): in words.
        error (CheckpointError | None): why nothing can be saved, if that follows.
    """

    check: str
    outcome: Literal["ok", "no", "note"]
    text: str
    error: CheckpointError | None = None
