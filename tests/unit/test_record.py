"""A record is read back as it was written, or refused: no flipped bit goes unnoticed."""

import hashlib
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast import record
from holdfast.errors import FormatError

MEMBERS = {"format": 1, "text": "ä\u2028😀", "list": [1, 2.5, None, True, {"deep": []}]}

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-record.MAX_INTEGER, record.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=10,
)


def sealed(head):
    """A record whose digest is right, whatever it says: what an attacker would send."""
    digest = hashlib.sha256(head).hexdigest()
    return head + b',\n  "digest": "sha256:' + digest.encode() + b'"\n}\n'


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, values, min_size=1, max_size=5))
@example(MEMBERS)
def test_what_was_written_is_read_back(members):
    members.pop("digest", None)
    members["format"] = 1

    read = record.decode(record.encode(members))

    assert read == members
    assert list(read) == list(members)


def test_a_record_is_text_that_ends_with_its_digest():
    data = record.encode({"a": 1})

    digest = hashlib.sha256(b'{\n  "a": 1').hexdigest()
    assert data.decode() == f'{{\n  "a": 1,\n  "digest": "sha256:{digest}"\n}}\n'
    assert json.loads(data) == {"a": 1, "digest": f"sha256:{digest}"}


def test_every_flipped_bit_is_noticed():
    data = record.encode(MEMBERS)

    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(FormatError):
                record.decode(bytes(flipped))


def test_every_truncation_is_noticed():
    data = record.encode(MEMBERS)

    for length in range(len(data)):
        with pytest.raises(FormatError):
            record.decode(data[:length])


@pytest.mark.parametrize("more", [b"\n", b" ", b"\0", b"{}", b"\xef\xbb\xbf"])
def test_nothing_may_come_before_or_after_a_record(more):
    data = record.encode(MEMBERS)

    for changed in (data + more, more + data):
        with pytest.raises(FormatError):
            record.decode(changed)


def test_a_record_of_the_largest_size_is_read_and_one_byte_more_is_not():
    room = record.MAX_BYTES - len(record.encode({"text": ""}))

    assert record.decode(record.encode({"text": "x" * room}))
    with pytest.raises(FormatError, match="at most"):
        record.decode(record.encode({"text": "x" * (room + 1)}))


@pytest.mark.parametrize("text", [",", "[", "{", '",', "\\,", '\\",'], ids=repr)
def test_what_stands_in_texts_is_no_value(text):
    members = {"text": text * record.MAX_VALUES, "another": [text] * 100}

    assert record.decode(record.encode(members)) == {**members}


@pytest.mark.parametrize("value", [0, "text", [], {}, None], ids=repr)
def test_a_record_of_the_most_values_is_read_and_one_more_is_not(value):
    each = 1 + (value in ([], {}))  # a list of its own opens one more
    count = (record.MAX_VALUES - 1) // each
    largest = {"values": [value] * count}

    assert record.decode(record.encode(largest))
    with pytest.raises(FormatError, match="values"):
        record.decode(record.encode({"values": [value] * (count + 1)}))


def test_the_size_is_looked_at_before_anything_is_parsed():
    with pytest.raises(FormatError, match="bytes"):
        record.decode(b"[" * (record.MAX_BYTES + 1))


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        str(2**53),
        str(-(2**53)),
        "9" * 500_000,
        "-" + "9" * 500_000,
        '{"a": 1, "a": 1}',
        '{"a": 1, "\\u0061": 2}',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '{"\\ud800": 1}',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "01",
        "1.",
        ".5",
        "+1",
        "0x10",
        "'a'",
        "True",
        "undefined",
        '"\t"',
        '"\\x41"',
        "1,",
        "[1,]",
        "/* */ 1",
        "",
    ],
    ids=lambda value: value[:16] or "nothing",
)
def test_what_is_not_strict_json_is_refused_though_its_digest_is_right(value):
    data = sealed(f'{{\n  "format": 1,\n  "value": {value}'.encode())

    with pytest.raises(FormatError, match="strict JSON"):
        record.decode(data)


@pytest.mark.parametrize(
    "head",
    [
        b'{"a": 1, "a": 2',
        b'{"digest": "sha256:0"',
        b'{"a": {"b": 1, "b": 1}',
        b'{"a": "\xff"',
        b'{"a": "\xc0\xaf"',
        b'{"a": "\xed\xa0\x80"',
        b'\xef\xbb\xbf{"a": 1',
        '{"a": 1'.encode("utf-16"),
        '{"a": 1'.encode("utf-16-le"),
        '{"a": 1'.encode("utf-32"),
        b"",
        b"[1",
        b"1",
        b'"a"',
        b"null",
        b'{"a": 1}, {"b": 2',
        b'{"a": 1}}',
        b'{"a": 1\0',
    ],
)
def test_another_beginning_is_refused_though_its_digest_is_right(head):
    with pytest.raises(FormatError):
        record.decode(sealed(head))


def test_a_list_that_ends_like_a_record_is_refused():
    with pytest.raises(FormatError, match="strict JSON"):
        record.decode(sealed(b'[{"a": 1}'))


@pytest.mark.parametrize("number", [2**53 - 1, -(2**53) + 1, 0, -0.0, 1e308, 5e-324])
def test_a_number_that_every_reader_takes_is_read(number):
    assert record.decode(record.encode({"number": number})) == {"number": number}


@pytest.mark.parametrize("data", [b"", b"\n", b"{}", b"{}\n", b"null", b"\0" * 200])
def test_what_has_no_digest_is_refused(data):
    with pytest.raises(FormatError, match="cut short or damaged"):
        record.decode(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_could_not_be_read_back_is_not_written(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        record.encode({"value": value})


@pytest.mark.parametrize("text", [b"[]", b"1", b'"a"', b"null"])
def test_what_is_strict_and_no_object_is_refused(text):
    with pytest.raises(FormatError, match="the file is not a JSON object"):
        record.parse(text, "the file")
