"""Records of every format, damaged by chance or written by somebody hostile."""

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from holdfast import layout, manifest, record
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import FormatError, InvalidInputError
from holdfast.manifest import Tombstone

ID = CheckpointId(3, 1200, "7f3a9c1e")
HASH = "sha256:" + "0f" * 32
MOMENT = datetime(2026, 11, 21, 3, 4, 38, 772961, tzinfo=UTC)
CHECKPOINTS = (
    Checkpoint(ID, MOMENT),
    Checkpoint(
        ID,
        MOMENT,
        files=(File("model.keras", 2**30, HASH), File("training/seeds", 0, HASH)),
        metrics={"loss": 0.1, "val_acc": -1e-9},
        metadata={"note": "ä😀", "epoch": 3, "best": True, "tags": None},
        writer="host:1:0badc0de",
        parent=CheckpointId(2, 1100, "00000000"),
        version="1.0",
    ),
)
DRAFTS = tuple(
    Checkpoint(CheckpointId(session, 1200, ID.token), MOMENT, files=CHECKPOINTS[1].files)
    for session in (0, 3)
)


@dataclass(frozen=True)
class Kind:
    """
    Records of one kind.

    Attributes:
        name (str): what they are.
        records (dict[bytes, object]): honest ones, and what is read from each.
        read (Callable): reads one, or raises `FormatError`.
        written (str): the kind that it is written as.
    """

    name: str
    records: dict[bytes, object]
    read: Callable[[bytes], object]
    written: Literal["checkpoint", "draft"] = "checkpoint"


KINDS = (
    Kind(
        "manifest",
        {
            **{manifest.write(one): one for one in CHECKPOINTS},
            manifest.write_tombstone(ID, "host:1:0badc0de"): Tombstone(ID),
        },
        lambda data: manifest.read(data, ID),
    ),
    Kind(
        "seal of a draft",
        {manifest.write(one, kind="draft"): one for one in DRAFTS},
        lambda data: manifest.read_staged(data, "draft"),
        written="draft",
    ),
    Kind(
        "manifest of a draft",
        {manifest.write(one): one for one in CHECKPOINTS},
        lambda data: manifest.read_staged(data, "checkpoint"),
    ),
)
HONEST = [data for kind in KINDS for data in kind.records]

#: What a hostile writer puts where something else belongs.
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 1200, 2**45, 2**45 + 1, 2**53 - 1, 2**53, 10**400),
    *(0.0, 3.0, -1.5, 1e308),
    *("", "a", "1", "checkpoint", "draft", "tombstone", str(ID), "0003-000000001200-00000000"),
    *("2026-11-21T03:04:38Z", "2026-11-21", HASH, "sha256:", "md5:" + "0" * 32),
    *("../x", "/abs", "C:/x", "con.txt", "x.", "a//b", "~x", "a/b/c", "MODEL.keras", "training"),
    *("x" * 200, "\0", "\u0660" * 4, "\u2028", "{}", "e\u0301", "1-2", "-1-2-3", "0-0-00000000"),
    *([], [None], [[]], {}, {"a": 1}, {"path": "a"}, {"path": "a", "size": 1, "hash": HASH}),
]


def damaged(seed: int, count: int) -> Iterator[str]:
    """Bytes of a record change, and its digest does not fit: refused, or the same as before."""
    for case, rng, kind, original in _cases(seed, count):
        data = bytearray(original)
        mutate = rng.choice(DAMAGE)
        mutate(data, rng)
        trouble, found = judged(kind, bytes(data))
        if found is not None and kind.records.get(bytes(data)) != found:
            trouble = f"read as {found}"
        yield trouble and f"damaged, {case}, {mutate.__name__}: {trouble} from {bytes(data)!r}"


def hostile(seed: int, count: int) -> Iterator[str]:
    """Members of a record change, and its digest fits: refused, or safe to act on."""
    for case, rng, kind, original in _cases(seed, count):
        members = record.decode(original)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            if members:
                rng.choice(MALICE)(members, rng)
        trouble, _ = judged(kind, record.encode(members))
        yield trouble and f"hostile, {case}: {trouble} from {json.dumps(members)}"


def resealed(seed: int, count: int) -> Iterator[str]:
    """Bytes of a record change, and its digest fits: refused, or safe to act on."""
    for case, rng, kind, original in _cases(seed, count):
        head = bytearray(original[: original.index(b',\n  "digest"')])
        mutate = rng.choice(DAMAGE)
        mutate(head, rng)
        trouble, _ = judged(kind, sealed(bytes(head)))
        yield trouble and f"resealed, {case}, {mutate.__name__}: {trouble} from {bytes(head)!r}"


def keys(seed: int, count: int) -> Iterator[str]:
    """Names that a listing may show: each parses to what is written the same, or to nothing."""
    honest = [
        layout.manifest_key(ID),
        layout.file_key(ID, "a/model.keras"),
        layout.pin_key("paper", ID),
        layout.doomed_key(ID, "0badc0de"),
    ]
    for case in range(count):
        rng = random.Random(f"{seed}-{case}-keys")
        data = bytearray(rng.choice(honest), "utf-8")
        rng.choice(DAMAGE)(data, rng)
        key = data.decode(errors="surrogateescape")
        trouble = _trouble_with_key(key)
        yield trouble and f"keys, seed {seed}, case {case}: {key!r} is read as {trouble}"


