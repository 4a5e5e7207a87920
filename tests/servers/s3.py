"""
S3 on free ports, twice: moto made an atomic judge with roles, and rclone, another implementation.

Both are context managers with the same face:

    with MotoServer() as server:
        backend = open_backend(server.url("run"), server.storage_options())
        server.behind("run/manifests/a.json")
"""

import contextlib
import itertools
import re
import secrets
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import create_backend_app

from tests.servers.web import Answered, Asked, Server

_READS = frozenset({"s3:GetObject", "s3:ListBucket"})
_TRAINS = _READS | {"s3:PutObject", "s3:AbortMultipartUpload"}
#: What each role may do. `anonymous` is who signs nothing; `blind` may not list.
ROLES: Mapping[str, frozenset[str]] = {
    "nobody": frozenset(),
    "anonymous": _READS,
    "blind": _TRAINS - {"s3:ListBucket"},
    "reader": _READS,
    "trainer": _TRAINS,
    "pruner": _TRAINS | {"s3:DeleteObject"},
    "owner": _TRAINS | {"s3:DeleteObject", "s3:CreateBucket"},
}
#: Who is not let in at all, and with which answer.
REFUSED: Mapping[str, tuple[int, str]] = {
    "expired": (400, "ExpiredToken"),
    "stranger": (403, "InvalidAccessKeyId"),
}
_SECRET = "a-secret-of-the-tests"
_REGION = "us-east-1"
#: Which operation a request is: its method, whether it names a key, and what its query holds.
_OPERATIONS = [
    ("GET", False, "list-type", "ListObjectsV2", "s3:ListBucket"),
    ("HEAD", False, "", "HeadBucket", "s3:ListBucket"),
    ("PUT", False, "", "CreateBucket", "s3:CreateBucket"),
    ("POST", False, "delete", "DeleteObjects", "s3:DeleteObject"),
    ("GET", True, "", "GetObject", "s3:GetObject"),
    ("HEAD", True, "", "HeadObject", "s3:GetObject"),
    ("PUT", True, "partNumber", "UploadPart", "s3:PutObject"),
    ("POST", True, "uploads", "CreateMultipartUpload", "s3:PutObject"),
    ("POST", True, "uploadId", "CompleteMultipartUpload", "s3:PutObject"),
    ("DELETE", True, "uploadId", "AbortMultipartUpload", "s3:AbortMultipartUpload"),
    ("PUT", True, "", "PutObject", "s3:PutObject"),
    ("DELETE", True, "", "DeleteObject", "s3:DeleteObject"),
]
_SIGNED = f"AWS4-HMAC-SHA256 Credential=owner/20200101/{_REGION}/s3/aws4_request, Signature=0"
_XML = [("Content-Type", "application/xml")]
_KEY_ID = re.compile(r"Credential=([^/]+)/")


@dataclass(frozen=True)
class Request:
    """
    One request that was answered.

    Attributes:
        operation: as S3 calls it, such as `PutObject`, `UploadPart` or `ListObjectsV2`.
        key: the object's, without the bucket; empty where it names none.
        query: what stood behind the `?`.
        headers: their names in lower case.
        status: what was answered.
    """

    operation: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    status: int


class MotoServer:
    """
    moto behind a judge: one request that changes something at a time, so of many creators one wins.

    Requests are judged by their access key, which names a role; no signature is looked at. Objects
    live in this process.

    Parameters:
        bucket: the name of its bucket; one of its own where nothing is said, since all such servers
            of one process share their buckets.

    Attributes:
        endpoint: its URL.
        bucket: a bucket of its own, which is there.
        requests: all that were answered, in order.
    """

    _numbers = itertools.count()

    def __init__(self, bucket: str = "") -> None:
        self.bucket = bucket or f"holdfast-{next(self._numbers)}-{secrets.token_hex(4)}"
        self.requests: list[Request] = []
        self._app = create_backend_app("s3")
        self._judging = threading.Lock()

    def __enter__(self) -> Self:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(self.bucket, _REGION)
        self._http = Server(self._answer)
        self._http.__enter__()
        self.endpoint = self._http.endpoint
        return self

    def __exit__(self, *_: object) -> None:
        self._http.__exit__()
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for version in backend.list_object_versions(self.bucket)[0]:
            version.dispose()
        for upload in backend.list_multipart_uploads(self.bucket).values():
            upload.dispose()
        backend.buckets.pop(self.bucket)
        s3_backends.bucket_accounts.pop(self.bucket, None)

    def url(self, root: str = "") -> str:
        """The URL of the bucket, or of a place in it."""
        return f"s3://{self.bucket}/{root}".rstrip("/")

    def storage_options(self, role: str = "owner") -> dict[str, Any]:
        """What s3fs has to be given to reach this server as a role."""
        if role == "anonymous":
            return {"anon": True, "endpoint_url": self.endpoint}
        return {"key": f"key-of-{role}", "secret": _SECRET, "endpoint_url": self.endpoint}

    def environment(self, role: str = "owner") -> dict[str, str]:
        """The variables by which any client of S3 reaches this server as a role."""
        return {
            "AWS_ACCESS_KEY_ID": f"key-of-{role}",
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }

    def behind(self, key: str) -> bytes | None:
        """The bytes under a key of the bucket, past the server; None if there are none."""
        found = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].get_object(self.bucket, key)
        return None if found is None else found.value

    def uploads(self) -> list[str]:
        """The keys of the multipart uploads that were neither completed nor aborted."""
        found = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].list_multipart_uploads(self.bucket)
        return sorted(upload.key_name for upload in found.values())

    def counted(self) -> Counter[str]:
        """How many requests of each operation were answered so far."""
        return Counter(request.operation for request in self.requests)

    def _answer(self, asked: Asked) -> Answered:
        role, key = _role(asked), _key(asked)
        operation, right = _operation(asked)
        answered = _refusal(asked, role, operation, right)
        if answered is None:
            # moto refuses who signs nothing, and that is judged already.
            signed = replace(asked, headers={"authorization": _SIGNED, **asked.headers})
            with contextlib.nullcontext() if asked.method in ("GET", "HEAD") else self._judging:
                answered = signed.put_to(self._app)
        if answered.status == 404 and "s3:ListBucket" not in ROLES.get(role, ()):
            answered = _error(403, "AccessDenied")  # who may not list is not told what is missing
        self.requests.append(Request(operation, key, asked.query, asked.headers, answered.status))
        return answered


