"""Google Drive keeps the contract, on a server that is as Drive's docs say, and lags where told."""

import contextlib
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import secrets
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import google.auth
import google.auth.exceptions
import google.oauth2.credentials
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast import KeepLast, open_store
from holdfast.backends import open_backend
from holdfast.backends.gdrive import GdriveBackend, backend, uploads
from holdfast.backends.gdrive.failures import Refusal, react
from holdfast.backends.gdrive.places import Place
from holdfast.backends.retrying import RetryingBackend
from holdfast.backends.translating import storage_errors
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    CheckpointWarning,
    DeadlineExceeded,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StorageFull,
)
from holdfast.testing.backends import BackendContract
from tests.servers.drive import DriveServer, soon

URL = "gdrive://My Drive/runs/x"
KEY = "manifests/a.json"
MIB = 1024 * 1024


@pytest.fixture
def server():
    with DriveServer() as server:
        yield server


@pytest.fixture
def drive(server):
    return opened(server)


def opened(server, url=URL, role="owner", **options):
    """A backend without repetition around it."""
    return open_backend(url, server.storage_options(role) | options).inner


def patient(server, url=URL, role="owner", **options):
    """A backend with repetition around it that does not wait."""
    return RetryingBackend(opened(server, url, role, **options), sleep=lambda _: None)


def elsewhere(server, url=URL, role="owner", **options):
    """A backend as another process has it, which knows nothing of what this one has done."""

    class Elsewhere(GdriveBackend):
        _known = {}  # noqa: RUF012 - its own, on purpose

    return Elsewhere.open(url, server.storage_options(role) | options)


def timed(server, url, now):
    """A backend whose clock shows what `now` holds."""
    place, credentials = Place.of(url), server.credentials()
    return GdriveBackend(place, credentials, server.endpoint, clock=lambda: now[0])


def keys(backend, prefix="", after=""):
    return [entry.key for entry in backend.scan(prefix, after)]


def file(path, content):
    path.write_bytes(content)
    return path


class TestDrive(BackendContract):
    @pytest.fixture
    def backend(self, server):
        self.server = server
        return self.another(None)

    def another(self, backend):
        return opened(self.server)

    def behind(self, backend, key):
        return self.server.behind(f"runs/x/{key}")

    def unplug(self, backend):
        self.server.fault("", status=503, times=1000)


class TestLaggingListings(TestDrive):
    """What one process has done it sees, whatever the listings show."""

    large_bytes = 32 * MIB

    @pytest.fixture
    def server(self):
        with DriveServer(lag=5) as server:
            yield server


class TestSharedDrive(TestDrive):
    large_bytes = 32 * MIB

    @pytest.fixture
    def backend(self, server):
        self.server = server
        self.drive = server.files.add_drive("Lab")
        return self.another(None)

    def another(self, backend):
        return opened(self.server, "gdrive://Shared drives/Lab/runs/x")

    def behind(self, backend, key):
        return self.server.files.behind(f"runs/x/{key}", root=self.drive)


if REAL := os.environ.get("HOLDFAST_TEST_GDRIVE_URL"):  # a folder in Drive

    class TestRealDrive(BackendContract):
        large_bytes = 32 * MIB

        @pytest.fixture
        def backend(self):
            backend = open_backend(f"{REAL}/{secrets.token_hex(8)}")
            yield backend
            backend.delete(*keys(backend))

        def another(self, backend):
            return open_backend(backend.url)

        def behind(self, backend, key):
            with contextlib.suppress(NotFoundError):
                return self.another(backend).read(key)


