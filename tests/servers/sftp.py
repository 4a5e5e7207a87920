"""An SFTP server over a directory, in a process of its own, which behaves as OpenSSH's does."""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh

_PASSWORD = "canary-password"
_ROLES = ("owner", "reader")


class SftpServer:
    """
    Serves a directory of its own on a free port of 127.0.0.1.

        with SftpServer() as server:
            open_backend(server.url + "/run", server.storage_options())

    Attributes:
        root (Path): the directory that is served.
        url (str): without a closing slash; another after each start.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="holdfast-sftp-")
        self.root = Path(self._directory.name)
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def storage_options(self, role: str = "owner") -> dict[str, Any]:
        """What a client is opened with; a `reader` may change nothing."""
        return {
            "username": role,
            "password": _PASSWORD,
            "allow_agent": False,
            "look_for_keys": False,
        }

    def behind(self, key: str) -> bytes | None:
        """The bytes that lie under a key, past the server; None if there are none."""
        path = self.root / key
        return path.read_bytes() if path.is_file() else None

    def start(self) -> None:
        """Begin to serve, unless it does."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, self.root],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.url = f"sftp://127.0.0.1:{int(self._said())}"

    def disconnect(self) -> None:
        """Cut every connection; new ones are taken."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("disconnect\n")
        self._process.stdin.flush()
        self._said()

    def stop(self) -> None:
        """Cut every connection, and take no more."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._directory.cleanup()

    def _said(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class _Login(asyncssh.SSHServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return username in _ROLES and password == _PASSWORD


class _Files(asyncssh.SFTPServer):
    """Renames by a link, as OpenSSH does: of several at once one gets the name."""

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        old, new = (Path(os.fsdecode(self.map_path(path))) for path in (oldpath, newpath))
        new.hardlink_to(old)
        old.unlink()


class _ReadOnlyFiles(_Files):
    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if pflags & ~asyncssh.FXF_READ:
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        return super().open(path, pflags, attrs)

    def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        raise asyncssh.SFTPPermissionDenied("Permission denied")

    def remove(self, path: bytes) -> None:
        raise asyncssh.SFTPPermissionDenied("Permission denied")


async def _serve(root: str) -> None:
    connections = []

    def files(channel: Any) -> _Files:
        connections.append(channel.get_connection())
        is_reader = channel.get_extra_info("username") == "reader"
        return (_ReadOnlyFiles if is_reader else _Files)(channel, os.fsencode(root))

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=_Login,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=files,
    )
    print(acceptor.get_port(), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        while connections:
            connections.pop().abort()
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
