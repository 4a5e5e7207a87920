"""What was damaged on its way here is read again, so that nothing whole is passed over for it."""

import pytest

from holdfast.errors import StorageError
from tests.conformance import troubles
from tests.conformance.places import SERVED
from tests.servers.proxy import Fault

KEY = "manifests/0001-000000000010-00000001.json"
CONTENT = b"a small object of the store\n" * 9
ANOTHER = next(each for each in troubles.TROUBLES if each.name == "200 with an error in it")


@pytest.fixture
def backend(place, lines):
    place.fill({KEY: CONTENT})
    line = lines(place.name)
    line.clear()
    return line.backend()


def is_content(request):
    """Whether the bytes of an object are asked for."""
    return request.method == "GET" and (
        "alt=media" in request.query or request.path.endswith(KEY.rpartition("/")[2])
    )


@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_a_bit_that_flips_on_the_way_back(place, proxy, backend) -> None:
    proxy.plan(Fault("flip content", only=is_content))

    assert backend.read(KEY) == CONTENT
    assert len(proxy.struck) == 1


@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_an_answer_that_is_not_the_object(place, proxy, backend) -> None:
    answer = ANOTHER.at(1, place).answer
    proxy.plan(Fault("answer", only=is_content, answer=answer))

    assert backend.read(KEY) == CONTENT
    assert len(proxy.struck) == 1


@pytest.mark.parametrize("place", ["gcs", "drive"], indirect=True)
def test_what_differs_from_its_checksum_each_time_is_an_error(place, proxy, backend) -> None:
    proxy.plan(Fault("flip content", lasting=True, only=is_content))

    with pytest.raises(StorageError):
        backend.read(KEY)
