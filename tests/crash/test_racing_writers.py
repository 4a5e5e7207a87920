"""Eight real processes save into one store at once."""

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from holdfast import SupersededError, open_store

PROCESSES = 8
SAVES = 5
#: A clean child each, without the threads and handles of this process.
CONTEXT = multiprocessing.get_context("spawn")


def save_until_superseded(
    place: Path, number: int, barrier: Barrier, results: "multiprocessing.Queue[object]"
) -> None:
    """Save a few times, and tell what was acknowledged and whether somebody took over."""
    store = open_store(place / "store")
    acknowledged: list[tuple[str, int]] = []
    superseded = False
    barrier.wait()
    try:
        for step in range(SAVES):
            file = place / f"{number}.bin"
            file.write_bytes(f"process {number}, step {step}".encode())
            saved = store.save(file, step=step, metadata={"process": number})
            acknowledged.append((str(saved.id), number))
    except SupersededError:
        superseded = True
    results.put((acknowledged, superseded))


@pytest.mark.parametrize("attempt", range(3))
def test_every_acknowledged_save_of_eight_processes_is_there(attempt: int, tmp_path: Path) -> None:
    barrier = CONTEXT.Barrier(PROCESSES)
    results: multiprocessing.Queue[tuple[list[tuple[str, int]], bool]] = CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=save_until_superseded, args=(tmp_path, number, barrier, results))
        for number in range(PROCESSES)
    ]

    for process in processes:
        process.start()
    told = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()

    assert all(process.exitcode == 0 for process in processes)
    store = open_store(tmp_path / "store")
    acknowledged = dict(save for saves, _ in told for save in saves)
    assert len(acknowledged) == sum(len(saves) for saves, _ in told), "an id was given twice"
    assert {str(each.id): each.metadata["process"] for each in store} == acknowledged
    assert store.verify(deep=True).ok
    assert all(superseded or len(saves) == SAVES for saves, superseded in told)
    assert not all(superseded for _, superseded in told), "nobody was left to go on"
