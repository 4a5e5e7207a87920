"""
Where things lie in a store; no other module spells a key.

    manifests/<id>.json       one per checkpoint; its existence is the commit
    files/<id>/<path>         the checkpoint's own files, as the framework wrote them
    pins/<name>/<id>          empty; its existence protects
    doomed/<id>.<token>       empty; a prune in progress
    .probe/write              a small text; whoever wrote it has tried whether it may write here

What is read back from a listing is parsed by the functions here. A name that does not parse is
somebody else's: it is neither followed nor removed.
"""

import itertools
import re
import string
from collections.abc import Iterable

from holdfast.checkpoint import CheckpointId
from holdfast.errors import InvalidInputError

MANIFESTS = "manifests/"
FILES = "files/"
PINS = "pins/"
DOOMED = "doomed/"

#: What is written to see how a place behaves, and is no part of the store.
PROBES = ".probe/"

#: Created before a training begins, to see whether that is possible; it stays.
PROBE = f"{PROBES}write"

#: In a local store, the directory that drafts are staged in; no part of the store itself.
WORKSPACE = ".workspace"

#: Starts the name of a file that a backend has not finished; no name of ours or a user's has it.
PARTIAL = "~"

#: Every name that may lie at the root of a store.
TOP_LEVEL = frozenset(
    [
        MANIFESTS.removesuffix("/"),
        FILES.removesuffix("/"),
        PINS.removesuffix("/"),
        DOOMED.removesuffix("/"),
        PROBES.removesuffix("/"),
        WORKSPACE,
    ]
)

_PART = re.compile(r"(?!-)[A-Za-z0-9._\-+=,@]{1,128}")
_CHARACTERS = (string.ascii_letters + string.digits + "._-+=,@/").encode()
_MAX_PART = 128
#: Parts of a key that some places, and every directory, take for another key.
_NOWHERE = frozenset({"", ".", ".."})
_MAX_PARTS = 8
_MAX_PATH = 512
#: Names that Windows keeps for devices, with any suffix (Microsoft, "Naming Files, Paths, and
#: Namespaces"): a store can be copied to any machine.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul"]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in range(10)]
)


def manifest_key(checkpoint: CheckpointId) -> str:
    """The key of a checkpoint's manifest, and of the tombstone of an attempt."""
    return f"{MANIFESTS}{checkpoint}.json"


def parse_manifest_key(key: str) -> CheckpointId | None:
    """The id that a manifest's key names; None if it names none."""
    if not (key.startswith(MANIFESTS) and key.endswith(".json")):
        return None
    return CheckpointId.parse(key.removeprefix(MANIFESTS).removesuffix(".json"))


def before_session(session: int) -> str:
    """
    A key that sorts before the manifests of this session and of every later one.

    Up to session 999 it sorts after those of all earlier ones. From 1000 on some earlier sessions
    come after it too, since keys sort as text and `1001` comes after `10000`.
    """
    return MANIFESTS + min(f"{session:04d}", str(10 ** max(4, len(str(session)))))


def after(checkpoint: CheckpointId) -> str:
    """A key that sorts before the manifests of every later checkpoint, and after as many as can."""
    return min(manifest_key(checkpoint), before_session(10 ** max(4, len(str(checkpoint.session)))))


def files_prefix(checkpoint: CheckpointId) -> str:
    """What the keys of a checkpoint's files begin with."""
    return f"{FILES}{checkpoint}/"


def file_key(checkpoint: CheckpointId, path: str) -> str:
    """The key of one file of a checkpoint."""
    return files_prefix(checkpoint) + path


def parse_file_key(key: str) -> tuple[CheckpointId, str] | None:
    """The id and the path that a file's key names; None if it names none."""
    if not key.startswith(FILES):
        return None
    name, _, path = key.removeprefix(FILES).partition("/")
    checkpoint = CheckpointId.parse(name)
    if checkpoint is None or _NOWHERE & {*path.split("/")}:
        return None
    return checkpoint, path


def pin_key(name: str, checkpoint: CheckpointId) -> str:
    """The key of a pin."""
    return f"{PINS}{name}/{checkpoint}"


def parse_pin_key(key: str) -> tuple[str, CheckpointId] | None:
    """The name and the id that a pin's key gives; None if it gives none."""
    if not key.startswith(PINS):
        return None
    name, _, last = key.removeprefix(PINS).partition("/")
    checkpoint = CheckpointId.parse(last)
    return (name, checkpoint) if checkpoint and name not in _NOWHERE else None


