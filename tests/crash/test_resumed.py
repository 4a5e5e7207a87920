"""A run that is killed again and again ends as one that never was; what it takes to show it."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

from holdfast import open_store  # noqa: E402
from holdfast.keras import ModelCheckpoint, companions, randomness, sums, variables  # noqa: E402
from holdfast.keras.coordinator import Coordinator  # noqa: E402
from holdfast.keras.resumption import Resumption  # noqa: E402
from tests import share  # noqa: E402
from tests.crash import trainings  # noqa: E402
from tests.crash.resumes import Plan, Progress  # noqa: E402
from tests.crash.struck import Died, Moment, Tell  # noqa: E402

ROOT = Path(__file__).parents[2]
#: How many signals a run of the tests sends; `make figures` sends some hundreds.
FEW = ("--kills", "6", "--terms", "3", "--digits", "0", "--keras", "0")


def test_runs_that_are_killed_and_terminated_end_as_one_that_never_was() -> None:
    few = () if share.LONG else FEW

    # A process of its own: TensorFlow must not have begun where others are forked.
    ran = subprocess.run(
        [sys.executable, "-m", "tests.crash.resumes", "--seed", str(share.SEED), *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


# What is left out of a resumed run shows: the comparison has teeth.


class Cut(Exception):
    """The run was interrupted."""


def ignore(*_: Any, **__: Any) -> None:
    """Nobody is told."""


class Script:
    """A training whose model is compiled once and made fresh for every start."""

    def __init__(self) -> None:
        self._training = trainings.Training()
        self._model = self._training.model()
        self.whole = self._training.run(self._model)  # builds everything there is
        fresh = self._training.model()
        fresh.optimizer.build(fresh.trainable_variables)
        pairs = zip(self._variables(self._model), self._variables(fresh), strict=True)
        self._values = [(mine, other.numpy()) for mine, other in pairs]

    def start(self, place: Path, *, tell: Tell = ignore, preemption: bool = False) -> Any:
        """Train from where a store stands; gives what the training ends with."""
        for variable, value in self._values:
            variable.assign(value)
        self._training.model()  # sets the random states, as the script does
        saver = ModelCheckpoint(
            place / "m.keras", save_freq=25, background=False, preemption=preemption
        )
        return self._training.run(self._model, [saver], resume=saver.resume, tell=tell)

    def cut(self, place: Path) -> None:
        """Leave what a run leaves that is interrupted inside its third epoch."""

        def tell(doing: str, *, trained: int = 0, **_: Any) -> None:
            if trained == 28:
                raise Cut

        with pytest.raises(Cut):
            self.start(place, tell=tell)

    def differing(self, place: Path) -> set[str]:
        """Resume the run, and say what is not the same in the end."""
        parts = self.start(place)
        return {name for name, value in parts.items() if value != self.whole[name]}

    @staticmethod
    def _variables(model: Any) -> list[Any]:
        return [*model.variables, *model.optimizer.variables]


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def left(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a run leaves it that was interrupted."""
    place = tmp_path_factory.mktemp("left")
    script.cut(place)
    return place


@pytest.fixture
def place(left: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(left, tmp_path / "store")


def seed_generators(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(variables, "seed_states", lambda _: [])


def random_states(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(randomness, "put_back", lambda _: None)


def metric_sums(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sums, "put_back", lambda *_: True)


def batch_position(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Coordinator, "_trained", lambda *_: 0)


def learning_rate(patch: pytest.MonkeyPatch) -> None:
    def without(model: Any, *given: Any) -> Resumption:
        found = of(model, *given)
        rate = model.optimizer.learning_rate
        return replace(found, values=[each for each in found.values if each[0] is not rate])

    of = Resumption.of
    patch.setattr(Resumption, "of", without)


def history(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(companions._ATTRIBUTES, keras.callbacks.History)


def early_stopping(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(companions._ATTRIBUTES, keras.callbacks.EarlyStopping)


def plateau(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(companions._ATTRIBUTES, keras.callbacks.ReduceLROnPlateau)


def own_callback(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(companions, "Stateful", type("Nobody", (), {}))


FAULTS = [
    (seed_generators, "seed generators"),
    (random_states, "random states"),
    (metric_sums, "History"),
    (batch_position, "weights"),
    (learning_rate, "optimizer"),
    (history, "History"),
    (early_stopping, "EarlyStopping"),
    (plateau, "ReduceLROnPlateau"),
    (own_callback, "own callback"),
]


def test_a_run_that_is_cut_ends_the_same(script: Script, place: Path) -> None:
    assert script.differing(place) == set()


def test_what_is_left_out_shows(script: Script, left: Path, tmp_path: Path) -> None:
    first, every = share.turn(3)
    for left_out, shows in FAULTS[first - 1 :: every]:
        place = tmp_path / left_out.__name__
        with pytest.MonkeyPatch.context() as patch:
            left_out(patch)
            if left_out is seed_generators:  # those that are kept have to be there on the way back
                script.cut(place)
            else:
                shutil.copytree(left, place)

            assert shows in script.differing(place), left_out.__name__


def test_a_signal_at_the_end_of_the_last_epoch_loses_nothing(
    script: Script, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(doing: str, **_: Any) -> None:
        ended.append(doing)
        if ended.count("between epochs") == 2:  # of the four, two were trained before
            signal.raise_signal(signal.SIGTERM)

    ended: list[str] = []
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(SystemExit):
            script.start(place, tell=tell, preemption=True)
    finally:
        signal.signal(signal.SIGTERM, before)

    newest = open_store(place).latest()
    assert (newest.metadata["epoch"], newest.metadata["batch"]) == (4, 0)


def terminate(*_: Any) -> None:
    raise SystemExit(143)


# What is told of the processes is judged.


def plan(strike: int = signal.SIGKILL, *, handler: bool = False) -> Plan:
    return Plan(
        number=0,
        training=trainings.Training(),
        saver="BackupAndRestore",
        save_freq=5,
        background=False,
        first=True,
        delete=False,
        signal=strike,
        handler=handler,
        moments=(Moment(1, None),),
    )


@pytest.mark.parametrize(
    ("begun", "wrong"), [(14, "went on at 14"), (15, ""), (20, ""), (21, "went on at 21")]
)
def test_a_run_may_repeat_an_interval_and_skip_nothing(begun: int, wrong: str) -> None:
    progress = Progress(plan())
    assert not progress.wrong(Died(begun=0, trained=20, struck="training"))

    assert progress.wrong(Died(begun=begun)).startswith(wrong)


@pytest.mark.parametrize(
    ("died", "wrong"),
    [
        (Died(code=-15), ""),
        (Died(code=0), "ended with 0"),
        (Died(code=143, handled=True), ""),
        (Died(code=-15, handled=True), "ended with -15"),
        (Died(code=-15, doing="training"), "its own handler was not called"),
    ],
)
def test_the_end_is_that_of_the_signal(died: Died, wrong: str) -> None:
    has_handler = died.handled or bool(died.doing)
    died.struck = died.doing

    assert Progress(plan(signal.SIGTERM, handler=has_handler)).wrong(died).startswith(wrong)


def test_a_signal_that_asks_loses_nothing() -> None:
    progress = Progress(plan(signal.SIGTERM))
    progress.wrong(Died(begun=0, trained=20, code=-15, struck="training"))

    assert progress.wrong(Died(found=15)) == "committed are 15 batches, and 20 were trained"
