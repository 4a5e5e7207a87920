"""What goes and what may not: pins, prune, sweep."""

import contextlib
import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta

from holdfast import layout, manifest
from holdfast.backends import arrival
from holdfast.backends.base import Backend, Entry
from holdfast.catalog import Catalog
from holdfast.checkpoint import Checkpoint, CheckpointId, new_token
from holdfast.errors import AlreadyExists, FormatError, NotFoundError
from holdfast.manifest import Tombstone
from holdfast.retention import PrunePlan, Rule, plan


class Remover:
    """
    Everything that removes from one store, and everything that protects from it.

    A prune writes its own mark and then looks at the pins; a pin is written and then looks for
    marks. Each side writes before it reads, so whichever comes second sees the other.

    Parameters:
        backend (Backend): where the store lies.
        catalog (Catalog): its manifests.
    """

    def __init__(self, backend: Backend, catalog: Catalog) -> None:
        self._backend = backend
        self._catalog = catalog

    def pins(self) -> dict[CheckpointId, list[str]]:
        """The pinned ids with the names of their pins, both in order."""
        found: dict[CheckpointId, list[str]] = {}
        for entry in self._backend.scan(layout.PINS):
            if parsed := layout.parse_pin_key(entry.key):
                name, id = parsed
                found.setdefault(id, []).append(name)
        return dict(sorted(found.items()))

    def pin(self, id: CheckpointId, name: str) -> None:
        """
        Protect a checkpoint.

        Raises:
            NotFoundError: it is gone, or a prune is removing it.
        """
        with contextlib.suppress(AlreadyExists):  # pinned under this name before
            self._backend.create(layout.pin_key(name, id), b"")
        marks = list(self._backend.scan(layout.doomed_prefix(id)))
        # The manifest is looked at after the marks: a prune removes it while its mark stands.
        found = self._catalog.read_again(id)
        if marks or isinstance(found, Tombstone):  # what a prune left can be swept by now
            raise NotFoundError(
                f"{id} cannot be pinned: a prune is removing it, or died while it did. Every other "
                "checkpoint is untouched. If it is still listed after the next prune, pin it then."
            )

    def unpin(self, name: str, id: CheckpointId | None) -> list[CheckpointId]:
        """Remove the pins of a name, or the one on a checkpoint; returns the ids set free."""
        freed = [
            pinned
            for pinned, names in self.pins().items()
            if name in names and id in (None, pinned)
        ]
        self._backend.delete(*(layout.pin_key(name, pinned) for pinned in freed))
        return freed

    def prune(
        self, rule: Rule, *, dry_run: bool, just_saved: CheckpointId | None = None
    ) -> PrunePlan:
        """
        Remove what the rule does not keep, the manifest first and then its files.

        The rule sees the good checkpoints only. One that lacks a file, or has one of another size,
        counts as nothing and is left alone, and so is one that a mounted Drive has yet to send.

        Raises:
            InvalidInputError: the rule keeps nothing; nothing was removed.
            FormatError: a manifest is of a newer format; nothing was removed.
            StorageError: the place failed midway; the same call may be repeated.
        """
        history = self._catalog.checkpoints()
        if not dry_run:
            self._finish_earlier_prunes()
        good = self._good(history)
        pinned = self.pins()
        spared = {just_saved: "just saved"} if just_saved else {}
        planned = plan(rule, good, pinned=pinned, spared=spared)
        if not dry_run:
            removed = [gone for gone in planned.remove if self._remove(gone.id)]
            if len(removed) < len(planned.remove):  # some were pinned meanwhile
                planned = plan(rule, good, pinned=self.pins(), spared=spared)
                planned = dataclasses.replace(planned, remove=tuple(removed))
        return planned

    def remove(self, ids: Sequence[CheckpointId]) -> list[CheckpointId]:
        """Remove checkpoints, unless they are pinned; returns what is gone."""
        return [id for id in ids if self._remove(id)]

    def sweep(
        self, *, older_than: timedelta, now: datetime, writer: str, dry_run: bool
    ) -> list[str]:
        """
        Remove files that no manifest names, once their attempt can no longer commit.

        A tombstone is created at the key that the attempt's manifest would have. Whoever creates
        first decides: if the manifest is there already, everything is left alone.

        Parameters:
            older_than (timedelta): spare what is younger, by the place's own times; what has no
                time counts as young, unless the span is zero or less.
            now (datetime): the time to count from.
            writer (str): who sweeps, for the tombstone.
            dry_run (bool): remove nothing.

        Returns:
            list[str]: the keys that went, or would go, sorted.
        """
        files = list(self._backend.scan(layout.FILES))  # first: what commits meanwhile is named
        manifests = self._catalog.records()
        leftovers: dict[CheckpointId, list[Entry]] = {}
        for entry in files:
            if parsed := layout.parse_file_key(entry.key):
                leftovers.setdefault(parsed[0], []).append(entry)
        gone: list[str] = []
        for id, entries in leftovers.items():
            found = manifests.get(id)
            if isinstance(found, Checkpoint | FormatError):
                partial = [entry for entry in entries if layout.is_partial(entry.key)]
                gone += [entry.key for entry in partial if _is_old(entry, older_than, now)]
            elif all(_is_old(entry, older_than, now) for entry in entries) and (
                dry_run or self._fenced(id, writer)
            ):
                gone += [entry.key for entry in entries]
        for prefix in (layout.MANIFESTS, layout.PINS, layout.DOOMED, layout.PROBES):
            gone += [
                entry.key
                for entry in self._backend.scan(prefix)
                if (layout.is_partial(entry.key) or layout.is_left_by_probe(entry.key))
                and _is_old(entry, older_than, now)
            ]
        gone += self._marks_and_pins_of_nothing()
        if not dry_run:
            self._backend.delete(*gone)
        return sorted(gone)

    def _finish_earlier_prunes(self) -> None:
        marked = (layout.parse_doomed_key(entry.key) for entry in self._backend.scan(layout.DOOMED))
        for id in sorted({id for id in marked if id}):
            if not self._has_manifest(id):
                self._remove_files_and_marks(id)

    def _good(self, history: list[Checkpoint]) -> list[Checkpoint]:
        sizes = {entry.key: entry.size for entry in self._backend.scan(layout.FILES)}
        return [
            checkpoint
            for checkpoint in history
            if all(
                sizes.get(layout.file_key(checkpoint.id, file.path)) == file.size
                for file in checkpoint.files
            )
            and self._outlives_this_machine(checkpoint)
        ]

    def _outlives_this_machine(self, checkpoint: Checkpoint) -> bool:
        """Whether it is at the place: one in a mount's cache counts as nothing yet."""
        if self._backend.traits.durable:
            return True
        id = checkpoint.id
        files = (layout.file_key(id, file.path) for file in checkpoint.files)
        return arrival.have_arrived(self._backend.url, [layout.manifest_key(id), *files])

    def _remove(self, id: CheckpointId) -> bool:
        mark = layout.doomed_key(id, new_token())
        with contextlib.suppress(AlreadyExists):  # its own: the reply to the first try was lost
            self._backend.create(mark, b"")
        if id in self.pins():
            self._backend.delete(mark)
            return False
        self._backend.delete(layout.manifest_key(id))
        self._catalog.forget(id)
        self._remove_files_and_marks(id)
        return True

    def _remove_files_and_marks(self, id: CheckpointId) -> None:
        for prefix in (layout.files_prefix(id), layout.doomed_prefix(id)):
            self._backend.delete(*[entry.key for entry in self._backend.scan(prefix)])

    def _fenced(self, id: CheckpointId, writer: str) -> bool:
        """Make sure that an attempt cannot commit any more; False if it has."""
        # Asked for by its name first: a listing may miss it, and some servers overwrite what they
        # were told not to.
        with contextlib.suppress(NotFoundError):
            return self._is_tombstone(id)
        try:
            self._backend.create(layout.manifest_key(id), manifest.write_tombstone(id, writer))
        except AlreadyExists:
            try:
                return self._is_tombstone(id)
            except NotFoundError:
                return False
        return True

    def _is_tombstone(self, id: CheckpointId) -> bool:
        try:
            return isinstance(self._catalog.read_again(id), Tombstone)
        except FormatError:
            return False  # a manifest that we cannot read protects as well as any other

    def _marks_and_pins_of_nothing(self) -> list[str]:
        keys = [
            (entry.key, id)
            for prefix, parse in ((layout.DOOMED, layout.parse_doomed_key), (layout.PINS, _pinned))
            for entry in self._backend.scan(prefix)
            if (id := parse(entry.key))
        ]
        alive = {id: self._has_manifest(id) for _, id in keys}
        return [key for key, id in keys if not alive[id]]

    def _has_manifest(self, id: CheckpointId) -> bool:
        try:
            return not self._is_tombstone(id)
        except NotFoundError:
            return False


def _pinned(key: str) -> CheckpointId | None:
    parsed = layout.parse_pin_key(key)
    return parsed[1] if parsed else None


def _is_old(entry: Entry, older_than: timedelta, now: datetime) -> bool:
    if older_than <= timedelta(0):
        return True
    return entry.modified is not None and now - entry.modified > older_than
