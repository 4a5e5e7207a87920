"""The benchmarks run, and their tables say what was measured. Nothing here looks at a clock."""

import inspect
import json
import os
import sys

import pytest

from benchmarks import cloud, imports, measuring, restores, saves, suite, table, training
from benchmarks.contestants import RESTORES, KerasWeightsFile

#: As little as there can be: one block of the network, one repeat.
TINY = {"megabytes": 0.1, "repeats": 1, "blocks": 1}
OURS = "Holdfast `ModelCheckpoint`"
CALLS = ["Holdfast `store.restore`", "Keras `load_weights`"]


@pytest.fixture(scope="module", autouse=True)
def busy_disk():
    """What others write meanwhile has to be on the disk only where something is measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What a run of everything that needs no peer finds."""
    tiny = {**TINY, "directory": str(tmp_path_factory.mktemp("disk"))}
    found = {
        "machine": {"processor": "a machine", "versions": "Python 3"},
        "saves": {"0.1": {OURS: saves.measure(OURS, **tiny)}},
        "restores": {"0.1": {each: restores.measure(RESTORES[each], **tiny) for each in CALLS}},
        "training": {OURS: training.measure(OURS, **tiny), "Orbax": {"failed": "not there"}},
        "imports": imports.compare(["import holdfast"], repeats=1),
    }
    return json.loads(json.dumps(found))


def test_every_figure_of_every_contestant_stands_in_a_table(results):
    text = "\n".join(table.lines(results))

    assert text.count(f"| {OURS} |") == 2  # saves, training
    for name in (*CALLS, "`import holdfast`"):
        assert f"| {name} |" in text


def test_who_failed_stands_in_the_table_with_the_reason(results):
    text = "\n".join(table.lines(results))

    assert "| Orbax | not there |" in text


def test_a_page_is_given_the_tables_between_its_markers_and_keeps_the_rest(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold figures\n{table.END}\nafter\n")

    table.write(results, page)

    before, after = page.read_text().split(table.BEGIN)[0], page.read_text().split(table.END)[1]
    assert (before, after) == ("before\n", "\nafter\n")
    assert "old figures" not in page.read_text()
    assert "What was aimed at" in page.read_text()


def test_a_contestant_that_brings_back_other_values_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(KerasWeightsFile, "restore", lambda contestant: contestant.model)

    with pytest.raises(ValueError, match="did not bring back"):
        restores.measure(RESTORES[CALLS[1]], **TINY, directory=str(tmp_path))


def test_a_process_that_fails_is_a_result_that_says_why():
    found = measuring.in_a_process("limits")

    assert found["failed"].startswith("ended with 1: AttributeError: ")


def test_the_suite_asks_each_part_for_what_it_measures(monkeypatch, capsys):
    parts = {"saves": saves, "training": training, "restores": restores, "cloud": cloud}
    asked = []

    def ask(part, environment=None, **task):
        asked.append((part, task))
        return {"failed": "not run"}

    monkeypatch.setattr(suite, "in_a_process", ask)
    monkeypatch.setattr(sys, "argv", ["suite", "--sizes", "1,2000", "--parts", *parts])

    suite.main()

    for part, task in asked:
        inspect.signature(parts[part].measure).bind(**task)
    assert {part for part, _ in asked} == {*parts}
    assert capsys.readouterr().out.count("| not run |") == len(asked)
