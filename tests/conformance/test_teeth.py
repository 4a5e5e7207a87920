"""The suites have teeth: with the code broken on purpose, some fault shows it."""

import base64
import contextlib
import hashlib
import shutil

import pytest

from holdfast.backends import retrying
from holdfast.backends.local import LocalBackend
from holdfast.backends.s3 import S3Backend
from holdfast.backends.s3.upload import Upload
from holdfast.errors import AlreadyExists, NotFoundError, StorageError
from tests.conformance import faults, troubles
from tests.conformance.processes import Victim
from tests.store import test_teeth as mutants


def an_upload_that_is_not_confirmed(patch):
    async def confirm(self, answer):
        pass

    patch.setattr(Upload, "_confirm", confirm)


def a_manifest_that_is_not_confirmed(patch):
    def create(self, key, data):
        told = base64.b64encode(hashlib.md5(data).digest()).decode()
        with self._errors("create", key):
            self._ask("put_object", key, Body=data, ContentMD5=told, IfNoneMatch="*")

    patch.setattr(S3Backend, "create", create)


def a_failed_scan_is_empty(patch):
    scan = S3Backend.scan

    def hopeful(self, prefix, after=""):
        with contextlib.suppress(StorageError):
            yield from scan(self, prefix, after)

    patch.setattr(S3Backend, "scan", hopeful)


def a_missing_bucket_is_empty(patch):
    scan = S3Backend.scan

    def hopeful(self, prefix, after=""):
        try:
            yield from scan(self, prefix, after)
        except StorageError as error:
            if "NoSuchBucket" not in repr(error.__cause__):
                raise

    patch.setattr(S3Backend, "scan", hopeful)


def a_deadline_only_between_tries(patch):
    def within(self, action, call):
        return self._repeat(call, self._clock() + retrying._DEADLINE_S)

    patch.setattr(retrying.RetryingBackend, "_within_deadline", within)


def a_failure_is_not_tried_again(patch):
    patch.setattr(retrying, "_TRIES", 1)


def a_failure_is_tried_too_often(patch):
    patch.setattr(retrying, "_TRIES", 20)


def the_server_is_not_listened_to(patch):
    deaf = property(lambda self: None, lambda self, seconds: None)
    patch.setattr(StorageError, "retry_after", deaf, raising=False)


def exists_then_write(patch):
    def create(self, key, data):
        target = self._place(key)
        if target.exists():
            raise AlreadyExists(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    patch.setattr(LocalBackend, "create", create)


def the_condition_is_left_out(patch):
    def create(self, key, data):
        with contextlib.suppress(NotFoundError):
            self.read(key)
            raise AlreadyExists(key)
        with self._errors("create", key):
            self._ask("put_object", key, Body=data)

    patch.setattr(S3Backend, "create", create)


#: What is broken, and the fault of which operation has to show it.
TABLE = [
    (mutants.a_lost_reply_is_a_failure, "resume and save", "reply lost"),
    (mutants.a_lost_reply_is_tried_under_a_new_id, "resume and save", "reply lost"),
    (mutants.commit_before_upload, "resume and save", "refused for good"),
    (mutants.acknowledged_before_the_commit, "resume and save", "refused"),
    (mutants.recovered_twice, "recover", "reply lost"),
    (mutants.files_deleted_before_the_manifest, "prune", "503 for good"),
    (mutants.no_hash_on_restore, "restore", "flipped on the way back"),
    (an_upload_that_is_not_confirmed, "resume and save", "flipped on the way there"),
    (a_manifest_that_is_not_confirmed, "resume and save", "flipped on the way there"),
    (a_failed_scan_is_empty, "latest", "503 for good"),
    (a_missing_bucket_is_empty, "latest", "no such bucket for good"),
    (mutants.exists_is_success_whatever_lies_there, "resume and save", "flipped on the way there"),
    (a_failure_is_not_tried_again, "latest", "503 with Retry-After"),
    (a_failure_is_tried_too_often, "latest", "503 for good"),
    (the_server_is_not_listened_to, "latest", "503 with Retry-After"),
]


@pytest.fixture
def play(place, lines, home):
    """Makes a play, which goes at the end."""

    def make(operation, **more):
        scene = next(each for each in faults.operations() if each.name == operation)
        return faults.Play(scene, place, lines(place.name), home / "teeth", **more)

    yield make
    shutil.rmtree(home / "teeth", ignore_errors=True)


def strike_everywhere(play, trouble):
    """Let a fault strike each request in turn, until something is broken."""
    wanted = next(each for each in troubles.TROUBLES if each.name == trouble)
    at = 1
    while play.strike(wanted, at):
        at += 1


@pytest.mark.parametrize("place", ["moto"], indirect=True)
@pytest.mark.parametrize(
    ("mutant", "operation", "trouble"), TABLE, ids=[mutant.__name__ for mutant, *_ in TABLE]
)
def test_code_broken_on_purpose_is_caught_by_a_fault(
    mutant, operation, trouble, place, play, monkeypatch
) -> None:
    played = play(operation)
    mutant(monkeypatch)

    with pytest.raises(AssertionError) as caught:
        strike_everywhere(played, trouble)

    # A mutant that is itself in error would be caught by anything.
    wrong = ("TypeError", "AttributeError", "NameError", "KeyError")
    assert not [each for each in wrong if each in str(caught.value)]


@pytest.mark.parametrize("place", ["moto"], indirect=True)
def test_a_call_that_hangs_for_ever_is_caught(place, play, monkeypatch) -> None:
    played = play("latest", patience=2.0)
    a_deadline_only_between_tries(monkeypatch)

    with pytest.raises(AssertionError, match="never over"):
        strike_everywhere(played, "hangs for good")


@pytest.fixture
def victim(place, proxy, home):
    """Makes a victim, which goes at the end."""

    def make(operation, mutant=None):
        scene = next(each for each in faults.operations() if each.name == operation)
        return Victim(scene, place, proxy, home / "victim", mutant)

    yield make
    shutil.rmtree(home / "victim")


@pytest.mark.parametrize("place", ["gcs"], indirect=True)
@pytest.mark.parametrize(
    ("mutant", "operation"),
    [
        (mutants.commit_before_upload, "resume and save"),
        (mutants.files_deleted_before_the_manifest, "prune"),
    ],
)
def test_code_broken_on_purpose_is_caught_by_a_kill(mutant, operation, place, victim) -> None:
    broken = victim(operation, mutant)

    def kill_everywhere() -> None:
        for at in reversed(range(1, broken.requests() + 1)):
            broken.kill("after", at)

    with pytest.raises(AssertionError, match=r"model\.bin|state\.json|missing"):
        kill_everywhere()


@pytest.mark.parametrize("place", ["gcs"], indirect=True)
def test_a_child_that_makes_fewer_requests_is_killed_at_its_last(place, victim) -> None:
    unhurt = victim("prune")
    count = unhurt.requests()

    assert unhurt.kill("after", count + 1)
    assert len(unhurt.proxy.requests) == count
