"""The client of S3: what s3fs makes of the user's options, run from any thread."""

import asyncio
import base64
import hashlib
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiobotocore.session
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.abc import AbstractResolver, ResolveResult
from fsspec.asyn import get_loop
from s3fs import S3FileSystem

from holdfast.backends.base import Moved
from holdfast.backends.s3.failures import RedirectedError

#: How many requests with a body of a part's size one client has under way, in all its calls.
_PARTS_AT_ONCE: Final = 8
#: Bytes that are handed to the connection at a time.
PIECE_BYTES: Final = 256 * 1024
#: Seconds after which a request is given up whose body does not go on. A connection that died
#: silently would else hold its part for as long as the kernel tries, a quarter of an hour.
_STANDSTILL_S: Final = 45.0
#: What is set where the user set nothing. Who repeats is decided above the client, once. Every
#: body has a Content-MD5, which all servers know; many refuse the newer checksums, and those of
#: what is read are not worth their time, since Holdfast compares hashes of its own.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "connect_timeout": 5,
    "read_timeout": 20,
    "max_pool_connections": 32,
    "retries": {"total_max_attempts": 1},
}
_CHECKSUMS: Final = ("request_checksum_calculation", "response_checksum_validation")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Options that hold no secret, and that messages may speak of.
_PLAIN: Final = frozenset({"endpoint_url", "profile", "region_name", "signature_version"})
#: Clients that a fork brought along. Freeing one would unhook the parent's sockets from the loop
#: that the two processes share in the kernel.
_INHERITED: Final[list[object]] = []

T = TypeVar("T")


def open_filesystem(options: Mapping[str, Any]) -> S3FileSystem:
    """
    The filesystem of s3fs for a user's options, with our defaults; nothing is asked of anybody.

    Raises:
        TypeError, KeyError, botocore.exceptions.ProfileNotFound: the options do not fit.
    """
    given = dict(options.get("config_kwargs") or {})
    fs = S3FileSystem(
        **{
            **options,
            "config_kwargs": {
                "connector_args": {"resolver": _Resolver()},
                "http_session_cls": _StraightSession,
                **_DEFAULTS,
                **given,
            },
            "asynchronous": True,
            "skip_instance_cache": True,
            "use_listings_cache": False,
        }
    )
    profile = aiobotocore.session.AioSession(**fs.kwargs).get_scoped_config()
    for name in _CHECKSUMS:
        if name not in profile and f"AWS_{name.upper()}" not in os.environ:
            fs.config_kwargs.setdefault(name, "when_required")
    AioConfig(**fs.config_kwargs)
    return fs


def secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that messages must not show."""
    return {
        name: secrets(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if name not in _PLAIN
    }


class Client:
    """
    Calls S3 from any thread, on fsspec's event loop; belongs to one process.

    Parameters:
        fs (S3FileSystem): as `open_filesystem` makes it.
        bucket (str): that all calls are about.

    Attributes:
        slots (asyncio.Semaphore): each part under way holds one, of whichever call it is.
    """

    def __init__(self, fs: S3FileSystem, bucket: str) -> None:
        self.slots = asyncio.Semaphore(_PARTS_AT_ONCE)
        self._fs = fs
        self._bucket = bucket
        self._loop = get_loop()
        self._clients: list[Any] = []  # of aiobotocore, to be closed
        weakref.finalize(self, _close, self._clients, self._loop, os.getpid())

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call; if the waiting is interrupted, the call is cancelled."""
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the server answers; of the user's additional parameters go along those that fit."""
        await self._fs.set_session()
        client = await self._fs.get_s3(self._bucket)
        if client not in self._clients:
            self._clients.append(client)
            client.meta.events.register("before-sign.s3.DeleteObjects", _digest_body)
        verb, fit = getattr(client, method), self._fs._get_s3_method_kwargs  # noqa: SLF001
        whole = fit(verb, Bucket=self._bucket, **parameters)
        answer: dict[str, Any] = await verb(**whole)
        return answer

    async def send(self, method: str, body: "FilePart", **parameters: Any) -> dict[str, Any]:
        """Call with a part of a file as the body, and its digest; never stands still for long."""
        digest = base64.b64encode(await body.md5()).decode()
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(_STANDSTILL_S) as limit:
            body.went_on = lambda: limit.reschedule(clock() + _STANDSTILL_S)
            return await self.call(method, Body=body, ContentMD5=digest, **parameters)


