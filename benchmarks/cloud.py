"""
A save to durable and a restore through `s3://`, beside the same bytes by boto3.

    make bench-cloud        (or: python -m benchmarks.suite --parts cloud)

The server, `rclone serve s3`, runs on the same machine and takes its share of it. Keras's callbacks
and Orbax's checkpointer cannot save there at all. `make bench-transfers` measures the transfer by
itself, beside more clients.
"""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import boto3

from benchmarks import limits, models
from benchmarks.measuring import Peak, seconds
from holdfast import KeepLast, open_store
from holdfast.keras import KerasState


def measure(
    bucket: str, megabytes: float, repeats: int, directory: str, blocks: int = 62
) -> dict[str, Any]:
    """Holdfast and boto3, in this process, in turns."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=directory) as temporary:
        model = models.build(megabytes, blocks)
        arrays, file = models.arrays(model), Path(temporary, "limit")
        limits.write(arrays, file)
        samples = defaultdict(list)
        samples["state"] = [models.megabytes_of(model)]
        del arrays
        store = open_store(f"s3://{bucket}/store", workspace=Path(temporary, "workspace"))
        state = KerasState(model, workspace=store.workspace)
        client, key = boto3.client("s3"), "file"
        for turn in range(repeats + 1):
            sent = seconds(lambda: client.upload_file(str(file), bucket, key))
            peak = Peak()
            saved = seconds(lambda step=turn: store.save(state, step=step))
            extra = peak.extra
            store.prune(KeepLast(1))
            fetched = seconds(lambda: client.download_file(bucket, key, str(file)))
            sums = models.sums(model)
            models.clear(model)
            restored = seconds(lambda: store.restore(state))
            if models.sums(model) != sums:
                raise ValueError("the restore did not bring back what was saved")
            if turn:  # the first does what is done only once
                samples["upload"].append(sent)
                samples["saved"].append(saved)
                samples["extra"].append(extra)
                samples["download"].append(fetched)
                samples["restored"].append(restored)
        return samples
