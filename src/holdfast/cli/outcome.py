"""How a command ends: its exit code, and what went wrong in one clear message."""

import contextlib
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from holdfast.cli.tables import escaped
from holdfast.errors import (
    AccessDenied,
    CheckpointError,
    CheckpointWarning,
    CorruptionError,
    DeadlineExceeded,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StorageFull,
    SupersededError,
)

UNEXPECTED = 1
USAGE = 2
DAMAGED = 4
#: 128 and the number of SIGINT, as a shell reports a process that ended by it (POSIX, "Shell
#: Command Language", 2.8.2).
INTERRUPTED = 130

#: What a caller can act on; an error that is not here has the code of the nearest kind that is.
EXIT_CODES: dict[type[CheckpointError], tuple[int, str]] = {
    InvalidInputError: (USAGE, "the call is wrong; nothing was touched"),
    NotFoundError: (3, "no such store, checkpoint or pin"),
    CorruptionError: (DAMAGED, "stored bytes differ from the manifest"),
    FormatError: (5, "a record that this version cannot read"),
    StorageError: (6, "the place failed; the same call may be repeated"),
    AccessDenied: (7, "no right, or expired credentials"),
    StorageFull: (8, "no space or quota"),
    DeadlineExceeded: (9, "no answer in time"),
    SupersededError: (10, "another session took over"),
}

#: A shorter text given as an option's value is no secret, and occurs in any message by chance.
_SECRET_LENGTH = 4


def meanings() -> Iterator[tuple[int, str, str]]:
    """Every exit code with the error that leads to it and what it means, in order."""
    yield 0, "", "done"
    yield UNEXPECTED, "", "anything else, or a question answered with no"
    for kind, (code, meaning) in EXIT_CODES.items():
        yield code, kind.__name__, meaning
    yield INTERRUPTED, "", "interrupted by Ctrl-C"


@contextlib.contextmanager
def outcome(arguments: Sequence[str]) -> Iterator[None]:
    """
    Turn what a command raises into a message on stderr and an exit code, and its warnings too.

    No traceback is shown, except by `python -X dev -m holdfast`, where an unexpected error goes
    through.

    Parameters:
        arguments (Sequence[str]): the command line as it was typed. With `--json` in it errors are
            JSON; the values of `--option` in it are taken out of every message.

    Raises:
        click.exceptions.Exit: with the exit code.
    """
    as_json = "--json" in arguments
    secrets = _secrets(arguments)
    with warnings.catch_warnings():
        _show_warnings(lambda text: say(escaped(f"warning: {_without(secrets, text)}"), err=True))
        try:
            yield
        except (click.exceptions.Exit, BrokenPipeError):
            raise
        except click.ClickException as error:
            if not as_json:
                raise  # click shows it below the usage of the command
            _tell("UsageError", _without(secrets, error.message), (), as_json=True)
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # ends the line on which a terminal shows ^C
            _tell("KeyboardInterrupt", "interrupted; what is committed is untouched", (), as_json)
            code = INTERRUPTED
        except CheckpointError as error:
            code = code_of(type(error))
            notes = [_without(secrets, note) for note in getattr(error, "__notes__", [])]
            _tell(type(error).__name__, _without(secrets, str(error)), notes, as_json)
        except OSError as error:
            _tell(
                "OSError", _without(secrets, f"the output cannot be written: {error}"), (), as_json
            )
            code = UNEXPECTED
        except Exception as error:
            if sys.flags.dev_mode:
                raise
            message = _without(secrets, f"{type(error).__name__}: {error} ({_where(error)})")
            hint = (
                "this is a mistake in holdfast; `python -X dev -m holdfast …` shows the traceback"
            )
            _tell(type(error).__name__, message, [hint], as_json)
            code = UNEXPECTED
        else:
            return
    raise click.exceptions.Exit(code)


def say(text: str, *, err: bool = False) -> None:
    """Print lines, if there are any; what does not print, or not there, is written as in Python."""
    if text:
        encoding = (sys.stderr if err else sys.stdout).encoding
        lines = "\n".join(map(escaped, text.split("\n")))
        click.echo(lines.encode(encoding, "backslashreplace").decode(encoding), err=err)


def code_of(kind: type[CheckpointError]) -> int:
    """The exit code of a kind of error."""
    near = (each for each in kind.__mro__ if each in EXIT_CODES)
    return EXIT_CODES[found][0] if (found := next(near, None)) else UNEXPECTED


def _tell(kind: str, message: str, notes: Sequence[str], as_json: bool) -> None:  # noqa: FBT001
    if as_json:
        document = {"error": {"type": kind, "message": message, "notes": list(notes)}}
        click.echo(json.dumps(document), err=True)
        return
    for text in (f"error: {message}", *(f"  {note}" for note in notes)):
        say(escaped(text), err=True)


def _show_warnings(tell: Callable[[str], None]) -> None:
    """Hand our own warnings to `tell`, each text once; others go where they went before."""
    told: set[str] = set()
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, CheckpointWarning):
            before(message, category, filename, lineno, file, line)
        elif str(message) not in told:
            told.add(str(message))
            tell(str(message))

    warnings.simplefilter("always", CheckpointWarning)
    warnings.showwarning = show


def _secrets(arguments: Sequence[str]) -> list[str]:
    """The texts among the values of `--option`, the longest first."""
    found: set[str] = set()
    for before, argument in zip(["", *arguments], arguments, strict=False):
        given = argument if before == "--option" else argument.partition("--option=")[2]
        value = given.partition("=")[2]
        found.add(value)
        with contextlib.suppress(ValueError, RecursionError):
            found.update(_texts(json.loads(value)))
    return sorted((text for text in found if len(text) >= _SECRET_LENGTH), key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
