"""
Damage stored bytes in every way, and see that it is noticed and that nothing of it is handed out.

A case is one damage to one kind of thing: a file or a manifest in a store, the seal or the noted
manifest of a draft, or bytes on their way here. `play` has one case again, by its seed and number.
"""

import contextlib
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from holdfast import CheckpointStore, CheckpointWarning, CorruptionError, Files, FormatError, layout
from holdfast.backends.base import Backend
from holdfast.backends.local import LocalBackend
from holdfast.errors import StorageError
from holdfast.state import Contents
from holdfast.testing import Fault, FaultBackend, MemoryBackend
from holdfast.writer import Writer
from tests.crash.points import memory
from tests.damage.astray import astray
from tests.damage.ways import REARRANGED, Things, flip

STEPS = (10, 20, 30)
#: Of two drafts that a process left: one was sealed, the other one's commit was under way as well.
DRAFTS = (40, 50)
#: Each so many cases have files that are hashed in a thread of its own.
LARGE_EVERY = 25


# The stores.


def content(step: int, *, large: bool) -> dict[str, bytes]:
    """What a checkpoint holds: two files of one size, one in a directory, an empty one."""
    size = 1_100_000 if large else 700
    return {
        "a.bin": random.Random(f"a{step}").randbytes(size),
        "b.bin": random.Random(f"b{step}").randbytes(size),
        "empty": b"",
        "training/state.json": f'{{"step": {step}}}'.encode(),
    }


class Scene:
    """A store that holds three checkpoints, and two drafts that nobody works on."""

    def __init__(self, place: Path, *, local: bool, large: bool) -> None:
        self.place = place
        self.name = f"{'local' if local else 'memory'}{', large' if large else ''}"
        self.content = {step: content(step, large=large) for step in (*STEPS, *DRAFTS)}
        self.backend: Backend = LocalBackend(place / "store") if local else MemoryBackend()
        self._template = place / "template"
        first = self.open()
        self.ids = [str(self._save(first, step)) for step in STEPS]
        self.objects = self._objects()
        killed = FaultBackend(self.backend, [Fault(at=1, verb="create")])
        dead = self.open(killed, workspace=self._template)
        for step in DRAFTS:
            draft = dead.draft(step=step)
            self._write(draft.directory, step)
            dead.seal(draft)
            if step == DRAFTS[-1]:
                with contextlib.suppress(StorageError):
                    dead.publish(draft)
            draft.release()
        self.put_back()

    def open(self, backend: Backend | None = None, **given: Path) -> CheckpointStore:
        """The store as another process has it."""
        given = {"workspace": self.place / "workspace"} | given
        return CheckpointStore(backend or self.backend, writer=Writer(), **given)

    def put_back(self) -> None:
        """Make the store and the workspace what they were."""
        now = self._objects()
        for key in now.keys() | self.objects.keys():
            if now.get(key) != self.objects.get(key):
                self.put(key, self.objects.get(key))
        for left in ("workspace", "target"):
            shutil.rmtree(self.place / left, ignore_errors=True)

    def stage(self) -> Path:
        """Put the drafts into the workspace."""
        return Path(shutil.copytree(self._template, self.place / "workspace"))

    def put(self, key: str, data: bytes | None) -> None:
        """Change an object behind the verbs, or remove it."""
        if isinstance(self.backend, MemoryBackend):
            time = self.backend.objects.pop(key, (b"", None))[1]
            if data is not None:
                self.backend.objects[key] = (data, time)
            return
        path = self.place / "store" / key
        path.unlink(missing_ok=True)
        if data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _objects(self) -> dict[str, bytes]:
        if isinstance(self.backend, MemoryBackend):
            return {key: data for key, (data, _) in self.backend.objects.items()}
        root = self.place / "store"
        found = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in found}

    def _save(self, store: CheckpointStore, step: int) -> object:
        with store.stage(step=step) as draft:
            self._write(draft.directory, step)
        return draft.checkpoint

    def _write(self, directory: Path, step: int) -> None:
        for path, data in self.content[step].items():
            (directory / path).parent.mkdir(exist_ok=True)
            (directory / path).write_bytes(data)


# What may be asked of a store.

#: Gives the step that came and what came.
Take = Callable[[CheckpointStore, Path, str | None], tuple[int, Mapping[str, bytes]]]


