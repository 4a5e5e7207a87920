"""
Kill a real process at every one of its file operations, and count what the next one finds broken.
"""

import contextlib
import itertools
import shutil
import tempfile
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


def everywhere(seed: int, count: int) -> Iterator[str]:
    """So many kills of real processes: all calls of each operation in turns, with other models."""
    with memory() as place, tempfile.TemporaryDirectory() as elsewhere:
        left = count
        while left > 0:
            for scene in scenes.scenes(Path(elsewhere) / "workspace"):
                scene.more = seed % 8
                scene.build(place / f"{seed}" / scene.name / "template")
                for how in HOWS:
                    found = kills(scene, place / f"{seed}" / scene.name / "run", how)
                    for what in itertools.islice(found, left):
                        left -= 1
                        told = f"{scene.name}, {scene.more} more files, {how}: {what}"
                        yield told if what else ""
            shutil.rmtree(place / f"{seed}")
            seed += 1
