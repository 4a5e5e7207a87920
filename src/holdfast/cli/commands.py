"""The commands, and what each of them answers."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click

from holdfast import disk
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.cli import documents, rules, tables, values
from holdfast.cli.frame import Answer, command
from holdfast.cli.outcome import DAMAGED, UNEXPECTED, say
from holdfast.cli.place import open_place
from holdfast.errors import InvalidInputError, NotFoundError
from holdfast.fetching import Report
from holdfast.retention import KeepAll, PrunePlan, Rule
from holdfast.store import CheckpointStore

#: Columns of metrics that `ls` shows where nobody says which.
_METRIC_COLUMNS = 5

_CHECKPOINT = click.Argument(["checkpoint"])
_MAYBE_CHECKPOINT = click.Argument(["checkpoint"], required=False)
_DRY_RUN = click.Option(["--dry-run"], is_flag=True, help="Remove nothing, only tell.")
_WORKSPACE = click.Option(
    ["--workspace"],
    metavar="DIRECTORY",
    help="Where to put what is on its way, in place of the store's own workspace.",
)


@command(
    click.Option(
        ["--metric", "metrics"],
        multiple=True,
        metavar="NAME",
        help="Show this metric; may be repeated. Otherwise the first few are shown.",
    ),
    click.Option(
        ["--limit"], type=click.IntRange(min=1), metavar="N", help="Show only the newest N."
    ),
)
def ls(store: CheckpointStore, *, metrics: Sequence[str], limit: int | None) -> Answer:
    """
    List the checkpoints.

    They are in the order of training, the newest last. RESUMED FROM marks the first checkpoint of
    a session that went on from an earlier one.
    """
    found = list(islice(reversed(store), limit))[::-1]
    pins = _pins(store)
    shown = list(metrics) or tables.metric_names(found)
    remarks = [] if found else [f"{store.url} holds no checkpoint."]
    if not metrics and (hidden := shown[_METRIC_COLUMNS:]):
        shown = shown[:_METRIC_COLUMNS]
        remarks.append(f"More metrics: {', '.join(hidden)}. Choose with --metric.")
    return Answer(
        documents.ls(store.url, found, pins),
        tables.checkpoints(found, pins, shown, _now()),
        " ".join(remarks),
    )


@command(_CHECKPOINT)
def show(store: CheckpointStore, *, checkpoint: str) -> Answer:
    """Show one checkpoint with its files."""
    found = rules.find(store, checkpoint)
    pins = _pins(store)
    return Answer(
        documents.show(store.url, found, pins),
        tables.checkpoint(found, pins.get(found.id, ()), _now()),
    )


@command(
    _MAYBE_CHECKPOINT,
    click.Option(
        ["--deep"],
        is_flag=True,
        help="Fetch and hash every byte; otherwise compare presence and sizes.",
    ),
    _WORKSPACE,
)
def verify(store: CheckpointStore, *, checkpoint: str | None, deep: bool) -> Answer:
    """
    Compare what is stored with the manifests.

    Without CHECKPOINT it looks at all of them; a store that has none is an error, since nothing was
    verified.
    """
    report = store.verify(rules.find(store, checkpoint) if checkpoint else None)
    if not (report.checked or report.damage):
        raise NotFoundError(f"{store.url} holds no checkpoint, so nothing was verified.")
    if deep:
        report = _hashed(store, report)
    return Answer(
        documents.verify(store.url, report),
        tables.report(report),
        code=0 if report.ok else DAMAGED,
    )


def _hashed(store: CheckpointStore, quick: Report) -> Report:
    """The report on every byte of what a quick one has looked at."""
    checked: list[Checkpoint] = []
    damage = list(quick.damage)
    with _progress("verifying", sum(each.size for each in quick.checked)) as done:
        for each in quick.checked:
            with contextlib.suppress(NotFoundError):  # removed since, which is no damage
                damage += store.verify(each, deep=True).damage
                checked.append(each)
            done(each.size)
    return Report(tuple(checked), tuple(dict.fromkeys(damage)), deep=True)


@command(_MAYBE_CHECKPOINT, click.Argument(["to"], required=False), _WORKSPACE)
def pull(store: CheckpointStore, *, checkpoint: str | None, to: str | None) -> Answer:
    """
    Bring the files of a checkpoint here.

    Every byte is hashed on the way. Without CHECKPOINT it is the newest good one: a damaged one is
    passed over with a warning. The directory TO appears whole or not at all; without it, it is
    ./ID. Prints the directory.
    """
    if checkpoint:
        found = rules.find(store, checkpoint)
        path = store.download(found, to or str(found))
    else:
        found, path = _pull_newest_good(store)
    return Answer(documents.pull(store.url, found, _pins(store), str(path)), str(path))


def _pull_newest_good(store: CheckpointStore) -> tuple[Checkpoint, Path]:
    tried: list[Checkpoint] = []

    def begin(candidate: Checkpoint) -> bool:
        if Path(str(candidate)).exists():
            raise InvalidInputError(
                f"./{candidate} exists already; nothing was touched. Remove it, or say where to: "
                f"holdfast pull STORE {candidate} TO."
            )
        tried.append(candidate)
        return True

    # Which one is good, and so what the directory is called, is known once it is here.
    beside = store.download(to=f"~{disk.new_name()}", where=begin)
    target = Path(str(tried[-1]))
    try:
        with disk.disk_errors("write", target):
            disk.move_directory(beside, target)
    except BaseException:
        disk.remove(beside)
        raise
    return tried[-1], target


@command(
    click.Argument(["path"], type=click.Path(exists=True)),
    click.Option(
        ["--step"], required=True, type=int, metavar="N", help="The training step that it is of."
    ),
    click.Option(
        ["--metric", "metrics"],
        multiple=True,
        type=values.metric,
        metavar="NAME=NUMBER",
        help="A number measured at this step; may be repeated.",
    ),
    click.Option(
        ["--meta", "metadata"],
        multiple=True,
        type=values.pair,
        metavar="NAME=VALUE",
        help="A note; may be repeated. VALUE is a number, true, false, null, or else text.",
    ),
    _WORKSPACE,
    opening=partial(open_place, may_be_new=True),
)
def push(
    store: CheckpointStore,
    *,
    path: str,
    step: int,
    metrics: Sequence[tuple[str, float]],
    metadata: Sequence[tuple[str, Any]],
) -> Answer:
    """
    Save files as a checkpoint.

    PATH is a file, or a directory with all that lies below it. The checkpoint begins a session of
    its own: a run that still saves into this store is superseded by it. Prints the id.
    """
    saved = store.save(path, step=step, metrics=dict(metrics), metadata=dict(metadata))
    return Answer(documents.push(store.url, saved), str(saved))


@command(
    click.Option(
        ["--keep-last"],
        multiple=True,
        type=rules.keep_last,
        metavar="N",
        help="Keep the last N in the order of training.",
    ),
    click.Option(
        ["--keep-best"],
        multiple=True,
        type=rules.keep_best,
        metavar="METRIC[:N][:min|max]",
        help="Keep the N with the best value of a metric; without N, one.",
    ),
    click.Option(
        ["--keep-every"],
        multiple=True,
        type=rules.keep_every,
        metavar="STEPS|TIME[:LAST]",
        help="Keep one for each span of steps or of time; with LAST, of the newest so many spans.",
    ),
    click.Option(
        ["--keep-within"],
        multiple=True,
        type=rules.keep_within,
        metavar="TIME",
        help="Keep those that are at most so much older than the newest.",
    ),
    click.Option(["--keep-all"], is_flag=True, help="Keep everything."),
    _DRY_RUN,
    click.Option(
        ["--yes"], is_flag=True, help="Do not ask before more than half of the store is removed."
    ),
)
def prune(
    store: CheckpointStore,
    *,
    keep_all: bool,
    dry_run: bool,
    yes: bool,
    **keep: Sequence[Rule],
) -> Answer:
    """
    Remove the checkpoints that no rule keeps.

    Rules may be repeated and combined: what one of them keeps stays. The latest checkpoint, the
    pinned and the damaged ones always stay. Prints the plan, and asks before more than half of the
    store is removed.
    """
    given = [rule for several in keep.values() for rule in several]
    rule = rules.joined([*given, KeepAll()] if keep_all else given)
    plan = _plan(store, rule)
    text = tables.plan(plan)
    if dry_run or not plan.remove:
        remark = _told(plan)
    else:
        if not click.get_current_context().params["as_json"]:
            say(text)
            text = ""
        if len(plan.remove) > len(plan.keep) and not yes:
            _ask(plan, store, unseen=text)
        done = store.prune(rule | rules.KeepUnshown.of(plan))
        plan = replace(plan, remove=done.remove)
        remark = f"Removed {tables.counted(len(done.remove))}, {_size(done.remove)}."
        text = ""
    return Answer(
        documents.prune(store.url, plan, _pins(store), rule=str(rule), dry_run=dry_run),
        text,
        remark,
    )


def _plan(store: CheckpointStore, rule: Rule) -> PrunePlan:
    try:
        return store.prune(rule, dry_run=True)
    except InvalidInputError as error:
        error.add_note("Here KeepLast(1) is written --keep-last 1.")
        raise


def _told(plan: PrunePlan) -> str:
    if not plan.keep:
        return "There is no good checkpoint, so there is nothing to remove."
    gone = f"{len(plan.remove):,} would go, {_size(plan.remove)}" if plan.remove else "none goes"
    return f"{tables.counted(len(plan.keep))} kept, {gone}. Nothing was removed."


def _ask(plan: PrunePlan, store: CheckpointStore, *, unseen: str) -> None:
    """Have somebody agree to a plan, or end the command."""
    what = (
        f"{len(plan.remove):,} of {tables.counted(len(plan.keep) + len(plan.remove))}, "
        f"{_size(plan.remove)}, from {store.url}"
    )
    if not sys.stdin.isatty():
        raise InvalidInputError(
            f"this would remove {what}: more than half, and there is no terminal to ask at. "
            "Nothing was removed. Look at it with --dry-run, and allow it with --yes."
        )
    say(unseen, err=True)
    if not click.confirm(f"Remove {what}?", err=True):
        say("Nothing was removed.", err=True)
        click.get_current_context().exit(UNEXPECTED)


def _size(gone: Sequence[Checkpoint]) -> str:
    return tables.size(sum(each.size for each in gone))


@command(
    _MAYBE_CHECKPOINT,
    click.Option(
        ["--timeout"],
        type=values.duration,
        default="10min",
        show_default=True,
        metavar="TIME",
        help="How long to wait.",
    ),
)
def wait(store: CheckpointStore, *, checkpoint: str | None, timeout: timedelta) -> Answer:
    """
    Wait until a checkpoint is in Google Drive.

    STORE is on a mounted Drive, whose client keeps what is saved in this machine's cache and sends
    it later. Without CHECKPOINT it is the newest. Prints the id.
    """
    named = rules.find(store, checkpoint) if checkpoint else None
    found = store.wait_for_drive(named, timeout=timeout)
    return Answer(documents.wait(store.url, found), str(found))


@command(_CHECKPOINT, click.Argument(["name"]))
def pin(store: CheckpointStore, *, checkpoint: str, name: str) -> Answer:
    """Protect a checkpoint from every rule, under a name."""
    found = rules.find(store, checkpoint)
    store.pin(found, name)
    return Answer(
        documents.pin(store.url, name, found, _pins(store)), f"{found} is pinned as {name}."
    )


@command(click.Argument(["name"]), _MAYBE_CHECKPOINT)
def unpin(store: CheckpointStore, *, name: str, checkpoint: str | None) -> Answer:
    """
    Remove a pin.

    Without CHECKPOINT, from all that have one of this name.
    """
    # By its id the pin of a checkpoint that is gone can be removed too.
    named = checkpoint and (CheckpointId.parse(checkpoint) or rules.find(store, checkpoint).id)
    freed = store.unpin(name, str(named) if named else None)
    listed = ", ".join(map(str, freed))
    return Answer(documents.unpin(store.url, name, freed), f"{listed}: no longer pinned as {name}.")


@command(
    click.Option(
        ["--older-than"],
        type=values.duration,
        default="1d",
        show_default=True,
        metavar="TIME",
        help="Spare what is younger: an upload may still be under way.",
    ),
    _DRY_RUN,
)
def sweep(store: CheckpointStore, *, older_than: timedelta, dry_run: bool) -> Answer:
    """
    Remove the remains of interrupted work.

    These are files that no manifest names. Prints their keys.
    """
    keys = store.sweep(older_than=older_than, dry_run=dry_run)
    return Answer(
        documents.sweep(store.url, keys, dry_run=dry_run),
        "\n".join(keys),
        f"{tables.counted(len(keys), 'file')} {'would go' if dry_run else 'removed'}.",
    )


def _pins(store: CheckpointStore) -> dict[CheckpointId, list[str]]:
    """The names of the pins on each checkpoint."""
    found: dict[CheckpointId, list[str]] = {}
    for name, ids in store.pins().items():
        for id in ids:
            found.setdefault(id, []).append(name)
    return found


def _now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show on a terminal how much of some bytes is done; gives what to call with those done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield bar.update
