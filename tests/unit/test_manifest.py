"""A manifest is read back whole, or refused with one error, however hostile it is."""

import copy
import dataclasses
import hashlib
import itertools
import math
import string
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

import numpy as np
import pytest

from holdfast import layout, manifest, record
from holdfast.checkpoint import Checkpoint, CheckpointId, File
from holdfast.errors import CheckpointWarning, FormatError, InvalidInputError
from holdfast.manifest import Tombstone

HASH = "sha256:" + "0f" * 32
ID = CheckpointId(3, 1200, "7f3a9c1e")
FULL = Checkpoint(
    id=ID,
    created_at=datetime(2026, 11, 21, 3, 4, 38, 772961, tzinfo=UTC),
    files=(File("model.keras", 2**45, HASH), File("training/empty", 0, HASH)),
    metrics={"loss": 0.1, "val_accuracy": 1.0, "größe": -0.0, "tiny": 5e-324},
    metadata={"note": "ä\u2028😀", "epoch": 3, "rate": 1e-3, "best": True, "tags": None},
    writer="host:1:0badc0de",
    parent=CheckpointId(2, 1100, "00000000"),
    version="1.0",
)
GONE = ...


def members(**changed):
    """The members of a valid manifest, some changed; GONE leaves one out."""
    valid = copy.deepcopy(record.decode(manifest.write(FULL)))
    return {name: value for name, value in (valid | changed).items() if value is not GONE}


def one_file(**changed):
    file = {"path": "a", "size": 1, "hash": HASH} | changed
    return {"files": [{name: value for name, value in file.items() if value is not GONE}]}


def several(*paths):
    return {"files": [{"path": path, "size": 1, "hash": HASH} for path in paths]}


def read(**changed):
    return manifest.read(record.encode(members(**changed)), ID)


def resealed(head):
    """What precedes a digest, with the digest that fits."""
    digest = hashlib.sha256(head).hexdigest()
    return head + b',\n  "digest": "sha256:' + digest.encode() + b'"\n}\n'


def everything(checkpoint):
    """All fields, also those that do not count when checkpoints are compared."""
    return vars(checkpoint) | {
        "metrics": dict(checkpoint.metrics),
        "metadata": dict(checkpoint.metadata),
    }


# What is valid.


def test_a_full_checkpoint_is_read_back():
    again = manifest.read(manifest.write(FULL), ID)

    assert everything(again) == everything(FULL)
    assert math.copysign(1, again.metrics["größe"]) == -1


def test_a_bare_checkpoint_is_read_back():
    bare = Checkpoint(ID, datetime(1, 1, 1, tzinfo=UTC))

    assert everything(manifest.read(manifest.write(bare), ID)) == everything(bare)


def test_what_was_read_cannot_be_changed():
    again = manifest.read(manifest.write(FULL), ID)

    assert isinstance(again.metrics, MappingProxyType)
    assert isinstance(again.metadata, MappingProxyType)
    assert isinstance(again.files, tuple)


def test_a_moment_is_written_in_utc():
    east = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=5)))

    text = manifest.write_time(east)

    assert text == "2025-12-31T20:30:00.000000Z"
    assert manifest.read_time(text) == east


def test_unknown_members_are_ignored():
    nested = {"deep": [{"er": [1, 2.5, None]}]}

    again = read(later=nested, **one_file(compression="none"))

    assert again.files == (File("a", 1, HASH),)


def test_members_may_come_in_any_order():
    backwards = dict(reversed(members().items()))

    assert manifest.read(record.encode(backwards), ID) == FULL


def test_a_tombstone_is_read_back():
    data = manifest.write_tombstone(ID, "host:1:0badc0de")

    assert manifest.read(data, ID) == Tombstone(ID)


def test_a_tombstone_of_another_id_is_refused():
    data = manifest.write_tombstone(CheckpointId(3, 1200, "00000000"), "host:1:0badc0de")

    with pytest.raises(FormatError, match=str(ID)):
        manifest.read(data, ID)


@pytest.mark.parametrize("session", [0, 3])
def test_a_draft_is_read_back_with_a_session_or_without(session):
    draft = Checkpoint(CheckpointId(session, 1200, "7f3a9c1e"), FULL.created_at, FULL.files)

    assert manifest.read_staged(manifest.write(draft, kind="draft"), "draft") == draft


