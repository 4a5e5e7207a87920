"""The place that a command works on: a typo in its name must not look like an empty store."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import disk, layout
from holdfast.backends import open_backend
from holdfast.backends.base import Backend
from holdfast.errors import CheckpointWarning, NotFoundError
from holdfast.staging import Workspace
from holdfast.store import CheckpointStore, open_store

_FILE = "file://"


@dataclass(frozen=True)
class Opened:
    """
    A place that was opened twice, as two processes have it.

    Attributes:
        store (CheckpointStore): on the first of the two.
        backend (Backend), another (Backend): the two.
    """

    store: CheckpointStore
    backend: Backend
    another: Backend

    @property
    def workspace(self) -> Workspace:
        """The store's."""
        return self.store.workspace


def open_place(
    place: str,
    *,
    options: Iterable[tuple[str, Any]] = (),
    workspace: str | None = None,
    may_be_new: bool = False,
) -> CheckpointStore:
    """
    The store in a place; nothing is written.

    Parameters:
        place (str): a directory or a URL.
        options (Iterable[tuple[str, Any]]): for the storage.
        workspace (str | None): as `open_store` takes it.
        may_be_new (bool): whether the place may have no store in it yet.

    Raises:
        NotFoundError: the directory does not exist, or what it holds is no store. Of any other
            place it cannot be told: nothing there looks the same as an empty store.
        others: as `open_store`.
    """
    with warnings.catch_warnings():
        if not may_be_new:  # then a directory of other files is an error, below
            warnings.simplefilter("ignore", CheckpointWarning)
        given = dict(options) or None
    if may_be_new:
        return open_store(place, workspace=workspace, storage_options=given)
    backend = open_backend(place, given)
    if backend.url.startswith(_FILE):
        _refuse_what_is_no_store(Path(backend.url.removeprefix(_FILE)))
    return CheckpointStore(backend, workspace=workspace)


def open_twice(
    place: str,
    *,
    options: Iterable[tuple[str, Any]] = (),
    workspace: str | None = None,
) -> Opened:
    """
    A place as two processes have it; it may have no store in it yet, and nothing is written.

    Parameters and errors:
        as `open_place`.
    """
    given = dict(options) or None
    backend, another = open_backend(place, given), open_backend(place, given)
    return Opened(CheckpointStore(backend, workspace=workspace), backend, another)


def _refuse_what_is_no_store(root: Path) -> None:
    with disk.disk_errors("look at", root):
        if not root.is_dir():
            raise NotFoundError(
                f"there is no directory {root}. Nothing was touched. Look for a typo."
            )
        names = set(os.listdir(root))  # noqa: PTH208 - names are all that is wanted
        if not names or names & layout.TOP_LEVEL:
            return
        stores = sorted(name for name in names if (root / name / layout.MANIFESTS).is_dir())
    inside = f"These directories in it are stores: {', '.join(stores)}. " if stores else ""
    raise NotFoundError(
        f"{root} holds other files and no store. Nothing was touched. {inside}Give the directory "
        "that the checkpoints were saved into."
    )
