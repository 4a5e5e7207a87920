"""
The promises of a store as functions: a test calls them, and so does a test that breaks the store.

Each takes an empty directory, and raises if the promise does not hold.
"""

import contextlib
import functools
import hashlib
import random
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from holdfast import CheckpointStore, KeepLast, layout, manifest, record
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import (
    CheckpointWarning,
    CorruptionError,
    FormatError,
    NotFoundError,
    StorageError,
    SupersededError,
)
from holdfast.state import Files
from holdfast.testing import MemoryBackend
from holdfast.testing.faults import Fault, FaultBackend
from holdfast.writer import Writer
from tests.store.dying import Death, deaths, in_another_process
from tests.store.hooked import HookedBackend

NOW = timedelta(0)


# ------------------------------------------------------------- looking behind


def committed(
    backend: MemoryBackend, *, unreadable: bool = False
) -> dict[CheckpointId, Checkpoint]:
    """Every checkpoint that has a manifest, read straight from the objects."""
    found = {}
    for key, (data, _) in sorted(backend.objects.items()):
        with contextlib.suppress(*[FormatError] * unreadable):
            id = layout.parse_manifest_key(key)
            if id and isinstance(record := read_manifest(data, id), Checkpoint):
                found[id] = record
    return found


read_manifest = functools.cache(manifest.read)


def steps(backend: MemoryBackend) -> list[int]:
    """The steps of every checkpoint that has a manifest, in the order of training."""
    return [id.step for id in committed(backend)]


def broken(backend: MemoryBackend) -> list[str]:
    """Files that a manifest names and that are not there as it says."""
    wrong = []
    for checkpoint in committed(backend).values():
        for file in checkpoint.files:
            key = layout.file_key(checkpoint.id, file.path)
            data = backend.objects.get(key, (b"",))[0]
            if len(data) != file.size or _hash(data) != file.hash:
                wrong.append(key)
    return wrong


def leftovers(backend: MemoryBackend) -> list[str]:
    """Keys that nothing needs any more; a tombstone is needed for good."""
    alive = committed(backend)
    needed = {
        layout.file_key(checkpoint.id, file.path)
        for checkpoint in alive.values()
        for file in checkpoint.files
    }
    return [
        key
        for key in backend.objects
        if key not in needed
        and layout.parse_manifest_key(key) is None
        and not ((pin := layout.parse_pin_key(key)) and pin[1] in alive)
    ]


