"""What one callback or manager has made among all that lies in a store."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from holdfast.checkpoint import Checkpoint
from holdfast.retention import Rule

#: The metadata that names the series of a checkpoint.
KEY = "series"


def belongs(checkpoint: Checkpoint, series: str) -> bool:
    """Whether a checkpoint is of a series: whether it was saved under this name."""
    return checkpoint.metadata.get(KEY) == series


@dataclass(frozen=True)
class KeepInSeries(Rule):
    """
    Apply a rule to the checkpoints of one series, and keep all others.

    The newest of the series stays in any case, since the run resumes from it.

    Attributes:
        series (str): the name in its checkpoints, such as the template that a callback names its
            files by.
        rule (Rule): what to keep of its series.
    """

    series: str
    rule: Rule

    def keep(self, history: Sequence[Checkpoint]) -> Collection[Checkpoint]:
        """All others, what the rule keeps of the series, and its newest."""
        return list(self.reasons(history))

    def reasons(self, history: Sequence[Checkpoint]) -> dict[Checkpoint, tuple[str, ...]]:
        """The reasons of the rule, or that the checkpoint is of another series."""
        own = [each for each in history if belongs(each, self.series)]
        others = [each for each in history if not belongs(each, self.series)]
        why: dict[Checkpoint, tuple[str, ...]] = dict.fromkeys(others, ("another series",))
        why |= self.rule.reasons(own)
        for newest in own[-1:]:
            why[newest] = (*why.get(newest, ()), f"latest of {self.series}")
        return why

    def __str__(self) -> str:
        return f"{self.rule} in {self.series}"
