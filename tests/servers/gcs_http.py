"""The requests of Cloud Storage's JSON API, answered for a bucket."""

import base64
import contextlib
import gzip
import json
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.servers.gcs_bucket import (
    ROLES,
    Bucket,
    Object,
    RefusedError,
    Request,
    Session,
    check,
)

#: Bytes that the parts of a resumable upload come in, but for the last one.
_QUANTUM = 256 * 1024
_BLOCK = 1024 * 1024
_FIELD = re.compile(r"(\w+)(?:\(([^)]*)\))?")


class _TornError(Exception):
    """The client went away in the middle of a body."""


class Http(ThreadingHTTPServer):
    """Threads that end with the server, also those whose client is silent."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, served: Bucket) -> None:
        self.served = served
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # those are what clients do
            super().handle_error(request, client_address)

    def close(self) -> None:
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.server_close()  # waits for the threads


class _Handler(BaseHTTPRequestHandler):
    server: Http
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def finish(self) -> None:
        # What cannot be sent any more would else keep the connection open.
        with contextlib.suppress(OSError):
            super().finish()
        self.rfile.close()

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.verb, self.body = "unknown", self._body()
        try:
            self._dispatch(self._role(), parts.path)
        except RefusedError as error:
            plain = self.query.get("alt") == "media"  # a download is refused in plain text
            detail = {"domain": "global", "reason": error.reason, "message": error.message}
            said = {"code": error.status, "message": error.message, "errors": [detail]}
            data = error.message.encode() if plain else json.dumps({"error": said}).encode()
            kind = "text/plain" if plain else "application/json"
            with contextlib.suppress(_TornError):
                for _ in self.body:
                    pass
            self._send(error.status, data, {"Content-Type": kind})
        except (_TornError, ConnectionError):
            self.close_connection = True

    def _role(self) -> str:
        said = self.headers.get("Authorization")
        if said is None:
            return self.server.served.anonymous
        role = said.removeprefix("Bearer token-of-")
        if role not in ROLES:
            raise RefusedError(401, "authError", "Invalid Credentials")
        return role

    def _dispatch(self, role: str, path: str) -> None:
        served, query = self.server.served, self.query
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", path)
        if not found:
            raise RefusedError(404, "notFound", "Not Found")
        area, bucket, name = found[1], unquote(found[2]), unquote(found[3] or "")
        what = (area or "", self.command, bool(name))
        if bucket != served.bucket:
            raise RefusedError(404, "notFound", "The specified bucket does not exist.")
        if not path.partition(f"/b/{found[2]}")[2]:
            self.verb = "buckets.get"
            check(role, "storage.buckets.get")
            self._send_json({"kind": "storage#bucket", "name": bucket})
        elif what == ("", "GET", False):
            self.verb = "objects.list"
            check(role, "storage.objects.list")
            self._send_json(self._list())
        elif self.command == "GET" and name:
            media = query.get("alt") == "media"
            self.verb = "objects.media" if media else "objects.get"
            check(role, "storage.objects.get")
            (self._download if media else self._describe)(
                served.find(name, query.get("generation"))
            )
        elif what == ("", "DELETE", True):
            self.verb = "objects.delete"
            check(role, "storage.objects.delete")
            served.remove(name)
            self._send(204, b"")
        elif area == "/upload" and "upload_id" in query:
            self._go_on(served.session(query["upload_id"]))
        elif what == ("/upload", "POST", False):
            resumable = query.get("uploadType") == "resumable"
            self.verb = "session.begin" if resumable else "objects.insert"
            check(role, "storage.objects.create")
            (self._begin if resumable else self._insert)(role)
        else:
            raise RefusedError(405, "methodNotAllowed", "Method Not Allowed")

    # Uploads.

    def _insert(self, role: str) -> None:
        data, metadata = b"".join(self.body), {}
        if self.query.get("uploadType") == "multipart":
            boundary = re.search(r'boundary=["\']?([^"\';]+)', self.headers["Content-Type"])
            assert boundary
            _, said, sent, _ = data.split(b"--" + boundary[1].encode(), 3)
            metadata, data = json.loads(_content(said)), _content(sent)
        name = self.query.get("name") or metadata["name"]
        path = self.server.served.new_file()
        path.write_bytes(data)
        self._finish(name, path, metadata, role, self.query.get("ifGenerationMatch"))

    def _begin(self, role: str) -> None:
        served, query = self.server.served, self.query
        metadata = json.loads(b"".join(self.body) or b"{}")
        name, condition = query.get("name") or metadata["name"], query.get("ifGenerationMatch")
        served.check_insert(name, role, condition)
        total = self.headers.get("X-Upload-Content-Length")
        path = served.new_file()
        path.touch()
        announced = _announced(metadata)
        session_id = served.begin(
            Session(name, path, metadata, announced, condition, role, total and int(total))
        )
        location = f"http://{self.headers['Host']}{self.path}&upload_id={session_id}"
        self._send(200, b"", {"Location": location})

    def _go_on(self, session: Session) -> None:
        if self.command == "DELETE":
            self.verb = "session.cancel"
            session.ended = session.ended or RefusedError(499, "cancelled", "Upload cancelled.")
            self._send(499, b"")
            return
        said = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers["Content-Range"])
        if not said:
            raise RefusedError(400, "badRequest", "Failed to parse Content-Range header.")
        self.verb = "session.status" if said[1] is None else "session.chunk"
        if isinstance(session.ended, RefusedError):
            raise session.ended
        if session.ended is not None:
            self._describe(session.ended)
            return
        total = None if said[3] == "*" else int(said[3])
        if None not in (total, session.total) and total != session.total:
            raise RefusedError(400, "invalid", "Invalid request. The size is another one.")
        if said[1] is not None:
            self._keep(session, int(said[1]), int(said[2]) + 1, total)
        if session.kept == total:
            try:
                session.ended = self._finish(
                    session.name,
                    session.path,
                    session.metadata,
                    session.role,
                    session.condition,
                    session.announced,
                )
            except RefusedError as error:
                session.ended = error
                raise
        else:
            range_ = {"Range": f"bytes=0-{session.kept - 1}"} if session.kept else {}
            self._send(308, b"", range_)

    def _keep(self, session: Session, start: int, end: int, total: int | None) -> None:
        """Take a part in; what came before the client went away stays, in whole quanta."""
        if int(self.headers["Content-Length"]) != end - start:
            raise RefusedError(400, "badRequest", "Content-Length and Content-Range differ.")
        if end != total and (end - start) % _QUANTUM:
            raise RefusedError(400, "badRequest", "A part must be a multiple of 256 KiB.")
        if start > session.kept:
            raise RefusedError(503, "backendError", "Bytes before this part are missing.")
        known = session.kept - start  # bytes that it has already are passed over
        try:
            with session.path.open("r+b") as file:
                file.seek(session.kept)
                for block in self.body:
                    file.write(block[known:])
                    session.kept += len(block[known:])
                    known = max(0, known - len(block))
                most = self.server.served.keeps
                if most is not None:
                    session.kept = min(session.kept, start + most)
                    file.truncate(session.kept)
        except _TornError:
            session.kept -= session.kept % _QUANTUM
            with session.path.open("r+b") as file:
                file.truncate(session.kept)
            raise

    def _finish(
        self,
        name: str,
        path: Path,
        metadata: Mapping[str, str],
        role: str,
        condition: str | None,
        announced: Mapping[str, str] | None = None,
    ) -> Object:
        announced = {**(announced or _announced(metadata)), **_from_header(self.headers)}
        kept = {key: text for key, text in metadata.items() if key.startswith("content")}
        made = self.server.served.insert(
            name, path, kept, announced, condition=condition, role=role
        )
        self._describe(made)
        return made

    # Looks.

    def _list(self) -> dict[str, Any]:
        served, query = self.server.served, self.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        first = max(query.get("startOffset", ""), _from_token(query.get("pageToken")))
        most = min(int(query.get("maxResults") or 1000), 1000)
        items: list[dict[str, Any]] = []
        folders: list[str] = []
        answer: dict[str, Any] = {"kind": "storage#objects"}
        for name in served.names():
            if not name.startswith(prefix) or name < first:
                continue
            folder, more, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", 0)
            if more and prefix + folder + more in folders:
                continue
            if len(items) + len(folders) == most:
                answer["nextPageToken"] = base64.b64encode(name.encode()).decode()
                break
            if more:
                folders.append(prefix + folder + more)
                continue
            with contextlib.suppress(RefusedError):  # deleted since
                items.append(served.find(name).resource(served.bucket))
        if items:
            answer["items"] = items
        if folders:
            answer["prefixes"] = folders
        return answer

    def _describe(self, found: Object) -> None:
        self._send_json(found.resource(self.server.served.bucket))

    def _download(self, found: Object) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Goog-Generation": found.generation,
            "X-Goog-Hash": f"crc32c={found.crc32c},md5={found.md5}",
            "X-Goog-Stored-Content-Length": str(found.size),
            "X-Goog-Stored-Content-Encoding": found.metadata.get("contentEncoding", "identity"),
        }
        if found.metadata.get("contentEncoding") == "gzip":
            if "gzip" not in (self.headers.get("Accept-Encoding") or ""):
                self._send(200, gzip.decompress(found.path.read_bytes()), headers)
                return
            headers["Content-Encoding"] = "gzip"
        start, end = 0, found.size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or found.size) + 1, found.size)
            if start >= found.size:
                message = "The requested range cannot be satisfied."
                raise RefusedError(416, "requestedRangeNotSatisfiable", message)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
        self._head(206 if asked else 200, end - start, headers)
        self.wfile.flush()
        with found.path.open("rb") as file:
            if end > start:
                self.connection.sendfile(file, start, end - start)

    # The wire.

    def _body(self) -> Iterator[bytes]:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            yield self._exactly(min(left, _BLOCK))
            left -= min(left, _BLOCK)

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise _TornError
        return data

    def _send_json(self, thing: Mapping[str, Any]) -> None:
        said = json.dumps(_selected(thing, self.query.get("fields")), default=lambda x: x.value())
        self._send(200, said.encode(), {"Content-Type": "application/json; charset=UTF-8"})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        for _ in self.body:  # what was not asked for
            pass
        self._head(status, len(data), headers or {})
        self.wfile.write(data)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        sent = {name.lower(): text for name, text in self.headers.items()}
        self.server.served.requests.append(Request(self.verb, self.query, sent, status))
        self.send_response_only(status)
        for name, text in headers.items():
            self.send_header(name, text)
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def _announced(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name: metadata[name] for name in ("crc32c", "md5Hash") if name in metadata}


def _from_header(headers: Any) -> dict[str, str]:
    names = {"crc32c": "crc32c", "md5": "md5Hash"}
    said = [each.strip().partition("=") for each in (headers.get("X-Goog-Hash") or "").split(",")]
    return {names[name]: text for name, _, text in said if name in names}


def _content(part: bytes) -> bytes:
    """What a part of a body holds, behind its headers; some clients end lines with LF alone."""
    return re.sub(rb"\r?\n\Z", b"", re.split(rb"\n\r?\n", part, maxsplit=1)[1])


def _from_token(token: str | None) -> str:
    return base64.b64decode(token).decode() if token else ""


def _selected(thing: Mapping[str, Any], fields: str | None) -> Mapping[str, Any]:
    if not fields or fields == "*":
        return thing
    chosen: dict[str, Any] = {}
    for name, inner in _FIELD.findall(fields):
        if name in thing:
            value = thing[name]
            chosen[name] = [_selected(each, inner) for each in value] if inner else value
    return chosen
