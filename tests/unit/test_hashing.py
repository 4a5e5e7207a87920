"""What is written and read is hashed on the way, whatever its pieces, and whatever fails."""

import hashlib
import io
import os
import random
import signal
import threading

import pytest

from holdfast import hashing
from holdfast.hashing import HashedFile, copy_hashed, hash_file, in_order, read_hashed

CONTENT = random.Random(1).randbytes(100_003)
#: Seconds after which a thread counts as one that never ends.
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that little content is many blocks, and threads are worth their start."""
    monkeypatch.setattr(hashing, "_BLOCK_BYTES", 8_192)
    monkeypatch.setattr(hashing, "_PASSING_BYTES", 4_096)
    monkeypatch.setattr(hashing, "_SMALL_BYTES", 1_024)
    monkeypatch.setattr(hashing, "_PIECES", 3)
    monkeypatch.setattr(hashing, "_COPIED_BYTES", 16_384)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def stored(path):
    path.write_bytes(CONTENT)
    with io.FileIO(path) as file:
        yield file


def named(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Unhashable:
    """A hash that fails at the last block."""

    def __init__(self):
        self.seen = 0

    def update(self, block):
        self.seen += len(block)
        if self.seen == len(CONTENT):
            raise MemoryError("a fault on purpose")


# --------------------------------------------------------------------- write


@pytest.mark.parametrize("size", [1, 100, 1_024, 5_000, 30_000])
def test_a_file_has_the_hash_of_its_pieces(path, size):
    pieces = [CONTENT[at : at + size] for at in range(0, len(CONTENT), size)]

    with HashedFile(path) as file:
        for number, piece in enumerate(pieces):
            file.write(memoryview(piece), copied=bool(number % 2))

    assert path.read_bytes() == CONTENT
    assert (file.hash, file.size) == (named(CONTENT), len(CONTENT))


def test_large_and_small_pieces_stay_in_their_order(path):
    pieces = [b"head", CONTENT, b"", b"between", CONTENT[:2_000], b"tail"]

    with HashedFile(path) as file:
        for piece in pieces:
            file.write(piece)

    assert path.read_bytes() == b"".join(pieces)
    assert file.hash == named(b"".join(pieces))


def test_an_empty_file_has_a_hash(path):
    with HashedFile(path) as file:
        pass

    assert path.read_bytes() == b""
    assert file.hash == named(b"") == hash_file(path)


def test_memory_of_any_shape_is_written_as_its_bytes(path):
    numbers = memoryview(bytearray(CONTENT[:9_600])).cast("d", [10, 120])

    with HashedFile(path) as file:
        file.write(numbers)

    assert path.read_bytes() == CONTENT[:9_600]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("size", [10, len(CONTENT)], ids=["small", "large"])
def test_only_what_is_to_be_durable_is_synced_after_its_last_byte(path, monkeypatch, size, durable):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))

    with HashedFile(path, durable=durable) as file:
        file.write(CONTENT[:size])

    assert synced == [size] * durable


def test_a_file_that_exists_is_left_alone(path):
    path.write_bytes(b"mine")

    with pytest.raises(FileExistsError):
        HashedFile(path)

    assert path.read_bytes() == b"mine"


def test_a_block_that_is_interrupted_leaves_nothing(path):
    def interrupted(file):
        file.write(CONTENT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(path, interrupted)

    assert not path.exists()
    assert not threads_left()


def written(path, write):
    with HashedFile(path) as file:
        write(file)


@pytest.mark.parametrize("failing", ["writev", "fsync", "hash"])
def test_what_fails_in_another_thread_is_raised_here_and_leaves_nothing(path, monkeypatch, failing):
    def full(*_):
        raise OSError(28, "a fault on purpose")

    if failing == "hash":
        monkeypatch.setattr(hashing.hashlib, "sha256", Unhashable)
    else:
        monkeypatch.setattr(os, failing, full)

    def in_pieces(file):
        for at in range(0, len(CONTENT), 2_000):
            file.write(CONTENT[at : at + 2_000], copied=True)

    with pytest.raises((OSError, MemoryError), match="on purpose"):
        written(path, in_pieces)

    assert not path.exists()
    assert not threads_left()


def test_what_is_written_in_part_is_written_on(path, monkeypatch):
    write = os.write

    def less(file, views):
        return write(file, views[0][: len(views[0]) // 2 + 1])

    monkeypatch.setattr(os, "writev", less)

    with HashedFile(path) as file:
        file.write(CONTENT)

    assert path.read_bytes() == CONTENT


def test_who_interrupts_the_wait_closes_nothing_that_is_written_to(path, monkeypatch):
    gate, order = threading.Event(), []
    writev, close = os.writev, os.close

    def slow(*arguments):
        gate.wait()
        order.append("written")
        return writev(*arguments)

    def watched(descriptor):
        order.append("closed")
        close(descriptor)

    def interrupt(*_):
        threading.Timer(0.2, gate.set).start()
        raise KeyboardInterrupt

    def write(file):
        monkeypatch.setattr(os, "close", watched)
        file.write(CONTENT)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    monkeypatch.setattr(os, "writev", slow)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            written(path, write)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert order[0] == "written"
    assert order[-1] == "closed"
    assert not path.exists()


@pytest.mark.parametrize("durable", [True, False])
def test_without_threads_it_is_done_in_this_one(path, monkeypatch, durable):
    def ends(_):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", ends)

    with HashedFile(path, durable=durable) as file:
        file.write(CONTENT, copied=True)

    assert path.read_bytes() == CONTENT
    assert file.hash == hash_file(path)


def threads_left():
    """Those that do not end; one that has done all its work may still be on its way out."""
    ours = [thread for thread in threading.enumerate() if thread.name == "holdfast hashing"]
    for thread in ours:
        thread.join(PATIENCE_S)
    return [thread for thread in ours if thread.is_alive()]


# ---------------------------------------------------------------------- read


def test_a_file_is_read_whole_and_hashed(stored):
    memory = bytearray(len(CONTENT))

    found = read_hashed(stored, [(0, memoryview(memory))])

    assert memory == CONTENT
    assert found == named(CONTENT)


def test_stretches_come_to_their_memory_and_all_else_is_hashed_too(stored):
    places = [(60_000, 20_001), (5, 0), (0, 3), (1_000, 9_000), (10_000, 30_000), (100_000, 3)]
    memories = [(start, bytearray(size)) for start, size in places]

    found = read_hashed(stored, [(start, memoryview(memory)) for start, memory in memories])

    assert found == named(CONTENT)
    for start, memory in memories:
        assert memory == CONTENT[start : start + len(memory)]


def test_a_file_is_hashed_without_a_stretch(stored):
    assert read_hashed(stored) == named(CONTENT)


def test_memory_of_any_shape_is_filled(stored):
    numbers = memoryview(bytearray(9_600)).cast("d", [10, 120])

    read_hashed(stored, [(7, numbers)])

    assert numbers.tobytes() == CONTENT[7:9_607]


@pytest.mark.parametrize("start", [-1, 99_999, 100_003, 10**18])
def test_a_stretch_beyond_the_file_is_an_error(stored, start):
    with pytest.raises(EOFError):
        read_hashed(stored, [(start, memoryview(bytearray(5)))])


def test_stretches_that_overlap_are_an_error():
    with pytest.raises(ValueError, match="from 9 on"):
        in_order([(9, memoryview(bytearray(5))), (0, memoryview(bytearray(10)))], 100)


def test_a_file_that_became_shorter_is_an_error(stored, monkeypatch):
    length = os.fstat(stored.fileno())
    os.truncate(stored.name, 50_000)
    monkeypatch.setattr(os, "fstat", lambda _: length)

    with pytest.raises(EOFError, match="too early"):
        read_hashed(stored, [(0, memoryview(bytearray(len(CONTENT))))])

    assert not threads_left()


def test_a_hash_that_fails_while_it_is_read_is_raised_here(stored, monkeypatch):
    monkeypatch.setattr(hashing.hashlib, "sha256", Unhashable)

    with pytest.raises(MemoryError, match="on purpose"):
        read_hashed(stored)

    assert not threads_left()


def test_a_copy_is_hashed_in_the_same_pass(stored, tmp_path):
    found = copy_hashed(stored, tmp_path / "copy", durable=False)

    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert found == named(CONTENT)
