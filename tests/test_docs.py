"""Every Python block of the README and the pages runs, page by page, in an empty directory."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from tests.imported import imported
from tests.servers.gcs import GcsServer
from tests.servers.s3 import MotoServer

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)")


def blocks(page: Path) -> str:
    """The page's Python blocks as one script whose lines keep their numbers."""
    text = page.read_text()
    script = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text[: block.start(1)].count("\n")
        for number, line in enumerate(block[1].splitlines()):
            script[first + number] = line
    return "\n".join(script)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def clouds() -> Iterator[dict[str, str]]:
    """The variables by which a page's `s3://my-bucket` and `gs://my-bucket` are reached."""
    with MotoServer("my-bucket") as s3, GcsServer("my-bucket") as gcs:
        yield {**s3.environment(), "STORAGE_EMULATOR_HOST": gcs.endpoint}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page).strip()], ids=name)
def test_the_blocks_of_a_page_run_as_they_stand(
    page: Path, clouds: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(blocks(page))
    here = tmp_path / "here"
    here.mkdir()
    environment = {
        **os.environ,
        **clouds,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    if re.search("keras|tensorflow", script.read_text()):
        ran = imported().run(script, cwd=here, env=environment)
    else:
        ran = subprocess.run(
            [sys.executable, script], cwd=here, env=environment, capture_output=True, text=True
        )

    assert ran.returncode == 0, f"{page.name}, line numbers as in the page:\n{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = [
        link for link, _ in LINK.findall(page.read_text()) if not (page.parent / link).exists()
    ]

    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:tests|examples)/[^`]+)`", page.read_text())

    assert [each for each in named if not (ROOT / each).exists()] == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link, _ in LINK.findall(index.read_text())}

    lost = [
        name(page)
        for page in PAGES
        if page not in (index, ROOT / "README.md")
        and page.resolve() not in linked
        and page.parent.resolve() not in linked
    ]

    assert not lost


def test_every_error_stands_on_the_page_of_errors() -> None:
    errors = {
        name
        for name, thing in vars(holdfast).items()
        if isinstance(thing, type) and issubclass(thing, holdfast.CheckpointError)
    } - {"CheckpointError"}

    page = (ROOT / "docs" / "reference" / "errors.md").read_text()

    assert {name for name in errors if f"| `{name}` |" not in page} == set()
