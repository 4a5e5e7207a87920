"""What goes wrong on the way to a server, and what has to hold whenever it does."""

import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast import CheckpointStore, Files
from holdfast.backends.base import Backend
from holdfast.errors import (
    AccessDenied,
    CheckpointError,
    CheckpointWarning,
    DeadlineExceeded,
    StorageError,
)
from holdfast.layout import parse_file_key, parse_manifest_key
from holdfast.testing import MemoryBackend
from tests.conformance.line import Line, Metered
from tests.conformance.places import Place
from tests.crash import scenes
from tests.servers.proxy import Answer, Fault, Kind

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


@dataclass(frozen=True)
class Trouble:
    """
    A fault that can strike any request.

    Attributes:
        name: in the ids of tests.
        kind: what the proxy does.
        answers: what it says where it answers, for each wording of errors.
        lasting: whether it stays.
        passes: one more try helps, so that the operation has to succeed.
        raises: what comes out where the operation does not succeed.
    """

    name: str
    kind: Kind
    answers: Mapping[str, Answer] | None = None
    lasting: bool = False
    passes: bool = False
    raises: type[CheckpointError] = CheckpointError

    def at(self, number: int, place: Place) -> Fault:
        """The fault that strikes the request with this number."""
        answer = self.answers[place.errors] if self.answers else Answer()
        return Fault(self.kind, number, self.lasting, answer=answer)


def _said(status: int, code: str, reason: str, *headers: tuple[str, str]) -> dict[str, Answer]:
    """One refusal in the words of S3, and in those of Google."""
    xml = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    json = (
        f'{{"error": {{"code": {status}, "message": "{reason}", "errors": '
        f'[{{"domain": "usageLimits", "reason": "{reason}", "message": "{reason}"}}]}}}}'
    )
    xml_type, json_type = ("Content-Type", "application/xml"), ("Content-Type", "application/json")
    return {
        "s3": Answer(status, xml.encode(), (xml_type, *headers)),
        "google": Answer(status, json.encode(), (json_type, *headers)),
    }


def _page(status: int) -> dict[str, Answer]:
    html = Answer(status, b"<html><h1>Bad Gateway</h1></html>", (("Content-Type", "text/html"),))
    return {"s3": html, "google": html}


#: How long a server asks to be left alone.
RETRY_AFTER_S = 1
_TIRED = _said(503, "SlowDown", "backendError")
_ASKING = _said(503, "SlowDown", "backendError", ("Retry-After", str(RETRY_AFTER_S)))
_BROKEN = _said(500, "InternalError", "internalError")
_EXPIRED = {
    "s3": _said(400, "ExpiredToken", "")["s3"],
    "google": _said(401, "", "authError")["google"],
}
_RATE = {
    "s3": _said(429, "TooManyRequests", "")["s3"],
    "google": _said(403, "", "userRateLimitExceeded")["google"],
}

TROUBLES = [
    Trouble("refused", "refuse", passes=True),
    Trouble("reply lost", "lost", passes=True),
    Trouble("cut on the way there", "cut request", passes=True),
    Trouble("cut on the way back", "cut reply", passes=True),
    Trouble("short", "short reply", passes=True),
    Trouble("flipped on the way there", "flip request"),
    Trouble("flipped on the way back", "flip reply"),
    Trouble("hangs", "hang", raises=StorageError),
    Trouble("503 with Retry-After", "answer", _ASKING, passes=True),
    Trouble("500", "answer", _BROKEN, passes=True),
    Trouble("500 though done", "answer after", _BROKEN, passes=True),
    Trouble("429", "answer", _said(429, "TooManyRequests", "rateLimitExceeded"), passes=True),
    Trouble("rate limit", "answer", _RATE, passes=True),
    Trouble("502 in HTML", "answer", _page(502), passes=True),
    Trouble("refused for good", "refuse", lasting=True, raises=StorageError),
    Trouble("503 for good", "answer", _TIRED, lasting=True, raises=StorageError),
    Trouble("hangs for good", "hang", lasting=True, raises=DeadlineExceeded),
    Trouble("expired for good", "answer", _EXPIRED, lasting=True, raises=AccessDenied),
]


def elsewhere(host: str) -> Trouble:
    """The server sends the client to another host, which must never hear of anything."""
    answer = Answer(307, b"", (("Location", f"{host}/elsewhere"),))
    return Trouble("redirected", "answer", {"s3": answer, "google": answer}, raises=StorageError)


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


def _latest(scene: scenes.Scene, home: Path) -> None:
    latest = scene.open(home).latest()
    assert latest is not None, "a store that is not empty was said to be"
    assert latest.step == 30


def _list(scene: scenes.Scene, home: Path) -> None:
    assert [checkpoint.step for checkpoint in scene.open(home)] == [10, 20, 30]


def _restore(scene: scenes.Scene, home: Path) -> None:
    assert scene.open(home).restore(Files(home / "restored")).step == 30
    assert (home / "restored" / "model.bin").read_bytes().startswith(b"weights of step 30\n")


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
        if trouble.answers is _ASKING and self.line.slept:
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
        if trouble.passes:
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
        held = self._held(Picture(self.place))
        if outcome.error is None:
            assert {*self.scene.may_add} <= {*held}, f"acknowledged, and not there: {held}"

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