def _hash(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Scene:
    """A store in memory with its workspace, and processes that come and go."""

    def __init__(self, tmp: Path) -> None:
        self.backend = MemoryBackend()
        self.workspace = tmp / "workspace"
        self.file = tmp / "model.bin"
        self.file.write_bytes(b"weights " * 40)
        (tmp / "directory").mkdir(exist_ok=True)
        for name in ("a.bin", "b/c.bin"):
            path = tmp / "directory" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(name.encode() * 30)
        self.directory = tmp / "directory"

    def process(self, on=None, name=None, **given) -> CheckpointStore:
        given = {"workspace": self.workspace, **given}
        return CheckpointStore(on or self.backend, writer=Writer(name), **given)

    def clear(self) -> None:
        """A workspace as before the first start."""
        shutil.rmtree(self.workspace, ignore_errors=True)

    def settle(self) -> list[Checkpoint]:
        """What the next start does, and then a sweep: after it nothing may be left over."""
        next_one = self.process()
        published = next_one.recover()
        next_one.sweep(older_than=NOW)
        assert not leftovers(self.backend), f"left over: {leftovers(self.backend)}"
        assert not list(self.workspace.glob("*")), "left over in the workspace"
        assert not broken(self.backend), f"broken: {broken(self.backend)}"
        return published


# ------------------------------------------------------------- killed anywhere


def a_save_killed_anywhere(tmp: Path) -> int:
    """G1, G2, G12: the newest or the one before, whole; what was sealed comes back exactly once."""
    scene = Scene(tmp)
    first = scene.process()
    for step in (1, 2, 3):
        first.save(scene.directory, step=step)

    def save(backend, acknowledge):
        acknowledge(str(scene.process(backend).save(scene.directory, step=4).id))

    count = 0
    for death, end in deaths(scene.backend, save):
        count += 1
        sealed = bool(list(scene.workspace.glob("*/seal.json")))
        was_there = 4 in steps(scene.backend)
        sent = any("-000000000004-" in key for key in scene.backend.objects)
        assert sealed or was_there or not sent, f"{death}: its draft went before its commit"
        reader = scene.process(workspace=tmp / "reader")
        latest = reader.latest()
        assert latest is not None, death
        assert latest.step == (4 if was_there else 3), death
        assert reader.verify(deep=True).ok, death
        assert set(end.acknowledged) <= {str(id) for id in committed(scene.backend)}, death
        scene.settle()
        expected = [1, 2, 3, 4] if sealed or was_there or end.acknowledged else [1, 2, 3]
        assert steps(scene.backend) == expected, f"{death}: {steps(scene.backend)}"
        assert scene.process().save(scene.file, step=5) == scene.process().latest(), death
        scene.clear()
    return count


def a_save_with_a_rule_killed_anywhere(tmp: Path) -> int:
    """G1, G8: whatever the rule removes, the newest and the pinned are there, and whole."""
    scene = Scene(tmp)
    first = scene.process()
    pinned = first.save(scene.directory, step=1)
    first.pin(pinned, "paper")
    for step in (2, 3):
        first.save(scene.directory, step=step)

    def save(backend, acknowledge):
        store = scene.process(backend, retention=KeepLast(1))
        acknowledge(str(store.save(scene.directory, step=4).id))

    count = 0
    for death, end in deaths(scene.backend, save):
        count += 1
        there = steps(scene.backend)
        assert 1 in there, f"{death}: the pinned one is gone"
        assert {3, 4} & set(there), f"{death}: {there}"
        assert not broken(scene.backend), f"{death}: {broken(scene.backend)}"
        assert set(end.acknowledged) <= {str(id) for id in committed(scene.backend)}, death
        scene.process().recover()
        newest = max(steps(scene.backend))
        scene.process().prune(KeepLast(1))
        scene.settle()
        assert steps(scene.backend) == [1, newest], f"{death}: {steps(scene.backend)}"
        scene.clear()
    return count


def a_prune_killed_anywhere(tmp: Path) -> int:
    """G1, G2, G8: what the rule keeps, what is pinned or damaged stays; the next one goes on."""
    scene = Scene(tmp)
    first = scene.process()
    saved = {step: first.save(scene.directory, step=step) for step in (1, 2, 3, 4, 5)}
    first.pin(saved[1], "paper")
    missing = layout.file_key(saved[2].id, "a.bin")
    del scene.backend.objects[missing]

    def prune(backend, acknowledge):
        acknowledge(str(len(scene.process(backend).prune(KeepLast(1)).remove)))

    count = 0
    for death, _ in deaths(scene.backend, prune):
        count += 1
        assert {1, 2, 5} <= set(steps(scene.backend)), f"{death}: {steps(scene.backend)}"
        assert broken(scene.backend) == [missing], f"{death}: {broken(scene.backend)}"
        scene.process().prune(KeepLast(1))
        assert steps(scene.backend) == [1, 2, 5], f"{death}: {steps(scene.backend)}"
        assert not leftovers(scene.backend), f"{death}: {leftovers(scene.backend)}"
    return count


def a_sweep_killed_anywhere(tmp: Path) -> int:
    """G1, G10: nothing committed goes, the next ends it, and the slow writer comes through."""
    scene = Scene(tmp)
    scene.process().save(scene.directory, step=1)
    attempt = slow_attempt(scene)
    beginning = [path.read_bytes() for path in sorted(scene.workspace.rglob("seal.json"))]

    def sweep(backend, acknowledge):
        acknowledge(" ".join(scene.process(backend).sweep(older_than=NOW)))

    count = 0
    for death, _ in deaths(scene.backend, sweep):
        count += 1
        assert steps(scene.backend) == [1], death
        assert not broken(scene.backend), death
        scene.process().sweep(older_than=NOW)
        assert not leftovers(scene.backend), f"{death}: {leftovers(scene.backend)}"
        assert layout.manifest_key(attempt) in scene.backend.objects, f"{death}: no tombstone"
    assert beginning == [path.read_bytes() for path in sorted(scene.workspace.rglob("seal.json"))]
    published = scene.settle()
    assert [checkpoint.step for checkpoint in published] == [2]
    assert published[0].id != attempt, "an id that was swept was committed"
    return count


def a_pin_killed_anywhere(tmp: Path) -> int:
    """G9: a pin that was acknowledged holds, and a dead one harms nothing."""
    scene = Scene(tmp)
    first = scene.process()
    old, _ = (first.save(scene.directory, step=step) for step in (1, 2))

    def pin(backend, acknowledge):
        scene.process(backend).pin(old, "paper")
        acknowledge("pinned")

    count = 0
    for death, end in deaths(scene.backend, pin):
        count += 1
        assert steps(scene.backend) == [1, 2], death
        scene.process().prune(KeepLast(1))
        there = [1, 2] if scene.process().pins() else [2]
        assert steps(scene.backend) == there, death
        assert not end.acknowledged or there == [1, 2], f"{death}: an acknowledged pin is lost"
        assert not broken(scene.backend), death
        scene.settle()
    return count


def a_recovery_killed_anywhere(tmp: Path, when: str, *, swept: bool = False) -> int:
    """
    G11, G12: a sealed draft comes back exactly once, under its own id unless sweep took that.

    Every call at which a save can die once it is sealed, times every call of the recovery.

    Parameters:
        when: whether the save dies before or after its call.
        swept: a sweep goes by in between.
    """
    scene = Scene(tmp)
    scene.process().save(scene.directory, step=1)
    beginning = dict(scene.backend.objects)
    count = at = 0
    while True:
        at += 1
        scene.backend.objects = dict(beginning)
        scene.clear()
        if not in_another_process(scene.backend, _save_2(scene), Death(at, when)).died:
            return count
        if list(scene.workspace.glob("*/manifest.json")):
            if swept:
                scene.process().sweep(older_than=NOW)
            count += _recover_killed_anywhere(tmp, scene, swept)


def _save_2(scene: Scene):
    def save(backend, acknowledge):
        acknowledge(str(scene.process(backend).save(scene.directory, step=2).id))

    return save


def _recover_killed_anywhere(tmp: Path, scene: Scene, swept: bool) -> int:
    (note,) = scene.workspace.glob("*/manifest.json")
    attempt = manifest.read_staged(note.read_bytes(), "checkpoint").id
    was_there = attempt in committed(scene.backend)
    kept = tmp / "kept"
    shutil.copytree(scene.workspace, kept)

    def recover(backend, acknowledge):
        acknowledge(" ".join(str(one.id) for one in scene.process(backend).recover()))

    count = 0
    for death, _ in deaths(scene.backend, recover):
        count += 1
        assert not broken(scene.backend), death
        scene.settle()
        assert steps(scene.backend) == [1, 2], f"{death}: {steps(scene.backend)}"
        if was_there or not swept:
            assert attempt in committed(scene.backend), f"{death}: it has another id"
        scene.clear()
        shutil.copytree(kept, scene.workspace)
    shutil.rmtree(kept)
    return count


def slow_attempt(scene: Scene) -> CheckpointId:
    """Leave the files of a save of step 2 that died before its commit; the id that it had."""

    def no_manifest(verb: str, key: str, call: Callable):
        if verb == "create":
            raise StorageError("no manifest today")
        return call()

    def save(backend, acknowledge):
        with pytest.raises(StorageError):
            scene.process(HookedBackend(backend, no_manifest)).save(scene.directory, step=2)

    in_another_process(scene.backend, save)
    (note,) = scene.workspace.glob("*/manifest.json")
    return manifest.read_staged(note.read_bytes(), "checkpoint").id


def a_save_that_fails_anywhere(tmp: Path, kind: type[BaseException], when: str) -> int:
    """G1, G7, G11, G12: the same process goes on; every step is there once, in order."""
    at = 0
    while True:
        at += 1
        scene = Scene(tmp)
        scene.clear()
        failing = FaultBackend(scene.backend)
        store = scene.process(failing, retention=KeepLast(9))
        store.save(scene.directory, step=1)
        failing._plan = (Fault(at=len(failing.calls) + at, when=when, error=kind),)
        ended = _outcome(partial(store.save, scene.directory, step=2), kind)
        if len(failing.calls) < failing._plan[0].at:
            return at
        assert not broken(scene.backend), f"{when} call {at}: {broken(scene.backend)}"
        assert steps(scene.backend)[0] == 1, f"{when} call {at}"
        kept = list(scene.workspace.glob("*/seal.json"))
        there = ended or kept or 2 in steps(scene.backend)
        store.save(scene.directory, step=3)
        scene.settle()
        expected = [1, 2, 3] if there else [1, 3]
        assert steps(scene.backend) == expected, f"{when} call {at}: {steps(scene.backend)}"
        assert kind is KeyboardInterrupt or there, f"{when} call {at}: what was staged is lost"


def a_prune_that_fails_anywhere(tmp: Path, when: str) -> int:
    """G7, G8: a prune that failed harms nothing that stays, and the next one ends it."""
    at = 0
    while True:
        at += 1
        scene = Scene(tmp)
        store = scene.process()
        for step in (1, 2, 3):
            store.save(scene.directory, step=step)
        failing = FaultBackend(scene.backend, [Fault(at=at, when=when)])
        pruned = _outcome(partial(scene.process(failing).prune, KeepLast(1)), StorageError)
        assert 3 in steps(scene.backend), f"{when} call {at}"
        assert not broken(scene.backend), f"{when} call {at}: {broken(scene.backend)}"
        store.prune(KeepLast(1))
        scene.settle()
        assert steps(scene.backend) == [3], f"{when} call {at}: {steps(scene.backend)}"
        if pruned and len(failing.calls) < at:
            return at


def a_restore_that_fails_anywhere(tmp: Path, when: str) -> int:
    """G2, G7: the target is there whole or as it was, and nothing is left in the workspace."""
    at = 0
    while True:
        at += 1
        scene = Scene(tmp)
        scene.process().save(scene.directory, step=1)
        target = tmp / f"target{at}"
        failing = FaultBackend(scene.backend, [Fault(at=at, when=when)])
        got = _outcome(partial(scene.process(failing).download, to=target), StorageError)
        assert target.exists() == bool(got), f"{when} call {at}"
        assert not list(scene.workspace.glob("*")), f"{when} call {at}: left in the workspace"
        if got and len(failing.calls) < at:
            return at


def _outcome(call: Callable[[], object], kind: type[BaseException]) -> bool:
    """Whether it ended well; only this kind of error may come out of it."""
    with quiet():
        try:
            call()
        except kind:
            return False
        return True


# ------------------------------------------------------------- unknown commits


def a_lost_reply_makes_no_duplicate(tmp: Path) -> None:
    """G11: the commit took effect and the answer was an error: one checkpoint, and success."""
    scene = Scene(tmp)
    fault = Fault(at=1, when="after", verb="create")

    saved = scene.process(FaultBackend(scene.backend, [fault])).save(scene.file, step=1)

    assert list(committed(scene.backend)) == [saved.id]
    scene.settle()
    assert list(committed(scene.backend)) == [saved.id]


def an_answer_exists_about_our_own_record_is_success(tmp: Path) -> None:
    """G11: a client that repeats by itself meets what it made: one checkpoint, and success."""
    scene = Scene(tmp)

    def repeat(verb, key, call):
        if verb == "create":
            call()
        return call()

    saved = scene.process(HookedBackend(scene.backend, repeat)).save(scene.file, step=1)

    assert list(committed(scene.backend)) == [saved.id]


def a_tombstone_is_not_taken_for_success(tmp: Path) -> None:
    """G10: what a sweep put at our key is no commit: a new id, its files sent again, once."""
    scene = Scene(tmp)
    swept = []

    def sweep_before_the_commit(verb, key, call):
        if verb == "create" and not swept:
            swept.extend(scene.process(workspace=tmp / "sweeper").sweep(older_than=NOW))
        return call()

    store = scene.process(HookedBackend(scene.backend, sweep_before_the_commit))
    saved = store.save(scene.directory, step=1)

    assert swept, "the sweep found nothing to take"
    assert list(committed(scene.backend)) == [saved.id], "what was acknowledged is not there"
    assert not broken(scene.backend), broken(scene.backend)
    scene.settle()


def a_sweep_never_takes_what_commits_meanwhile(tmp: Path) -> None:
    """G10: a sweep at every call of a save, and at every call of a sweep another or a late save."""
    scene = Scene(tmp)
    scene.process().save(scene.file, step=1)
    slow_attempt(scene)
    beginning = dict(scene.backend.objects)
    kept = tmp / "kept"
    shutil.copytree(scene.workspace, kept)

    def save(on=None) -> CheckpointId:
        # A workspace of its own: the draft of the slow attempt is another process's.
        return scene.process(on, workspace=tmp / "saver").save(scene.directory, step=3).id

    def sweep(on=None) -> None:
        scene.process(on, workspace=tmp / "sweeper").sweep(older_than=NOW)

    def commit_late(on=None) -> None:
        scene.process(on).recover()

    for act, meanwhile, step in ((save, sweep, 3), (sweep, save, 3), (sweep, commit_late, 2)):
        at = over = 0
        while not over:
            at += 1
            scene.backend.objects = dict(beginning)
            scene.clear()
            shutil.copytree(kept, scene.workspace)
            beside = at_call(at, meanwhile)
            act(HookedBackend(scene.backend, beside))
            over = beside.keywords["count"][0] < at
            where = f"{meanwhile.__name__} at call {at} of {act.__name__}"
            assert over or step in steps(scene.backend), f"{where}: lost"
            assert not broken(scene.backend), f"{where}: {broken(scene.backend)}"


def at_call(at: int, act: Callable[[], object]) -> partial:
    """Stands beside calls, and acts before the one with this number."""

    def around(verb, key, call, *, count):
        count[0] += 1
        if count[0] == at:
            act()
        return call()

    return partial(around, count=[0])


# ------------------------------------------------------------- the fence


def a_superseded_writer_publishes_and_prunes_nothing(tmp: Path) -> None:
    """G13: once a newer session is there, nothing more goes in, and nothing out."""
    scene = Scene(tmp)
    old = scene.process()
    for step in (1, 2, 3):
        old.save(scene.file, step=step)
    newer = scene.process(workspace=tmp / "elsewhere").save(scene.file, step=1)
    before = dict(scene.backend.objects)

    with pytest.raises(SupersededError):
        old.save(scene.file, step=4)
    with pytest.raises(SupersededError):
        old.prune(KeepLast(1))

    assert scene.backend.objects == before
    assert scene.process().latest() == newer


def of_two_writers_in_one_session_one_goes_on(tmp: Path) -> None:
    """G13: both took the same number before either had committed; the lower name yields."""
    for first, second in (("a", "b"), ("b", "a")):
        scene = Scene(tmp)
        one = scene.process(name=first, workspace=tmp / f"{first}1")
        other = scene.process(name=second, workspace=tmp / f"{second}2")
        drafts = [(store, store.draft(step=step)) for store, step in ((one, 1), (other, 2))]
        for store, draft in drafts:
            shutil.copy(scene.file, draft.directory)
            store.seal(draft)
        for store, draft in drafts:
            with pytest.MonkeyPatch.context() as patch:  # both have looked, neither has committed
                patch.setattr("holdfast.publishing.Fence.check", lambda *_: None)
                store.publish(draft)
        sessions = [id.session for id in committed(scene.backend)]
        assert sessions == [1, 1], f"{sessions}: not the case to be tried"

        stopped = []
        for _ in range(2):
            for store in (one, other):
                if store not in stopped:
                    try:
                        store.save(scene.file, step=9)
                    except SupersededError:
                        stopped.append(store)

        assert stopped == [one if first == "a" else other], "the lower name yields, and only it"
        assert scene.process().latest().writer == "b"


# ------------------------------------------------------------- damage


def every_damage_is_noticed(tmp: Path, flips: int = 300) -> None:
    """G4, G6: a flipped bit, a byte too few or too many, a file that is gone or another's."""
    scene = Scene(tmp)
    store = scene.process()
    good = store.save(scene.directory, step=1)
    bad = store.save(scene.directory, step=2)
    beginning = dict(scene.backend.objects)
    numbers = random.Random(1)
    keys = [layout.file_key(bad.id, file.path) for file in bad.files]
    for _ in range(flips):
        key = numbers.choice(keys)
        _damage(scene, beginning, key, lambda data: _flip(data, numbers.randrange(len(data) * 8)))
        _assert_passed_over(scene, good, bad)
    for key in keys:
        other = beginning[layout.file_key(good.id, "a.bin")][0]
        for change in (
            lambda data: data[:-1],
            lambda data: data[1:],
            lambda data: b"",
            lambda data: data + b"\0",
            lambda data: bytes(len(data)),
            lambda data: data[::-1],
            lambda data, other=other: other + b"!",
            None,
        ):
            _damage(scene, beginning, key, change)
            _assert_passed_over(scene, good, bad)
    for key, (data, time) in beginning.items():
        if key.startswith(layout.FILES):
            scene.backend.objects[key] = (_flip(data, 0), time)
    with pytest.warns(CheckpointWarning), pytest.raises(CorruptionError, match="none of the 2"):
        scene.process().restore(Files(tmp / "restored"))
    assert not (tmp / "restored").exists()


def _damage(scene: Scene, beginning: dict, key: str, change: Callable | None) -> None:
    scene.backend.objects = dict(beginning)
    data, time = scene.backend.objects.pop(key)
    if change is not None:
        scene.backend.objects[key] = (change(data), time)


def _flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def _assert_passed_over(scene: Scene, good: Checkpoint, bad: Checkpoint) -> None:
    store = scene.process()
    target = scene.workspace.with_name("restored")
    with pytest.warns(CheckpointWarning, match="Passing over it"):
        assert store.restore(Files(target)) == good
    restored = {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert restored == {
        path.name: path.read_bytes() for path in scene.directory.rglob("*") if path.is_file()
    }
    with pytest.raises(CorruptionError):
        store.restore(Files(target), bad)
    assert not store.verify(deep=True).ok
    shutil.rmtree(target)


def every_flip_in_a_manifest_is_noticed(tmp: Path) -> int:
    """G21: whatever bit is flipped, the record is refused."""
    scene = Scene(tmp)
    saved = scene.process().save(scene.directory, step=1, metrics={"loss": 0.5})
    data = scene.backend.objects[layout.manifest_key(saved.id)][0]
    assert manifest.read(data, saved.id) == saved
    for bit in range(len(data) * 8):
        try:
            found = manifest.read(_flip(data, bit), saved.id)
        except FormatError:
            continue
        raise AssertionError(f"bit {bit} of {len(data)} bytes was not noticed: {found}")
    return len(data) * 8


def no_manifest_leads_elsewhere(tmp: Path) -> int:
    """G18, G21: a digest that fits does not make a hostile record readable."""
    scene = Scene(tmp)
    saved = scene.process().save(scene.directory, step=1)
    key = layout.manifest_key(saved.id)
    honest = record.decode(scene.backend.objects[key][0])
    canary = tmp / "canary"
    canary.write_bytes(b"untouched")
    bad = hostile(honest)
    for name, members in bad.items():
        data = record.encode(members) if isinstance(members, dict) else members
        scene.backend.objects[key] = (data, scene.backend.objects[key][1])
        try:
            found = manifest.read(data, saved.id)
        except FormatError:
            pass
        else:
            raise AssertionError(f"{name}: it was read as {found}")
        with pytest.raises(FormatError):
            scene.process().restore(Files(tmp / "restored"), str(saved.id))
        with pytest.raises(FormatError), quiet():
            scene.process().latest()
        with pytest.raises(FormatError), quiet():
            scene.process().download(to=tmp / "copy")
    assert canary.read_bytes() == b"untouched"
    assert sorted(path.name for path in tmp.iterdir()) == [
        "canary",
        "directory",
        "model.bin",
        "workspace",
    ]
    assert not list(scene.workspace.iterdir())
    return len(bad)


def hostile(honest: dict) -> dict[str, dict | bytes]:
    """Records with a digest that fits, or bytes, each of which must not be read."""
    bad: dict[str, dict | bytes] = {}

    def but(name: str, **changes: object) -> None:
        bad[name] = {**honest, **changes}

    file = honest["files"][0]
    for path in HOSTILE_PATHS:
        but(f"path {path[:40]!r}", files=[{**file, "path": path}])
    for one, other in (
        ("a", "a"),
        ("a", "A"),
        ("a", "a/b"),
        ("a/b", "A/c"),
        ("a/b", "a/B"),
        ("a/b/c", "a/b"),
        ("weights", "WEIGHTS/x"),
    ):
        but(f"paths {one} {other}", files=[{**file, "path": one}, {**file, "path": other}])
    for size in (-1, 2**45 + 1, 2**53 - 1, 1.0, True, "1", None):
        but(f"size {size!r}", files=[{**file, "size": size}])
    for text in ("", "sha256:", "sha256:" + "G" * 64, "md5:" + "0" * 32, file["hash"].upper(), 1):
        but(f"hash {text!r}", files=[{**file, "hash": text}])
    for name, value in (
        ("files", {}),
        ("files", None),
        ("files", ["x"]),
        ("files", [[]]),
        ("files", [{}]),
        ("id", "0001-000000000001-00000000"),
        ("id", honest["id"][:-8] + "ABCDEF01"),
        ("id", None),
        ("session", 2),
        ("session", "1"),
        ("session", True),
        ("session", 1.0),
        ("step", 1.0),
        ("step", 2),
        ("step", None),
        ("kind", "draft"),
        ("kind", ["checkpoint"]),
        ("kind", None),
        ("created_at", "yesterday"),
        ("created_at", "2026-13-01T00:00:00Z"),
        ("created_at", "2026-01-01T00:00:00"),
        ("created_at", "2026-01-01T00:00:00+00:00"),
        ("created_at", 0),
        ("metrics", {"loss": "0.5"}),
        ("metrics", {"loss": True}),
        ("metrics", {"loss": None}),
        ("metrics", [["loss", 0.5]]),
        ("metadata", {"deep": {"x": 1}}),
        ("metadata", {"deep": [1]}),
        ("metadata", []),
        ("writer", None),
        ("parent", "../x"),
        ("parent", "0000-000000000001-00000000"),
        ("parent", 5),
        ("holdfast", 1),
        ("format", 0),
        ("format", -1),
        ("format", True),
        ("format", 1.0),
        ("format", "1"),
        ("format", None),
        ("format", 2),
    ):
        but(f"{name} {value!r}", **{name: value})
    for name in honest:
        if name != "digest":
            bad[f"without {name}"] = {key: honest[key] for key in honest if key != name}
    text = record.encode(honest).decode()
    head = text[: text.index(',\n  "digest"')]
    for name, changed in (
        ("a key twice", head + ',\n  "step": 1'),
        ("a key twice below", head.replace('"size":', '"size": 1, "size":', 1)),
        ("a second digest", head + ',\n  "digest": "sha256:0"'),
        ("NaN", head.replace('"metrics": {}', '"metrics": {"loss": NaN}')),
        ("Infinity", head.replace('"metrics": {}', '"metrics": {"loss": -Infinity}')),
        ("1e400", head.replace('"metrics": {}', '"metrics": {"loss": 1e400}')),
        ("2^53", head.replace('"metadata": {}', '"metadata": {"n": 9007199254740992}')),
        ("many digits", head.replace('"metadata": {}', f'"metadata": {{"n": {"9" * 100_000}}}')),
        ("a lone surrogate", head.replace('"metadata": {}', r'"metadata": {"s": "\ud800"}')),
        ("deep", head + ',\n  "x": ' + "[" * 100_000 + "]" * 100_000),
        ("deep objects", head + ',\n  "x": ' + '{"x":' * 50_000 + "1" + "}" * 50_000),
        ("a list", "[" + head[1:] + "]"),
        ("a comment", head + "\n// no"),
        ("a comma too many", head + ","),
        ("a byte order mark", "\ufeff" + head),
        ("too large", head + ',\n  "x": "' + "x" * record.MAX_BYTES + '"'),
    ):
        assert changed != head, name
        bad[name] = _sealed(changed.encode())
    bad["not UTF-8"] = _sealed(
        head.encode().replace(b'"metadata": {}', b'"metadata": {"a": "\xff"}')
    )
    bad["UTF-16"] = _sealed(head.encode("utf-16"))
    bad["nothing"] = b""
    bad["only a digest"] = _sealed(b"")
    bad["no digest"] = (head + "\n}\n").encode()
    bad["cut short"] = record.encode(honest)[:-1]
    bad["with a newline more"] = record.encode(honest) + b"\n"
    return bad


HOSTILE_PATHS = (
    "../x",
    "a/../../x",
    "..",
    ".",
    "./x",
    "a/./b",
    "/nowhere/x",
    "//server/share",
    "C:x",
    "C:/x",
    "c:\\x",
    "..\\x",
    "a\\b",
    "",
    "a//b",
    "a/",
    "/",
    "~",
    "~/x",
    "~partial",
    "-rf",
    "a/-rf",
    "con",
    "CON.h5",
    "a/nul.txt",
    "lpt1",
    "a.",
    "...",
    "a b",
    "a\0b",
    "a\nb",
    "a\x1b[31m",
    "\u202eevil",
    "\uff46",
    "ä",
    "a:b",
    "a*",
    "a?",
    "a|b",
    "$HOME",
    "%2e%2e/x",
    "a/" * 8 + "b",
    "x" * 129,
    "/".join(["x" * 100] * 6),
)


def _sealed(head: bytes) -> bytes:
    digest = hashlib.sha256(head).hexdigest()
    return head + f',\n  "digest": "sha256:{digest}"\n}}\n'.encode()


@contextlib.contextmanager
def told(match: str) -> Iterator[list[str]]:
    """What is warned of inside the block, of which something has to match."""
    with pytest.warns(CheckpointWarning) as warned:  # noqa: PT031
        texts: list[str] = []
        yield texts
        texts += [str(each.message) for each in warned]
    assert any(re.search(match, text) for text in texts), texts


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Whatever is warned of inside the block is another test's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        yield


# ------------------------------------------------------------- unknown is not absent


def a_failed_listing_is_no_empty_store(tmp: Path) -> None:
    """G5: a look that failed raises; it never says that there is nothing."""
    scene = Scene(tmp)
    scene.process().save(scene.file, step=1)
    for when in ("before", "after"):
        for look in (
            CheckpointStore.latest,
            CheckpointStore.checkpoints,
            len,
            lambda store: store.restore(Files(tmp / "restored")),
            lambda store: store.best("loss"),
            lambda store: store.find("latest"),
            lambda store: store[1],
        ):
            failing = FaultBackend(scene.backend, [Fault(at=1, when=when, verb="scan")])
            with pytest.raises(StorageError):
                look(scene.process(failing))


def a_newer_format_is_not_passed_over(tmp: Path) -> None:
    """G22: what a later version wrote stops this one everywhere, and nothing is changed."""
    scene = Scene(tmp)
    store = scene.process()
    for step in (1, 2, 3):
        store.save(scene.file, step=step)
    newer = CheckpointId(7, 1, "00000000")
    data = record.encode({"format": 2, "id": str(newer), "what": "something new"})
    scene.backend.create(layout.manifest_key(newer), data)
    orphan = layout.file_key(CheckpointId(1, 9, "00000000"), "a.bin")
    scene.backend.create(orphan, b"left over")
    mark = layout.doomed_key(CheckpointId(1, 9, "00000000"), "00000000")
    scene.backend.create(mark, b"")
    before = dict(scene.backend.objects)

    for call in (
        CheckpointStore.latest,
        CheckpointStore.checkpoints,
        lambda store: store.restore(Files(tmp / "restored")),
        lambda store: store.prune(KeepLast(1)),
        lambda store: store.sweep(older_than=NOW),
        lambda store: store.save(scene.file, step=4),
        lambda store: store.verify(),
        lambda store: store.find(str(newer)),
    ):
        with pytest.raises(FormatError, match="Upgrade") as caught:
            call(scene.process())
        assert caught.value.newer
    assert scene.backend.objects == before
    assert not (tmp / "restored").exists()
    assert len(list(scene.workspace.glob("*/seal.json"))) == 1, "the draft of step 4 is kept"


def a_removal_is_no_emptiness(tmp: Path) -> None:
    """G5, G6, R25: when what was listed is pruned away, the newer one is found."""
    scene = Scene(tmp)
    oldest = scene.process().save(scene.file, step=0)
    scene.process().pin(oldest, "paper")
    scene.process().save(scene.file, step=1)
    beginning = dict(scene.backend.objects)
    for look in (
        lambda store: store.restore(Files(tmp / "restored")),
        lambda store: [store.download(to=tmp / "copy"), store.latest()][1],
        CheckpointStore.latest,
    ):
        for at in range(1, 8):
            scene.backend.objects = dict(beginning)

            def replace() -> None:
                newer = scene.process(workspace=tmp / "newer")
                newer.save(scene.file, step=2)
                newer.prune(KeepLast(1))
                newer.sweep(older_than=NOW)

            around = at_call(at, replace)
            found = look(scene.process(HookedBackend(scene.backend, around)))
            shutil.rmtree(tmp / "copy", ignore_errors=True)
            assert found.step in (1, 2), at
            if around.keywords["count"][0] >= at:
                assert steps(scene.backend) == [0, 2], at


# ------------------------------------------------------------- pins, prune, sweep


def a_pin_on_what_was_swept_is_refused(tmp: Path) -> None:
    """G9: a tombstone at the checkpoint's key is no checkpoint."""
    scene = Scene(tmp)
    store = scene.process()
    old, _ = (store.save(scene.file, step=step) for step in (1, 2))

    def remove() -> None:
        killed = FaultBackend(scene.backend, [Fault(at=2, verb="delete")])
        with contextlib.suppress(StorageError):
            scene.process(killed).prune(KeepLast(1))
        scene.process().sweep(older_than=NOW)

    for at in (1, 2, 3, 4):
        beginning = dict(scene.backend.objects)
        pinning = scene.process(HookedBackend(scene.backend, at_call(at, remove)))
        try:
            pinning.pin(old, "paper")
        except NotFoundError:
            assert old.id not in committed(scene.backend), at
        else:
            assert old.id in committed(scene.backend), f"pinned at call {at}, and gone"
        scene.backend.objects = beginning


def files_of_others_stay(tmp: Path) -> None:
    """What is not named as we name things is neither followed nor removed."""
    scene = Scene(tmp)
    store = scene.process()
    for step in (1, 2, 3):
        store.save(scene.directory, step=step)
    foreign = {
        "notes.txt",
        "README",
        "data/train.csv",
        "manifests/notes.txt",
        "manifests/0001.json",
        "manifests/0001-000000000001-0000000g.json",
        "manifests/0001-000000000001-00000000.json.bak",
        "manifests/1-000000000001-00000000.json",
        "manifests/00001-000000000001-00000000.json",
        "manifests/0000-000000000001-00000000.json",
        "manifests/sub/0001-000000000001-00000000.json",
        "files/notes.txt",
        "files/mine/model.h5",
        "files/0001-000000000001-0000000G/x",
        "files/1-1-1/x",
        "pins/notes.txt",
        "pins/paper/notes.txt",
        "pins/paper/deeper/0001-000000000001-00000000",
        "doomed/notes.txt",
        "doomed/paper.00000000",
        "filesystem/x",
    }
    for key in foreign:
        scene.backend.create(key, key.encode())

    store.prune(KeepLast(1))
    store.sweep(older_than=NOW)
    store.sweep(older_than=NOW)
    store.recover()

    there = {key: data for key, (data, _) in scene.backend.objects.items() if key in foreign}
    assert there == {key: key.encode() for key in foreign}
    assert steps(scene.backend) == [3]
    assert store.pins() == {}
    assert [checkpoint.step for checkpoint in store] == [3]


# ------------------------------------------------------------- the workspace


def a_workspace_holds_what_is_of_others(tmp: Path) -> None:
    """What is in a workspace and was not made by this store is left alone."""
    scene = Scene(tmp)
    others = ("results", "0123456789abcdef", "0123456789abcdef-0123456789abcdef", "deadbeef")
    for name in others:
        (scene.workspace / name / "files").mkdir(parents=True)
        (scene.workspace / name / "files" / "thesis.tex").write_text("years of work")
    (scene.workspace / "0123456789abcde0").write_text("a file")
    scene.workspace.chmod(0o755)

    store = scene.process()
    store.save(scene.file, step=1)
    store.recover()

    for name in others:
        thesis = scene.workspace / name / "files" / "thesis.tex"
        assert thesis.exists(), f"{name} was removed"
        assert thesis.read_text() == "years of work"
    assert (scene.workspace / "0123456789abcde0").read_text() == "a file"
    assert len(list(scene.workspace.iterdir())) == len(others) + 1


def drafts_of_another_place_stay_its_own(tmp: Path) -> None:
    """Two places may share a workspace; neither publishes what was staged for the other."""
    scene, other = Scene(tmp), Scene(tmp)
    failing = FaultBackend(scene.backend, [Fault(at=1, verb="create", lasting=True)])
    with pytest.raises(StorageError):
        scene.process(failing).save(scene.file, step=7)

    saved = other.process().save(other.file, step=1)

    assert list(committed(other.backend)) == [saved.id]
    assert [checkpoint.step for checkpoint in scene.process().recover()] == [7]


def a_draft_that_is_worked_on_is_nobody_elses(tmp: Path) -> None:
    """G12: what a live process stages is neither deleted nor published by another one."""
    scene = Scene(tmp)
    store = scene.process()
    begun, sealed = store.draft(step=1), store.draft(step=2)
    for draft in (begun, sealed):
        shutil.copy(scene.file, draft.directory)
    store.seal(sealed)

    def recover(backend, acknowledge):
        acknowledge(str(len(scene.process(backend).recover())))

    end = in_another_process(scene.backend, recover)

    assert end.acknowledged == ["0"]
    assert scene.process().recover() == []
    assert [store.publish(draft).step for draft in (begun, sealed)] == [1, 2]
