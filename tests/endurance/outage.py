"""
Ten minutes without network, by a clock that the test moves, and what becomes of the saves in them.

No save may keep the training waiting, the drafts stay within their bound, a warning tells how old
the newest durable checkpoint is, and afterwards everything that is still staged is published in
order, once: by the same process, or by the next one if this one was killed.
"""

import contextlib
import random
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from holdfast import (
    Checkpoint,
    CheckpointStore,
    PendingSaveError,
    Saver,
    layout,
    manifest,
    preflight,
)
from holdfast.backends.base import Backend
from holdfast.backends.local import LocalBackend
from holdfast.backends.retrying import RetryingBackend
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.crash.points import memory
from tests.crash.struck import Moment, Tell, start
from tests.endurance.clock import Clock
from tests.endurance.network import KINDS, Kind, Network, Number

#: Seconds that the network is gone.
OUTAGE_S = 600.0
#: Seconds that a save may keep the training waiting.
SAVE_S = 1.0


@dataclass(frozen=True)
class Plan:
    """
    One outage.

    Parameters:
        max_pending (int): of the saver.
        interval (float): seconds from save to save.
        before (int): how many saves there are before; with 0 the process never sees the place.
        calls (int): how many calls are answered yet after that.
        after (int): how many saves there are afterwards.
        kinds (tuple[Kind, ...]): how calls fail.
        deaths (tuple[int, ...]): when the processes are killed that are not the last one, in
            things that they have told; each later one begins without network.
    """

    max_pending: int
    interval: float
    before: int
    calls: int
    after: int
    kinds: tuple[Kind, ...]
    deaths: tuple[int, ...] = ()

    @classmethod
    def of(cls, seed: int, case: int, *, deaths: int = 0) -> "Plan":
        draw = random.Random(f"outage {seed} {case}")
        before = draw.choice([0, 1, 1, 2, 5])
        return cls(
            max_pending=draw.choice([1, 1, 2, 3]),
            interval=draw.choice([2.0, 7.0, 20.0, 61.0, 250.0]) + draw.random(),
            before=before,
            calls=draw.randint(0, 12) if before else 0,
            after=draw.randint(0, 3),
            kinds=draw.choice([*((kind,) for kind in KINDS), KINDS]),
            deaths=tuple(draw.randint(1, 250) for _ in range(draw.randint(1, deaths or 1)))
            if deaths
            else (),
        )


