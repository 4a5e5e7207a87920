"""
Whatever is damaged at rest or on the way is noticed, named, passed over, and never handed out.

Each run of the tests plays some cases, others each day; `make torture` plays tens of thousands.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest

from holdfast import fetching, manifest, publishing, record, staging
from holdfast.catalog import Catalog
from holdfast.fetching import CheckpointContents
from tests.damage import damaged
from tests.share import LONG, SEED

FLIPS, REARRANGEMENTS = (4_000, 3_200) if LONG else (60, 80)
#: So many cases have each way in each kind some ten times.
ENOUGH = 160


def test_every_flipped_bit_is_noticed() -> None:
    assert not list(filter(None, damaged.flips(SEED, FLIPS)))


def test_what_is_truncated_extended_swapped_or_replayed_is_noticed() -> None:
    assert not list(filter(None, damaged.rearrangements(SEED, REARRANGEMENTS)))


def test_a_case_can_be_played_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    no_hash_on_restore(monkeypatch)
    told = next(filter(None, damaged.flips(SEED, ENOUGH)))
    number = int(told.partition(", case ")[2].partition(":")[0])

    again = damaged.play(SEED, number, flipping=True)

    assert again.split(": ")[:2] == told.split(": ")[:2]


def no_hash_on_restore(patch: pytest.MonkeyPatch) -> None:
    def read(self, file, read) -> None:
        with self._open(file) as opened, contextlib.suppress(EOFError):
            read(opened)

    patch.setattr(CheckpointContents, "_read", read)


def only_the_size_compared(patch: pytest.MonkeyPatch) -> None:
    def read(self, file, read) -> None:
        with self._open(file) as opened:
            if opened.seek(0, 2) != file.size:
                raise fetching._corrupt(self._checkpoint, file.path, "its size")
            opened.seek(0)
            read(opened)

    patch.setattr(CheckpointContents, "_read", read)


def deep_is_as_quick(patch: pytest.MonkeyPatch) -> None:
    verify = fetching._verify
    patch.setattr(fetching, "_verify", lambda *given, **more: verify(*given[:3], workspace=None))


def no_digest_of_a_record(patch: pytest.MonkeyPatch) -> None:
    def decode(data) -> dict[str, object]:
        return record.parse(data.partition(b',\n  "digest"')[0] + b"\n}", "the record")

    patch.setattr(record, "decode", decode)


def any_manifest_at_any_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        manifest,
        "read",
        lambda data, expected: replace(manifest.read_staged(data, "checkpoint"), id=expected),
    )


def no_older_one_is_taken(patch: pytest.MonkeyPatch) -> None:
    newest_first = Catalog.newest_first
    patch.setattr(Catalog, "newest_first", lambda self: islice(newest_first(self), 1))


def damage_on_the_way_is_final(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fetching, "_TRIES", 1)
    patch.setattr(fetching, "_TRIES_IN_PLACE", 1)


def a_draft_is_published_unseen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(publishing, "_check_draft", lambda *_: None)


def a_damaged_draft_is_removed(patch: pytest.MonkeyPatch) -> None:
    reopened = staging._reopened

    def discard_others(scratch) -> Iterator[object]:
        found = list(reopened(scratch))
        if not found:
            scratch.discard()
        yield from found

    patch.setattr(staging, "_reopened", discard_others)


def a_seal_is_not_compared_with_the_manifest(patch: pytest.MonkeyPatch) -> None:
    def write(checkpoint, kind="checkpoint") -> bytes:
        return manifest.write(checkpoint, kind) if kind == "draft" else b""

    loose = SimpleNamespace(**{**vars(manifest), "write": write})
    patch.setattr(staging, "manifest", loose)


Plays = Callable[[int, int], Iterator[str]]


@pytest.mark.parametrize(
    ("fault", "plays"),
    [
        (no_hash_on_restore, damaged.flips),
        (only_the_size_compared, damaged.flips),
        (deep_is_as_quick, damaged.flips),
        (no_digest_of_a_record, damaged.flips),
        (any_manifest_at_any_key, damaged.rearrangements),
        (no_older_one_is_taken, damaged.flips),
        (damage_on_the_way_is_final, damaged.flips),
        (a_draft_is_published_unseen, damaged.rearrangements),
        (a_damaged_draft_is_removed, damaged.flips),
        (a_seal_is_not_compared_with_the_manifest, damaged.rearrangements),
    ],
    ids=lambda value: value.__name__,
)
def test_code_broken_on_purpose_is_caught(
    fault: Callable[[pytest.MonkeyPatch], None], plays: Plays, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)

    assert any(plays(SEED, ENOUGH))
