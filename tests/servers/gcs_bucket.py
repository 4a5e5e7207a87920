"""What lies in a bucket of Cloud Storage, and who may do what with it, judged under one lock."""

import base64
import hashlib
import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c

_BLOCK = 1024 * 1024
_READS = frozenset({"storage.objects.get", "storage.objects.list"})
_TRAINS = _READS | {"storage.objects.create"}
#: What each role may do. Nobody but the owner may look at the bucket itself.
ROLES: Mapping[str, frozenset[str]] = {
    "nobody": frozenset(),
    "reader": _READS,
    "trainer": _TRAINS,
    "pruner": _TRAINS | {"storage.objects.delete"},
    "owner": _TRAINS | {"storage.objects.delete", "storage.buckets.get"},
}


@dataclass(frozen=True)
class Request:
    """
    One request that was answered.

    Attributes:
        verb: such as `objects.insert`, `objects.get`, `objects.media`, `objects.list`,
            `objects.delete`, `session.begin`, `session.chunk`, `session.status`,
            `session.cancel`.
        query: what stood behind the `?`.
        headers: their names in lower case.
        status: what was answered.
    """

    verb: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    status: int


class Bucket:
    """
    One bucket.

    Parameters:
        bucket: its name.
        anonymous: the role of who comes without a token.
        directory: where the objects lie.

    Attributes:
        requests: every request that was answered, in the order of the answers.
        rights_first: an insert over an object asks for the right to overwrite it before its
            condition is judged, so that a trainer is refused in place of being told that it is
            taken. Google does not say which comes first.
        checks_hashes: whether an insert is refused whose content is not what was announced.
        keeps: how many bytes of one part of a resumable upload are kept; None keeps all of them.
    """

    def __init__(self, bucket: str, anonymous: str, directory: Path) -> None:
        self.bucket = bucket
        self.anonymous = anonymous
        self.requests: list[Request] = []
        self.rights_first = False
        self.checks_hashes = True
        self.keeps: int | None = None
        self._directory = directory
        self._objects: dict[str, Object] = {}
        self._names: list[str] | None = None
        self._sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def unfinished(self) -> int:
        """How many sessions were begun and neither finished nor cancelled."""
        return len([each for each in self._sessions.values() if each.ended is None])

    def behind(self, key: str) -> bytes | None:
        """What lies in the bucket under a name; None if nothing does."""
        found = self._objects.get(key)
        return found and found.path.read_bytes()

    def put(self, key: str, data: bytes, **metadata: str) -> None:
        """Lay something into the bucket, past the requests."""
        path = self.new_file()
        path.write_bytes(data)
        self.insert(key, path, metadata, {}, condition=None)

    def new_file(self) -> Path:
        return self._directory / str(next(self._numbers))

    def names(self) -> list[str]:
        with self._lock:
            if self._names is None:
                self._names = sorted(self._objects, key=str.encode)
            return self._names

    def find(self, name: str, generation: str | None = None) -> "Object":
        found = self._objects.get(name)
        if found is None or generation not in (None, found.generation):
            raise RefusedError(404, "notFound", f"No such object: {self.bucket}/{name}")
        return found

    def check_insert(self, name: str, role: str, condition: str | None) -> None:
        """Refuse to put something under a name, by right and by condition."""
        with self._lock:
            found = self._objects.get(name)
            may_overwrite = found is None or "storage.objects.delete" in ROLES[role]
            if self.rights_first and not may_overwrite:
                raise forbidden(role, "storage.objects.delete")
            if condition not in (None, found.generation if found else "0"):
                message = "At least one of the pre-conditions you specified did not hold."
                raise RefusedError(412, "conditionNotMet", message)
            if not may_overwrite:
                raise forbidden(role, "storage.objects.delete")

    def insert(
        self,
        name: str,
        path: Path,
        metadata: Mapping[str, str],
        announced: Mapping[str, str],
        *,
        condition: str | None,
        role: str = "owner",
    ) -> "Object":
        new = Object(name, path, str(next(self._numbers) + 1_700_000_000_000_000), dict(metadata))
        for kind, told, hash_ in (
            ("CRC32C", announced.get("crc32c"), "crc32c"),
            ("MD5 hash", announced.get("md5Hash"), "md5"),
        ):
            if self.checks_hashes and told and told != getattr(new, hash_):
                calculated = getattr(new, hash_)
                message = (
                    f'Provided {kind} "{told}" doesn\'t match calculated {kind} "{calculated}".'
                )
                raise RefusedError(400, "invalid", message)
        with self._lock:
            self.check_insert(name, role, condition)
            self._objects[name] = new
            self._names = None
        return new

    def remove(self, name: str) -> None:
        with self._lock:
            self.find(name)
            del self._objects[name]
            self._names = None

    def begin(self, session: "Session") -> str:
        session_id = f"session-{next(self._numbers)}"
        self._sessions[session_id] = session
        return session_id

    def session(self, session_id: str) -> "Session":
        try:
            return self._sessions[session_id]
        except KeyError:
            raise RefusedError(404, "notFound", "No such upload session.") from None


@dataclass(frozen=True)
class Object:
    name: str
    path: Path
    generation: str
    metadata: dict[str, str]
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def crc32c(self) -> str:
        value = 0
        for block in _blocks(self.path):
            value = google_crc32c.extend(value, block)
        return base64.b64encode(value.to_bytes(4, "big")).decode()

    @cached_property
    def md5(self) -> str:
        value = hashlib.md5()
        for block in _blocks(self.path):
            value.update(block)
        return base64.b64encode(value.digest()).decode()

    def resource(self, bucket: str) -> dict[str, Any]:
        moment = self.updated.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": bucket,
            "generation": self.generation,
            "metageneration": "1",
            "contentType": "application/octet-stream",
            "storageClass": "STANDARD",
            "size": str(self.size),
            "md5Hash": Late(lambda: self.md5),
            "crc32c": Late(lambda: self.crc32c),
            "timeCreated": moment,
            "updated": moment,
            **self.metadata,
        }


class Late:
    """A field that is worked out only where it is asked for."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass
class Session:
    name: str
    path: Path
    metadata: dict[str, str]
    announced: dict[str, str]
    condition: str | None
    role: str
    total: int | None
    kept: int = 0
    ended: "Object | RefusedError | None" = None


class RefusedError(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


def check(role: str, right: str) -> None:
    if right not in ROLES[role]:
        raise forbidden(role, right)


def forbidden(role: str, right: str) -> RefusedError:
    message = (
        f"{role}@lab.iam.gserviceaccount.com does not have {right} access to the Google Cloud "
        f"Storage object. Permission '{right}' denied on resource (or it may not exist)."
    )
    return RefusedError(403, "forbidden", message)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
