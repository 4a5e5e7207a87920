"""A backend that lets a test stand beside each of its calls."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.backends.base import Backend, Moved, unwatched

Around = Callable[[str, str, Callable[[], Any]], Any]


class HookedBackend:
    """
    Hands every call to a function, with the verb, the key and what does it.

    Parameters:
        inner (Backend): does the work.
        around (Callable): gives the result, by calling its third argument or in another way.
    """

    def __init__(self, inner: Backend, around: Around) -> None:
        self.inner = inner
        self.url = inner.url
        self.traits = inner.traits
        self._around = around

    def free_bytes(self) -> int | None:
        return self.inner.free_bytes()

    def create(self, key: str, data: bytes) -> None:
        self._around("create", key, lambda: self.inner.create(key, data))

    def read(self, key: str) -> bytes:
        return self._around("read", key, lambda: self.inner.read(key))

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        self._around("upload", key, lambda: self.inner.upload(source, key, moved))

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        self._around("download", key, lambda: self.inner.download(key, target, moved))

    def scan(self, prefix: str, after: str = ""):
        return iter(self._around("scan", prefix, lambda: list(self.inner.scan(prefix, after))))

    def delete(self, *keys: str) -> None:
        for key in keys:  # a batch may end in the middle
            self._around("delete", key, partial(self.inner.delete, key))
