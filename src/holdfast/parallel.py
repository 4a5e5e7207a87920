"""Several calls at once, where a place gains by it."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def in_parallel(call: Callable[[T], object], items: Iterable[T], *, at_once: int) -> None:
    """
    Call for each item, several at a time; this thread is one of those that work.

    After a failure no further item is begun, and those under way are waited for. An interrupt
    (`KeyboardInterrupt`, and what else is no `Exception`) waits for nobody.

    Parameters:
        call (Callable): may be called from other threads.
        items (Iterable): what to call it for; begun in this order.
        at_once (int): how many calls at a time; with 1 everything happens in this thread.

    Raises:
        BaseException: the first failure.
    """
    pending = list(items)
    waiting = iter(pending)
    taking = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            with taking:
                try:
                    item = next(waiting)
                except StopIteration:
                    return
            try:
                call(item)
            except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
                failures.append(error)

    helpers: list[threading.Thread] = []
    for _ in range(min(at_once, len(pending)) - 1):
        # Daemons, so that a call that hangs keeps no process from ending.
        helper = threading.Thread(target=work, name="holdfast parallel", daemon=True)
        try:
            helper.start()
        except RuntimeError:  # while the interpreter ends no thread starts
            break
        helpers.append(helper)
    work()
    for helper in helpers:
        if failures and not isinstance(failures[0], Exception):
            break
        helper.join()
    if failures:
        raise failures[0]