def into_files(store: CheckpointStore, target: Path, id: str | None) -> tuple[int, Things]:
    """Restores a directory."""
    found = store.restore(Files(target), id)
    return found.step, below(target)


def downloaded(store: CheckpointStore, target: Path, id: str | None) -> tuple[int, Things]:
    """Downloads; the directory does not say which checkpoint it is of."""
    copy = below(store.download(id, to=target))
    return json.loads(copy["training/state.json"])["step"], copy


class Reading(Files):
    """A state that reads contents, in pieces, and takes them when all have come."""

    taken: Things | None = None

    def restore_from(self, contents: Contents) -> None:
        """Read the middle of the large files, so that there is something before and behind it."""
        read = {path: contents.read(path) for path in contents.paths() if "bin" not in path}
        for path in ("a.bin", "b.bin"):
            middle = bytearray(300)
            contents.read_into(path, [(100, memoryview(middle))])
            read[path] = bytes(middle)
        self.taken = read


def from_contents(store: CheckpointStore, target: Path, id: str | None) -> tuple[int, Things]:
    """Restores a state that reads contents."""
    state = Reading(target)
    found = store.restore(state, id)
    assert state.taken is not None
    return found.step, state.taken


TAKES: tuple[Take, ...] = (into_files, downloaded, from_contents)


def below(directory: Path) -> Things:
    """Every file below a directory."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def wanted(scene: Scene, step: int, take: Take) -> Things:
    """What a checkpoint gives to somebody who takes it so."""
    whole = scene.content[step]
    if take is from_contents:
        return {path: data[100:400] if "bin" in path else data for path, data in whole.items()}
    return whole


# What is judged. Each of these raises AssertionError.


def at_rest(scene: Scene, way: Callable[..., set[str]], rng: random.Random, prefix: str) -> None:
    """What lies in the store is damaged."""
    things = {key: data for key, data in scene.objects.items() if key.startswith(prefix)}
    changed = way(things, rng)
    for key in changed:
        scene.put(key, things[key])
    take = rng.choice(TAKES)
    bad = {damaged_id(key) for key in changed}
    error = CorruptionError if prefix == layout.FILES else FormatError

    report = quiet(lambda: scene.open().verify(deep=True))
    told = {(str(each.checkpoint), each.path) for each in report.damage}
    expected = {(damaged_id(key), damaged_path(key)) for key in changed}
    assert told == expected, f"told was {told}"

    for id in bad:
        with refused(error, scene):
            take(scene.open(), scene.place / "target", id)
    good = [id for id in scene.ids if id not in bad][-1]
    with warned(any(id > good for id in bad)):
        step, came = take(scene.open(), scene.place / "target", None)
    assert step == STEPS[scene.ids.index(good)], f"step {step} came"
    assert came == wanted(scene, step, take), "what came is not what was saved"


def on_the_way(scene: Scene, way: Callable[..., set[str]], rng: random.Random) -> None:
    """What comes from the store is not what lies there: once, or each time."""
    things = {key: data for key, data in scene.objects.items() if key.startswith(layout.FILES)}
    for_good = rng.random() < 0.5
    changed = way(things, rng)
    wrong = {key: things[key] for key in changed}
    take = rng.choice(TAKES)
    bad = {damaged_id(key) for key in changed if for_good}

    def opened() -> CheckpointStore:
        return scene.open(astray(scene.backend, wrong, for_good=for_good))

    for id in scene.ids:
        if id in bad:
            with refused(CorruptionError, scene):
                take(opened(), scene.place / "target", id)
    good = [id for id in scene.ids if id not in bad][-1]
    with warned(any(id > good for id in bad)):
        step, came = take(opened(), scene.place / "target", None)
    assert step == STEPS[scene.ids.index(good)], f"step {step} came"
    assert came == wanted(scene, step, take), "what came is not what was saved"


def in_the_workspace(scene: Scene, way: Callable[..., set[str]], rng: random.Random) -> None:
    """What a draft says of itself is damaged: its seal, or the manifest of its last attempt."""
    workspace = scene.stage()
    things = {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in sorted(workspace.glob("*/*.json"))
    }
    roots = {root.name: step_of(root) for root in workspace.iterdir()}
    changed = way(things, rng)
    for name in changed:
        (workspace / name).write_bytes(things[name])
    bad = {name.partition("/")[0] for name in changed}
    expected = sorted(step for root, step in roots.items() if root not in bad)

    with warned(expected=True):
        published = scene.open().recover()

    assert [each.step for each in published] == expected, f"published was {published}"
    for each in published:
        _, came = into_files(scene.open(), scene.place / "target", str(each))
        assert came == scene.content[each.step], f"step {each.step} has other content"
        shutil.rmtree(scene.place / "target")
    left = {path.name for path in workspace.iterdir()}
    assert left == bad, f"of the damaged {bad} are left {left}"
    for root in bad:
        assert below(workspace / root / "files") == scene.content[roots[root]], "its files are gone"
    held = {each.step for each in scene.open()}
    assert held == {*STEPS, *expected}, f"held are {held}"


def step_of(root: Path) -> int:
    """The step of the draft in a directory, by its files."""
    return json.loads((root / "files/training/state.json").read_text())["step"]


def damaged_id(key: str) -> str:
    """The id in the key of a file or of a manifest."""
    return key.split("/")[1].removesuffix(".json")


def damaged_path(key: str) -> str:
    """What a report calls it."""
    parsed = layout.parse_file_key(key)
    return parsed[1] if parsed else key


@contextlib.contextmanager
def refused(error: type[Exception], scene: Scene) -> Iterator[None]:
    """The block has to raise this, and to leave nothing."""
    try:
        yield
    except error:
        pass
    except Exception as other:
        raise AssertionError(f"{type(other).__name__}: {other}") from other
    else:
        raise AssertionError("what is damaged was handed out by its id")
    assert not (scene.place / "target").exists(), "part of what is damaged lies at the target"
    workspace = scene.place / "workspace"
    assert not (workspace.exists() and [*workspace.iterdir()]), "the workspace is not empty"


@contextlib.contextmanager
def warned(expected: bool) -> Iterator[None]:
    """The block has to warn, or must not."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    texts = [str(each.message) for each in told if each.category is CheckpointWarning]
    assert bool(texts) == expected, f"warned was {texts}"


