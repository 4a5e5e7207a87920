"""
The hash of the manifest: how fast SHA-256 is here, and what could take its place.

    make bench-hashes           (or: python -m benchmarks.hashes --help)

Every hash goes over the same random bytes in blocks, in one thread, and in two that have a half
each: a hash that lets go of the interpreter's lock is then faster, where a core is free. Beside
them stand a memory copy and a file written and synced. All take turns in a process of their own;
in every second process OpenSSL is told that the CPU has no SHA instructions, which slows SHA-256
and nothing else. The quickest turn says what the machine can do, the median in brackets what others
left of it. What is not installed is left out and named: `pip install blake3 xxhash`.
"""

import argparse
import ctypes
import hashlib
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Protocol

from holdfast.hashing import HashedFile

MIB = 1024 * 1024
#: Bytes that are hashed and written at a time.
BLOCK = 4 * MIB
#: Takes bit 29 of EBX of CPUID's leaf 7 away, the SHA extensions (OPENSSL_ia32cap(3)).
NO_SHA_INSTRUCTIONS = ":~0x20000000"
#: What one turn did: MB/s in one thread, and in two where that says something.
Rates = tuple[float, float | None]


class Hash(Protocol):
    """What all hashes have in common; a checksum is made to look like it."""

    def update(self, data: memoryview, /) -> object:
        """Take more bytes in."""

    def hexdigest(self) -> str:
        """The hash of all of them."""


# ------------------------------------------------------------------ contestants


def blake3() -> Hash:
    from blake3 import blake3

    return blake3()


def blake3_with_threads() -> Hash:
    from blake3 import blake3

    return blake3(max_threads=blake3.AUTO)


def xxh3() -> Hash:
    from xxhash import xxh3_128

    return xxh3_128()


class Crc32:
    """The checksum of zlib."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        """Go on from the last value."""
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        """The value so far."""
        return f"{self._value:08x}"


HASHES: dict[str, Callable[[], Hash]] = {
    "SHA-256": hashlib.sha256,
    "SHA-512/256": lambda: hashlib.new("sha512_256"),
    "SHA3-256": hashlib.sha3_256,
    "BLAKE2b": hashlib.blake2b,
    "BLAKE3": blake3,
    "BLAKE3, threads of its own": blake3_with_threads,
    "xxh3-128, no cryptographic hash": xxh3,
    "CRC32, no hash": Crc32,
}


# ------------------------------------------------------------------ one turn of each


def measure(size: int) -> dict[str, Rates]:
    """Everything that is installed, once."""
    source = memoryview(bytearray(os.urandom(size)))
    target = memoryview(bytearray(b"\1") * size)  # not zeros, whose memory comes with the first use
    rates: dict[str, Rates] = {"memory copy": both(copy, source, target)}
    for name, new in HASHES.items():
        if not why_not(new):
            rates[name] = both(lambda data, _, new=new: hash_all(new(), data), source, target)
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        plain, hashed = Path(directory) / "plain", Path(directory) / "hashed"
        rates["written and synced"] = size_per_second(lambda: write(source, plain), size), None
        rates["written, synced and hashed meanwhile"] = (
            size_per_second(lambda: write_hashed(source, hashed), size),
            None,
        )
    return rates


def both(work: Callable[..., object], source: memoryview, target: memoryview) -> Rates:
    """The rates of work on the whole in one thread, and on a half in each of two."""
    size, half = len(source), len(source) // 2
    parts = (source[:half], target[:half]), (source[half:], target[half:])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(len, parts))  # its threads are there

        def in_two_threads() -> None:
            for each in [pool.submit(work, *part) for part in parts]:
                each.result()

        return (
            size_per_second(lambda: work(source, target), size),
            size_per_second(in_two_threads, size),
        )


def size_per_second(work: Callable[[], object], size: int) -> float:
    begun = time.perf_counter()
    work()
    return size / 1e6 / (time.perf_counter() - begun)


def hash_all(hashed: Hash, data: memoryview) -> None:
    for at in range(0, len(data), BLOCK):
        hashed.update(data[at : at + BLOCK])
    hashed.hexdigest()


def copy(source: memoryview, target: memoryview) -> None:
    ctypes.memmove(address(target), address(source), len(source))  # lets go of the lock


def address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


def write(data: memoryview, path: Path) -> None:
    with path.open("xb", buffering=0) as file:
        for at in range(0, len(data), BLOCK):
            file.write(data[at : at + BLOCK])
        os.fsync(file.fileno())


def write_hashed(data: memoryview, path: Path) -> None:
    with HashedFile(path) as file:
        file.write(data)


def why_not(new: Callable[[], Hash]) -> str:
    """Why a hash is left out; empty if it is here."""
    try:
        new()
    except (ImportError, ValueError) as error:  # ValueError: OpenSSL was built without it
        return str(error)
    return ""


# ------------------------------------------------------------------ many turns


def in_a_process(size: int, mask: str | None) -> dict[str, Rates]:
    """One turn in a process of its own, with some of the CPU's instructions hidden from OpenSSL."""
    hidden = {"OPENSSL_ia32cap": mask} if mask else {}
    command = [sys.executable, "-m", "benchmarks.hashes", "--task", str(size)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **hidden})
    rates: dict[str, Rates] = json.loads(ran.stdout)
    return rates


def show(columns: dict[str, list[dict[str, Rates]]]) -> None:
    heads = [
        f"{threads}{', ' if title else ''}{title}"
        for title in columns
        for threads in ("one thread", "two threads")
    ]
    print(f"\n| MB/s | {' | '.join(heads)} |")
    print("|---" + "|---:" * len(heads) + "|")
    for name in next(iter(columns.values()))[0]:
        cells = [
            cell([turn[name][threads] for turn in turns])
            for turns in columns.values()
            for threads in (0, 1)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def cell(rates: list[float | None]) -> str:
    """The quickest turn, and the median."""
    known = [rate for rate in rates if rate is not None]
    if not known:
        return ""
    return f"**{max(known):,.0f}** ({statistics.median(known):,.0f})"


def machine() -> str:
    """The CPU and what it can do, as Linux says."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    named = [flag for flag in ("sha_ni", "sha2", "sha512", "avx2", "avx512f") if flag in flags]
    cpu = facts.get("model name", "CPU unknown")
    return f"{platform.machine()}, {cpu}, {os.cpu_count()} CPUs, {' '.join(named) or 'plain'}"


def versions() -> str:
    packages = []
    for name in ("blake3", "xxhash"):
        try:
            packages.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", ssl.OPENSSL_VERSION, *packages])


def main() -> None:
    """Measure in rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--task", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--mib", type=int, default=128, help="how much each hashes in a turn")
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(measure(arguments.task)))
        return

    print(machine())
    print(versions())
    for name, new in HASHES.items():
        if why := why_not(new):
            print(f"left out: {name} ({why})")
    masks = {"": None, "SHA instructions hidden": NO_SHA_INSTRUCTIONS}
    if platform.machine() not in ("x86_64", "AMD64"):
        print("left out: hiding the SHA instructions, which is written for x86-64")
        del masks["SHA instructions hidden"]
    columns: dict[str, list[dict[str, Rates]]] = {title: [] for title in masks}
    for _ in range(arguments.repeats):
        for title, mask in masks.items():
            columns[title].append(in_a_process(arguments.mib * MIB, mask))
    show(columns)


if __name__ == "__main__":
    main()
