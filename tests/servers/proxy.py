"""
A reverse proxy that injects faults: what a network and a tired server do, at the k-th request.

Requests and replies pass byte for byte, so that signatures hold; only an absolute URL in a
`Location` header is turned back to the proxy.
"""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit

from tests.servers.wire import EndedError, Wire, closes, flipped, framing_of, half, header_of

Kind = Literal[
    "refuse",  # the connection is reset before a byte is forwarded
    "lost",  # forwarded and answered, and the connection is reset in place of the reply
    "cut request",  # half of the body is forwarded, then both connections end
    "cut reply",  # half of the reply arrives, then the connection is reset
    "short reply",  # half of the reply arrives, then the connection is closed in an orderly way
    "flip request",  # one bit in the middle of the body is flipped on its way there
    "flip reply",  # and on its way back
    "flip content",  # likewise, but not in what the server says itself, in JSON or XML
    "hang",  # the request is taken and never answered
    "stall",  # half of the reply arrives, and nothing after it
    "answer",  # the proxy answers, and nothing is forwarded
    "answer after",  # forwarded, and the proxy's own answer is given in place of the reply
]


#: Of such a kind is what a server says itself, and no stored content.
_SAID = re.compile("json|xml")
#: Seconds after which a connection counts as one that never ends.
_PATIENCE_S = 60
#: After these the connection goes on.
_FLIPS = ("flip reply", "flip content")