class TestOpening:
    def test_nothing_is_called_before_the_first_verb(self, server, drive):
        assert server.requests == []
        assert repr(drive) == f"GdriveBackend('{URL}')"

    @pytest.mark.parametrize(
        ("url", "one"),
        [
            ("gdrive://MyDrive/runs/x", URL),
            ("gdrive://My Drive/runs/x/", URL),
            ("gdrive://My Drive", "gdrive://My Drive"),
            ("gdrive://Shareddrives/Lab/x", "gdrive://Shared drives/Lab/x"),
        ],
    )
    def test_a_place_has_one_url(self, server, url, one):
        assert opened(server, url).url == one

    @pytest.mark.parametrize(
        "url", ["gdrive://runs/x", "gdrive://Shared drives", "gdrive://My Drive//x"]
    )
    def test_a_url_that_leads_nowhere_is_refused(self, server, url):
        with pytest.raises(InvalidInputError, match="Nothing was touched"):
            opened(server, url)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tocken_file": "x"}, "takes no 'tocken_file'"),
            ({"token_file": "x"}, "credentials and token_file both"),
            ({"credentials": "ya29.secret"}, "no credentials of google-auth"),
            ({"credentials": None, "auth": object()}, "`auth` has no credentials"),
            ({"credentials": None, "token_file": "/nowhere"}, "No such file"),
            ({"credentials": None, "service_account_file": __file__}, "holds none"),
            ({"endpoint": "http://example.org"}, "https://"),
        ],
    )
    def test_options_that_do_not_fit_are_refused(self, server, options, message):
        with pytest.raises(InvalidInputError, match=message) as caught:
            opened(server, **options)

        assert "secret" not in str(caught.value)

    def test_without_credentials_it_says_where_to_get_some(self, monkeypatch):
        def default(**_):
            raise google.auth.exceptions.DefaultCredentialsError("none found")

        monkeypatch.setattr(google.auth, "default", default)

        with pytest.raises(AccessDenied, match="authenticate_user"):
            open_backend(URL)

    def test_the_credentials_of_the_machine_are_used(self, server, monkeypatch):
        asked = []

        def default(scopes):
            asked.extend(scopes)
            return server.credentials(), None

        monkeypatch.setattr(google.auth, "default", default)
        drive = open_backend(URL, {"endpoint": server.endpoint})

        drive.create(KEY, b"a")

        assert server.behind(f"runs/x/{KEY}") == b"a"
        assert asked == ["https://www.googleapis.com/auth/drive"]

    def test_a_token_file_signs_in_and_only_its_owner_may_read_it(
        self, server, tmp_path, monkeypatch
    ):
        endpoint = f"{server.endpoint}/token"
        monkeypatch.setattr(google.oauth2.credentials, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", endpoint)
        path = tmp_path / "token.json"
        path.write_text(json.dumps(server.authorized_user()))
        path.chmod(0o644)
        options = {"endpoint": server.endpoint, "token_file": path}

        with pytest.raises(InvalidInputError, match="chmod 600"):
            open_backend(URL, options)
        path.chmod(0o600)
        open_backend(URL, options).create(KEY, b"a")

        assert server.behind(f"runs/x/{KEY}") == b"a"

    def test_a_service_account_writes_to_a_shared_drive(self, server, tmp_path):
        lab = server.files.add_drive("Lab")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        account = {
            "type": "service_account",
            "client_email": "trainer@project.iam.gserviceaccount.com",
            "token_uri": f"{server.endpoint}/token",
            "private_key": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
        }
        path = file(tmp_path / "account.json", json.dumps(account).encode())
        options = {"endpoint": server.endpoint, "service_account_file": path}

        open_backend("gdrive://Shared drives/Lab/x", options).create(KEY, b"a")
        with pytest.raises(StorageFull, match="no room of its own"):
            open_backend(URL, options).create(KEY, b"a")

        assert server.files.behind(f"x/{KEY}", root=lab) == b"a"

    def test_a_google_auth_of_pydrive2_signs_in_and_renews_itself(self, server):
        auth_module = pytest.importorskip("pydrive2.auth")
        client_module = pytest.importorskip("oauth2client.client")
        auth = auth_module.GoogleAuth()
        auth.credentials = client_module.OAuth2Credentials(
            access_token=server.token(),
            client_id="client",
            client_secret="client-secret",
            refresh_token="refresh-owner",
            token_expiry=soon(),
            token_uri=f"{server.endpoint}/token",
            user_agent="test",
        )
        drive = patient(server, credentials=None, auth=auth)
        drive.create("manifests/a.json", b"a")
        before = auth.credentials.access_token

        server.expire()
        drive.create("manifests/b.json", b"b")

        assert keys(drive) == ["manifests/a.json", "manifests/b.json"]
        assert server.count("token") == 1
        assert auth.credentials.access_token != before
        assert auth.http is None

        server.expire()
        server.revoked = True
        with pytest.raises(AccessDenied, match=r"(?s)invalid_grant.*Sign in again"):
            drive.read("manifests/a.json")


class TestPlaces:
    def test_a_folder_may_be_named_by_its_id(self, server):
        id = server.files.add("somewhere/deep")
        drive = opened(server, f"gdrive://{id}/runs/x")

        drive.create(KEY, b"a")

        assert server.behind(f"somewhere/deep/runs/x/{KEY}") == b"a"
        assert keys(drive) == [KEY]

    @pytest.mark.parametrize("verb", ["read", "scan"])
    @pytest.mark.parametrize("what", ["missing", "trashed", "file", "foreign"])
    def test_a_folder_that_is_not_there_is_no_empty_store(self, server, what, verb):
        id = {
            "missing": "1" + "x" * 30,
            "trashed": server.files.add("somewhere"),
            "file": server.files.add("file", b"content"),
            "foreign": server.files.add("theirs", user="stranger"),
        }[what]
        if what == "trashed":
            server.files.put_in_trash(id)
        drive = patient(server, f"gdrive://{id}")

        with pytest.raises(StorageError, match="there is no folder with the id") as caught:
            drive.read(KEY) if verb == "read" else keys(drive)

        assert caught.value.lasting

    @pytest.mark.parametrize("how", ["put_in_trash", "remove"])
    def test_a_folder_that_goes_while_it_is_used_is_no_empty_store(self, server, how):
        id = server.files.add("somewhere")
        now = [0.0]
        drive = timed(server, f"gdrive://{id}/runs/x", now)
        drive.create(KEY, b"a")
        now[0] = 4.0
        getattr(server.files, how)(id)

        with pytest.raises(StorageError, match=r"no folder with the id .* any more|notFound"):
            keys(drive, "manifests/")
        with pytest.raises(StorageError, match=r"no folder with the id .* any more|notFound"):
            drive.read(KEY)

    def test_a_shared_drive_that_is_not_there_is_no_empty_store(self, server):
        server.files.add_drive("lab")

        with pytest.raises(StorageError, match="no shared drive 'Lab'"):
            keys(patient(server, "gdrive://Shared drives/Lab"))

    def test_of_two_shared_drives_of_one_name_the_id_says_which(self, server):
        first, second = server.files.add_drive("Lab"), server.files.add_drive("Lab")
        for number in range(250):
            server.files.add_drive(f"other {number}")

        with pytest.raises(InvalidInputError, match=f"{first} or {second}"):
            keys(opened(server, "gdrive://Shared drives/Lab"))
        opened(server, f"gdrive://{second}/x").create(KEY, b"a")

        assert server.files.behind(f"x/{KEY}", root=second) == b"a"

    def test_what_lies_in_a_shared_drive_has_no_bound(self, server, tmp_path):
        server.files.add_drive("Lab")
        server.files.limit = 10
        drive = opened(server, "gdrive://Shared drives/Lab")

        drive.upload(file(tmp_path / "source", b"x" * 100), "files/a/model")

        assert drive.free_bytes() is None
        assert server.count("about.get") == 0

    def test_folders_may_have_any_name(self, server):
        url = "gdrive://My Drive/Größe ÄÖ/it's \\ here/x"
        drive = opened(server, url)

        drive.create("manifests/a.json", b"a")
        elsewhere(server, url).create("manifests/b.json", b"b")

        assert keys(elsewhere(server, url)) == ["manifests/a.json", "manifests/b.json"]
        assert len(server.files.ids("Größe ÄÖ/it's \\ here/x")) == 1

    def test_names_that_differ_by_case_are_two(self, server):
        drive = opened(server, "gdrive://My Drive/Runs")
        drive.create("pins/A/a", b"upper")
        drive.create("pins/a/a", b"lower")

        assert [drive.read("pins/A/a"), drive.read("pins/a/a")] == [b"upper", b"lower"]
        assert keys(elsewhere(server, "gdrive://My Drive/runs")) == []

    def test_with_the_scope_drive_file_a_client_sees_what_it_made(self, server):
        drive = opened(server, role="app")
        drive.create(KEY, b"a")
        server.files.add("runs/x/manifests/b.json", b"b")

        assert drive.read(KEY) == b"a"
        assert keys(drive) == [KEY]
        assert keys(elsewhere(server, role="app")) == [KEY]
        assert keys(elsewhere(server, role="other app")) == []

    def test_a_folder_made_by_another_client_is_not_seen_with_the_scope_drive_file(self, server):
        id = server.files.add("runs")

        with pytest.raises(StorageError, match="same OAuth client"):
            keys(opened(server, f"gdrive://{id}", role="app"))


class TestTwins:
    @pytest.fixture
    def twins(self, server):
        server.files.add("runs/x/manifests/a.json", b"first")
        server.files.add("runs/x/manifests/a.json", b"second, longer")
        server.files.add("runs/x/manifests/b.json", b"b")
        return server

    def test_the_earliest_file_is_meant_everywhere_and_there_is_one_warning(self, twins):
        drive = opened(twins)

        with pytest.warns(CheckpointWarning, match=r"runs/x/manifests/a\.json is there 2 times"):
            entries = list(drive.scan(""))
        again = keys(drive)

        assert [(entry.key, entry.size) for entry in entries] == [
            ("manifests/a.json", 5),
            ("manifests/b.json", 1),
        ]
        assert again == ["manifests/a.json", "manifests/b.json"]
        assert drive.read("manifests/a.json") == b"first"
        with pytest.raises(AlreadyExists):
            drive.create("manifests/a.json", b"third")

    def test_a_delete_takes_all_of_them(self, twins):
        drive = opened(twins)

        drive.delete("manifests/a.json")

        assert keys(drive) == ["manifests/b.json"]

    def test_what_lies_in_any_of_two_folders_of_one_name_is_there(self, server):
        root = server.files.root_of("owner")
        first, second = (server.files.add("runs", parent=root) for _ in range(2))
        server.files.add("x/manifests/b.json", b"b", parent=first)
        server.files.add("x/manifests/a.json", b"a", parent=second)
        server.files.add("x/files/1/deep/model", b"1", parent=second)
        server.files.add("x/files/1/deep/other", b"2", parent=first)
        drive = opened(server)

        drive.create("manifests/c.json", b"c")
        drive.delete("manifests/a.json")

        assert keys(drive) == [
            "files/1/deep/model",
            "files/1/deep/other",
            "manifests/b.json",
            "manifests/c.json",
        ]
        assert drive.read("files/1/deep/model") == b"1"
        assert server.files.ids("x/manifests/c.json", root=first)
        with pytest.raises(AlreadyExists):
            drive.create("files/1/deep/model", b"other")

    def test_a_twin_of_a_folder_that_is_known_already_is_found(self, server):
        now = [0.0]
        drive = timed(server, URL, now)
        drive.create("manifests/a.json", b"a")
        assert keys(drive) == ["manifests/a.json"]

        twin = server.files.add("runs", parent=server.files.root_of("owner"))
        server.files.add("x/manifests/b.json", b"b", parent=twin)
        now[0] = 4.0

        assert keys(drive) == ["manifests/a.json", "manifests/b.json"]
        assert drive.read("manifests/b.json") == b"b"

    def test_who_finds_an_earlier_one_after_its_own_create_takes_its_own_back(self, server, drive):
        drive.create("manifests/other.json", b"")
        other = elsewhere(server)
        server.fault("upload.multipart", "run", act=lambda: other.create(KEY, b"theirs"))

        with pytest.raises(AlreadyExists):
            drive.create(KEY, b"mine")

        assert len(server.files.ids(f"runs/x/{KEY}")) == 1
        assert drive.read(KEY) == other.read(KEY) == b"theirs"

    def test_of_two_that_could_not_see_each_other_everybody_means_the_earlier(self, server):
        drive, other = opened(server), elsewhere(server)
        drive.create("manifests/other.json", b"")
        server.files.lag = 50
        drive.create(KEY, b"earlier")
        other.create(KEY, b"later")

        server.files.lists += 50
        with pytest.warns(CheckpointWarning, match="2 times"):
            found = keys(elsewhere(server))

        assert found.count(KEY) == 1
        assert drive.read(KEY) == elsewhere(server).read(KEY) == b"earlier"

    def test_an_upload_that_meets_the_same_content_from_elsewhere_is_fine(
        self, server, drive, tmp_path
    ):
        source = file(tmp_path / "source", b"content")
        other = elsewhere(server)
        server.fault("upload.multipart", "run", act=lambda: other.upload(source, "files/a/model"))

        drive.upload(source, "files/a/model")

        assert len(server.files.ids("runs/x/files/a/model")) == 1


VERBS = {
    "create": lambda drive, path: drive.create(KEY, b"content"),
    "upload": lambda drive, path: drive.upload(path / "source", "files/a/sub/model"),
    "upload in parts": lambda drive, path: drive.upload(path / "large", "files/a/sub/model"),
    "read": lambda drive, path: drive.read("there/a"),
    "download": lambda drive, path: drive.download("there/a", path / "target"),
    "scan": lambda drive, path: keys(drive),
    "delete": lambda drive, path: drive.delete("there/a"),
}
FAULTS = {
    "lost reply": {"kind": "lose"},
    "reset": {"kind": "reset"},
    "cut": {"kind": "cut"},
    "torn": {"kind": "tear"},
    "502 in HTML": {"status": 502, "body": b"<html>Bad Gateway</html>"},
    "403 rate": {"status": 403, "reason": "userRateLimitExceeded"},
}


@pytest.fixture
def small_parts(monkeypatch):
    """Files above a few bytes go in parts of 256 KiB."""
    monkeypatch.setattr(backend, "SMALL_BYTES", 100)
    monkeypatch.setattr(uploads, "_PART_BYTES", 256 * 1024)


class TestFaults:
    @pytest.mark.parametrize("verb", VERBS)
    @pytest.mark.parametrize(
        ("fault", "lag"), [*((fault, 0) for fault in FAULTS), ("lost reply", 3)]
    )
    def test_one_at_any_request_changes_nothing_and_makes_no_twin(
        self, server, small_parts, tmp_path, verb, fault, lag
    ):
        file(tmp_path / "source", b"content")
        content = secrets.token_bytes(700 * 1024)
        file(tmp_path / "large", content)
        server.files.lag = lag

        for number in itertools.count():
            root = f"run {number}"
            server.files.add(f"{root}/there/a", b"there")
            drive = patient(server, f"gdrive://My Drive/{root}")
            server.fault("", skip=number, **FAULTS[fault])

            result = VERBS[verb](drive, tmp_path)

            left = server.calm()
            server.files.lists += 100
            expected = {"there/a": b"there"}
            if verb == "create":
                expected[KEY] = b"content"
            elif verb.startswith("upload"):
                expected["files/a/sub/model"] = content if "parts" in verb else b"content"
            elif verb == "delete":
                del expected["there/a"]
            elif verb == "download":
                assert (tmp_path / "target").read_bytes() == b"there"
                (tmp_path / "target").unlink()
            else:
                assert result in (b"there", ["there/a"])
            assert server.files.tree(root) == expected, number
            assert keys(elsewhere(server, drive.url)) == sorted(expected)
            if left:
                break

        assert number > 1

    @pytest.mark.parametrize("verb", VERBS)
    def test_that_nothing_is_seen_any_more_is_not_taken_for_nothing_there(
        self, server, small_parts, tmp_path, verb
    ):
        """To an account that lost its rights everything is missing, until it has them again."""
        file(tmp_path / "source", b"content")
        file(tmp_path / "large", secrets.token_bytes(700 * 1024))
        there = {"there/a": b"there", "there/b": b"there", "files/b/sub/model": b"model"}

        for number in itertools.count():
            root = f"run {number}"
            for key, data in there.items():
                server.files.add(f"{root}/{key}", data)
            drive = opened(server, f"gdrive://My Drive/{root}")
            assert drive.read("there/b") == b"there"
            server.fault("", status=404, reason="notFound", times=10_000, skip=number)

            with contextlib.suppress(StorageError):
                VERBS[verb](drive, tmp_path)

            struck = server.calm()[0].times < 10_000
            (tmp_path / "target").unlink(missing_ok=True)
            expected = {*there} - ({"there/a"} if verb == "delete" else set())
            found = keys(drive)
            assert expected <= {*found}, number
            assert found == keys(elsewhere(server, drive.url)) == sorted(server.files.tree(root))
            assert len(server.files.ids(root)) == 1
            if not struck:
                break

        assert number > 0

    def test_one_that_takes_effect_after_it_was_given_up_makes_no_twin(self, server, drive):
        drive.create("manifests/other.json", b"")
        server.fault("upload.multipart", "reset")
        with pytest.raises(StorageError):
            drive.create(KEY, b"a")
        id = drive._objects.get().known.attempts[f"runs/x/{KEY}"].id
        (folder,) = server.files.ids("runs/x/manifests")

        def late():
            server.files.add_named("a.json", b"a", parent=folder, id=id)

        server.fault("upload.multipart", "run", act=late)
        drive.create(KEY, b"a")

        assert server.files.ids(f"runs/x/{KEY}") == [id]

    def test_a_place_that_stays_away_is_an_error_of_storage(self, server, tmp_path):
        file(tmp_path / "source", b"content")
        file(tmp_path / "large", b"x" * 6 * MIB)
        drive = patient(server)
        drive.create("there/a", b"a")
        server.fault("", "reset", times=10_000)

        for verb in VERBS.values():
            with pytest.raises(StorageError, match=r"What is committed is untouched\..*repeated"):
                verb(drive, tmp_path)

        assert not (tmp_path / "target").exists()


class TestOwnWrites:
    def test_are_seen_while_listings_lag_and_by_nobody_else(self, server, drive, tmp_path):
        server.files.lag = 10_000
        drive.create(KEY, b"a")
        drive.upload(file(tmp_path / "source", b"content"), "files/a/deep/model")

        assert keys(drive) == ["files/a/deep/model", KEY]
        assert drive.read(KEY) == b"a"
        assert keys(elsewhere(server)) == []

    def test_what_was_removed_is_not_seen_while_listings_lag(self, server, drive):
        drive.create(KEY, b"a")
        server.files.lag = 10_000

        drive.delete(KEY)

        assert keys(drive) == []
        with pytest.raises(NotFoundError):
            drive.read(KEY)
        drive.create(KEY, b"again")
        assert drive.read(KEY) == b"again"
        assert keys(elsewhere(server)) == [KEY]  # what the listing still shows

    def test_what_another_process_has_removed_is_not_remembered(self, server, drive):
        server.files.lag = 10_000
        drive.create(KEY, b"a")
        server.files.lag = 0

        server.files.remove(server.files.ids(f"runs/x/{KEY}")[0])

        assert keys(drive) == []
        with pytest.raises(NotFoundError):
            drive.read(KEY)

    def test_what_is_listed_but_gone_does_not_take_its_key(self, server, drive):
        drive.create(KEY, b"a")
        other = elsewhere(server)
        server.files.lag = 10_000
        other.delete(KEY)

        drive.create(KEY, b"again")

        assert drive.read(KEY) == b"again"
        assert [entry.size for entry in drive.scan("")] == [5]

    def test_are_forgotten_after_some_minutes(self, server):
        now = [0.0]
        drive = timed(server, "gdrive://My Drive/timed", now)
        server.files.lag = 10_000
        drive.create(KEY, b"a")
        drive.delete(KEY)
        drive.create("manifests/b.json", b"b")

        server.files.lists += 10_000
        now[0] = 601
        found = keys(drive)
        drive.create("manifests/c.json", b"c")

        known = drive._objects.get().known
        assert found == ["manifests/b.json"]
        assert [*known._written] == ["timed/manifests/c.json"]
        assert known._gone == {}


class TestFoldersThatGo:
    @pytest.mark.parametrize("lag", [0, 30])
    @pytest.mark.parametrize("path", ["runs", "runs/x", "runs/x/manifests"])
    @pytest.mark.parametrize("how", ["put_in_trash", "remove"])
    def test_a_folder_that_somebody_removes_swallows_nothing(self, server, how, path, lag):
        drive = patient(server)
        drive.create("manifests/a.json", b"a")
        server.files.lag = lag
        getattr(server.files, how)(server.files.ids(path)[0])

        drive.create("manifests/b.json", b"b")

        assert server.behind("runs/x/manifests/b.json") == b"b"
        assert keys(drive) == ["manifests/b.json"]

    def test_one_that_goes_during_the_create_swallows_nothing(self, server):
        drive = patient(server)
        drive.create("manifests/a.json", b"a")
        (id,) = server.files.ids("runs/x")
        server.fault("upload.multipart", "run", act=lambda: server.files.put_in_trash(id))

        drive.create("manifests/b.json", b"b")

        assert server.behind("runs/x/manifests/b.json") == b"b"


class TestUploads:
    def test_a_small_file_is_one_request_and_a_large_one_goes_in_parts(
        self, server, drive, tmp_path
    ):
        moved = []

        drive.upload(file(tmp_path / "small", b"x" * 5 * MIB), "files/a/small", moved.append)
        small = server.labels()
        server.requests.clear()
        drive.upload(file(tmp_path / "large", b"x" * 20 * MIB), "files/a/large", moved.append)

        assert (small.count("upload.multipart"), small.count("session.put")) == (1, 0)
        assert (server.count("upload.resumable"), server.count("session.put")) == (1, 3)
        assert sum(moved) == 25 * MIB

    def test_a_part_that_is_taken_in_part_is_gone_on_with(
        self, server, drive, tmp_path, small_parts
    ):
        content = secrets.token_bytes(900 * 1024)
        server.accepts = 256 * 1024
        uploads._PART_BYTES = 512 * 1024

        drive.upload(file(tmp_path / "source", content), "files/a/model")

        assert server.behind("runs/x/files/a/model") == content

    def test_a_part_that_broke_off_is_gone_on_with_where_it_stopped(self, server, drive, tmp_path):
        content = secrets.token_bytes(20 * MIB)
        moved = []
        server.fault("session.put", "tear", skip=1)

        drive.upload(file(tmp_path / "source", content), "files/a/model", moved.append)

        assert server.behind("runs/x/files/a/model") == content
        assert sum(moved) <= 28 * MIB

    def test_a_repeated_upload_goes_on_where_the_one_before_stopped(self, server, tmp_path):
        content = secrets.token_bytes(20 * MIB)
        drive = opened(server)
        server.fault("session.put", "reset", skip=2, times=100)
        source = file(tmp_path / "source", content)
        with pytest.raises(StorageError):
            drive.upload(source, "files/a/model")
        server.calm()
        moved = []

        drive.upload(source, "files/a/model", moved.append)

        assert sum(moved) == 4 * MIB
        assert server.behind("runs/x/files/a/model") == content
        assert server.count("upload.resumable") == 1

    def test_a_session_that_drive_has_forgotten_is_begun_anew(self, server, tmp_path):
        content = secrets.token_bytes(20 * MIB)
        drive = patient(server)
        server.fault("session.put", "run", act=server.sessions.clear, skip=1)

        drive.upload(file(tmp_path / "source", content), "files/a/model")

        assert server.behind("runs/x/files/a/model") == content
        assert server.count("upload.resumable") == 2

    @pytest.mark.parametrize("size", [100, 6 * MIB])
    def test_what_arrived_otherwise_than_it_was_sent_is_removed(
        self, server, drive, tmp_path, size
    ):
        server.files.flips = 1

        with pytest.raises(StorageError, match="other bytes than were sent"):
            drive.upload(file(tmp_path / "source", b"x" * size), "files/a/model")
        left = server.files.tree("runs/x")
        drive.upload(tmp_path / "source", "files/a/model")

        assert left == {}
        assert server.behind("runs/x/files/a/model") == b"x" * size

    def test_one_that_was_given_up_ends(self, server, drive, tmp_path):
        source = file(tmp_path / "source", b"x" * 20 * MIB)
        calls = []

        def moved(count):
            calls.append(count)
            if len(calls) > 3:
                raise StorageError("given up")

        with pytest.raises(StorageError, match="given up"):
            drive.upload(source, "files/a/model", moved)

        assert len(calls) == 4
        assert server.behind("runs/x/files/a/model") is None

    def test_two_at_once_of_one_key_make_one_file(self, server, drive, tmp_path, small_parts):
        source = file(tmp_path / "source", secrets.token_bytes(700 * 1024))
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(drive.upload, source, "files/a/model") for _ in range(8)]
            for future in futures:
                future.result(60)

        assert len(server.files.ids("runs/x/files/a/model")) == 1

    def test_without_room_nothing_is_sent(self, server, drive, tmp_path):
        server.files.limit = 10 * MIB
        source = file(tmp_path / "source", b"x" * 6 * MIB)
        drive.upload(source, "files/a/model")

        with pytest.raises(StorageFull, match=r"room for 4,194,304 more bytes.*empty the trash"):
            drive.upload(source, "files/b/model")
        drive.upload(source, "files/a/model")

        assert drive.free_bytes() == 4 * MIB
        assert server.count("upload.resumable") == 1

    def test_room_that_was_made_is_seen(self, server, drive, tmp_path):
        server.files.limit = 10 * MIB
        source = file(tmp_path / "source", b"x" * 6 * MIB)
        drive.upload(source, "files/a/model")

        drive.delete("files/a/model")
        drive.upload(source, "files/b/model")

        assert keys(drive) == ["files/b/model"]

    def test_an_account_without_a_bound_has_none(self, server, drive, tmp_path):
        server.files.limit = None

        drive.upload(file(tmp_path / "source", b"x"), "files/a/model")

        assert drive.free_bytes() is None

    def test_no_room_for_a_small_object_is_said_too(self, server, drive):
        server.files.limit = 3

        with pytest.raises(StorageFull):
            drive.create(KEY, b"content")
        drive.create("pins/a", b"")

        assert keys(drive) == ["pins/a"]

    def test_a_quota_that_ends_meanwhile_is_said_too(self, server, drive, tmp_path):
        drive.create("pins/a", b"")
        server.fault("upload.resumable", status=403, reason="storageQuotaExceeded")

        with pytest.raises(StorageFull, match="empty its trash"):
            drive.upload(file(tmp_path / "source", b"x" * 6 * MIB), "files/a/model")


