"""What a place can do, tried: what a save, a resume and a prune need, one after another."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from holdfast import disk, hashing, layout, preflight
from holdfast.backends.retrying import RetryingBackend
from holdfast.checkpoint import CheckpointId
from holdfast.cli import tables
from holdfast.cli.findings import Finding
from holdfast.cli.place import Opened
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    CheckpointError,
    CorruptionError,
    StorageError,
    StorageFull,
)

_DATA = b"Holdfast examined this place. This is no part of a checkpoint.\n"
#: Bytes of the file that is sent and brought back.
_TRANSFER_BYTES = 4 * 1024 * 1024
#: How many callers race for one key, and how often.
_CALLERS, _ROUNDS = 16, 3
#: Seconds that a key may take to be listed for others before it counts as not listed.
_PATIENCE_S = 10.0
#: A clock that is less wrong than this matters to nothing.
_SKEW = timedelta(minutes=1)


class Examination:
    """
    Tries a place.

    A check that fails keeps no other from being tried, unless the place cannot be reached at all.

    Parameters:
        opened (Opened): the place.

    Attributes:
        left (list[str]): the keys that it wrote and could not remove.
        is_reachable (bool): no call has failed so far for another reason than a refusal.
    """

    def __init__(self, opened: Opened) -> None:
        self.left: list[str] = []
        self._opened = opened
        self._backend = opened.backend
        self._prefix = layout.probe_prefix(disk.new_name())
        self._slowest = 0.0
        self.is_reachable = True

    def run(self, *, read_only: bool) -> Iterator[Finding]:
        """
        Try one thing after another.

        Parameters:
            read_only (bool): write nothing.
        """
        yield Finding("open", "ok", "its library is there, and the options fit")
        yield from self._tried(("list", self._list))
        written = [] if read_only else [*self._tried(("write", self._write))]
        yield from written
        if any(found.outcome == "ok" for found in written):
            yield from self._tried(
                ("read", self._read),
                ("put-if-absent", self._put_if_absent),
                ("race", self._race),
                ("listing", self._listing),
                ("transfer", self._transfer),
                ("delete", self._delete),
            )
        else:
            yield from self._tried(("read", self._read_newest))
        yield from self._tried(("space", self._space), ("drafts", self._drafts))
        if self.is_reachable:
            yield self._deadline()
        for remark in preflight.unkept(self._backend.traits):
            yield Finding("promises", "note", remark)

    def marks(self) -> dict[CheckpointId, list[str]]:
        """The keys of the marks of prunes on checkpoints that are there, by checkpoint."""
        manifests = self._backend.scan(layout.MANIFESTS)
        there = {layout.parse_manifest_key(entry.key) for entry in manifests}
        found: dict[CheckpointId, list[str]] = {}
        for entry in self._backend.scan(layout.DOOMED):
            id = layout.parse_doomed_key(entry.key)
            if id is not None and id in there:
                found.setdefault(id, []).append(entry.key)
        return found

    def _tried(self, *checks: tuple[str, Callable[[], Finding]]) -> Iterator[Finding]:
        for name, check in checks:
            if not self.is_reachable:
                return
            begun = time.monotonic()
            try:
                found = check()
            except CheckpointError as error:
                answered = isinstance(error, AccessDenied | StorageFull)
                self.is_reachable = answered or not isinstance(error, StorageError)
                found = Finding(name, "no", str(error), error)
            if name in ("list", "write", "read"):
                self._slowest = max(self._slowest, time.monotonic() - begun)
            yield found

    def _list(self) -> Finding:
        entries = self._backend.scan(layout.MANIFESTS)
        count = sum(layout.parse_manifest_key(each.key) is not None for each in entries)
        return Finding("list", "ok", tables.counted(count))

    def _read_newest(self) -> Finding:
        newest = self._opened.store.latest()
        if newest is None:
            return Finding("read", "note", "there is no checkpoint to read")
        return Finding("read", "ok", f"the newest checkpoint is {newest}")

    def _write(self) -> Finding:
        key = self._key("first")
        try:
            self._backend.create(key, _DATA)
        except (AccessDenied, StorageFull):
            self.left.remove(key)
            raise
        return Finding("write", "ok", "a small object was created")

    def _read(self) -> Finding:
        if self._backend.read(self._prefix + "first") != _DATA:
            raise CorruptionError("the object that was created has other bytes when it is read.")
        return Finding("read", "ok", "it was read back as it was written")

    def _put_if_absent(self) -> Finding:
        try:
            self._opened.another.create(self._key("first"), _DATA)
        except AlreadyExists:
            return Finding("put-if-absent", "ok", "a key that is taken is refused")
        text = "what is there is overwritten: the place ignores that a create must not"
        return Finding("put-if-absent", "no", text)

    def _race(self) -> Finding:
        both = (self._backend, self._opened.another)
        most = 0
        for number in range(_ROUNDS):
            key = self._key(f"race-{number}")
            start = threading.Barrier(_CALLERS)

            def create(caller: int, key: str = key, start: threading.Barrier = start) -> bool:
                start.wait()
                try:
                    both[caller % 2].create(key, b"%d" % caller)
                except AlreadyExists:
                    return False
                return True

            with ThreadPoolExecutor(_CALLERS) as pool:
                try:
                    most = max(most, sum(pool.map(create, range(_CALLERS))))
                except RuntimeError:  # a thread cannot be started: the others wait for it no more
                    start.abort()
                    text = f"not tried: this process may not start {_CALLERS} threads"
                    return Finding("race", "note", text)
        text = f"of {_CALLERS} callers at once {{}} created a key, in {_ROUNDS} rounds"
        if most > 1:
            return Finding("race", "no", text.format(f"up to {most}"))
        return Finding("race", "ok", text.format("one"))

    def _listing(self) -> Finding:
        key = self._key("listed")
        self._backend.create(key, _DATA)
        begun = time.monotonic()
        while True:
            entries = list(self._opened.another.scan(key))
            lag = time.monotonic() - begun
            if entries or lag > _PATIENCE_S:
                break
            time.sleep(0.5)
        if not entries:
            text = f"others do not see a new key within {_PATIENCE_S:.0f} s"
            return Finding("listing", "no", text)
        skew = (entries[0].modified or datetime.now(UTC)) - datetime.now(UTC)
        if abs(skew) > _SKEW:
            text = (
                f"the place's clock is {abs(skew).total_seconds():.0f} s "
                f"{'ahead of' if skew > timedelta(0) else 'behind'} this machine's; give a sweep "
                "an --older-than that is longer"
            )
            return Finding("listing", "note", text)
        return Finding("listing", "ok", f"others see a new key after {lag:.1f} s")

    def _transfer(self) -> Finding:
        scratch = self._opened.workspace.scratch()
        try:
            source, target = scratch.directory / "source", scratch.directory / "target"
            with disk.disk_errors("write", source):
                source.write_bytes(os.urandom(_TRANSFER_BYTES))
                wanted = hashing.hash_file(source)
            key = self._key("large")
            up = _seconds(lambda: self._backend.upload(source, key))
            down = _seconds(lambda: self._opened.another.download(key, target))
            if hashing.hash_file(target) != wanted:
                raise CorruptionError(
                    f"{tables.size(_TRANSFER_BYTES)} came back with other bytes than were sent. "
                    "Nothing else was touched. Do not save here."
                )
        finally:
            scratch.discard()
        rates = [f"{tables.size(int(_TRANSFER_BYTES / seconds))}/s" for seconds in (up, down)]
        sent = f"{tables.size(_TRANSFER_BYTES)} came back as sent: {rates[0]} up, {rates[1]} down"
        return Finding("transfer", "ok", sent)

    def _space(self) -> Finding:
        newest = self._opened.store.latest()
        size = newest.size if newest else 0
        free = self._backend.free_bytes()
        remarks = list(preflight.check_room(free, size, self._backend.url))
        known = "no bound is known" if free is None else f"{tables.size(free)} free"
        if self._opened.workspace.path.exists():
            with disk.disk_errors("look at", self._opened.workspace.path):
                staging = shutil.disk_usage(self._opened.workspace.path).free
            remarks += preflight.check_room(staging, size, "the workspace")
            known += f", {tables.size(staging)} in the workspace"
        if remarks:
            return Finding("space", "note", " ".join(remarks))
        return Finding("space", "ok", known)

    def _delete(self) -> Finding:
        try:
            self._backend.delete(*self.left)
        except AccessDenied:
            text = "no right to delete: saving and resuming work, pruning does not"
            return Finding("delete", "note", text)
        self.left = [entry.key for entry in self._backend.scan(self._prefix)]
        if self.left:
            return Finding("delete", "no", "what was deleted is still listed")
        return Finding("delete", "ok", "what was written for this is removed again")

    def _drafts(self) -> Finding:
        count = self._opened.workspace.sealed()
        if not count:
            return Finding("drafts", "ok", "none waits in the workspace")
        text = f"{tables.counted(count, 'draft')} in {self._opened.workspace.path}"
        return Finding("drafts", "note", f"{text}: the next start publishes what nobody works on")

    def _deadline(self) -> Finding:
        took = f"small calls took up to {self._slowest:.1f} s"
        if isinstance(self._backend, RetryingBackend):
            return Finding("deadline", "ok", f"{took}; each ends within 30 s")
        return Finding("deadline", "note", f"{took}; a disk that hangs makes them hang")

    def _key(self, name: str) -> str:
        key = self._prefix + name
        if key not in self.left:
            self.left.append(key)
        return key


def _seconds(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return max(time.monotonic() - begun, 0.001)
