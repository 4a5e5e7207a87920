"""What lies in the Drive server: files, folders and drives, and who sees them."""

import hashlib
import secrets
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.servers.drive_query import Query

FOLDER = "application/vnd.google-apps.folder"
_WRITING = frozenset({"drive", "drive.file"})


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status, reason, message="", headers=None, body=None):
        super().__init__(status, reason, message)
        self.status, self.reason, self.message = status, reason, message
        self.headers = headers or {}
        self.body = body


@dataclass(frozen=True)
class Token:
    """
    Who asks.

    Attributes:
        user (str): the account.
        scope (str): how far the sign-in goes.
        client (str): the OAuth client.
        all_drives (bool): the call knows of shared drives.
    """

    user: str
    scope: str
    client: str
    all_drives: bool = True

    def check_writes(self):
        """Refuse what only looks."""
        if self.scope not in _WRITING:
            message = "Request had insufficient authentication scopes."
            raise Refused(403, "insufficientPermissions", message)


#: Who asks: the user, the scope and the OAuth client.
ROLES = {
    "owner": Token("owner", "drive", "client"),
    "app": Token("owner", "drive.file", "app"),
    "other app": Token("owner", "drive.file", "other app"),
    "reader": Token("owner", "drive.readonly", "client"),
    "stranger": Token("stranger", "drive", "client"),
    "contributor": Token("contributor", "drive", "client"),
    "service": Token("service", "drive", "client"),
}


@dataclass
class File:
    """One file or folder."""

    id: str
    name: str
    mime: str
    parent: str | None
    owner: str
    client: str
    created: str
    drive: str | None = None
    content: Path | None = None
    size: int | None = None
    md5: str | None = None
    trashed: bool = False
    seen_from: int = 0


class Content:
    """A new place on the disk for a content; gone after the block unless it was taken."""

    def __init__(self, path, taken):
        self.path, self._taken = path, taken

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        if not self._taken(self.path):
            self.path.unlink(missing_ok=True)


@dataclass
class _Ghost:
    """What a listing shows of a file that is deleted."""

    file: File
    until: int


