"""The calls of the Drive server, over HTTP: what each takes, answers and refuses."""

import contextlib
import http.server
import json
import re
import secrets
import socket
import threading
from dataclasses import dataclass, field, replace
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.servers.drive_files import FOLDER, ROLES, Refused, Token

_BLOCK = 64 * 1024
#: Parts of an upload are multiples of this.
_GRAIN = 256 * 1024


@dataclass(frozen=True)
class Request:
    """One request, as it came in."""

    label: str
    method: str
    path: str
    params: dict[str, str]
    headers: Message


class _Gone(Exception):
    """The connection is to end without a reply."""


@dataclass
class Session:
    """An upload in parts."""

    token: Token
    metadata: dict
    size: int | None
    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def received(self):
        return self.path.stat().st_size


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def setup(self):
        super().setup()
        self.server.drive.opened(self.connection)

    def finish(self):
        with contextlib.suppress(OSError):
            super().finish()
        self.rfile.close()  # left open where the rest could not be sent
        self.server.drive.opened(self.connection, there=False)

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(OSError):
            super().handle()

    def do_GET(self):
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - so http.server calls them

    # The frame around every call.

    def _answer(self):
        self.drive = self.server.drive
        split = urlsplit(self.path)
        self.params = {name: values[-1] for name, values in parse_qs(split.query, True).items()}
        self.left = int(self.headers.get("Content-Length") or 0)
        path = split.path.removeprefix(urlsplit(self.drive.endpoint).path)
        label, self.parts = self._label(path)
        request = Request(label, self.command, path, self.params, self.headers)
        self.drive.requests.append(request)
        self.fault = self.drive.strike(label)
        try:
            self._act(label)
        except Refused as refused:
            self._drain()
            self._refuse(refused)
        except _Gone:
            self._hang_up()

    def _act(self, label):
        fault = self.fault
        if fault and fault.kind == "reset":
            raise _Gone
        if fault and fault.kind == "run":
            fault.act()
        if fault and fault.kind == "refuse":
            raise Refused(fault.status, fault.reason, fault.message, fault.headers, fault.body)
        if label not in _OPEN:
            self.token = self._who()
            self._check_params(label)
        handler = getattr(self, "_" + label.replace(".", "_"), None)
        if handler is None:
            raise Refused(404, "notFound", f"no such call: {self.command} {self.path}")
        handler()

    def _label(self, path):
        for pattern, methods in _CALLS:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods:
                label = methods[self.command]
                if label == "files.get" and self.params.get("alt") == "media":
                    label = "files.media"
                if label == "upload":
                    label = f"upload.{self.params.get('uploadType')}"
                if label == "session":
                    asks = self.headers.get("Content-Range", "").startswith("bytes */")
                    label = "session.query" if asks and not self.left else "session.put"
                return label, found.groups()
        return "unknown", ()

    def _check_params(self, label):
        """Refuse what a call does not know."""
        known = _PARAMS.get(label, _ABOUT_FILES)
        for name in self.params:
            if name not in known:
                raise Refused(400, "badRequest", f"Cannot bind query parameter {name}.")

    def _who(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        role = self.drive.role(token)
        if role is None:
            raise Refused(401, "authError", "Invalid Credentials")
        return replace(ROLES[role], all_drives=self.params.get("supportsAllDrives") == "true")

    def _reply(self, value=None, status=200, headers=None):
        body = b"" if value is None else json.dumps(value).encode()
        self._send(status, body, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status, body, headers):
        self._drain()
        kind = self.fault.kind if self.fault else ""
        if kind in ("lose", "tear"):
            raise _Gone
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(body[: len(body) // 2])
            raise _Gone
        self.wfile.write(body)

    def _refuse(self, refused):
        body = refused.body
        if body is None:
            error = {"domain": "global", "reason": refused.reason, "message": refused.message}
            value = {"code": refused.status, "message": refused.message, "errors": [error]}
            body = json.dumps({"error": value}).encode()
        self.fault = None
        kind = "text/html" if body.startswith(b"<") else "application/json"
        self._send(refused.status, body, {"Content-Type": kind, **refused.headers})

    def _hang_up(self):
        with contextlib.suppress(OSError):
            self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _blocks(self):
        """The request's body, or half of it where it is to be torn."""
        end = self.left // 2 if self.fault and self.fault.kind == "tear" else 0
        while self.left > end:
            block = self.rfile.read(min(_BLOCK, self.left - end))
            if not block:
                raise _Gone
            self.left -= len(block)
            yield block

    def _drain(self):
        for _ in self._blocks():
            pass

    def _json(self):
        body = b"".join(self._blocks())
        return json.loads(body) if body else {}

    def _fields(self, value, default):
        return _masked(value, self.params.get("fields", default))

    # What it can do.

    def _token(self):
        form = {name: values[0] for name, values in parse_qs(b"".join(self._blocks())).items()}
        if self.drive.revoked:
            error = {
                "error": "invalid_grant",
                "error_description": "Token has been expired or revoked.",
            }
            self._reply(error, 400)
            return
        assertion = b"assertion" in form
        role = "service" if assertion else form[b"refresh_token"].decode().removeprefix("refresh-")
        token = self.drive.token(role)
        self._reply({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    def _about_get(self):
        if "fields" not in self.params:
            raise Refused(400, "required", "The 'fields' parameter is required for this method.")
        quota = self.drive.files.quota_of(self.token.user)
        about = {"storageQuota": quota, "user": {"permissionId": self.token.user}}
        self._reply(self._fields(about, "*"))

    def _drives_list(self):
        self._reply(self.drive.files.drives(self.token, self.params))

    def _files_generateIds(self):  # noqa: N802 - as the call is named
        self.token.check_writes()
        count = int(self.params.get("count", 10))
        if not 1 <= count <= 1000:
            raise Refused(400, "invalidParameter", "Invalid value for count")
        ids = self.drive.files.generate_ids(self.token, count)
        self._reply({"kind": "drive#generatedIds", "space": "drive", "ids": ids})

    def _files_list(self):
        page = self.drive.files.list(self.token, self.params)
        self._reply(self._fields(page, "nextPageToken,incompleteSearch,files(id,name,mimeType)"))

    def _files_get(self):
        file = self.drive.files.get(self.token, self.parts[0])
        self._reply(self._fields(self.drive.files.shown(file, self.token), "id,name,mimeType"))

    def _files_media(self):
        file = self.drive.files.get(self.token, self.parts[0])
        if file.content is None:
            raise Refused(403, "fileNotDownloadable", "Only files with binary content can be had.")
        start, size = 0, file.content.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not self.drive.ranges:
            asked = None
        if asked:
            start = int(asked[1])
            if start >= size:
                raise Refused(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        kind = self.fault.kind if self.fault else ""
        left = (size - start) // 2 if kind in ("cut", "lose") else size - start
        with file.content.open("rb") as content:
            content.seek(start)
            while left:
                block = content.read(min(_BLOCK, left))
                self.wfile.write(block)
                left -= len(block)
        if kind in ("cut", "lose"):
            raise _Gone

    def _files_create(self):
        metadata = self._json()
        if metadata.get("mimeType") != FOLDER:
            raise Refused(400, "badRequest", "only folders are made without content here")
        self._made(self.drive.files.create(self.token, metadata, None))

    def _upload_multipart(self):
        kind = Message()
        kind["Content-Type"] = self.headers["Content-Type"]
        boundary = kind.get_param("boundary").encode()
        body = b"".join(self._blocks())
        if self.left:
            raise _Gone  # torn: of a request that broke off nothing stays
        _, head, media, last = body.split(b"--" + boundary)
        if last.strip() != b"--":
            raise Refused(400, "badRequest", "Malformed multipart body.")
        metadata = json.loads(head.partition(b"\r\n\r\n")[2])
        with self.drive.files.new_content() as path:
            path.write_bytes(media.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
            self._made(self.drive.files.create(self.token, metadata, path))

    def _upload_resumable(self):
        metadata = self._json()
        size = self.headers.get("X-Upload-Content-Length")
        size = int(size) if size else None
        self.drive.files.check_new(self.token, metadata, size or 0)
        name = secrets.token_urlsafe(24)
        path = self.drive.files.new_content().path
        path.touch()
        self.drive.sessions[name] = Session(self.token, metadata, size, path)
        where = f"{self.drive.endpoint}/upload/drive/v3/files?uploadType=resumable&upload_id={name}"
        if fields := self.params.get("fields"):
            where += f"&fields={fields}"
        self._reply(headers={"Location": where})

    def _session_put(self):
        session = self.drive.sessions.get(self.params["upload_id"])
        if session is None or not session.path.exists():
            raise Refused(404, "notFound", "No such upload session")
        with session.lock:
            self._session_part(session)

    _session_query = _session_put

    def _session_part(self, session):
        done = self.drive.files.made_by(session.path)
        if done is not None:
            self._made(done)
            return
        asked = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers["Content-Range"])
        size = session.size = int(asked[3])
        if asked[1] is not None:
            start, end = int(asked[1]), int(asked[2]) + 1
            if start != session.received or end > size or end - start != self.left:
                raise Refused(400, "badRequest", "Failed to parse Content-Range header.")
            if end < size and (end - start) % _GRAIN:
                raise Refused(400, "badRequest", "Parts must be multiples of 256 KiB.")
            try:
                with session.path.open("ab") as file:
                    for block in self._blocks():
                        file.write(block)
            finally:
                self._keep(session, start, size)
            if self.fault and self.fault.kind == "tear":
                raise _Gone
        if session.received == size:
            self._made(self.drive.files.create(session.token, session.metadata, session.path))
            return
        received = session.received
        self._reply(None, 308, {"Range": f"bytes=0-{received - 1}"} if received else {})

    def _keep(self, session, start, size):
        """Of a part that was torn, or taken in part, whole grains stay."""
        received = session.received
        if self.drive.accepts is not None:
            received = min(received, start + self.drive.accepts)
        if received < size:
            with session.path.open("ab") as file:
                file.truncate(received - received % _GRAIN)

    def _made(self, file):
        self._reply(self._fields(self.drive.files.shown(file, self.token), "id,name,mimeType"))

    def _files_update(self):
        file = self.drive.files.trash(self.token, self.parts[0], self._json()["trashed"])
        self._reply(self._fields(self.drive.files.shown(file, self.token), "id,name,mimeType"))

    def _files_delete(self):
        self.drive.files.delete(self.token, self.parts[0])
        self._reply(None, 204)


_OPEN = frozenset({"token", "unknown"})
_CALLS = [
    (r"/token", {"POST": "token"}),
    (r"/drive/v3/about", {"GET": "about.get"}),
    (r"/drive/v3/drives", {"GET": "drives.list"}),
    (r"/drive/v3/files/generateIds", {"GET": "files.generateIds"}),
    (r"/drive/v3/files", {"GET": "files.list", "POST": "files.create"}),
    (
        r"/drive/v3/files/([^/]+)",
        {"GET": "files.get", "PATCH": "files.update", "DELETE": "files.delete"},
    ),
    (r"/upload/drive/v3/files", {"POST": "upload", "PUT": "session"}),
]


def _masked(value, mask):
    """The part of a value that `fields` asks for."""
    if mask == "*":
        return value
    if isinstance(value, list):
        return [_masked(each, mask) for each in value]
    found = {}
    for name, inner in re.findall(r"(\w+)(?:\(([^)]*)\))?", mask):
        if name in value:
            found[name] = _masked(value[name], inner) if inner else value[name]
    return found


_ABOUT_FILES = frozenset({"fields", "supportsAllDrives"})
_PARAMS = {
    "about.get": {"fields"},
    "drives.list": {"pageSize", "pageToken"},
    "files.generateIds": {"count", "space"},
    "files.list": {
        *_ABOUT_FILES,
        *("corpora", "driveId", "includeItemsFromAllDrives", "orderBy", "pageSize", "pageToken"),
        *("q", "spaces"),
    },
    "files.media": {*_ABOUT_FILES, "alt"},
    "upload.multipart": {*_ABOUT_FILES, "uploadType"},
    "upload.resumable": {*_ABOUT_FILES, "uploadType"},
    "session.put": {"fields", "uploadType", "upload_id"},
    "session.query": {"fields", "uploadType", "upload_id"},
}
