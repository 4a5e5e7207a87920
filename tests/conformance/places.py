"""The places that keep checkpoints, each before a real server where it has one."""

import contextlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from holdfast.backends import open_backend
from holdfast.backends.base import Backend
from tests.servers.drive import DriveServer
from tests.servers.gcs import GcsServer
from tests.servers.s3 import MotoServer, RcloneServer

#: Where the store lies in a bucket or a Drive.
ROOT = "runs/x"


@dataclass
class Place:
    """
    One place for one store, which tests fill and look at behind its back.

    Attributes:
        name: in the ids of tests.
        url: of the store.
        objects: every object of the store, key and content, in order; one key twice is a twin.
        fill: makes the store consist of these objects and of nothing else.
        given: the storage options of a role.
        environment: the variables by which a process finds the place without any option.
        endpoint: the server's; None where there is none.
        errors: how the server words its errors.
        exclusive: whether it claims that of many creators anywhere one wins.
        roles: whether rights can be taken away.
        always_tls: whether the client speaks nothing else to any machine but this one, so that a
            bit that flips in what the server says itself is noticed before it is read.
        listings_lack: whether that can hide an entry of a listing: S3 is spoken over plain HTTP,
            too, and what it says has no checksum.
        per_try: the most requests that one small call makes when nothing fails.
    """

    name: str
    url: str
    objects: Callable[[], list[tuple[str, bytes]]]
    fill: Callable[[Mapping[str, bytes]], None]
    given: Callable[[str], dict[str, Any]] = lambda role: {}
    environment: dict[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    errors: Literal["s3", "google"] = "s3"
    exclusive: bool = True
    roles: bool = False
    always_tls: bool = False
    listings_lack: bool = False
    per_try: int = 1

    def options(self, *, role: str = "owner", endpoint: str | None = None) -> dict[str, Any]:
        """The storage options, through another endpoint where one is given."""
        return self._through(self.given(role), endpoint)

    def variables(self, *, endpoint: str | None = None) -> dict[str, str]:
        """The environment, through another endpoint where one is given."""
        return self._through(self.environment, endpoint)

    def backend(self, *, role: str = "owner", endpoint: str | None = None) -> Backend:
        """The place as a process that has just started opens it."""
        return open_backend(self.url, self.options(role=role, endpoint=endpoint))

    def _through(self, given: dict[str, Any], endpoint: str | None) -> dict[str, Any]:
        if endpoint is None or self.endpoint is None:
            return given
        old = self.endpoint
        return {
            name: value.replace(old, endpoint) if isinstance(value, str) else value
            for name, value in given.items()
        }


@contextlib.contextmanager
def local(home: Path) -> Iterator[Place]:
    """A directory of this machine."""
    root = home / "store"
    yield Place("local", str(root), lambda: _files(root), lambda wanted: _write(root, wanted))


@contextlib.contextmanager
def moto(home: Path) -> Iterator[Place]:
    """S3, by moto behind a lock."""
    with MotoServer() as server:
        bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[server.bucket]

        def objects() -> list[tuple[str, bytes]]:
            return _below(ROOT, [(name, found.value) for name, found in bucket.keys.items()])

        def fill(wanted: Mapping[str, bytes]) -> None:
            bucket.keys.clear()
            for key, data in wanted.items():
                s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(
                    server.bucket, f"{ROOT}/{key}", data
                )

        yield Place(
            "moto",
            server.url(ROOT),
            objects,
            fill,
            server.storage_options,
            server.environment(),
            server.endpoint,
            roles=True,
            listings_lack=True,
        )


@contextlib.contextmanager
def rclone(home: Path) -> Iterator[Place]:
    """S3, by a second implementation; it ignores the condition of a create."""
    with RcloneServer() as server:
        root = server._root / server.bucket / ROOT
        direct = open_backend(server.url(ROOT), server.storage_options())

        def fill(wanted: Mapping[str, bytes]) -> None:
            # It remembers what it has seen in its directory, so nothing is put there past it.
            direct.delete(*[key for key, _ in _files(root)])
            for key, data in wanted.items():
                direct.create(key, data)

        yield Place(
            "rclone",
            server.url(ROOT),
            lambda: _files(root),
            fill,
            lambda role: server.storage_options(),
            server.environment(),
            server.endpoint,
            exclusive=False,
            listings_lack=True,
        )


@contextlib.contextmanager
def gcs(home: Path) -> Iterator[Place]:
    """Cloud Storage, by a server of our own."""
    with GcsServer() as server:

        def objects() -> list[tuple[str, bytes]]:
            return _below(ROOT, [(name, server.behind(name) or b"") for name in server.names()])

        def fill(wanted: Mapping[str, bytes]) -> None:
            for name in list(server.names()):
                server.remove(name)
            for key, data in wanted.items():
                server.put(f"{ROOT}/{key}", data)

        yield Place(
            "gcs",
            f"gs://{server.bucket}/{ROOT}",
            objects,
            fill,
            server.storage_options,
            {"STORAGE_EMULATOR_HOST": server.endpoint},
            server.endpoint,
            errors="google",
            roles=True,
        )


@contextlib.contextmanager
def drive(home: Path) -> Iterator[Place]:
    """Google Drive, by a server of our own."""
    with DriveServer() as server:
        roots = (f"runs/x{number}" for number in itertools.count())

        def objects() -> list[tuple[str, bytes]]:
            by_id = server.files.by_id
            found = [
                ("/".join(_path(by_id, each)), each.content.read_bytes())
                for each in list(by_id.values())
                if each.content is not None and not each.trashed
            ]
            return _below(place.url.removeprefix("gdrive://My Drive/"), found)

        def fill(wanted: Mapping[str, bytes]) -> None:
            # A process remembers what it made in a folder, so the store gets a new one.
            root = next(roots)
            for id in server.files.ids("runs"):
                server.files.remove(id)
            folders = {root: server.files.add(root)}
            for key, data in wanted.items():
                folder, _, name = f"{root}/{key}".rpartition("/")
                if folder not in folders:
                    there = server.files.ids(folder)
                    folders[folder] = there[0] if there else server.files.add(folder)
                server.files.add(name, data, parent=folders[folder])
            place.url = f"gdrive://My Drive/{root}"

        token = home / "token.json"
        home.mkdir(parents=True)
        token.touch(0o600)
        token.write_text(
            json.dumps(
                {
                    **server.authorized_user(),
                    "token": server.token(),
                    "expiry": "2999-01-01T00:00:00Z",
                }
            )
        )
        options = {"endpoint": server.endpoint, "token_file": str(token)}
        place = Place(
            "drive",
            "",
            objects,
            fill,
            server.storage_options,
            {"FSSPEC_GDRIVE": json.dumps(options)},
            server.endpoint,
            errors="google",
            exclusive=False,
            always_tls=True,
            per_try=12,
        )
        fill({})
        yield place


#: Every place, by the name of its tests.
TABLE: dict[str, Callable[[Path], contextlib.AbstractContextManager[Place]]] = {
    "local": local,
    "moto": moto,
    "rclone": rclone,
    "gcs": gcs,
    "drive": drive,
}
#: Those that a proxy can stand before.
SERVED = ["moto", "rclone", "gcs", "drive"]


def _below(root: str, found: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return sorted(
        (name.removeprefix(f"{root}/"), data) for name, data in found if name.startswith(f"{root}/")
    )


def _files(root: Path) -> list[tuple[str, bytes]]:
    return sorted(
        (str(path.relative_to(root)), path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] != ".workspace"
    )


def _write(root: Path, wanted: Mapping[str, bytes]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for key, data in wanted.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)


def _path(by_id: Mapping[str, Any], file: Any) -> Iterator[str]:
    above = [file]
    while above[-1].parent is not None and above[-1].parent in by_id:
        above.append(by_id[above[-1].parent])
    return (each.name for each in itertools.islice(reversed(above), 1, None))
