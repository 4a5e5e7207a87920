"""The suite that every rule passes, and random histories to try rules on."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.retention import Rule

_START = datetime(2026, 1, 1, 21, 30, tzinfo=UTC)

#: Pauses of which two make up a minute, an hour or a day, and one does not.
_PAUSES = [
    timedelta(0),
    *(timedelta(seconds=seconds) for seconds in (25, 50)),
    *(timedelta(minutes=minutes) for minutes in (25, 50)),
    *(timedelta(hours=hours) for hours in (10, 20, 75)),
]

#: By how much a clock is wrong: mostly by nothing, else by as much as a pause.
_ERRORS = [timedelta(0)] * len(_PAUSES) + [
    sign * pause for pause in _PAUSES[1:] for sign in (1, -1)
]

#: Steps from one checkpoint to the next: two make up 10, 100, 1,000 or 10,000, and one does not.
_STRIDES = [500, 0, 3, 8, 30, 80, 300, 800, 5_000]

#: Where the next checkpoint goes on: mostly there; else a new session from the same step, half the
#: way back or afresh.
_TURNS = [None] * 6 + [1.0, 0.5, 0.0]

#: Few values, so that some are equal; None is a missing one, the last three may never win.
_VALUES = [None, 0.0, -0.5, 0.25, 0.5, 1.0, float("nan"), float("inf"), float("-inf")]

#: All but `explain`, which takes most of the time of a failing test and tells nothing here.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink)


class History(tuple[Checkpoint, ...]):
    """Checkpoints in the order of training, shown one on a line."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "".join(
            f"\n{one}  {one.created_at:%Y-%m-%d %H:%M:%S}  {dict(one.metrics)}" for one in self
        )


@st.composite
def histories(
    draw: st.DrawFn,
    *,
    metrics: Sequence[str] = ("val_loss", "val_accuracy", "val_acc"),
    max_size: int = 10,
) -> History:
    """
    Draw the history of a store, as hostile to a rule as a store may be.

    Sessions go back to earlier steps and repeat them, clocks jump and go wrong by days, metrics are
    missing, equal, NaN or infinite.

    Parameters:
        metrics (Sequence[str]): names of the metrics that a checkpoint may have.
        max_size (int): the most checkpoints.
    """
    drawn = st.tuples(
        st.sampled_from(_TURNS),
        st.sampled_from(_STRIDES),
        st.sampled_from(_PAUSES),
        st.sampled_from(_ERRORS),
        st.tuples(*[st.sampled_from(_VALUES) for _ in metrics]),
    )
    session, step, time = 1, 0, _START
    history = []
    for number, (turn, stride, pause, error, values) in enumerate(
        draw(st.lists(drawn, max_size=max_size))
    ):
        if turn is not None:
            session, step = session + 1, int(step * turn)
        step, time = step + stride, time + pause
        measured = zip(metrics, values, strict=True)
        history.append(
            Checkpoint(
                CheckpointId(session, step, f"{number:08x}"),
                time + error,
                metrics={name: value for name, value in measured if value is not None},
            )
        )
    return History(history)


