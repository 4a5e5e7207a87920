"""What a store holds: its listing, and each manifest, which never changes and is read once."""

import contextlib
import warnings
from collections.abc import Iterator

from holdfast import layout, manifest
from holdfast.backends.base import Backend
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import CheckpointWarning, FormatError, NotFoundError, StorageError
from holdfast.manifest import Tombstone
from holdfast.parallel import in_parallel

#: How often the newest may be removed between a listing and its read before that is an error.
_LOOKS = 10


class _NewestGoneError(Exception):
    """The newest of a listing was removed before it was read."""


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
            # A listing may lag behind; what this process committed or saw is looked for by name.
            known = list(self._known.items())
            mine = self._committed
            if not found and mine is None:
                mine = max((id for id, what in known if isinstance(what, Checkpoint)), default=None)
            if mine is not None and mine not in found and self._is_there(mine):
                found.add(mine)
            self._known = {id: what for id, what in known if id in found}
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
        known = self._known.get(checkpoint)
        if known is None:
            known = self._known[checkpoint] = self.read_again(checkpoint)
        return known

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
        return self._newest_first(whole=False)

    def _newest_first(self, *, whole: bool) -> Iterator[Checkpoint]:
        for _ in range(_LOOKS):
            with contextlib.suppress(_NewestGoneError):
                yield from self._listed(whole=whole)
                return
        raise StorageError(
            f"{self._backend.url} changes faster than it can be read: {_LOOKS} times what was "
            "listed as the newest checkpoint was gone when it was read. Nothing was changed. The "
            "call may be repeated; if this repeats, its listings lag behind."
        )

    def _listed(self, *, whole: bool) -> Iterator[Checkpoint]:
        unreadable: FormatError | None = None
        found = gone = False
        ids = self.ids()
        if whole:
            self._read_ahead(ids)
        for id in reversed(ids):
            new = id not in self._known
            try:
                what = self.read(id)
            except NotFoundError:
                gone = True
                continue
            except FormatError as error:
                if error.newer:
                    raise
                unreadable = unreadable or error
                _warn(id, error)
                continue
            if isinstance(what, Tombstone):
                gone = gone or new  # a sweep may have put it in the place of what was listed
                continue
            if gone and not found:
                break
            found = True
            yield what
        if gone and not found:
            raise _NewestGoneError
        if unreadable is not None and not found:
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
        return list(self._newest_first(whole=True))[::-1]

    def records(self) -> dict[CheckpointId, Checkpoint | Tombstone | FormatError]:
        """
        What lies at each manifest's key, in the order of training, with why it cannot be read.

        Raises:
            FormatError: a manifest is of a newer format.
            StorageError: the place failed; what is there is unknown.
        """
        found: dict[CheckpointId, Checkpoint | Tombstone | FormatError] = {}
        ids = self.ids()
        self._read_ahead(ids)
        for id in ids:
            try:
                found[id] = self.read(id)
            except NotFoundError:
                continue  # removed since the listing
            except FormatError as error:
                if error.newer:
                    raise
                found[id] = error
        return found

    def _read_ahead(self, ids: list[CheckpointId]) -> None:
        """Read what was not read yet, several at once where the place gains by it."""

        def read(id: CheckpointId) -> None:
            with contextlib.suppress(NotFoundError, FormatError):  # whoever asks for it is told
                self.read(id)

        at_once = self._backend.traits.parallel
        if at_once > 1:
            unread = [id for id in ids if id not in self._known]
            in_parallel(read, reversed(unread), at_once=at_once)

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
