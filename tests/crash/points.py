"""
Kill a real process at every one of its file operations, and count what the next one finds broken.

`python -m tests.crash.points` prints the table.
"""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.crash import killer, scenes

HOWS: tuple[killer.How, ...] = ("before", "torn")


@contextlib.contextmanager
def memory() -> Iterator[Path]:
    """
    A directory in memory where there is one: a kill loses nothing that was handed to the kernel.

    What a power cut loses is judged by the order of the syncs, elsewhere.
    """
    home = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="holdfast-", dir=home) as directory:
        yield Path(directory)


def kill_everywhere(
    scene: scenes.Scene, place: Path, how: killer.How, *, every: int = 1
) -> tuple[int, Counter[str]]:
    """How many points were tried, all or every so many, and what was broken at how many of them."""
    broken: Counter[str] = Counter()
    count = 0
    for outcome in killer.points(
        lambda: scene.act(scene, place),
        under=scene.under(place),
        prepare=lambda: scene.prepare(place),
        how=how,
        first=1 + HOWS.index(how) % every,  # so that the two ways share the points out
        every=every,
    ):
        count += 1
        try:
            scenes.judge(scene, place)
        except Exception as error:  # whatever is wrong here, the next start is not well
            where = f"{outcome.struck.kind} {Path(outcome.struck.path).name}"
            broken[f"{where}: {type(error).__name__}: {error}"] += 1
    return count, broken


def main() -> None:
    """Print how many points there are in each operation, and how many left something broken."""
    began, total, bad = time.monotonic(), 0, 0
    print(f"{'killed at each file operation of':34}{'points':>8}{'broken':>8}")
    with memory() as place, tempfile.TemporaryDirectory() as elsewhere:
        for scene in scenes.scenes(Path(elsewhere) / "workspace"):
            scene.build(place / scene.name / "template")
            found = [kill_everywhere(scene, place / scene.name / "run", how) for how in HOWS]
            points, broken = sum(n for n, _ in found), sum(sum(b.values()) for _, b in found)
            print(f"{scene.name:34}{points:8}{broken:8}", flush=True)
            total, bad = total + points, bad + broken
    print(f"{'all':34}{total:8}{bad:8}   {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
