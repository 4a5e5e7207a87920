"""
The page `docs/reference/cli.md`, made from the commands themselves.

    python tests/cli/reference.py        writes it anew
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from holdfast.cli import documents, main
from holdfast.cli.outcome import meanings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
#: What every command has is told once.
COMMON = [
    param
    for param in main.commands["ls"].params
    if isinstance(param, click.Option)
    and all(param in command.params for command in main.commands.values())
]
RENEW = "python tests/cli/reference.py"


def page() -> str:
    """The page as it should be."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# The command `holdfast`"
    yield ""
    yield f"<!-- Generated from the code. Do not edit it here; run `{RENEW}`. -->"
    yield ""
    yield from _prose(main.help)
    yield ""
    yield "`holdfast --version` prints the version."
    yield "`holdfast COMMAND --help` prints the help of a command."
    yield "`python -m holdfast` is the same command."
    yield ""
    yield "## Output, errors and exit codes"
    yield ""
    yield "What a command has to say is on stdout; remarks, warnings and errors are on stderr."
    yield "Text that came from a store is printed with control characters escaped."
    yield "No command runs stored code or loads a model library."
    yield "A store that is a local directory has to exist, but for `push` and `doctor`."
    yield ""
    yield "With `--json` stdout is one JSON document, described below, whose keys stay."
    yield "An error is then one line of JSON, the last on stderr:"
    yield '`{"error": {"type": "NotFoundError", "message": "…", "notes": []}}`.'
    yield "`type` is the name of the Python error; `UsageError` is a command line that is wrong."
    yield "A warning stays a line that begins with `warning: `."
    yield ""
    yield "| exit code | error | meaning |"
    yield "|---|---|---|"
    for code, kind, meaning in meanings():
        yield f"| {code} | {f'`{kind}`' if kind else ''} | {meaning} |"
    yield ""
    yield "## Options of every command"
    yield ""
    yield from _options(COMMON)
    yield ""
    yield "## A checkpoint in JSON"
    yield ""
    yield from _prose(inspect.getdoc(documents.checkpoint))
    for name, command in main.commands.items():
        yield ""
        yield from _command(name, command)
    yield ""


def _command(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"holdfast {name}")
    yield f"## holdfast {name}"
    yield ""
    yield "```text"
    yield " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield "```"
    yield ""
    yield from _prose(command.help)
    yield ""
    if own := [
        param for param in command.params if isinstance(param, click.Option) and param not in COMMON
    ]:
        yield from _options(own)
        yield ""
    yield "With `--json`:"
    yield ""
    yield from _prose(inspect.getdoc(getattr(documents, name)))


def _options(params: Sequence[click.Option]) -> Iterator[str]:
    yield "| option | meaning |"
    yield "|---|---|"
    for option in params:
        names, meaning = option.get_help_record(click.Context(main)) or ("", "")
        yield f"| `{_cell(names)}` | {_cell(meaning)} |"


def _prose(text: str | None) -> list[str]:
    """A text with a line for each sentence and each item of a list."""
    joined = re.sub(r"(?<!\n)\n(?![\n-])", " ", (text or "").strip())
    return re.sub(r"(?<=\.) (?=[A-Z])", "\n", joined).splitlines()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