def quiet(look: Callable[[], object]) -> object:
    """What it gives; its warnings are judged elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        return look()


# The cases.


@dataclass(frozen=True)
class Kind:
    """A kind of thing that can be damaged, and what judges one case of it."""

    name: str
    judge: Callable[[Scene, Callable[..., set[str]], random.Random], None]


KINDS = (
    Kind("file", partial(at_rest, prefix=layout.FILES)),
    Kind("manifest", partial(at_rest, prefix=layout.MANIFESTS)),
    Kind("seal", in_the_workspace),
    Kind("download", on_the_way),
)


def flips(seed: int, count: int) -> Iterator[str]:
    """Single bits, in each kind in turn."""
    yield from _played(seed, range(count), (flip,))


def rearrangements(seed: int, count: int) -> Iterator[str]:
    """Truncated, extended, swapped and replayed things of each kind in turn."""
    yield from _played(seed, range(count), REARRANGED)


def play(seed: int, case: int, *, flipping: bool) -> str:
    """One case again: of `flips`, or of `rearrangements`."""
    (found,) = _played(seed, range(case, case + 1), (flip,) if flipping else REARRANGED)
    return found


def _played(seed: int, cases: range, ways: tuple[Callable[..., set[str]], ...]) -> Iterator[str]:
    with memory() as place:
        scenes: dict[tuple[bool, bool], Scene] = {}
        for case in cases:
            rng = random.Random(f"{seed}-{case}-{len(ways)}")
            kind, way = KINDS[case % len(KINDS)], ways[case // len(KINDS) % len(ways)]
            wish = (rng.random() < 0.5, case % LARGE_EVERY == LARGE_EVERY - 1)
            if wish not in scenes:
                home = place / "-".join(map(str, wish))
                home.mkdir()
                scenes[wish] = Scene(home, local=wish[0], large=wish[1])
            scene = scenes[wish]
            try:
                kind.judge(scene, way, rng)
            except Exception as error:  # whatever is raised, it is not what was promised
                yield (
                    f"seed {seed}, case {case}: {kind.name}, {way.__name__}, {scene.name}: "
                    f"{type(error).__name__}: {error}"
                )
            else:
                yield ""
            scene.put_back()
