"""Single requests to Cloud Storage, on the connection and with the credentials of gcsfs."""

import asyncio
import contextlib
import ctypes
import functools
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
from fsspec.asyn import sync
from gcsfs.core import GCSFileSystem
from multidict import CIMultiDictProxy
from yarl import URL

from holdfast.backends.translating import causes
from holdfast.errors import CheckpointError

#: Seconds until a connection stands, and until the other side says something.
_CONNECT_S, _SILENCE_S = 10.0, 20.0
#: Seconds that a thread which lets a client go waits for its connections to be closed.
_CLOSE_S = 1.0
#: How many ranges of all downloads are under way at once.
_SLOTS = 16
#: Bytes that wait in one connection until they are written.
_BUFFER_BYTES = 512 * 1024
#: A redirect is not followed: it could lead credentials to another host.
_SETTINGS: dict[str, Any] = {
    "allow_redirects": False,
    "auto_decompress": False,
    "read_bufsize": _BUFFER_BYTES,
    "timeout": aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S),
}


class RefusedError(Exception):
    """
    The server answered, and the answer is no.

    Attributes:
        status (int): of HTTP.
        reason (str): Google's word for it, such as `rateLimitExceeded`; may be empty.
        message (str): what the server said.
        retry_after (float | None): seconds until it wants to be asked again.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> Self:
        """What a reply says: JSON as a rule, plain text for a download."""
        text = body[:2000].decode(errors="replace").strip()
        reason, message = "", text
        try:
            said = json.loads(body)["error"]
            message = str(said["message"])
            reason = str(said["errors"][0]["reason"])
        except (ValueError, LookupError, TypeError):
            pass  # from something else that stands in between
        retry_after = headers.get("Retry-After", "")
        return cls(status, reason, message, float(retry_after) if retry_after.isdigit() else None)

    @property
    def is_passing(self) -> bool:
        """Whether the server is busy or ill, and the same request may succeed later."""
        return self.status in (408, 429) or self.status >= 500


@dataclass(frozen=True)
class Reply:
    """
    What was answered to a request.

    Attributes:
        status (int): of HTTP.
        headers (CIMultiDictProxy[str]): by their names, in any case.
        body (bytes): as it came, never decompressed.
    """

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body; anything but a JSON object is a failure, never an empty answer."""
        thing = json.loads(self.body)
        if not isinstance(thing, dict):
            raise TypeError(f"the server answered {thing!r}")
        return thing