class TestDownloads:
    @pytest.fixture
    def content(self, server):
        content = secrets.token_bytes(3 * MIB)
        server.files.add("runs/x/files/a/model", content)
        return content

    def test_one_that_is_cut_is_gone_on_with(self, server, drive, content, tmp_path):
        server.fault("files.media", "cut", times=3)
        moved = []

        drive.download("files/a/model", tmp_path / "target", moved.append)

        assert (tmp_path / "target").read_bytes() == content
        assert sum(moved) == len(content)
        assert server.count("files.media") == 4

    def test_one_that_was_given_up_leaves_nothing(self, server, drive, content, tmp_path):
        def moved(_):
            raise StorageError("given up")

        with pytest.raises(StorageError, match="given up"):
            drive.download("files/a/model", tmp_path / "target", moved)

        assert list(tmp_path.iterdir()) == []

    def test_what_is_removed_meanwhile_is_missing(self, server, drive, content, tmp_path):
        (id,) = server.files.ids("runs/x/files/a/model")
        server.fault("files.media", "run", act=lambda: server.files.remove(id))

        with pytest.raises(NotFoundError):
            drive.download("files/a/model", tmp_path / "target")

        assert list(tmp_path.iterdir()) == []

    def test_a_content_of_another_size_is_an_error(self, server, drive, content, tmp_path):
        (id,) = server.files.ids("runs/x/files/a/model")
        server.files.by_id[id].size += 1

        with pytest.raises(StorageError, match=r"3,145,728 bytes in place of 3,145,729|connection"):
            drive.download("files/a/model", tmp_path / "target")

        assert list(tmp_path.iterdir()) == []

    def test_a_server_that_does_not_go_on_is_an_error(self, server, drive, content, tmp_path):
        server.fault("files.media", "cut")
        server.ranges = False

        with pytest.raises(StorageError, match="another part"):
            drive.download("files/a/model", tmp_path / "target")

        assert list(tmp_path.iterdir()) == []


