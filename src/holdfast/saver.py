"""Publishing in the background, with a bound and an end."""

import atexit
import contextlib
import functools
import os
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Literal, Self

from holdfast import disk, preflight
from holdfast.checkpoint import Checkpoint
from holdfast.errors import (
    CheckpointError,
    CheckpointWarning,
    InvalidInputError,
    PendingSaveError,
    StorageError,
    SupersededError,
)
from holdfast.pending import Job, Pending
from holdfast.staging import Draft
from holdfast.state import BorrowingSnapshot, State, write_state
from holdfast.store import CheckpointStore, Metadata, Metrics

#: Seconds that an interpreter's exit waits for what is pending; what is left stays a draft.
EXIT_SECONDS = 20.0
#: Seconds that a save waits for the one before it, so that a run of very short epochs on a quick
#: place keeps them all. It is less than anybody notices in a longer one.
PATIENCE_SECONDS = 0.5


#: The savers that are in use, for those who wait for all of them.
_live: "weakref.WeakSet[Saver]" = weakref.WeakSet()


class Saver:
    """
    Saves into a store behind the training loop.

    A save blocks for the snapshot; staging, uploading, committing and pruning happen on one worker
    thread, in order. When more wait than `max_pending`, for longer than half a second, the oldest
    waiting save gives way and its future fails. A place that fails, or does not answer, does not
    stop training: what was staged stays in the workspace, never more than `max_pending` beside the
    one that is being sent; a warning says how old the newest durable checkpoint is; and it is sent
    before the next save.

    The first saver of a process for a place proves that a save can succeed there, as
    `CheckpointStore.preflight` does. A missing right or a full disk is raised at once; where the
    place only cannot be reached just now, `on_error` decides.

    Use it as a context manager, or call `close`.

    Parameters:
        store (CheckpointStore): where to save.
        max_pending (int): how many saves may wait beside the one that is being staged or sent, as
            staged drafts where the place fails.
        on_error (str): `warn` goes on training when a save failed; `raise` raises
            `PendingSaveError` at the next save.
        clock (Callable[[], datetime]): gives the time that ages are counted from.

    Raises:
        InvalidInputError: an argument is wrong; nothing was touched.
        AccessDenied, StorageFull, FormatError, StorageError: no save can succeed, as
            `CheckpointStore.preflight`.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        max_pending: int = 1,
        on_error: Literal["warn", "raise"] = "warn",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        _check(store, max_pending, on_error)
        preflight.once(store.url, store.preflight, on_error=on_error)
        self.store = store
        self.newest: Checkpoint | None = None
        """The newest checkpoint that this saver has made durable."""
        self._on_error = on_error
        self._clock = clock
        self._pending = Pending(max_pending)
        self._failure: CheckpointError | None = None
        self._again = False
        self._closed = False
        self._pid = os.getpid()
        self._worker: threading.Thread | None = None
        _live.add(self)
        # A saver that is dropped gives its drafts up, for `recover` to find. Only the drafts are
        # handed over: a failed future holds the frames of its failure, and they the saver.
        self._drafts: set[Draft] = set()
        weakref.finalize(self, _release, self._drafts).atexit = False  # then they are being sent
        # After the first finalizer there is: at exit the last to register comes first, and clients
        # are closed by finalizers.
        _register_exit()

    def save(
        self,
        state: State | str | os.PathLike[str],
        *,
        step: int,
        metrics: Metrics | None = None,
        metadata: Metadata | None = None,
    ) -> "Future[Checkpoint]":
        """
        Take a snapshot now and publish it in the background.

        A path is copied into the workspace before this returns, so it may be overwritten at once.

        Parameters:
            as `CheckpointStore.save`.

        Returns:
            Future[Checkpoint]: done once the checkpoint is durable, or with the first error that
                kept it from being so; a draft that was staged is kept and sent again all the same.

        Raises:
            InvalidInputError: the call is wrong; nothing was touched.
            SupersededError: a newer session writes into the store.
            PendingSaveError: with `on_error="raise"`, an earlier save failed.
        """
        self._check_open()
        if self._on_error == "raise" or isinstance(self._failure, SupersededError):
            self._raise_failure()
        with self._pending.changed:
            # Before the snapshot, so that no more of them are held than need be. A place that fails
            # gets no faster while one waits.
            if self._failure is None:
                self._pending.changed.wait_for(self._has_room, PATIENCE_SECONDS)
        try:
            draft = self.store.draft(step=step, metrics=metrics, metadata=metadata)
            try:
                snapshot = state.snapshot() if isinstance(state, State) else None
                if snapshot is None:
                    draft.hashes.update(write_state(state, draft.directory))
                elif isinstance(snapshot, BorrowingSnapshot):
                    snapshot.detach()
            except BaseException:
                draft.discard()
                raise
        except StorageError as error:
            return self._not_staged(step, error)
        job = Job(draft, snapshot)
        with self._pending.changed:
            self._pending.add(job)
            self._start()
            surplus = self._pending.take_surplus()
        for old in surplus:
            self._give_way(old)
        return job.future

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until nothing is pending.

        With a timeout, what waits behind a save that is being sent is staged at once, so that the
        next start can send it though this process should be ended before the place answers.

        Parameters:
            timeout (float | None): seconds to wait at most once all is staged; None waits for as
                long as it takes.

        Returns:
            bool: whether nothing is pending. What is goes on, and a failure of it is told later.

        Raises:
            PendingSaveError: the last save failed; `__cause__` says why.
            SupersededError: a newer session writes into the store.
        """
        if timeout is not None:
            self._stage_what_waits()
        if not self._drain(timeout):
            return False
        self._raise_failure()
        return True

    def close(self) -> None:
        """
        Wait until nothing is pending, and take no more saves; repeating it is fine.

        Raises:
            PendingSaveError, SupersededError: as `wait`.
        """
        if self._closed:
            return
        self._end(None)
        self._raise_failure()

    @staticmethod
    def settle(url: str) -> None:
        """
        Wait until nothing is pending in any saver that this process has for a place.

        A training that ended with an exception leaves its saver at work; who resumes in the same
        process calls this first, so that what is under way counts.

        Parameters:
            url (str): of the store.
        """
        for saver in list(_live):
            if saver.store.url == url:
                saver._drain()  # noqa: SLF001 - a saver too

    @property
    def age(self) -> timedelta | None:
        """How long ago the newest durable checkpoint of this saver was staged."""
        return None if self.newest is None else self._clock() - self.newest.created_at

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif not self._closed:
            # The error that ends the block is the one to raise, and soon: a place that hangs must
            # not keep it. What is left stays a draft.
            self._end(EXIT_SECONDS)
            try:
                self._raise_failure()
            except CheckpointError as failed:
                _warn(f"{failed}")

    # The caller's thread.

    def _check_open(self) -> None:
        if self._closed or os.getpid() != self._pid:
            raise InvalidInputError(
                "this saver is closed, or was made before this process was forked; nothing was "
                "saved. Make a new one."
            )

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if isinstance(failure, SupersededError):
            self._failure = failure
            raise failure
        if failure is not None:
            raise PendingSaveError(
                f"the save before failed: {failure} Training is unharmed. {self._durable()}"
            ) from failure

    def _not_staged(self, step: int, error: StorageError) -> "Future[Checkpoint]":
        self._failed(step, error)
        future: Future[Checkpoint] = Future()
        future.set_exception(error)
        return future

    def _drain(self, timeout: float | None = None) -> bool:
        if os.getpid() != self._pid:
            return True  # the worker is the parent's, and so is what is pending
        with self._pending.changed:
            if self._pending.staged():
                self._again = True
                self._start()
            return self._pending.changed.wait_for(self._is_idle, timeout)

    def _end(self, timeout: float | None) -> None:
        self._closed = True
        self._drain(timeout)
        self._keep_what_is_pending()
        if os.getpid() == self._pid and self._worker is None:
            self._pending.clear()  # whoever recovers them now has them
            _release(self._drafts)

    def _keep_what_is_pending(self) -> None:
        """Where the worker hangs, say what of it the next start will send."""
        if os.getpid() != self._pid or self._worker is None:
            return
        self._stage_what_waits()
        steps = ", ".join(f"{job.draft.step:,}" for job in self._pending.staged())
        if steps:
            self._tell(
                f"the place does not answer, and what was saved at step {steps} was not sent yet. "
                f"It is kept in {self.store.workspace.path}, and the next start publishes it. "
                f"{self._durable()}"
            )

    def _stage_what_waits(self) -> None:
        """Stage what the worker did not come to, in this thread."""
        while os.getpid() == self._pid and (job := self._pending.take_unstaged()) is not None:
            try:
                self._stage(job, ask=False)  # a place that hangs is not asked for a session
            except CheckpointError as failure:
                _finish(job.future, failure)
                self._failed(job.draft.step, failure)
            with self._pending.changed:
                self._again = True  # the worker may have come to it too early, and left off
                self._start()

    def _is_idle(self) -> bool:
        return self._worker is None and not self._pending.is_in_hand

    def _has_room(self) -> bool:
        return self._is_idle() or self._pending.has_room

    def _start(self) -> None:
        if self._worker is None:
            # A daemon, so that a hanging place cannot keep the process from ending; at exit it is
            # given some seconds, and the sealed draft is the net below.
            worker = threading.Thread(target=self._work, name="holdfast-saver", daemon=True)
            worker.start()  # may fail; who starts it holds the lock that it begins with
            self._worker = worker

    # The worker's thread, which ends when there is nothing left to do.

    def _work(self) -> None:
        while True:
            with self._pending.changed:
                job = self._pending.take_unstaged()
                if job is None and not self._again:
                    self._worker = None
                    self._pending.changed.notify_all()
                    return
                self._again = self._again and job is not None  # the job may fail before its turn
            # It is told where it happens, and others wait for this thread: nothing may end it.
            with contextlib.suppress(BaseException):
                self._run(job)

    def _run(self, job: Job | None) -> None:
        try:
            if job is not None:
                # A place that fails is not asked for a session first: what is sealed is safe.
                self._stage(job, ask=self._failure is None)
            while (oldest := self._pending.take_oldest()) is not None:
                self._send(oldest)
        except SupersededError as error:
            self._failure = error
            for each in self._pending.give_up():
                _finish(each.future, error)
            _release(self._drafts)
        except BaseException as error:  # noqa: BLE001 - nobody above this thread would see it
            failure = error if isinstance(error, CheckpointError) else _unexpected(error)
            _forget_frames(failure)
            self._failure = failure
            if job is not None:  # else it was told when it was saved
                _finish(job.future, failure)
                self._failed(job.draft.step, failure)

    def _stage(self, job: Job, *, ask: bool) -> None:
        draft, snapshot, job.snapshot = job.draft, job.snapshot, None
        try:
            if snapshot is not None:
                with disk.disk_errors("stage into", draft.directory):
                    draft.hashes.update(snapshot.write_to(draft.directory) or {})
            del snapshot  # what it holds is in the files; sealing may take its time
            self.store.seal(draft, ask=ask)
            self._drafts.add(draft)
            job.is_staged = True
        except CheckpointError:
            draft.discard()
            raise
        except BaseException as error:  # the framework's own
            draft.discard()
            raise PendingSaveError(
                f"writing step {draft.step:,} failed: {error!r}. Nothing of it was saved; every "
                "checkpoint before it is untouched."
            ) from error
        finally:
            self._pending.put_down(job, is_done=not job.is_staged)

    def _send(self, job: Job) -> None:
        checkpoint = None
        try:
            checkpoint = self.store.publish(job.draft)
            if self.newest is None or checkpoint.id > self.newest.id:
                self.newest = checkpoint
            self._failure = None
            self._drafts.discard(job.draft)
        finally:
            self._pending.put_down(job, is_done=checkpoint is not None)
        _finish(job.future, checkpoint)

    def _give_way(self, job: Job) -> None:
        error = PendingSaveError(
            f"the save of step {job.draft.step:,} gave way to a newer one: the place takes them "
            f"slower than they come, or not at all just now. {self._durable()} Save less often, or "
            "raise max_pending."
        )
        _finish(job.future, error)
        self._drafts.discard(job.draft)
        job.draft.discard()
        self._tell(str(error))

    def _failed(self, step: int, error: CheckpointError) -> None:
        self._failure = error
        self._tell(f"saving step {step:,} failed: {error} Training goes on. {self._durable()}")

    def _tell(self, text: str) -> None:
        try:
            _warn(text)
        except Exception:  # warnings are errors here, or there is nowhere to write them
            # The worker has nobody to raise it to. The failure is raised by the next call.
            if threading.current_thread() is not self._worker:
                raise

    def _durable(self) -> str:
        if self.newest is None:
            return "No checkpoint of this saver is durable yet."
        age = str(self.age).partition(".")[0]
        return f"The newest durable checkpoint is that of step {self.newest.step:,}, {age} old."


