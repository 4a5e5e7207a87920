"""How a command ends: codes, messages, warnings, and no secrets in any of them."""

import json
import warnings

import click
import pytest

import holdfast
from holdfast import errors
from holdfast.cli import main, values
from holdfast.cli.outcome import EXIT_CODES, meanings, outcome


def ended(capsys: pytest.CaptureFixture[str], error: BaseException, *arguments: str):
    """The exit code and the stderr of a command that raises."""
    with pytest.raises(click.exceptions.Exit) as raised, outcome(arguments):
        raise error
    printed = capsys.readouterr()
    assert printed.out == ""
    return raised.value.exit_code, printed.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInputError("no"), 2),
        (errors.NotFoundError("no"), 3),
        (errors.CorruptionError("no"), 4),
        (errors.FormatError("no"), 5),
        (errors.StorageError("no"), 6),
        (errors.AlreadyExists("no"), 6),
        (errors.AccessDenied("no"), 7),
        (errors.StorageFull("no"), 8),
        (errors.DeadlineExceeded("no"), 9),
        (errors.SupersededError("no"), 10),
        (errors.PendingSaveError("no"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_error_has_its_code(capsys, error, code) -> None:
    assert ended(capsys, error) == (code, "error: no\n")


def test_every_error_that_a_user_can_meet_has_a_code() -> None:
    ours = {
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.CheckpointError)
    }

    without = ours - EXIT_CODES.keys()

    assert without == {errors.CheckpointError, errors.AlreadyExists, errors.PendingSaveError}


def test_no_two_meanings_share_a_code() -> None:
    codes = [code for code, _, _ in meanings()]

    assert codes == sorted(set(codes))


def test_the_help_names_every_code(run) -> None:
    text = run("--help").stdout

    for code, _, meaning in meanings():
        assert f"  {code} " in text
        assert meaning in text


def test_notes_follow_the_message(capsys) -> None:
    error = errors.StorageError("it failed")
    error.add_note("the disk is old")

    assert ended(capsys, error)[1] == "error: it failed\n  the disk is old\n"


def test_an_error_for_programs_is_one_document(capsys) -> None:
    error = errors.StorageError("it\x1b failed")
    error.add_note("the disk is old")

    code, printed = ended(capsys, error, "ls", "--json")

    assert code == 6
    assert json.loads(printed) == {
        "error": {
            "type": "StorageError",
            "message": "it\x1b failed",
            "notes": ["the disk is old"],
        }
    }
    assert "\x1b" not in printed


def test_a_message_cannot_move_the_cursor_or_begin_a_line(capsys) -> None:
    _, printed = ended(capsys, errors.FormatError("bad: '\x1b[2J\nerror: none'"))

    assert printed == "error: bad: '\\x1b[2J\\nerror: none'\n"


def test_a_mistake_of_ours_is_told_without_a_traceback(capsys) -> None:
    code, printed = ended(capsys, ZeroDivisionError("division by zero"))

    assert code == 1
    assert printed.startswith("error: ZeroDivisionError: division by zero (test_outcome.py, line ")
    assert "Traceback" not in printed


def test_an_interruption_has_the_code_of_a_shell(capsys) -> None:
    code, printed = ended(capsys, KeyboardInterrupt())

    assert code == 130
    assert "interrupted" in printed


def test_a_closed_pipe_is_left_to_click() -> None:
    with pytest.raises(BrokenPipeError), outcome([]):
        raise BrokenPipeError


def test_our_warnings_are_lines_and_each_is_told_once(capsys) -> None:
    with outcome(["ls"]):
        for text in ("the \x1b[31m disk", "the \x1b[31m disk", "the other"):
            warnings.warn(text, errors.CheckpointWarning, stacklevel=1)

    assert capsys.readouterr().err == "warning: the \\x1b[31m disk\nwarning: the other\n"


def test_warnings_of_others_go_where_they_went_before() -> None:
    with pytest.warns(UserWarning, match="old"), outcome([]):
        warnings.warn("this is old", UserWarning, stacklevel=1)


def test_the_way_warnings_are_shown_is_put_back() -> None:
    before = warnings.showwarning

    with outcome([]):
        pass

    assert warnings.showwarning is before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--option", "key=hunter22"],
        ["--option=key=hunter22"],
        ["--option", 'client={"secret": ["hunter22"]}'],
        ["--option", 'key="hunter22"'],
        ["--option", "key=hunter22", "--json"],
    ],
    ids=" ".join,
)
def test_the_value_of_an_option_is_in_no_message(capsys, arguments) -> None:
    error = errors.StorageError("403 for hunter22 at host")
    error.add_note("hunter22 is wrong")

    _, printed = ended(capsys, error, "ls", *arguments)

    assert "hunter22" not in printed
    assert "at host" in printed


def test_the_value_of_an_option_is_in_no_warning(capsys) -> None:
    with outcome(["--option", "key=hunter22"]):
        warnings.warn("hunter22 is weak", errors.CheckpointWarning, stacklevel=1)

    assert capsys.readouterr().err == "warning: … is weak\n"


@pytest.mark.parametrize("given", ["hunter22", "=hunter22", "key=hunter22"])
def test_an_option_that_is_refused_does_not_show_its_value(run, root, given) -> None:
    result = run("ls", root, "--option", given)

    assert result.exit_code == 2
    assert "hunter22" not in result.output + result.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=true", True),
        ("k=3", 3),
        ("k=null", None),
        ('k={"a": [1]}', {"a": [1]}),
        ("k=text", "text"),
        ("k=", ""),
        ("k=NaN", "NaN"),
        ("k=a=b", "a=b"),
    ],
)
def test_the_value_of_an_option_is_json_or_else_text(text: str, value: object) -> None:
    assert values.pair(text) == ("k", value)


def test_options_reach_the_storage(run, monkeypatch) -> None:
    given = {}

    def open_backend(place, storage_options):
        given.update(storage_options)
        raise errors.AccessDenied("no")

    monkeypatch.setattr("holdfast.cli.place.open_backend", open_backend)

    result = run("ls", "s3://bucket/run", "--option", "anon=true", "--option", "key=abc")

    assert result.exit_code == 7
    assert given == {"anon": True, "key": "abc"}


def test_wrong_usage_is_told_with_the_usage(run) -> None:
    result = run("ls")

    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert "STORE" in result.stderr


def test_wrong_usage_is_a_document_for_programs(run) -> None:
    result = run("ls", "--json")

    assert result.exit_code == 2
    assert json.loads(result.stderr)["error"]["type"] == "UsageError"


def test_a_command_that_does_not_exist_is_wrong_usage(run) -> None:
    assert run("list", "x").exit_code == 2


def test_the_version_is_that_of_the_library(run) -> None:
    assert run("--version").stdout == f"holdfast, version {holdfast.__version__}\n"


@pytest.mark.parametrize("name", main.commands)
def test_every_command_and_option_has_help(run, name) -> None:
    command = main.commands[name]

    assert command.get_short_help_str(limit=60).endswith(".")
    assert not command.get_short_help_str(limit=60).endswith("...")
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help
            assert param.help.endswith(".")
    assert run(name, "-h").exit_code == 0
