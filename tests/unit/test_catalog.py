"""What is known of a store: what its listings show, and what this process saw itself."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from holdfast import CheckpointWarning, layout, manifest, record
from holdfast.backends.base import Entry, Traits
from holdfast.catalog import Catalog
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.errors import FormatError, NotFoundError, StorageError
from holdfast.testing import MemoryBackend

MOMENT = datetime(2026, 1, 5, tzinfo=UTC)


class Place(MemoryBackend):
    """Counts what is read, and leaves some keys out of its listings."""

    def __init__(self, *, parallel: int = 1) -> None:
        super().__init__()
        self.traits = Traits(parallel=parallel, fresh=False)
        self.hidden: set[str] = set()
        self.reads: list[str] = []

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return super().read(key)

    def scan(self, prefix: str, after: str = "") -> Iterator[Entry]:
        return (each for each in super().scan(prefix, after) if each.key not in self.hidden)

    def put(self, step: int, data: bytes | None = None, **metadata: str) -> Checkpoint:
        checkpoint = Checkpoint(CheckpointId(1, step, f"{step:08x}"), MOMENT, metadata=metadata)
        self.create(layout.manifest_key(checkpoint.id), data or manifest.write(checkpoint))
        return checkpoint


def test_of_an_empty_store_nothing_is_known() -> None:
    catalog = Catalog(Place())

    assert catalog.ids() == []
    assert catalog.newest_session == 0


def test_what_this_process_has_committed_is_there_before_listings_show_it() -> None:
    place = Place()
    catalog = Catalog(place)
    earlier, mine = place.put(1), place.put(2)
    place.hidden.add(layout.manifest_key(mine.id))

    assert catalog.ids() == [earlier.id]
    catalog.add(mine)
    assert catalog.ids() == [earlier.id, mine.id]


def test_what_this_process_has_committed_is_looked_for_until_it_is_gone() -> None:
    place = Place()
    catalog = Catalog(place)
    earlier, mine = place.put(1), place.put(2)
    catalog.add(mine)
    place.delete(layout.manifest_key(mine.id))

    assert catalog.ids() == [earlier.id]
    assert catalog.ids() == [earlier.id]

    assert place.reads == [layout.manifest_key(mine.id)]


def test_what_another_process_has_removed_is_not_known_any_more() -> None:
    place = Place()
    catalog = Catalog(place)
    left, removed = place.put(1), place.put(2)
    assert catalog.checkpoints() == [left, removed]
    place.delete(layout.manifest_key(removed.id))
    place.reads.clear()

    assert catalog.ids() == [left.id]

    assert place.reads == []
    with pytest.raises(NotFoundError):
        catalog.read(removed.id)


def test_what_this_process_has_removed_is_not_known_any_more() -> None:
    place = Place()
    catalog = Catalog(place)
    removed = place.put(1)
    catalog.add(removed)
    place.delete(layout.manifest_key(removed.id))

    catalog.forget(removed.id)

    with pytest.raises(NotFoundError):
        catalog.read(removed.id)


def tombstone(place: Place, step: int) -> CheckpointId:
    id = CheckpointId(1, step, f"{step:08x}")
    place.create(layout.manifest_key(id), manifest.write_tombstone(id, "sweeper"))
    return id


@pytest.mark.parametrize("is_read", [False, True])
def test_a_listing_that_went_back_to_tombstones_alone_hides_nothing(is_read: bool) -> None:
    """What was seen is asked for by its name."""
    place = Place()
    catalog = Catalog(place)
    seen = place.put(2)
    if is_read:
        tombstone(place, 1)
    assert list(catalog.newest_first()) == [seen]
    if not is_read:
        tombstone(place, 1)
    place.hidden.add(layout.manifest_key(seen.id))

    assert list(catalog.newest_first()) == [seen]


@pytest.mark.parametrize("what", ["nothing", "a tombstone"])
@pytest.mark.parametrize("is_fresh", [False, True])
def test_that_nothing_is_left_is_believed_where_listings_do_not_lag(
    what: str, is_fresh: bool
) -> None:
    place = Place()
    place.traits = Traits(fresh=is_fresh)
    catalog = Catalog(place)
    removed = place.put(2)
    assert catalog.checkpoints() == [removed]
    place.delete(layout.manifest_key(removed.id))
    if what == "a tombstone":
        tombstone(place, 1)

    for _ in range(2):
        if is_fresh:
            assert catalog.checkpoints() == []
        else:
            with pytest.raises(StorageError, match="lag behind"):
                catalog.checkpoints()


def test_of_many_the_newest_alone_is_read() -> None:
    place = Place(parallel=4)
    *_, newest = (place.put(step) for step in range(4))

    assert next(Catalog(place).newest_first()) == newest

    assert place.reads == [layout.manifest_key(newest.id)]


def test_only_what_comes_after_a_key_is_asked_for() -> None:
    place = Place()
    first, second, third = (place.put(step).id for step in (1, 2, 3))

    assert Catalog(place).ids() == [first, second, third]
    assert Catalog(place).ids(layout.manifest_key(first)) == [second, third]


def test_the_largest_record_is_read_and_a_larger_one_is_not() -> None:
    place = Place()
    room = record.MAX_BYTES - len(manifest.write(place.put(1, note="")))
    largest = place.put(2, note="x" * room)
    larger = place.put(3, b" " * (record.MAX_BYTES + 1))
    catalog = Catalog(place)

    catalog.ids()

    assert catalog.read(largest.id) == largest
    with pytest.raises(FormatError, match="not read"):
        catalog.read(larger.id)
    catalog.ids(layout.manifest_key(larger.id))  # a listing of none of them
    with pytest.raises(FormatError, match="not read"):
        catalog.read(larger.id)
    assert place.reads == [layout.manifest_key(largest.id)]


@pytest.mark.parametrize("parallel", [1, 4])
def test_what_cannot_be_read_is_no_obstacle_to_the_others(parallel: int) -> None:
    place = Place(parallel=parallel)
    good = [place.put(step) for step in (1, 2, 3)]
    bad = place.put(4, json.dumps({"format": 1}).encode())
    catalog = Catalog(place)

    with pytest.warns(CheckpointWarning, match=f"{bad.id} is passed over"):
        assert catalog.checkpoints() == good
    records = Catalog(place).records()

    assert [*records] == [*(each.id for each in good), bad.id]
    assert isinstance(records[bad.id], FormatError)


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_records_are_read_several_at_once_where_the_place_gains_by_it(parallel: int) -> None:
    place = Place(parallel=parallel)
    ids = [place.put(step).id for step in range(8)]

    Catalog(place).records()
    in_order = [layout.manifest_key(id) for id in ids]

    assert sorted(place.reads) == in_order
    assert (place.reads == in_order) == (parallel == 1)  # several at once from the newest on
