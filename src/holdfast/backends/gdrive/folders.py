"""Paths and what lies under them: in Drive a folder has an id, and its name is not its own."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from holdfast.backends.gdrive.client import Client, quoted
from holdfast.backends.gdrive.failures import Refusal
from holdfast.backends.gdrive.items import FOLDER, Item
from holdfast.backends.gdrive.known import Attempt, Known
from holdfast.backends.gdrive.places import Base

#: Seconds that the folders of a path are believed without a question: listings lag by more.
_FRESH_S = 3.0
#: Seconds after which a path is followed anew, folder by folder.
_TRUST_S = 60.0
#: How many names are asked for in one query.
_NAMES = 40
_THERE = "trashed = false"


@dataclass
class _Seen:
    """The ids of the folders that a path had, when it was followed, and when last asked about."""

    ids: list[str]
    followed: float
    asked: float


class Folders:
    """
    The folders below a base, and what is in them.

    Two folders may have one name in one place; then both are meant: what is in either is there, and
    what is new goes into the earlier one. After a moment ids that were found are asked about again,
    all in one query, before they are relied on; and what is made in a folder that went into the
    trash meanwhile says so. So such a folder swallows nothing.

    Parameters:
        client (Client): makes the calls.
        base (Base): where paths begin.
        known (Known): what this process has done.
    """

    def __init__(self, client: Client, base: Base, known: Known) -> None:
        self.base = base
        self._client = client
        self._known = known
        self._seen: dict[str, _Seen] = {}

    def twins(self, directory: str) -> list[str]:
        """The ids of all folders that have a path, the earliest first; none if there is none."""
        levels = _levels(directory)
        believed = self._believed(levels)
        above = self._ids_of(levels[believed - 1]) if believed else [self.base.id]
        for level in levels[believed:]:
            above = self._follow(level, above)
        if not above:
            self.base.check(self._client)
        return above

    def make(self, directory: str) -> list[str]:
        """Make a path that was just looked for, as far as it is missing; the ids, as `twins`."""
        above = [self.base.id]
        with self._known.making:
            for level in _levels(directory):
                # Another thread may have made it since.
                above = self._ids_of(level) or [self._make(level, above[0]).id]
                self._note(level, above)
        return above

    def look(self, path: str, *, parents: list[str] | None = None) -> list[Item]:
        """
        The files that have a path, the earliest first.

        Parameters:
            parents (list[str] | None): the ids of its folders, where they are known; None asks
                first whether they still are those.
        """
        directory, name = split(path)
        if parents is None:
            parents = self.twins(directory)
        return self.with_mine(path, self._named(parents, name, is_folder=False))

    def glance(self, path: str) -> list[Item]:
        """As `look`, but without asking about the folders first if something is found anyway."""
        seen = self._seen.get(split(path)[0])
        if seen is not None and (found := self.look(path, parents=seen.ids)):
            return found
        return self.look(path)

    def among(self, parents: list[str], names: list[str]) -> list[Item]:
        """The files in folders that have one of some names."""
        found: list[Item] = []
        for start in range(0, len(names), _NAMES):
            wanted = names[start : start + _NAMES]
            either = " or ".join(map(_called, wanted))
            for parent in parents:
                items = self._find(f"{_THERE} and {_in(parent)} and ({either})", parent)
                found += [item for item in items if item.is_file and item.name in wanted]
        return found

    def children(self, parent: str) -> list[Item]:
        """All that is in a folder and not in the trash."""
        return self._find(f"{_THERE} and {_in(parent)}", parent)

    def children_of_many(self, parents: list[str]) -> dict[str, list[Item]]:
        """As `children`, of several folders in one query."""
        found: dict[str, list[Item]] = {parent: [] for parent in parents}
        if len(parents) > 1 and self.base.is_whole:
            either = " or ".join(map(_in, parents))
            try:
                items = self._client.find(f"{_THERE} and ({either})", self.base.drive)
            except Refusal as refusal:  # one of them is gone
                if refusal.status != HTTPStatus.NOT_FOUND:
                    raise
                items = []
            for item in items:
                for parent in {*item.parents} & {*found}:
                    found[parent].append(item)
        # Asked about many, Drive has said "nothing" where there was something.
        for parent in [parent for parent, items in found.items() if not items]:
            found[parent] = self.children(parent)
        return {
            parent: [item for item in items if not self._known.is_gone(item.id)]
            for parent, items in found.items()
        }

    def is_empty(self, parent: str, *, trash_too: bool) -> bool:
        """Whether nothing is in a folder."""
        query = _in(parent) if trash_too else f"{_THERE} and {_in(parent)}"
        return not self._find(query, parent)

    def with_mine(self, path: str, found: list[Item]) -> list[Item]:
        """
        What a listing shows under a path and what this process has made there, the earliest first.

        A listing may not show yet what was made, and still show what another process has removed.
        """
        ranked = sorted(found, key=lambda item: item.rank)
        mine = self._known.written(path)
        if mine is None:
            return ranked
        if mine.id not in {item.id for item in ranked}:
            if not self.is_there(mine):
                return ranked
            ranked = sorted([*ranked, mine], key=lambda item: item.rank)
        while ranked[0].id != mine.id and not self.is_there(ranked[0]):
            self._known.removed(ranked.pop(0).id)
        return ranked

    def is_there(self, item: Item) -> bool:
        """Whether something that was made or seen is still there, asked by its id."""
        return self._has(item.id)

    def remove(self, id: str, *, trash: bool) -> None:
        """Remove a file or folder, and know that it is gone; one that is gone is fine."""
        try:
            self._client.remove(id, trash=trash)
        except Refusal as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
            self.check_sight()
        self._known.removed(id)

    def check_sight(self) -> None:
        """
        Tell what is missing from what this account does not see any more, where all is missing.

        Raises:
            Refusal: it does not even see where paths begin.
        """
        self._client.find(f"{_in(self.base.id)} and {_called('~')}", self.base.drive)

    def doubt(self, directory: str) -> bool:
        """Ask for the folders of a path by their ids, and forget what is gone; whether any is."""
        ids = {id for level in _levels(directory) for id in self._ids_of(level)}
        gone = [id for id in ids if not self._has(id)]
        for id in gone:
            self._known.removed(id)
        for level in _levels(directory):
            self._seen.pop(level, None)
        return bool(gone)

    def _follow(self, level: str, above: list[str]) -> list[str]:
        found = self.with_mine(level, self._named(above, _last(level), is_folder=True))
        ids = [item.id for item in found]
        self._note(level, ids)
        return ids

    def _note(self, level: str, ids: list[str]) -> None:
        now = self._known.clock()
        self._seen[level] = _Seen(ids, now, now)

    def _ids_of(self, level: str) -> list[str]:
        """The ids that a path had, as far as this process has not removed them since."""
        seen = self._seen.get(level)
        return [id for id in seen.ids if not self._known.is_gone(id)] if seen else []

    def _believed(self, levels: list[str]) -> int:
        """How many of the folders of a path are still those that they were when it was followed."""
        now = self._known.clock()
        known: dict[str, _Seen] = {}
        for level in levels:
            seen = self._seen.get(level)
            if seen is None or not self._ids_of(level) or now - seen.followed > _TRUST_S:
                break
            known[level] = seen
        if any(now - seen.asked > _FRESH_S for seen in known.values()):
            # To follow one folder takes no more calls than to ask.
            if len(known) < 2 or not self.base.is_whole or not self._are_there(known):
                return 0
            for seen in known.values():
                seen.asked = now
        return len(known)

    def _are_there(self, known: dict[str, _Seen]) -> bool:
        """Ask for all folders of a path in one query: whether it has these and no others."""
        terms, above = [], [self.base.id]
        for level, seen in known.items():
            terms += [f"({_in(parent)} and {_called(_last(level))})" for parent in above]
            above = seen.ids
        query = f"{_THERE} and mimeType = {quoted(FOLDER)} and ({' or '.join(terms)})"
        try:
            items = self._client.find(query, self.base.drive)
        except Refusal as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        names = {_last(level) for level in known}
        wanted = {id for seen in known.values() for id in seen.ids}
        there = {item.id for item in items if item.name in names}
        found = {id for id in there if not self._known.is_gone(id)}
        for level in known:
            mine = self._known.written(level)
            if mine is not None and mine.id in wanted - found and self.is_there(mine):
                found.add(mine.id)
        return found == wanted

    def _named(self, parents: list[str], name: str, *, is_folder: bool) -> list[Item]:
        kind = f"mimeType {'=' if is_folder else '!='} {quoted(FOLDER)}"
        return [
            item
            for parent in parents
            for item in self._find(" and ".join((_THERE, _in(parent), _called(name), kind)), parent)
            # To Drive `a` and `A` are one name.
            if item.name == name and (item.is_folder if is_folder else item.is_file)
        ]

    def _find(self, query: str, parent: str) -> list[Item]:
        try:
            found = self._client.find(query, self.base.drive)
        except Refusal as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND or parent == self.base.id:
                raise
            self.check_sight()
            return []  # deleted since its id was found
        return [item for item in found if not self._known.is_gone(item.id)]

    def _has(self, id: str) -> bool:
        now = self._client.get(id)
        if now is None:
            self.check_sight()
        return now is not None and not now.trashed

    def _make(self, level: str, parent: str) -> Item:
        item, _ = made_once(
            self._client,
            self._known,
            level,
            lambda attempt: self._client.make_folder(_last(level), parent, attempt.id),
        )
        self._known.wrote(level, item)
        self._known.attempts.pop(level, None)
        return item


def made_once(
    client: Client, known: Known, path: str, make: Callable[[Attempt], Item]
) -> tuple[Item, bool]:
    """
    Make a file or folder under an id that was made beforehand, or find that it was made already.

    Parameters:
        path (str): under which an earlier try was noted, if there was one; it stays noted until
            the caller has done all that belongs to it.
        make (Callable[[Attempt], Item]): makes it.

    Returns:
        tuple[Item, bool]: what has the id now, and whether this call made it. An earlier try may
            have made it of other content.
    """
    attempt = known.attempts.get(path)
    is_first = attempt is None
    attempt = known.attempts.setdefault(path, attempt or Attempt(client.new_id()))
    with attempt.lock:
        found = None if is_first else client.get(attempt.id)
        if found is None:
            try:
                made = make(attempt)
            except Refusal as refusal:
                conflict = refusal.status == HTTPStatus.CONFLICT
                found = client.get(attempt.id) if conflict else None
                if found is None:
                    raise
    return (made, True) if found is None else (found, False)


def split(path: str) -> tuple[str, str]:
    """The folder of a path, and the name in it."""
    end = path.rfind("/") + 1
    return path[:end], path[end:]


def _levels(directory: str) -> list[str]:
    """A folder and all above it, the uppermost first."""
    return [directory[: end + 1] for end, letter in enumerate(directory) if letter == "/"]


def _last(directory: str) -> str:
    """The name of a folder."""
    return directory.split("/")[-2]


def _in(parent: str) -> str:
    return f"{quoted(parent)} in parents"


def _called(name: str) -> str:
    # Drive does not find every name outside of ASCII by itself; then all names are looked at.
    return f"name = {quoted(name)}" if name.isascii() else _THERE
