"""Answers requests on a free port, over connections that stay open, as real servers' do."""

import contextlib
import io
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """
    A request that was received whole.

    Attributes:
        method: such as `PUT`.
        target: the path and the query, as they were sent.
        headers: their names in lower case.
        body: all of it.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        """What stood behind the `?`."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def path(self) -> str:
        """What stood before it, decoded."""
        return unquote(urlsplit(self.target).path)

    def put_to(self, app: Any) -> "Answered":
        """Ask a WSGI application, and hear it out."""
        environ = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path.encode().decode("latin-1"),
            "QUERY_STRING": urlsplit(self.target).query,
            "RAW_URI": self.target,
            "REQUEST_URI": self.target,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(self.body)),
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in self.headers.items():
            environ.setdefault("HTTP_" + name.upper().replace("-", "_"), value)
        begun: list[Any] = []
        pieces = app(environ, lambda status, headers, _=None: begun.extend([status, headers]))
        try:
            body = b"".join(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        return Answered(int(begun[0].split()[0]), begun[1], body)


@dataclass(frozen=True)
class Answered:
    """
    What is said to it.

    Attributes:
        status: such as 200.
        headers: without those of the connection.
        body: all of it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Server(ThreadingHTTPServer):
    """
    Answers on a free port of this machine for as long as the `with` block lasts.

    Parameters:
        answer: says what is answered; called from many threads.

    Attributes:
        endpoint: its URL.
    """

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, answer: Callable[[Asked], Answered]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        for request in [*self._open]:  # whose clients keep them for the next request
            with contextlib.suppress(OSError):  # closed just now
                request.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is none of the server's errors."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def finish(self) -> None:
        # What cannot be sent any more would else keep the connection open.
        with contextlib.suppress(OSError):
            super().finish()
        self.rfile.close()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answered = self.server.answer(Asked(self.command, self.path, headers, body))
        # A HEAD tells the length of a body that does not come.
        told = [value for name, value in answered.headers if name.lower() == "content-length"]
        length = told[0] if told and self.command == "HEAD" else str(len(answered.body))
        self.send_response(answered.status, HTTPStatus(answered.status).phrase)
        for name, value in answered.headers:
            if name.lower() not in ("content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answered.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - as http.server asks

    def handle_expect_100(self) -> bool:
        """Ask for the body, now: who waits for this sends nothing before it."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def log_message(self, *_: object) -> None:
        """Say nothing: what was asked is in `requests`."""
