"""
Disks and processes that really have no more: of blocks, of bytes in a file, of open files.

Where the other harness has the kernel lie, here it tells the truth, also of what cannot be read.
"""

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

from tests.crash import failing, killer, scenes
from tests.crash.points import memory
from tests.servers.fuse import NotPossibleError
from tests.servers.mounted_drive import MountedDrive

#: So many files more may be open, from none to enough.
_FILES = range(12)
#: Bytes that a file may have, from none to enough, around the sizes of those that are written.
_SIZES = (0, 1, 15, 16, 100, 700, 949, 950, 1_200, 1_500, 2_500)
#: Blocks that are free, from none to enough; with none at all the disk is read-only.
_BLOCKS = (None, *range(24))
_BLOCK_BYTES = 4096
#: The operations whose reads fail: each kind of file is read in one of them.
_READING = ("save and prune", "sweep", "recover", "restore")


def limits(first: int = 1, every: int = 1) -> Iterator[str]:
    """Each operation in a process that may open so many files, or write files of such a size."""
    with _built() as (built, place):
        few = [(errno.EMFILE, resource.RLIMIT_NOFILE, more) for more in _FILES]
        small = [(errno.EFBIG, resource.RLIMIT_FSIZE, size) for size in _SIZES]
        # This one removes directories by itself, and would need open files for that.
        plain = [scene for scene in built if scene.name != "save many files"]
        every_case = chain(product(plain, few), product(built, small))
        for scene, (number, kind, soft) in islice(every_case, first - 1, None, every):
            scene.prepare(place)
            outcome = killer.run(lambda: _limited(scene, place, kind, soft), under=[])  # noqa: B023
            what = f"{scene.name}: {errno.errorcode[number]}, with {soft} more"
            yield _judged(what, number, outcome, scene, place)


def blocks(first: int = 1, every: int = 1) -> Iterator[str]:
    """
    Each operation on a filesystem with so many free blocks, and on one that is read-only.

    Raises:
        NotPossibleError: nothing can be mounted here; it says why.
    """
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            [*command, f"{first}", f"{every}"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise NotPossibleError("there is no unshare") from error
    if done.returncode:
        raise NotPossibleError(done.stderr)
    yield from map(json.loads, done.stdout.splitlines())


def main(first: int, every: int) -> None:
    """What `blocks` does, in a namespace where it may mount; prints a line for each case."""
    with _built() as (built, place):
        for scene, free in islice(product(built, _BLOCKS), first - 1, None, every):
            scene.prepare(place)
            with _mounted(place / "store") as change:
                used = os.statvfs(place / "store")
                size = (used.f_blocks - used.f_bfree + (free or 0)) * _BLOCK_BYTES
                change("ro" if free is None else f"size={size}")
                outcome = killer.run(lambda: failing.act(scene, place), under=[])  # noqa: B023
                change("rw,size=16m")
                number = errno.EROFS if free is None else errno.ENOSPC
                what = f"{scene.name}: {errno.errorcode[number]}, with {free} blocks free"
                pruned = scene.name != "prune" or free is None or not outcome.result.raised
                broken = _judged(what, number, outcome, scene, place)
                print(json.dumps(broken if pruned else f"{what}: no prune"), flush=True)


def reads(first: int = 1, every: int = 1) -> Iterator[str]:
    """
    Each operation that reads, on a disk where one read fails, the first, the second and so on.

    Raises:
        NotPossibleError: nothing can be mounted here; it says why.
    """
    with _built() as (built, place):
        place.mkdir()
        with MountedDrive(place, kind="disk") as disk:
            reading = [scene for scene in built if scene.name in _READING]
            for scene, at in islice(_all_reads(reading, disk), first - 1, None, every):
                outcome, _ = _read(scene, disk, at)
                what = f"{scene.name}: EIO at read {at}"
                yield _judged(what, errno.EIO, outcome, scene, place / "run")


def _all_reads(
    reading: list[scenes.Scene], disk: MountedDrive
) -> Iterator[tuple[scenes.Scene, int]]:
    for scene in reading:
        _, count = _read(scene, disk, sys.maxsize)
        for at in range(1, count + 1):
            yield scene, at


def _read(scene: scenes.Scene, disk: MountedDrive, at: int) -> tuple[killer.Outcome, int]:
    """The operation while a read fails, and how many reads there were."""
    place = disk.place / "run"
    scene.prepare(place)
    disk.tell("fail", at=at, code=errno.EIO, requests=["read"])
    outcome = killer.run(lambda: failing.act(scene, place), under=[])
    return outcome, disk.tell("heal")


@contextlib.contextmanager
def _built() -> Iterator[tuple[list[scenes.Scene], Path]]:
    """The operations, and where each may take place."""
    with memory() as place, tempfile.TemporaryDirectory() as elsewhere:
        built = list(scenes.scenes(Path(elsewhere) / "workspace"))
        for scene in built:
            scene.build(place / scene.name / "template")
        yield built, place / "run"


def _limited(scene: scenes.Scene, place: Path, kind: int, soft: int) -> failing.Told:
    """The operation in a process that may do less; what the scene itself writes is free of that."""
    before = resource.getrlimit(kind)
    if kind == resource.RLIMIT_NOFILE:
        free = os.dup(0)
        os.close(free)
        soft += free
    write_model = scenes.write_model

    def write_freely(*given: Any) -> None:
        resource.setrlimit(kind, before)
        write_model(*given)
        resource.setrlimit(kind, (soft, before[1]))

    scenes.write_model = write_freely
    resource.setrlimit(kind, (soft, before[1]))
    try:
        return failing.act(scene, place)
    finally:
        resource.setrlimit(kind, before)


@contextlib.contextmanager
def _mounted(place: Path) -> Iterator[object]:
    """Move what lies in a directory to a filesystem of its own in its place, which can change."""
    kept = place.with_name("kept")
    place.rename(kept)
    place.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, "tmpfs", place], check=True)

    mount("-t", "tmpfs")
    try:
        shutil.copytree(kept, place, dirs_exist_ok=True)
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", place], check=True)


def _judged(
    what: str, number: int, outcome: killer.Outcome, scene: scenes.Scene, place: Path
) -> str:
    """What was broken, or nothing."""
    try:
        told = outcome.result
        assert isinstance(told, failing.Told), f"it did not come to its end: {outcome.error}"
        failing.look_at_texts(number, told)
        if not told.raised:
            failing.look_for_what_was_acknowledged(told, scene, place)
        scenes.judge(scene, place)
    except Exception as error:  # whatever is wrong here, the next start is not well
        return f"{what}: {type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