class GcsClient(GCSFileSystem):  # type: ignore[misc]  # gcsfs ships no types
    """
    A connection of gcsfs, with its options and credentials, and each request sent once.

    gcsfs's own way of asking is not used: it tries six times within half a minute of its own, and
    what it throws tells neither a rate limit from a missing right nor when to come back.

    Parameters:
        options (Any): as gcsfs takes them.

    Attributes:
        slots (asyncio.Semaphore): each range under way holds one.
    """

    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "use_listings_cache": False})
        self.session_kwargs: dict[str, Any] = dict(options.get("session_kwargs") or {})
        #: What gcsfs calls when this is let go; its own acts on the loop from any thread.
        self.close_session = functools.partial(_close, os.getpid())
        self.slots = asyncio.Semaphore(_SLOTS)

    def target(self, path: str, *names: str, **query: str) -> str:
        """
        What to ask: a path below the server with names put in, and a query.

        Parameters:
            path (str): with `{}` where names stand.
            names (str): of buckets and objects, as they are.
            query (str): options of the request; the project to be billed is added, and what is
                empty left out.
        """
        filled = path.format(*(quote(name, safe="") for name in names))
        given = {name: value for name, value in query.items() if value}
        return f"{filled}?{urlencode(self._get_params(given))}"

    def ask(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] = (),
        length: int = 0,
        goes_on: bool = False,
        at_most: int | None = None,
    ) -> Reply:
        """
        Send one request, once.

        Parameters:
            method (str): such as `GET`.
            target (str): from `target`.
            headers (Mapping[str, str] | None): beside the credentials.
            body (Iterable[bytes]): in pieces, each asked for when the one before was handed on.
            length (int): bytes of the body.
            goes_on (bool): status 308 is an answer, that of an upload which is not at its end.
            at_most (int | None): bytes of the reply's body that are read; all, where None.

        Raises:
            RefusedError: the server said no.
            CheckpointError: the body raised it.
            Exception: no answer came; whatever the libraries below throw.
        """
        # Here, and not on the thread that all filesystems share: it may renew the credentials.
        ready = self._get_headers({**(headers or {}), "Content-Length": str(length)})
        reply: Reply = sync(self.loop, self._ask, method, target, ready, body, at_most)
        if not 200 <= reply.status < 300 and not (goes_on and reply.status == 308):
            raise RefusedError.of(reply.status, reply.headers, reply.body)
        return reply

    async def stream(self, target: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """
        The stored bytes of a range, as they come.

        Raises:
            RefusedError: the server said no, or gave something else than the range.
            Exception: the reply broke off; whatever the libraries below throw.
        """
        asked = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "gzip"}
        ready = await asyncio.to_thread(self._get_headers, asked)
        session = await self._set_session()
        async with session.get(self._url(target), headers=ready, **_SETTINGS) as response:
            if response.status >= 300:
                body = await response.read()
                raise RefusedError.of(response.status, response.headers, body)
            given = response.headers.get("Content-Range", "")
            if response.status != 206 or not given.startswith(f"bytes {start}-{end - 1}/"):
                message = f"bytes {start}-{end - 1} were asked for and it gave {given or 'all'}"
                raise RefusedError(416, "", message, None)
            async for piece in response.content.iter_any():
                yield piece

    async def _set_session(self) -> aiohttp.ClientSession:
        if self._session is None and not self._use_client_cert:  # else gcsfs makes a connector
            self.session_kwargs.setdefault("connector", _connector())
        session: aiohttp.ClientSession = await super()._set_session()
        session._retry_connection = False  # noqa: SLF001 - aiohttp would ask twice, unasked
        return session

    def _url(self, target: str) -> URL:
        return URL(f"{self._location}/{target}", encoded=True)

    async def _ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: Iterable[bytes],
        at_most: int | None,
    ) -> Reply:
        session = await self._set_session()
        loop = asyncio.get_running_loop()
        try:
            # aiohttp bounds the silence of the other side, but not its refusal to listen.
            async with asyncio.timeout(None) as deafness:

                async def pieces() -> AsyncIterator[bytes]:
                    for piece in body:
                        deafness.reschedule(loop.time() + _SILENCE_S)
                        yield piece
                    deafness.reschedule(None)

                data = pieces() if headers["Content-Length"] != "0" else None
                async with session.request(
                    method, self._url(target), headers=headers, data=data, **_SETTINGS
                ) as response:
                    return Reply(
                        response.status, response.headers, await _read(response.content, at_most)
                    )
        except aiohttp.ClientError as error:
            for cause in causes(error):
                if isinstance(cause, CheckpointError):
                    raise cause from None
            raise


async def _read(content: aiohttp.StreamReader, at_most: int | None) -> bytes:
    data = bytearray()
    async for piece in content.iter_any():
        data += piece
        if at_most is not None and len(data) >= at_most:
            break
    return bytes(data[:at_most])


class _Lookup:
    """Looks hosts up in a thread, or in this one: while the interpreter ends no thread starts."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> list[Any]:
        try:
            return await asyncio.get_running_loop().getaddrinfo(*args, **options)
        except RuntimeError:
            return socket.getaddrinfo(*args, **options)


def _connector() -> aiohttp.TCPConnector:
    # Of its loop the resolver asks nothing but to look up.
    return aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver(loop=_Lookup()))  # type: ignore[arg-type]


def _close(
    made_by: int,
    loop: asyncio.AbstractEventLoop,
    session: aiohttp.ClientSession | None,
    asynchronous: bool = False,  # noqa: ARG001, FBT001, FBT002 - as gcsfs calls it
) -> None:
    """Close a session on its own loop, and wait a moment for that; a forked child leaves it."""
    if session is None or session.closed:
        return
    if os.getpid() != made_by:
        # The parent's. What watches its sockets is shared, so that a child that let them go, even
        # at its end, would make the parent deaf: nothing ever collects what is held once more.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        return
    closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
    if not _runs_here(loop):  # else it could not come to it
        with contextlib.suppress(TimeoutError):
            closing.result(_CLOSE_S)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
