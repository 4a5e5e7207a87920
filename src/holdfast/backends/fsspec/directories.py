"""Directories of an fsspec filesystem: made when they are missed, removed when they are empty."""

from collections.abc import Callable
from typing import Any

from holdfast.backends.fsspec.failures import is_missing

#: How often a directory is made anew that somebody else's delete takes away as empty.
_TRIES = 10


def find(fs: Any, path: str) -> dict[str, Any] | None:
    """
    What there is to know of a file or directory; None if it is missing.

    `exists` hides failures, so it is not asked.
    """
    fs.invalidate_cache()  # of filesystems that keep one of their own
    try:
        found: dict[str, Any] = fs.info(path)
    except Exception as error:
        if is_missing(error):
            return None
        raise
    return found


def with_parent(fs: Any, path: str, put: Callable[[], object]) -> None:
    """Put something at a path, whose directory is made if that fails for want of it."""
    parent = path.rpartition("/")[0]
    for left in reversed(range(_TRIES)):
        try:
            put()
        except Exception as error:
            # Where it is missing no longer, somebody else has made it since.
            if not left or not (is_missing(error) or not _is_directory(fs, parent)):
                raise
            _make(fs, parent)
        else:
            return


def remove_empty(fs: Any, path: str, *, levels: int) -> None:
    """Remove so many directories above a path, from the lowest up, as far as they are empty."""
    for _ in range(levels):
        path = path.rpartition("/")[0]
        try:
            fs.rmdir(path)
        except Exception:  # noqa: BLE001 - something else lies there, or it is gone
            return


def _is_directory(fs: Any, path: str) -> bool:
    found = find(fs, path)
    return found is not None and found["type"] == "directory"


def _make(fs: Any, path: str) -> None:
    if not path.strip("/") or _is_directory(fs, path):
        return
    _make(fs, path.rpartition("/")[0])
    try:
        fs.mkdir(path, create_parents=False)
    except Exception:
        if not _is_directory(fs, path):  # somebody else made it meanwhile, which is as good
            raise
