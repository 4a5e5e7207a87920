"""
What a power cut may leave: of all that was not synced, any part.

An operation runs once, and the harness of the kills keeps each of its calls with what was written.
They are played again on a disk in memory that knows what is durable. After each call the power may
be cut, and then

- what was written into a file since its last sync is there, or is not, or half of it, or nothing
  of it, or zeros in its place;
- a name that came or went in a directory since that was synced did so, or did not, each for itself.

That is more than a filesystem with a journal loses, and what POSIX allows. A directory's name is
whole, or not there.
"""

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

from holdfast import layout, manifest
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import FormatError
from tests.crash import killer, scenes
from tests.crash.killer import Call
from tests.crash.points import memory

T = TypeVar("T")
#: How likely a change is to have been written, in turns.
_KEPT = (0.0, 0.5, 0.9, 1.0, 0.1, 0.5, 0.97)

#: The files of a disk, by path; a directory is None.
Tree = Mapping[str, bytes | None]


class Luck:
    """
    Decides what was still written before the power went.

    Parameters:
        draw (random.Random): draws.
        kept (float): how likely a change is to have been written.
    """

    def __init__(self, draw: random.Random, kept: float) -> None:
        self._draw = draw
        self._kept = kept

    def choose(self, before: Sequence[T], now: T) -> T:
        """What it was, at some time since the last sync, or what it is."""
        return now if not before or self._draw.random() < self._kept else self._draw.choice(before)


