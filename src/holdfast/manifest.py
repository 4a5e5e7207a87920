"""The written form of a checkpoint, and of the tombstone at the key of a swept attempt."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

from holdfast import layout, record
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import CheckpointWarning, FormatError, InvalidInputError

#: The format that this version writes, and the newest that it reads.
FORMAT = 1

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
#: Bytes that one file may have: 32 TiB, more than any object store takes as one object.
_MAX_SIZE = 2**45
#: Bytes that a draft's record may gain when it becomes a manifest: its kind, its session's digits.
_GROWTH = 64
#: Characters of a record that an error shows.
_MAX_TEXT = 300

Metadata = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Tombstone:
    """What lies at the manifest key of an attempt whose files were swept; it is no checkpoint."""

    id: CheckpointId


def write(checkpoint: Checkpoint, kind: Literal["checkpoint", "draft"] = "checkpoint") -> bytes:
    """
    Write a manifest, or the same of a draft, which may have no session yet (0).

    Raises:
        InvalidInputError: it would be larger, or have more values, than a reader takes.
    """
    return _bounded(
        {
            "format": FORMAT,
            "kind": kind,
            "id": str(checkpoint.id),
            "session": checkpoint.session,
            "step": checkpoint.step,
            "created_at": write_time(checkpoint.created_at),
            "files": write_files(checkpoint.files),
            "metrics": dict(checkpoint.metrics),
            "metadata": dict(checkpoint.metadata),
            "writer": checkpoint.writer,
            "parent": str(checkpoint.parent) if checkpoint.parent else None,
            "holdfast": checkpoint.version,
        },
        record.MAX_BYTES - _GROWTH if kind == "draft" else record.MAX_BYTES,
    )


def write_tombstone(checkpoint: CheckpointId, writer: str) -> bytes:
    """Write the record that keeps an attempt of this id from ever being committed."""
    members = {"format": FORMAT, "kind": "tombstone", "id": str(checkpoint), "writer": writer}
    return record.encode(members)


def read(data: bytes, expected: CheckpointId) -> Checkpoint | Tombstone:
    """
    Read what lies at a manifest's key.

    Parameters:
        data (bytes): what was read.
        expected (CheckpointId): the id that the key names; the record has to agree.

    Raises:
        FormatError: it is not a record of ours, of a newer format, or says something unsafe.
    """
    members = record.decode(data)
    check_format(members)
    try:
        return _read(members, expected)
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        raise FormatError(f"the manifest of {expected} is not valid: {_brief(error)}") from error


def read_staged(data: bytes, kind: Literal["checkpoint", "draft"]) -> Checkpoint:
    """
    Read a record from the workspace, where no key says which id it has.

    In that of a draft the session is 0 where it had no number yet.

    Raises:
        FormatError: as `read`.
    """
    members = record.decode(data)
    check_format(members)
    try:
        return _read_staged(members, kind)
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        raise FormatError(f"the {kind}'s record is not valid: {_brief(error)}") from error


def check_format(members: Mapping[str, Any]) -> None:
    """
    Refuse a record that is not of this format.

    Raises:
        FormatError: with `newer` set where the record claims a later format.
    """
    version = members.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FormatError(f"the record names no format of Holdfast: {_brief(repr(version))}")
    if version > FORMAT:
        raise FormatError(
            f"the record is of format {version}; this version of Holdfast reads up to {FORMAT}. "
            "Nothing was changed. Upgrade holdfast to go on.",
            newer=True,
        )


def _read(members: Mapping[str, Any], expected: CheckpointId) -> Checkpoint | Tombstone:
    if members["kind"] == "tombstone" and members["id"] == str(expected):
        return Tombstone(expected)
    if members["kind"] != "checkpoint":
        raise ValueError(f"it is neither a checkpoint nor a tombstone: {members['kind']!r}")
    return _read_checkpoint(members, expected)


def _read_staged(members: Mapping[str, Any], kind: str) -> Checkpoint:
    if members["kind"] != kind:
        raise ValueError(f"it is a {members['kind']!r}")
    session, step, token = _text(members["id"]).split("-")
    id = CheckpointId(int(session), int(step), token)
    _read_id(str(replace(id, session=id.session or 1)))
    return _read_checkpoint(members, id)


def _read_checkpoint(members: Mapping[str, Any], expected: CheckpointId) -> Checkpoint:
    if members["id"] != str(expected):
        raise ValueError(f"it says that it is {members['id']!r}")
    place = (_integer(members["session"]), _integer(members["step"]))
    if place != (expected.session, expected.step):
        raise ValueError("its session and step differ from its id")
    parent = members["parent"]
    return Checkpoint(
        id=expected,
        created_at=read_time(members["created_at"]),
        files=read_files(members["files"]),
        metrics=MappingProxyType(_read_metrics(members["metrics"])),
        metadata=MappingProxyType(check_metadata(_object(members["metadata"]))),
        writer=_text(members["writer"]),
        parent=None if parent is None else _read_id(parent),
        version=_text(members["holdfast"]),
    )


def write_time(moment: datetime) -> str:
    """A moment as text, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_time(text: object) -> datetime:
    """
    Read a moment back.

    Raises:
        ValueError: it is not written as `write_time` does.
    """
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is not a moment in UTC")
    return datetime.fromisoformat(text)


