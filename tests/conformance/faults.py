"""Operations on a place to which faults happen, and what has to hold whenever they do."""

import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast import CheckpointStore, Files
from holdfast.backends.base import Backend
from holdfast.errors import CheckpointError, CheckpointWarning
from holdfast.layout import parse_file_key, parse_manifest_key
from holdfast.testing import MemoryBackend
from tests.conformance.line import Line, Metered
from tests.conformance.places import Place
from tests.conformance.troubles import RETRY_AFTER_S, Trouble
from tests.crash import scenes
from tests.servers.proxy import Fault

#: Seconds of real time after which a call counts as one that never ends.
PATIENCE_S = 60.0
#: What a small call may take by the line's clock: its deadline and a second.
DEADLINE_S = 31.0
#: Requests of one small call, all tries together.
MOST_REQUESTS = 8
#: How often the wrapper around every backend tries.
TRIES = 6
#: The verbs of one small object, and a listing.
SMALL = ("create", "read", "scan", "delete")


class Behind(scenes.Disk):
    """The medium of a scene that is played through a line."""

    def __init__(self, place: Place, opened: Callable[[], Backend]) -> None:
        self._place = place
        self._opened = opened
        self._kept: dict[str, bytes] = {}

    def backend(self, place: Path) -> Backend:
        return self._opened()

    def workspace(self, place: Path) -> Path:
        return place / "workspace"

    def keep(self, template: Path) -> None:
        self._kept = dict(self._place.objects())

    def put_back(self, place: Path) -> None:
        self._place.fill(self._kept)

    def objects(self, place: Path) -> dict[str, bytes]:
        return dict(self._place.objects())

    @property
    def kept(self) -> dict[str, bytes]:
        """What the store is made of before each run."""
        return self._kept


class Picture(Behind):
    """What lies in a place at this moment, to be looked at and healed without it."""

    def __init__(self, place: Place) -> None:
        self._memory = MemoryBackend()
        self._memory.url = Metered.url
        for key, data in place.objects():
            self._memory.create(key, data)

    def backend(self, place: Path) -> Backend:
        return self._memory

    def objects(self, place: Path) -> dict[str, bytes]:
        return {key: data for key, (data, _) in self._memory.objects.items()}


@dataclass
class Outcome:
    """How an operation ended: its error, or nothing; and every text that it gave away."""

    error: BaseException | None
    told: str


def run(act: Callable[[], object], patience: float = PATIENCE_S) -> Outcome:
    """
    Do something that must end.

    Raises:
        AssertionError: it has not ended.
    """
    errors: list[BaseException | None] = [None]

    def work() -> None:
        try:
            act()
        except BaseException as error:
            errors[0] = error

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        thread = threading.Thread(target=work, daemon=True, name="act")
        thread.start()
        thread.join(patience)
    assert not thread.is_alive(), "it was never over"
    told = [str(each.message) for each in warned]
    if errors[0] is not None:
        told += [repr(errors[0]), *traceback.format_exception(errors[0])]
    return Outcome(errors[0], "\n".join(told))


def operations() -> Iterator[scenes.Scene]:
    """Every operation of a store: those that change it, and those that only look."""
    three = (10, 20, 30)
    yield scenes.Scene("resume and save", three, _resume_and_save, may_add=(40,))
    wanted = ("prune", "sweep", "recover", "pin and unpin")
    for scene in scenes.scenes(Path()):
        if scene.name in wanted:
            yield scene
    yield scenes.Scene("latest", three, _latest)
    yield scenes.Scene("list", three, _list)
    yield scenes.Scene("restore", three, _restore)


def _resume_and_save(scene: scenes.Scene, home: Path) -> None:
    store = scene.open(home)
    store.restore(Files(home / "restored"))
    scenes.write_model(home / "model", 40)
    store.save(home / "model", step=40)


class StaleError(AssertionError):
    """A look showed an older checkpoint than the newest, or not all of them."""


def _seen(found: object, wanted: object) -> None:
    if found != wanted:
        raise StaleError(f"{found} was seen, and not {wanted}")


def _latest(scene: scenes.Scene, home: Path) -> None:
    latest = scene.open(home).latest()
    assert latest is not None, "a store that is not empty was said to be"
    _seen(latest.step, 30)


def _list(scene: scenes.Scene, home: Path) -> None:
    listed = [checkpoint.step for checkpoint in scene.open(home)]
    assert listed, "a store that is not empty was said to be"
    _seen(listed, [10, 20, 30])


def _restore(scene: scenes.Scene, home: Path) -> None:
    _seen(scene.open(home).restore(Files(home / "restored")).step, 30)


