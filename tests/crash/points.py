"""
Kill a real process at every one of its file operations, and count what the next one finds broken.

`python -m tests.crash.points` prints the table.
"""

import contextlib
import tempfile
import time
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


def kills(
    scene: scenes.Scene, place: Path, how: killer.How, *, first: int = 1, every: int = 1
) -> Iterator[str]:
    """Strike all points, or each so many; what was broken at each of them, or nothing."""
    for outcome in killer.points(
        lambda: scene.act(scene, place),
        under=scene.under(place),
        prepare=lambda: scene.prepare(place),
        how=how,
        first=first,
        every=every,
    ):
        try:
            scenes.judge(scene, place)
        except Exception as error:  # whatever is wrong here, the next start is not well
            where = f"{outcome.struck.kind} {Path(outcome.struck.path).name}"
            yield f"{where}: {type(error).__name__}: {error}"
        else:
            yield ""


def main() -> None:
    """Print how many points there are in each operation, and how many left something broken."""
    began, total, bad = time.monotonic(), 0, 0
    print(f"{'killed at each file operation of':34}{'points':>8}{'broken':>8}")
    with memory() as place, tempfile.TemporaryDirectory() as elsewhere:
        for scene in scenes.scenes(Path(elsewhere) / "workspace"):
            scene.build(place / scene.name / "template")
            found = [kill for how in HOWS for kill in kills(scene, place / scene.name / "run", how)]
            points, broken = len(found), len(list(filter(None, found)))
            print(f"{scene.name:34}{points:8}{broken:8}", flush=True)
            total, bad = total + points, bad + broken
    print(f"{'all':34}{total:8}{bad:8}   {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
