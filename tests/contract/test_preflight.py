"""Real servers are asked whether they can take a save, and what is missing is named."""

import contextlib
import itertools
import json

import pytest
from click.testing import CliRunner

from holdfast import AccessDenied, CheckpointWarning, StorageError, StorageFull, open_store
from holdfast.cli import main
from tests.servers.drive import DriveServer
from tests.servers.gcs import GcsServer
from tests.servers.s3 import MotoServer, RcloneServer
from tests.servers.sftp import SftpServer

_numbers = itertools.count()


@pytest.fixture(scope="module")
def servers():
    with contextlib.ExitStack() as stack:
        made = {}

        def server(kind):
            if kind not in made:
                made[kind] = stack.enter_context(kind())
            return made[kind]

        yield server


@pytest.fixture
def opened(servers, tmp_path):
    """Opens a new place on a server as a role, with or without a right."""
    number = next(_numbers)

    def opened(kind, *role, **given):
        server = servers(kind)
        urls = {
            MotoServer: lambda: server.url(f"runs/{number}"),
            RcloneServer: lambda: server.url(f"runs/{number}"),
            GcsServer: lambda: f"gs://{server.bucket}/runs/{number}",
            DriveServer: lambda: f"gdrive://My Drive/runs/{number}",
            SftpServer: lambda: f"{server.url}/runs/{number}",
        }
        return open_store(
            urls[kind](),
            storage_options=server.storage_options(*role),
            workspace=tmp_path / "workspace",
            **given,
        )

    return opened


@pytest.mark.parametrize("kind", [MotoServer, GcsServer])
def test_a_trainer_without_the_right_to_delete_may_begin_again_and_again(opened, kind):
    for _ in range(3):
        assert opened(kind, "trainer", preflight=True).preflight().remarks == ()


@pytest.mark.parametrize(
    ("kind", "role", "right"),
    [
        (MotoServer, "reader", "s3:PutObject"),
        (MotoServer, "blind", "s3:ListBucket"),
        (MotoServer, "nobody", "s3:ListBucket"),
        (MotoServer, "expired", "ExpiredToken"),
        (MotoServer, "stranger", "credentials"),
        (GcsServer, "reader", "storage.objects.create"),
        (GcsServer, "nobody", "storage.objects.list"),
        (GcsServer, "unknown", "credentials"),
        (SftpServer, "reader", "Permission denied"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_the_missing_right_is_named(opened, kind, role, right, again):
    if again:
        opened(kind).preflight()

    with pytest.raises(AccessDenied, match=right):
        opened(kind, role, preflight=True)


def test_a_server_that_takes_no_notice_of_put_if_absent_is_told(opened):
    for _ in range(2):
        with contextlib.suppress(CheckpointWarning):  # told once in a process
            remarks = opened(RcloneServer).preflight().remarks
            assert any("put-if-absent is ignored" in remark for remark in remarks)


def test_the_first_warning_of_such_a_server_says_what_to_do(opened):
    with pytest.warns(CheckpointWarning, match="Let one process save at a time"):
        opened(RcloneServer).preflight()


def test_a_drive_without_room_is_full(opened, servers):
    server = servers(DriveServer)
    store = opened(DriveServer)
    limit, server.files.limit = server.files.limit, 0
    try:
        with pytest.raises(StorageFull):
            store.preflight()
    finally:
        server.files.limit = limit


def test_a_drive_is_told_to_have_one_writer(opened):
    with pytest.warns(CheckpointWarning, match="Let one process save"):
        opened(DriveServer).preflight()


@pytest.mark.parametrize("kind", [MotoServer, GcsServer])
def test_a_bucket_that_does_not_exist_is_told(servers, kind, tmp_path):
    server = servers(kind)
    scheme = "s3" if kind is MotoServer else "gs"

    with pytest.raises(StorageError, match="holdfast-missing") as caught:
        open_store(
            f"{scheme}://holdfast-missing/run",
            storage_options=server.storage_options(),
            workspace=tmp_path / "workspace",
            preflight=True,
        )

    assert caught.value.lasting


@pytest.mark.parametrize("kind", [MotoServer, GcsServer])
def test_it_costs_four_requests(opened, servers, kind):
    before = len(servers(kind).requests)

    opened(kind, "trainer").preflight()

    assert len(servers(kind).requests) - before <= 4


@pytest.mark.parametrize(
    ("kind", "role", "code", "notes"),
    [
        (MotoServer, ["owner"], 0, {}),
        (MotoServer, ["trainer"], 0, {"delete": "note"}),
        (MotoServer, ["reader"], 7, {"write": "no"}),
        (RcloneServer, [], 0, {"put-if-absent": "no", "race": "no"}),
        (GcsServer, ["owner"], 0, {}),
        (GcsServer, ["trainer"], 0, {"delete": "note"}),
        (GcsServer, ["reader"], 7, {"write": "no"}),
        (SftpServer, ["owner"], 0, {}),
        (SftpServer, ["reader"], 7, {"write": "no"}),
    ],
)
def test_the_doctor_says_what_a_server_can_do(opened, servers, kind, role, code, notes, tmp_path):
    options = servers(kind).storage_options(*role)
    given = [f"--option={name}={json.dumps(value)}" for name, value in options.items()]
    place = opened(kind).url

    done = CliRunner().invoke(
        main, ["doctor", place, "--json", f"--workspace={tmp_path / 'workspace'}", *given]
    )

    document = json.loads(done.stdout)
    found = {each["check"]: each["outcome"] for each in document["findings"]}
    odd = {name: outcome for name, outcome in found.items() if outcome != "ok"}
    assert done.exit_code == code, done.stdout
    assert {name: odd.get(name) for name in notes} == notes
    if not notes:
        assert odd == {}