def _check(store: object, max_pending: object, on_error: object) -> None:
    if not isinstance(store, CheckpointStore):
        raise InvalidInputError(f"a saver saves into a CheckpointStore, not {store!r}.")
    if not isinstance(max_pending, int) or isinstance(max_pending, bool) or max_pending < 1:
        raise InvalidInputError(
            f"max_pending is a whole number from 1, not {max_pending!r}: one save has to be able "
            "to wait."
        )
    if on_error not in ("warn", "raise"):
        raise InvalidInputError(f"on_error is 'warn' or 'raise', not {on_error!r}.")


def _release(drafts: set[Draft]) -> None:
    while drafts:
        drafts.pop().release()


def _at_exit() -> None:
    until = time.monotonic() + EXIT_SECONDS
    for saver in list(_live):
        with contextlib.suppress(RuntimeError):  # from Python 3.12 on no thread starts by now
            saver._drain(max(0.0, until - time.monotonic()))  # noqa: SLF001 - a saver too
            saver._keep_what_is_pending()  # noqa: SLF001


@functools.cache
def _register_exit() -> None:
    atexit.register(_at_exit)


def _unexpected(error: BaseException) -> PendingSaveError:
    failure = PendingSaveError(
        f"publishing ended with an error that is not one of Holdfast's: {error!r}. What was staged "
        "is kept, and what is committed is untouched."
    )
    failure.__cause__ = error
    return failure


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what the frames of a failure hold: a snapshot is as large as its model."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def _finish(future: "Future[Checkpoint]", outcome: Checkpoint | CheckpointError) -> None:
    # Cancelled by its owner, or failed before; or a callback of his wants to end the thread.
    with contextlib.suppress(InvalidStateError, SystemExit):
        if isinstance(outcome, Checkpoint):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


def _warn(text: str) -> None:
    warnings.warn(text, CheckpointWarning, stacklevel=3)