class TestScans:
    def test_goes_on_from_page_to_page(self, server, drive):
        parent = server.files.add("runs/x/manifests")
        for number in range(2_500):
            server.files.add(f"{number:05d}.json", b"", parent=parent)

        found = keys(drive, "manifests/")

        assert found == [f"manifests/{number:05d}.json" for number in range(2_500)]
        assert server.count("files.list") == 3 + 3

    def test_a_search_that_did_not_reach_all_is_an_error(self, server, drive):
        drive.create(KEY, b"a")
        server.files.incomplete = True

        with pytest.raises(StorageError, match="not everything was looked at"):
            keys(drive)

    def test_many_checkpoints_are_looked_into_at_once(self, server, drive):
        for number in range(200):
            server.files.add(f"runs/x/files/{number:03d}/model", b"")
            server.files.add(f"runs/x/files/{number:03d}/training/state.json", b"")

        found = keys(drive, "files/")

        assert found == [
            f"files/{number:03d}/{name}"
            for number in range(200)
            for name in ("model", "training/state.json")
        ]
        assert server.count("files.list") < 25

    def test_after_a_key_only_what_can_follow_is_looked_into(self, server, drive):
        for number in range(100):
            server.files.add(f"runs/x/files/{number:03d}/model", b"")

        found = keys(drive, "files/", after="files/097/model")

        assert found == ["files/098/model", "files/099/model"]
        assert server.count("files.list") < 10

    def test_in_a_folder_shared_by_another_account_nothing_is_missed(self, server):
        for number in range(5):
            server.files.add(f"shared/x/files/{number}/model", b"", user="stranger")
            server.files.add(f"shared/x/files/{number}/other", b"", user="stranger")
        (id,) = server.files.ids("shared/x", user="stranger")

        found = keys(opened(server, f"gdrive://{id}"), "files/")

        assert len(found) == 10

    def test_checkpoints_of_another_account_in_our_folder_are_not_missed(self, server, drive):
        parent = server.files.add("runs/x/files")
        for number in range(5):
            user = "stranger" if number % 2 else "owner"
            folder = server.files.add(str(number), parent=parent, user=user)
            server.files.add("model", b"", parent=folder, user=user)

        assert keys(drive, "files/") == [f"files/{number}/model" for number in range(5)]

    def test_what_another_account_wrote_into_our_folder_is_not_missed(self, server, drive):
        pins = server.files.add("runs/x/pins")
        for name in ("a", "b"):
            folder = server.files.add(name, parent=pins)
            server.files.add("ours", b"", parent=folder)
            server.files.add("theirs", b"", parent=folder, user="stranger")

        assert keys(drive, "pins/") == [
            "pins/a/ours",
            "pins/a/theirs",
            "pins/b/ours",
            "pins/b/theirs",
        ]

    def test_a_folder_that_goes_while_it_is_looked_for_takes_no_other_along(self, server, drive):
        for number in range(5):
            server.files.add(f"runs/x/files/{number}/model", b"")
        (id,) = server.files.ids("runs/x/files/3")
        server.fault("files.list", "run", skip=4, act=lambda: server.files.remove(id))

        assert keys(drive, "files/") == [f"files/{number}/model" for number in (0, 1, 2, 4)]

    def test_what_is_no_file_is_passed_over(self, server, drive):
        drive.create(KEY, b"a")
        folder = server.files.ids("runs/x/manifests")[0]
        app = "application/vnd.google-apps."
        server.files.add("document", parent=folder, mime=app + "document")
        server.files.add("shortcut", parent=folder, mime=app + "shortcut")
        server.files.put_in_trash(server.files.add("trashed", b"", parent=folder))
        server.files.add_named("with/slash", b"", parent=folder)
        server.files.add_named("", b"", parent=folder)

        assert keys(drive) == [KEY]
        with pytest.raises(NotFoundError):
            drive.read("manifests/document")

    def test_tells_when_a_file_was_made(self, server, drive):
        id = server.files.add("runs/x/a", b"")

        (entry,) = drive.scan("")

        assert entry.modified == datetime.fromisoformat(server.files.by_id[id].created)


