"""`holdfast doctor` says what a place can do, and what is missing by its name."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import (
    AccessDenied,
    CheckpointStore,
    DeadlineExceeded,
    StorageError,
    StorageFull,
    layout,
    record,
)
from holdfast.backends.base import Traits
from holdfast.testing import Fault, FaultBackend, MemoryBackend
from holdfast.writer import Writer

CHECKS = [
    "open",
    "list",
    "write",
    "read",
    "put-if-absent",
    "race",
    "listing",
    "transfer",
    "delete",
    "space",
    "drafts",
    "deadline",
    "marks",
]


class Medium(MemoryBackend):
    """A place that can be made to behave in every bad way."""

    ignores = False
    free = None
    bytes_flip = False

    def free_bytes(self):
        return self.free

    def create(self, key, data):
        if self.ignores:
            self.objects.pop(key, None)
        super().create(key, data)

    def download(self, key, target, moved=lambda _: None):
        super().download(key, target, moved)
        if self.bytes_flip:
            data = bytearray(target.read_bytes())
            data[len(data) // 2] ^= 1
            target.write_bytes(data)


@pytest.fixture
def medium():
    return Medium()


@pytest.fixture
def examine(run, medium, monkeypatch, tmp_path):
    """Runs the command on the medium, with failures on purpose; gives its JSON and exit code."""

    def examine(*plan, arguments=(), hidden=0, opened=None):
        backends = opened or [FaultBackend(medium, plan, hidden=hidden) for _ in range(2)]
        medium.backends = list(backends)
        monkeypatch.setattr("holdfast.cli.place.open_backend", lambda *_: backends.pop(0))
        monkeypatch.setattr("holdfast.cli.examination.time.sleep", lambda _: None)
        workspace = ("--workspace", tmp_path / "workspace")
        done = run("doctor", "memory://any", "--json", *workspace, *arguments)
        document = json.loads(done.stdout)
        document["found"] = {each["check"]: each for each in document["findings"]}
        document["code"] = done.exit_code
        return document

    return examine


@pytest.fixture
def saved(medium, file, tmp_path):
    """A checkpoint that lies there."""
    store = CheckpointStore(medium, workspace=tmp_path / "workspace", writer=Writer())
    return store.save(file, step=1)


def outcomes(document):
    return {name: each["outcome"] for name, each in document["found"].items()}


def test_a_place_in_order_is_said_to_be_so_and_left_as_it_was(examine, medium):
    document = examine()

    assert [each["check"] for each in document["findings"]] == CHECKS
    assert outcomes(document) == {**dict.fromkeys(CHECKS, "ok"), "deadline": "note"}
    assert (document["code"], document["ok"], document["left"]) == (0, True, [])
    assert medium.objects == {}


def test_people_read_a_table_and_a_verdict(run, root):
    done = run("doctor", root)

    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["CHECK", "FOUND"]
    assert [line.split()[:2] for line in lines[1:3]] == [["ok", "open"], ["ok", "list"]]
    assert done.stderr == "Saves are safe here.\n"


def test_a_directory_is_left_without_objects(run, root):
    run("doctor", root)

    assert [path for path in root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("verb", "check", "error", "code"),
    [
        ("scan", "list", AccessDenied, 7),
        ("create", "write", AccessDenied, 7),
        ("create", "write", StorageFull, 8),
        ("read", "read", AccessDenied, 7),
        ("upload", "transfer", AccessDenied, 7),
        ("download", "transfer", AccessDenied, 7),
    ],
)
def test_a_missing_right_is_named_and_nothing_is_safe(examine, verb, check, error, code):
    document = examine(Fault(1, verb=verb, error=error, lasting=True))

    assert outcomes(document)[check] == "no"
    assert verb in document["found"][check]["text"]
    assert (document["code"], document["ok"]) == (code, False)


def test_one_missing_right_does_not_hide_another(examine, saved):
    denied = [Fault(1, verb=verb, error=AccessDenied, lasting=True) for verb in ("create", "read")]

    document = examine(*denied)

    assert (outcomes(document)["write"], outcomes(document)["read"]) == ("no", "no")
    assert document["left"] == []


@pytest.mark.parametrize("error", [StorageError, DeadlineExceeded])
def test_a_place_that_cannot_be_reached_is_not_asked_thirteen_times(examine, medium, error):
    document = examine(Fault(1, verb="scan", error=error, lasting=True))

    assert list(outcomes(document)) == ["open", "list"]
    assert [call.verb for call in medium.backends[0].calls] == ["scan"]
    assert document["code"] == (9 if error is DeadlineExceeded else 6)


def test_without_the_right_to_delete_saves_are_safe_and_what_is_left_is_named(examine, medium):
    document = examine(Fault(1, verb="delete", error=AccessDenied, lasting=True))

    assert outcomes(document)["delete"] == "note"
    assert "pruning does not" in document["found"]["delete"]["text"]
    assert document["code"] == 0
    assert sorted(document["left"]) == sorted(medium.objects)
    assert all(layout.is_left_by_probe(key) for key in medium.objects)


def test_a_place_that_ignores_put_if_absent_is_found_out(examine, medium):
    medium.ignores = True

    document = examine()

    assert (outcomes(document)["put-if-absent"], outcomes(document)["race"]) == ("no", "no")
    assert "16" in document["found"]["race"]["text"]
    assert document["code"] == 0


def test_a_race_is_judged_by_its_winners(examine, medium, monkeypatch):
    class Looking(FaultBackend):
        def create(self, key, data):
            if key in medium.objects and "race" not in key:
                super().create(key, data)
            medium.objects[key] = (data, datetime.now(UTC))

    document = examine(opened=[Looking(medium), Looking(medium)])

    assert (outcomes(document)["put-if-absent"], outcomes(document)["race"]) == ("ok", "no")


def test_where_no_more_threads_are_to_be_had_no_race_is_tried_and_nothing_hangs(
    examine, medium, monkeypatch
):
    def start(thread):
        if thread.name.startswith("ThreadPoolExecutor") and thread.name.endswith("_5"):
            raise RuntimeError("can't start new thread")
        started(thread)

    started = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)

    document = examine()

    assert outcomes(document)["race"] == "note"
    assert "may not start 16 threads" in document["found"]["race"]["text"]
    assert document["code"] == 0


def test_bytes_that_were_changed_on_the_way_are_noticed(examine, medium):
    medium.bytes_flip = True

    document = examine()

    assert outcomes(document)["transfer"] == "no"
    assert (document["code"], document["ok"]) == (4, False)


def test_a_listing_that_never_catches_up_is_told(examine, monkeypatch):
    monkeypatch.setattr("holdfast.cli.examination._PATIENCE_S", 0.0)

    class Blind(FaultBackend):
        def scan(self, prefix, after=""):
            return iter([])

    medium = Medium()
    document = examine(opened=[FaultBackend(medium), Blind(medium)])

    assert outcomes(document)["listing"] == "no"
    assert document["code"] == 0


def test_a_listing_that_catches_up_is_waited_for(examine):
    medium = Medium()

    class Late(FaultBackend):
        looks = 0

        def scan(self, prefix, after=""):
            self.looks += 1
            return super().scan(prefix, after) if self.looks > 3 else iter([])

    document = examine(opened=[FaultBackend(medium), Late(medium)])

    assert outcomes(document)["listing"] == "ok"


@pytest.mark.parametrize(("skew", "text"), [(120, "120 s ahead"), (-3600, "3600 s behind")])
def test_a_clock_that_is_wrong_is_told(examine, medium, skew, text):
    medium._clock = lambda: datetime.now(UTC) + timedelta(seconds=skew + 0.3)

    document = examine()

    assert outcomes(document)["listing"] == "note"
    assert text in document["found"]["listing"]["text"]


@pytest.mark.parametrize(
    ("free", "outcome", "code"), [(6, "no", 8), (13, "note", 0), (14, "ok", 0)]
)
def test_room_is_measured_by_the_newest_checkpoint(examine, medium, saved, free, outcome, code):
    medium.free = free

    document = examine()

    assert (outcomes(document)["space"], document["code"]) == (outcome, code)


def test_what_a_place_cannot_promise_is_said_in_sentences(examine, medium):
    medium.traits = Traits(exclusive=False, fresh=False, durable=False)

    document = examine()

    promises = [each["text"] for each in document["findings"] if each["check"] == "promises"]
    assert len(promises) == 3
    assert document["code"] == 0


def test_a_verdict_says_what_saves_depend_on(run, medium, monkeypatch, tmp_path):
    medium.ignores = True
    monkeypatch.setattr("holdfast.cli.place.open_backend", lambda *_: medium)

    done = run("doctor", "memory://any", "--workspace", tmp_path / "workspace")

    assert "Saves are safe here while one process at a time saves and prunes." in done.stderr


def test_to_read_only_writes_nothing(examine, medium, saved, tmp_path):
    before = dict(medium.objects)

    document = examine(arguments=["--read-only"])

    assert list(outcomes(document)) == [
        "open",
        "list",
        "read",
        "space",
        "drafts",
        "deadline",
        "marks",
    ]
    assert str(saved.id) in document["found"]["read"]["text"]
    assert medium.objects == before
    assert {call.verb for call in medium.backends[0].calls} == {"scan", "read"}


def test_to_read_only_makes_no_directory(run, root):
    done = run("doctor", root, "--read-only")

    assert done.exit_code == 0
    assert "was not tried" in done.stderr
    assert not root.exists()


def test_a_store_of_a_newer_format_is_told(examine, medium, saved):
    key = layout.manifest_key(saved.id)
    medium.objects[key] = (record.encode({"format": 2, "kind": "new"}), datetime.now(UTC))

    document = examine()

    assert outcomes(document)["space"] == "no"
    assert document["code"] == 5


def test_drafts_that_wait_are_counted_and_left_alone(examine, medium, file, tmp_path):
    failing = FaultBackend(medium, [Fault(1, verb="upload")])
    store = CheckpointStore(failing, workspace=tmp_path / "workspace", writer=Writer())
    with pytest.raises(StorageError):
        store.save(file, step=1)

    document = examine()

    assert outcomes(document)["drafts"] == "note"
    assert document["found"]["drafts"]["text"].startswith("1 draft in")
    assert [each.step for each in store.recover()] == [1]
    assert store.workspace.sealed() == 0


@pytest.fixture
def marked(medium, saved):
    """The marks of a prune that died, on a checkpoint that is there and on one that is not."""
    there = layout.doomed_key(saved.id, "0badc0de")
    gone = layout.doomed_key(type(saved.id)(9, 9, "0badc0de"), "0badc0de")
    for key in (there, gone):
        medium.create(key, b"")
    return there, gone


def test_marks_that_a_prune_left_are_shown(examine, medium, saved, marked):
    document = examine()

    assert outcomes(document)["marks"] == "note"
    assert document["marks"] == [str(saved.id)]
    assert {*marked} <= {*medium.objects}
    assert document["code"] == 0


def test_marks_are_cleared_on_request_where_the_checkpoint_is_there(
    examine, medium, saved, marked, tmp_path
):
    document = examine(arguments=["--clear-marks"])

    assert (document["marks"], document["cleared"]) == ([str(saved.id)], True)
    assert {*marked} & {*medium.objects} == {marked[1]}
    CheckpointStore(medium, workspace=tmp_path / "w").pin(saved, "paper")


def test_clearing_and_reading_only_exclude_each_other(run, root):
    done = run("doctor", root, "--read-only", "--clear-marks")

    assert done.exit_code == 2
    assert not root.exists()
