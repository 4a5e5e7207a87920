"""HTTP/1.1 on one connection, message by message, with every byte as it came."""

import contextlib
import re
import select
import socket
import struct
from collections.abc import Iterator
from typing import Literal

_BLOCK = 64 * 1024
_LONGEST_HEAD = 256 * 1024
_RESET = struct.pack("ii", 1, 0)


class EndedError(Exception):
    """The other side closed in the middle of a message."""


#: How the end of a body is known: so many bytes, chunks, or the end of the connection.
Framing = int | Literal["chunks", "end"]


class Wire:
    """One connection, read by messages; `ended` when the next one cannot be told any more."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self.ended = False

    def head(self) -> bytes:
        """A message up to its empty line; nothing if the connection has ended."""
        try:
            return self._until(b"\r\n\r\n")
        except EndedError:
            return b""

    def body(self, framing: Framing) -> Iterator[tuple[bytes, bool]]:
        """The bytes of a body as they came, with whether they are content or chunks' frames."""
        if framing == "chunks":
            size = -1
            while size:
                line = self._until(b"\r\n")
                yield line, False
                size = int(line.split(b";")[0], 16)
                for piece in self._exactly(size):
                    yield piece, True
                # The line after a chunk is empty; after the last, trailers may come first.
                while (line := self._until(b"\r\n")) != b"\r\n":
                    yield line, False
                yield line, False
        elif framing == "end":
            with contextlib.suppress(EndedError):
                while True:
                    yield self._some(_BLOCK), True
        else:
            for piece in self._exactly(framing):
                yield piece, True

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._sock.sendall(piece)

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()

    def is_stale(self) -> bool:
        """Whether it was closed, or spoke unasked."""
        return self._sock.fileno() < 0 or bool(select.select([self._sock], [], [], 0)[0])

    def is_first_to_speak(self, other: "Wire") -> bool:
        """Wait for either side; whether this one spoke."""
        if self._buffer:
            return True
        return other._sock not in select.select([self._sock, other._sock], [], [])[0]

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            piece = self._some(min(size, _BLOCK))
            size -= len(piece)
            yield piece

    def _some(self, most: int) -> bytes:
        if not self._buffer:
            self._receive()
        piece = bytes(self._buffer[:most])
        del self._buffer[:most]
        return piece

    def _until(self, mark: bytes) -> bytes:
        while (found := self._buffer.find(mark)) < 0:
            assert len(self._buffer) < _LONGEST_HEAD
            self._receive()
        return self._some(found + len(mark))

    def _receive(self) -> None:
        data = self._sock.recv(_BLOCK)
        if not data:
            raise EndedError
        self._buffer += data


def header_of(head: bytes, name: str) -> str | None:
    found = re.search(rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*(.*?)[ \t]*\r$", head)
    return found[1].decode("latin-1") if found else None


def framing_of(head: bytes, *, to: str | None = None) -> Framing:
    """How a body ends; `to` is the method that a reply is for, None for a request."""
    if to is not None:
        status = head.split(b" ", 2)[1]
        if to == "HEAD" or status in (b"204", b"304"):
            return 0
    if "chunked" in (header_of(head, "Transfer-Encoding") or "").lower():
        return "chunks"
    length = header_of(head, "Content-Length")
    if length is not None:
        return int(length)
    return 0 if to is None else "end"


def closes(head: bytes) -> bool:
    said = (header_of(head, "Connection") or "").lower()
    return said == "close" or (b"HTTP/1.0" in head.split(b"\r\n", 1)[0] and said != "keep-alive")


def flipped(pieces: list[tuple[bytes, bool]]) -> list[bytes]:
    """A body with one bit flipped in the middle of its content."""
    left = sum(len(piece) for piece, payload in pieces if payload) // 2
    sent = []
    for piece, payload in pieces:
        if payload and 0 <= left < len(piece):
            changed = bytearray(piece)
            changed[left] ^= 1
            sent.append(bytes(changed))
        else:
            sent.append(piece)
        if payload:
            left -= len(piece)
    return sent


def half(head: bytes, pieces: list[tuple[bytes, bool]]) -> list[bytes]:
    """A message that ends in the middle of its content, or of its first line if it has none."""
    left = sum(len(piece) for piece, payload in pieces if payload) // 2
    if not left:
        return [head[: head.find(b"\r\n") // 2]]
    sent = [head]
    for piece, payload in pieces:
        if payload and left <= len(piece):
            return [*sent, piece[:left]]
        left -= len(piece) if payload else 0
        sent.append(piece)
    return sent
