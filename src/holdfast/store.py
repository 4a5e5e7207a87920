"""The checkpoints of one training run in one place."""

import atexit
import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from holdfast import disk, layout, publishing
from holdfast.backends import arrival, open_backend
from holdfast.backends.base import Backend
from holdfast.catalog import Catalog
from holdfast.checkpoint import Checkpoint, CheckpointId, check_step
from holdfast.errors import (
    AccessDenied,
    CheckpointError,
    CheckpointWarning,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StorageFull,
    SupersededError,
)
from holdfast.fetching import CheckpointContents, Report, report
from holdfast.manifest import check_metadata, check_metrics
from holdfast.preflight import Preflight, examine, tell
from holdfast.publishing import Fence
from holdfast.removal import Remover
from holdfast.retention import KeepBest, PrunePlan, Rule
from holdfast.staging import Draft, downloads_for, workspace_for
from holdfast.state import ReadsContents, State, write_state
from holdfast.writer import Writer

Metrics = Mapping[str, float]
Metadata = Mapping[str, str | int | float | bool | None]
T = TypeVar("T")


def open_store(
    place: str | os.PathLike[str],
    *,
    retention: Rule | None = None,
    workspace: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    preflight: bool = False,
) -> "CheckpointStore":
    """
    Open the checkpoints of a training run; the place need not exist yet.

    A directory that holds other files and no store is taken with a warning: they are left alone.

    Parameters:
        place (str | os.PathLike): a directory, or a URL of any fsspec protocol, such as
            `s3://bucket/runs/x`.
        retention (Rule | None): what to keep whenever a checkpoint was committed. None keeps all:
            nothing is removed that nobody asked to remove.
        workspace (str | os.PathLike | None): a local directory for drafts and downloads. By
            default it lies inside a local store, and in this user's cache for any other place.
        storage_options (Mapping[str, Any] | None): handed on to the fsspec filesystem.
        preflight (bool): prove at once that a save can succeed, as `CheckpointStore.preflight`.
            A `Saver` and the Keras callback do that by themselves.

    Raises:
        InvalidInputError: the place is no place, or its library is not installed.
        StorageError: the place lies on a mount that is not there.
        others: with `preflight`, as `CheckpointStore.preflight`.
    """
    backend = open_backend(place, storage_options)
    _warn_of_other_files(backend.url)
    store = CheckpointStore(backend, retention=retention, workspace=workspace)
    if preflight:
        store.preflight()
    return store