@dataclass
class Play:
    """
    One operation on one place, which faults are tried on.

    Attributes:
        scene: the operation.
        place: where it is played.
        line: how it gets there.
        home: a directory of this machine.
    """

    scene: scenes.Scene
    place: Place
    line: Line
    home: Path
    patience: float = PATIENCE_S

    def __post_init__(self) -> None:
        self.medium = Behind(self.place, self.line.backend)
        self.place.fill({})
        self.line.proxy.plan()
        self.scene = replace(self.scene, medium=self.medium)
        self.scene.build(self.home / "template")

    def requests(self) -> int:
        """How many requests the operation makes where nothing fails."""
        outcome = self._begin(None)
        assert outcome.error is None, outcome.told
        self._look(outcome)
        return len(self.line.proxy.requests)

    def strike(self, trouble: Trouble, number: int) -> Outcome | None:
        """
        Let one request fail, and judge what came of it; None if there was no such request.

        Raises:
            AssertionError: a promise is broken.
        """
        outcome = self._begin(trouble.at(number, self.place))
        if not self.line.proxy.struck:
            return None
        self._judge_calls()
        self._judge_error(trouble, outcome)
        if trouble.waits and self.line.slept:
            assert max(self.line.slept) >= RETRY_AFTER_S, "the server was asked too soon"
        self._look(outcome)
        self._repeat(outcome)
        return outcome

    def _begin(self, fault: Fault | None) -> Outcome:
        self.line.clear()
        self.scarred = False
        self.scene.prepare(self.home / "run")
        self.line.proxy.plan(*[fault] * (fault is not None))
        return run(lambda: self.scene.act(self.scene, self.home / "run"), self.patience)

    def _judge_calls(self) -> None:
        for call in self.line.calls:
            if call.verb in SMALL:
                assert call.seconds <= DEADLINE_S, f"{call} was not over by its deadline"
                most = MOST_REQUESTS if self.place.per_try == 1 else TRIES * self.place.per_try
                keys = call.key.count(" ") + 1
                assert call.requests <= most * keys * call.calls, f"{call} asked too often"

    def _judge_error(self, trouble: Trouble, outcome: Outcome) -> None:
        if isinstance(outcome.error, StaleError) and trouble.may_lack and self.place.listings_lack:
            return
        struck = self.line.proxy.struck[0]
        made = trouble.is_ours and struck.method in ("PUT", "POST") and struck.query != "delete"
        if trouble.passes or made:
            assert outcome.error is None, f"one more try would have helped: {outcome.told}"
        if outcome.error is not None:
            assert isinstance(outcome.error, CheckpointError), outcome.told
            chain = [outcome.error]
            while (above := chain[-1].__cause__ or chain[-1].__context__) is not None:
                chain.append(above)
            assert any(isinstance(each, trouble.raises) for each in chain), outcome.told

    def _look(self, outcome: Outcome) -> None:
        """Nothing is lost, nothing partial is seen, and what was acknowledged is there."""
        found = self.place.objects()
        keys = [key for key, _ in found]
        assert len(keys) == len(set(keys)), f"twins: {keys}"
        now = dict(found)
        for key, data in self.medium.kept.items():
            parsed = parse_file_key(key)
            id = parsed[0] if parsed else parse_manifest_key(key)
            if id and id.step in self.scene.steps and id.step not in self.scene.may_remove:
                assert now.get(key) == data, f"{key} was lost or changed"
        self._look_at_target(outcome)
        held = self._held(Picture(self.place))
        if outcome.error is None:
            assert {*self.scene.may_add} <= {*held}, f"acknowledged, and not there: {held}"

    def _look_at_target(self, outcome: Outcome) -> None:
        """What was restored is whole; where it failed the target is as it was."""
        target = self.home / "run" / "restored"
        if target.exists():
            failed = isinstance(outcome.error, CheckpointError)
            assert not failed or self.scene.may_add, "a failed restore left a target"
            assert _files(target) in self._whole(), f"{target} is not as it was saved"

    def _whole(self) -> Iterator[dict[str, bytes]]:
        """What a restore of each checkpoint gives."""
        for step in self.scene.steps:
            home = self.home / "whole" / str(step)
            scenes.write_model(home, step)
            yield _files(home)

    def _held(self, picture: Picture) -> list[int]:
        store = CheckpointStore(picture.backend(self.home), workspace=self.home / "look")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            held = [checkpoint.step for checkpoint in store]
        for damage in store.verify(deep=True).damage:
            # Where a server takes a manifest that was damaged on its way, an unreadable one stays;
            # the checkpoint was then published under another id, or was not acknowledged.
            assert damage.path not in self.medium.kept, damage
            assert parse_manifest_key(damage.path), damage
            self.scarred = True
        return held

    def _repeat(self, outcome: Outcome) -> None:
        """The fault is gone: the same call succeeds, or `recover` does, and all is in order."""
        self.line.clear()
        self.line.proxy.plan()
        run_dir = self.home / "run"

        def again() -> None:
            store = self.scene.open(run_dir)
            store.recover()
            if not {*self.scene.may_add} & {checkpoint.step for checkpoint in store}:
                self.scene.act(self.scene, run_dir)

        if outcome.error is not None:
            healed = run(again, self.patience)
            assert healed.error is None, f"repeating it failed: {healed.told}"
            self._look(healed)
        if not self.scarred:
            scenes.judge(replace(self.scene, medium=Picture(self.place)), run_dir)


def _files(home: Path) -> dict[str, bytes]:
    found = (path for path in home.rglob("*") if path.is_file())
    return {str(path.relative_to(home)): path.read_bytes() for path in found}
