"""What programs read: the JSON documents of the command, whose keys stay as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast import manifest
from holdfast.checkpoint import Checkpoint, CheckpointId
from holdfast.cli.findings import Finding
from holdfast.fetching import Report
from holdfast.retention import PrunePlan

Document = dict[str, Any]
Pins = Mapping[CheckpointId, Sequence[str]]


def checkpoint(found: Checkpoint, pins: Pins) -> Document:
    """
    A checkpoint in any document, under the names that its manifest has.

    - `id`, `session`, `step`
    - `created_at`: when it was staged, UTC, such as `2026-01-31T12:00:00.000000Z`
    - `size`: bytes of all its files together
    - `files`: a list of `path`, `size` in bytes, and `hash` with its algorithm's name
    - `metrics`, `metadata`: by name
    - `writer`: which process wrote it
    - `parent`: the id of the checkpoint that its run was resumed from, or null
    - `holdfast`: the version that wrote it
    - `pins`: the names of its pins
    """
    return {
        "id": str(found.id),
        "session": found.session,
        "step": found.step,
        "created_at": manifest.write_time(found.created_at),
        "size": found.size,
        "files": manifest.write_files(found.files),
        "metrics": dict(found.metrics),
        "metadata": dict(found.metadata),
        "writer": found.writer,
        "parent": str(found.parent) if found.parent else None,
        "holdfast": found.version,
        "pins": list(pins.get(found.id, ())),
    }


def ls(url: str, found: Sequence[Checkpoint], pins: Pins) -> Document:
    """
    The checkpoints of a store.

    - `store`: its URL, without credentials
    - `checkpoints`: a list of checkpoints, in the order of training
    """
    return {"store": url, "checkpoints": [checkpoint(each, pins) for each in found]}


def show(url: str, found: Checkpoint, pins: Pins) -> Document:
    """
    One checkpoint.

    - `store`
    - `checkpoint`
    """
    return {"store": url, "checkpoint": checkpoint(found, pins)}


def verify(url: str, found: Report) -> Document:
    """
    What a verification found.

    - `store`
    - `ok`: whether nothing is damaged
    - `deep`: whether every byte was hashed
    - `checked`: a list of ids
    - `damage`: a list of `checkpoint` (an id), `path` and `what`
    """
    return {
        "store": url,
        "ok": found.ok,
        "deep": found.deep,
        "checked": [str(each.id) for each in found.checked],
        "damage": [
            {"checkpoint": str(each.checkpoint), "path": each.path, "what": each.what}
            for each in found.damage
        ],
    }


def pull(url: str, found: Checkpoint, pins: Pins, path: str) -> Document:
    """
    What was brought here.

    - `store`
    - `checkpoint`
    - `path`: the directory with its files
    """
    return {**show(url, found, pins), "path": path}


def push(url: str, found: Checkpoint) -> Document:
    """
    What was committed.

    - `store`
    - `checkpoint`
    """
    return show(url, found, {})


def wait(url: str, found: Checkpoint) -> Document:
    """
    What is in Drive.

    - `store`
    - `checkpoint`
    """
    return show(url, found, {})


def prune(url: str, planned: PrunePlan, pins: Pins, *, rule: str, dry_run: bool) -> Document:
    """
    What stays and what goes.

    - `store`
    - `rule`: the retention, as it is written in Python
    - `dry_run`: true where nothing was removed
    - `keep`: a list of `checkpoint` and `reasons`, in the order of training
    - `remove`: a list of checkpoints, in the order of training
    """
    return {
        "store": url,
        "rule": rule,
        "dry_run": dry_run,
        "keep": [
            {"checkpoint": checkpoint(kept.checkpoint, pins), "reasons": list(kept.reasons)}
            for kept in planned.keep
        ],
        "remove": [checkpoint(each, pins) for each in planned.remove],
    }


def pin(url: str, name: str, found: Checkpoint, pins: Pins) -> Document:
    """
    The checkpoint that a pin now protects.

    - `store`
    - `pin`: the pin's name
    - `checkpoint`
    """
    return {"store": url, "pin": name, "checkpoint": checkpoint(found, pins)}


def unpin(url: str, name: str, freed: Sequence[CheckpointId]) -> Document:
    """
    The checkpoints that a pin of this name no longer protects.

    - `store`
    - `pin`: the pin's name
    - `freed`: a list of ids
    """
    return {"store": url, "pin": name, "freed": [str(id) for id in freed]}


def doctor(
    url: str,
    findings: Sequence[Finding],
    *,
    left: Sequence[str],
    marks: Sequence[CheckpointId],
    cleared: bool,
) -> Document:
    """
    What a place can do.

    - `store`
    - `ok`: whether saves are safe
    - `findings`: a list of `check`, `outcome` (`ok`, `no` or `note`) and `text`
    - `left`: a list of keys that were written for this and not removed
    - `marks`: a list of ids of checkpoints that a prune has marked and not removed
    - `cleared`: true where those marks were removed
    """
    return {
        "store": url,
        "ok": not any(each.error for each in findings),
        "findings": [
            {"check": each.check, "outcome": each.outcome, "text": each.text} for each in findings
        ],
        "left": list(left),
        "marks": [str(id) for id in marks],
        "cleared": cleared,
    }


def sweep(url: str, keys: Sequence[str], *, dry_run: bool) -> Document:
    """
    What no manifest names.

    - `store`
    - `dry_run`: true where nothing was removed
    - `remove`: a list of keys, relative to the store
    """
    return {"store": url, "dry_run": dry_run, "remove": list(keys)}
