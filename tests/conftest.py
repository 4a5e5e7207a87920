"""What tests of every folder use."""

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import certifi
import pytest

from tests import share
from tests.apart import process

_END_OF_ONE = "-----END CERTIFICATE-----\n"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how to have a failure again."""
    if "failed" in terminalreporter.stats:
        terminalreporter.write_line(f"the share of this run: HOLDFAST_SEED={share.SEED}")


def pytest_collection_finish() -> None:
    """
    What was imported is looked through no more for what may go.

    With TensorFlow and Keras each look took a second, and there were a hundred of them.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    Every client of S3 reads the list of authorities, though no server here speaks TLS: a short one.

    To read all takes longer than what most tests then ask.
    """
    if "HOLDFAST_TEST_S3_URL" in os.environ:
        yield
        return
    one = tmp_path_factory.mktemp("authorities") / "one.pem"
    first, end, _ = certifi.contents().partition(_END_OF_ONE)
    one.write_text(first + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_CA_BUNDLE", str(one))
        yield


@pytest.fixture(scope="session")
def apart() -> Iterator[Callable[..., Any]]:
    """
    Calls a function in a process that has imported little; gives what it returns or raises.

    It is for what forks often: to copy a process with TensorFlow in it takes longer than all that
    its child then does.
    """
    with process() as pool:
        yield lambda function, *given, **named: pool.submit(function, *given, **named).result()
