"""A backend from which some bytes come wrong."""

import io
from pathlib import Path

from holdfast.backends.base import Backend, Moved, OpensFiles, unwatched
from tests.store.hooked import HookedBackend


class _Astray(HookedBackend):
    """Downloads that bring other bytes than those that lie in the inner backend."""

    def __init__(self, inner: Backend, wrong: dict[str, bytes], *, for_good: bool) -> None:
        super().__init__(inner, lambda verb, key, call: call())
        self._wrong = dict(wrong)
        self._for_good = for_good

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        wrong = self._taken(key)
        if wrong is None:
            self.inner.download(key, target, moved)
        else:
            target.write_bytes(wrong)

    def _taken(self, key: str) -> bytes | None:
        return self._wrong.get(key) if self._for_good else self._wrong.pop(key, None)


class _OpenedAstray(_Astray):
    """The same where files are read in their places."""

    def open_file(self, key: str) -> io.FileIO:
        wrong = self._taken(key)
        if wrong is None:
            return self.inner.open_file(key)
        beside = self.inner.root / "~wrong"
        beside.write_bytes(wrong)
        opened = io.FileIO(beside)
        beside.unlink()
        return opened


def astray(inner: Backend, wrong: dict[str, bytes], *, for_good: bool) -> Backend:
    """
    A backend with other bytes on the way than at the place.

    Parameters:
        inner (Backend): the place.
        wrong (dict[str, bytes]): what comes instead, by key.
        for_good (bool): each time; else the first time only.
    """
    kind = _OpenedAstray if isinstance(inner, OpensFiles) else _Astray
    return kind(inner, wrong, for_good=for_good)
