"""SFTP, by fsspec's filesystem, with what it leaves out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paramiko
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.implementations.sftp import SFTPFileSystem
from fsspec.utils import infer_storage_options

from holdfast.backends.fsspec import FsspecBackend, failures
from holdfast.backends.translating import Reaction
from holdfast.errors import AccessDenied, StorageError

#: Seconds to connect, to log in, and for one reply.
_TIMEOUTS = {"timeout": 10, "banner_timeout": 10, "auth_timeout": 20}
_REPLY_S = 20.0
#: The largest part that every server gives at once (draft-ietf-secsh-filexfer-02, 3), and how many
#: of them are asked for ahead.
_PART_BYTES = 32 * 1024
_AHEAD = 256


class _Filesystem(SFTPFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """
    fsspec's, which knows the servers that this user knows.

    Its transfers tell how far they are, and its `mv` replaces nothing.
    """

    protocol = ("sftp", "ssh")

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(self.host_key_policy)
        self.client.connect(self.host, **self.ssh_kwargs)
        self.ftp = self.client.open_sftp()
        self.ftp.get_channel().settimeout(_REPLY_S)

    def close(self) -> None:
        self.client.close()

    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        **_: Any,
    ) -> None:
        self.ftp.put(lpath, rpath, lambda done, _: callback.absolute_update(done))

    def get_file(
        self,
        rpath: str,
        lpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        **_: Any,
    ) -> None:
        # What paramiko asks for ahead and does not come to use stays in memory until the file is
        # closed; so it is opened again for every few parts.
        size = self.ftp.stat(rpath).st_size
        with Path(lpath).open("wb") as target:
            for begin in range(0, size, _AHEAD * _PART_BYTES):
                end = min(begin + _AHEAD * _PART_BYTES, size)
                asked = [(at, min(_PART_BYTES, end - at)) for at in range(begin, end, _PART_BYTES)]
                with self.ftp.open(rpath, "rb") as source:
                    for part in source.readv(asked):
                        target.write(part)
                        callback.relative_update(len(part))

    def mv(self, old: str, new: str) -> None:
        self.ftp.rename(old, new)


class SftpBackend(FsspecBackend):
    """
    Objects as files of an SFTP server.

    A file is sent under a name that begins with `~` and renamed. The rename of SFTP 3 refuses a
    name that is taken (draft-ietf-secsh-filexfer-02, 6.5), and OpenSSH's server does it by a link,
    so of many callers one gets a key.
    """

    @staticmethod
    def _filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
        named = infer_storage_options(url)
        server = {part: named[part] for part in ("host", "port") if part in named}
        given = {**_TIMEOUTS, **server, **options}
        return _Filesystem(**given, skip_instance_cache=True), named["path"]

    @staticmethod
    def _react(error: Exception) -> Reaction | None:
        if isinstance(error, paramiko.AuthenticationException):
            cure = (
                "Give username and password, or key_filename, as storage_options, or have an SSH "
                "agent hold the key."
            )
            return Reaction(AccessDenied, cure)
        if isinstance(error, paramiko.BadHostKeyException):
            cure = "Make sure that this is the right server, and correct its key in known_hosts."
            return Reaction(StorageError, cure, lasting=True)
        return failures.react(error)