class TestRemoval:
    def test_is_for_good_and_frees_room(self, server, drive, tmp_path):
        server.files.limit = 10 * MIB
        drive.upload(file(tmp_path / "source", b"x" * 6 * MIB), "files/a/model")

        drive.delete("files/a/model")

        assert drive.free_bytes() == 10 * MIB

    def test_goes_into_the_trash_where_that_is_wanted(self, server, tmp_path):
        server.files.limit = 10 * MIB
        drive = opened(server, trash=True)
        drive.upload(file(tmp_path / "source", b"x" * 6 * MIB), "files/a/model")
        (id,) = server.files.ids("runs/x/files/a/model")

        drive.delete("files/a/model")

        assert keys(drive) == keys(elsewhere(server)) == []
        assert server.files.by_id[id].trashed
        assert drive.free_bytes() == 4 * MIB

    @pytest.mark.parametrize("trash", [False, True])
    def test_takes_a_checkpoint_s_empty_folders_along_and_no_other(self, server, trash):
        drive = opened(server, trash=trash)
        for key in ("files/a/sub/deep/model", "files/b/model", "pins/p/a", "manifests/a.json"):
            drive.create(key, b"")
        drive.create("files/b/other", b"")

        drive.delete("files/a/sub/deep/model", "files/b/model", "pins/p/a", "manifests/a.json")

        there = {name: bool(server.files.ids(f"runs/x/{name}")) for name in FOLDERS_AFTER}
        assert there == FOLDERS_AFTER

    @pytest.mark.parametrize("trash", [False, True])
    def test_is_not_believed_where_drive_says_something_else(self, server, trash):
        drive = opened(server, trash=trash)
        drive.create(KEY, b"a")
        server.fault("files.update" if trash else "files.delete", status=200, reason="internal")

        with pytest.raises(StorageError, match="did not say that this was removed"):
            drive.delete(KEY)

        assert server.calm() == []
        assert keys(drive) == [KEY]
        assert drive.read(KEY) == b"a"

    def test_leaves_a_folder_in_which_something_is_in_the_trash(self, server, drive):
        drive.create("files/a/model", b"")
        id = server.files.add("runs/x/files/a/notes.txt", b"mine")
        server.files.put_in_trash(id)

        drive.delete("files/a/model")

        assert id in server.files.by_id

    def test_leaves_a_folder_whose_file_no_listing_shows_yet(self, server, drive):
        drive.create("files/a/model", b"")
        server.files.lag = 10_000
        drive.create("files/a/other", b"new")

        drive.delete("files/a/model")

        assert drive.read("files/a/other") == b"new"

    def test_many_keys_take_few_looks(self, server, drive):
        for number in range(100):
            server.files.add(f"runs/x/doomed/{number}", b"")

        drive.delete(*(f"doomed/{number}" for number in range(100)))

        assert keys(drive) == []
        assert server.count("files.list") < 10

    def test_takes_what_nobody_heard_of_whether_it_was_made(self, server, drive):
        drive.create("pins/p/other", b"")
        server.files.lag = 10_000
        server.fault("upload.multipart", "lose")
        with pytest.raises(StorageError):
            drive.create("pins/p/a", b"")

        drive.delete("pins/p/a")

        assert server.files.tree("runs/x") == {"pins/p/other": b""}

    def test_a_trainer_without_that_right_saves_and_is_told(self, server):
        server.files.add_drive("Lab")
        drive = opened(server, "gdrive://Shared drives/Lab", role="contributor")
        drive.create(KEY, b"a")

        with pytest.raises(AccessDenied, match=r"insufficientFilePermissions.*manager"):
            drive.delete(KEY)

        assert drive.read(KEY) == b"a"


