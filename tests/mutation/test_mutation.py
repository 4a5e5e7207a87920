"""Small mistakes in the code are made as they are told, and are noticed by tests or shown."""

import ast
import subprocess
import sys

import pytest

from tests.mutation.mutants import mutants

SOURCE = '''
"""A module."""

LIMIT = 3


def first(given: list[int], *, least: int = 0) -> int | None:
    """The first that is large enough."""
    for each in given:
        if each < least or not each:
            continue
        try:
            return check(each, limit=LIMIT)
        except (ValueError, KeyError) as error:
            raise LookupError(f"{each} is of no use") from error
    return None
'''


def told(source: str) -> list[str]:
    return [f"{mutant.line} {mutant.what}" for mutant in mutants(source)]


def test_each_kind_of_mistake_is_made() -> None:
    assert told(SOURCE) == [
        "4 3 → 4",
        "7 0 → 1",
        "10 each < least or not each → each < least and (not each)",
        "10 each < least → each <= least",
        "10 each < least → each >= least",
        "10 not each → each",
        "11 break in the place of continue",
        "13 None in the place of: return check(each, limit=LIMIT)",
        "13 check(each, limit=LIMIT) → check(each)",
        "14 without: except ValueError",
        "14 without: except KeyError",
        "15 without: raise LookupError(f'{each} is of no use') from error",
        "15 another error than: raise LookupError(f'{each} is of no use') from error",
    ]


def test_a_mistake_is_the_module_with_one_thing_changed() -> None:
    whole = ast.unparse(ast.parse(SOURCE)).splitlines()

    for mutant in mutants(SOURCE):
        mistaken = ast.unparse(mutant.tree(SOURCE)).splitlines()
        changed = [(old, new) for old, new in zip(whole, mistaken, strict=True) if old != new]
        assert len(changed) == 1, mutant


def test_each_mistake_is_in_its_function_or_defines_something() -> None:
    found = {(mutant.name, mutant.is_inside) for mutant in mutants(SOURCE)}

    assert found == {("LIMIT", False), ("first", False), ("first", True)}


@pytest.mark.parametrize(
    ("tests", "survivors"),
    [("tests/unit/test_series.py", 0), ("tests/unit/test_default_workspace.py", 4)],
)
def test_what_the_tests_do_not_look_at_survives(tests: str, survivors: int) -> None:
    asked = ["series:1", "series:2", "series:3", "series:4", "--processes=1", f"--tests={tests}"]

    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation", *asked], text=True, capture_output=True
    )

    assert done.stdout.count("survived") == survivors + 1, done.stderr  # and the table's head
    assert done.returncode == bool(survivors)
