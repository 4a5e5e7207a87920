"""
A Drive server of our own: the part of Google Drive's v3 API that Holdfast uses, as its docs say.

Names are not unique, ids can be made beforehand, the trash counts against the quota, listings lag
where a test wants it, and `name = '…'` in a query ignores case. Contents lie on the disk, so that
the memory of the process under test is its own.

    with DriveServer() as server:
        backend = open_backend("gdrive://My Drive/run", server.storage_options())
"""

import contextlib
import http.server
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.oauth2.credentials import Credentials

from tests.servers.drive_calls import Handler, Request, Session
from tests.servers.drive_files import ROLES, Files


@dataclass
class Fault:
    """
    A failure on purpose, of the next calls with a label.

    Attributes:
        label (str): the call, such as `files.create`; empty for any.
        kind (str): `refuse` (answer an error and do not act), `lose` (act, no reply), `reset` (do
            neither), `cut` (half of the reply), `tear` (half of the request taken, no reply),
            `run` (call `act`, then go on).
        times (int): how many calls.
        skip (int): how many calls pass before.
    """

    label: str
    kind: str = "refuse"
    times: int = 1
    status: int = 503
    reason: str = "backendError"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    message: str = "a fault on purpose"
    skip: int = 0
    act: Callable[[], object] = lambda: None


class DriveServer:
    """
    The server, on a free port, in threads of this process.

    Attributes:
        endpoint (str): where it listens.
        files (Files): what lies in it, to be looked at and changed past the API.
        requests (list[Request]): what came in so far.
        connections (int): how many were opened so far.
        accepts (int | None): how many bytes of each part of an upload are taken, rounded down.
        ranges (bool): a part of a content can be asked for.
        revoked (bool): no token is renewed any more.
    """

    def __init__(self, *, lag: int = 0) -> None:
        self._directory = tempfile.mkdtemp(prefix="drive-server-")
        self.files = Files(Path(self._directory), lag)
        self.requests: list[Request] = []
        self.sessions: dict[str, Session] = {}
        self.accepts: int | None = None
        self.revoked = False
        self.ranges = True
        self.connections = 0
        self.lock = threading.RLock()
        self._faults: list[Fault] = []
        self._tokens: dict[str, str] = {}
        self._connections: set[socket.socket] = set()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.drive = self
        # With a name of its own: the next server may be given the same port.
        port = self._http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{port}/{secrets.token_hex(4)}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._thread.join()
        with self.lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def token(self, role="owner"):
        """A new access token."""
        token = f"ya29.{role.replace(' ', '-')}-{secrets.token_hex(8)}"
        with self.lock:
            self._tokens[token] = role
        return token

    def expire(self):
        """Let every access token expire."""
        with self.lock:
            self._tokens.clear()

    def credentials(self, role="owner"):
        """Credentials of google-auth, which this server refreshes."""
        return Credentials(
            self.token(role),
            refresh_token=f"refresh-{role}",
            token_uri=f"{self.endpoint}/token",
            client_id=ROLES[role].client,
            client_secret="client-secret",
        )

    def authorized_user(self, role="owner"):
        """What a token file holds."""
        return {
            "type": "authorized_user",
            "refresh_token": f"refresh-{role}",
            "token_uri": f"{self.endpoint}/token",
            "client_id": ROLES[role].client,
            "client_secret": "client-secret",
        }

    def storage_options(self, role="owner"):
        """What `open_backend` needs to come here."""
        return {"endpoint": self.endpoint, "credentials": self.credentials(role)}

    def fault(self, label, kind="refuse", **more):
        """Let the next calls fail."""
        with self.lock:
            self._faults.append(Fault(label, kind, **more))

    def calm(self):
        """No more faults; those that did not strike."""
        with self.lock:
            left = [fault for fault in self._faults if fault.times]
            self._faults.clear()
        return left

    def count(self, label):
        """How many calls with this label came in."""
        return sum(request.label == label for request in self.requests)

    def labels(self):
        """The labels of the calls, in order."""
        return [request.label for request in self.requests]

    def behind(self, path, role="owner"):
        """The bytes under a path in a user's My Drive; None if there are none."""
        return self.files.behind(path, ROLES[role].user)

    def strike(self, label):
        """The fault that a call is to meet, if there is one."""
        with self.lock:
            for fault in self._faults:
                if fault.times and fault.label in ("", label):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def role(self, token):
        """Who a token stands for."""
        with self.lock:
            return self._tokens.get(token)

    def opened(self, connection, there=True):
        """Note a connection, to be ended with the server."""
        with self.lock:
            self.connections += there
            (self._connections.add if there else self._connections.discard)(connection)


def soon(seconds=3600):
    """A moment that is still to come, as oauth2client writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).replace(tzinfo=None)
