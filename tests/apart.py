"""A process beside the tests, which has imported little."""

import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor


def process() -> ProcessPoolExecutor:
    """Calls functions, one at a time, in a new process; warnings are errors there, as here."""
    return ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )


def _begin() -> None:
    warnings.simplefilter("error")
    for kind in (DeprecationWarning, PendingDeprecationWarning):
        warnings.simplefilter("default", kind)
