"""Local copies of a manager's checkpoints, since TensorFlow reads files of this machine."""

import contextlib
import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import overload

from holdfast import layout
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.staging import Scratch
from holdfast.store import CheckpointStore


class Copies:
    """
    Verified copies in the workspace.

    Parameters:
        reader (object): what reads them, perhaps later: variables that are built after a restore
            take their values then. The copies go when it goes.
        store (CheckpointStore): where the checkpoints lie.
        name (str): what their files are called, before `-` and the step.
    """

    def __init__(self, reader: object, store: CheckpointStore, name: str) -> None:
        self._store = store
        self._name = name
        self._held: dict[CheckpointId, Scratch] = {}
        self._damaged: set[CheckpointId] = set()
        weakref.finalize(reader, _discard, self._held)

    @contextlib.contextmanager
    def room(self) -> Iterator[Scratch]:
        """An empty directory for a copy, to be held; an exception removes it."""
        scratch = self._store.downloads.scratch()
        try:
            yield scratch
        except BaseException:
            scratch.discard()
            raise

    def hold(self, checkpoint: Checkpoint, scratch: Scratch) -> str:
        """Keep the copy of a checkpoint, if there is none yet, and give its prefix."""
        if self._held.setdefault(checkpoint.id, scratch) is not scratch:
            scratch.discard()
        return str(self._held[checkpoint.id].directory / f"{self._name}-{checkpoint.step}")

    def bring(self, checkpoint: Checkpoint) -> str:
        """
        The prefix of a checkpoint, which is brought here if it was not yet.

        Raises:
            NotFoundError, CorruptionError, StorageError: as `CheckpointStore.download`.
        """
        if checkpoint.id in self._held:
            return self.hold(checkpoint, self._held[checkpoint.id])
        with self.room() as scratch:
            self._store.download(checkpoint, to=scratch.directory)
        return self.hold(checkpoint, scratch)

    def bring_newest(self, history: Sequence[Checkpoint]) -> str:
        """
        The prefix of the newest good one of these; a damaged one is passed over with a warning.

        Raises:
            NotFoundError, CorruptionError, StorageError: as `CheckpointStore.download`.
        """
        good = [each for each in history if each.id not in self._damaged] or history
        if good[-1].id in self._held:
            return self.bring(good[-1])
        ids = {each.id for each in good}
        tried: list[CheckpointId] = []  # newest first; the last of them is the one that is taken

        def is_among(each: Checkpoint) -> bool:
            tried.append(each.id)
            return each.id in ids

        with self.room() as scratch:
            self._store.download(to=scratch.directory, where=is_among)
        *damaged, taken = tried
        self._damaged.update(damaged)
        return self.hold(next(each for each in good if each.id == taken), scratch)

    def where(self, checkpoint: Checkpoint) -> str:
        """Where a checkpoint's files lie in the store, and what they are called."""
        name = f"{self._name}-{checkpoint.step}"
        return f"{self._store.url}/{layout.file_key(checkpoint.id, name)}"

    def drop(self, ids: Collection[CheckpointId]) -> None:
        """Remove the copies of these, where there are some."""
        for id in ids:
            if id in self._held:
                self._held.pop(id).discard()

    def drop_all_but(self, history: Sequence[Checkpoint]) -> None:
        """Remove the copies of what is not among these."""
        self.drop(self._held.keys() - {each.id for each in history})


class Prefixes(Sequence[str]):
    """
    The prefixes of checkpoints; one is brought to this machine when it is asked for.

    Printed, it shows where they lie in the store, and brings none.

    Parameters:
        copies (Copies): brings them.
        history (Sequence[Checkpoint]): the checkpoints.
    """

    def __init__(self, copies: Copies, history: Sequence[Checkpoint]) -> None:
        self._copies = copies
        self._history = history

    def __len__(self) -> int:
        return len(self._history)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "Prefixes": ...

    def __getitem__(self, index: int | slice) -> "str | Prefixes":
        if isinstance(index, slice):
            return Prefixes(self._copies, self._history[index])
        return self._copies.bring(self._history[index])

    def __repr__(self) -> str:
        return repr([self._copies.where(each) for each in self._history])


def _discard(held: dict[CheckpointId, Scratch]) -> None:
    while held:
        held.popitem()[1].discard()
