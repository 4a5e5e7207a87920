"""What a store holds: its listing, and each manifest, which never changes and is read once."""

import warnings
from collections.abc import Iterator

from holdfast import layout, manifest
from holdfast.backends.base import Backend
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import CheckpointWarning, FormatError, NotFoundError
from holdfast.manifest import Tombstone


class Catalog:
    """
    The manifests of one store.

    Parameters:
        backend (Backend): where they lie.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[CheckpointId, Checkpoint | Tombstone] = {}
        self._committed: CheckpointId | None = None

    def ids(self, after: str = "") -> list[CheckpointId]:
        """
        The ids that have a manifest or a tombstone, in the order of training.

        Parameters:
            after (str): look only at keys that sort after this one.

        Raises:
            StorageError: the listing failed; what is there is unknown.
        """
        keys = (entry.key for entry in self._backend.scan(layout.MANIFESTS, after))
        found = {id for key in keys if (id := layout.parse_manifest_key(key))}
        if not after:
            # A listing may lag behind; that this process committed is certain.
            mine = self._committed
            if mine is not None and mine not in found and self._is_there(mine):
                found.add(mine)
            self._known = {id: known for id, known in self._known.items() if id in found}
        return sorted(found)

    def add(self, checkpoint: Checkpoint) -> None:
        """Note a checkpoint that this process has just committed."""
        self._known[checkpoint.id] = checkpoint
        self._committed = max(checkpoint.id, self._committed or checkpoint.id)

    def forget(self, checkpoint: CheckpointId) -> None:
        """Note that a checkpoint was removed."""
        self._known.pop(checkpoint, None)

    def read(self, checkpoint: CheckpointId) -> Checkpoint | Tombstone:
        """
        What lies at a manifest's key, read if it was not read before.

        Raises:
            NotFoundError: nothing lies there.
            FormatError: it cannot be read.
            StorageError: the place failed.
        """
        if checkpoint not in self._known:
            self._known[checkpoint] = self.read_again(checkpoint)
        return self._known[checkpoint]

    def read_again(self, checkpoint: CheckpointId) -> Checkpoint | Tombstone:
        """As `read`, but what lies there now; a checkpoint may have been removed."""
        data = self._backend.read(layout.manifest_key(checkpoint))
        return manifest.read(data, checkpoint)

    def newest_first(self) -> Iterator[Checkpoint]:
        """
        The checkpoints from the newest down, each read only when it is asked for.

        A manifest that cannot be read is passed over with a warning.

        Raises:
            FormatError: a manifest is of a newer format, or there are manifests and none is
                readable.
            StorageError: the place failed; what is there is unknown.
        """
        unreadable: FormatError | None = None
        found = vanished = False
        for id in reversed(self.ids()):
            try:
                what = self.read(id)
            except NotFoundError:
                vanished = True  # removed since the listing
                continue
            except FormatError as error:
                if error.newer:
                    raise
                unreadable = unreadable or error
                _warn(id, error)
                continue
            if isinstance(what, Checkpoint):
                found = True
                yield what
        if vanished and not found:
            yield from self.newest_first()  # what is there now was made after that listing
        elif unreadable is not None and not found:
            raise FormatError(
                f"{self._backend.url} holds manifests, and none of them can be read. Nothing was "
                "changed. This is no empty store: do not start afresh in it. Compare the files in "
                f"{layout.FILES} with a copy, or point at the right place."
            ) from unreadable

    def checkpoints(self) -> list[Checkpoint]:
        """
        All checkpoints in the order of training.

        Raises:
            FormatError, StorageError: as `newest_first`.
        """
        return list(self.newest_first())[::-1]

    def _is_there(self, checkpoint: CheckpointId) -> bool:
        try:
            self.read_again(checkpoint)
        except NotFoundError:
            self._committed = None
            return False
        return True


def _warn(checkpoint: CheckpointId, error: FormatError) -> None:
    warnings.warn(
        f"the manifest of {checkpoint} is passed over: {error}. Its files are left alone.",
        CheckpointWarning,
        stacklevel=2,
    )
