"""One look at all that lies under a prefix, many folders in one query."""

import warnings
from bisect import bisect_right
from collections.abc import Iterator

from holdfast import layout
from holdfast.backends import tree
from holdfast.backends.gdrive.folders import Folders
from holdfast.backends.gdrive.items import Item
from holdfast.backends.gdrive.known import Known
from holdfast.errors import CheckpointWarning

#: How many folders are looked into in one query.
_FOLDERS = 40


class Listing:
    """
    The files under a prefix, in the order of their paths.

    Folders of checkpoints are looked into many at a time. Others are not: several accounts may
    write into one of them, and a query over many folders can miss what another account has put
    there, and not say so. What belongs to one checkpoint comes from one writer.

    Parameters:
        folders (Folders): finds them.
        known (Known): what this process has done.
        root (str): the path of the store, which paths here begin with.
    """

    def __init__(self, folders: Folders, known: Known, root: str) -> None:
        self._folders = folders
        self._known = known
        self._many = root + layout.FILES
        self._ids: dict[str, list[str]] = {}
        self._read: dict[str, list[tuple[str, Item]]] = {}
        self._prefix = ""

    def files(self, prefix: str, after: str) -> Iterator[tuple[str, Item]]:
        """Every file whose path starts with the prefix and sorts after `after`, in order."""
        self._prefix = prefix
        return tree.walk(self._names, prefix, after)

    def _names(self, directory: str) -> list[tuple[str, Item]]:
        if directory not in self._read:
            self._look_into(directory)
        return self._read.pop(directory)

    def _look_into(self, directory: str) -> None:
        """Read a folder, and some of those that come after it in one go."""
        batch = {directory: self._ids.pop(directory, None) or self._folders.twins(directory)}
        if directory.startswith(self._many):
            waiting = sorted(path for path in self._ids if path.startswith(self._prefix))
            # Those before it were passed over, since nothing is wanted of them.
            for path in waiting[bisect_right(waiting, directory) :][: _FOLDERS - 1]:
                batch[path] = self._ids.pop(path)
            found = self._folders.children_of_many([id for ids in batch.values() for id in ids])
        else:
            found = {id: self._folders.children(id) for ids in batch.values() for id in ids}
        for path, ids in batch.items():
            self._read[path] = self._merged(path, [item for id in ids for item in found[id]])

    def _merged(self, directory: str, items: list[Item]) -> list[tuple[str, Item]]:
        """The names in a folder, each once, with what this process has made there."""
        found: dict[str, list[Item]] = {name: [] for name in self._known.written_in(directory)}
        for item in items:
            # Drive allows a name with a slash, or none at all, and no path leads to it.
            if (item.is_folder or item.is_file) and item.name and "/" not in item.name:
                found.setdefault(item.name + "/" * item.is_folder, []).append(item)
        names: list[tuple[str, Item]] = []
        for name, same in found.items():
            twins = self._folders.with_mine(directory + name, same)
            if name.endswith("/"):
                self._ids[directory + name] = [item.id for item in twins]
            elif len(twins) > 1:
                self._warn(directory + name, len(twins))
            names += [(name, item) for item in twins[:1]]
        return names

    def _warn(self, path: str, count: int) -> None:
        if path not in self._known.warned:
            self._known.warned.add(path)
            warnings.warn(
                f"{path} is there {count} times in Drive, which allows that; the earliest is used, "
                "here and everywhere. Nothing is lost. Two processes created it at once, or "
                "somebody has copied it: save from one process at a time, and remove the later.",
                CheckpointWarning,
                stacklevel=2,
            )