class Training:
    """
    A process that trains and saves, and judges each of its saves.

    Parameters:
        plan (Plan): of the outage.
        place (Backend): where the store lies.
        workspace (Path): where drafts are staged.
        draw (random.Random): how calls fail.
        number (int): which of the processes that save here it is.
        make (Callable): makes the way to the place.

    Attributes:
        tell: called whenever something has happened.
    """

    def __init__(
        self,
        plan: Plan,
        place: Backend,
        workspace: Path,
        draw: random.Random,
        number: int = 0,
        make: "Callable[[Backend, Clock, random.Random], Network]" = Network,
    ) -> None:
        self.plan = plan
        self.clock = clock = Clock()
        self.network = make(place, clock, draw)
        line = RetryingBackend(
            self.network,
            clock=clock.time,
            sleep=clock.sleep,
            random=draw.random,
            wait=clock.wait_event,
        )
        self.store = CheckpointStore(line, workspace=workspace, writer=Writer(), clock=clock.date)
        self.futures: list[Future[Checkpoint]] = []
        self.warned: list[str] = []
        self.wrong: list[str] = []
        self.tell: Callable[[], object] = lambda: None
        self._number = number

    def begin(self) -> None:
        """Make the saver, as the training does."""
        preflight._looked_at.clear()  # another process has looked at nothing
        self._inherited = len(drafts_in(self.store.workspace.path))
        self.saver = Saver(self.store, max_pending=self.plan.max_pending, clock=self.clock.date)
        self.saver._pending.changed = self.clock
        self.clock.is_busy = lambda: self.saver._worker is not None

    def save(self) -> None:
        """Train, and save."""
        self.clock.sleep(self.plan.interval)
        step, began = len(self.futures) + 1, self.clock.now
        self.futures.append(
            self.saver.save(Number(step), step=step, metadata={"process": self._number})
        )
        if (took := self.clock.now - began) > SAVE_S:
            self.wrong.append(f"the save of step {step} took {took:.1f} s")
        self._look()

    def lead_in(self) -> None:
        """Begin, and save as often as there is a network for."""
        if not self.plan.before:
            self.network.cut(self.plan.kinds, after=0)
        self.begin()
        for _ in range(self.plan.before):
            self.save()
        if self.plan.before:
            self.network.cut(self.plan.kinds, after=self.plan.calls)

    def live_through(self) -> None:
        """Save until the outage has lasted its time."""
        while self.network.cut_at is None or self.clock.now < self.network.cut_at + OUTAGE_S:
            self.save()

    def given_way(self) -> set[int]:
        """The steps of which a warning has told that they gave way."""
        found = (re.search(r"save of step ([\d,]+) gave way", text) for text in self.warned)
        return {int(each[1].replace(",", "")) for each in found if each}

    def warn(self, message: Warning | str, *_: Any, **__: Any) -> None:
        """Hear what is warned of; it tells how old the newest durable checkpoint is."""
        text = str(message)
        self.warned.append(text)
        newest = self._newest()
        if newest is None:
            durable = "No checkpoint of this saver is durable yet."
        else:
            age = str(self.clock.date() - newest.created_at).partition(".")[0]
            durable = f"newest durable checkpoint is that of step {newest.step:,}, {age} old."
        if "be saved to is unknown" not in text and durable not in text:
            self.wrong.append(f"{text!r} does not tell: {durable}")

    def durable(self) -> list[Checkpoint]:
        """What was acknowledged."""
        return [each.result() for each in self.futures if each.done() and not each.exception()]

    def _newest(self) -> Checkpoint | None:
        return max(self.durable(), key=lambda each: each.id, default=None)

    def _look(self) -> None:
        self.tell()
        newest, age = self._newest(), self.saver.age
        known = None if newest is None else self.clock.date() - newest.created_at
        if age != known:
            self.wrong.append(f"the age is said to be {age}, and is {known}")
        drafts = len(drafts_in(self.store.workspace.path)) - self._inherited
        if drafts > self.plan.max_pending + 1:
            self.wrong.append(f"{drafts} drafts lie in the workspace at step {len(self.futures)}")


def drafts_in(workspace: Path) -> list[Path]:
    """The drafts in a workspace, finished or not."""
    return list(workspace.iterdir()) if workspace.exists() else []


