"""
The kernel's FUSE protocol, spoken over /dev/fuse in pure Python: a real filesystem for tests.

The numbers and the layouts are those of `linux/fuse.h`, protocol 7.31, on a little-endian machine.
Nothing is cached in the kernel, so every call of a program arrives here.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import stat
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

_MNT_DETACH = 2
#: What is read at once: a request with the largest write, and room for its headers.
_MAX_WRITE = 1024 * 1024
_BUFFER_BYTES = _MAX_WRITE + 64 * 1024
_ASYNC_READ, _BIG_WRITES, _MAX_PAGES = 1 << 0, 1 << 5, 1 << 22
_DIRECT_IO = 1 << 0
_SET_MODE, _SET_SIZE, _SET_MTIME, _SET_MTIME_NOW = 1 << 0, 1 << 3, 1 << 5, 1 << 8

_HEADER = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_SETATTR = struct.Struct("<II6Q8I")
_TRANSFER = struct.Struct("<QQIIQII")

#: The requests, by their number.
NAMES = {
    1: "lookup",
    2: "forget",
    3: "getattr",
    4: "setattr",
    9: "mkdir",
    10: "unlink",
    11: "rmdir",
    12: "rename",
    13: "link",
    14: "open",
    15: "read",
    16: "write",
    17: "statfs",
    18: "release",
    20: "fsync",
    22: "getxattr",
    25: "flush",
    26: "init",
    27: "opendir",
    28: "readdir",
    29: "releasedir",
    30: "fsyncdir",
    34: "access",
    35: "create",
    36: "interrupt",
    42: "batch_forget",
    45: "rename2",
}
_UNANSWERED = frozenset({"forget", "interrupt", "batch_forget"})


class NotPossibleError(RuntimeError):
    """This machine does not let us mount a filesystem, so nothing can be said about one."""


class Node:
    """
    A file or a directory.

    Attributes:
        number: what the kernel knows it by; never used again.
        children: the names in a directory; None for a file.
        data: a file's bytes.
    """

    def __init__(self, number: int, *, directory: bool) -> None:
        self.number = number
        self.children: dict[str, Node] | None = {} if directory else None
        self.data = bytearray()
        self.mode = 0o755 if directory else 0o644
        self.modified = time.time()

    @property
    def is_directory(self) -> bool:
        return self.children is not None

    def child(self, name: str) -> "Node":
        if self.children is None:
            raise OSError(errno.ENOTDIR, name)
        found = self.children.get(name)
        if found is None:
            raise OSError(errno.ENOENT, name)
        return found


class Filesystem(Protocol):
    """What answers the requests. An `OSError` is the answer that the program gets."""

    root: Node

    def node(self, number: int) -> Node: ...
    def begin(self, request: str) -> None: ...
    def end(self, request: str) -> None: ...
    def look(self, parent: Node, name: str) -> Node: ...
    def list(self, directory: Node) -> Iterable[tuple[str, Node]]: ...
    def make(self, parent: Node, name: str, *, directory: bool) -> Node: ...
    def write(self, file: Node, offset: int, data: bytes) -> None: ...
    def resize(self, file: Node, size: int) -> None: ...
    def close(self, file: Node) -> None: ...
    def remove(self, parent: Node, name: str, *, directory: bool) -> None: ...
    def rename(self, parent: Node, name: str, target: Node, new: str) -> None: ...
    def attribute(self, node: Node, name: str) -> bytes: ...
    def space(self) -> tuple[int, int]: ...


def mount(place: Path, kind: str) -> int:
    """
    Mount at a directory; gives the descriptor that requests come from.

    Parameters:
        kind: what follows `fuse.` in the tables of mounts.

    Raises:
        NotPossibleError: with what is missing.
    """
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NotPossibleError(f"/dev/fuse cannot be opened: {error.strerror}") from error
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    kind_bytes = f"fuse.{kind}".encode()
    if libc.mount(kind.encode(), os.fsencode(place), kind_bytes, 0, options.encode()) != 0:
        number = ctypes.get_errno()
        os.close(device)
        raise NotPossibleError(
            f"mount(2) answers {os.strerror(number)}: it needs root, or a namespace such as "
            "`unshare --user --map-root-user --mount` gives"
        )
    return device


def unmount(place: Path) -> None:
    """Take the mount away at once, whoever still has something open there."""
    ctypes.CDLL(None).umount2(os.fsencode(place), _MNT_DETACH)


class Connection:
    """
    Answers the kernel's requests with what a filesystem says.

    Parameters:
        device: as `mount` gives it.
        filesystem: what answers.
    """

    def __init__(self, device: int, filesystem: Filesystem) -> None:
        self.device = device
        self._filesystem = filesystem
        self._buffer = bytearray(_BUFFER_BYTES)
        self._listings: dict[int, list[tuple[str, Node]]] = {}
        self._handles = itertools.count(1)

    def answer_one(self) -> bool:
        """Wait for one request and answer it; False once nothing is mounted any more."""
        try:
            count = os.readv(self.device, [self._buffer])
        except OSError as error:
            # The request was taken back, or nothing is mounted any more.
            return error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN)
        _, opcode, unique, number, *_ = _HEADER.unpack_from(self._buffer)
        body = memoryview(self._buffer)[_HEADER.size : count]
        request = NAMES.get(opcode, "")
        if request in _UNANSWERED:
            return True
        try:
            code, payload = 0, self._answer(request, number, body)
        except OSError as error:
            code, payload = -(error.errno or errno.EIO), b""
        header = _REPLY.pack(_REPLY.size + len(payload), code, unique)
        with contextlib.suppress(FileNotFoundError):  # nobody waits for it any more
            os.writev(self.device, [header, payload])
        return True

    def _answer(self, request: str, number: int, body: memoryview) -> bytes:
        if request == "init":
            return _init(body)
        if not request:
            raise OSError(errno.ENOSYS, "no such request here")
        self._filesystem.begin(request)
        reply: bytes = getattr(self, f"_{request}")(self._filesystem.node(number), body)
        self._filesystem.end(request)
        return reply

    def _lookup(self, parent: Node, body: memoryview) -> bytes:
        return _entry(self._filesystem.look(parent, _texts(body)[0]))

    def _getattr(self, node: Node, body: memoryview) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + _attributes(node)

    def _setattr(self, node: Node, body: memoryview) -> bytes:
        valid, _, _, size, _, _, mtime, _, _, mtime_ns, _, mode, *_ = _SETATTR.unpack_from(body)
        if valid & _SET_SIZE:
            self._filesystem.resize(node, size)
        if valid & _SET_MODE:
            node.mode = stat.S_IMODE(mode)
        if valid & _SET_MTIME:
            node.modified = time.time() if valid & _SET_MTIME_NOW else mtime + mtime_ns / 1e9
        return self._getattr(node, body)

    def _mkdir(self, parent: Node, body: memoryview) -> bytes:
        return _entry(self._filesystem.make(parent, _texts(body[8:])[0], directory=True))

    def _create(self, parent: Node, body: memoryview) -> bytes:
        made = self._filesystem.make(parent, _texts(body[16:])[0], directory=False)
        return _entry(made) + struct.pack("<QII", 0, _DIRECT_IO, 0)

    def _unlink(self, parent: Node, body: memoryview) -> bytes:
        self._filesystem.remove(parent, _texts(body)[0], directory=False)
        return b""

    def _rmdir(self, parent: Node, body: memoryview) -> bytes:
        self._filesystem.remove(parent, _texts(body)[0], directory=True)
        return b""

    def _rename(self, parent: Node, body: memoryview) -> bytes:
        name, new = _texts(body[8:])
        target = self._filesystem.node(struct.unpack_from("<Q", body)[0])
        self._filesystem.rename(parent, name, target, new)
        return b""

    def _rename2(self, parent: Node, body: memoryview) -> bytes:
        raise OSError(errno.EINVAL, "no flags")

    def _link(self, parent: Node, body: memoryview) -> bytes:
        raise OSError(errno.EPERM, "no links")

    def _open(self, node: Node, body: memoryview) -> bytes:
        return struct.pack("<QII", 0, _DIRECT_IO, 0)

    def _opendir(self, node: Node, body: memoryview) -> bytes:
        return struct.pack("<QII", next(self._handles), 0, 0)

    def _releasedir(self, node: Node, body: memoryview) -> bytes:
        self._listings.pop(struct.unpack_from("<Q", body)[0], None)
        return b""

    def _read(self, file: Node, body: memoryview) -> bytes:
        _, offset, size, *_ = _TRANSFER.unpack_from(body)
        return bytes(file.data[offset : offset + size])

    def _write(self, file: Node, body: memoryview) -> bytes:
        _, offset, size, *_ = _TRANSFER.unpack_from(body)
        data = body[_TRANSFER.size : _TRANSFER.size + size]
        self._filesystem.write(file, offset, bytes(data))
        return struct.pack("<II", size, 0)

    def _statfs(self, node: Node, body: memoryview) -> bytes:
        total, free = (count // 4096 for count in self._filesystem.space())
        return struct.pack("<5Q4I24x", total, free, free, 0, 0, 4096, 255, 4096, 0)

    def _flush(self, file: Node, body: memoryview) -> bytes:
        self._filesystem.close(file)
        return b""

    def _nothing(self, node: Node, body: memoryview) -> bytes:
        return b""

    _release = _fsync = _fsyncdir = _access = _nothing

    def _getxattr(self, node: Node, body: memoryview) -> bytes:
        value = self._filesystem.attribute(node, _texts(body[8:])[0])
        wanted = struct.unpack_from("<I", body)[0]
        if wanted and len(value) > wanted:
            raise OSError(errno.ERANGE, "too long")
        return value if wanted else struct.pack("<II", len(value), 0)

    def _readdir(self, directory: Node, body: memoryview) -> bytes:
        handle, offset, size, *_ = _TRANSFER.unpack_from(body)
        if not offset:  # one look at a directory is one listing, however many pages it takes
            self._listings[handle] = list(self._filesystem.list(directory))
        reply = b""
        for index, (name, node) in enumerate(self._listings[handle][offset:], start=offset + 1):
            text = name.encode()
            kind = stat.S_IFDIR >> 12 if node.is_directory else stat.S_IFREG >> 12
            record = struct.pack("<QQII", node.number, index, len(text), kind) + text
            record += bytes(-len(record) % 8)
            if len(reply) + len(record) > size:
                break
            reply += record
        return reply


def _init(body: memoryview) -> bytes:
    _, minor, readahead, offered = struct.unpack_from("<4I", body)
    wanted = offered & (_ASYNC_READ | _BIG_WRITES | _MAX_PAGES)
    pages = _MAX_WRITE // 4096
    return struct.pack(
        "<4I2H2I2HI28x", 7, min(minor, 31), readahead, wanted, 12, 9, _MAX_WRITE, 1, pages, 0, 0
    )


def _entry(node: Node) -> bytes:
    return struct.pack("<4Q2I", node.number, 0, 0, 0, 0, 0) + _attributes(node)


def _attributes(node: Node) -> bytes:
    kind = stat.S_IFDIR if node.is_directory else stat.S_IFREG
    seconds, fraction = divmod(node.modified, 1)
    moment, nanoseconds = int(seconds), int(fraction * 1e9)
    size = len(node.data)
    return _ATTRIBUTES.pack(
        *(node.number, size, -(-size // 512), moment, moment, moment),
        *(nanoseconds, nanoseconds, nanoseconds, kind | node.mode, 1),
        *(os.getuid(), os.getgid(), 0, 4096, 0),
    )


def _texts(body: memoryview) -> list[str]:
    """The names that end a request, each with a zero byte after it."""
    return [part.decode() for part in bytes(body).split(b"\0")[:-1]]
