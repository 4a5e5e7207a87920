"""The calls of Drive's API that are needed, over HTTP: each is made once, and ends in time."""

import contextlib
import json
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import requests
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession, Request

from holdfast.backends.base import Moved, unwatched
from holdfast.backends.forking import PerProcess
from holdfast.backends.gdrive.failures import Refusal
from holdfast.backends.gdrive.items import FIELDS, FOLDER, Item

#: Seconds to connect, and between two bytes.
_TIMEOUT_S = (10, 20)
#: Files and folders in one page, the most that Drive gives.
_PAGE_ITEMS = 1000
#: How many ids are made beforehand at once.
_IDS = 50
#: What every call about files says: that shared drives are known here.
_FILES = {"supportsAllDrives": "true"}
#: Bytes that are handed to the connection at once. Each has the timeout for itself, so that a slow
#: line is no standstill.
_BLOCK_BYTES = 64 * 1024


class Body:
    """
    Bytes to send, in small blocks, as often as they are asked for.

    Parameters:
        data (bytes): what is told of as it goes.
        moved (Callable[[int], None]): told of it.
        before, after (bytes): what goes around it.

    Attributes:
        failure (BaseException | None): what `moved` raised.
    """

    def __init__(
        self, data: bytes, moved: Moved = unwatched, before: bytes = b"", after: bytes = b""
    ) -> None:
        self.failure: BaseException | None = None
        self._data = data
        self._moved = moved
        self._around = before, after

    def __len__(self) -> int:
        return len(self._data) + sum(map(len, self._around))

    def __iter__(self) -> Iterator[bytes | memoryview]:
        before, after = self._around
        yield before
        data = memoryview(self._data)
        for start in range(0, len(data), _BLOCK_BYTES):
            block = data[start : start + _BLOCK_BYTES]
            yield block
            try:
                self._moved(len(block))
            except BaseException as error:
                self.failure = error
                raise
        yield after