class RuleContract:
    """
    Subclass it with a rule of your own, and pytest tries the rule on random histories.

        class TestKeepMilestones(RuleContract):
            rule = KeepMilestones(frozenset({1_000, 5_000}))

    Attributes:
        rule (Rule): the rule to try.
        examples (int): how many random histories each test tries it on.
        seed (int | None): what they are drawn from; None draws others in each run.
    """

    rule: Rule
    examples: int = 100
    seed: int | None = None

    def histories(self) -> st.SearchStrategy[Sequence[Checkpoint]]:
        """What the rule is tried on; override it where the rule looks at something special."""
        return histories()

    def test_keeps_only_what_it_was_given(self) -> None:
        """Everything kept is a part of the history, and once."""

        def check(history: Sequence[Checkpoint]) -> None:
            kept = list(self.rule.keep(history))
            for checkpoint in kept:
                assert checkpoint in history, f"{self.rule} keeps a stranger: {checkpoint}"
            assert len(kept) == len(set(kept)), f"{self.rule} names a checkpoint twice: {kept}"

        self._for_all(check)

    def test_keeps_nothing_of_nothing(self) -> None:
        """An empty history is no error."""
        assert not self.rule.keep([]), f"{self.rule} keeps something of an empty history"

    def test_what_is_kept_among_many_is_kept_among_few(self) -> None:
        """Removing one checkpoint never condemns another; so neither does removing several."""

        def check(history: Sequence[Checkpoint]) -> None:
            for few in _stretches(history):
                kept = self._kept(few)
                for gone in few:
                    rest = [checkpoint for checkpoint in few if checkpoint != gone]
                    lost = sorted(kept - self._kept(rest) - {gone.id})
                    assert not lost, (
                        f"{self.rule} keeps {lost[0]} while {gone} is there, not once it is gone"
                    )

        self._for_all(check, times=2.5)

    def test_the_same_history_has_the_same_answer(self) -> None:
        """No memory of earlier calls, and the history is left as it was."""

        def check(history: Sequence[Checkpoint]) -> None:
            asked = list(history)
            first = self._kept(asked)
            assert asked == list(history), f"{self.rule} changed the history that it was given"
            for end in range(len(history)):
                self._kept(history[:end])
            assert self._kept(history) == first, f"{self.rule} answers differently when asked again"

        self._for_all(check)

    def test_equal_checkpoints_are_the_same_to_it(self) -> None:
        """Checkpoints read anew are as good as the objects of before."""

        def check(history: Sequence[Checkpoint]) -> None:
            again = [replace(one, metrics=dict(one.metrics)) for one in history]
            assert self._kept(again) == self._kept(history), (
                f"{self.rule} goes by the identity of objects"
            )

        self._for_all(check)

    def test_gives_reasons_for_what_it_keeps_and_for_nothing_else(self) -> None:
        """Each kept checkpoint has at least one reason, a line of text."""

        def check(history: Sequence[Checkpoint]) -> None:
            reasons = self.rule.reasons(history)
            assert {checkpoint.id for checkpoint in reasons} == self._kept(history), (
                f"{self.rule} gives reasons for others than it keeps"
            )
            for checkpoint, lines in reasons.items():
                assert lines, f"{self.rule} gives no reason for {checkpoint}"
                assert all(map(_is_a_line, lines)), f"{self.rule} gives no line of text: {lines}"

        self._for_all(check)

    def test_is_a_value_that_can_be_shown(self) -> None:
        """A copy is equal to it, and the text of both is one line without an address."""
        copied = copy.deepcopy(self.rule)

        assert copied == self.rule, f"a copy of {self.rule} is not equal to it"
        assert str(copied) == str(self.rule), f"the text of {self.rule} is not that of its copy"
        assert _is_a_line(str(self.rule)), f"{self.rule} is not one line of text"

    def _for_all(self, check: Callable[[Sequence[Checkpoint]], None], times: float = 1) -> None:
        tried = given(self.histories())(check)
        if self.seed is not None:
            tried = seed(self.seed)(tried)
        settings(max_examples=round(times * self.examples), deadline=None, phases=_PHASES)(tried)()

    def _kept(self, history: Sequence[Checkpoint]) -> set[CheckpointId]:
        return {checkpoint.id for checkpoint in self.rule.keep(history)}


def _stretches(history: Sequence[Checkpoint]) -> Iterator[Sequence[Checkpoint]]:
    """Every unbroken part of a history, the short ones first: each of them is a history too."""
    for length in range(1, len(history) + 1):
        for start in range(len(history) - length + 1):
            yield history[start : start + length]


def _is_a_line(text: str) -> bool:
    return bool(text.strip()) and len(text.splitlines()) == 1
