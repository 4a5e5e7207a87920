"""A store with its workspace inside, a tree of somebody else's outside, and all that is done."""

import contextlib
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from click.testing import CliRunner

from holdfast import CheckpointStore, CheckpointWarning, Files, KeepLast, layout, manifest
from holdfast.backends.local import LocalBackend
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.cli import main
from holdfast.errors import CheckpointError
from holdfast.testing import Fault, FaultBackend, MemoryBackend
from holdfast.writer import Writer

#: What lies outside, and must not come to light inside.
SECRET = b"-----BEGIN SECRET-----\n" + b"what nobody inside may see\n" * 4
STEPS = (10, 20, 30)
#: A checkpoint that an attacker puts above all others.
HIGHEST = CheckpointId(7, 99, "bad0bad0")
ANY_AGE = timedelta(0)


class World:
    """
    Where everything lies.

    Attributes:
        inside (Path): the only place where anything may be read or written.
        outside (Path): somebody else's; parts of it look as if they were ours.
        store, target, temporary (Path): inside.
        workspace (Path): in the store.
        newest (str): the id of the newest checkpoint that was honestly saved.
        draft (Path): the directory of a sealed draft.
        memory (MemoryBackend | None): what the store lies in instead, once it is set.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.inside = place / "inside"
        self.outside = place / "outside"
        self.store = self.inside / "store"
        self.target = self.inside / "here" / "target"
        self.temporary = self.inside / "tmp"
        self.workspace = self.store / layout.WORKSPACE
        self.newest, self.draft = "", Path()
        self.memory: MemoryBackend | None = None

    def build(self) -> None:
        """Three checkpoints, a sealed draft that nobody works on, and the tree outside."""
        for directory in (self.target.parent, self.temporary, self.outside):
            directory.mkdir(parents=True)
        first = self.open()
        for step in STEPS:
            with first.stage(step=step) as draft:
                write(draft.directory, step)
        first.pin(first[10], "paper")
        dead = CheckpointStore(
            FaultBackend(LocalBackend(self.store), [Fault(at=1, verb="create")]),
            writer=Writer(),
        )
        draft = dead.draft(step=40)
        write(draft.directory, 40)
        dead.seal(draft)
        draft.release()
        self.newest, self.draft = str(first[30]), draft.root
        self._build_outside()

    def _build_outside(self) -> None:
        for name in ("secret", "deep/secret", "stolen/model.bin", "stolen/training/state.json"):
            (self.outside / name).parent.mkdir(parents=True, exist_ok=True)
            (self.outside / name).write_bytes(SECRET)
        (self.outside / "empty").mkdir()
        for part in ("files", "manifests", "pins"):
            shutil.copytree(self.store / part, self.outside / part)
        for path in (self.outside / "files").rglob("*.bin"):
            path.write_bytes(SECRET)
        (self.outside / "manifest.json").write_bytes(self.manifest(HIGHEST, {}))
        shutil.copytree(self.workspace, self.outside / "workspace")
        shutil.copytree(self.draft, self.outside / "draft")
        shutil.copytree(self.draft, self.outside / "unfinished")
        (self.outside / "unfinished" / "seal.json").unlink()

    def open(self) -> CheckpointStore:
        """The store as another process has it."""
        backend = self.memory or LocalBackend(self.store)
        return CheckpointStore(backend, workspace=self.workspace, writer=Writer())

    def manifest(self, id: CheckpointId, files: Mapping[str, bytes]) -> bytes:
        """A manifest with a fitting digest, as a reader would never get it from us."""
        listed = tuple(File(path, len(data), sha256(data)) for path, data in files.items())
        return manifest.write(Checkpoint(id, manifest.read_time("2026-11-21T00:00:00Z"), listed))


def write(directory: Path, step: int) -> None:
    """The files of a checkpoint; one has the size of the secret."""
    (directory / "training").mkdir(exist_ok=True)
    (directory / "model.bin").write_bytes(f"{step}".encode().ljust(len(SECRET)))
    (directory / "training" / "state.json").write_text(f'{{"step": {step}}}')


def sha256(data: bytes) -> str:
    """As a manifest has it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def command(*arguments: object) -> Callable[[World], object]:
    """The command line tool; `STORE` stands for the store, and `LAST` for the newest checkpoint."""

    def run(world: World) -> object:
        stands = {"STORE": str(world.store), "LAST": world.newest, "TO": str(world.target)}
        given = [stands.get(str(each), str(each)) for each in arguments]
        result = CliRunner().invoke(main, given)
        assert result.exit_code in (0, *range(2, 11)), result.output
        return result.output

    return run


def save(world: World) -> object:
    """A new checkpoint, of files as a framework writes them."""
    with world.open().stage(step=50) as draft:
        write(draft.directory, 50)
    return draft.checkpoint


OPERATIONS: dict[str, Callable[[World], object]] = {
    "preflight": lambda world: world.open().preflight(),
    "latest": lambda world: world.open().latest(),
    "list": lambda world: world.open().checkpoints(),
    "find": lambda world: world.open().find("paper"),
    "verify": lambda world: world.open().verify(deep=True),
    "restore": lambda world: world.open().restore(Files(world.target)),
    "restore what was planted": lambda world: world.open().restore(
        Files(world.target), str(HIGHEST)
    ),
    "restore the spoiled": lambda world: world.open().restore(Files(world.target), world.newest),
    "download": lambda world: world.open().download(to=world.target),
    "download what was planted": lambda world: world.open().download(str(HIGHEST), to=world.target),
    "pin": lambda world: world.open().pin(world.newest, "kept"),
    "unpin": lambda world: world.open().unpin("paper"),
    "prune": lambda world: world.open().prune(KeepLast(1)),
    "remove": lambda world: world.open().remove(world.newest),
    "sweep": lambda world: world.open().sweep(older_than=ANY_AGE),
    "recover": lambda world: world.open().recover(),
    "save": save,
    "ls": command("ls", "STORE"),
    "show": command("show", "STORE", "LAST"),
    "verify --deep": command("verify", "STORE", "--deep"),
    "pull": command("pull", "STORE", "LAST", "TO"),
    "pull the newest": command("pull", "STORE"),
    "prune --yes": command("prune", "STORE", "--keep-last", "1", "--yes"),
    "sweep --older-than": command("sweep", "STORE", "--older-than", "0s"),
    "doctor": command("doctor", "STORE"),
}


def perform(operation: Callable[[World], object], world: World) -> str:
    """Do it as a process would; what it gave or said, and anything but an error of ours goes on."""
    os.chdir(world.target.parent)
    os.environ["TMPDIR"] = str(world.temporary)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", CheckpointWarning)
        try:
            answer = repr(operation(world))
        except CheckpointError as error:
            answer = f"{type(error).__name__}: {error}"
    return "\n".join([answer, *(str(each.message) for each in told)])


def leaked(world: World, planted: frozenset[Path]) -> list[str]:
    """The files inside in which the secret has come to light; what was planted is no news."""
    found = []
    for path in world.inside.rglob("*"):
        with contextlib.suppress(OSError):
            is_small = path.lstat().st_size < 1 << 20
            if path.is_file() and not path.is_symlink() and is_small and path not in planted:
                found += [str(path)] * (SECRET[:20] in path.read_bytes())
    return found