FOLDERS_AFTER = {
    "files": True,
    "files/a": False,
    "files/b": True,
    "pins/p": True,
    "manifests": True,
}


def refused(status, reason="", text="no", **more):
    return Refusal(status, reason, text, **more)


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "kind", "lasting", "message"),
        [
            (refused(403, "rateLimitExceeded"), StorageError, False, "less often"),
            (refused(403, "userRateLimitExceeded"), StorageError, False, "less often"),
            (refused(403, "sharingRateLimitExceeded"), StorageError, False, "less often"),
            (refused(429, "rateLimitExceeded"), StorageError, False, "less often"),
            (refused(429), StorageError, False, "429"),
            (refused(403, "dailyLimitExceeded"), StorageError, True, "tomorrow"),
            (refused(403, "downloadQuotaExceeded"), StorageError, True, "tomorrow"),
            (refused(403, "storageQuotaExceeded"), StorageFull, False, "empty its trash"),
            (
                refused(403, "storageQuotaExceeded", "Service Accounts do not have …"),
                StorageFull,
                False,
                "shared drive",
            ),
            (refused(403, "teamDriveFileLimitExceeded"), StorageFull, False, "Prune"),
            (refused(403, "numChildrenInNonRootLimitExceeded"), StorageFull, False, "Prune"),
            (refused(403, "insufficientFilePermissions"), AccessDenied, False, "trash=True"),
            (refused(403, "appNotAuthorizedToFile"), AccessDenied, False, r"drive\.file"),
            (refused(403, "insufficientPermissions"), AccessDenied, False, "scope"),
            (refused(403, "accessNotConfigured"), AccessDenied, False, "Enable"),
            (refused(403, "domainPolicy"), AccessDenied, False, "Grant the right"),
            (refused(401, "authError"), AccessDenied, False, "Sign in again"),
            (refused(404, "notFound"), StorageError, True, "sees the folder"),
            (refused(400, "invalid"), StorageError, False, "400 invalid"),
            (refused(500, "internalError"), StorageError, False, "500 internalError"),
            (refused(502), StorageError, False, "502"),
            (refused(302), StorageError, True, "no|another address"),
            (requests.ConnectionError("reset"), StorageError, False, "connection"),
            (requests.exceptions.ChunkedEncodingError("cut"), StorageError, False, "connection"),
            (requests.ReadTimeout("late"), DeadlineExceeded, False, "in time"),
            (google.auth.exceptions.TransportError("away"), StorageError, False, "signing in"),
            (
                google.auth.exceptions.RefreshError("invalid_grant: expired", {"a": "b"}),
                AccessDenied,
                False,
                r"invalid_grant: expired\.",
            ),
            (
                google.auth.exceptions.RefreshError("internal_failure", retryable=True),
                StorageError,
                False,
                "signing in",
            ),
        ],
        ids=repr,
    )
    def test_mean_what_their_reader_can_do(self, error, kind, lasting, message):
        with (
            pytest.raises(StorageError, match=message) as caught,
            storage_errors("read", f"{URL}/{KEY}", {}, react=react),
        ):
            raise error

        assert type(caught.value) is kind
        assert caught.value.lasting == lasting
        assert "What is committed is untouched." in str(caught.value)

    def test_what_is_not_of_drive_is_judged_by_others(self):
        assert react(ValueError("anything")) is None

    def test_how_long_to_wait_is_handed_on(self, server, drive):
        server.fault(
            "files.list", status=429, reason="rateLimitExceeded", headers={"Retry-After": "7"}
        )

        with pytest.raises(StorageError) as caught:
            keys(drive)

        assert caught.value.retry_after == 7.0

    def test_a_page_of_html_is_not_shown(self, server, drive):
        server.fault("files.list", status=502, body=b"<html>Bad Gateway of ours</html>")

        with pytest.raises(StorageError) as caught:
            keys(drive)

        assert "502" in str(caught.value)
        assert "html" not in str(caught.value)

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_nobody_is_sent_elsewhere(self, server, drive, status):
        with DriveServer() as trap:
            server.fault("files.list", status=status, headers={"Location": trap.endpoint})

            with pytest.raises(StorageError, match=str(status)):
                keys(drive)

            assert trap.requests == []

    def test_no_part_is_sent_to_another_host(self, server, drive, tmp_path):
        with DriveServer() as trap:
            drive.create("pins/a", b"")
            server.fault(
                "upload.resumable", status=200, headers={"Location": f"{trap.endpoint}/upload"}
            )

            with pytest.raises(StorageError, match="another host"):
                drive.upload(file(tmp_path / "source", b"x" * 6 * MIB), "files/a/model")

            assert trap.requests == []

    def test_a_scope_that_only_reads_is_named(self, server):
        with pytest.raises(AccessDenied, match=r"insufficientPermissions.*drive\.file"):
            opened(server, role="reader").create(KEY, b"a")


