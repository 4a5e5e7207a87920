"""
The written form of every record: strict JSON whose last member is the digest of what precedes it.

A record is a UTF-8 text that ends with the line `"digest": "sha256:…"` and a closing brace.
The digest covers every byte before that last member, so checking it needs no canonical JSON, and
no flipped bit goes unnoticed: before the digest it changes the hash, in it it changes the value,
and after it the text no longer has its one possible ending.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from holdfast.errors import FormatError

#: Bytes that a record may have. A manifest of several thousand files fits.
MAX_BYTES = 1024 * 1024
#: Integers above this are not the same number in every JSON reader (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1
#: Values that a record may have, so that reading a hostile one ends soon. A manifest of as many
#: files as fit has half of them.
MAX_VALUES = 2**16

#: A text, also one that nobody has ended.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_TAIL = ',\n  "digest": "sha256:{}"\n}}\n'
_TAIL_PATTERN = re.compile(rb',\n  "digest": "sha256:([0-9a-f]{64})"\n\}\n\Z')
_TAIL_BYTES = len(_TAIL.format("0" * 64))


def encode(members: Mapping[str, Any]) -> bytes:
    """Write a record; the members keep their order."""
    text = json.dumps(members, indent=2, ensure_ascii=False, allow_nan=False)
    head = text.removesuffix("\n}").encode()
    return head + _TAIL.format(hashlib.sha256(head).hexdigest()).encode()


def decode(data: bytes) -> dict[str, Any]:
    """
    Read a record back, or refuse it.

    Raises:
        FormatError: it is too large, has too many values, is not UTF-8 or not strict JSON (a
            duplicate key, NaN, infinity, an integer of 2^53 or more, a lone surrogate, deep
            nesting), or its digest differs.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"the record has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    tail = _TAIL_PATTERN.search(data, max(0, len(data) - _TAIL_BYTES))
    if tail is None:
        raise FormatError("the record does not end with its digest: it is cut short or damaged")
    head = data[: tail.start()]
    if count_values(head) > MAX_VALUES:
        raise FormatError(f"the record is not strict JSON of at most {MAX_VALUES:,} values")
    if hashlib.sha256(head).hexdigest().encode() != tail[1]:
        raise FormatError("the record's digest differs from its content: it is damaged")
    members = parse(head + b"\n}", "the record")
    if "digest" in members:
        raise FormatError("the record is not strict JSON: a key appears twice")
    return members


def count_values(data: bytes) -> int:
    """How many values a text of JSON has at most: numbers, texts, lists, objects and others."""
    count = _count_openings(data)
    return count if count <= MAX_VALUES else _count_openings(_TEXT.sub(b"", data))


def _count_openings(data: bytes) -> int:
    """How many values begin: each after a comma, or first in a list or an object."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def parse(data: bytes, what: str) -> dict[str, Any]:
    """
    Read a JSON object, strictly; the caller has bounded its size.

    Parameters:
        data (bytes): the text.
        what (str): how to speak of it in an error.

    Raises:
        FormatError: it is no object, or not strict JSON, as `decode` says.
    """
    try:
        members = json.loads(
            data.decode(),  # strict: json.loads alone would also take UTF-16 and UTF-32
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_integer,
        )
        if rb"\u" in data:
            json.dumps(members, ensure_ascii=False).encode()  # a lone surrogate cannot be encoded
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not strict JSON: {error}") from error
    if not isinstance(members, dict):
        raise FormatError(f"{what} is not a JSON object")
    return members


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key appears twice")
    return members


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number in JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number


def _integer(text: str) -> int:
    # The length is looked at first: turning a very long text into a number takes quadratic time.
    if len(text) > len(str(MAX_INTEGER)) + 1 or abs(number := int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {text[:20]} is beyond 2^53")
    return number