@contextlib.contextmanager
def heard(training: Training) -> Iterator[None]:
    """Warnings are told to a training."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = training.warn
        yield


def outages(seed: int, count: int) -> Iterator[str]:
    """Outages that the process outlives: what was broken in each, or nothing."""
    for case in range(count):
        with memory() as folder:
            plan, draw = Plan.of(seed, case), random.Random(f"{seed} {case}")
            place, workspace = MemoryBackend(), folder / "workspace"
            wrong = outlived(Training(plan, place, workspace, draw), place, workspace)
            yield f"outages({seed}, …) {case}, {plan}: {wrong}" if wrong else ""


def outlived(training: Training, place: Backend, workspace: Path) -> str:
    """Train before, in and after an outage; says what was broken."""
    plan = training.plan
    with heard(training):
        training.lead_in()
        warned = len(training.warned)
        training.live_through()
        if len(training.warned) == warned:
            training.wrong.append("nothing was said")
        unsent = len(training.futures) - len(training.durable())
        kept = unsent - len(training.given_way())
        training.network.mend()
        for _ in range(plan.after):
            training.save()
        with contextlib.suppress(PendingSaveError):
            training.saver.close()
    if kept < min(unsent, plan.max_pending):
        training.wrong.append(f"only {kept} saves were kept")
    return "; ".join([*training.wrong, *misplaced(training, place, workspace)])


def killed_outages(seed: int, count: int) -> Iterator[str]:
    """Outages in which processes are killed that see no network; what was broken in each."""
    for case in range(count):
        with memory() as folder:
            plan = Plan.of(seed, case, deaths=3)
            wrong = "; ".join(passed_on(plan, folder, f"{seed} {case}"))
            yield f"killed_outages({seed}, …) {case}, {plan}: {wrong}" if wrong else ""


def passed_on(plan: Plan, folder: Path, seed: str) -> Iterator[str]:
    """Let processes die in the outage, and the last one find what they left; what was broken."""
    place, workspace = LocalBackend(folder / "store"), folder / "workspace"
    saved: list[tuple[int, int]] = []
    safe: set[tuple[int, int]] = set()
    for number, at in enumerate(plan.deaths):
        if number and not any(sealed(workspace)):
            break  # nothing says that the next one, which never sees the place, comes later
        its = replace(plan, before=0) if number else plan
        training = Training(its, place, workspace, random.Random(f"{seed} {number}"), number)
        died = start(partial(_without_network, training), Moment(at, None), signal.SIGKILL, 0)
        if died.error:
            yield died.error
        told = died.parts or {"saved": 0, "durable": [], "wrong": []}
        yield from told["wrong"]
        saved += [(number, step + 1) for step in range(int(told["saved"]) + 1)]
        safe |= {(number, step) for step in told["durable"]} | set(sealed(workspace))
    last = Training(plan, place, workspace, random.Random(seed), len(plan.deaths))
    with heard(last):
        last.begin()
        last.save()
        last.saver.close()
    yield from (text for text in last.warned if "restriction" not in text)
    store = CheckpointStore(place, workspace=workspace, writer=Writer())
    found = [(each.metadata["process"], each.step) for each in store]
    if found != sorted(set(found)):
        yield f"not in order, or twice: {found}"
    if lost := safe - {*found}:
        yield f"lost are {sorted(lost)}"
    if strange := {*found} - {*saved} - {(len(plan.deaths), 1)}:
        yield f"appeared are {sorted(strange)}"
    if left := drafts_in(workspace):
        yield f"{len(left)} drafts are left"
    if damage := store.verify(deep=True).damage:
        yield f"damaged: {damage}"


def _without_network(training: Training, tell: Tell) -> None:
    """What a process does until it is killed."""

    def told() -> None:
        durable = [each.step for each in training.durable()]
        parts = {"saved": len(training.futures), "durable": durable, "wrong": training.wrong}
        tell("going on", parts=parts)

    training.tell = training.network.tell = told
    with heard(training):
        training.lead_in()
        training.live_through()


def sealed(workspace: Path) -> Iterator[tuple[int, int]]:
    """Which process has sealed which steps, of the drafts that lie in a workspace."""
    for seal in workspace.glob("*/seal.json"):
        draft = manifest.read_staged(seal.read_bytes(), "draft")
        yield int(draft.metadata["process"]), draft.step


def misplaced(training: Training, place: Backend, workspace: Path) -> Iterator[str]:
    """What does not lie where it should after the last process that saved."""
    given_way = training.given_way()
    store = CheckpointStore(place, workspace=workspace, writer=Writer())
    found = [checkpoint.step for checkpoint in store]
    lost = layout.parse_manifest_key(training.network.lost)
    # Its commit took effect, nobody heard so, and then it gave way.
    unheard = {lost.step} & given_way & {*found} if lost else set()
    steps = range(1, len(training.futures) + 1)
    expected = [step for step in steps if step not in given_way or step in unheard]
    if found != expected:
        yield f"published are {found}, and not {expected}"
    if left := drafts_in(workspace):
        yield f"{len(left)} drafts are left"
    if (report := store.verify(deep=True)).damage:
        yield f"damaged: {report.damage}"