class CheckpointStore:
    """
    The checkpoints of one training run in one place.

    Any number of processes may read it, prune it and sweep it at once. One process saves at a
    time: a newer one supersedes the older, which is told so. Methods may be called from several
    threads.

    Iterating gives the checkpoints in the order of training, `store[1200]` the latest of a step.

    Parameters:
        backend (Backend): the place.
        retention (Rule | None): what to keep whenever a checkpoint was committed; None keeps all.
        workspace (str | os.PathLike | None): a local directory for drafts and downloads.
        writer (Writer | None): who saves. By default everything in this process that saves into
            this place is one writer.
        clock (Callable[[], datetime]): gives the time, with its zone, that drafts are stamped with
            and that a sweep counts from. No order rests on it.

    Attributes:
        url (str): the place, without credentials.
        retention (Rule | None): as given.
        workspace (Workspace): where drafts lie.
        downloads (Workspace): where downloads lie: there too, or in this user's cache where one may
            only read the store.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        retention: Rule | None = None,
        workspace: str | os.PathLike[str] | None = None,
        writer: Writer | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if retention is not None:
            _check_rule(retention)
        self.url = backend.url
        self.retention = retention
        self.workspace = workspace_for(self.url, Path(workspace) if workspace else None)
        self.downloads = downloads_for(self.url, self.workspace)
        self._backend = backend
        self._catalog = Catalog(backend)
        self._remover = Remover(backend, self._catalog)
        self._given_writer = writer
        self._clock = clock

    def __repr__(self) -> str:
        return f"CheckpointStore({self.url!r})"

    # ------------------------------------------------------------------ save

    def preflight(self) -> Preflight:
        """
        Prove that a save can succeed here, before anything is trained.

        It stages nothing, lists the store, and creates and reads one small object, which stays;
        that is about four requests. What the place cannot promise is a warning, once in a process.

        Returns:
            Preflight: what was found.

        Raises:
            AccessDenied: a right is missing; the text says which.
            StorageFull: the newest checkpoint would not fit once more, here or in the workspace.
            FormatError: the store is of a newer format.
            InvalidInputError: the workspace is no directory, somebody else's, or open to others.
            StorageError: the place or the workspace failed.
        """
        found = examine(self._backend, self._catalog, self.workspace)
        tell(found)
        return found

    def save(
        self,
        state: State | str | os.PathLike[str],
        *,
        step: int,
        metrics: Metrics | None = None,
        metadata: Metadata | None = None,
    ) -> Checkpoint:
        """
        Save a state, or a file or directory; when this returns, the checkpoint is durable.

        Where the workspace fails the state is staged once more, in new files; where it is full,
        what dead processes have left there is published or removed before.

        Parameters:
            state (State | str | os.PathLike): live objects, or the path of what was written.
            step (int): the training step, 0 to 10^12 - 1. Order never depends on steps being
                unique or growing.
            metrics (Mapping[str, float] | None): numbers measured at this step. One that is not
                finite is left out with a warning.
            metadata (Mapping | None): texts, finite numbers, booleans and None.

        Returns:
            Checkpoint: what was committed.

        Raises:
            InvalidInputError: the step, a metric, the metadata, a path or a file's name is not
                usable; nothing was touched.
            SupersededError: a newer session writes into this store.
            StorageError: the place or the workspace failed. A draft that was staged already is
                kept, and `recover` publishes it.
        """
        try:
            draft = self._staged(state, step, metrics, metadata)
        except AccessDenied:
            raise
        except StorageError as error:
            if isinstance(error, StorageFull):
                with contextlib.suppress(CheckpointError):
                    self.recover()
            draft = self._staged(state, step, metrics, metadata)
        try:
            return self.publish(draft)
        finally:
            draft.release()

    @contextlib.contextmanager
    def stage(
        self, *, step: int, metrics: Metrics | None = None, metadata: Metadata | None = None
    ) -> Iterator[Draft]:
        """
        Write files into `draft.directory`; they are published when the block ends.

        `draft.metrics` and `draft.metadata` may be added to inside the block. Afterwards
        `draft.checkpoint` is what was committed. An exception inside the block publishes nothing.

        Parameters and errors:
            as `save`.
        """
        draft = self.draft(step=step, metrics=metrics, metadata=metadata)
        try:
            yield draft
            self.publish(draft)
        except BaseException:
            if draft.sealed is None:
                draft.discard()
            else:
                draft.release()
            raise

    def draft(
        self, *, step: int, metrics: Metrics | None = None, metadata: Metadata | None = None
    ) -> Draft:
        """
        Begin a draft, to be written and then handed to `publish`; its place in the order is taken.

        Whoever begins it ends it: with `publish`, `discard`, or `release`, which leaves a sealed
        draft to `recover`.

        Parameters and errors:
            as `save`.
        """
        number = check_step(step)
        numbers, notes = check_metrics(metrics), check_metadata(metadata)
        turn = self._writer.turn(number)
        return self.workspace.draft(step=number, metrics=numbers, metadata=notes, turn=turn)

    def seal(self, draft: Draft, *, ask: bool = True) -> None:
        """
        Make a draft whole: its files are hashed and durable, and it outlives this process.

        Parameters:
            draft (Draft): written.
            ask (bool): where this process has no session yet, look at the place for its number.

        Raises:
            InvalidInputError: it has no file, or one with a name that is not portable.
            StorageError: the workspace failed.
        """
        assert draft.turn is not None  # noqa: S101 - a draft without one is sealed already
        if ask and self._writer.newest_session is None:
            # Whatever is wrong shows again when it is published; what was staged is kept first.
            with contextlib.suppress(CheckpointError):
                self.recover()
                self._fence.claim(draft.turn)
        if self._writer.session(draft.turn.lap) is None:  # the place was not seen, or not since
            self._writer.come_after(self._catalog.newest_session)
            self._writer.come_after(self.workspace.newest_session(but=self._writer.name))
        session = self._writer.likely_session(draft.turn.lap)
        id = CheckpointId(session, draft.step, draft.turn.token)
        draft.seal(
            id, writer=self._writer.name, parent=self._writer.parent, created_at=self._clock()
        )

    def publish(self, draft: Draft) -> Checkpoint:
        """
        Seal a draft, upload its files, commit it and prune; may be repeated after an error.

        The first of a process publishes what earlier processes have staged before it takes its
        place. A prune that fails is a warning: the checkpoint is committed already.

        Raises:
            InvalidInputError, SupersededError, StorageError: as `save`. A draft that is sealed
                stays so, and the call may be repeated.
        """
        if draft.checkpoint is not None:
            return draft.checkpoint
        if draft.sealed is None:
            self.seal(draft)
        if self._writer.newest_session is None:
            self.recover()
        checkpoint = self._publish(draft, self._fence)
        if self.retention is not None:
            self._prune_after(checkpoint, self.retention)
        return checkpoint

    # ------------------------------------------------------------------ look

    def latest(self) -> Checkpoint | None:
        """
        The newest checkpoint: the highest session, in it the highest step.

        It costs one listing and one read, however many checkpoints there are.

        Returns:
            Checkpoint | None: None only for a store that was listed whole and holds none.

        Raises:
            FormatError: the newest is of a newer format, or there are manifests and none can be
                read.
            StorageError: the place failed; what is there is unknown.
        """
        return next(self._catalog.newest_first(), None)

    def best(self, metric: str, mode: Literal["auto", "min", "max"] = "auto") -> Checkpoint | None:
        """
        The checkpoint with the best value of a metric; the earlier one of equals.

        Parameters:
            metric (str): a name in the metrics; `acc` and `accuracy` are one.
            mode (str): which way is better. `auto` goes by the name.

        Returns:
            Checkpoint | None: None where no checkpoint has a finite value of it.

        Raises:
            InvalidInputError: `auto` does not know this name.
            FormatError, StorageError: as `latest`.
        """
        return next(iter(KeepBest(metric, mode=mode).keep(self.checkpoints())), None)

    def checkpoints(self) -> list[Checkpoint]:
        """
        All checkpoints in the order of training; each manifest is read once in a process.

        Raises:
            FormatError, StorageError: as `latest`.
        """
        return self._catalog.checkpoints()

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints())

    def __len__(self) -> int:
        return len(self.checkpoints())

    def __reversed__(self) -> Iterator[Checkpoint]:
        return self._catalog.newest_first()  # without this, Python would count down the steps

    def __bool__(self) -> bool:
        return True  # an empty store is still a store, and asking costs no listing

    def __getitem__(self, step: int) -> Checkpoint:
        number = check_step(step)
        for id in reversed(self._catalog.ids()):
            if id.step == number:
                with contextlib.suppress(NotFoundError):
                    return self._find(id)
        raise NotFoundError(f"{self.url} holds no checkpoint of step {number:,}.")

    def find(self, name: str) -> Checkpoint:
        """
        The checkpoint that a text names.

        Parameters:
            name (str): `latest`, an id, a step's number, or the name of a pin on one checkpoint.

        Raises:
            NotFoundError: there is none of this name.
            InvalidInputError: the pin is on several checkpoints.
            FormatError, StorageError: as `latest`.
        """
        if not isinstance(name, str):
            raise InvalidInputError(
                f"{name!r} is no text; nothing was touched. Give `latest`, an id, a step as text, "
                "or the name of a pin. store[1200] takes a step as a number."
            )
        if name == "latest":
            return self._newest()
        if id := CheckpointId.parse(name):
            return self._find(id)
        if name.isdecimal():
            return self[int(name)]
        pinned = self.pins().get(name, [])
        if len(pinned) > 1:
            raise InvalidInputError(
                f"the pin {name!r} is on {len(pinned)} checkpoints; say which: "
                f"{', '.join(map(str, pinned))}"
            )
        if not pinned:
            raise NotFoundError(
                f"{self.url} holds nothing called {name!r}: give `latest`, an id, a step, or the "
                "name of a pin."
            )
        return self._find(pinned[0])

    # --------------------------------------------------------------- restore

    def restore(
        self,
        state: State,
        checkpoint: Checkpoint | str | None = None,
        *,
        where: Callable[[Checkpoint], bool] | None = None,
    ) -> Checkpoint:
        """
        Load a checkpoint into a state; every byte is hashed before it gets there.

        Parameters:
            state (State): the live objects.
            checkpoint (Checkpoint | str | None): which one, or its id. None takes the newest good
                one: a damaged one is passed over with a warning.
            where (Callable[[Checkpoint], bool] | None): with None, only those count for which it
                is true.

        Returns:
            Checkpoint: the one that was loaded. What this process saves from now on names it as
                its parent. A process that was superseded may save again, in a new session.

        Raises:
            NotFoundError: there is none, or it was removed.
            CorruptionError: the one asked for is damaged, or all are.
            FormatError: the one asked for, or the newest, cannot be read by this version.
            StorageError: the place or the workspace failed.
        """
        if not isinstance(state, State):
            raise InvalidInputError(
                f"{state!r} cannot be restored into: it has no snapshot() and restore(). Nothing "
                "was touched. Give a state; store.download(to=...) brings the files as they are."
            )

        def load(contents: CheckpointContents) -> None:
            if isinstance(state, ReadsContents):
                state.restore_from(contents)
            else:
                state.restore(contents.directory())

        found, _ = self._take(checkpoint, where, load)
        if self._given_writer is None and self._writer.superseded is not None:
            Writer.renew(self.url)  # it goes on from what superseded it, as a new session
        self._writer.parent = found.id
        return found

    def download(
        self,
        checkpoint: Checkpoint | str | None = None,
        to: str | os.PathLike[str] | None = None,
        *,
        where: Callable[[Checkpoint], bool] | None = None,
    ) -> Path:
        """
        Bring a checkpoint's files here; every byte is hashed in this call.

        Parameters:
            checkpoint, where: as `restore`.
            to (str | os.PathLike | None): a directory that does not exist yet, or an empty one. It
                appears whole or not at all. None takes one in the workspace, which is deleted when
                this process ends; after a kill the next `recover` or `sweep` there deletes it.

        Returns:
            Path: the directory with the files.

        Raises:
            InvalidInputError: the directory has something in it already; nothing was touched.
            others: as `restore`.
        """
        target = None if to is None else _empty_target(Path(to))
        _, scratch = self._take(checkpoint, where, CheckpointContents.hand_over)
        if target is None:
            atexit.register(scratch.discard)
            return scratch.directory
        try:
            with disk.disk_errors("write", target):
                disk.move_directory(scratch.directory, target)
        finally:
            scratch.discard()
        return target

    # ---------------------------------------------------------------- verify

    def verify(self, checkpoint: Checkpoint | str | None = None, *, deep: bool = False) -> Report:
        """
        Compare what is stored with the manifests.

        Parameters:
            checkpoint (Checkpoint | str | None): which one, or its id; None takes all.
            deep (bool): fetch and hash every byte; else compare presence and sizes.

        Raises:
            NotFoundError, FormatError, StorageError: as `restore`.
        """
        if checkpoint is None:
            records = self._catalog.records()
        else:
            found = self._find(checkpoint)
            records = {found.id: found}
        checked = report(records, self._backend, self.downloads if deep else None)
        if checkpoint is not None and not checked.checked:
            raise NotFoundError(f"{found} was removed while it was verified.")
        return checked

    def wait_for_drive(
        self,
        checkpoint: Checkpoint | str | None = None,
        *,
        timeout: timedelta = timedelta(minutes=10),
    ) -> Checkpoint:
        """
        Wait until a checkpoint that was saved onto a mounted Google Drive is in Drive.

        The mount keeps what is written in this machine's cache and sends it later.

        Parameters:
            checkpoint (Checkpoint | str | None): which one, or its id; None takes the newest.
            timeout (timedelta): how long to wait.

        Returns:
            Checkpoint: the one whose manifest and files have all arrived.

        Raises:
            InvalidInputError: the store is on no mount of Drive, or on one that does not tell.
            DeadlineExceeded: some had not arrived in time; nothing is lost by that.
            NotFoundError, FormatError, StorageError: as `restore`.
        """
        found = self._newest() if checkpoint is None else self._find(checkpoint)
        files = (layout.file_key(found.id, file.path) for file in found.files)
        arrival.wait_until_in_drive(self.url, [layout.manifest_key(found.id), *files], timeout)
        return found

    # ------------------------------------------------------------------- pin

    def pin(self, checkpoint: Checkpoint | str, name: str) -> None:
        """
        Protect a checkpoint from every rule, under a name.

        Raises:
            NotFoundError: it is gone, or a prune is removing it.
            InvalidInputError: the name is not portable, or names something else: `latest`, a step,
                an id.
            FormatError, StorageError: the manifest cannot be read; the place failed.
        """
        layout.check_part(name, f"the pin's name {name!r}")
        if name == "latest" or name.isdecimal() or CheckpointId.parse(name):
            raise InvalidInputError(
                f"a pin cannot be called {name!r}, which names a checkpoint already; nothing was "
                "pinned. Give it a name of its own, such as 'paper'."
            )
        self._remover.pin(self._find(checkpoint).id, name)

    def unpin(self, name: str, checkpoint: Checkpoint | str | None = None) -> list[CheckpointId]:
        """
        Remove a pin: from one checkpoint, or from all that have one of this name.

        Returns:
            list[CheckpointId]: what was pinned under it.

        Raises:
            NotFoundError: there is no such pin.
            StorageError: the place failed.
        """
        id = None if checkpoint is None else _id(checkpoint)
        freed = self._remover.unpin(name, id)
        if not freed:
            raise NotFoundError(f"{self.url} holds no pin {name!r}" + (f" on {id}." if id else "."))
        return freed

    def pins(self) -> dict[str, list[CheckpointId]]:
        """The names of the pins with the ids that each protects, both in order."""
        names: dict[str, list[CheckpointId]] = {}
        for id, of_id in self._remover.pins().items():
            for name in of_id:
                names.setdefault(name, []).append(id)
        return dict(sorted(names.items()))

    # ----------------------------------------------------------------- prune

    def prune(self, rule: Rule | None = None, *, dry_run: bool = False) -> PrunePlan:
        """
        Remove what a rule does not keep. The newest, the pinned and the damaged always stay.

        Parameters:
            rule (Rule | None): None takes the store's retention.
            dry_run (bool): remove nothing, only tell.

        Returns:
            PrunePlan: what stays, each with its reasons, and what goes.

        Raises:
            InvalidInputError: there is no rule, or it keeps nothing; nothing was removed.
            SupersededError: this process saved here and was overtaken; nothing was removed.
            FormatError: a manifest is of a newer format; nothing was removed.
            StorageError: the place failed midway; the same call may be repeated.
        """
        if rule is not None:
            _check_rule(rule)
        rule = rule or self.retention
        if rule is None:
            raise InvalidInputError(
                "the store was opened without a retention, so there is no rule to prune by; "
                "nothing was removed. Give one: store.prune(KeepLast(3))."
            )
        if not dry_run:
            self._check_not_superseded()
        return self._remover.prune(rule, dry_run=dry_run)

    def remove(self, *checkpoints: Checkpoint | str) -> list[CheckpointId]:
        """
        Remove these checkpoints, the newest among them too. What is pinned stays.

        Parameters:
            checkpoints (Checkpoint | str): each as it was found, or its id.

        Returns:
            list[CheckpointId]: what is gone.

        Raises:
            SupersededError: this process saved here and was overtaken; nothing was removed.
            NotFoundError: one is not there; nothing was removed.
            StorageError: the place failed midway; the same call may be repeated.
        """
        self._check_not_superseded()
        return self._remover.remove([self._find(each).id for each in checkpoints])

    # ----------------------------------------------------------------- sweep

    def sweep(
        self, *, older_than: timedelta = timedelta(days=1), dry_run: bool = False
    ) -> list[str]:
        """
        Remove files that no manifest names; an attempt that loses files can never commit.

        What dead processes left unfinished in the workspace goes too; sealed drafts stay.

        Parameters:
            older_than (timedelta): spare what is younger: an upload may still be under way.
            dry_run (bool): remove nothing, only tell.

        Returns:
            list[str]: the keys that went, relative to the store, sorted.

        Raises:
            FormatError: a manifest is of a newer format; nothing was removed.
            StorageError: the place failed midway; the same call may be repeated.
        """
        if not dry_run:
            for draft in self._abandoned():  # deletes what was left unfinished
                draft.release()
        return self._remover.sweep(
            older_than=older_than, now=self._clock(), writer=self._writer.name, dry_run=dry_run
        )

    # --------------------------------------------------------------- recover

    def recover(self) -> list[Checkpoint]:
        """
        Publish the drafts that an earlier process staged and did not publish, oldest first.

        A draft is published once, under its own id. One of a session that was overtaken, and one
        that is damaged, is kept where it is with a warning. What was left unfinished is deleted.

        Returns:
            list[Checkpoint]: what was published, or turned out to be published already.

        Raises:
            FormatError: the store is of a newer format.
            StorageError: the place or the workspace failed; the drafts are kept.
        """
        published: list[Checkpoint] = []
        with contextlib.ExitStack() as locks:
            drafts = self._abandoned()
            for draft in drafts:
                locks.callback(draft.release)
            for draft in drafts:
                try:
                    published.append(self._publish(draft, self._fence_for(draft)))
                except (SupersededError, CorruptionError) as error:
                    _warn(f"the draft of step {draft.step:,} in {draft.root} is kept: {error}")
        return published

    # --------------------------------------------------------------- helpers

    def _abandoned(self) -> list[Draft]:
        """The sealed drafts that nobody works on; unfinished work of dead processes goes."""
        if self.downloads is not self.workspace:
            for draft in self.downloads.abandoned():
                draft.release()
        return self.workspace.abandoned()

    def _staged(
        self,
        state: State | str | os.PathLike[str],
        step: int,
        metrics: Metrics | None,
        metadata: Metadata | None,
    ) -> Draft:
        """A new draft of a state, sealed; of one that failed nothing is left."""
        draft = self.draft(step=step, metrics=metrics, metadata=metadata)
        try:
            draft.hashes.update(write_state(state, draft.directory))
            self.seal(draft)
        except BaseException:
            draft.discard()
            raise
        return draft

    @property
    def _writer(self) -> Writer:
        # Asked for each time: a forked child that uses this store is a writer of its own.
        return self._given_writer or Writer.of(self.url)

    @property
    def _fence(self) -> Fence:
        return Fence(self._catalog, self._writer)

    def _fence_for(self, draft: Draft) -> Fence:
        assert draft.sealed is not None  # noqa: S101 - only sealed drafts are found again
        if draft.sealed.writer == self._writer.name:
            return self._fence
        return Fence.of_dead_writer(self._catalog, draft.sealed)

    def _publish(self, draft: Draft, fence: Fence) -> Checkpoint:
        draft.checkpoint = publishing.publish(
            draft, backend=self._backend, catalog=self._catalog, fence=fence
        )
        if not draft.discard():
            _warn(
                f"step {draft.step:,} is committed, but its draft in {draft.root} could not be "
                "removed. The next start, or store.recover(), removes it."
            )
        return draft.checkpoint

    def _prune_after(self, checkpoint: Checkpoint, rule: Rule) -> None:
        try:
            self._check_not_superseded()
            self._remover.prune(rule, dry_run=False, just_saved=checkpoint.id)
        except Exception as error:  # noqa: BLE001 - a rule of the user's may raise anything
            _warn(
                f"step {checkpoint.step:,} is committed, but pruning after it did not end: {error} "
                "The next save prunes again."
            )

    def _check_not_superseded(self) -> None:
        session = self._writer.newest_session
        if session is not None:
            with contextlib.suppress(publishing.AttemptLostError):
                self._fence.check(session)

    def _find(self, checkpoint: Checkpoint | CheckpointId | str) -> Checkpoint:
        id = _id(checkpoint)
        found = self._catalog.read_again(id)
        if not isinstance(found, Checkpoint):
            raise NotFoundError(f"{self.url} holds no checkpoint {id}: its attempt was swept.")
        return found

    def _newest(self) -> Checkpoint:
        found = self.latest()
        if found is None:
            raise NotFoundError(f"{self.url} holds no checkpoint.")
        return found

    def _take(
        self,
        checkpoint: Checkpoint | str | None,
        where: Callable[[Checkpoint], bool] | None,
        take: Callable[[CheckpointContents], T],
    ) -> tuple[Checkpoint, T]:
        """Let the contents of one checkpoint be taken, or of the newest that proves to be good."""
        if checkpoint is not None:
            found = self._find(checkpoint)
            return found, CheckpointContents(found, self._backend, self.downloads).lend(take)
        damaged: dict[CheckpointId, CorruptionError] = {}

        def wanted(found: Checkpoint) -> bool:
            return found.id not in damaged and (where is None or where(found))

        # Looked for anew each time: another may have come since the last one proved damaged.
        while candidate := next(self._catalog.newest_first(wanted), None):
            contents = CheckpointContents(candidate, self._backend, self.downloads)
            try:
                return candidate, contents.lend(take)
            except (NotFoundError, CorruptionError) as error:
                if error is not contents.failure:
                    raise  # of whoever takes them, about something else
                if isinstance(error, NotFoundError):
                    self._catalog.forget(candidate.id)
                    continue
                _warn(f"{error} Passing over it to the next older one.")
                damaged[candidate.id] = error
        if damaged:
            raise CorruptionError(
                f"none of the {len(damaged)} checkpoints in {self.url} is whole. Nothing was "
                "loaded or removed. Run `holdfast verify --deep` there, or restore from a copy."
            ) from next(iter(damaged.values()))
        raise NotFoundError(f"{self.url} holds no checkpoint to restore.")


def _id(checkpoint: object) -> CheckpointId:
    if isinstance(checkpoint, Checkpoint):
        return checkpoint.id
    if isinstance(checkpoint, CheckpointId):
        return checkpoint
    id = CheckpointId.parse(checkpoint) if isinstance(checkpoint, str) else None
    if id is None:
        raise InvalidInputError(
            f"{checkpoint!r} is no id of a checkpoint; one looks like 0003-000000001200-7f3a9c1e. "
            "store.find() also takes `latest`, a step, or the name of a pin."
        )
    return id


def _warn_of_other_files(url: str) -> None:
    if not url.startswith("file://"):
        return
    root = Path(url.removeprefix("file://"))
    with disk.disk_errors("look at", root):
        try:
            names = set(os.listdir(root))  # noqa: PTH208 - names are all that is wanted
        except FileNotFoundError:
            return
    if names and not names & layout.TOP_LEVEL:
        _warn(
            f"{root} holds no store yet, and {len(names)} other files, such as {min(names)!r}. "
            "They are left alone, and checkpoints are put beside them. If you meant a store that "
            "is there already, look for a typo."
        )


def _check_rule(rule: object) -> None:
    if not isinstance(rule, Rule):
        raise InvalidInputError(
            f"a retention is a rule such as KeepLast(3), not {rule!r}; nothing was touched."
        )


def _empty_target(target: Path) -> Path:
    with disk.disk_errors("look at", target):
        is_empty = not target.is_symlink() and target.is_dir() and not any(target.iterdir())
        if os.path.lexists(target) and not is_empty:
            raise InvalidInputError(
                f"{target} exists and is not an empty directory; nothing was touched. Give a "
                "directory that does not exist yet."
            )
    return target


def _warn(text: str) -> None:
    warnings.warn(text, CheckpointWarning, stacklevel=3)
