"""The command that finds out what a place can do."""

import click

from holdfast.checkpoint import CheckpointId
from holdfast.cli import documents, tables
from holdfast.cli.examination import Examination
from holdfast.cli.findings import Finding
from holdfast.cli.frame import Answer, command
from holdfast.cli.outcome import code_of
from holdfast.cli.place import Opened, open_twice
from holdfast.errors import InvalidInputError, StorageError


@command(
    click.Option(["--read-only"], is_flag=True, help="Write nothing; say less."),
    click.Option(
        ["--clear-marks"],
        is_flag=True,
        help="Remove the marks of prunes that died, on checkpoints that are still there; only "
        "while no prune runs.",
    ),
    click.Option(
        ["--workspace"],
        metavar="DIRECTORY",
        help="The workspace that the training is going to use.",
    ),
    opening=open_twice,
)
def doctor(place: Opened, *, read_only: bool, clear_marks: bool) -> Answer:
    """
    Find out what a place can do.

    Tries what a save, a resume and a prune need, with objects of its own, which it removes again
    where it may. Each line says ok, no, or note. The exit code is 0 if saves are safe there; what
    the place cannot promise is said.
    """
    if read_only and clear_marks:
        raise InvalidInputError(
            "--clear-marks removes, and --read-only does not. Nothing was touched. Leave one out."
        )
    examination = Examination(place)
    findings = [*examination.run(read_only=read_only)]
    marks: dict[CheckpointId, list[str]] = {}
    if examination.is_reachable:
        try:
            marks = examination.marks()
            if clear_marks:
                place.backend.delete(*(key for keys in marks.values() for key in keys))
        except StorageError as error:
            findings.append(Finding("marks", "no", str(error)))
        else:
            findings.append(_marks(marks, cleared=clear_marks))
    failed = next((each.error for each in findings if each.error), None)
    left = examination.left
    return Answer(
        documents.doctor(place.store.url, findings, left=left, marks=[*marks], cleared=clear_marks),
        tables.findings(findings),
        " ".join([_verdict(findings, read_only=read_only), *_told_of(left)]),
        code=code_of(type(failed)) if failed else 0,
    )


def _marks(marks: dict[CheckpointId, list[str]], *, cleared: bool) -> Finding:
    if not marks:
        return Finding("marks", "ok", "no prune has left a mark")
    listed = ", ".join(map(str, marks))
    if cleared:
        return Finding("marks", "ok", f"removed from {listed}")
    text = f"a prune is removing {listed}, or died; if none runs, --clear-marks lets it be pinned"
    return Finding("marks", "note", text)


def _verdict(findings: list[Finding], *, read_only: bool) -> str:
    if any(each.error for each in findings):
        return "Saves are not safe here."
    if read_only:
        return "It can be read; whether it can be saved to was not tried."
    if any(each.outcome == "no" or each.check == "promises" for each in findings):
        return "Saves are safe here while one process at a time saves and prunes."
    return "Saves are safe here."


def _told_of(left: list[str]) -> list[str]:
    if not left:
        return []
    return [f"Left there, as it could not be removed: {', '.join(left)}. A sweep removes it."]
