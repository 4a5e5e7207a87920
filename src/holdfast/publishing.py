"""The way of a draft into the store: fence, upload, confirm, commit."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Self

from holdfast import hashing, layout, manifest
from holdfast.backends.base import Backend, SyncsNames
from holdfast.catalog import Catalog
from holdfast.checkpoint import MAX_SESSION, Checkpoint, CheckpointId, next_try
from holdfast.errors import (
    AlreadyExists,
    CorruptionError,
    FormatError,
    NotFoundError,
    StorageError,
    SupersededError,
)
from holdfast.parallel import in_parallel
from holdfast.staging import Draft, first_session
from holdfast.writer import Turn, Writer

#: How often a draft may lose its id before the place is said to fail. A sweep takes an id once, and
#: of several writers that begin at once each may take the session that this one was about to.
_ATTEMPTS = 20


class AttemptLostError(Exception):
    """The id of an attempt cannot be committed any more; a new one can."""


class Fence:
    """
    Gives ids to saves, and keeps a writer that was overtaken from publishing.

    Parameters:
        catalog (Catalog): the store's manifests.
        writer (Writer): who publishes.
        recovering (bool): the writer is dead, and a draft of its is published for it: then it
            yields to anybody.
    """

    def __init__(self, catalog: Catalog, writer: Writer, *, recovering: bool = False) -> None:
        self._catalog = catalog
        self._writer = writer
        self._recovering = recovering

    @classmethod
    def of_dead_writer(cls, catalog: Catalog, sealed: Checkpoint) -> Self:
        """The fence for a draft that another process, or an earlier one, has staged."""
        writer = Writer(sealed.writer)
        writer.take(0, first_session(sealed))
        return cls(catalog, writer, recovering=True)

    def turn(self, sealed: Checkpoint) -> Turn:
        """The place in the writer's series of a draft that was found again."""
        return Turn(self._writer.lap_of(sealed.session), sealed.step, sealed.id.token)

    def claim(self, turn: Turn) -> CheckpointId:
        """
        The id for a save; its lap takes a session's number first if it has none.

        Raises:
            SupersededError: somebody else writes a newer session.
            FormatError: the store is of a newer format than this version writes.
            StorageError: the look failed.
        """
        writer = self._writer
        with writer.lock:
            if writer.newest_session is not None:
                with contextlib.suppress(AttemptLostError):
                    self.check(writer.newest_session)
            session = writer.session(turn.lap)
            if session is None:
                session = self._next_session()
                writer.take(turn.lap, session)
            claimed = CheckpointId(session, turn.step, turn.token)
            writer.claimed[session] = max(claimed, writer.claimed.get(session, claimed))
            return claimed

    def claimed(self, id: CheckpointId, turn: Turn) -> CheckpointId | None:
        """The id of a sealed draft, if it was claimed for this turn and may still be used."""
        writer = self._writer
        last = writer.claimed.get(id.session)
        holds = writer.session(turn.lap) == id.session and id.token == turn.token
        claimed = self._recovering or (last is not None and id <= last)
        return id if holds and claimed and writer.superseded is None else None

    def check(self, session: int) -> None:
        """
        Look for a later session by somebody else, or for another writer in this session.

        Two writers that took one number find each other here. The one whose name sorts lower
        yields; the other goes on in the next session.

        Raises:
            AttemptLostError: this writer goes on in the next session.
            SupersededError: somebody else has taken over, now or at an earlier look.
            StorageError: the look failed.
        """
        writer = self._writer
        with writer.lock:
            if writer.superseded is not None:
                raise writer.superseded
            mine = writer.claimed.get(session)
            after = layout.after(mine) if mine else layout.before_session(session)
            later = [id for id in self._catalog.ids(after) if id.session >= session]
            rival = self._rival(later, session)
            if rival is None:
                return
            id, name = rival
            if id.session > session or self._recovering or name > writer.name:
                raise self._superseded_by(id)
            writer.move(session)
            raise AttemptLostError

    def _rival(self, later: list[CheckpointId], session: int) -> tuple[CheckpointId, str] | None:
        """The last checkpoint that somebody else committed, and by whom; a tombstone is none."""
        for id in reversed(later):
            try:
                found = self._catalog.read(id)
            except NotFoundError:
                continue  # removed since the listing
            except FormatError as error:
                if id.session > session:
                    return id, ""  # whoever it was, he came later
                if error.newer:
                    raise
                continue
            if isinstance(found, Checkpoint):
                return None if found.writer == self._writer.name else (id, found.writer)
        return None

    def _superseded_by(self, other: CheckpointId) -> SupersededError:
        self._writer.superseded = SupersededError(
            f"another process has committed {other} and taken over; this one publishes nothing "
            "more. Everything committed is safe, and what was staged here stays in the workspace. "
            "Stop this process; or, if it is the one to keep, stop the other one and start this "
            "one again."
        )
        return self._writer.superseded

    def _next_session(self) -> int:
        ids = self._catalog.ids()
        if not ids:
            return (self._writer.newest_session or 0) + 1
        with contextlib.suppress(NotFoundError):
            try:
                self._catalog.read(ids[-1])
            except FormatError as error:
                if error.newer:
                    raise
        session = max(ids[-1].session, self._writer.newest_session or 0) + 1
        if session > MAX_SESSION:
            raise FormatError(
                f"{ids[-1]} has the last number that a session can have, so no newer one can "
                "begin. Nothing was committed. No run comes that far by itself: find out who put "
                "that manifest there, and remove it or save into another place."
            )
        return session


