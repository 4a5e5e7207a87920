"""What operations cost in requests, to the request; the page of costs says the same."""

import re
from pathlib import Path

import pytest

from tests.conformance import requests

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "costs.md"


def said_of(name: str) -> dict[str, int]:
    """A place's column in the table of the page."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if re.match(r"\| .*\|", line)
    ]
    at = rows[0].index(requests.NAMES[name])
    return {row[0]: int(row[at].replace(",", "")) for row in rows[1:]}


@pytest.mark.parametrize("place", requests.NAMES, indirect=True)
def test_an_operation_costs_the_requests_that_the_page_says(place, proxy, home) -> None:
    said = said_of(place.name)

    counted = requests.column(place, proxy, home / "costs" / place.name)

    assert {line: said[line] for line in counted} == counted


@pytest.mark.parametrize("place", ["moto", "gcs", "drive"], indirect=True)
def test_a_look_costs_a_page_for_each_thousand_checkpoints_and_a_constant(
    place, proxy, home
) -> None:
    bill = requests.Bill(place, proxy, home / "pages" / place.name)

    assert bill.latest(3_500) - bill.latest(500) == 3
