"""A tree that nobody may touch: every look into it and every change is seen."""

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

#: IN_ALL_EVENTS and IN_NONBLOCK of the kernel's sys/inotify.h, and what the events are.
_ALL, _NONBLOCK = 0xFFF, 0o4000
_NAMES = {
    0x001: "read",
    0x002: "written",
    0x004: "given other rights or times",
    0x008: "closed after writing",
    0x010: "closed",
    0x020: "opened",
    0x040: "something moved from it",
    0x080: "something moved into it",
    0x100: "something made in it",
    0x200: "something deleted in it",
    0x400: "deleted",
    0x800: "moved",
}


class Canary:
    """
    Watches each file and each directory of a tree, under whatever name somebody comes to it.

    Linux tells of a file by its inode, so a link that leads here, also a hard one, is no way round.

    Parameters:
        tree (Path): where.
        only_changes (bool): where its files have other names inside, they may be read by these.
    """

    def __init__(self, tree: Path, *, only_changes: bool = False) -> None:
        self._tree = tree
        self._only_changes = only_changes
        self._before: dict[str, object] = {}
        self._watched: dict[int, Path] = {}
        self._inotify = -1

    def __enter__(self) -> Self:
        self._before = self._look()
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(_NONBLOCK)
        for path in [self._tree, *self._tree.rglob("*")]:
            if not path.is_symlink():
                number = libc.inotify_add_watch(self._inotify, os.fsencode(path), _ALL)
                self._watched[number] = path
        if min(self._watched) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._inotify)

    def touched(self) -> list[str]:
        """What was done to the tree since it is watched."""
        found = [] if self._only_changes else dict.fromkeys(self._events())
        now = self._look()
        names = sorted(
            name
            for name in now.keys() | self._before.keys()
            if now.get(name) != self._before.get(name)
        )
        return [*found, *(f"{name} is not as it was" for name in names)]

    def _events(self) -> list[str]:
        try:
            data = os.read(self._inotify, 1 << 20)
        except BlockingIOError:
            return []
        told = []
        while data:
            number, mask, _, length = struct.unpack_from("iIII", data)
            data = data[16 + length :]
            what = [name for bit, name in _NAMES.items() if mask & bit]
            told.append(f"{self._watched[number].relative_to(self._tree)}: {', '.join(what)}")
        return told

    def _look(self) -> dict[str, object]:
        """What can be seen without opening anything; whatever is written changes a time."""
        found: dict[str, object] = {}
        for path in [self._tree, *self._tree.rglob("*")]:
            status = path.lstat()
            target = str(path.readlink()) if path.is_symlink() else ""
            size = 0 if path.is_dir() else status.st_size
            found[str(path.relative_to(self._tree))] = (
                status.st_mode,
                status.st_uid,
                size,
                status.st_mtime_ns,
                target,
            )
        return found