class TestSigningIn:
    def test_a_token_that_expired_is_renewed_and_the_call_made_again(self, server, drive, tmp_path):
        content = secrets.token_bytes(20 * MIB)
        server.fault("session.put", "run", act=server.expire, skip=1)

        drive.upload(file(tmp_path / "source", content), "files/a/model")

        assert server.behind("runs/x/files/a/model") == content
        assert server.count("token") == 1

    def test_a_sign_in_that_was_taken_back_is_said_at_once(self, server):
        drive = patient(server)
        drive.create(KEY, b"a")
        server.expire()
        server.revoked = True

        with pytest.raises(AccessDenied, match=r"(?s)invalid_grant.*Sign in again.*7 days"):
            drive.read(KEY)

        assert server.count("token") == 1

    def test_no_secret_is_shown(self, server, tmp_path, caplog):
        caplog.set_level(logging.DEBUG)
        drive = opened(server)
        token = drive._client._credentials.token
        shown = [repr(drive)]
        file(tmp_path / "source", b"content")
        file(tmp_path / "large", b"x" * 6 * MIB)
        faults = [{"status": 401}, {"status": 403}, {"status": 503}, {"kind": "reset"}]
        for verb, fault in itertools.product(VERBS.values(), faults):
            server.fault("", **{"times": 100, **fault})
            with pytest.raises(StorageError) as caught:
                verb(drive, tmp_path)
            shown.append("".join(traceback.format_exception(caught.value)))
            shown.append(repr(pickle.loads(pickle.dumps(caught.value))))
            server.calm()
        text = "\n".join(shown) + caplog.text

        assert "ya29." not in text
        assert not [
            secret for secret in (token, "client-secret", "refresh-owner") if secret in text
        ]
        assert "upload_id=" not in "\n".join(shown)

    def test_a_backend_is_not_pickled_with_its_credentials(self, drive):
        with pytest.raises(TypeError, match="credentials"):
            pickle.dumps(drive)


