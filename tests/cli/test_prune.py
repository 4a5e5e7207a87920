"""`holdfast prune`."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
from click import BadParameter

from holdfast import KeepBest, KeepEvery, KeepLast, KeepWithin, PrunePlan, Rule
from holdfast.cli import rules, values
from holdfast.retention import Kept, plan


@pytest.fixture
def saved(store, file) -> list:
    """Steps 1 to 6; the lowest loss is that of step 2."""
    losses = {1: 0.9, 2: 0.1, 3: 0.5, 4: 0.4, 5: 0.3, 6: 0.2}
    return [store.save(file, step=step, metrics={"loss": loss}) for step, loss in losses.items()]


def steps(store) -> list[int]:
    return [checkpoint.step for checkpoint in store.checkpoints()]


def at_a_terminal(
    *arguments: object, answer: str, meanwhile: Callable[[], object] = lambda: None
) -> tuple[int, str, str]:
    """Run the command with somebody at the keyboard; gives its code, stdout and stderr."""
    keyboard, stdin = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", *map(str, arguments)],
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(stdin)
    assert process.stderr is not None
    asked = ""
    while not asked.endswith("? [y/N]:"):
        asked += (letter := process.stderr.read(1))
        assert letter, asked
    meanwhile()
    os.write(keyboard, f"{answer}\n".encode())
    stdout, stderr = process.communicate(timeout=60)
    os.close(keyboard)
    return process.returncode, stdout, asked + stderr


def test_a_prune_shows_why_each_one_stays_and_removes_the_rest(run, store, saved) -> None:
    store.pin(saved[0], "paper")

    result = run("prune", store.url, "--keep-last", 2, "--keep-best", "loss")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "ID", "keep", "keep", "remove", "remove", "keep", "keep",
    ]  # fmt: skip
    assert lines[1].endswith("pinned: paper")
    assert lines[2].endswith("KeepBest('loss'): 0.1")
    assert lines[6].endswith("KeepLast(2); latest")
    assert result.stderr == "Removed 2 checkpoints, 14 B.\n"
    assert steps(store) == [1, 2, 5, 6]


def test_a_dry_run_shows_the_same_and_removes_nothing(run, store, saved) -> None:
    dry = run("prune", store.url, "--keep-last", 3, "--dry-run")

    assert steps(store) == [1, 2, 3, 4, 5, 6]
    assert "3 would go" in dry.stderr
    assert run("prune", store.url, "--keep-last", 3).stdout == dry.stdout


def test_a_second_prune_finds_nothing_to_do(run, store, saved) -> None:
    run("prune", store.url, "--keep-last", 3)

    again = run("prune", store.url, "--keep-last", 3)

    assert again.exit_code == 0
    assert again.stderr == "3 checkpoints kept, none goes. Nothing was removed.\n"
    assert steps(store) == [4, 5, 6]


def test_the_document_has_what_stays_with_its_reasons_and_what_goes(run, store, saved) -> None:
    result = run("prune", store.url, "--keep-last", 5, "--json")

    document = json.loads(result.stdout)
    assert document.keys() == {"store", "rule", "dry_run", "keep", "remove"}
    assert document["rule"] == "KeepLast(5)"
    assert document["dry_run"] is False
    assert [each["id"] for each in document["remove"]] == [str(saved[0])]
    assert [each["checkpoint"]["step"] for each in document["keep"]] == [2, 3, 4, 5, 6]
    assert document["keep"][-1]["reasons"] == ["KeepLast(5)", "latest"]
    assert result.stderr == ""
    assert steps(store) == [2, 3, 4, 5, 6]


def test_more_than_half_is_refused_where_nobody_can_be_asked(run, store, saved) -> None:
    result = run("prune", store.url, "--keep-last", 2)

    assert result.exit_code == 2
    assert "4 of 6 checkpoints" in result.stderr
    assert "--yes" in result.stderr
    assert steps(store) == [1, 2, 3, 4, 5, 6]


def test_half_is_not_more_than_half(run, store, saved) -> None:
    assert run("prune", store.url, "--keep-last", 3).exit_code == 0


def test_yes_said_beforehand_is_enough(run, store, saved) -> None:
    assert run("prune", store.url, "--keep-last", 2, "--yes").exit_code == 0

    assert steps(store) == [5, 6]


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["text", "json"])
def test_whoever_says_no_keeps_everything(store, saved, words) -> None:
    code, stdout, stderr = at_a_terminal("prune", store.url, "--keep-last", 2, *words, answer="n")

    assert code == 1
    assert "Remove 4 of 6 checkpoints, 28 B, from " in stderr
    assert stderr.endswith("Nothing was removed.\n")
    assert "remove" in (stderr if words else stdout)
    assert steps(store) == [1, 2, 3, 4, 5, 6]


def test_whoever_says_yes_removes_what_was_shown(store, saved) -> None:
    code, stdout, _ = at_a_terminal("prune", store.url, "--keep-last", 2, "--json", answer="y")

    assert code == 0
    assert [each["step"] for each in json.loads(stdout)["remove"]] == [1, 2, 3, 4]
    assert steps(store) == [5, 6]


def test_what_is_saved_while_somebody_thinks_stays(store, saved, file) -> None:
    def train_on() -> None:
        for step in (7, 8, 9):
            store.save(file, step=step)

    code, _, _ = at_a_terminal("prune", store.url, "--keep-last", 2, answer="y", meanwhile=train_on)

    assert code == 0
    assert steps(store) == [5, 6, 7, 8, 9]


def test_what_comes_to_be_kept_while_somebody_thinks_stays_too(store, saved, root) -> None:
    def lose_the_newest() -> None:
        for checkpoint in saved[4:]:
            (root / "files" / str(checkpoint) / "model.keras").unlink()

    code, _, stderr = at_a_terminal(
        "prune", store.url, "--keep-last", 2, answer="y", meanwhile=lose_the_newest
    )

    assert code == 0
    assert stderr.endswith("Removed 2 checkpoints, 14 B.\n")
    assert steps(store) == [3, 4, 5, 6]


def test_a_prune_without_a_rule_names_the_rules(run, store, saved) -> None:
    result = run("prune", store.url)

    assert result.exit_code == 2
    for option in ("--keep-last", "--keep-best", "--keep-every", "--keep-within", "--keep-all"):
        assert option in result.stderr


def test_a_rule_that_keeps_nothing_is_refused(run, store, saved) -> None:
    result = run("prune", store.url, "--keep-best", "accuracy", "--yes")

    assert result.exit_code == 2
    assert "metrics present: loss" in result.stderr
    assert "--keep-last 1" in result.stderr
    assert steps(store) == [1, 2, 3, 4, 5, 6]


def test_keep_all_keeps_all(run, store, saved) -> None:
    run("prune", store.url, "--keep-all", "--keep-last", 1, "--yes")

    assert steps(store) == [1, 2, 3, 4, 5, 6]


def test_an_empty_store_has_nothing_to_prune(run, root) -> None:
    root.mkdir()

    result = run("prune", root, "--keep-last", 1)

    assert result.exit_code == 0
    assert "nothing to remove" in result.stderr


def test_what_was_saved_after_the_plan_was_shown_stays(store, saved, file) -> None:
    shown = store.prune(KeepLast(2), dry_run=True)
    later = [store.save(file, step=step) for step in (7, 8, 9)]

    done = plan(KeepLast(2) | rules.KeepUnshown.of(shown), store.checkpoints())

    assert done.remove == shown.remove
    reasons = {kept.checkpoint: kept.reasons for kept in done.keep}
    assert reasons[later[0]] == ("saved since the plan was made",)
    assert reasons[later[1]] == ("KeepLast(2)", "saved since the plan was made")


def test_what_the_rule_has_come_to_keep_stays_too(store, saved) -> None:
    shown = PrunePlan(keep=(Kept(saved[5], ("latest",)),), remove=tuple(saved[:5]))

    done = plan(KeepLast(3) | rules.KeepUnshown.of(shown), saved)

    assert done.remove == tuple(saved[:3])


@pytest.mark.parametrize(
    ("option", "text", "rule"),
    [
        ("last", "3", KeepLast(3)),
        ("best", "val_loss", KeepBest("val_loss")),
        ("best", "val_loss:3", KeepBest("val_loss", 3)),
        ("best", "zeal:max", KeepBest("zeal", mode="max")),
        ("best", "val_loss:2:max", KeepBest("val_loss", 2, mode="max")),
        ("best", "a:b:min", KeepBest("a:b", mode="min")),
        ("every", "1000", KeepEvery(steps=1000)),
        ("every", "1000:5", KeepEvery(steps=1000, last=5)),
        ("every", "1d", KeepEvery(days=1)),
        ("every", "6h:4", KeepEvery(hours=6, last=4)),
        ("every", "90s", KeepEvery(minutes=1.5)),
        ("within", "2d", KeepWithin(days=2)),
        ("within", "1.5h", KeepWithin(hours=1.5)),
        ("within", "90min", KeepWithin(minutes=90)),
    ],
    ids=str,
)
def test_an_option_stands_for_the_rule_of_its_name(option: str, text: str, rule: Rule) -> None:
    made = getattr(rules, f"keep_{option}")(text)

    assert made == rule
    assert str(made) == str(rule)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("last", "0"),
        ("last", "-1"),
        ("last", "x"),
        ("last", "1.5"),
        ("best", ""),
        ("best", "zeal"),
        ("best", "loss:0"),
        ("every", "0"),
        ("every", "day"),
        ("every", "1d:"),
        ("every", "1d:0"),
        ("every", "0d"),
        ("every", ":3"),
        ("within", "2"),
        ("within", "2m"),
        ("within", "-2d"),
        ("within", "9999999999d"),
        ("within", "٢d"),
    ],
)
def test_a_rule_that_is_written_wrongly_is_refused(run, store, saved, option, text) -> None:
    result = run("prune", store.url, f"--keep-{option}={text}", "--yes")

    assert result.exit_code == 2
    assert f"'--keep-{option}'" in result.stderr
    assert steps(store) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", timedelta(seconds=30)),
        ("90min", timedelta(minutes=90)),
        ("6h", timedelta(hours=6)),
        ("1d", timedelta(days=1)),
        ("0.5h", timedelta(minutes=30)),
        ("0s", timedelta(0)),
    ],
)
def test_a_time_is_a_number_with_a_unit(text: str, span: timedelta) -> None:
    assert values.duration(text) == span


@pytest.mark.parametrize("text", ["", "1", "d", "1 day", "1m", "-1d", "1d6h", "9999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        values.duration(text)