def test_a_noted_manifest_is_read_back_without_its_key():
    assert manifest.read_staged(manifest.write(FULL), "checkpoint") == FULL


# What is damaged.


@pytest.mark.parametrize(
    "data", [manifest.write(FULL), manifest.write_tombstone(ID, "w")], ids=["manifest", "tombstone"]
)
def test_every_flipped_bit_is_noticed(data):
    noticed = 0
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            try:
                manifest.read(bytes(flipped), ID)
            except FormatError as error:
                noticed += not error.newer

    assert noticed == len(data) * 8


@pytest.mark.parametrize("of", ["manifest", "tombstone"])
def test_every_truncation_is_noticed(of):
    data = manifest.write(FULL) if of == "manifest" else manifest.write_tombstone(ID, "w")

    for length in range(len(data)):
        with pytest.raises(FormatError):
            manifest.read(data[:length], ID)


# What is hostile: the digest is right.

ELSEWHERE = [
    "../x",
    "a/../../x",
    "..",
    ".",
    "",
    "/abs",
    "C:/x",
    "C:\\x",
    "\\\\host\\x",
    "con.txt",
    "a/NUL",
    "x.",
    "a//b",
    "a/",
    "~x",
    "~/x",
    "-rf",
    "a b",
    "a\n",
    "a\0",
    "ä",
    "x" * 129,
    "/".join(["x" * 120] * 5),
    "/".join("abcdefghi"),
    "file:///etc/passwd",
]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(FormatError):
        read(**several("fine", path))


@pytest.mark.parametrize(
    "paths",
    [("a", "a"), ("a", "A"), ("a/x", "A/y"), ("a/b/c", "a/B/d"), ("a", "a/b"), ("a/b", "A")],
)
def test_paths_that_collide_somewhere_are_refused(paths):
    for given in (paths, paths[::-1]):
        with pytest.raises(FormatError, match="side by side"):
            read(**several(*given))


@pytest.mark.parametrize(
    "size", [-1, 2**45 + 1, 2**53 - 1, True, False, 1.0, "1", None, [], {}], ids=repr
)
def test_a_size_that_no_file_has_is_refused(size):
    with pytest.raises(FormatError):
        read(**one_file(size=size))


@pytest.mark.parametrize(
    "digest",
    [
        "md5:" + "0" * 32,
        "sha1:" + "0" * 40,
        "sha512:" + "0" * 128,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "F" * 64,
        "sha256:" + "\u0660" * 64,
        HASH + "\n",
        "0" * 64,
        "SHA256:" + "0" * 64,
        "",
        None,
        1,
        [HASH],
    ],
    ids=repr,
)
def test_a_hash_that_this_version_does_not_know_is_refused(digest):
    with pytest.raises(FormatError):
        read(**one_file(hash=digest))


@pytest.mark.parametrize("missing", ["path", "size", "hash"])
def test_a_file_without_a_member_is_refused(missing):
    with pytest.raises(FormatError):
        read(**one_file(**{missing: GONE}))


ANYTHING = [GONE, None, True, 0, -1, 1, 2.5, "", "text", [], [1], [[]], {}, {"a": {}}, {"a": []}]
VALID = {
    "session": (),
    "step": (),
    "files": ([],),
    "metrics": ({},),
    "metadata": ({},),
    "writer": ("", "text"),
    "parent": (None,),
    "holdfast": ("", "text"),
}


@pytest.mark.parametrize("name", [name for name in members() if name != "format"])
def test_a_member_that_is_missing_or_of_another_type_is_refused(name):
    for value in ANYTHING:
        if value in VALID.get(name, ()) and not isinstance(value, bool):
            assert read(**{name: value}), value
        else:
            with pytest.raises(FormatError) as caught:
                read(**{name: value})
            assert not caught.value.newer


@pytest.mark.parametrize("file", [None, 1, "a", [], ["a", 1, HASH]], ids=repr)
def test_a_file_that_is_no_object_is_refused(file):
    with pytest.raises(FormatError):
        read(files=[file])


@pytest.mark.parametrize("value", [True, False, None, "0.5", [], {}], ids=repr)
def test_a_metric_that_is_no_number_is_refused(value):
    with pytest.raises(FormatError):
        read(metrics={"loss": value})


@pytest.mark.parametrize("value", [[], {}, [1], {"a": 1}], ids=repr)
def test_metadata_that_is_not_flat_is_refused(value):
    with pytest.raises(FormatError):
        read(metadata={"note": value})


