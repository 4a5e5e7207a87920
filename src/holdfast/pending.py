"""What was saved and is not durable yet: in which order, and who is at it."""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from holdfast.checkpoint import Checkpoint
from holdfast.staging import Draft
from holdfast.state import Snapshot


@dataclass(eq=False)
class Job:
    """
    One save that is not durable yet.

    Attributes:
        draft (Draft): what it will be staged in.
        snapshot (Snapshot | None): what is to be written there; None once it is.
        future (Future[Checkpoint]): what its caller was given.
        is_staged (bool): the draft is sealed.
    """

    draft: Draft
    snapshot: Snapshot | None
    future: "Future[Checkpoint]" = field(default_factory=Future)
    is_staged: bool = False


class Pending:
    """
    Saves in their order, each staged and then sent, by one thread at a time.

    Parameters:
        most (int): how many may wait beside the one that is being staged or sent.

    Attributes:
        changed (threading.Condition): notified when there is one more or one less, or one was put
            down. Whoever does several things at once holds it.
    """

    def __init__(self, most: int) -> None:
        self.changed = threading.Condition()
        self._most = most
        self._jobs: deque[Job] = deque()
        self._in_hand: set[Job] = set()  # what a thread is staging or sending

    @property
    def has_room(self) -> bool:
        """Whether one more makes none give way."""
        return len(self._jobs) <= self._most

    @property
    def is_in_hand(self) -> bool:
        """Whether a thread is at any of them."""
        return bool(self._in_hand)

    def staged(self) -> list[Job]:
        """Those whose drafts are sealed, which only have to be sent."""
        with self.changed:
            return [job for job in self._jobs if job.is_staged]

    def add(self, job: Job) -> None:
        """Put one at the end."""
        with self.changed:
            self._jobs.append(job)
            self.changed.notify_all()

    def take_surplus(self) -> list[Job]:
        """Take out the oldest that nobody is at, as far as there are too many."""
        with self.changed:
            surplus = max(0, len(self._jobs) - self._most - 1)
            taken = [job for job in self._jobs if job not in self._in_hand][:surplus]
            for job in taken:
                self._jobs.remove(job)
            return taken

    def take_unstaged(self) -> Job | None:
        """Take the oldest that is not staged yet into this thread's hand."""
        with self.changed:
            for job in self._jobs:
                if not job.is_staged and job not in self._in_hand:
                    self._in_hand.add(job)
                    return job
        return None

    def take_oldest(self) -> Job | None:
        """Take the oldest into this thread's hand, if it is staged."""
        with self.changed:
            if not self._jobs or not self._jobs[0].is_staged:
                return None
            self._in_hand.add(self._jobs[0])
            return self._jobs[0]

    def put_down(self, job: Job, *, is_done: bool) -> None:
        """Let others have one, or nobody any more."""
        with self.changed:
            self._in_hand.discard(job)
            if is_done:
                self._jobs.remove(job)
            self.changed.notify_all()  # there is room again

    def give_up(self) -> list[Job]:
        """Take out all that are staged; they are for others to send."""
        with self.changed:
            given_up = self.staged()
            for job in given_up:
                self._jobs.remove(job)
            return given_up

    def clear(self) -> None:
        """Forget all of them."""
        self._jobs.clear()
