"""What an attacker plants in a store, in its workspace and at a target."""

import os
import shutil
import socket
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from holdfast import layout, record
from tests.hostile.worlds import HIGHEST, SECRET, World, sha256

Plant = Callable[[World], object]

#: More than a machine has memory; it takes no room on a disk.
_HUGE = 1 << 40
#: Where something can be put that is no file. `NEWEST` stands for the newest checkpoint's id.
_PLACES = (
    f"manifests/{HIGHEST}.json",
    "manifests/NEWEST.json",
    "files/NEWEST/model.bin",
    "pins/paper/NEWEST",
    "doomed/NEWEST.00000000",
    ".probe/write",
    "DRAFT/lock",
    "DRAFT/seal.json",
    "DRAFT/manifest.json",
)
#: Where a link can be put, and where to.
_LINKS = (
    *((name, name) for name in ("manifests", "files", "pins", "files/NEWEST")),
    *((name, "empty") for name in ("doomed", ".probe", "pins/paper", f"files/{HIGHEST}")),
    *((place, "secret") for place in _PLACES),
    *((place, "new") for place in _PLACES),
    ("manifests/NEWEST.json", "manifests/NEWEST.json"),
    (f"manifests/{HIGHEST}.json", "manifest.json"),
    ("manifests/~0123456789abcdef", "secret"),
    ("files/NEWEST/training", "deep"),
    ("files/NEWEST/~0123456789abcdef", "secret"),
    ("files/NEWEST/more", "deep"),
    ("files/more", "deep"),
    (".workspace", "workspace"),
    (".workspace", "empty"),
    (".workspace", "new"),
    ("DRAFT", "draft"),
    ("DRAFT", "unfinished"),
    (".workspace/0123456789abcdef", "unfinished"),
    ("DRAFT/seal.json", "draft/seal.json"),
    ("DRAFT/~seal", "secret"),
    ("DRAFT/~manifest", "secret"),
    ("DRAFT/manifest.json", "manifest.json"),
    ("TARGET", "empty"),
    ("TARGET", "deep"),
    ("TARGET", "secret"),
    ("TARGET", "new"),
    ("TARGET/model.bin", "secret"),
    ("TARGET/../NEWEST", "empty"),
    ("TARGET/../NEWEST", "new"),
)
#: Parts of a draft that can lead to the secret, and where to.
_STOLEN = (
    ("files", "stolen"),
    ("files/model.bin", "secret"),
    ("files/training", "stolen/training"),
    ("files/training/state.json", "secret"),
)


def place(world: World, name: str) -> Path:
    """Where something is planted."""
    named = {"TARGET": world.target, "DRAFT": world.draft}
    first, _, rest = name.replace("NEWEST", world.newest).partition("/")
    return named.get(first, world.store / first) / rest


def clear(path: Path) -> None:
    """Make room, whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def link(world: World, *, name: str, to: str) -> None:
    """A symbolic link that leads outside."""
    path, target = place(world, name), world.outside / to.replace("NEWEST", world.newest)
    clear(path)
    path.symlink_to(target)


def hard_link(world: World, *, name: str) -> None:
    """The secret itself, under a name inside."""
    path = place(world, name)
    clear(path)
    path.hardlink_to(world.outside / "secret")


def special(world: World, *, name: str, make: Callable[[Path], object]) -> None:
    """What is no file, or is one beyond all bounds."""
    path = place(world, name)
    clear(path)
    make(path)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    """One that gives zeros for ever, where one may make it."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is bounded
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def a_directory(path: Path) -> None:
    (path / "below").mkdir(parents=True)


def a_huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(_HUGE)


def stolen(world: World, *, name: str, to: str) -> None:
    """A draft whose seal fits to the secret, and whose files lead there."""
    root = world.draft
    seal = record.decode((root / "seal.json").read_bytes())
    seal["files"] = [
        {"path": file["path"], "size": len(SECRET), "hash": sha256(SECRET)}
        for file in seal["files"]
    ]
    (root / "seal.json").write_bytes(record.encode(seal))
    for file in seal["files"]:
        (root / "files" / file["path"]).write_bytes(SECRET)
    link(world, name=f"DRAFT/{name}", to=to)


def sealed_elsewhere(world: World, *, path: str) -> None:
    """A draft whose seal names a file outside of it."""
    root = world.draft
    seal = record.decode((root / "seal.json").read_bytes())
    seal["files"] = [{"path": path, "size": len(SECRET), "hash": sha256(SECRET)}]
    (root / "seal.json").write_bytes(record.encode(seal))


def committed(world: World, *, files: Mapping[str, bytes], size: int | None = None) -> None:
    """The newest of all checkpoints, of these files, as if they had this size."""
    members = record.decode(world.manifest(HIGHEST, {"model.bin": b""}))
    members["files"] = [
        {"path": path, "size": len(data) if size is None else size, "hash": sha256(data)}
        for path, data in files.items()
    ]
    (world.store / layout.manifest_key(HIGHEST)).write_bytes(record.encode(members))
    for path, data in files.items():
        (world.store / layout.file_key(HIGHEST, path)).parent.mkdir(parents=True, exist_ok=True)
        (world.store / layout.file_key(HIGHEST, path)).write_bytes(data)


def claims_little(world: World) -> None:
    """A file beyond all bounds, of which the manifest says that it has ten bytes."""
    committed(world, files={"model.bin": b"0123456789"})
    a_huge_file(world.store / layout.file_key(HIGHEST, "model.bin"))


def left_open(world: World) -> None:
    """A workspace that anybody may write to."""
    world.workspace.chmod(0o777)


def unfinished(world: World) -> None:
    """Work of a dead process, to be cleaned away, with a way out in it."""
    root = world.workspace / "0123456789abcdef"
    (root / "files").mkdir(parents=True)
    (root / "lock").touch()
    (root / "files" / "out").symlink_to(world.outside / "deep")


PLANTS: dict[str, Plant] = {
    **{f"{name} -> {to}": partial(link, name=name, to=to) for name, to in _LINKS},
    **{f"{name} is the secret": partial(hard_link, name=name) for name in _PLACES},
    **{
        f"{name} is {make.__name__.replace('_', ' ')}": partial(special, name=name, make=make)
        for name in (*_PLACES, "TARGET", "DRAFT")
        for make in (a_pipe, a_device, a_socket, a_directory, a_huge_file)
    },
    **{f"a stolen {name}": partial(stolen, name=name, to=to) for name, to in _STOLEN},
    **{
        f"sealed as {path}": partial(sealed_elsewhere, path=path)
        for path in ("../../../../../outside/secret", "/etc/hostname", "../lock", "..")
    },
    "a manifest of 32 TiB": partial(committed, files={"model.bin": b"x"}, size=2**45),
    "a file that claims to be small": claims_little,
    "a workspace for all": left_open,
    "unfinished work": unfinished,
}
