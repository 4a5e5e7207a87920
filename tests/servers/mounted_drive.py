"""
Google Drive as Colab mounts it, imitated by a process of its own on a real mount.

There are no links and no renames that refuse a taken name; a sync is accepted and means nothing. A
closed file lies in a cache, and reaches Drive later, in any order, as a command says or by itself,
while a removal is sent at once; what has not arrived is lost when the machine dies. Faults come at
chosen requests.
"""

import contextlib
import errno
import itertools
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.fuse import Connection, Node, NotPossibleError, mount, unmount

ROOT = Path(__file__).parents[2]
#: As much as there is where no quota was set.
_PLENTY = 1 << 40
#: For so many requests a file is left alone before it is sent by itself, unless a test says less.
_MOMENT = 60


@dataclass(frozen=True)
class Fault:
    """Which request fails with what: the one of this number among those named, or each such."""

    at: int
    code: int
    requests: frozenset[str]
    after: bool
    every: bool

    def strikes(self, seen: int) -> bool:
        return seen % self.at == 0 if self.every else seen == self.at


class Drive:
    """
    The files as this machine sees them, and those that have arrived.

    Parameters:
        seed: decides what arrives when.
        settle: how likely it is after a request that one waiting file arrives.
        moment: for how many requests a file is left alone before.
    """

    def __init__(self, seed: int, settle: float, moment: int) -> None:
        self._random = random.Random(seed)
        self._settle = settle
        self._moment = moment
        self._numbers = itertools.count(2)
        self._arrived: dict[int, tuple[str, bytes]] = {}
        self._sent: list[tuple[str, int]] = []
        self._quota, self._full_code, self._full_at_close = _PLENTY, errno.ENOSPC, False
        self._has_ids = True
        self._arrival_by_looks: int | None = None
        self._count = 0
        self._fault: Fault | None = None
        self._seen, self._due = 0, False
        self.hanging = False
        self._begin_anew()

    # What tests command.

    def fail(
        self,
        at: int,
        code: int,
        requests: Sequence[str] = (),
        *,
        after: bool = False,
        every: bool = False,
    ) -> None:
        """Fail a request among those named, or among all; `after` it took effect."""
        self._fault = Fault(at, code, frozenset(requests), after, every)
        self._seen = 0

    def heal(self) -> int:
        """No more faults; gives how many requests there were of those named."""
        self._fault = None
        return self._seen

    def set_quota(self, size: int, code: int, *, at_close: bool) -> None:
        """Allow so many bytes; what is over fails with the code, at the write or at the close."""
        self._quota, self._full_code, self._full_at_close = size, code, at_close

    def hang(self, *, still: bool) -> None:
        """Answer nothing any more, or again."""
        self.hanging = still

    def set_attribute(self, *, there: bool) -> None:
        """Whether the attribute that tells a file's id is there at all."""
        self._has_ids = there

    def arrive_by_looks(self, looks: int) -> None:
        """All that waits arrives when the attribute has been looked at so many times."""
        self._arrival_by_looks = looks

    def arrive(self) -> None:
        """All that waits arrives."""
        for number in list(self._waiting):
            self._send(number)

    def arrive_below(self, path: str) -> None:
        """What waits in a directory arrives."""
        for number in [each for each in self._waiting if each in self._where]:
            if self._path(self._nodes[number]).startswith(path + "/"):
                self._send(number)

    def sent(self) -> list[tuple[str, int]]:
        """Every file that Drive was ever sent, with its size then, in order."""
        return self._sent

    def die(self) -> None:
        """The machine dies, and another one mounts what has arrived."""
        self._begin_anew()

    def arrived(self) -> list[str]:
        """The paths in Drive, sorted; two files may have one."""
        return sorted(path for path, _ in self._arrived.values())

    def put(self, path: str, data: str, lag: int) -> None:
        """Another client writes a file; it shows after so many listings of its directory."""
        file = self._place(path, data.encode("latin-1"))
        self._arrived[file.number] = (path, bytes(file.data))
        self._lag[file.number] = lag

    # What the kernel asks.

    def node(self, number: int) -> Node:
        try:
            return self._nodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, "of a machine that died") from None

    def begin(self, request: str) -> None:
        self._due = False
        fault = self._fault
        if fault is None or (fault.requests and request not in fault.requests):
            return
        self._seen += 1
        if fault.strikes(self._seen):
            if not fault.after:
                raise OSError(fault.code, "as commanded")
            self._due = True

    def end(self, request: str) -> None:
        self._count += 1
        for number in [each for each in self._waiting if each not in self._where]:
            self._send(number)  # a removal goes at once, a content when its turn comes
        ready = [
            each for each, since in self._waiting.items() if self._count - since >= self._moment
        ]
        if ready and self._random.random() < self._settle:
            self._send(self._random.choice(ready))
        if self._due and self._fault:
            raise OSError(self._fault.code, "as commanded, after it took effect")

    def look(self, parent: Node, name: str) -> Node:
        found = parent.child(name)
        if found.number in self._lag:
            raise OSError(errno.ENOENT, name)
        return found

    def list(self, directory: Node) -> Iterable[tuple[str, Node]]:
        for name, node in list((directory.children or {}).items()):
            left = self._lag.get(node.number, 0)
            if left:
                self._lag[node.number] = left - 1
                continue
            self._lag.pop(node.number, None)
            yield name, node

    def make(self, parent: Node, name: str, *, directory: bool) -> Node:
        with contextlib.suppress(FileNotFoundError):
            self.look(parent, name)
            raise OSError(errno.EEXIST, name)
        return self._new(parent, name, directory=directory)

    def write(self, file: Node, offset: int, data: bytes) -> None:
        self._make_room(max(0, offset + len(data) - len(file.data)), file)
        file.data[offset : offset + len(data)] = data
        file.modified = time.time()
        self._written.add(file.number)

    def resize(self, file: Node, size: int) -> None:
        del file.data[size:]
        file.data.extend(bytes(size - len(file.data)))
        self._written.add(file.number)

    def close(self, file: Node) -> None:
        if file.number in self._written:
            self._written.discard(file.number)
            self._waiting[file.number] = self._count
            if self._full_at_close and self._used() > self._quota:
                raise OSError(self._full_code, "over the quota")

    def remove(self, parent: Node, name: str, *, directory: bool) -> None:
        found = self.look(parent, name)
        if found.is_directory != directory:
            raise OSError(errno.ENOTDIR if directory else errno.EISDIR, name)
        if found.children:
            raise OSError(errno.ENOTEMPTY, name)
        self._forget(parent, name)

    def rename(self, parent: Node, name: str, target: Node, new: str) -> None:
        moved = self.look(parent, name)
        if new in (target.children or {}):
            self._forget(target, new)
        assert parent.children is not None
        assert target.children is not None
        target.children[new] = parent.children.pop(name)
        self._where[moved.number] = (target, new)
        self._waiting.update(dict.fromkeys(self._files_below(moved), self._count))

    def attribute(self, node: Node, name: str) -> bytes:
        if name != "user.drive.id" or not self._has_ids:
            raise OSError(errno.ENODATA, name)
        if self._arrival_by_looks is not None:
            self._arrival_by_looks -= 1
            if self._arrival_by_looks <= 0:
                self.arrive()
        there = node.is_directory or node.number in self._arrived
        return f"{'1' if there else 'local-'}{node.number:032d}".encode()

    def space(self) -> tuple[int, int]:
        return self._quota, max(0, self._quota - self._used())

    def _begin_anew(self) -> None:
        arrived = sorted(self._arrived.items())
        self.root = Node(1, directory=True)
        self._nodes: dict[int, Node] = {1: self.root}
        self._where: dict[int, tuple[Node, str]] = {}
        self._lag: dict[int, int] = {}
        self._waiting: dict[int, int] = {}  # since which request
        self._written: set[int] = set()
        self._arrived = {}
        for _, (path, data) in arrived:
            file = self._place(path, data)
            self._arrived[file.number] = (self._path(file), data)

    def _place(self, path: str, data: bytes) -> Node:
        *parents, name = path.split("/")
        directory = self.root
        for part in parents:
            assert directory.children is not None
            found = directory.children.get(part)
            directory = found or self._new(directory, part, directory=True)
        while name in (directory.children or {}):  # a twin
            name += " (1)"
        file = self._new(directory, name, directory=False)
        file.data.extend(data)
        self._waiting.pop(file.number, None)
        self._written.discard(file.number)
        return file

    def _new(self, parent: Node, name: str, *, directory: bool) -> Node:
        assert parent.children is not None
        made = Node(next(self._numbers), directory=directory)
        hidden = parent.children.get(name)
        if hidden is not None:  # somebody else's, which has not shown yet: now they are twins
            parent.children[f"{name} (1)"] = hidden
            self._where[hidden.number] = (parent, f"{name} (1)")
        parent.children[name] = made
        self._nodes[made.number] = made
        self._where[made.number] = (parent, name)
        if not directory:
            self._written.add(made.number)
        return made

    def _forget(self, parent: Node, name: str) -> None:
        assert parent.children is not None
        gone = parent.children.pop(name)
        del self._where[gone.number]
        self._waiting.update(dict.fromkeys(self._files_below(gone), self._count))

    def _send(self, number: int) -> None:
        del self._waiting[number]
        if number in self._where:
            file = self._nodes[number]
            self._arrived[number] = (self._path(file), bytes(file.data))
            self._sent.append((self._path(file), len(file.data)))
        else:
            self._arrived.pop(number, None)

    def _path(self, node: Node) -> str:
        names: list[str] = []
        while node is not self.root:
            node, name = self._where[node.number]
            names.insert(0, name)
        return "/".join(names)

    def _files_below(self, node: Node) -> Iterator[int]:
        if node.children is None:
            yield node.number
        for child in (node.children or {}).values():
            yield from self._files_below(child)

    def _used(self) -> int:
        return sum(len(self._nodes[number].data) for number in self._where)

    def _make_room(self, more: int, file: Node) -> None:
        if not self._full_at_close and self._used() + more > self._quota:
            raise OSError(self._full_code, "over the quota")


