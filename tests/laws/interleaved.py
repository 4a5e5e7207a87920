"""A pin and prunes at once, in every order of their calls or in many: G9."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast import CheckpointStore, KeepLast, layout
from holdfast.checkpoint import Checkpoint
from holdfast.errors import NotFoundError
from holdfast.testing import MemoryBackend
from holdfast.writer import Writer
from tests.laws.quick import quick
from tests.laws.rounds import NOW, Objects, Round, Weights
from tests.laws.scheduler import Choose, at_random, every_schedule
from tests.store.checks import broken


def where_they_meet(verb: str, key: str) -> bool:
    """Where a pin and a prune can meet; between the other calls the order makes no difference."""
    return (
        key.startswith(layout.PINS)
        or (key.startswith(layout.DOOMED) and verb != "scan")
        or (key.startswith(layout.MANIFESTS) and verb == "delete")
    )


def everywhere(verb: str, key: str) -> bool:
    """At every call."""
    return True


def a_pin_holds_against_a_prune(tmp: Path) -> int:
    """Every order of the calls of a pin and a prune of the same checkpoint."""
    return _count(_in_every_order(tmp, prunes=1))


def a_pin_holds_against_two_prunes(tmp: Path, stops: int = 3) -> int:
    """Every order in which at most so many times somebody is stopped, where they can meet."""
    return _count(_in_every_order(tmp, prunes=2, stops=stops))


def pins_in_every_order(first: int = 1, every: int = 1) -> Iterator[str]:
    """All orders of a pin and one prune, then those of two prunes with at most four stops."""
    with quick() as tmp:
        alone, two = _in_every_order(tmp, prunes=1), _in_every_order(tmp, prunes=2, stops=4)
        yield from itertools.islice(itertools.chain(alone, two), first - 1, None, every)


def pins(seed: int, count: int) -> Iterator[str]:
    """Rounds of a pin and one to three prunes alone, each third time beside two sweeps."""
    with quick() as tmp:
        objects, saved = _two(tmp)
        for case in range(count):
            trouble = _a_pin_against(
                tmp,
                at_random(f"{seed}-{case}"),
                (objects, saved),
                prunes=1 + case % 3,
                sweeps=2 * (case % 9 > 5),
            )
            yield trouble and f"pins, seed {seed}, round {case}: {trouble}"


def _count(found: Iterable[str]) -> int:
    """How many rounds there were, of which none was broken."""
    count = 0
    for count, trouble in enumerate(found, start=1):
        assert not trouble, f"round {count}: {trouble}"
    return count


def _in_every_order(tmp: Path, *, prunes: int, stops: int | None = None) -> Iterator[str]:
    saved = _two(tmp)
    alike = (1, 2) if prunes == 2 else None
    for choose in every_schedule(preemptions=stops, alike=alike):
        yield _a_pin_against(tmp, choose, saved, prunes=prunes, where=where_they_meet)


def _a_pin_against(
    tmp: Path,
    choose: Choose,
    saved: tuple[Objects, list[Checkpoint]],
    *,
    prunes: int,
    sweeps: int = 0,
    where=everywhere,
) -> str:
    objects, (old, new) = saved
    world = Round(tmp / "round", choose, objects)

    def pin(store: CheckpointStore) -> None:
        with contextlib.suppress(NotFoundError):
            store.pin(old, "paper")
            world.pinned.append(old.id)

    world.process(pin)
    for _ in range(prunes):
        world.process(lambda store: store.prune(KeepLast(1)), where=where)
    for _ in range(sweeps):
        world.process(lambda store: store.sweep(older_than=NOW))
    strange = [repr(end) for end in world.run() if isinstance(end, Exception)]
    gone = [] if world.has(new.id) else ["the newest is gone"]
    return "; ".join([*world.trouble, *strange, *gone, *broken(world.backend)])


def _two(tmp: Path) -> tuple[Objects, list[Checkpoint]]:
    backend = MemoryBackend()
    store = CheckpointStore(backend, workspace=tmp / "before", writer=Writer())
    saved = [store.save(Weights(b"weights"), step=step) for step in (1, 2)]
    return backend.objects, saved
