"""A file's way into an object of S3, in one request or in parts, and the proof that it arrived."""

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from holdfast.backends.base import Moved
from holdfast.backends.ranges import several_at_once
from holdfast.backends.s3.client import Client
from holdfast.backends.s3.wire import FilePart
from holdfast.errors import AlreadyExists, StorageError

#: Bytes in one part, at least; a file no larger is one request. S3 takes up to 10,000 parts of
#: 5 MiB to 5 GiB (Amazon S3 User Guide, "Amazon S3 multipart upload limits").
PART_BYTES: Final = 16 * 1024 * 1024
_MOST_PARTS: Final = 9_000
#: What is answered of an object that is missing, or empty.
_NOTHING_THERE: Final = frozenset({"404", "NoSuchKey", "416", "InvalidRange"})
#: The form of the MD5 of an object in one piece, or of the MD5s of its parts, with their number.
_DIGEST: Final = re.compile(r"[0-9a-f]{32}(-\d+)?")


class Upload:
    """
    Puts a file under a key that is not taken, or is taken by the same content.

    Every request carries the digest of its body, and the ETag of what arrived is compared. Where
    that is no digest (keys of KMS, keys of the customer) the server's own check and the size have
    to do.

    Parameters:
        client (Client): of the bucket.
        key (str): in the bucket.
        descriptor (int): of the file, opened for reading.
        part_bytes (int): bytes in one part, at least.
        moved (Callable[[int], None]): told of bytes as they are handed on.
    """

    def __init__(
        self, client: Client, key: str, descriptor: int, *, part_bytes: int, moved: Moved
    ) -> None:
        self._client = client
        self._key = key
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._moved = moved
        length = max(part_bytes, -(-self._size // _MOST_PARTS))
        self._parts = [
            FilePart(descriptor, start, min(length, self._size - start), moved)
            for start in range(0, max(self._size, 1), length)
        ]

    async def run(self) -> None:
        """
        Put the file and see that it arrived.

        Raises:
            AlreadyExists: the key is taken by other content.
            ClientError: a request was refused; 412 as above.
        """
        whole = len(self._parts) == 1
        # A look before spares sending again what had arrived, which 412 says only at the end.
        found = None if whole else await self._look()
        if found:
            if not await self._is_same(found):
                raise AlreadyExists(f"{self._key} is taken by other content, which is unchanged.")
            return
        try:
            answer = await (self._put_whole() if whole else self._put_parts())
        except ClientError as error:
            if error.response["Error"].get("Code") not in ("PreconditionFailed", "412"):
                raise
            # Somebody else was first; or we were, and the reply was lost.
            found = await self._look()
            if not found or not await self._is_same(found):
                raise
            return
        await self._confirm(answer)

    async def _put_whole(self) -> dict[str, Any]:
        async with self._client.slots:
            body = self._parts[0]
            return await self._client.send("put_object", body, Key=self._key, IfNoneMatch="*")

    async def _put_parts(self) -> dict[str, Any]:
        begun = await self._client.call("create_multipart_upload", Key=self._key)
        which = {"Key": self._key, "UploadId": begun["UploadId"]}
        tags: dict[int, str] = {}

        async def put(number: int) -> None:
            async with self._client.slots:
                body = self._parts[number - 1]
                answer = await self._client.send("upload_part", body, PartNumber=number, **which)
            tags[number] = answer["ETag"]

        try:
            await several_at_once(put, range(1, len(self._parts) + 1))
            parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
            return await self._client.call(
                "complete_multipart_upload",
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
                **which,
            )
        except BaseException:
            with contextlib.suppress(Exception):  # it failed already; a lifecycle rule comes after
                await self._client.call("abort_multipart_upload", **which)
            raise

    async def _confirm(self, answer: Mapping[str, Any]) -> None:
        tag = _tag(answer)
        if tag == await self._expected():
            return
        found = await self._look()
        if found is None:
            await self._hear_why()
        encryption = str(answer.get("ServerSideEncryption", ""))
        is_digest = _DIGEST.fullmatch(tag) and not (
            "SSECustomerAlgorithm" in answer or encryption.startswith("aws:kms")
        )
        # A digest that is not ours is no proof of damage, since servers differ: it has to be seen.
        arrived = found is not None and found["ContentLength"] == self._size
        if found and arrived and not (is_digest and not await self._is_equal(found)):
            return
        # It is not deleted: a trainer may lack the right, and what lies there may be somebody
        # else's. The key stays taken by wrong content, so the repeat finds AlreadyExists, and
        # the checkpoint is published under a new id. No manifest ever names this one.
        raise StorageError(
            f"cannot upload to {self._key}: it was damaged on the way, or did not arrive whole. "
            "What is committed is untouched, and the file is still where it was. The call may be "
            "repeated under another name."
        )

    async def _look(self) -> dict[str, Any] | None:
        """What there is to know of the object; None if it is missing, or may not be looked at."""
        try:
            return await self._client.call("head_object", Key=self._key)
        except ClientError as error:
            # An answer without a body: its status stands for its code, and why is not said. If it
            # is a wrong region or a token that has expired, the next request is told so in full.
            if error.response["Error"].get("Code") in ("301", "400", "403", "404"):
                return None
            raise

    async def _hear_why(self) -> None:
        """Raise what a look was refused with, if it was refused: an answer with a body says it."""
        try:
            _, body = await self._client.open(Key=self._key, Range="bytes=0-0")
        except ClientError as error:
            if error.response["Error"].get("Code") not in _NOTHING_THERE:
                raise
        else:
            body.close()

    async def _is_same(self, found: Mapping[str, Any]) -> bool:
        if found["ContentLength"] != self._size:
            return False
        return _tag(found) == await self._expected() or await self._is_equal(found)

    async def _is_equal(self, found: Mapping[str, Any]) -> bool:
        """Whether the object has the file's bytes, by reading both."""
        at = 0

        def compare(piece: bytes) -> None:
            nonlocal at
            if piece != os.pread(self._descriptor, len(piece), at):
                raise _DifferentError
            at += len(piece)
            self._moved(0)  # it takes its time, but it goes on

        async with self._client.slots:
            _, body = await self._client.open(Key=self._key, IfMatch=found["ETag"])
            try:
                await body.pour(compare)
            except _DifferentError:
                return False
        return at == self._size

    async def _expected(self) -> str:
        """The ETag that S3 gives what was uploaded in these parts."""
        digests = []
        for part in self._parts:
            digests.append(await part.md5())
            self._moved(0)
        if len(digests) == 1:
            return digests[0].hex()
        whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
        return f"{whole}-{len(digests)}"


class _DifferentError(Exception):
    """What lies there has other bytes."""


def _tag(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')