class MountedDrive:
    """
    A Drive of one's own, mounted for as long as the `with` block runs.

    Parameters:
        place: an empty directory.
        kind: what the table of mounts calls it, after `fuse.`.
        seed, settle, moment: as `Drive`.

    Raises:
        NotPossibleError: nothing can be mounted here; it says why.
    """

    def __init__(
        self,
        place: Path,
        *,
        kind: str = "drive",
        seed: int = 0,
        settle: float = 0.0,
        moment: int = _MOMENT,
    ) -> None:
        self.place = place
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-m", __name__]
            + [str(each) for each in (place, kind, seed, settle, moment)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a signal to all of ours ends them; this one has to unmount
        )
        impossible = self._reply()
        if impossible:
            self.__exit__()
            raise NotPossibleError(impossible)

    def __enter__(self) -> "MountedDrive":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the other side unmounts, and ends
        self._process.wait()
        self._process.stdout.close()

    def tell(self, command: str, **arguments: Any) -> Any:
        """Have `Drive` do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main(place: str, kind: str, seed: str, settle: str, moment: str) -> None:
    """Mount, and answer the kernel and the commands until nobody commands any more."""
    drive = Drive(int(seed), float(settle), int(moment))
    try:
        device = mount(Path(place), kind)
    except NotPossibleError as error:
        print(json.dumps(str(error)), flush=True)
        return
    connection = Connection(device, drive)
    print(json.dumps(None), flush=True)
    pending = b""
    try:
        while True:
            ready, _, _ = select.select([0] if drive.hanging else [0, device], [], [])
            if device in ready and not connection.answer_one():
                return
            if 0 in ready:
                received = os.read(0, 1 << 20)
                if not received:
                    return
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    command, arguments = json.loads(line)
                    print(json.dumps(getattr(drive, command)(**arguments)), flush=True)
    finally:
        unmount(Path(place))


if __name__ == "__main__":
    main(*sys.argv[1:])
