"""The filesystems that one backend works with: none is shared by calls that could disturb it."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from fsspec.dircache import DirCache


class Clients:
    """
    Hands out a filesystem of fsspec for a call.

    Most filesystems have one connection, in which the replies of two calls at once get mixed up,
    and which does not come back when it was lost. So each is used by one call at a time, and after
    a failure another one is made. Those that run on fsspec's own thread are made for many calls.

    A forked child makes its own. What the parent made is kept in the child, unused: letting it go
    would say goodbye on the parent's connection.

    Parameters:
        first (AbstractFileSystem): the first one, made by this process.
        again (Callable[[], AbstractFileSystem] | None): makes another like it; None shares the
            first among all calls.
    """

    def __init__(self, first: Any, again: Callable[[], Any] | None = None) -> None:
        self._again = again or (lambda: first)
        self._shared = again is None or bool(getattr(first, "async_impl", False))
        self._idle = {os.getpid(): [_without_cache(first)]}

    @contextlib.contextmanager
    def one(self) -> Iterator[Any]:
        """A filesystem for one call."""
        idle = self._idle.setdefault(os.getpid(), [])
        try:
            client = idle[0] if self._shared else idle.pop()
        except IndexError:
            client = _without_cache(self._again())
            if self._shared:
                idle.append(client)
        try:
            yield client
        except (FileNotFoundError, FileExistsError):  # an answer, so the connection is in order
            if not self._shared:
                idle.append(client)
            raise
        except BaseException:
            if not self._shared:
                _close(client)
            raise
        if not self._shared:
            idle.append(client)


def _without_cache(client: Any) -> Any:
    if isinstance(cache := getattr(client, "dircache", None), DirCache):
        cache.use_listings_cache = False
        cache.clear()
    return client


def _close(client: Any) -> None:
    with contextlib.suppress(Exception):  # it may be broken, and is not needed any more
        getattr(client, "close", lambda: None)()