@dataclass
class Files:
    """
    All files of all users.

    Attributes:
        directory (Path): where contents lie.
        lag (int): so many listings do not show yet what was created, and still show what was
            deleted or trashed.
        limit (int | None): the bytes that each user may have; service accounts have none.
        grouped_blindness (bool): a query that names several parents misses what the user does not
            own.
        incomplete (bool): searches say that they did not reach all.
        flips (int): so many contents arrive damaged.
        ticks (bool): no two files are made in the same millisecond.
    """

    directory: Path
    lag: int = 0
    limit: int | None = 15 * 2**30
    grouped_blindness: bool = True
    incomplete: bool = False
    flips: int = 0
    ticks: bool = True
    now: object = field(default=lambda: datetime.now(UTC))
    by_id: dict[str, File] = field(default_factory=dict)

    def __post_init__(self):
        self.lists = 0
        self._last = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.RLock()
        self._ghosts: list[_Ghost] = []
        self._generated: dict[str, str] = {}
        self._pages: dict[str, list[str]] = {}
        self._managers: dict[str, set[str]] = {}
        self._drive_names: dict[str, str] = {}

    # Past the API.

    def root_of(self, user):
        """The id of a user's My Drive."""
        id = f"0A{user}RootFolder"
        with self._lock:
            if id not in self.by_id:
                self.by_id[id] = File(id, "My Drive", FOLDER, None, user, "", self._stamp())
        return id

    def add_drive(self, name, *, managers=("owner", "service")):
        """A new shared drive that everybody may add to; its id."""
        id = "0A" + secrets.token_hex(8) + "PVA"
        with self._lock:
            self.by_id[id] = File(id, name, FOLDER, None, "", "", self._stamp(), drive=id)
            self._managers[id] = {*managers}
            self._drive_names[id] = name
        return id

    def add(self, path, content=None, *, user="owner", client="client", parent=None, **more):
        """A new file, or a folder where there is no content, however many have its name; its id."""
        *above, name = path.strip("/").split("/")
        with self._lock:
            parent = parent or self.root_of(user)
            for part in above:
                found = self._children(parent, part, folders=True)
                parent = found[0].id if found else self._put(part, parent, user, client, None).id
            return self._put(name, parent, user, client, content, **more).id

    def ids(self, path, user="owner", root=None):
        """The ids of all that has this path, the earliest first."""
        parents = [root or self.root_of(user)]
        *above, name = path.strip("/").split("/")
        with self._lock:
            for part in above:
                parents = [
                    child.id for each in parents for child in self._children(each, part, True)
                ]
            found = [child for each in parents for child in self._children(each, name)]
            return [file.id for file in sorted(found, key=lambda file: (file.created, file.id))]

    def behind(self, path, user="owner", root=None):
        """The bytes under a path; None if there are none."""
        with self._lock:
            for id in self.ids(path, user, root):
                if self.by_id[id].content is not None:
                    return self.by_id[id].content.read_bytes()
        return None

    def add_named(self, name, content, *, parent, id=None):
        """As `add`, with a name, and an id, that may be anything."""
        with self._lock:
            return self._put(name, parent, "owner", "client", content, id=id).id

    def tree(self, path, user="owner"):
        """All files below a path, by what comes after it; twins are an error."""
        found = {}
        with self._lock:
            places = [("", id) for id in self.ids(path, user)]
            assert len(places) < 2
            while places:
                above, parent = places.pop()
                inside = [file for file in self.by_id.values() if file.parent == parent]
                for file in inside:
                    name = above + file.name
                    if self._is_trashed(file):
                        continue
                    if file.content is None:
                        places.append((name + "/", file.id))
                        assert [each.name for each in inside].count(file.name) == 1, name
                    else:
                        assert name not in found, name
                        found[name] = file.content.read_bytes()
        return found

    def put_in_trash(self, id):
        """As a person does it in the browser."""
        with self._lock:
            file = self.by_id[id]
            self.by_id[id] = replace(file, trashed=True)
            self._haunt(file)

    def remove(self, id):
        """Delete for good, with all that is in it."""
        with self._lock:
            for child in [file.id for file in self.by_id.values() if file.parent == id]:
                self.remove(child)
            file = self.by_id.pop(id)
            self._haunt(file)
            if file.content is not None:
                file.content.unlink()

    # Through the API.

    def new_content(self):
        """A place for a content that comes in."""
        return Content(self.directory / secrets.token_hex(8), self.made_by)

    def made_by(self, content):
        """The file that a content became."""
        with self._lock:
            return next((file for file in self.by_id.values() if file.content == content), None)

    def generate_ids(self, token, count):
        ids = ["1" + secrets.token_urlsafe(24) for _ in range(count)]
        with self._lock:
            self._generated.update(dict.fromkeys(ids, token.user))
        return ids

    def drives(self, token, params):
        if token.scope == "drive.file":
            message = "Request had insufficient authentication scopes."
            raise Refused(403, "insufficientPermissions", message)
        known = [] if token.user == "stranger" else list(self._drive_names.items())
        start, size = int(params.get("pageToken", 0)), int(params.get("pageSize", 10))
        answer = {"drives": [{"id": id, "name": name} for id, name in known[start : start + size]]}
        return answer | ({"nextPageToken": str(start + size)} if known[start + size :] else {})

    def quota_of(self, user):
        used = [file for file in self.by_id.values() if file.owner == user and not file.drive]
        usage = sum(file.size or 0 for file in used)
        trashed = sum(file.size or 0 for file in used if self._is_trashed(file))
        quota = {"usage": str(usage), "usageInDriveTrash": str(trashed)}
        limit = 0 if user == "service" else self.limit
        return quota if limit is None else {**quota, "limit": str(limit)}

    def get(self, token, id):
        with self._lock:
            return self._seen(token, id)

    def create(self, token, metadata, content):
        with self._lock:
            size = content.stat().st_size if content else 0
            parent = self.check_new(token, metadata, size)
            more = {"id": metadata["id"]} if "id" in metadata else {}
            name, mime = metadata["name"], metadata.get("mimeType")
            if content and size and self.flips:
                self.flips -= 1
                with content.open("r+b") as file:
                    file.write(b"~")
            return self._put(
                name, parent, token.user, token.client, content, mime=mime, seen_late=True, **more
            )

    def check_new(self, token, metadata, size):
        """Refuse what cannot be created; the id of the folder that it goes into."""
        token.check_writes()
        with self._lock:
            id = metadata.get("id")
            if id in self.by_id:
                raise Refused(409, "fileIdInUse", "A file already exists with the provided ID.")
            if id is not None and self._generated.get(id) != token.user:
                raise Refused(400, "invalid", "The provided file ID is not usable.")
            (wanted,) = metadata.get("parents", ["root"])
            if wanted == "root":
                parent = self.by_id[self.root_of(token.user)]
            else:
                parent = self._seen(token, wanted)
            if not self._may_add(token, parent):
                raise Refused(403, "insufficientFilePermissions", "The user may not add here.")
            self._check_quota(token, parent, size)
            return parent.id

    def trash(self, token, id, trashed):
        token.check_writes()
        with self._lock:
            file = self._seen(token, id)
            self._check_may_remove(token, file)
            self.by_id[id] = replace(file, trashed=trashed)
            if trashed:
                self._haunt(file)
            return self.by_id[id]

    def delete(self, token, id):
        token.check_writes()
        with self._lock:
            self._check_may_remove(token, self._seen(token, id))
            self.remove(id)

    def shown(self, file, token):
        """The metadata of a file, as this caller sees them."""
        found = {
            "id": file.id,
            "name": file.name,
            "mimeType": file.mime,
            "createdTime": file.created,
            "trashed": self._is_trashed(file),
            "ownedByMe": file.owner == token.user and not file.drive,
        }
        if file.drive:
            found["driveId"] = file.drive
        if file.parent and self._is_seen(token, self.by_id.get(file.parent)):
            found["parents"] = [file.parent]
        if file.content is not None:
            found |= {"size": str(file.size), "md5Checksum": file.md5}
        return found

    def list(self, token, params):
        size = int(params.get("pageSize", 100))
        if not 1 <= size <= 1000:
            raise Refused(400, "invalidParameter", "Invalid value for pageSize")
        with self._lock:
            self.lists += 1
            if page := params.get("pageToken"):
                if page not in self._pages:
                    raise Refused(400, "invalid", "Invalid Value")
                found = self._pages[page]
            else:
                found = self._found(token, params)
            answer = {
                "kind": "drive#fileList",
                "incompleteSearch": self.incomplete,
                "files": [self.shown(file, token) for file in found[:size]],
            }
            if found[size:]:
                answer["nextPageToken"] = secrets.token_hex(8)
                self._pages[answer["nextPageToken"]] = found[size:]
            return answer

    def _found(self, token, params):
        try:
            query = Query(params.get("q", ""), self.root_of(token.user))
        except ValueError as error:
            raise Refused(400, "invalid", f"Invalid Value in q: {error}") from error
        for parent in query.parents:
            self._seen(token, parent, what=".", by_alias=True)
        in_drive = params.get("corpora") == "drive"
        if in_drive and params.get("includeItemsFromAllDrives") != "true":
            raise Refused(403, "teamDrivesParentLimit", "includeItemsFromAllDrives must be true.")
        there = [file for file in self.by_id.values() if file.seen_from < self.lists]
        there += [ghost.file for ghost in self._ghosts if ghost.until >= self.lists]
        found: dict[str, File] = {}
        for file in there:
            if in_drive and file.drive != params["driveId"]:
                continue
            if file.drive and params.get("includeItemsFromAllDrives") != "true":
                continue
            blind = self.grouped_blindness and len(query.parents) > 1 and not file.drive
            if blind and file.owner != token.user:
                continue
            if self._is_seen(token, file) and query.judges(file, self._is_trashed(file)):
                found.setdefault(file.id, file)
        order = params.get("orderBy")
        if order not in (None, "name", "createdTime"):
            raise Refused(400, "invalid", f"no such order here: {order}")
        key = {"name": lambda file: file.name.lower(), "createdTime": lambda file: file.created}
        return sorted(found.values(), key=key.get(order, lambda file: file.id))

    # Below both.

    def _put(self, name, parent, user, client, content, *, id=None, mime=None, seen_late=False):
        id = id or "1" + secrets.token_urlsafe(24)
        if isinstance(content, bytes):
            path = self.directory / secrets.token_hex(8)
            path.write_bytes(content)
            content = path
        default = FOLDER if content is None else "application/octet-stream"
        file = File(
            id, name, mime or default, parent, user, client, self._stamp(), self._drive(parent)
        )
        if content is not None:
            file.content, file.size = content, content.stat().st_size
            with content.open("rb") as opened:
                file.md5 = hashlib.file_digest(opened, "md5").hexdigest()
        if seen_late and self.lag:
            file.seen_from = self.lists + self.lag
        self.by_id[id] = file
        return file

    def _drive(self, parent):
        return self.by_id[parent].drive

    def _stamp(self):
        moment = self.now()
        if self.ticks:
            moment = max(moment, self._last + timedelta(milliseconds=1))
        self._last = moment
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def _haunt(self, file):
        if self.lag:
            self._ghosts.append(_Ghost(file, self.lists + self.lag))

    def _children(self, parent, name, folders=False):
        found = [
            file
            for file in self.by_id.values()
            if file.parent == parent
            and file.name == name
            and not self._is_trashed(file)
            and (file.mime == FOLDER or not folders)
        ]
        return sorted(found, key=lambda file: (file.created, file.id))

    def _is_trashed(self, file):
        while file is not None and not file.trashed:
            file = self.by_id.get(file.parent)
        return file is not None

    def _is_seen(self, token, file):
        if file is None:
            return False
        stranger = token.user == "stranger" if file.drive else not self._is_shared(token.user, file)
        return not stranger and (token.scope != "drive.file" or file.client == token.client)

    def _is_shared(self, user, file):
        """Folders named `shared…` and what is in them are seen by everybody."""
        while file is not None:
            if file.owner == user or file.name.startswith("shared"):
                return True
            file = self.by_id.get(file.parent)
        return False

    def _seen(self, token, id, *, what=None, by_alias=False):
        if id == "root":
            id = self.root_of(token.user)
        file = self.by_id.get(id)
        own_root = by_alias and id == self.root_of(token.user)
        if not own_root and (
            not self._is_seen(token, file) or (file.drive and not token.all_drives)
        ):
            raise Refused(404, "notFound", f"File not found: {what or id}.")
        return file

    def _may_add(self, token, parent):
        return bool(parent.drive) or self._is_shared(token.user, parent)

    def _check_may_remove(self, token, file):
        managers = self._managers.get(file.drive, set()) if file.drive else {file.owner}
        if token.user not in managers:
            message = "The user does not have sufficient permissions for this file."
            raise Refused(403, "insufficientFilePermissions", message)

    def _check_quota(self, token, parent, size):
        if parent.drive or not size:
            return
        if token.user == "service":
            message = "Service Accounts do not have storage quota. Leverage shared drives."
            raise Refused(403, "storageQuotaExceeded", message)
        quota = self.quota_of(token.user)
        if "limit" in quota and size > int(quota["limit"]) - int(quota["usage"]):
            raise Refused(403, "storageQuotaExceeded", "The user's Drive storage quota is full.")
