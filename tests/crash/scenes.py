"""Operations on a real store on disk, and the look at what a killed process left of it."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from holdfast import CheckpointStore, CheckpointWarning, Files, KeepLast, Saver, layout
from holdfast.backends.base import Backend
from holdfast.backends.local import LocalBackend
from holdfast.writer import Writer

RULE = KeepLast(2)
ANY_AGE = timedelta(0)


class Disk:
    """A store in a directory of this machine."""

    def backend(self, place: Path) -> Backend:
        """The place of the store, as a process that has just started opens it."""
        return LocalBackend(place / "store")

    def workspace(self, place: Path) -> Path:
        return place / "store" / ".workspace"

    def keep(self, template: Path) -> None:
        """Remember what lies in the store; here the directory itself is copied."""

    def put_back(self, place: Path) -> None:
        """Make the store what was remembered, and nothing else."""

    def objects(self, place: Path) -> dict[str, bytes]:
        """What really lies in the store, looked at behind its back."""
        root = place / "store"
        found = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
        return {
            str(key): path.read_bytes()
            for key, path in found.items()
            if key.parts[0] != ".workspace"
        }


@dataclass
class Scene:
    """
    One operation, and what has to hold after it died anywhere.

    Attributes:
        name: what it is called in the table of figures.
        steps: the steps that are committed before it.
        act: the operation, given the store's directory; runs in the child that is killed.
        may_add: the steps that it may have committed when it died.
        may_remove: the steps that it may have removed when it died.
        must_add: the steps that are there once the next start has healed the store.
        before: what else is done to the store beforehand.
        retention: whether the store prunes after a save.
        elsewhere: whether drafts are staged on another filesystem.
        medium: what the store lies on.
        more: how many files of several sizes the model has beside the usual two.
    """

    name: str
    steps: tuple[int, ...]
    act: Callable[["Scene", Path], object]
    may_add: tuple[int, ...] = ()
    may_remove: tuple[int, ...] = ()
    must_add: tuple[int, ...] = ()
    before: Callable[["Scene", Path], object] = lambda scene, place: None
    retention: bool = False
    elsewhere: Path | None = None
    medium: Disk = field(default_factory=Disk)
    more: int = 0
    template: Path = field(default=Path(), repr=False)

    def under(self, place: Path) -> list[Path]:
        """The directories whose calls count."""
        return [place, self.elsewhere] if self.elsewhere else [place]

    def open(self, place: Path) -> CheckpointStore:
        """A handle as another process would have it: a writer of its own."""
        return CheckpointStore(
            self.medium.backend(place),
            retention=RULE if self.retention else None,
            workspace=self.workspace(place),
            writer=Writer(),
        )

    def workspace(self, place: Path) -> Path:
        return self.elsewhere or self.medium.workspace(place)

    def write(self, place: Path, step: int) -> None:
        """What the training has at a step."""
        write_model(place / "model", step, self.more)

    def build(self, template: Path) -> None:
        """Make the store that every kill starts from."""
        self.template = template
        self.write(template, 0)
        store = self.open(template)
        store.retention = None
        for step in self.steps:
            self.write(template, step)
            store.save(template / "model", step=step)
        self.before(self, template)
        self.medium.keep(template)

    def prepare(self, place: Path) -> None:
        """Put a fresh copy of that store in place."""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.template, place)
        if self.elsewhere:
            shutil.rmtree(self.elsewhere, ignore_errors=True)
        self.medium.put_back(place)


def write_model(directory: Path, step: int, more: int = 0) -> None:
    """Two files, one in a directory of its own, with content that tells the step; and more."""
    (directory / "training").mkdir(parents=True, exist_ok=True)
    (directory / "model.bin").write_bytes(f"weights of step {step}\n".encode() * 50)
    (directory / "training" / "state.json").write_text(f'{{"step": {step}}}')
    for number in range(more):
        (directory / f"part-{number % 3}").mkdir(exist_ok=True)
        size = 7_919 * (step + number) % 70_000
        (directory / f"part-{number % 3}" / f"{number}.bin").write_bytes(bytes([number]) * size)


def judge(scene: Scene, place: Path) -> None:
    """
    Look at the store as the next process does, let it heal, and go on.

    Raises:
        AssertionError: a promise is broken.
    """
    store = scene.open(place)
    held = [checkpoint.step for checkpoint in store.checkpoints()]

    # What was acknowledged is there, unless the operation was to remove it; nothing partial is.
    lost = set(scene.steps) - set(held) - set(scene.may_remove)
    assert not lost, f"lost: {sorted(lost)}"
    strange = set(held) - set(scene.steps) - set(scene.may_add)
    assert not strange, f"appeared: {sorted(strange)}"
    assert len(held) == len(set(held)), f"twice: {held}"
    report = store.verify(deep=True)
    assert report.ok, [str(damage) for damage in report.damage]
    latest = store.latest()
    assert latest is not None
    assert latest.step in (max(scene.steps), *scene.may_add)

    # The next start heals: what was staged is published, what was left over goes.
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        store.recover()
        if scene.may_remove:
            store.prune(RULE)
        store.sweep(older_than=ANY_AGE)
    assert_nothing_left_over(scene, store, place)
    healed = [checkpoint.step for checkpoint in store]
    missing = set(scene.must_add) - set(healed)
    assert not missing, f"a sealed draft was lost: {sorted(missing)}"
    assert len(healed) == len(set(healed)), f"twice: {healed}"

    # And the run goes on from there.
    scene.write(place, 99)
    saved = store.save(place / "model", step=99)
    assert store.latest() == saved
    store.restore(Files(place / "restored"))
    assert (place / "restored" / "model.bin").read_bytes().startswith(b"weights of step 99\n")


def assert_nothing_left_over(scene: Scene, store: CheckpointStore, place: Path) -> None:
    """Every object in the store is a manifest, named by one, a pin on one, or the probe."""
    workspace = scene.workspace(place)
    leftover = sorted(workspace.iterdir()) if workspace.exists() else []
    assert not leftover, f"in the workspace: {[str(path) for path in leftover]}"
    found = scene.medium.objects(place)
    named = {
        f"files/{checkpoint.id}/{file.path}" for checkpoint in store for file in checkpoint.files
    }
    pins = {f"pins/{name}/{id}" for name, ids in store.pins().items() for id in ids}
    known = named | pins | {layout.PROBE}
    strange = {key for key in found.keys() - known if not key.startswith("manifests/")}
    assert not strange, f"left over: {sorted(strange)}"
    assert named <= found.keys()
    ids = {str(checkpoint.id) for checkpoint in store}
    for key, content in found.items():
        is_manifest = not key.startswith("manifests/") or Path(key).stem in ids
        assert is_manifest or b'"tombstone"' in content, f"left over: {key}"


# The operations.


def _save(scene: Scene, place: Path) -> None:
    scene.write(place, 40)
    scene.open(place).save(place / "model", step=40)


def _save_after_restore(scene: Scene, place: Path) -> None:
    store = scene.open(place)
    store.restore(Files(place / "model"))
    scene.write(place, 40)
    store.save(place / "model", step=40)
    scene.write(place, 50)
    store.save(place / "model", step=50)


def _save_many_files(scene: Scene, place: Path) -> None:
    shutil.rmtree(place / "model")
    for number in range(6):
        write_model(place / "model" / f"shard-{number}", 40)
    scene.write(place, 40)
    scene.open(place).save(place / "model", step=40)


def _save_in_the_background(scene: Scene, place: Path) -> None:
    with Saver(scene.open(place), max_pending=3) as saver:
        for step in (40, 50, 60):
            scene.write(place, step)
            saver.save(place / "model", step=step)


def _prune(scene: Scene, place: Path) -> None:
    scene.open(place).prune(RULE)


def _sweep(scene: Scene, place: Path) -> None:
    scene.open(place).sweep(older_than=ANY_AGE)


def _recover(scene: Scene, place: Path) -> None:
    scene.open(place).recover()


def _pin(scene: Scene, place: Path) -> None:
    store = scene.open(place)
    store.pin(store[10], "paper")
    store.unpin("paper")


def _restore(scene: Scene, place: Path) -> None:
    scene.open(place).restore(Files(place / "restored"))


def _leave_files(scene: Scene, place: Path) -> None:
    """The files of an attempt that was killed before its commit."""
    scene.write(place, 35)
    backend = scene.medium.backend(place)
    for id in ("0001-000000000035-00000001", "0001-000000000036-00000002"):
        for path in (path for path in (place / "model").rglob("*") if path.is_file()):
            backend.upload(path, f"files/{id}/{path.relative_to(place / 'model')}")


def _leave_draft(scene: Scene, place: Path) -> None:
    """A draft that an earlier process had sealed, and given up."""
    scene.write(place, 40)
    store = scene.open(place)
    draft = store.draft(step=40)
    shutil.copytree(place / "model", draft.directory, dirs_exist_ok=True)
    store.seal(draft)
    draft.release()


def scenes(elsewhere: Path) -> Iterator[Scene]:
    """
    Every operation that changes files.

    Parameters:
        elsewhere (Path): a directory outside the stores, best on another filesystem.
    """
    three = (10, 20, 30)
    yield Scene("save", three, _save, may_add=(40,))
    yield Scene("save, staged elsewhere", three, _save, may_add=(40,), elsewhere=elsewhere)
    yield Scene(
        "save and prune",
        three,
        _save,
        may_add=(40,),
        may_remove=(10, 20),
        retention=True,
    )
    yield Scene(
        "restore, save twice and prune",
        three,
        _save_after_restore,
        may_add=(40, 50),
        may_remove=(10, 20, 30),
        retention=True,
    )
    yield Scene("save many files", three, _save_many_files, may_add=(40,))
    yield Scene(
        "save in the background",
        three,
        _save_in_the_background,
        may_add=(40, 50, 60),
        may_remove=(10, 20, 30, 40),
        retention=True,
    )
    yield Scene("prune", (10, 20, 30, 40, 50), _prune, may_remove=(10, 20, 30))
    yield Scene("sweep", three, _sweep, before=_leave_files)
    yield Scene("recover", three, _recover, may_add=(40,), must_add=(40,), before=_leave_draft)
    yield Scene("pin and unpin", three, _pin)
    yield Scene("restore", three, _restore)
