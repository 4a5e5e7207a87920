"""The reference of the command says what the code does."""

import runpy
from pathlib import Path

from click import Argument

from holdfast.cli import main

REFERENCE = runpy.run_path(str(Path(__file__).with_name("reference.py")))


def test_the_page_is_fresh() -> None:
    written = REFERENCE["PAGE"].read_text(encoding="utf-8")

    assert written == REFERENCE["page"](), f"the page is stale; run: {REFERENCE['RENEW']}"


def test_the_page_has_every_command_and_option() -> None:
    text = REFERENCE["page"]()

    for name, command in main.commands.items():
        assert f"## holdfast {name}" in text
        for param in command.params:
            assert isinstance(param, Argument) or f"| `{param.opts[0]}" in text