class FilePart:
    """
    A stretch of a file as the body of a request, read piece by piece as the connection takes it.

    To botocore, which signs it, it is a file; to aiohttp, which sends it, an iterator.

    Parameters:
        descriptor (int): of the file.
        start (int): where it begins.
        size (int): how long it is, in bytes.
        moved (Callable[[int], None]): told of bytes as the connection takes them.
    """

    def __init__(self, descriptor: int, start: int, size: int, moved: Moved) -> None:
        self.went_on: Callable[[], object] = lambda: None
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._moved = moved
        self._at = 0
        self._digest: bytes | None = None

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return True  # an empty one is a body too

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := self.read(PIECE_BYTES):
            yield piece
            self.went_on()
            self._moved(len(piece))

    def read(self, size: int = -1) -> bytes:
        """So many bytes from where it stands; all that are left where nothing is said."""
        left = self._size - self._at
        piece = os.pread(
            self._descriptor, left if size < 0 else min(size, left), self._start + self._at
        )
        self._at += len(piece)
        return piece

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Stand somewhere else."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    async def md5(self) -> bytes:
        """The digest of all of it."""
        if self._digest is None:
            self._digest = await _aside(self._md5)
        return self._digest

    def _md5(self) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        for start in range(0, self._size, PIECE_BYTES):
            length = min(PIECE_BYTES, self._size - start)
            digest.update(os.pread(self._descriptor, length, self._start + start))
        return digest.digest()


class _Resolver(AbstractResolver):
    """Looks hosts up as aiohttp does, and still does so while the interpreter ends."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await _aside(
            lambda: socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        )
        return [
            {
                "hostname": host,
                "host": str(address[0]),
                "port": int(address[1]),
                "family": kind,
                "proto": protocol,
                "flags": socket.AI_NUMERICHOST,
            }
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """There is nothing to close."""


class _StraightSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore ships no types
    """
    Asks once, and where it was told.

    Following a redirect would carry a checkpoint's bytes to whatever host an answer names.
    """

    async def _get_session(self, proxy_url: str | None) -> "_Straight":
        session = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001 - aiohttp would ask twice, unasked
        return _Straight(session)


class _Straight:
    """What aiobotocore asks of a session, without redirects."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, *arguments: Any, **more: Any) -> Any:
        response = await self._session.request(*arguments, allow_redirects=False, **more)
        # An answer that names the bucket's region is botocore's to judge, which asks there. Without
        # a name it would ask the same server for it, which redirects, and so on.
        if response.status in _REDIRECTS and "x-amz-bucket-region" not in response.headers:
            response.close()
            raise RedirectedError(urlsplit(response.headers.get("Location", "")).hostname)
        return response


async def _aside(call: Callable[[], T]) -> T:
    """In a thread, so that other calls go on; or here, since none starts while all ends."""
    try:
        return await asyncio.to_thread(call)
    except RuntimeError:
        return call()


def _digest_body(request: Any, **_: object) -> None:
    """Servers older than the newer checksums take a batch of deletes with a Content-MD5 only."""
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()


def _close(clients: list[Any], loop: asyncio.AbstractEventLoop, process: int) -> None:
    if os.getpid() != process:
        _INHERITED.extend(clients)
    elif loop.is_running():
        for client in clients:
            asyncio.run_coroutine_threadsafe(client.close(), loop)