class RcloneServer:
    """
    `rclone serve s3` over a temporary directory: another implementation, in a process of its own.

    It ignores `If-None-Match` and `If-Match` altogether, so it cannot show that one caller wins.

    Attributes:
        endpoint: its URL.
        bucket: a bucket, which is there.
    """

    bucket = "bucket"

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="holdfast-rclone-")
        self._root = Path(self._directory.name)
        (self._root / self.bucket).mkdir()
        command = [Path(sys.executable).parent / "rclone", "serve", "s3", self._root]
        options = ["--addr", "127.0.0.1:0", "--auth-key", f"key-of-owner,{_SECRET}", "--config", ""]
        self._process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if found := re.search(r"Starting s3 server on \[(http://[\d.:]+)", line):
                self.endpoint = found[1]
                break
        else:
            self.__exit__()
            raise RuntimeError(f"rclone did not start: {said}")
        # Somebody has to read what it says, or one day it waits for that.
        self._reader = threading.Thread(target=self._process.stderr.read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        if hasattr(self, "_reader"):
            self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._directory.cleanup()

    def url(self, root: str = "") -> str:
        """The URL of the bucket, or of a place in it."""
        return f"s3://{self.bucket}/{root}".rstrip("/")

    def storage_options(self) -> dict[str, Any]:
        """What s3fs has to be given to reach this server."""
        return {"key": "key-of-owner", "secret": _SECRET, "endpoint_url": self.endpoint}

    def environment(self) -> dict[str, str]:
        """The variables by which any client of S3 reaches this server."""
        return {
            "AWS_ACCESS_KEY_ID": "key-of-owner",
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }

    def behind(self, key: str) -> bytes | None:
        """The bytes under a key of the bucket, past the server; None if there are none."""
        place = self._root / self.bucket / key
        return place.read_bytes() if place.is_file() else None


def _role(asked: Asked) -> str:
    found = _KEY_ID.search(asked.headers.get("authorization", ""))
    return found[1].removeprefix("key-of-") if found else "anonymous"


def _key(asked: Asked) -> str:
    return asked.path.lstrip("/").partition("/")[2]


def _operation(asked: Asked) -> tuple[str, str]:
    """What S3 calls the request, and the right that it needs."""
    for method, names_key, said, operation, right in _OPERATIONS:
        if (asked.method, bool(_key(asked))) == (method, names_key) and said in {*asked.query, ""}:
            return operation, right
    return f"{asked.method} {asked.target}", "none"


def _refusal(asked: Asked, role: str, operation: str, right: str) -> Answered | None:
    if role in REFUSED:
        return _error(*REFUSED[role])
    if right in ROLES.get(role, ()):
        return None
    if operation == "DeleteObjects":  # each key is refused by itself, with status 200
        refused = "".join(
            f"<Error><Key>{key.decode()}</Key><Code>AccessDenied</Code></Error>"
            for key in re.findall(rb"<Key>(.*?)</Key>", asked.body)
        )
        return Answered(200, _XML, f"<DeleteResult>{refused}</DeleteResult>".encode())
    return _error(403, "AccessDenied")


def _error(status: int, code: str) -> Answered:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return Answered(status, _XML, body.encode())
