"""The proxy passes on what it gets, and fails where it is told to."""

import http.client
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.servers import proxy as proxies
from tests.servers.proxy import Answer, Fault, FaultProxy

CONTENT = bytes(range(256)) * 64
BIG = 16 * 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    """Keeps what is put, says what it was asked, and gives it back."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a reply is several writes

    def do_PUT(self) -> None:
        self.server.heads.append((self.requestline, self.headers.items()))
        self.server.kept[self.path] = self._content()
        self._say(201, b"kept")

    def do_POST(self) -> None:
        self.server.swallowed = sum(map(len, self._pieces()))
        self._say(200, b"")

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(307)
            self.send_header("Location", f"{self.server.endpoint}/session?id=1")
            self.send_header("X-Other", f"{self.server.endpoint}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"one", b"two", b"three"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/until-the-end":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
            self.close_connection = True
        elif self.path == "/big":
            self.send_response(200)
            self.send_header("Content-Length", str(BIG))
            self.end_headers()
            for _ in range(BIG // len(CONTENT)):
                self.wfile.write(CONTENT)
        else:
            self._say(200, self.server.kept.get(self.path, CONTENT))

    def do_HEAD(self) -> None:
        self.do_GET()

    def handle_expect_100(self) -> bool:
        if self.path == "/refused":
            self._say(403, b"")
            self.close_connection = True
            return False
        if self.path == "/ended":
            self.close_connection = True
            return False
        return super().handle_expect_100()

    def log_message(self, *_: object) -> None:
        pass

    def _content(self) -> bytes:
        return b"".join(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, 65536))):
            left -= len(piece)
            yield piece

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kept: dict[str, bytes] = {}
        self.heads: list[tuple[str, list[tuple[str, str]]]] = []
        self.swallowed = 0
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        pass  # the proxy resets its connections


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"))) as client:
        yield client


BROKEN = (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead)


def ask(client, method="GET", path="/thing", body=None, **more) -> tuple[int, bytes]:
    try:
        client.request(method, path, body=body, **more)
        with client.getresponse() as reply:
            return reply.status, reply.read()
    except BROKEN:
        client.close()  # http.client does not where it breaks while the body is sent
        raise


# ------------------------------------------------------------- without faults


def test_a_request_arrives_as_it_was_sent_and_its_reply_too(server, proxy, client) -> None:
    said = ask(client, "PUT", "/a%20b?x=1&y=%2F", CONTENT, headers={"X-Mine": "  two  words"})

    line, headers = server.heads[0]
    assert said == (201, b"kept")
    assert line == "PUT /a%20b?x=1&y=%2F HTTP/1.1"
    assert ("Host", proxy.endpoint.removeprefix("http://")) in headers
    assert server.kept["/a%20b?x=1&y=%2F"] == CONTENT


def test_requests_are_recorded_in_order(proxy, client) -> None:
    ask(client, "PUT", "/a?x=1", b"a")
    ask(client, "GET", "/b", headers={"X-Mine": "here"})

    assert [(each.index, each.method, each.path, each.query) for each in proxy.requests] == [
        (1, "PUT", "/a", "x=1"),
        (2, "GET", "/b", ""),
    ]
    assert proxy.requests[1].header("x-mine") == "here"
    assert proxy.requests[0].header("x-mine") is None


def test_one_connection_serves_many_requests(client) -> None:
    ask(client)
    first = client.sock

    assert [ask(client) for _ in range(3)] == [(200, CONTENT)] * 3
    assert client.sock is first is not None


def test_a_body_in_chunks_passes_both_ways(server, client) -> None:
    ask(client, "PUT", "/sent", iter([b"some ", b"", b"pieces"]), encode_chunked=True)

    assert server.kept["/sent"] == b"some pieces"
    assert ask(client, path="/chunks") == (200, b"onetwothree")
    assert ask(client) == (200, CONTENT)


def test_a_reply_that_ends_with_the_connection_passes(client) -> None:
    assert ask(client, path="/until-the-end") == (200, CONTENT)
    assert ask(client) == (200, CONTENT)


def test_a_reply_to_head_has_no_body(client) -> None:
    assert ask(client, "HEAD") == (200, b"")
    assert ask(client) == (200, CONTENT)


def test_a_url_of_the_server_in_a_location_comes_back_to_the_proxy(server, proxy, client) -> None:
    client.request("GET", "/elsewhere")
    with client.getresponse() as reply:
        assert reply.headers["Location"] == f"{proxy.endpoint}/session?id=1"
        assert reply.headers["X-Other"] == f"{server.endpoint}/"


def test_a_client_that_waits_for_the_word_to_go_on_gets_it(server, proxy) -> None:
    address = proxy._listening.getsockname()
    with socket.create_connection(address) as sock, sock.makefile("rb") as replies:
        head = b"PUT /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        sock.sendall(head)
        assert replies.readline().startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"ab")
        said = list(iter(replies.readline, b"Content-Length: 4\r\n"))
        assert said[1].startswith(b"HTTP/1.1 201 ")
        assert replies.read(6) == b"\r\nkept"
        sock.sendall(head.replace(b"/x", b"/refused"))
        assert replies.readline().startswith(b"HTTP/1.1 403 ")

    assert server.kept == {"/x": b"ab"}


def test_a_client_that_waits_for_the_word_to_go_on_learns_that_the_server_has_gone(proxy) -> None:
    with socket.create_connection(proxy._listening.getsockname()) as sock:
        sock.sendall(b"PUT /ended HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_large_bodies_take_little_memory(server, proxy, client) -> None:
    tracemalloc.start()
    try:
        pieces = (CONTENT for _ in range(BIG // len(CONTENT)))
        client.request("POST", "/big", body=pieces, headers={"Content-Length": str(BIG)})
        client.getresponse().read()
        client.request("GET", "/big")
        with client.getresponse() as reply:
            received = sum(len(piece) for piece in iter(lambda: reply.read(65536), b""))

        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert server.swallowed == received == BIG
    assert peak < BIG // 8


# ------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("kind", "applied"),
    [("refuse", None), ("lost", CONTENT), ("cut request", None)],
)
def test_a_put_that_breaks_took_effect_or_did_not(kind, applied, server, proxy, client) -> None:
    proxy.plan(Fault(kind))

    with pytest.raises(BROKEN):
        ask(client, "PUT", "/thing", CONTENT)

    whole = server.kept.get("/thing")
    assert whole == applied or (kind == "cut request" and whole == CONTENT[: len(CONTENT) // 2])
    assert [each.method for each in proxy.struck] == ["PUT"]
    assert ask(client, "PUT", "/thing", b"again") == (201, b"kept")


def test_a_client_that_is_killed_while_it_sends_leaves_no_connection(proxy, monkeypatch) -> None:
    """Its kernel resets the connection, where there is something that it has not read."""
    monkeypatch.setattr(proxies, "_PATIENCE_S", 10.0)
    host, port = proxy.endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"PUT /thing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        while not proxy.requests:
            time.sleep(0.01)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    proxy.drain()


@pytest.mark.parametrize("path", ["/thing", "/chunks"])
@pytest.mark.parametrize("kind", ["cut reply", "short reply"])
def test_a_reply_may_stop_half_way(kind, path, proxy, client) -> None:
    proxy.plan(Fault(kind))

    with pytest.raises(BROKEN):
        ask(client, path=path)


def test_a_short_reply_claims_to_be_whole(proxy, client) -> None:
    proxy.plan(Fault("short reply"))

    client.request("GET", "/thing")
    with client.getresponse() as reply:
        assert reply.headers["Content-Length"] == str(len(CONTENT))
        with pytest.raises(http.client.IncompleteRead) as broken:
            reply.read()

    assert broken.value.partial == CONTENT[: len(CONTENT) // 2]


def test_a_reply_without_a_body_may_break_too(proxy, client) -> None:
    proxy.plan(Fault("short reply"))

    with pytest.raises(BROKEN):
        ask(client, "HEAD")


@pytest.mark.parametrize("body", [CONTENT, iter([CONTENT[:100], CONTENT[100:]])])
def test_one_bit_of_a_request_flips(body, server, proxy, client) -> None:
    proxy.plan(Fault("flip request"))

    assert ask(client, "PUT", "/thing", body, encode_chunked=True) == (201, b"kept")

    assert differences(server.kept["/thing"], CONTENT) == [len(CONTENT) // 2]


@pytest.mark.parametrize(
    ("path", "whole"), [("/thing", CONTENT), ("/chunks", b"onetwothree")], ids=["length", "chunks"]
)
def test_one_bit_of_a_reply_flips(path, whole, proxy, client) -> None:
    proxy.plan(Fault("flip reply"))

    _, received = ask(client, path=path)

    assert differences(received, whole) == [len(whole) // 2]
    assert ask(client, path=path) == (200, whole)


@pytest.mark.parametrize(("kind", "kept"), [("answer", None), ("answer after", CONTENT)])
def test_the_proxy_answers_itself(kind, kept, server, proxy, client) -> None:
    answer = Answer(503, b"<Error/>", (("Retry-After", "7"),))
    proxy.plan(Fault(kind, answer=answer))

    client.request("PUT", "/thing", body=CONTENT)
    with client.getresponse() as reply:
        assert (reply.status, reply.read()) == (503, b"<Error/>")
        assert reply.headers["Retry-After"] == "7"

    assert server.kept.get("/thing") == kept


def test_a_request_hangs_until_it_is_released(server, proxy) -> None:
    proxy.plan(Fault("hang"))
    address = proxy._listening.getsockname()
    with socket.create_connection(address, timeout=0.1) as sock:
        sock.sendall(b"GET /thing HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert proxy.hanging == 1

        proxy.release()

        sock.settimeout(60)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


# ------------------------------------------------------------- the plan


def test_a_fault_strikes_the_one_request_that_it_is_for(proxy, client) -> None:
    proxy.plan(Fault("answer", at=2, only=lambda request: request.path == "/b"))

    said = [ask(client, path=path)[0] for path in ("/a", "/b", "/a", "/b", "/b")]

    assert said == [200, 200, 200, 503, 200]
    assert [each.index for each in proxy.struck] == [4]


def test_a_lasting_fault_strikes_every_later_one_too(proxy, client) -> None:
    proxy.plan(Fault("answer", at=2, lasting=True))

    assert [ask(client)[0] for _ in range(4)] == [200, 503, 503, 503]


def test_a_new_plan_forgets_the_one_before(proxy, client) -> None:
    proxy.plan(Fault("answer", lasting=True))
    ask(client)

    proxy.plan()

    assert ask(client) == (200, CONTENT)
    assert [each.index for each in proxy.requests] == [1]
    assert proxy.struck == []


# ------------------------------------------------------------- hooks

CHILD = """
import sys, http.client
client = http.client.HTTPConnection(sys.argv[1])
for path in ("/first", "/second"):
    client.request("PUT", path, body=b"content")
    client.getresponse().read()
"""


@pytest.mark.parametrize(
    ("when", "kept"), [("before", ["/first"]), ("after", ["/first", "/second"])]
)
def test_a_process_is_killed_before_its_request_or_after_it(when, kept, server, proxy) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, proxy.endpoint.removeprefix("http://")])

    def kill(request) -> None:
        if request.index == 2:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            raise ConnectionAbortedError

    setattr(proxy, when, kill)

    assert child.wait() == -signal.SIGKILL
    assert list(server.kept) == kept


def differences(one: bytes, other: bytes) -> list[int]:
    assert len(one) == len(other)
    return [at for at, (here, there) in enumerate(zip(one, other, strict=True)) if here != there]
