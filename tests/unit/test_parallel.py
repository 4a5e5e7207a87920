"""Several calls at once: all are made, a failure ends it, an interrupt waits for nobody."""

import threading

import pytest

from holdfast.parallel import in_parallel


def test_each_item_is_called_for_once() -> None:
    seen: list[int] = []

    in_parallel(seen.append, range(100), at_once=8)

    assert sorted(seen) == list(range(100))


def test_as_many_calls_as_asked_for_are_made_at_once() -> None:
    barrier = threading.Barrier(4, timeout=60)

    in_parallel(lambda _: barrier.wait(), range(8), at_once=4)


def test_no_more_calls_are_made_at_once_than_asked_for() -> None:
    lock = threading.Lock()
    running: list[int] = []
    most = 0

    def call(item: int) -> None:
        nonlocal most
        with lock:
            running.append(item)
            most = max(most, len(running))
        with lock:
            running.remove(item)

    in_parallel(call, range(200), at_once=3)

    assert most <= 3


def test_one_at_a_time_happens_in_this_thread_and_in_order() -> None:
    seen: list[tuple[int, threading.Thread]] = []

    in_parallel(lambda item: seen.append((item, threading.current_thread())), range(5), at_once=1)

    assert seen == [(item, threading.current_thread()) for item in range(5)]


def test_nothing_to_call_for_is_fine() -> None:
    in_parallel(pytest.fail, [], at_once=8)


def test_after_a_failure_nothing_more_is_begun_and_what_runs_is_waited_for() -> None:
    failed = threading.Event()
    both = threading.Barrier(2, timeout=60)
    ended: list[int] = []

    def call(item: int) -> None:
        if item < 2:
            both.wait()
        if item == 0:
            failed.set()
            raise ValueError("the first")
        failed.wait()
        ended.append(item)

    with pytest.raises(ValueError, match="the first"):
        in_parallel(call, range(50), at_once=2)

    # The other thread may have taken one more between the failure and its being noted.
    assert ended in ([1], [1, 2])


def test_an_interrupt_waits_for_nobody() -> None:
    begun, go_on = threading.Event(), threading.Event()
    caller = threading.current_thread()

    def call(_: int) -> None:
        if threading.current_thread() is caller:
            begun.wait(60)
            raise KeyboardInterrupt
        begun.set()
        go_on.wait(60)

    with pytest.raises(KeyboardInterrupt):
        in_parallel(call, range(2), at_once=2)

    assert not go_on.is_set()
    go_on.set()


def test_where_no_thread_starts_this_one_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen: list[int] = []

    in_parallel(seen.append, range(5), at_once=8)

    assert seen == list(range(5))