@pytest.mark.parametrize(
    "changed",
    [
        {"session": 4},
        {"step": 1201},
        {"session": "3"},
        {"session": 3.0},
        {"step": 1200.0},
        {"id": "0003-000000001200-00000000"},
        {"id": "0004-000000001200-7f3a9c1e", "session": 4},
        {"id": "3-1200-7f3a9c1e"},
        {"id": "0003-000000001200-7F3A9C1E"},
    ],
)
def test_another_place_than_its_key_says_is_refused(changed):
    with pytest.raises(FormatError):
        read(**changed)


def test_a_boolean_is_no_session():
    first = CheckpointId(1, 1, "7f3a9c1e")
    data = record.encode(members(id=str(first), session=True, step=True))

    with pytest.raises(FormatError):
        manifest.read(data, first)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "3-1100-00000000",
        "0000-000000001100-00000000",
        "0002-000000001100-00000000\n",
        "../../etc/passwd",
        "0002/000000001100/00000000",
    ],
)
def test_a_parent_that_is_no_id_is_refused(parent):
    with pytest.raises(FormatError):
        read(parent=parent)


@pytest.mark.parametrize(
    "moment",
    [
        "2026-11-21",
        "2026-11-21T03:04:38",
        "2026-11-21T03:04:38+00:00",
        "2026-11-21T03:04:38.7729610Z",
        "2026-13-21T03:04:38Z",
        "2026-02-30T03:04:38Z",
        "2026-11-21T25:04:38Z",
        "2026-11-21T03:04:61Z",
        "0000-01-01T00:00:00Z",
        "2026-11-21 03:04:38Z",
        "\u0662\u0660\u0662\u0666-11-21T03:04:38Z",
        "2026-11-21T03:04:38Z\n",
        "now",
    ],
)
def test_a_moment_that_is_written_otherwise_is_refused(moment):
    with pytest.raises(FormatError):
        read(created_at=moment)


@pytest.mark.parametrize(
    "kind", ["draft", "Checkpoint", "", "tombstones", "pin", None, 1, ["checkpoint"]], ids=repr
)
def test_another_kind_is_refused(kind):
    with pytest.raises(FormatError):
        read(kind=kind)


@pytest.mark.parametrize("version", [0, -1, True, False, "1", 1.0, None, [], {}, GONE], ids=repr)
def test_what_names_no_format_is_refused_and_is_not_newer(version):
    with pytest.raises(FormatError) as caught:
        read(format=version)

    assert not caught.value.newer


@pytest.mark.parametrize("version", [2, 3, 2**53 - 1])
@pytest.mark.parametrize("more", [{}, {"kind": "shard"}, {"files": None}, {"id": GONE}], ids=repr)
def test_a_later_format_is_newer_whatever_else_it_says(version, more):
    with pytest.raises(FormatError, match="Upgrade") as caught:
        read(format=version, **more)

    assert caught.value.newer


@pytest.mark.parametrize("depth", [10, 100, 500, 900, 950, 970, 990, 1_000, 10_000])
@pytest.mark.parametrize("name", ["format", "kind", "id", "files", "metadata", "parent", "step"])
def test_deep_nesting_is_refused_wherever_it_is(name, depth):
    deep = b"[" * depth + b"]" * depth
    data = record.encode(members(**{name: "DEEP"}))
    head = data[: data.index(b',\n  "digest"')].replace(b'"DEEP"', deep)

    with pytest.raises(FormatError):
        manifest.read(resealed(head), ID)


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "-Infinity", "1e400", str(2**53), '"\\ud800"', '{"a": 1, "a": 2}'],
)
@pytest.mark.parametrize("name", ["metrics", "metadata", "unknown"])
def test_what_is_not_strict_json_is_refused_wherever_it_is(name, value):
    data = record.encode(members(**{name: {"x": "VALUE"}}))
    head = data[: data.index(b',\n  "digest"')].replace(b'"VALUE"', value.encode())

    with pytest.raises(FormatError):
        manifest.read(resealed(head), ID)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_another_encoding_is_refused(encoding):
    data = manifest.write(FULL)
    head = data[: data.index(b',\n  "digest"')].decode().encode(encoding)

    for hostile in (data.decode().encode(encoding), resealed(head)):
        with pytest.raises(FormatError):
            manifest.read(hostile, ID)


