"""The way back: verify what lies in the store, and bring it here with every byte hashed."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast import disk, hashing, layout, manifest
from holdfast.backends.base import Backend
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import CorruptionError, FormatError, NotFoundError, StorageFull
from holdfast.manifest import Tombstone
from holdfast.parallel import in_parallel
from holdfast.staging import Scratch, Workspace

#: How often a file is fetched before the difference is believed to lie in the store.
_TRIES = 3


@dataclass(frozen=True)
class Damage:
    """
    One file that is not as its manifest says.

    Attributes:
        checkpoint (CheckpointId): whose file.
        path (str): where it lies inside the checkpoint; the key of a manifest that is unreadable.
        what (str): missing, of another size, or of other content.
    """

    checkpoint: CheckpointId
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.checkpoint} {self.path}: {self.what}"


@dataclass(frozen=True)
class Report:
    """
    What a verification found.

    Attributes:
        checked (tuple[Checkpoint, ...]): what was looked at, in the order of training.
        damage (tuple[Damage, ...]): what is not as it should be.
        deep (bool): whether every byte was hashed; else presence and sizes only.
    """

    checked: tuple[Checkpoint, ...]
    damage: tuple[Damage, ...]
    deep: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage


def fetch(checkpoint: Checkpoint, backend: Backend, workspace: Workspace) -> Scratch:
    """
    Bring a checkpoint's files into a private directory, each byte hashed on arrival.

    Returns:
        Scratch: holds the files; the caller discards it.

    Raises:
        NotFoundError: the checkpoint was removed meanwhile.
        CorruptionError: a file is missing, or differs from the manifest after three tries.
        StorageFull: the workspace has no room for it.
        StorageError: the place or the workspace failed.
    """
    _check_sizes(checkpoint, backend)
    scratch = workspace.scratch()
    try:
        _check_room(checkpoint, scratch.directory)
        in_parallel(
            lambda file: _fetch_file(checkpoint, file, backend, scratch.directory / file.path),
            checkpoint.files,
            at_once=backend.traits.parallel,
        )
    except BaseException:
        scratch.discard()
        raise
    return scratch


def report(
    records: Mapping[CheckpointId, Checkpoint | Tombstone | FormatError],
    backend: Backend,
    workspace: Workspace | None,
) -> Report:
    """
    Compare what is stored with the manifests; what was removed meanwhile is not in the report.

    Parameters:
        records (Mapping): what lies at the manifests' keys; one that cannot be read is damage.
        backend (Backend): where they lie.
        workspace (Workspace | None): where to bring files to be hashed; None compares sizes only.
    """
    one = next(iter(records)) if len(records) == 1 else None
    sizes = _sizes_below(layout.files_prefix(one) if one else layout.FILES, backend)
    checked: list[Checkpoint] = []
    damage: list[Damage] = []
    for id, found in records.items():
        if isinstance(found, FormatError):
            damage.append(Damage(id, layout.manifest_key(id), str(found)))
        elif isinstance(found, Checkpoint):
            with contextlib.suppress(NotFoundError):
                wrong = list(_verify(found, sizes, backend, workspace))
                if wrong:
                    _check_not_removed(found, backend)
                checked.append(found)
                damage += wrong
    return Report(tuple(checked), tuple(damage), deep=workspace is not None)


def _verify(
    checkpoint: Checkpoint, sizes: dict[str, int], backend: Backend, workspace: Workspace | None
) -> Iterator[Damage]:
    """
    Every way in which a checkpoint's files differ from its manifest.

    Parameters:
        checkpoint (Checkpoint): what to look at.
        sizes (dict[str, int]): the sizes by key that a scan has shown.
        backend (Backend): where it lies.
        workspace (Workspace | None): where to bring files to be hashed; None compares sizes only.
    """
    for file in checkpoint.files:
        size = sizes.get(layout.file_key(checkpoint.id, file.path))
        if size is None:
            yield Damage(checkpoint.id, file.path, "missing")
        elif size != file.size:
            what = f"{size:,} bytes in the place of {file.size:,}"
            yield Damage(checkpoint.id, file.path, what)
        elif workspace is not None:
            scratch = workspace.scratch()
            try:
                _fetch_file(checkpoint, file, backend, scratch.directory / file.path)
            except CorruptionError:
                yield Damage(checkpoint.id, file.path, "other content")
            finally:
                scratch.discard()


def _sizes_below(prefix: str, backend: Backend) -> dict[str, int]:
    return {entry.key: entry.size for entry in backend.scan(prefix)}


def _check_sizes(checkpoint: Checkpoint, backend: Backend) -> None:
    sizes = _sizes_below(layout.files_prefix(checkpoint.id), backend)
    for damage in _verify(checkpoint, sizes, backend, workspace=None):
        _check_not_removed(checkpoint, backend)
        raise _corrupt(checkpoint, damage.path, damage.what)


def _check_not_removed(checkpoint: Checkpoint, backend: Backend) -> None:
    """
    Tell a checkpoint that is damaged from one that is being removed: that lost its manifest first.

    Raises:
        NotFoundError: it was removed.
    """
    data = backend.read(layout.manifest_key(checkpoint.id))
    with contextlib.suppress(FormatError):  # damaged too, but there
        if isinstance(manifest.read(data, checkpoint.id), Tombstone):
            raise NotFoundError(f"{checkpoint} was removed, and what was left of it was swept.")


def _check_room(checkpoint: Checkpoint, directory: Path) -> None:
    with disk.disk_errors("look for room in", directory):
        free = shutil.disk_usage(directory).free
    if free < checkpoint.size:
        raise StorageFull(
            f"{checkpoint} has {checkpoint.size:,} bytes and the workspace {directory} has room "
            f"for {free:,}. The store is untouched. Make room, or open the store with another "
            "`workspace`."
        )


def _fetch_file(checkpoint: Checkpoint, file: File, backend: Backend, target: Path) -> None:
    with disk.disk_errors("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        try:
            backend.download(layout.file_key(checkpoint.id, file.path), target)
        except NotFoundError as error:
            _check_not_removed(checkpoint, backend)
            raise _corrupt(checkpoint, file.path, "missing") from error
        with disk.disk_errors("read", target):
            found = hashing.hash_file(target)
            if found == file.hash:
                return
            target.unlink()
    raise _corrupt(checkpoint, file.path, f"its content has {found} in the place of {file.hash}")


def _corrupt(checkpoint: Checkpoint, path: str, what: str) -> CorruptionError:
    return CorruptionError(
        f"{checkpoint} is damaged in the store: {path}: {what}. Nothing was loaded, and every "
        "other checkpoint is untouched. Restore an older one; restore() without a checkpoint "
        "takes the newest good one by itself."
    )
