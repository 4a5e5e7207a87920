"""Whatever lies at a manifest's key is a valid checkpoint or a FormatError, and nothing else."""

import copy
import hashlib
import json
import random
from datetime import UTC, datetime

import pytest

from holdfast import layout, manifest, record
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import FormatError
from holdfast.manifest import Tombstone
from tests.share import LONG, SEED

#: Of each of three kinds; others in each run, as `tests.share` says.
ROUNDS = 15_000 if LONG else 3_000

ID = CheckpointId(3, 1200, "7f3a9c1e")
HASH = "sha256:" + "0f" * 32
MOMENT = datetime(2026, 11, 21, 3, 4, 38, 772961, tzinfo=UTC)
CHECKPOINTS = [
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
]
RECORDS = {manifest.write(one): one for one in CHECKPOINTS}
RECORDS[manifest.write_tombstone(ID, "host:1:0badc0de")] = Tombstone(ID)

#: What a hostile writer puts where something else belongs.
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 1200, 2**45, 2**45 + 1, 2**53 - 1, 2**53, 10**400),
    *(0.0, 3.0, -1.5, 1e308),
    *("", "a", "1", "checkpoint", "draft", "tombstone", str(ID), "0003-000000001200-00000000"),
    *("2026-11-21T03:04:38Z", "2026-11-21", HASH, "sha256:", "md5:" + "0" * 32),
    *("../x", "/abs", "C:/x", "con.txt", "x.", "a//b", "~x", "a/b/c", "MODEL.keras", "training"),
    *("x" * 200, "\0", "\u0660" * 4, "\u2028", "{}", "e\u0301"),
    *([], [None], [[]], {}, {"a": 1}, {"path": "a"}, {"path": "a", "size": 1, "hash": HASH}),
]


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
    other = rng.choice([*RECORDS])
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


def resealed(head):
    """What precedes a digest, with the digest that fits."""
    digest = hashlib.sha256(head).hexdigest()
    return head + b',\n  "digest": "sha256:' + digest.encode() + b'"\n}\n'


def judged(data):
    """What a reader makes of it: `refused`, or what it read, which has to be safe to act on."""
    try:
        read = manifest.read(bytes(data), ID)
    except FormatError:
        return "refused"
    assert read.id == ID
    if isinstance(read, Checkpoint):
        layout.check_paths(file.path for file in read.files)
        assert all(
            0 <= file.size <= 2**45 and file.hash.startswith("sha256:") for file in read.files
        )
        again = manifest.read(manifest.write(read), ID)
        assert (again, dict(again.metrics), dict(again.metadata)) == (
            read,
            dict(read.metrics),
            dict(read.metadata),
        )
    return read


def rounds(kinds):
    """Seeded rounds: each says how to come back to it, and has randomness of its own."""
    for number in range(ROUNDS):
        rng = random.Random(f"{SEED}-{number}-{len(kinds)}")
        original = rng.choice([*RECORDS])
        yield f"seed {SEED}, round {number}", rng, original, rng.choice(kinds)


def test_a_damaged_manifest_is_refused_or_the_same_as_before():
    refused = 0
    for name, rng, original, mutate in rounds(DAMAGE):
        data = bytearray(original)
        mutate(data, rng)
        try:
            read = judged(data)
        except Exception as error:
            pytest.fail(f"{name}, {mutate.__name__}: {error!r} from {bytes(data)!r}")
        refused += read == "refused"
        if read != "refused":
            assert RECORDS.get(bytes(data)) == read, f"{name}, {mutate.__name__}: {bytes(data)!r}"

    assert refused > 0.95 * ROUNDS


def test_a_hostile_manifest_is_refused_or_safe_to_act_on():
    refused = 0
    for name, rng, original, _ in rounds(MALICE):
        members = record.decode(original)
        done = []
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            mutate = rng.choice(MALICE)
            if members:
                mutate(members, rng)
                done.append(mutate.__name__)
        data = record.encode(members)
        try:
            refused += judged(data) == "refused"
        except Exception as error:
            pytest.fail(f"{name}, {done}: {error!r} from {json.dumps(members)}")

    assert 0.3 * ROUNDS < refused < 0.95 * ROUNDS


def test_damaged_text_under_a_fitting_digest_is_refused_or_safe_to_act_on():
    refused = 0
    for name, rng, original, mutate in rounds([*DAMAGE, *DAMAGE]):
        head = bytearray(original[: original.index(b',\n  "digest"')])
        mutate(head, rng)
        try:
            refused += judged(resealed(bytes(head))) == "refused"
        except Exception as error:
            pytest.fail(f"{name}, {mutate.__name__}: {error!r} from {bytes(head)!r}")

    assert 0.3 * ROUNDS < refused < ROUNDS