def doomed_prefix(checkpoint: CheckpointId) -> str:
    """What the keys of all marks on a checkpoint begin with."""
    return f"{DOOMED}{checkpoint}."


def doomed_key(checkpoint: CheckpointId, token: str) -> str:
    """The key of one prune's mark on a checkpoint."""
    return doomed_prefix(checkpoint) + token


def parse_doomed_key(key: str) -> CheckpointId | None:
    """The id that a mark's key names; None if it names none."""
    if not key.startswith(DOOMED):
        return None
    name, _, token = key.removeprefix(DOOMED).partition(".")
    return CheckpointId.parse(name) if token else None


def probe_prefix(token: str) -> str:
    """What the keys of one examination of a place begin with."""
    return f"{PROBES}{token}/"


def is_left_by_probe(key: str) -> bool:
    """Whether this is what an examination wrote and had no right, or no time, to remove."""
    return key.startswith(PROBES) and key != PROBE


def is_partial(key: str) -> bool:
    """Whether this is what a backend left unfinished."""
    return key.rpartition("/")[2].startswith(PARTIAL)


def check_part(text: str, what: str) -> None:
    """
    Refuse a name that cannot be one part of a key everywhere.

    Parameters:
        text (str): the name.
        what (str): how to speak of it in the error, such as `the pin's name 'x'`.

    Raises:
        InvalidInputError: it breaks the grammar that `check_paths` describes.
    """
    if not _PART.fullmatch(text):
        raise InvalidInputError(
            f"{what} is not portable: each part has 1 to 128 characters from A-Z a-z 0-9 and "
            "._-+=,@ and does not start with '-'. Rename it."
        )
    if text.endswith("."):
        raise InvalidInputError(f"{what} ends in a dot, or is only dots. Rename it.")
    if text.partition(".")[0].lower() in _DEVICES:
        raise InvalidInputError(f"{what} is the name of a device on Windows. Rename it.")


def check_paths(paths: Iterable[str]) -> None:
    """
    Refuse paths that some storage or some machine would not keep apart or could not hold.

    A path has one to eight parts of 1 to 128 characters from `A-Z a-z 0-9 . _ - + = , @`, 512 in
    all. No part starts with `-`, ends in a dot or is the name of a device. No two paths are equal
    when case is ignored, part by part, and none is a directory of another.

    Raises:
        InvalidInputError: a path that breaks this, and how.
    """
    given = list(paths)
    for path in given:
        if len(path) > _MAX_PATH or path.count("/") >= _MAX_PARTS:
            raise InvalidInputError(
                f"the path {path[:80]!r} is too long: at most {_MAX_PARTS} parts and {_MAX_PATH} "
                "characters. Give it a shorter one."
            )
    if not _are_plain(given):
        for path in given:
            for part in path.split("/"):
                check_part(part, f"the path {path!r}")
    # In this order a path is next to one that it collides with, if there is any.
    ordered = (path.split("/") for path in sorted(given, key=_order))
    for one, other in itertools.pairwise(ordered):
        if one[0].lower() == other[0].lower() and _collide(one, other):
            raise InvalidInputError(
                f"the paths {'/'.join(one)!r} and {'/'.join(other)!r} cannot lie side by side "
                "everywhere: they are equal when case is ignored, or one is a directory of the "
                "other. Rename one."
            )


def _are_plain(paths: list[str]) -> bool:
    """Whether `check_part` surely lets every part pass; a manifest may have tens of thousands."""
    text = f"/{'/'.join(paths)}/"
    return (
        text.isascii()
        and not text.encode().translate(None, _CHARACTERS)
        and not any(unfit in text for unfit in ("//", "/-", "./"))
        and max(map(len, text.split("/"))) <= _MAX_PART
        and _DEVICES.isdisjoint(text.lower().replace(".", "/").split("/"))
    )


def _order(path: str) -> str:
    """Sorts paths that are equal but for case together, and after a path what lies in it."""
    return path.lower().replace("/", "\0")


def _collide(one: list[str], other: list[str]) -> bool:
    """Whether a part that differs in case alone, or none at all, tells two paths apart."""
    if one[:-1] == other[:-1]:  # most lie side by side
        return one[-1].lower() == other[-1].lower()
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return mine.lower() == theirs.lower()
    return True