def write_files(files: Iterable[File]) -> list[dict[str, Any]]:
    """The files of a checkpoint as members of a record."""
    return [{"path": file.path, "size": file.size, "hash": file.hash} for file in files]


def read_files(members: object) -> tuple[File, ...]:
    """
    Read the files of a checkpoint back.

    Raises:
        ValueError, KeyError, TypeError: they are not as `write_files` writes them.
        InvalidInputError: a path is not portable, or leads elsewhere.
    """
    if not isinstance(members, list):
        raise TypeError("its files are not a list")
    files = tuple(_read_file(_object(member)) for member in members)
    layout.check_paths(file.path for file in files)
    return files


def check_metrics(metrics: Mapping[Any, Any] | None) -> dict[str, float]:
    """
    The metrics to record: finite floats. A NaN or an infinity is left out with a warning.

    Raises:
        InvalidInputError: a name is not a text, or a value is not a number.
    """
    checked: dict[str, float] = {}
    for name, value in _mapping(metrics, "the metrics are", "numbers").items():
        if not isinstance(name, str):
            raise InvalidInputError(f"a metric's name is a text, not {name!r}; nothing was saved.")
        number = _number(name, value)
        if math.isfinite(number):
            checked[name] = number
        else:
            warnings.warn(
                f"the metric {name!r} is {number}: the checkpoint is saved without it, so it can "
                "never count as the best. Look at the training: a loss that is not finite rarely "
                "recovers.",
                CheckpointWarning,
                stacklevel=2,
            )
    return checked


def check_metadata(metadata: Mapping[Any, Any] | None) -> dict[str, Any]:
    """
    The metadata to record: texts, finite numbers, booleans and None under names.

    Raises:
        InvalidInputError: a name is not a text, or a value is not one of these.
    """
    checked: dict[str, Any] = {}
    for name, value in _mapping(metadata, "the metadata is", "values").items():
        if not isinstance(name, str) or not _is_flat(value):
            raise InvalidInputError(
                f"the metadata {name!r} is {value!r}; nothing was saved. It holds texts, finite "
                "numbers, booleans and None under textual names; put anything larger in a file."
            )
        checked[name] = value
    return checked


def _mapping(given: object, what: str, of: str) -> Mapping[Any, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f"{what} a mapping from names to {of}, not {given!r}; nothing was saved."
        )
    return given


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, (bool, str, bytes)):
            return float(value)
        cause = None
    except (TypeError, ValueError, OverflowError) as error:
        cause = error
    raise InvalidInputError(
        f"the metric {name!r} is not a number: {value!r}; nothing was saved. "
        "Give a float, or put texts into metadata."
    ) from cause


def _bounded(members: Mapping[str, Any], limit: int) -> bytes:
    try:
        data = record.encode(members)
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"a text in the metrics or the metadata is not valid Unicode: {error}; nothing was "
            "committed."
        ) from error
    if len(data) > limit:
        raise InvalidInputError(
            f"the manifest would have {len(data):,} bytes, and a reader takes at most "
            f"{limit:,}; nothing was committed. Save fewer files (several thousand "
            "fit) or less metadata."
        )
    if record.count_values(data) > record.MAX_VALUES:
        raise InvalidInputError(
            f"the manifest would have more than {record.MAX_VALUES:,} values; nothing was "
            "committed. Give fewer metrics or less metadata, or put them into a file."
        )
    return data


def _read_id(text: object) -> CheckpointId:
    parsed = CheckpointId.parse(_text(text))
    if parsed is None:
        raise ValueError(f"{text!r} is not an id")
    return parsed


def _read_file(member: Mapping[str, Any]) -> File:
    size, digest = _integer(member["size"]), member["hash"]
    if not 0 <= size <= _MAX_SIZE:
        raise ValueError(f"{size!r} is not a size")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise ValueError(f"{digest!r} is not a hash that this version knows")
    return File(_text(member["path"]), size, digest)


def _read_metrics(members: object) -> dict[str, float]:
    metrics = _object(members)
    for value in metrics.values():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"the metric {value!r} is not a number")
    return {name: float(value) for name, value in metrics.items()}


def _is_flat(value: object) -> bool:
    match value:
        case None | bool() | str():
            return True
        case int():
            return abs(value) <= record.MAX_INTEGER
        case float():
            return math.isfinite(value)
        case _:
            return False


def _brief(found: object) -> str:
    """What is wrong, without all of what a hostile record may hold."""
    text = str(found)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _object(members: object) -> dict[str, Any]:
    if not isinstance(members, dict):
        raise TypeError(f"{members!r} is not an object")
    return members


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value
