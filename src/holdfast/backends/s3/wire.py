"""Bodies of any size on their way to and from S3: botocore's own connections, each in a thread."""

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.httpsession import URLLib3Session
from botocore.response import StreamingBody

from holdfast.backends.base import MOST_READ, Moved
from holdfast.backends.s3.failures import RedirectedError
from holdfast.backends.translating import causes
from holdfast.errors import CheckpointError, StorageError

#: How many requests with a body of a part's size one client has under way, in all its calls.
PARTS_AT_ONCE: Final = 8
#: Bytes that are handed to a connection, or taken from it, at a time.
PIECE_BYTES: Final = 256 * 1024
#: Seconds after which a request is given up whose body does not go on. A connection that died
#: silently would else hold its part for as long as the kernel tries, a quarter of an hour.
_STANDSTILL_S: Final = 45.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

T = TypeVar("T")


class FilePart:
    """
    A stretch of a file as the body of a request, read piece by piece as the connection takes it.

    To botocore, which signs it, it is a file.

    Parameters:
        descriptor (int): of the file.
        start (int): where it begins.
        size (int): how long it is, in bytes.
        moved (Callable[[int], None]): told of bytes as the connection takes them.
    """

    def __init__(self, descriptor: int, start: int, size: int, moved: Moved) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._moved = moved
        self._at = 0
        self._digest: bytes | None = None
        self._reading = threading.Lock()
        self._is_given_up = False

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return True  # an empty one is a body too

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

    def watched(self) -> Iterator[memoryview]:
        """All of it, each piece to be used before the next is asked for; tells that it goes on."""
        for piece in self._pieces():
            yield piece
            self._moved(len(piece))

    def give_up(self) -> None:
        """Read no more: a thread that still sends it ends, and the descriptor may be closed."""
        with self._reading:
            self._is_given_up = True

    async def md5(self) -> bytes:
        """The digest of all of it."""
        if self._digest is None:
            self._digest = await aside(self._md5)
        return self._digest

    def _md5(self) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self._pieces():
            digest.update(piece)
        return digest.digest()

    def _pieces(self) -> Iterator[memoryview]:
        room, at = memoryview(bytearray(min(PIECE_BYTES, self._size))), 0
        while at < self._size:
            with self._reading:
                if self._is_given_up:
                    raise StorageError("the attempt was given up.")
                count = os.preadv(self._descriptor, [room[: self._size - at]], self._start + at)
            if not count:
                raise StorageError(
                    "a staged file became shorter while it was sent. What is committed is "
                    "untouched. Save again, and leave staged files alone."
                )
            yield room[:count]
            at += count


class Arrival:
    """
    The body of an answer, which comes as it is read.

    Parameters:
        response (Any): of botocore, not yet read.
    """

    def __init__(self, response: Any) -> None:
        self._body = StreamingBody(response.raw, response.headers.get("content-length"))

    async def read(self) -> bytes:
        """
        What a small object or a refusal says: all of it, but no more than `MOST_READ`.

        Raises:
            botocore.exceptions.BotoCoreError: it broke off, or was shorter than announced.
        """

        def read() -> bytes:
            data = bytearray()
            with contextlib.closing(self._body):
                while piece := self._body.read(min(PIECE_BYTES, MOST_READ - len(data))):
                    data += piece
            return bytes(data)

        return await aside(read)

    async def pour(self, put: Callable[[bytes], object]) -> None:
        """
        Hand on every piece, from a thread; one that `put` refuses is the last.

        Raises:
            botocore.exceptions.BotoCoreError: it broke off, or was shorter than announced.
        """

        def pour() -> None:
            with contextlib.closing(self._body):
                while piece := self._body.read(PIECE_BYTES):
                    put(piece)

        await aside(pour)

    def close(self) -> None:
        """Let it go, read or not."""
        self._body.close()


class S3Session(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore ships no types
    """
    The connections of a client of aiobotocore: each request is sent once, and where it was told.

    What may be large, a file's part or an object, goes through botocore's blocking connections:
    copying it through an event loop takes more of the processor, and the loop's one thread. What
    is small goes through aiohttp, as always.

    Following a redirect would carry a checkpoint's bytes to whatever host an answer names. Of
    botocore's connections none does.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        del settings["connector_args"]  # of aiohttp
        self._large = _Connections(**settings)

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        self._large.close()

    async def send(self, request: Any) -> Any:
        """Send a request; what its answer says, with the body of one that streams unread."""
        if not request.stream_output and not isinstance(request.body, FilePart):
            return await super().send(request)
        return await aside(lambda: self._large.exchange(request), forget=_close)

    async def _get_session(self, proxy_url: str | None) -> "_Straight":
        session = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001 - aiohttp would ask twice, unasked
        return _Straight(session)


async def aside(call: Callable[[], T], *, forget: Callable[[T], object] = lambda _: None) -> T:
    """
    In a thread of its own, so that other calls go on; no process waits for it when it ends.

    Parameters:
        call (Callable): what to do.
        forget (Callable): told of the result if nobody waits for it any more.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    try:
        threading.Thread(target=run, name="holdfast S3", daemon=True).start()
    except RuntimeError:  # while the interpreter ends no thread starts
        run()
    try:
        return await asyncio.wrap_future(outcome)
    except asyncio.CancelledError:
        outcome.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else forget(done.result())
        )
        raise


class _Patient:
    """A connection that is given longer to take a piece of a body than to come about."""

    sock: Any

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(_STANDSTILL_S)
        super().send(data)  # type: ignore[misc]  # of the connection that this is mixed into


class _HttpConnection(_Patient, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _HttpsConnection(_Patient, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _HttpConnection


class _HttpsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _HttpsConnection


class _Connections(URLLib3Session):  # type: ignore[misc]
    def __init__(self, *, max_pool_connections: int, **settings: Any) -> None:
        most = max(max_pool_connections, PARTS_AT_ONCE)
        super().__init__(max_pool_connections=most, **settings)
        self._pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        self._manager.pool_classes_by_scheme = self._pool_classes_by_scheme

    def exchange(self, request: Any) -> Any:
        """Send a request and hear the answer, in this thread."""
        if isinstance(request.body, FilePart):
            request.body = request.body.watched()
        try:
            response = self.send(request)
        except Exception as error:
            for cause in causes(error):
                if isinstance(cause, CheckpointError):  # of the body
                    raise cause from None
            raise
        answer = AioAWSResponse(
            response.url, response.status_code, response.headers, Arrival(response)
        )
        if not request.stream_output:
            answer._content = response.content  # noqa: SLF001 - it was read with the answer
        return answer


class _Straight:
    """What aiobotocore asks of a session of aiohttp, without redirects."""

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


def _close(answer: Any) -> None:
    answer.raw.close()
