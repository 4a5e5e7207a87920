"""Who moves files in `benchmarks.transfers`: Holdfast, and each client as its users call it."""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
#: What the clients that can be tuned are given: parts of 16 MiB, eight at a time.
PART, AT_ONCE = 16 * MIB, 8
#: The peak of a client that was a program of its own.
PEAKS: list[float] = []
#: A contestant moves files from one directory into the store's place, or the other way.
Move = Callable[[Path, str, list[str]], None]


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


def tuned_up(directory: Path, place: str, names: list[str]) -> None:
    client, settings, bucket, root = tuned(place)
    for name in names:
        client.upload_file(str(directory / name), bucket, f"{root}/{name}", Config=settings)


def tuned_down(directory: Path, place: str, names: list[str]) -> None:
    client, settings, bucket, root = tuned(place)
    for name in names:
        client.download_file(bucket, f"{root}/{name}", str(directory / name), Config=settings)


def tuned(place: str) -> tuple[Any, Any, str, str]:
    """boto3 as it is leanest: nothing is signed or summed up, so nothing proves what arrived."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    config = Config(
        max_pool_connections=32,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False},
    )
    settings = TransferConfig(
        multipart_chunksize=PART, multipart_threshold=PART, max_concurrency=AT_ONCE
    )
    bucket, _, root = place.removeprefix("s3://").partition("/")
    return boto3.client("s3", config=config), settings, bucket, root


def obstore_up(directory: Path, place: str, names: list[str]) -> None:
    import obstore

    store, root = obstore_of(place)
    for name in names:
        with (directory / name).open("rb", buffering=0) as file:
            pieces = iter(lambda file=file: file.read(MIB), b"")
            obstore.put(
                store,
                f"{root}/{name}",
                pieces,
                use_multipart=True,
                chunk_size=PART,
                max_concurrency=AT_ONCE,
            )


def obstore_down(directory: Path, place: str, names: list[str]) -> None:
    import obstore

    store, root = obstore_of(place)
    for name in names:
        with (directory / name).open("xb", buffering=0) as file:
            for piece in obstore.get(store, f"{root}/{name}").stream(min_chunk_size=MIB):
                file.write(piece)


def obstore_of(place: str) -> tuple[Any, str]:
    from obstore.store import S3Store

    bucket, _, root = place.removeprefix("s3://").partition("/")
    store = S3Store(
        bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL_S3"],
        client_options={"allow_http": True, "timeout": "600s"},
    )
    return store, root


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
    PEAKS.append(most)
    if client.returncode:
        sys.exit(f"rclone ended with {client.returncode}")


def remote(place: str) -> str:
    return "here:" + place.removeprefix("s3://")


def peak(process: int | str) -> float:
    """The most memory that a process has held, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


CONTESTANTS: dict[str, tuple[Move, Move]] = {
    "Holdfast, the files alone": (holdfast_up, holdfast_down),
    "Holdfast, save and restore": (store_up, store_down),
    "plain filesystem": (fsspec_up, fsspec_down),
    "boto3": (boto3_up, boto3_down),
    "boto3, tuned": (tuned_up, tuned_down),
    "obstore": (obstore_up, obstore_down),
    "rclone": (rclone_up, rclone_down),
}
ON_S3 = [name for name in CONTESTANTS if name != "obstore" or importlib.util.find_spec("obstore")]
ON_GCS = ON_S3[:3]
#: Whose uploads run beside training: clients, each in a thread of the process that trains.
BESIDE_TRAINING = [
    name for name in ON_S3 if name not in ("Holdfast, save and restore", "boto3", "rclone")
]