def test_more_than_a_mebibyte_is_refused():
    with pytest.raises(FormatError, match="at most"):
        read(metadata={"note": "x" * record.MAX_BYTES})


@pytest.mark.parametrize(
    "id",
    [
        "",
        "-",
        "--",
        "a-b-c",
        "1-2-3-4",
        "0003-000000001200-7F3A9C1E",
        "-1-000000001200-7f3a9c1e",
        "0003--00000001200-7f3a9c1e",
        "\u0660003-000000001200-7f3a9c1e",
        "0003-000000001200-../../x1",
        "9" * 5_000 + "-0-7f3a9c1e",
        None,
        3,
        [],
    ],
    ids=lambda id: repr(id)[:20],
)
def test_a_staged_record_of_no_id_is_refused(id):
    for session in (3, 0):
        with pytest.raises(FormatError):
            manifest.read_staged(
                record.encode(members(kind="draft", id=id, session=session)), "draft"
            )


def test_a_staged_record_of_another_kind_is_refused():
    with pytest.raises(FormatError):
        manifest.read_staged(manifest.write(FULL), "draft")
    with pytest.raises(FormatError):
        manifest.read_staged(manifest.write(FULL, kind="draft"), "checkpoint")
    with pytest.raises(FormatError):
        manifest.read_staged(manifest.write_tombstone(ID, "w"), "checkpoint")


def test_a_checkpoint_in_no_session_is_no_checkpoint_at_a_key():
    draft = Checkpoint(CheckpointId(0, 1200, "7f3a9c1e"), FULL.created_at)

    assert layout.parse_manifest_key(layout.manifest_key(draft.id)) is None


# What is written.


def test_a_manifest_that_no_reader_would_take_is_not_written():
    with pytest.raises(InvalidInputError, match="nothing was committed"):
        manifest.write(Checkpoint(ID, FULL.created_at, metadata={"note": "x" * record.MAX_BYTES}))


def test_a_draft_has_room_to_become_a_manifest_and_a_manifest_needs_none():
    empty = len(manifest.write(dataclasses.replace(FULL, metadata={"note": ""})))

    def largest(kind, size):
        note = "x" * (size - empty - len(kind) + len("checkpoint"))
        return manifest.write(dataclasses.replace(FULL, metadata={"note": note}), kind=kind)

    assert len(largest("checkpoint", record.MAX_BYTES)) == record.MAX_BYTES
    with pytest.raises(InvalidInputError, match="bytes"):
        largest("checkpoint", record.MAX_BYTES + 1)
    largest("draft", record.MAX_BYTES - 80)
    with pytest.raises(InvalidInputError, match="bytes"):
        largest("draft", record.MAX_BYTES)


def test_a_manifest_of_the_most_values_is_written():
    others = record.count_values(manifest.write(FULL)) - len(FULL.metrics)
    names = ("".join(letters) for letters in itertools.product(string.ascii_letters, repeat=3))
    metrics = dict.fromkeys(itertools.islice(names, record.MAX_VALUES - others + 1), 0)

    with pytest.raises(InvalidInputError, match="values"):
        manifest.write(dataclasses.replace(FULL, metrics=metrics))
    metrics.popitem()
    manifest.read(manifest.write(dataclasses.replace(FULL, metrics=metrics)), ID)


def test_a_tombstone_has_four_members():
    assert record.decode(manifest.write_tombstone(ID, "sweeper")) == {
        "format": 1,
        "kind": "tombstone",
        "id": str(ID),
        "writer": "sweeper",
    }


@pytest.mark.parametrize("changed", [several("a//b"), {"metadata": {"a": []}}, {"files": GONE}])
@pytest.mark.parametrize("kind", ["checkpoint", "draft"])
def test_what_is_staged_is_refused_as_what_is_stored(changed, kind):
    with pytest.raises(FormatError, match="not valid"):
        manifest.read_staged(record.encode(members(kind=kind, **changed)), kind)
    with pytest.raises(FormatError, match="not valid"):
        read(**changed)


@pytest.mark.parametrize(("length", "shown"), [(300, 300), (301, 300), (10_000, 300)])
def test_of_what_is_wrong_so_much_is_told_that_one_can_see_it(length, shown):
    with pytest.raises(FormatError) as caught:
        read(writer=["x" * (length - len("[''] is not a text"))])

    told = str(caught.value).partition("not valid: ")[2]
    assert len(told) == shown + (length > shown)
    assert told.endswith("…") == (length > shown)


