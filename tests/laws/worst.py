"""
Records as large as one may be, each made to cost as much time and memory as it can.

`python -m tests.laws.worst` prints what each costs.
"""

import itertools
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator

from holdfast import manifest, record
from holdfast.errors import FormatError
from tests.laws.fuzzing import CHECKPOINTS, HASH, ID, sealed

#: What reading one record may take.
MOST_SECONDS, MOST_BYTES = 0.05, 64 * 2**20

_HEAD = manifest.write(CHECKPOINTS[0]).rpartition(b',\n  "digest"')[0]
#: Bytes that are left for what is put into a record.
_ROOM = record.MAX_BYTES - len(_HEAD) - 200


def costs(first: int = 1, every: int = 1) -> Iterator[tuple[str, float, int]]:
    """Of each record its name, the seconds of processor it takes, and the bytes at its peak."""
    for name, make in [*RECORDS.items()][first - 1 :: every]:
        data = make()
        yield name, min(_seconds(data) for _ in range(15)), peak(data)


def bounded(first: int = 1, every: int = 1) -> Iterator[str]:
    """Every one of them within the bounds."""
    for name, seconds, taken in costs(first, every):
        is_within = seconds <= MOST_SECONDS and taken <= MOST_BYTES
        yield "" if is_within else f"{name}: {seconds * 1000:.0f} ms, {taken / 2**20:.0f} MiB"


def peak(data: bytes) -> int:
    """Bytes of memory that reading it takes at most."""
    tracemalloc.start()
    try:
        _read(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _seconds(data: bytes) -> float:
    began = time.thread_time()
    _read(data)
    return time.thread_time() - began


def _read(data: bytes) -> None:
    try:
        manifest.read(data, ID)
    except FormatError as error:
        if len(str(error)) > 1_000:
            raise AssertionError(f"a text of {len(str(error)):,} characters") from error


def _extra(value: bytes) -> Callable[[], bytes]:
    """A record with a member more, which nobody looks at."""
    return lambda: sealed(_HEAD + b',\n  "x": ' + value)


def _list(unit: bytes) -> Callable[[], bytes]:
    return _extra(b"[" + b",".join([unit] * (_ROOM // (len(unit) + 1))) + b"]")


def _member(name: str, honest: bytes, value: bytes) -> Callable[[], bytes]:
    """A record with something else in the place of a member."""
    before = f'"{name}": '.encode()
    assert before + honest in _HEAD
    return lambda: sealed(_HEAD.replace(before + honest, before + value))


def _named(name: str, pattern: str) -> Callable[[], bytes]:
    """As many members of an object as fit."""
    count = _ROOM // (len(pattern % 0) + 6)
    return _member(
        name, b"{}", f"{{{','.join(pattern % number for number in range(count))}}}".encode()
    )


def _files(path: str) -> Callable[[], bytes]:
    """As many files as fit."""
    one = f'{{"path":"{path}","size":1,"hash":"{HASH}"}}'
    count = _ROOM // (len(one.replace("*", "1234")) + 1)
    numbers = itertools.count()
    files = ",".join(re.sub(r"\*", lambda _: f"{next(numbers):04x}", one) for _ in range(count))
    return _member("files", b"[]", f"[{files}]".encode())


RECORDS: dict[str, Callable[[], bytes]] = {
    "integers": _list(b"0"),
    "large integers": _list(b"9007199254740991"),
    "one integer": _extra(b"9" * _ROOM),
    "fractions": _list(b"1.5"),
    "one fraction": _extra(b"0." + b"9" * _ROOM),
    "exponents": _list(b"1e9"),
    "one exponent": _extra(b"1e" + b"9" * _ROOM),
    "objects": _list(b"{}"),
    "objects of a member": _list(b'{"a":0}'),
    "objects of six members": _list(b'{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0}'),
    "lists": _list(b"[]"),
    "lists in lists": _list(b"[[]]"),
    "texts": _list(b'"ab"'),
    "texts of four bytes": _list(b'"\xf0\x9f\x98\x80\xf0\x9f\x98\x80"'),
    "escapes": _extra(b'"' + b"\\u00e9" * (_ROOM // 6) + b'"'),
    "surrogates": _extra(b'"' + b"\\ud83d\\ude00" * (_ROOM // 12) + b'"'),
    "lone surrogates": _extra(b'"' + b"\\ud83d" * (_ROOM // 6) + b'"'),
    "spaces": lambda: sealed(_HEAD + b" " * _ROOM),
    "deep lists": _extra(b"[" * (_ROOM // 2) + b"]" * (_ROOM // 2)),
    "deep objects": _extra(b'{"":' * (_ROOM // 5) + b"0" + b"}" * (_ROOM // 5)),
    "files": _files("*"),
    "files in one directory": _files("a/b/c/d/e/f/g/*"),
    "files in directories of their own": _files("/".join(["*"] * 8)),
    "files in large directories": _files("A/B/C/D/E/F/G/*"),
    "metrics": _named("metrics", '"%x":1'),
    "metadata": _named("metadata", '"%x":1'),
    "a path too long": _member(
        "files", b"[]", b'[{"path":"' + b"a/" * (_ROOM // 2) + b'","size":1,"hash":""}]'
    ),
    "a file of lists": _member("files", b"[]", b"[[" + b"[]," * (_ROOM // 3) + b"0]]"),
    "a writer of objects": _member("writer", b'""', b"[" + b"{}," * (_ROOM // 3) + b"0]"),
    "a format of integers": _member("format", b"1", b"[" + b"0," * (_ROOM // 2) + b"0]"),
    "a long kind": _member("kind", b'"checkpoint"', b'"' + b"x" * _ROOM + b'"'),
    "a long parent": _member("parent", b"null", b'"' + b"0" * _ROOM + b'"'),
    "too large by a byte": lambda: b" " * (record.MAX_BYTES + 1),
}


if __name__ == "__main__":
    for name, seconds, taken in costs():
        print(f"{name:36}{seconds * 1000:7.1f} ms{taken / 2**20:7.1f} MiB")
