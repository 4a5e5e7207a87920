"""The backend that fails on purpose: when it does, what has happened, and what it records."""

import contextlib
from functools import partial

import pytest

from holdfast.errors import AccessDenied, NotFoundError, StorageError
from holdfast.testing.faults import Call, Died, Fault, FaultBackend
from holdfast.testing.memory import MemoryBackend


@pytest.fixture
def inner():
    return MemoryBackend()


def test_without_a_plan_nothing_fails_and_every_call_is_recorded(inner, tmp_path):
    faults = FaultBackend(inner)
    (tmp_path / "source").write_bytes(b"source")

    faults.create("a", b"a")
    faults.read("a")
    faults.upload(tmp_path / "source", "b")
    faults.download("b", tmp_path / "target")
    found = [entry.key for entry in faults.scan("", "a")]
    faults.delete("a")

    verbs = ["create", "read", "upload", "download", "scan", "delete"]
    assert faults.calls == [*map(Call, verbs, ["a", "a", "b", "b", "", "a"])]
    assert (found, faults.url) == (["b"], inner.url)


def test_a_fault_before_a_call_keeps_it_from_taking_effect(inner):
    faults = FaultBackend(inner, [Fault(2)])
    faults.create("a", b"a")

    with pytest.raises(StorageError, match=r"create b.*at call 2"):
        faults.create("b", b"b")

    assert [*inner.objects] == ["a"]


def test_a_fault_after_a_call_loses_only_the_reply(inner):
    faults = FaultBackend(inner, [Fault(1, "after")])

    with pytest.raises(StorageError):
        faults.create("a", b"a")

    assert inner.read("a") == b"a"


def test_a_fault_strikes_once(inner):
    faults = FaultBackend(inner, [Fault(1)])
    with pytest.raises(StorageError):
        faults.create("a", b"a")

    faults.create("a", b"a")

    assert len(faults.calls) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_lasting_fault_nothing_takes_effect(inner, when):
    faults = FaultBackend(inner, [Fault(2, when, error=Died, lasting=True)])
    faults.create("a", b"")

    for key in ("b", "c", "d"):
        with pytest.raises(Died):
            faults.create(key, b"")

    assert [*inner.objects] == ["a"] + ["b"] * (when == "after")


def test_a_fault_may_count_the_calls_of_one_verb(inner):
    faults = FaultBackend(inner, [Fault(2, verb="read", error=AccessDenied)])
    faults.create("a", b"a")
    faults.read("a")
    faults.create("b", b"b")

    with pytest.raises(AccessDenied):
        faults.read("b")

    assert [call.verb for call in faults.calls] == ["create", "read", "create", "read"]


def test_death_is_no_error_that_anybody_handles(inner):
    faults = FaultBackend(inner, [Fault(1, error=Died)])

    def handled():
        with contextlib.suppress(Exception):
            faults.read("a")

    with pytest.raises(Died):
        handled()


def test_an_error_may_carry_what_the_test_wants(inner):
    faults = FaultBackend(inner, [Fault(1, error=partial(StorageError, errno=5))])

    with pytest.raises(StorageError) as caught:
        faults.read("a")

    assert caught.value.errno == 5


def test_a_scan_that_fails_afterwards_has_given_its_entries(inner):
    inner.create("a", b"")
    scan = FaultBackend(inner, [Fault(1, "after")]).scan("")

    assert next(scan).key == "a"
    with pytest.raises(StorageError):
        next(scan)


def test_a_scan_is_counted_when_it_is_asked_for(inner):
    faults = FaultBackend(inner, [Fault(1)])

    with pytest.raises(StorageError):
        faults.scan("manifests/")

    assert faults.calls == [Call("scan", "manifests/")]


def test_a_lagging_listing_does_not_show_what_came_last(inner, tmp_path):
    (tmp_path / "source").write_bytes(b"")
    faults = FaultBackend(inner, hidden=2)
    for key in ("a", "b"):
        faults.create(key, b"")
    faults.upload(tmp_path / "source", "c")

    assert [entry.key for entry in faults.scan("")] == ["a"]
    assert faults.read("c") == b""


def test_what_the_inner_backend_raises_passes(inner):
    with pytest.raises(NotFoundError):
        FaultBackend(inner).read("missing")