@dataclass(frozen=True)
class Answer:
    """What the proxy says itself."""

    status: int = 503
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def wire(self, *, to_head: bool) -> bytes:
        """The bytes of it; a HEAD request is answered without a body."""
        headers = [*self.headers, ("Content-Length", str(len(self.body))), ("Connection", "close")]
        lines = [f"HTTP/1.1 {self.status} Fault", *(f"{name}: {text}" for name, text in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if to_head else self.body)


@dataclass(frozen=True)
class Request:
    """
    One request that came to the proxy.

    Attributes:
        index: counted from 1.
        method: such as `PUT`.
        path: without the query, as it was sent.
        query: without the `?`.
        head: the request line and the headers.
    """

    index: int
    method: str
    path: str
    query: str
    head: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """The value of a header; None if it was not sent."""
        return header_of(self.head, name)


@dataclass(frozen=True)
class Fault:
    """
    One failure on purpose.

    Attributes:
        kind: what happens.
        at: to which request, counted from 1 among those that `only` takes.
        lasting: to every later one too.
        only: which requests count; None counts all.
        answer: what is said, for the kinds that answer.
    """

    kind: Kind
    at: int = 1
    lasting: bool = False
    only: Callable[[Request], bool] | None = None
    answer: Answer = Answer()


class FaultProxy:
    """
    Stands on a free port of this machine before a server, for as long as the `with` block lasts.

    Parameters:
        upstream: the server's endpoint, such as `http://127.0.0.1:5000`.

    Attributes:
        endpoint: the proxy's own.
        requests: every request that came.
        struck: those that a fault hit.
        hanging: how many requests were left to hang so far.
        before: called with each request before it is forwarded; a ConnectionAbortedError raised in
            it ends the connection instead.
        after: likewise, once the server has answered and before the reply is given.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname
        assert parts.port
        self._upstream = (parts.hostname, parts.port)
        self._bases = [
            f"http://{host}:{parts.port}".encode()
            for host in {parts.hostname, "localhost", "127.0.0.1"}
        ]
        self.requests: list[Request] = []
        self.struck: list[Request] = []
        self.hanging = 0
        self.before: Callable[[Request], object] = lambda request: None
        self.after: Callable[[Request], object] = lambda request: None
        self._plan: list[Fault] = []
        self._counts: list[int] = []
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._earlier: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._waiting: dict[threading.Thread, Wire] = {}
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        self._earlier = list(self._threads)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.release()
        self.hang_up()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def plan(self, *faults: Fault) -> None:
        """Fail so from now on; counts, records, hooks and what hung before begin anew."""
        self.release()
        with self._lock:
            self._plan, self._counts = list(faults), [0] * len(faults)
            self.requests, self.struck = [], []
            self.before = self.after = lambda request: None
            self.hanging, self._released = 0, threading.Event()
            self._earlier = list(self._threads)

    def drain(self) -> None:
        """
        Wait until every connection since the plan has come to its end; who made them is gone.

        Somebody else's that nothing is asked on does not count: its client keeps it for later.
        """
        with self._lock:
            serving = [each for each in self._threads if each not in self._earlier]
        end = time.monotonic() + _PATIENCE_S
        for thread in serving:
            while thread.is_alive() and not self._is_idle(thread):
                thread.join(0.05)
                assert time.monotonic() < end, f"a connection is still open: {thread.name}"

    def _is_idle(self, thread: threading.Thread) -> bool:
        """Whether a connection waits for a request, and its client lives: its end would be read."""
        with self._lock:  # so that its own thread does not close it meanwhile
            client = self._waiting.get(thread)
            return client is not None and not client.is_stale()

    def hang_up(self) -> None:
        """End every connection; whoever holds one has no more use for it."""
        with self._lock:
            open_now = list(self._sockets)
        for each in open_now:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Let the requests that hang end without an answer."""
        self._released.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return  # the block has ended
            self._start(self._serve, client)

    def _start(self, work: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=work, args=given, name="fault-proxy", daemon=True)
        with self._lock:
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._kept(sock), contextlib.ExitStack() as ends:
            client, server = Wire(sock), None
            with contextlib.suppress(OSError, EndedError):
                while head := self._head(client):
                    if server is None or server.is_stale():
                        server = Wire(ends.enter_context(self._kept(self._connect())))
                    if not self._exchange(head, client, server):
                        return

    def _head(self, client: Wire) -> bytes:
        me = threading.current_thread()
        with self._lock:
            self._waiting[me] = client
        try:
            head = client.head()
        finally:
            with self._lock:
                del self._waiting[me]
        me.name = f"fault-proxy {head[:200]!r}"  # for whoever wonders what is still under way
        return head

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._upstream)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    @contextlib.contextmanager
    def _kept(self, sock: socket.socket) -> Iterator[socket.socket]:
        with self._lock:
            self._sockets.add(sock)
        try:
            yield sock
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _note(self, head: bytes) -> tuple[Request, Fault | None]:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        path, _, query = target.partition("?")
        with self._lock:
            request = Request(len(self.requests) + 1, method, path, query, head)
            self.requests.append(request)
            for number, fault in enumerate(self._plan):
                if fault.only is None or fault.only(request):
                    self._counts[number] += 1
                    count = self._counts[number]
                    if count == fault.at or (fault.lasting and count > fault.at):
                        self.struck.append(request)
                        return request, fault
        return request, None

    def _exchange(self, head: bytes, client: Wire, server: Wire) -> bool:
        """Pass one request and its reply; False when the connection is at its end."""
        request, fault = self._note(head)
        released, after = self._released, self.after
        self.before(request)
        if fault and fault.kind in ("refuse", "answer", "hang"):
            self._keep(request, fault, client, released)
            return False
        reply = self._forward(request, client, server, fault.kind if fault else None)
        if reply is None:
            client.reset()
            return False
        framing = framing_of(reply, to=request.method)
        if fault and fault.kind != "flip request":
            pieces = list(server.body(framing))
            after(request)
            _spoil(request, fault, self._turned_back(reply), pieces, client)
            if fault.kind == "stall":
                self._hang(client, released)
            return fault.kind in _FLIPS and framing != "end" and not closes(reply)
        after(request)
        client.send(self._turned_back(reply))
        for piece, _ in server.body(framing):
            client.send(piece)
        return not (client.ended or framing == "end" or closes(head) or closes(reply))

    def _keep(
        self,
        request: Request,
        fault: Fault,
        client: Wire,
        released: threading.Event,
    ) -> None:
        """End an exchange of which nothing is forwarded."""
        if fault.kind != "refuse":
            if request.header("Expect"):
                client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            for _ in client.body(framing_of(request.head)):
                pass
        if fault.kind == "answer":
            client.send(fault.answer.wire(to_head=request.method == "HEAD"))
            return
        if fault.kind == "hang":
            self._hang(client, released)
        else:
            client.reset()

    def _hang(self, client: Wire, released: threading.Event) -> None:
        """Say no more until hanging requests are released, and end the connection then."""
        with self._lock:
            self.hanging += 1
        released.wait()
        client.reset()

    def _forward(
        self, request: Request, client: Wire, server: Wire, kind: Kind | None
    ) -> bytes | None:
        """Pass a request on, and give the head of its reply; None where there is none."""
        framing = framing_of(request.head)
        server.send(request.head)
        if request.header("Expect") and not client.is_first_to_speak(server):
            reply = server.head()
            if not reply.startswith(b"HTTP/1.1 100"):
                client.ended = True  # refused, and whether the body comes is not known
                return reply or None
            client.send(reply)
        if kind == "cut request":
            whole = list(client.body(framing))
            if any(payload for _, payload in whole):
                server.send(*half(b"", whole))
            server.reset()
            return None
        pieces = client.body(framing)
        if kind == "flip request":
            pieces = iter([(piece, True) for piece in flipped(list(pieces))])
        is_heard = True
        for piece, _ in pieces:  # whatever ends the client's side ends the exchange
            try:
                if is_heard:
                    server.send(piece)
            except OSError:
                is_heard = False  # the server has answered before it heard all
        reply = server.head()
        while reply.startswith(b"HTTP/1.1 100"):
            reply = server.head()
        return reply or None

    def _turned_back(self, reply: bytes) -> bytes:
        def turned(found: re.Match[bytes]) -> bytes:
            line = found[0]
            for base in self._bases:
                line = line.replace(base + b"/", self.endpoint.encode() + b"/")
            return line

        return re.sub(rb"(?im)^location:.*$", turned, reply)


def _spoil(
    request: Request,
    fault: Fault,
    reply: bytes,
    pieces: list[tuple[bytes, bool]],
    client: Wire,
) -> None:
    """Give a reply, of which all is there, as the fault wants it."""
    if fault.kind == "answer after":
        client.send(fault.answer.wire(to_head=request.method == "HEAD"))
    elif fault.kind == "flip content" and _SAID.search(header_of(reply, "Content-Type") or ""):
        client.send(reply, *(piece for piece, _ in pieces))
    elif fault.kind in _FLIPS:
        client.send(reply, *flipped(pieces))
    elif fault.kind != "lost":
        client.send(*half(reply, pieces))
    if fault.kind in ("lost", "cut reply"):
        client.reset()