def judged(kind: Kind, data: bytes) -> tuple[str, object]:
    """What is wrong with how it was read, and what it was read as; None where it was refused."""
    try:
        found = kind.read(data)
    except FormatError as error:
        wrong = f"a text of {len(str(error))} characters" if len(str(error)) > 1_000 else ""
        return wrong, None
    except Exception as error:
        return repr(error), None
    return _unsafe(kind, found), found


def sealed(head: bytes) -> bytes:
    """What precedes a digest, with the digest that fits."""
    digest = hashlib.sha256(head).hexdigest()
    return head + b',\n  "digest": "sha256:' + digest.encode() + b'"\n}\n'


def _cases(seed: int, count: int) -> Iterator[tuple[str, random.Random, Kind, bytes]]:
    for case in range(count):
        rng = random.Random(f"{seed}-{case}")
        kind = rng.choice(KINDS)
        original = rng.choice([*kind.records])
        yield f"seed {seed}, case {case}, {kind.name}", rng, kind, original


def _unsafe(kind: Kind, found: object) -> str:
    """Why nobody may act on what was read."""
    if isinstance(found, Tombstone):
        return "" if found.id == ID else f"of another id: {found}"
    if not isinstance(found, Checkpoint):
        return f"neither a checkpoint nor a tombstone: {found}"
    try:
        layout.check_paths(file.path for file in found.files)
    except InvalidInputError as error:
        return str(error)
    if not all(0 <= file.size <= 2**45 and file.hash.startswith("sha256:") for file in found.files):
        return f"not sizes and hashes: {found.files}"
    again = kind.read(manifest.write(found, kind.written))
    if (again, _notes(again)) != (found, _notes(found)):
        return f"written again it is read as {again}"
    return ""


def _notes(found: object) -> tuple[dict[str, Any], dict[str, Any]]:
    assert isinstance(found, Checkpoint)
    return dict(found.metrics), dict(found.metadata)


def _trouble_with_key(key: str) -> str:
    if (id := layout.parse_manifest_key(key)) and layout.manifest_key(id) != key:
        return f"the manifest of {id}"
    if (file := layout.parse_file_key(key)) and layout.file_key(*file) != key:
        return f"a file: {file}"
    if (pin := layout.parse_pin_key(key)) and layout.pin_key(*pin) != key:
        return f"a pin: {pin}"
    if (id := layout.parse_doomed_key(key)) and not key.startswith(layout.doomed_prefix(id)):
        return f"a mark on {id}"
    return ""


# Damage: bytes change, and the digest does not fit.


def flip(data, rng):
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data, rng):
    data[rng.randrange(len(data))] = rng.choice(b'\x00\xff{}[]",:0-9e.\n\\')


def insert(data, rng):
    where = rng.randint(0, len(data))
    data[where:where] = rng.randbytes(rng.randint(1, 8))


def delete(data, rng):
    where = rng.randrange(len(data))
    del data[where : where + rng.randint(1, 16)]


def truncate(data, rng):
    del data[rng.randrange(len(data)) :]


def splice(data, rng):
    other = rng.choice(HONEST)
    start, end = sorted(rng.randint(0, len(other)) for _ in range(2))
    where = rng.randint(0, len(data))
    data[where : where + rng.choice([0, end - start])] = other[start:end]


def repeat(data, rng):
    start, end = sorted(rng.randint(0, len(data)) for _ in range(2))
    data[end:end] = data[start:end]


DAMAGE = [flip, overwrite, insert, delete, truncate, splice, repeat]


# Malice: members change, and the digest fits.


def places(members):
    """Every place in a record where a value lies: what holds it, and its name or number there."""
    for name, value in members.items() if isinstance(members, dict) else enumerate(members):
        yield members, name
        if isinstance(value, dict | list):
            yield from places(value)


def put(members, rng):
    holder, name = rng.choice([*places(members)])
    holder[name] = copy.deepcopy(rng.choice(VALUES))


def drop(members, rng):
    holder, name = rng.choice([*places(members)])
    del holder[name]


def add(members, rng):
    holder, name = rng.choice([*places(members)])
    if isinstance(holder, dict):
        holder[rng.choice(["later", "", "digest", "path", "size", "\u2028"])] = copy.deepcopy(
            rng.choice(VALUES)
        )
    else:
        holder.insert(name, copy.deepcopy(rng.choice([*holder, *VALUES])))


def swap(members, rng):
    (one, a), (other, b) = (rng.choice([*places(members)]) for _ in range(2))
    one[a], other[b] = copy.deepcopy(other[b]), copy.deepcopy(one[a])


def nest(members, rng):
    holder, name = rng.choice([*places(members)])
    for _ in range(rng.choice([1, 3, 100])):
        holder[name] = [holder[name]] if rng.random() < 0.5 else {"a": holder[name]}


def edit(members, rng):
    """Change one character of a text, or a number by a little."""
    texts = [(holder, name) for holder, name in places(members) if isinstance(holder[name], str)]
    if texts:
        holder, name = rng.choice(texts)
        where = rng.randint(0, len(holder[name]))
        new = rng.choice(["", "/", "..", ".", "-", "A", "~", "0", "\u0660", "\n", ":", "Z"])
        holder[name] = holder[name][:where] + new + holder[name][where + rng.randint(0, 1) :]


MALICE = [put, drop, add, swap, nest, edit]