def publish(draft: Draft, *, backend: Backend, catalog: Catalog, fence: Fence) -> Checkpoint:
    """
    Upload a sealed draft and commit it; from the manifest on the checkpoint exists.

    Where an earlier attempt noted a manifest, that attempt is settled first: it may have been
    committed although nobody heard so. The draft stays where it is.

    Parameters:
        draft (Draft): sealed.
        backend, catalog, fence: of the store.

    Raises:
        SupersededError: somebody else writes a newer session.
        FormatError: the store is of a newer format.
        CorruptionError: the draft was damaged while it lay in the workspace.
        StorageError: the place failed; publishing the same draft again settles what is unknown.
    """
    assert draft.sealed is not None  # noqa: S101 - the caller's duty
    turn = draft.turn or fence.turn(draft.sealed)
    data = draft.assigned()
    checkpoint = None if data is None else _noted(data)
    for _ in range(_ATTEMPTS):
        try:
            if data is None or checkpoint is None:
                claimed = fence.claimed(draft.sealed.id, turn) or fence.claim(turn)
                checkpoint = dataclasses.replace(draft.sealed, id=claimed)
                data = manifest.write(checkpoint)
                draft.assign(data)
            elif _is_committed(checkpoint, data, backend):
                break
            else:
                fence.check(checkpoint.session)
            if draft.turn is None:  # it has lain in the workspace since another process, or longer
                _check_draft(draft, checkpoint)
            _upload(draft, checkpoint, backend)
            fence.check(checkpoint.session)
            _commit(checkpoint, data, backend)
            break
        except AttemptLostError:
            lost = checkpoint.id.token if checkpoint else turn.token
            turn = dataclasses.replace(turn, token=next_try(lost))
            data = checkpoint = None
    else:
        raise StorageError(
            f"publishing step {turn.step:,} to {backend.url} failed: its id was taken away "
            f"{_ATTEMPTS} times while its files were sent. What is committed is untouched, and "
            "the draft is kept. Give the sweep that runs there a longer `older_than`, then call "
            "store.recover()."
        )
    catalog.add(checkpoint)
    return checkpoint


def _noted(data: bytes) -> Checkpoint:
    try:
        return manifest.read_staged(data, "checkpoint")
    except FormatError as error:
        raise CorruptionError(
            f"what was noted of an earlier attempt is damaged, so whether it was committed cannot "
            f"be told: {error}"
        ) from error


def _check_draft(draft: Draft, checkpoint: Checkpoint) -> None:
    for file in checkpoint.files:
        path = draft.directory / file.path
        try:
            inside = not any(_is_link(each, draft.directory) for each in (path, *path.parents))
            good = inside and path.is_file() and hashing.hash_file(path) == file.hash
        except OSError as error:  # it keeps no other draft, and no save, from being published
            raise CorruptionError(
                f"its file {file.path} cannot be read: {error.strerror}. What is committed is "
                "untouched. store.recover() tries it again; remove the directory when it is of no "
                "more use."
            ) from error
        if not good:
            raise CorruptionError(
                f"its file {file.path} was damaged while it lay in the workspace. What is "
                "committed is untouched. Remove the directory when it is of no more use."
            )


def _is_link(path: Path, directory: Path) -> bool:
    """Whether a directory, or what lies in it, is a link, which may lead to anything."""
    return path.is_relative_to(directory) and path.is_symlink()


def _upload(draft: Draft, checkpoint: Checkpoint, backend: Backend) -> None:
    wanted = {layout.file_key(checkpoint.id, file.path): file for file in checkpoint.files}

    def upload(key: str) -> None:
        try:
            backend.upload(draft.directory / wanted[key].path, key)
        except AlreadyExists as error:
            raise AttemptLostError from error

    in_parallel(upload, wanted, at_once=backend.traits.parallel)
    sizes = {entry.key: entry.size for entry in backend.scan(layout.files_prefix(checkpoint.id))}
    for key, file in wanted.items():
        if sizes.get(key) != file.size:
            with contextlib.suppress(NotFoundError):
                backend.read(layout.manifest_key(checkpoint.id))
                raise AttemptLostError  # a sweep took the file, and the id before it
            raise StorageError(
                f"{backend.url} took {key} and then shows {sizes.get(key, 'nothing')} in the place "
                f"of {file.size:,} bytes; step {checkpoint.step:,} is not committed. What is "
                "committed is untouched, and the draft is kept. Call store.recover() to send it "
                "again; if this repeats, look at the place."
            )


def _commit(checkpoint: Checkpoint, data: bytes, backend: Backend) -> None:
    try:
        backend.create(layout.manifest_key(checkpoint.id), data)
    except StorageError as error:
        # The reply may be lost, or the answer "exists" may mean our own earlier try: look.
        try:
            if _is_committed(checkpoint, data, backend):
                return
        except StorageError as unknown:
            raise StorageError(
                f"whether step {checkpoint.step:,} was committed to {backend.url} is unknown: "
                f"{error} Looking for it failed too: {unknown} The checkpoint may exist. What "
                "was committed before is untouched, and the draft is kept. Call store.recover() "
                "to settle it.",
                errno=error.errno,
            ) from error
        raise


def _is_committed(checkpoint: Checkpoint, data: bytes, backend: Backend) -> bool:
    """Whether an attempt's manifest is there, durably."""
    key = layout.manifest_key(checkpoint.id)
    try:
        found = backend.read(key)
    except NotFoundError:
        return False
    if found != data:  # a tombstone, or somebody else's: the whole record counts, not the key
        raise AttemptLostError
    if isinstance(backend, SyncsNames):  # whoever created it was told that it failed, or has died
        backend.sync_name(key)
    return True
