"""
Hostile names wherever a name can come from: a manifest, any key of a store, and whoever calls.

None of them may lead anywhere, or be taken for a name of ours; what is good stays to be had.
"""

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from holdfast import Files, layout, record
from holdfast.errors import CheckpointWarning, InvalidInputError, NotFoundError
from holdfast.testing import MemoryBackend
from tests.crash.points import memory
from tests.hostile import names
from tests.hostile.watched import Canary
from tests.hostile.worlds import HIGHEST, OPERATIONS, World, perform

#: Content of what was planted.
_DATA = b"planted"
#: Where a name can be planted. `NEWEST` stands for the newest checkpoint's id.
_KEYS = (
    "{}",
    "manifests/{}",
    "manifests/{}.json",
    "files/{}",
    "files/NEWEST/{}",
    "pins/{}/NEWEST",
    "pins/paper/{}",
    "doomed/{}",
    "doomed/{}.00000000",
    ".probe/{}",
)
#: What is done with all that in the store, one after another.
_PRINTING = ("ls", "show", "verify --deep", "pull the newest")
_IN_MEMORY = (
    *("latest", "list", "find", "verify", "restore", "download", "prune", "sweep", "recover"),
    *("pin", "unpin", "save"),
)
_ON_DISK = (*_PRINTING, *_IN_MEMORY)


def stage(world: World, name: str) -> None:
    """A framework that writes a file of this name, if there can be one in a directory."""
    with world.open().stage(step=60) as draft:
        if not put(draft.directory, name):
            raise NotFoundError("there can be no such file")


def put(directory: Path, name: str) -> bool:
    """Make a file of this name in a directory, if there can be one."""
    path = directory / name
    with contextlib.suppress(OSError, ValueError):  # too long; a zero byte
        if not {"", ".", ".."} & {*name.split("/")}:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_DATA)
            return True
    return False


#: What a caller may do with a name; each has to be refused.
GIVEN: dict[str, Callable[[World, str], object]] = {
    "pin": lambda world, name: world.open().pin(world.newest, name),
    "unpin": lambda world, name: world.open().unpin(name),
    "find": lambda world, name: world.open().find(name),
    "restore": lambda world, name: world.open().restore(Files(world.target), name),
    "download": lambda world, name: world.open().download(name, to=world.target),
    "verify": lambda world, name: world.open().verify(name, deep=True),
    "remove": lambda world, name: world.open().remove(name),
}


def plant(world: World, name: str) -> Mapping[str, bytes]:
    """Put a name everywhere in a store, and into a manifest with a fitting digest."""
    keys = {key.replace("NEWEST", world.newest).replace("{}", name): _DATA for key in _KEYS}
    members = record.decode(world.manifest(HIGHEST, {"model.bin": _DATA}))
    members["files"][0]["path"] = name
    keys[layout.manifest_key(HIGHEST)] = _DATA
    with contextlib.suppress(UnicodeEncodeError):  # no JSON can have it
        keys[layout.manifest_key(HIGHEST)] = record.encode(members)
        keys[f"files/{HIGHEST}/{name}"] = _DATA
    if world.memory is None:
        keys = {key: data for key, data in keys.items() if put(world.store, key)}
    for key, data in keys.items():
        if world.memory is None:
            (world.store / key).write_bytes(data)
        else:
            world.memory.objects.setdefault(key, (data, datetime.now(UTC)))
    return keys


def named(first: int = 1, every: int = 1) -> Iterator[str]:
    """Every hostile name, or each so many, in a store in memory and in one on a disk."""
    with memory() as place:
        world = World(place / "world")
        world.build()
        shutil.copytree(world.place, place / "template")
        objects = {
            str(path.relative_to(world.store)): path.read_bytes()
            for part in ("files", "manifests", "pins")
            for path in (world.store / part).rglob("*")
            if path.is_file()
        }
        for number, name in [*enumerate(names.hostile(), start=1)][first - 1 :: every]:
            for where in ("memory", "disk"):
                shutil.rmtree(world.place)
                shutil.copytree(place / "template", world.place)
                world.memory = MemoryBackend() if where == "memory" else None
                for key, data in objects.items() if world.memory else ():
                    world.memory.create(key, data)
                with Canary(world.outside) as canary:
                    try:
                        found = [*_judged(world, name), *canary.touched()]
                    except Exception as error:
                        found = [f"{type(error).__name__}: {error}"]
                yield f"name {number}, {name[:80]!r}, {where}: {found}" if found else ""


def _judged(world: World, name: str) -> Iterator[str]:
    """What a name has brought about that it must not."""
    yield from (f"{what} takes it" for what, act in GIVEN.items() if _takes(act, world, name))
    there = plant(world, name)
    if _takes(stage, world, name):
        yield "it is staged"
    for operation in _IN_MEMORY if world.memory else _ON_DISK:
        shutil.rmtree(world.target, ignore_errors=True)
        said = perform(OPERATIONS[operation], world)
        if operation in ("restore", "download", "pull the newest") and not _is_good(world):
            yield f"{operation} brings something else: {said}"
        if operation in _PRINTING and not said.replace("\n", "").isprintable():
            yield f"{operation} prints {said!r}"
    for key, data in there.items():
        may_go = layout.is_partial(key) or layout.is_left_by_probe(key)
        if not may_go and _lies_at(world, key) != data:
            yield f"{key!r} was changed or removed"


def _takes(act: Callable[[World, str], object], world: World, name: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        try:
            act(world, name)
        except (InvalidInputError, NotFoundError):
            return False
    return True


def _is_good(world: World) -> bool:
    """Whether what was honestly saved last lies at the target."""
    here = [world.target, world.target.parent / world.newest]
    found = [path for path in here if (path / "model.bin").exists()]
    return bool(found) and (found[0] / "model.bin").read_bytes().strip() in (b"30", b"40", b"50")


def _lies_at(world: World, key: str) -> bytes | None:
    if world.memory is not None:
        return world.memory.objects.get(key, (None,))[0]
    return (world.store / key).read_bytes() if (world.store / key).exists() else None
