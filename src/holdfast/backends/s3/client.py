"""The client of S3: what s3fs makes of the user's options, run from any thread."""

import asyncio
import base64
import hashlib
import os
import socket
import weakref
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

import aiobotocore.session
from aiobotocore.config import AioConfig
from aiohttp.abc import AbstractResolver, ResolveResult
from fsspec.asyn import get_loop
from s3fs import S3FileSystem

from holdfast.backends.s3.wire import PARTS_AT_ONCE, Arrival, FilePart, S3Session, aside

#: What is set where the user set nothing. Who repeats is decided above the client, once. Every
#: body has a Content-MD5, which all servers know; many refuse the newer checksums, and those of
#: what is read are not worth their time, since Holdfast compares hashes of its own. What is signed
#: is that digest, and not a second one of the same bytes, which costs as much without TLS.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "connect_timeout": 5,
    "read_timeout": 20,
    "max_pool_connections": 32,
    "retries": {"total_max_attempts": 1},
}
_CHECKSUMS: Final = ("request_checksum_calculation", "response_checksum_validation")
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
                **_DEFAULTS,
                **given,
                "http_session_cls": S3Session,
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
    if "payload_signing_enabled" not in profile.get("s3", ()):
        chosen = fs.config_kwargs.get("s3") or {}
        fs.config_kwargs["s3"] = {"payload_signing_enabled": False, **chosen}
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
        self.slots = asyncio.Semaphore(PARTS_AT_ONCE)
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

    async def send(self, method: str, body: FilePart, **parameters: Any) -> dict[str, Any]:
        """Call with a part of a file as the body, and its digest; never stands still for long."""
        try:
            digest = base64.b64encode(await body.md5()).decode()
            return await self.call(method, Body=body, ContentMD5=digest, **parameters)
        except BaseException:
            body.give_up()
            raise

    async def open(self, **parameters: Any) -> tuple[dict[str, Any], Arrival]:
        """What the server answers to a request for an object, and its bytes, to be taken."""
        answer = await self.call("get_object", **parameters)
        return answer, answer["Body"].raw_stream


class _Resolver(AbstractResolver):
    """Looks hosts up as aiohttp does, and still does so while the interpreter ends."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await aside(
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