class Client:
    """
    Drive, as one account sees it.

    Connections are kept and used again, each by one thread at a time, and never those of the
    parent in a forked child.

    Parameters:
        credentials (Credentials): of google-auth; they renew themselves.
        endpoint (str): where the API is.
    """

    def __init__(self, credentials: Credentials, endpoint: str) -> None:
        self.endpoint = endpoint
        self._credentials = credentials
        self._idle: PerProcess[deque[AuthorizedSession]] = PerProcess(deque)
        self._ids: PerProcess[deque[str]] = PerProcess(deque)

    def get(self, id: str) -> Item | None:
        """A file or folder, never from a listing that lags; None if Drive knows none."""
        try:
            return Item.read(self._json("GET", self._file(id), {"fields": FIELDS} | _FILES))
        except Refusal as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def find(self, query: str, drive: str | None) -> list[Item]:
        """
        All files and folders that a query means.

        Parameters:
            query (str): in Drive's own language.
            drive (str | None): the shared drive to look in; None for all that is the account's.
        """
        params = {
            "q": query,
            "fields": f"nextPageToken,incompleteSearch,files({FIELDS})",
            "pageSize": str(_PAGE_ITEMS),
            "includeItemsFromAllDrives": "true",
            **_FILES,
            **({"corpora": "drive", "driveId": drive} if drive else {}),
        }
        found: list[Item] = []
        while True:
            page = self._json("GET", "/drive/v3/files", params)
            if page.get("incompleteSearch"):
                raise Refusal(200, "incompleteSearch", "not everything was looked at")
            found += map(Item.read, page["files"])
            if "nextPageToken" not in page:
                return found
            params["pageToken"] = page["nextPageToken"]

    def drives(self) -> list[tuple[str, str]]:
        """The id and the name of each shared drive that the account is a member of."""
        found: list[tuple[str, str]] = []
        params = {"pageSize": "100"}
        while True:
            page = self._json("GET", "/drive/v3/drives", params)
            found += [(each["id"], each["name"]) for each in page["drives"]]
            if "nextPageToken" not in page:
                return found
            params["pageToken"] = page["nextPageToken"]

    def quota(self) -> tuple[int, int] | None:
        """The bytes that the account may have, and those it has; None without a bound."""
        about = self._json("GET", "/drive/v3/about", {"fields": "storageQuota"})
        quota = about["storageQuota"]
        return (int(quota["limit"]), int(quota["usage"])) if "limit" in quota else None

    def new_id(self) -> str:
        """An id for something that is still to be made."""
        ids = self._ids.get()
        with contextlib.suppress(IndexError):
            return ids.popleft()
        wanted = {"count": str(_IDS), "space": "drive"}
        made = self._json("GET", "/drive/v3/files/generateIds", wanted)
        first, *rest = made["ids"]
        ids.extend(rest)
        return str(first)

    def make_folder(self, name: str, parent: str, id: str) -> Item:
        """A new folder."""
        return Item.read(
            self._json(
                "POST",
                "/drive/v3/files",
                {"fields": FIELDS} | _FILES,
                body=json.dumps(_metadata(name, parent, id) | {"mimeType": FOLDER}).encode(),
            )
        )

    def put(self, name: str, parent: str, id: str, data: bytes, moved: Moved = unwatched) -> Item:
        """A new file, in one request."""
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(_metadata(name, parent, id))}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        return Item.read(
            self._json(
                "POST",
                "/upload/drive/v3/files",
                {"uploadType": "multipart", "fields": FIELDS} | _FILES,
                body=Body(data, moved, head.encode(), f"\r\n--{boundary}--\r\n".encode()),
                headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            )
        )

    def begin(self, name: str, parent: str, id: str, size: int) -> str:
        """Begin a file that is sent in parts; the address that they go to."""
        call = self._call(
            "POST",
            "/upload/drive/v3/files",
            {"uploadType": "resumable", "fields": FIELDS} | _FILES,
            body=json.dumps(_metadata(name, parent, id)).encode(),
            headers={
                "X-Upload-Content-Type": "application/octet-stream",
                "X-Upload-Content-Length": str(size),
            },
        )
        with call as response:
            address = response.headers.get("Location", "")
        if urlsplit(address)[:2] != urlsplit(self.endpoint)[:2]:
            raise Refusal(HTTPStatus.FOUND, "", "the parts are to go to another host")
        return address

    def send(self, address: str, body: Body, start: int, size: int) -> Item | int:
        """Send a part; the file if that was the last one, else how many bytes have arrived."""
        span = f"bytes {start}-{start + len(body) - 1}/{size}"
        return self._progress(address, body, span)

    def progress(self, address: str, size: int) -> Item | int:
        """How many bytes of a file have arrived; the file if all have."""
        return self._progress(address, b"", f"bytes */{size}")

    def _progress(self, address: str, body: Body | bytes, span: str) -> Item | int:
        # 308 is Drive's word for "go on", and no redirect.
        more = HTTPStatus.PERMANENT_REDIRECT
        call = self._call("PUT", address, body=body, headers={"Content-Range": span}, also=more)
        with call as response:
            if response.status_code != more:
                return Item.read(response.json())
            _, dash, last = response.headers.get("Range", "").rpartition("-")
            return int(last) + 1 if dash else 0

    @contextlib.contextmanager
    def content(self, id: str, start: int) -> Iterator[Iterator[bytes]]:
        """A file's content from a byte on, as it comes in."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        wanted = HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK
        with self._call(
            "GET", self._file(id), headers=headers, params={"alt": "media"} | _FILES
        ) as response:
            begins = response.headers.get("Content-Range", f"bytes {start}-")
            if response.status_code != wanted or not begins.startswith(f"bytes {start}-"):
                raise Refusal(response.status_code, "", "another part than was asked for")
            yield response.iter_content(_BLOCK_BYTES)

    def remove(self, id: str, *, trash: bool) -> None:
        """
        Remove a file or folder, for good or into the trash.

        Raises:
            Refusal: it is not there; or Drive did not say that it is gone now.
        """
        if trash:
            body = json.dumps({"trashed": True}).encode()
            params = {"fields": "trashed"} | _FILES
            done = self._json("PATCH", self._file(id), params, body=body).get("trashed") is True
        else:
            with self._call("DELETE", self._file(id), _FILES) as response:
                done = response.content.strip() in (b"", b"{}")
        if not done:
            raise Refusal(HTTPStatus.OK, "", "it did not say that this was removed")

    def _file(self, id: str) -> str:
        return f"/drive/v3/files/{id}"

    def _json(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        *,
        body: Body | bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        with self._call(method, path, params, body=body, headers=headers) as response:
            answer: dict[str, Any] = response.json()
            return answer

    @contextlib.contextmanager
    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: Body | bytes = b"",
        headers: Mapping[str, str] | None = None,
        also: int = 0,
    ) -> Iterator[requests.Response]:
        """
        One request.

        Parameters:
            path (str): at the endpoint, or the whole address that the endpoint has given.
            also (int): a status that is an answer too.
        """
        if path.startswith("/"):
            path = self.endpoint + path
        kind = {"Content-Type": "application/json"} if body else {}
        with self._session() as session:

            def ask() -> requests.Response:
                return session.request(  # type: ignore[no-untyped-call,no-any-return]
                    method,
                    path,
                    params=params,
                    data=body,
                    headers={**kind, **(headers or {})},
                    timeout=_TIMEOUT_S,
                    allow_redirects=False,
                    stream=True,
                )

            try:
                response = ask()
                if response.status_code == HTTPStatus.UNAUTHORIZED:
                    response.close()
                    self._renew()
                    response = ask()
            except requests.RequestException:
                if isinstance(body, Body) and body.failure is not None:
                    raise body.failure from None  # whoever is told of the bytes wants no more
                raise
            with response:
                if response.status_code not in (*range(200, 300), also):
                    raise Refusal.of(response)
                yield response

    def _renew(self) -> None:
        """Make new a token that has ended before its time."""
        renew: Callable[[Any], None] = self._credentials.refresh
        renew(partial(Request(), timeout=_TIMEOUT_S))

    @contextlib.contextmanager
    def _session(self) -> Iterator[AuthorizedSession]:
        idle = self._idle.get()
        try:
            session = idle.pop()
        except IndexError:
            make: Callable[..., AuthorizedSession] = AuthorizedSession
            # What it does by itself is switched off: it would try again, and leave responses open.
            session = make(self._credentials, refresh_status_codes=(), auth_request=Request())
        try:
            yield session
        finally:
            idle.append(session)


def quoted(text: str) -> str:
    """A text as it stands in a query."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _metadata(name: str, parent: str, id: str) -> dict[str, object]:
    return {"name": name, "parents": [parent], "id": id}
