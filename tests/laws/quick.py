"""Rounds by the thousand: what takes time in them and decides nothing is left out."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from holdfast import manifest
from tests.crash.points import memory


@contextlib.contextmanager
def quick() -> Iterator[Path]:
    """
    A directory in memory. A sync does nothing, since what a power cut leaves is tried elsewhere;
    the same bytes are parsed once, since what comes out of them never changes; and no path is
    looked through for links, since there are none.
    """
    with (
        memory() as directory,
        mock.patch.object(os, "fsync", _done_at_once),
        mock.patch("os.path.realpath", lambda path, **_: os.fspath(path)),
        mock.patch.object(manifest, "read", functools.lru_cache(10_000)(manifest.read)),
    ):
        yield directory


def _done_at_once(_: int) -> None:
    """In the place of a mock, which would keep every call."""
