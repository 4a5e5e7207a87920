"""S3, and every server that speaks it, through s3fs."""

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from botocore.exceptions import BotoCoreError, ClientError

from holdfast import disk
from holdfast.backends.base import MOST_READ, Entry, Moved, Traits, unwatched
from holdfast.backends.forking import PerProcess
from holdfast.backends.ranges import RANGE_BYTES, Put, download_ranges
from holdfast.backends.s3.client import Client, open_filesystem, secrets
from holdfast.backends.s3.failures import reaction
from holdfast.backends.s3.upload import PART_BYTES, Upload
from holdfast.backends.s3.wire import Arrival
from holdfast.backends.translating import redact, storage_errors
from holdfast.errors import InvalidInputError, StorageError

#: How many keys one request lists, or deletes.
_BATCH_KEYS: Final = 1000


class S3Backend:
    """
    Objects in a bucket of S3, or of any server that speaks it.

    An object is created with `If-None-Match: *`, in one request or as the end of an upload in
    parts, so of many callers one succeeds. Nothing is overwritten, no bucket is made, and nobody
    else's upload is touched. However many calls there are, so many parts are under way at once,
    each held in memory piece by piece.

    Parameters:
        url (str): `s3://bucket` or `s3://bucket/a/prefix`.
        options (Mapping[str, Any]): what s3fs takes, such as `key`, `secret`, `profile` and
            `endpoint_url`. What is not given is looked for where AWS's own tools look.
        part_bytes (int): bytes in one part of an upload, at least.

    Raises:
        InvalidInputError: the options do not fit.

    Attributes:
        url (str): as given.
        traits (Traits): how S3 behaves. There are servers that ignore the condition.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any], *, part_bytes: int = PART_BYTES
    ) -> None:
        self.url = url
        self.traits = Traits(parallel=8)
        self._part_bytes = part_bytes
        self._secrets = secrets(options)
        try:
            bucket, root, _ = open_filesystem(options).split_path(url)
        except (BotoCoreError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"the storage_options {', '.join(options)} do not fit {url}: "
                f"{redact(str(error), self._secrets).rstrip('.')}. Nothing was touched. Give what "
                "s3fs.S3FileSystem takes."
            ) from None  # the cause may show what is secret
        self._bucket = bucket
        self._root = f"{root}/" if root else ""
        # Without a way back to this backend, so that its connections end as soon as it does.
        self._client = PerProcess(lambda: Client(open_filesystem(options), bucket))

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """The backend for a URL without a closing slash; nothing is asked of the server."""
        return cls(url, options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} holds credentials, which are not pickled: open it again there.")

    def free_bytes(self) -> int | None:
        """None: S3 has no bound, and tells of no quota."""
        return None

    def create(self, key: str, data: bytes) -> None:
        """Put a small object under a key that is not taken, in one request."""
        digest = hashlib.md5(data, usedforsecurity=False)
        told = base64.b64encode(digest.digest()).decode()
        with self._errors("create", key):
            answer = self._ask("put_object", key, Body=data, ContentMD5=told, IfNoneMatch="*")
        # Not every server compares the digest that it is told, nor answers with one.
        tag = str(answer.get("ETag", "")).strip('"')
        if tag != digest.hexdigest() and self.read(key) != data:
            raise StorageError(
                f"cannot create {self.url}/{key}: it was damaged on the way, and lies there so. "
                "What is committed is untouched. The call may be repeated under another name."
            )

    def read(self, key: str) -> bytes:
        """All bytes of a small object, which come twice alike where no checksum confirms them."""
        answer, data = self._get(key)
        if len(data) == MOST_READ:  # not all of it, and no record
            return data
        tag = str(answer.get("ETag", "")).strip('"')
        # With keys of KMS or of the caller the tag is none; such servers are asked over TLS alone.
        encrypted = "SSEKMSKeyId" in answer or "SSECustomerAlgorithm" in answer
        confirmed = encrypted or tag == hashlib.md5(data, usedforsecurity=False).hexdigest()
        if not confirmed and self._get(key)[1] != data:
            raise StorageError(
                f"cannot read {self.url}/{key}: other bytes came the second time. What is "
                "committed is untouched. The call may be repeated."
            )
        return data

    def upload(self, source: Path, key: str, moved: Moved = unwatched) -> None:
        """Put a file's content under a key; what arrived is compared by checksum."""
        with self._errors("upload", key):
            client = self._client.get()
            client.run(self._upload(client, source, self._root + key, moved))

    def download(self, key: str, target: Path, moved: Moved = unwatched) -> None:
        """Copy an object into a file that does not exist yet, by ranges of one and the same."""
        with self._errors("download", key, may_be_missing=True):
            client = self._client.get()
            client.run(self._download(client, key, target, moved))

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Every key that starts with the prefix and sorts after `after`, page by page."""
        begin: dict[str, Any] = {"StartAfter": self._root + after} if after else {}
        last = after
        while True:
            with self._errors("list", prefix):
                page = self._ask(
                    "list_objects_v2", Prefix=self._root + prefix, MaxKeys=_BATCH_KEYS, **begin
                )
            if "IsTruncated" not in page:
                raise self._unreliable("answers a listing with something else")
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._root)
                if not key or key.endswith("/"):
                    continue  # what consoles make to show a directory
                if key == last:
                    continue  # some servers list one twice while it is being written
                if key < last:
                    raise self._unreliable(
                        "lists keys out of order, or not from where it was asked"
                    )
                last = key
                yield Entry(key, found["Size"], found["LastModified"])
            if not page["IsTruncated"]:
                return
            if "NextContinuationToken" not in page:
                raise self._unreliable("breaks its listings off")
            begin = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, *keys: str) -> None:
        """Remove objects, up to 1,000 with one request; a missing key is fine."""
        if len(keys) == 1:
            with self._errors("delete", keys[0]):
                self._ask("delete_object", keys[0])
            return
        for start in range(0, len(keys), _BATCH_KEYS):
            batch = [{"Key": self._root + key} for key in keys[start : start + _BATCH_KEYS]]
            with self._errors("delete", keys[start]):
                answer = self._ask("delete_objects", Delete={"Objects": batch})
                if not {"Deleted", "Errors"} & answer.keys():
                    raise self._unreliable("does not say what it has deleted")
                for error in answer.get("Errors", ()):
                    if error.get("Code") != "NoSuchKey":
                        raise ClientError({"Error": error}, "DeleteObjects")

    def _get(self, key: str) -> tuple[dict[str, Any], bytes]:
        """What the server says of a small object, and its bytes."""

        async def get(client: Client) -> tuple[dict[str, Any], bytes]:
            answer, body = await client.open(Key=self._root + key)
            return answer, await body.read()

        with self._errors("read", key, may_be_missing=True):
            client = self._client.get()
            return client.run(get(client))

    def _ask(self, method: str, key: str | None = None, **parameters: Any) -> dict[str, Any]:
        client = self._client.get()
        named = {} if key is None else {"Key": self._root + key}
        return client.run(client.call(method, **named, **parameters))

    def _errors(
        self, action: str, key: str, *, may_be_missing: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        react = partial(reaction, bucket=self._bucket)
        place = f"{self.url}/{key}"
        return storage_errors(
            action, place, self._secrets, may_be_missing=may_be_missing, react=react
        )

    def _unreliable(self, what: str) -> StorageError:
        return StorageError(
            f"cannot read {self.url}: the server {what}. What is committed is untouched. "
            "Checkpoints cannot be kept on such a server; give another place.",
            lasting=True,
        )

    async def _upload(self, client: Client, source: Path, name: str, moved: Moved) -> None:
        with disk.disk_errors("read", source):
            descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            parts = self._part_bytes
            await Upload(client, name, descriptor, part_bytes=parts, moved=moved).run()
        finally:
            os.close(descriptor)  # here, where nothing that was cancelled still reads from it

    async def _download(self, client: Client, key: str, target: Path, moved: Moved) -> None:
        name = self._root + key
        first, body = await self._first_range(client, name)
        size = _total(first)
        unread = [body]

        async def get(start: int, end: int, put: Put) -> None:
            with self._errors("download", key, may_be_missing=True):
                if start == 0 and unread:
                    body = unread.pop()
                else:
                    asked = f"{start}-{end - 1}"
                    answer, body = await client.open(
                        Key=name, Range=f"bytes={asked}", IfMatch=first["ETag"]
                    )
                    if answer.get("ContentRange") != f"bytes {asked}/{size}":
                        body.close()
                        raise self._unreliable("answers with other bytes than it was asked for")
                await body.pour(put)

        try:
            await download_ranges(get, size, target, moved=moved, slots=client.slots)
        finally:
            for body in unread:
                body.close()

    async def _first_range(self, client: Client, name: str) -> tuple[dict[str, Any], Arrival]:
        """The beginning of an object, which is all of a small one, and says how large it is."""
        try:
            return await client.open(Key=name, Range=f"bytes=0-{RANGE_BYTES - 1}")
        except ClientError as error:
            if error.response["Error"].get("Code") not in ("InvalidRange", "416"):
                raise
        return await client.open(Key=name)  # of nothing there is no range


def _total(answer: Mapping[str, Any]) -> int:
    _, _, total = str(answer.get("ContentRange", "")).rpartition("/")
    return int(total or answer["ContentLength"])