@dataclass(eq=False)
class _File:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    synced: bool = True

    def after_a_cut(self, luck: "Luck") -> bytes:
        if self.synced:
            return self.durable
        now = bytes(self.data)
        return luck.choose([self.durable, now[: len(now) // 2], bytes(len(now)), b""], now)


@dataclass(eq=False)
class _Folder:
    names: "dict[str, _File | _Folder]" = field(default_factory=dict)
    #: What each name that changed since the last sync meant before, from then on.
    before: "dict[str, list[_File | _Folder | None]]" = field(default_factory=dict)

    def name(self, name: str, node: "_File | _Folder | None") -> None:
        self.before.setdefault(name, []).append(self.names.get(name))
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node

    def after_a_cut(self, luck: "Luck") -> "Iterator[tuple[str, _File | _Folder]]":
        for name in sorted({*self.names, *self.before}):
            node = luck.choose(self.before.get(name, []), self.names.get(name))
            if node is not None:
                yield name, node


class Disk:
    """
    A disk with what lies on it, and what of that is durable.

    Parameters:
        root (Path): the directory that it begins as, all of it durable.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._top = _Folder()
        for path in sorted(root.rglob("*")):
            folder = self._folder(str(path.parent))
            assert folder is not None
            content = None if path.is_dir() else path.read_bytes()
            folder.names[path.name] = (
                _Folder() if content is None else _File(bytearray(content), content)
            )

    def play(self, call: Call) -> None:
        """Do what a call did; one that cannot have succeeded does nothing."""
        folder, name = self._folder(str(Path(call.path).parent)), Path(call.path).name
        node = self._at(call.path)
        match call.kind:
            case "sync":
                self._sync(node)
            case "open" if folder and node is None:
                folder.name(name, _File())
            case "open" if isinstance(node, _File) and call.empties and node.data:
                node.data, node.synced = bytearray(), False
            case "write" if isinstance(node, _File) and call.data is not None:
                node.data.extend(bytes(max(0, call.start - len(node.data))))
                node.data[call.start : call.start + len(call.data)] = call.data
                node.synced = False
            case "truncate" if isinstance(node, _File):
                size = call.size or 0
                node.data = node.data[:size] + bytes(max(0, size - len(node.data)))
                node.synced = False
            case "mkdir" if folder and node is None:
                folder.name(name, _Folder())
            case "unlink" if folder and isinstance(node, _File):
                folder.name(name, None)
            case "rmdir" if folder and isinstance(node, _Folder) and not node.names:
                folder.name(name, None)
            case "link" | "rename" if folder and call.source:
                self._name_anew(call, folder, name)

    def after_a_cut(self, luck: Luck) -> dict[str, bytes | None]:
        """What may lie there afterwards, by paths below the root."""
        found: dict[str, bytes | None] = {}

        def look(folder: _Folder, prefix: str) -> None:
            for name, node in folder.after_a_cut(luck):
                if isinstance(node, _Folder):
                    found[prefix + name] = None
                    look(node, f"{prefix}{name}/")
                else:
                    found[prefix + name] = node.after_a_cut(luck)

        look(self._top, "")
        return found

    def _sync(self, node: _File | _Folder | None) -> None:
        if isinstance(node, _File):
            node.durable, node.synced = bytes(node.data), True
        elif node is not None:
            node.before.clear()

    def _name_anew(self, call: Call, folder: _Folder, name: str) -> None:
        assert call.source
        source = self._at(call.source)
        taken = name in folder.names
        if source is None or (taken and (call.kind == "link" or call.name == "renameat2")):
            return
        folder.name(name, source)
        if call.kind == "rename":
            above = self._folder(str(Path(call.source).parent))
            assert above
            above.name(Path(call.source).name, None)

    def _at(self, path: str) -> _File | _Folder | None:
        if path == self._root:
            return self._top
        folder = self._folder(str(Path(path).parent))
        return folder.names.get(Path(path).name) if folder else None

    def _folder(self, path: str) -> _Folder | None:
        if path == self._root:
            return self._top
        if not path.startswith(self._root + "/"):
            return None
        node: _File | _Folder | None = self._top
        for part in path.removeprefix(self._root + "/").split("/"):
            node = node.names.get(part) if isinstance(node, _Folder) else None
        return node if isinstance(node, _Folder) else None


def recorded(scene: scenes.Scene, place: Path) -> tuple[Call, ...]:
    """The calls of an operation to which nothing is done."""
    scene.prepare(place)
    outcome = killer.run(lambda: scene.act(scene, place), under=scene.under(place), contents=True)
    assert outcome.exit_code == 0, outcome.error
    return outcome.calls


def states(
    disk: Disk, calls: Sequence[Call], each: int, draw: random.Random
) -> Iterator[tuple[int, dict[str, bytes | None]]]:
    """So many states after each number of calls; the same one may come again."""
    for made, call in enumerate((None, *calls)):
        if call is not None:
            disk.play(call)
        for number in range(each):
            yield made, disk.after_a_cut(Luck(draw, _KEPT[number % len(_KEPT)]))


def broken(tree: Tree, required: set[int], allowed: set[int]) -> str:
    """What is wrong with what a store shows after a cut, before anything is healed; or nothing."""
    shown: list[int] = []
    for path, data in tree.items():
        key = path.removeprefix("store/")
        id = layout.parse_manifest_key(key)
        if data is None or id is None:
            continue
        record = _read(data, id)
        if isinstance(record, Checkpoint):
            shown.append(record.step)
            if lacking := _lacking(tree, record):
                return f"{key} names {lacking}"
        elif record:
            return f"{key} is not whole: {record}"
    if missing := required - {*shown}:
        return f"lost: {sorted(missing)}"
    if strange := {*shown} - allowed:
        return f"appeared: {sorted(strange)}"
    return "" if len(shown) == len({*shown}) else f"twice: {shown}"


@cache
def _read(data: bytes, id: CheckpointId) -> Checkpoint | str:
    """A checkpoint, nothing for a tombstone, or why it cannot be read."""
    try:
        record = manifest.read(data, id)
    except FormatError as error:
        return str(error)
    return record if isinstance(record, Checkpoint) else ""


def _lacking(tree: Tree, checkpoint: Checkpoint) -> str:
    """The first of its files that is not there as it was; nothing where all are."""
    for file in checkpoint.files:
        content = tree.get(f"store/{layout.file_key(checkpoint.id, file.path)}")
        if content is None or _hash(content) != file.hash:
            return f"{file.path}, which {'is not there' if content is None else 'was changed'}"
    return ""


@cache
def _hash(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def put(tree: Tree, place: Path) -> None:
    """Make a directory what a cut left."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path, data in tree.items():  # directories come before what is in them
        if data is None:
            (place / path).mkdir()
        else:
            (place / path).write_bytes(data)


def cuts(
    scene: scenes.Scene,
    place: Path,
    *,
    each: int,
    heal: int,
    seed: int,
    drop: Callable[[Call], bool] = lambda call: False,
) -> Iterator[str]:
    """
    Cut the power after each call of an operation; of each state what was broken, or nothing.

    Parameters:
        scene (Scene): built.
        place (Path): where it is done.
        each (int): states after each call.
        heal (int): each so many of the states are put on a real disk, and judged as after a kill.
        seed (int): what is drawn follows from it.
        drop (Callable[[Call], bool]): calls that are left out, as a mutant would.
    """
    calls = [call for call in recorded(scene, place) if not drop(call)]
    scene.prepare(place)
    kept = {*scene.steps} - {*scene.may_remove}
    acknowledged = kept | ({*scene.may_add} - {*scene.may_remove})
    allowed = {*scene.steps, *scene.may_add}
    drawn = states(Disk(place), calls, each, random.Random(seed))
    for number, (made, tree) in enumerate(drawn, 1):
        what = broken(tree, acknowledged if made == len(calls) else kept, allowed)
        if not what and number % heal == 0:
            put(tree, place)
            try:
                scenes.judge(scene, place)
            except Exception as error:  # whatever is wrong here, the next start is not well
                what = f"{type(error).__name__}: {error}"
        last = calls[made - 1] if made else None
        where = f"{last.kind} {Path(last.path).name}" if last else "nothing"
        yield f"{scene.name}, seed {seed}, state {number}, after {where}: {what}" if what else ""


def everywhere(seed: int, count: int) -> Iterator[str]:
    """So many states of a disk after a power cut: of each operation in turns, with other models."""
    left = count
    while left > 0:
        with memory() as place:
            for scene in scenes.scenes(Path()):
                if scene.elsewhere is not None:
                    continue  # two disks, each with a cut of its own
                scene.more = seed % 8
                scene.build(place / scene.name / "template")
                run = place / scene.name / "run"
                for what in islice(cuts(scene, run, each=140, heal=400, seed=seed), left):
                    left -= 1
                    yield what
        seed += 1