def in_child(drive, pipe):
    try:
        drive.create("manifests/child.json", b"child")
        pipe.send(keys(drive))
    except BaseException as error:
        pipe.send(repr(error))
        raise


class TestProcessesAndThreads:
    def test_a_forked_child_has_connections_and_ids_of_its_own(self, server, drive):
        drive.create("manifests/parent.json", b"parent")
        ids = {*drive._client._ids.get()}
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=in_child, args=(drive, there))

        process.start()
        answered = here.recv() if here.poll(60) else None
        process.join(60)
        drive.create("manifests/after.json", b"after")

        assert answered == ["manifests/child.json", "manifests/parent.json"]
        assert server.files.ids("runs/x/manifests/child.json")[0] not in ids
        assert keys(drive) == [
            "manifests/after.json",
            "manifests/child.json",
            "manifests/parent.json",
        ]

    def test_connections_are_used_again(self, server, drive):
        for number in range(10):
            drive.create(f"manifests/{number}.json", b"")

        assert server.connections == 1

    def test_folders_that_many_threads_need_at_once_are_made_once(self, server, drive):
        with ThreadPoolExecutor(16) as pool:
            futures = [pool.submit(drive.create, f"a/b/{number}", b"") for number in range(16)]
            for future in futures:
                future.result(60)

        assert [len(server.files.ids(path)) for path in ("runs", "runs/x/a", "runs/x/a/b")] == [
            1
        ] * 3


class TestStore:
    @pytest.mark.parametrize("lag", [0, 20])
    def test_saves_prunes_and_restores(self, server, tmp_path, lag):
        server.files.lag = lag
        store = open_store(
            URL,
            retention=KeepLast(2),
            storage_options=server.storage_options(),
            workspace=tmp_path / "workspace",
        )
        for step in range(1, 6):
            content = hashlib.sha256(b"%d" % step).digest()
            store.save(file(tmp_path / "model.bin", content), step=step)

        assert [checkpoint.step for checkpoint in store] == [4, 5]
        found = store.download(to=tmp_path / "out")
        assert (Path(found) / "model.bin").read_bytes() == hashlib.sha256(b"5").digest()
        assert len(server.files.tree("runs/x")) == 4

    def test_takes_few_requests(self, server, tmp_path):
        options = server.storage_options()
        store = open_store(URL, storage_options=options, workspace=tmp_path / "workspace")
        for step in range(2):
            server.requests.clear()
            store.save(file(tmp_path / "model.bin", b"model"), step=step)
        saved = len(server.requests)
        server.requests.clear()
        open_store(URL, storage_options=options, workspace=tmp_path / "other").latest()
        looked = len(server.requests)
        parent = server.files.ids("runs/x/manifests")[0]
        for number in range(2_500):
            server.files.add(f"0000-{number:012d}-0badc0de.json", b"", parent=parent)
        server.requests.clear()
        open_store(URL, storage_options=options, workspace=tmp_path / "third").latest()

        assert saved <= 16
        assert looked <= 6
        assert len(server.requests) <= looked + 2
