"""What a store holds: its listing, and each manifest, which never changes and is read once."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

from holdfast import layout, manifest, record
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
        self._large: set[CheckpointId] = set()  # as they were listed last
        self._committed: CheckpointId | None = None
        self._seen: CheckpointId | None = None  # the newest that was ever read or committed

    def ids(self, after: str = "") -> list[CheckpointId]:
        """
        The ids that have a manifest or a tombstone, in the order of training.

        Parameters:
            after (str): look only at keys that sort after this one.

        Raises:
            StorageError: the listing failed; what is there is unknown.
        """
        listed = self._backend.scan(layout.MANIFESTS, after)
        sizes = {id: each.size for each in listed if (id := layout.parse_manifest_key(each.key))}
        found = {*sizes}
        self._large -= found
        self._large |= {id for id, size in sizes.items() if size > record.MAX_BYTES}
        if not after:
            # A listing may lag behind; what this process committed or saw is looked for by name.
            known = list(self._known.items())
            mine = self._committed
            if mine is None and all(isinstance(self._known.get(id), Tombstone) for id in found):
                mine = self._seen
            if mine is not None and mine not in found:
                if self._is_there(mine):
                    found.add(mine)
                elif not found:
                    self._refuse_to_be_empty()
            self._known = {id: what for id, what in known if id in found}
        return sorted(found)

    @property
    def newest_session(self) -> int:
        """The highest session of what was read so far; 0 where that is nothing."""
        return max((id.session for id in self._known), default=0)

    def add(self, checkpoint: Checkpoint) -> None:
        """Note a checkpoint that this process has just committed."""
        self._known[checkpoint.id] = checkpoint
        self._committed = max(checkpoint.id, self._committed or checkpoint.id)
        self._seen = max(checkpoint.id, self._seen or checkpoint.id)

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
            if isinstance(known, Checkpoint):
                self._seen = max(checkpoint, self._seen or checkpoint)
        return known

    def read_again(self, checkpoint: CheckpointId) -> Checkpoint | Tombstone:
        """As `read`, but what lies there now; a checkpoint may have been removed."""
        if checkpoint in self._large:
            raise FormatError(f"the manifest of {checkpoint} is too large to be one, and not read")
        key = layout.manifest_key(checkpoint)
        data = self._backend.read(key)
        try:
            return manifest.read(data, checkpoint)
        except FormatError as error:
            # It may have been damaged on its way, which not every place has a checksum against.
            if error.newer or (again := self._backend.read(key)) == data:
                raise
        return manifest.read(again, checkpoint)

    def newest_first(
        self, wanted: Callable[[Checkpoint], bool] = lambda _: True
    ) -> Iterator[Checkpoint]:
        """
        The checkpoints from the newest down, each read only when it is asked for.

        A manifest that cannot be read is passed over with a warning. Where what was listed is gone
        before any was found, it is listed anew: another may have come before it went.

        Parameters:
            wanted (Callable[[Checkpoint], bool]): those for which it is false count as not there.

        Raises:
            FormatError: a manifest is of a newer format, or there are manifests and none is
                readable.
            StorageError: the place failed; what is there is unknown.
        """
        return self._newest_first(wanted, whole=False)

    def _newest_first(
        self, wanted: Callable[[Checkpoint], bool], *, whole: bool
    ) -> Iterator[Checkpoint]:
        for _ in range(_LOOKS):
            with contextlib.suppress(_NewestGoneError):
                yield from self._listed(wanted, whole=whole)
                return
        raise StorageError(
            f"{self._backend.url} changes faster than it can be read: {_LOOKS} times what was "
            "listed as the newest checkpoint was gone when it was read. Nothing was changed. The "
            "call may be repeated; if this repeats, its listings lag behind."
        )

    def _listed(self, wanted: Callable[[Checkpoint], bool], *, whole: bool) -> Iterator[Checkpoint]:
        unreadable: FormatError | None = None
        readable = found = gone = False
        ids = self.ids()
        if whole:
            self._read_ahead(ids)
        for id in reversed(ids):
            new = id not in self._known
            what = self._tried(id)
            if isinstance(what, FormatError):
                unreadable = unreadable or what
                _warn(id, what)
            elif not isinstance(what, Checkpoint):
                # Gone; a sweep may have put a tombstone in the place of what was listed.
                gone = gone or what is None or new
            else:
                readable = True
                if wanted(what):
                    if gone and not found:
                        break
                    found = True
                    yield what
        if gone and not found:
            raise _NewestGoneError
        if unreadable is not None and not readable:
            raise FormatError(
                f"{self._backend.url} holds manifests, and none of them can be read. Nothing was "
                "changed. This is no empty store: do not start afresh in it. Compare the files in "
                f"{layout.FILES} with a copy, or point at the right place."
            ) from unreadable
        if not readable:
            self._refuse_to_be_empty()

    def checkpoints(self) -> list[Checkpoint]:
        """
        All checkpoints in the order of training.

        Raises:
            FormatError, StorageError: as `newest_first`.
        """
        return list(self._newest_first(lambda _: True, whole=True))[::-1]

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
            what = self._tried(id)
            if what is not None:
                found[id] = what
        return found

    def _tried(self, checkpoint: CheckpointId) -> Checkpoint | Tombstone | FormatError | None:
        """What lies at a manifest's key, or why it cannot be read; None if it is gone."""
        try:
            return self.read(checkpoint)
        except NotFoundError:
            return None
        except FormatError as error:
            if error.newer:
                raise
            return error

    def _read_ahead(self, ids: list[CheckpointId]) -> None:
        """Read what was not read yet, several at once where the place gains by it."""

        def read(id: CheckpointId) -> None:
            with contextlib.suppress(NotFoundError, FormatError):  # whoever asks for it is told
                self.read(id)

        at_once = self._backend.traits.parallel
        if at_once > 1:
            unread = [id for id in ids if id not in self._known]
            in_parallel(read, reversed(unread), at_once=at_once)

    def _refuse_to_be_empty(self) -> None:
        """Where listings lag, one without a checkpoint is no proof that none is there."""
        if self._seen is not None and not self._backend.traits.fresh:
            raise StorageError(
                f"{self._backend.url} lists no checkpoint, {self._seen} was there, and its "
                "listings may lag behind: what is there now is unknown. Nothing was changed. "
                "Repeat the call later; if somebody has removed all of them, start this process "
                "again."
            )

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
