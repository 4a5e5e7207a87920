"""The places where checkpoints are kept; `open_backend` finds the one that a URL or path names."""

import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from holdfast.backends import mounts
from holdfast.backends.base import Backend
from holdfast.backends.local import LocalBackend
from holdfast.errors import InvalidInputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):(//)?")
#: What pathlib makes of a URL.
_LOST_SLASH = re.compile(r"[a-z][a-z0-9+.\-]+:/(?!/)")
_LOCAL = ("file", "local")
#: These show what was there before, which a backend never does.
_CACHES = ("blockcache", "cached", "filecache", "simplecache")
#: The module and the class of the places that have a backend of their own; `open` makes one.
_OWN: dict[str, tuple[str, str]] = {
    "gcs": ("holdfast.backends.gcs", "GcsBackend"),
    "gdrive": ("holdfast.backends.gdrive", "GdriveBackend"),
    "gs": ("holdfast.backends.gcs", "GcsBackend"),
    "s3": ("holdfast.backends.s3", "S3Backend"),
    "s3a": ("holdfast.backends.s3", "S3Backend"),
    "sftp": ("holdfast.backends.fsspec.sftp", "SftpBackend"),
    "ssh": ("holdfast.backends.fsspec.sftp", "SftpBackend"),
}
#: Where the package to install is not called what is imported.
_PACKAGES = {"smbclient": "smbprotocol", "libarchive": "libarchive-c", "git": "pygit2"}


def open_backend(
    place: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> Backend:
    """
    The backend for a path or a URL; nothing is written.

    A path, with or without `file://` before it, is a directory of this machine, made by the first
    write. It is taken as it stands: nothing in it is percent-decoded. Every other URL goes to the
    fsspec filesystem of its scheme, with deadlines and repetition around it; `memory://` keeps
    objects in this process only.

    Parameters:
        place (str | os.PathLike): such as `runs/resnet`, `~/runs`, `file:///data/runs`,
            `gs://bucket/runs/resnet`. A text with `::` in it is refused, being fsspec's chain of
            filesystems: give such a directory as a `pathlib.Path`.
        storage_options (Mapping[str, Any] | None): what the fsspec filesystem takes, such as
            credentials or an endpoint, as in pandas and xarray. They are neither stored nor shown.

    Raises:
        InvalidInputError: the place is empty, a chain, a file, or of an unknown scheme; it has user
            info, a query or a fragment; a library is missing; or the options do not fit.
        StorageError: the place cannot be looked at, or the disk that it lies on is not mounted.
    """
    if not isinstance(place, str):
        try:
            if _LOST_SLASH.match(os.fspath(place)):
                raise InvalidInputError(
                    f"{place!r} was a URL, and pathlib takes a slash out of it. Nothing was "
                    "touched. Give the URL as a text."
                )
            return _local(Path(place), storage_options)
        except TypeError as error:
            raise InvalidInputError(
                f"{place!r} is no place. Nothing was touched. Give a path or a URL."
            ) from error
    if "::" in place:
        raise InvalidInputError(
            f"{_shown(place)!r} is a chain of filesystems, and checkpoints need one place that "
            "shows what is there. Nothing was touched. Give the last URL of the chain alone; if "
            "it is a directory of that name, give it as a pathlib.Path."
        )
    found = _SCHEME.match(place)
    if not found:
        return _local(place, storage_options)
    scheme = found[1].lower()
    if not found[2]:
        raise InvalidInputError(
            f"{_shown(place)!r} is neither a URL nor plainly a path. Nothing was touched. Write "
            f"{scheme}://…, or ./{_shown(place)} for a directory of that name."
        )
    rest = place[found.end() :]
    if scheme not in _LOCAL:
        return _fsspec(scheme, rest, dict(storage_options or {}))
    if not rest.startswith("/"):
        raise InvalidInputError(
            f"{_shown(place)!r} names a machine or a relative path. Nothing was touched. Write "
            "file:///… with the whole path."
        )
    return _local(rest, storage_options)


def _local(path: Path | str, storage_options: Mapping[str, Any] | None) -> Backend:
    if storage_options:
        raise InvalidInputError(
            f"{path} is a directory of this machine, which takes no storage_options; those given "
            f"were {', '.join(map(repr, storage_options))}. Nothing was touched. Leave them out, "
            "or give the URL that they are meant for."
        )
    given = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - asks no disk
    if mounts.is_on_drive(given):
        mounts.refuse_hanging(given)
    backend = LocalBackend(path)
    if not mounts.is_on_drive(backend.root):
        return backend

    from holdfast.backends.retrying import RetryingBackend  # noqa: PLC0415

    return RetryingBackend(backend)  # its client hangs, and fails now and then


def _fsspec(scheme: str, rest: str, options: dict[str, Any]) -> Backend:
    # What is imported here is imported late: the scheme picks it, and fsspec takes longer than all
    # else together.
    from fsspec.registry import known_implementations, registry  # noqa: PLC0415

    if scheme not in {*known_implementations, *registry}:
        raise InvalidInputError(
            f"fsspec knows nothing of {scheme}://. Nothing was touched. Give a path, or a URL that "
            "it knows, such as s3://, gs:// or sftp://."
        )
    if scheme in _CACHES:
        raise InvalidInputError(
            f"{scheme}:// shows copies of what was there before, and checkpoints need what is "
            "there. Nothing was touched. Give the URL of the place itself."
        )
    url = _checked(scheme, rest)
    if scheme in _OWN:
        return _own(scheme, url, options)

    from holdfast.backends.fsspec import FsspecBackend  # noqa: PLC0415
    from holdfast.backends.retrying import RetryingBackend  # noqa: PLC0415

    try:
        backend = FsspecBackend.open(url, options)
    except ImportError as error:
        raise InvalidInputError(_missing(scheme, error, known_implementations)) from error
    return backend if scheme == "memory" else RetryingBackend(backend)


def _own(scheme: str, url: str, options: dict[str, Any]) -> Backend:
    from fsspec.config import conf  # noqa: PLC0415

    from holdfast.backends.retrying import RetryingBackend  # noqa: PLC0415

    module, name = _OWN[scheme]
    whole: dict[str, Any] = {}
    try:
        # As fsspec does for its own, under every name of a place: from FSSPEC_S3_… and its
        # configuration files.
        names = [each for each in _OWN if _OWN[each] == _OWN[scheme] and each != scheme]
        for each in (*names, scheme):
            whole |= conf.get(each, {})
        opened = getattr(import_module(module), name).open(url, whole | options)
    except ImportError as error:
        extra = module.rpartition(".")[2]
        raise InvalidInputError(
            f"{scheme}:// needs {error.name or 'a library'}: pip install 'holdfast[{extra}]'. "
            "Nothing was touched."
        ) from error
    return RetryingBackend(opened)


def _checked(scheme: str, rest: str) -> str:
    """The URL without a closing slash, if it holds nothing that a place's name must not hold."""
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        wrong = {
            "user info": "@" in parts.netloc,
            "a query": "?" in rest,
            "a fragment": "#" in rest,
        }
    except ValueError as error:
        raise InvalidInputError(
            f"the {scheme}:// URL cannot be read. Nothing was touched."
        ) from error
    for what, there in wrong.items():
        if there:
            raise InvalidInputError(
                f"the URL {_shown(f'{scheme}://{rest}')} has {what}, and URLs are shown in logs. "
                "Nothing was touched. Leave it out; credentials and settings go into "
                "storage_options."
            )
    if {".", ".."} & set(rest.split("/")):
        raise InvalidInputError(f"{scheme}://{rest} has . or .. in it. Nothing was touched.")
    rest = rest.rstrip("/")
    if not rest.strip("/") and scheme != "memory":
        raise InvalidInputError(f"{scheme}:// names no place. Nothing was touched. Say which.")
    return f"{scheme}://{rest}"


def _missing(scheme: str, error: ImportError, known: Mapping[str, Mapping[str, str]]) -> str:
    """Which package to install: fsspec's error has the one that names the module as its cause."""
    cause = error.__cause__
    module = cause.name if isinstance(cause, ImportError) and cause.name else known[scheme]["class"]
    module = module.partition(".")[0]
    package = _PACKAGES.get(module, module.replace("_", "-"))
    return f"{scheme}:// needs {package}: pip install {package}. Nothing was touched."


def _shown(place: str) -> str:
    """A URL without what may be secret in it."""
    return re.sub(r"[?#].*", "?…", re.sub(r"//[^/@]*@", "//…@", place), flags=re.DOTALL)
