"""What all commands share: the group they are in, the place they work on, the answer they give."""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from holdfast.cli import values
from holdfast.cli.documents import Document
from holdfast.cli.outcome import meanings, outcome, say
from holdfast.cli.place import open_place
from holdfast.version import __version__


@dataclass(frozen=True)
class Answer:
    """
    What a command has to say.

    Attributes:
        document (Document): for programs; all of stdout under `--json`.
        text (str): for people, on stdout.
        remark (str): for people, on stderr.
        code (int): the exit code.
    """

    document: Document
    text: str = ""
    remark: str = ""
    code: int = 0


_HELP = """
Look at a store of checkpoints, copy from and into it, and prune it.

STORE is a directory or a URL, such as runs/resnet or s3://bucket/runs/resnet.

CHECKPOINT is latest, an id, a step, the name of a pin, or best:METRIC, where METRIC may be followed
by :min or :max.

TIME is a number with a unit: 30s, 90min, 6h, 1d.
"""

_STORE = click.Argument(["store"])
_OPTION = click.Option(
    ["--option", "options"],
    multiple=True,
    type=values.pair,
    metavar="KEY=VALUE",
    help="An option of the storage, such as anon=true; may be repeated. VALUE is JSON, or else "
    "text. It is never shown, but other users of this machine may see a command line.",
)
_JSON = click.Option(
    ["--json", "as_json"],
    is_flag=True,
    help="Print one JSON document for programs; an error is JSON too.",
)


def command(
    *params: click.Parameter, opening: Callable[..., Any] = open_place
) -> Callable[[Callable[..., Answer]], click.Command]:
    """
    Make a command of a function that takes a store and the params and gives an answer.

    Parameters:
        params (click.Parameter): what it has beside STORE, --option and --json. One called
            `workspace` goes to the store and not to the function.
        opening (Callable): opens STORE, as `open_place` does; what it gives goes to the function.
    """

    def make(function: Callable[..., Answer]) -> click.Command:
        def run(
            *,
            store: str,
            options: Sequence[tuple[str, Any]],
            as_json: bool,
            workspace: str | None = None,
            **given: Any,
        ) -> None:
            opened = opening(store, options=options, workspace=workspace)
            answer = function(opened, **given)
            if as_json:
                say(json.dumps(answer.document, indent=2))
            else:
                say(answer.text)
                say(answer.remark, err=True)
            click.get_current_context().exit(answer.code)

        return click.Command(
            function.__name__,
            params=[_STORE, *params, _OPTION, _JSON],
            callback=run,
            help=inspect.getdoc(function),
        )

    return make


def group(*commands: click.Command) -> click.Group:
    """The command that has these below it, in this order."""
    made = _Group(
        "holdfast",
        commands=commands,
        help=_HELP,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return click.version_option(__version__, prog_name="holdfast")(made)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with outcome(ctx.args):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Exit codes"):
            formatter.write_dl(
                [
                    (str(code), f"{meaning} ({kind})" if kind else meaning)
                    for code, kind, meaning in meanings()
                ]
            )