def test_a_draft_that_is_written_can_become_a_manifest():
    room = record.MAX_BYTES
    note = ""
    for digit in reversed(range(21)):
        longer = note + "x" * 2**digit
        draft = Checkpoint(
            CheckpointId(0, 5, "0badc0de"), FULL.created_at, metadata={"note": longer}
        )
        try:
            manifest.write(draft, kind="draft")
        except InvalidInputError:
            continue
        note = longer

    last = Checkpoint(
        CheckpointId(10**9 - 1, 5, "0badc0de"), FULL.created_at, metadata={"note": note}
    )

    assert len(manifest.write(last)) <= room


def test_several_thousand_files_fit():
    files = tuple(File(f"shard-{number:05d}", 2**40, HASH) for number in range(5_000))

    again = manifest.read(manifest.write(Checkpoint(ID, FULL.created_at, files)), ID)

    assert again.files == files


@pytest.mark.parametrize("where", ["metrics", "metadata", "writer"])
def test_a_text_that_is_not_unicode_is_not_written(where):
    broken = {"metrics": {"\ud800": 1.0}, "metadata": {"a": "\udcff"}, "writer": "\ud800"}[where]

    with pytest.raises(InvalidInputError, match="Unicode"):
        manifest.write(Checkpoint(ID, FULL.created_at, **{where: broken}))


# Metrics and metadata that a caller gives.


@pytest.mark.parametrize(
    "value",
    [0, 1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(3), np.uint8(3), np.array(0.5)],
    ids=repr,
)
def test_a_number_is_a_metric(value):
    checked = manifest.check_metrics({"loss": value})

    assert checked == {"loss": float(value)}
    assert type(checked["loss"]) is float


@pytest.mark.parametrize(
    "value",
    [True, False, "0.5", b"0.5", None, [1], {}, 1j, 10**400, object],
    ids=lambda v: repr(v)[:9],
)
def test_what_is_no_number_is_no_metric(value):
    with pytest.raises(InvalidInputError, match="'loss' is not a number"):
        manifest.check_metrics({"loss": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")], ids=repr)
def test_a_metric_that_is_not_finite_is_left_out_with_a_warning(value):
    with pytest.warns(CheckpointWarning, match="'loss'"):
        checked = manifest.check_metrics({"loss": value, "accuracy": 0.5})

    assert checked == {"accuracy": 0.5}


@pytest.mark.parametrize(
    "value", ["", "x", 0, -3, 2**53 - 1, 0.5, True, None, np.float64(0.5), np.str_("x")], ids=repr
)
def test_a_flat_value_is_metadata(value):
    checked = manifest.check_metadata({"note": value})

    written = manifest.write(Checkpoint(ID, FULL.created_at, metadata=checked))
    assert manifest.read(written, ID).metadata == {"note": value}


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, -(2**53), [], {}, (), b"x", object(), np.int64(3), datetime.max],
    ids=lambda value: type(value).__name__,
)
def test_any_other_value_is_no_metadata(value):
    with pytest.raises(InvalidInputError, match="'note'"):
        manifest.check_metadata({"note": value})


@pytest.mark.parametrize("check", [manifest.check_metrics, manifest.check_metadata])
@pytest.mark.parametrize("given", [1, "loss", [("loss", 1)], {1: 1.0}, {None: 1.0}], ids=repr)
def test_names_are_texts_in_a_mapping(check, given):
    with pytest.raises(InvalidInputError, match="nothing was saved"):
        check(given)


@pytest.mark.parametrize("check", [manifest.check_metrics, manifest.check_metadata])
def test_nothing_given_is_nothing_recorded(check):
    assert check(None) == check({}) == {}


@pytest.mark.parametrize("check", [manifest.check_metrics, manifest.check_metadata])
def test_what_was_given_may_change_afterwards(check):
    given = {"a": 1.0}

    checked = check(given)
    given["a"] = 2.0

    assert checked == {"a": 1.0}


def test_more_values_than_a_reader_takes_are_not_written():
    letters = string.ascii_letters
    names = map("".join, itertools.product(letters, letters, letters))
    many = dict.fromkeys(itertools.islice(names, record.MAX_VALUES), 0)

    with pytest.raises(InvalidInputError, match="values"):
        manifest.write(dataclasses.replace(FULL, metadata=many))
