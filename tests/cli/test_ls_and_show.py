"""`holdfast ls` and `holdfast show`."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import CheckpointStore, Files
from holdfast.backends.local import LocalBackend
from holdfast.cli import tables

RECORD = {
    "id", "session", "step", "created_at", "size", "files", "metrics", "metadata", "writer",
    "parent", "holdfast", "pins",
}  # fmt: skip


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_checkpoints_are_listed_in_the_order_of_training(run, store, file) -> None:
    first, rolled_back = store.save(file, step=900), store.save(file, step=500)

    listed = run("ls", store.url)

    assert listed.exit_code == 0
    assert rows(listed.stdout) == [
        ["ID", "STEP", "SESSION", "AGE", "SIZE"],
        [str(first), "900", "1", "0s", "7", "B"],
        [str(rolled_back), "500", "2", "0s", "7", "B"],
    ]


def test_a_limit_leaves_the_newest(run, store, file) -> None:
    saved = [store.save(file, step=step) for step in range(5)]

    listed = run("ls", store.url, "--limit", 2)

    assert [row[0] for row in rows(listed.stdout)[1:]] == [str(each) for each in saved[-2:]]


def test_a_limit_reads_no_more_than_it_shows(run, store, file, root) -> None:
    oldest = store.save(file, step=1)
    store.save(file, step=2)
    (root / "manifests" / f"{oldest}.json").write_bytes(b"{}")

    listed = run("ls", root, "--limit", 1)

    assert listed.exit_code == 0
    assert listed.stderr == ""


def test_metrics_have_columns_and_a_missing_one_stays_empty(run, store, file) -> None:
    store.save(file, step=1, metrics={"val_loss": 0.31})
    store.save(file, step=2, metrics={"accuracy": 0.5})

    head, first, second = run("ls", store.url).stdout.splitlines()

    assert head.split()[-2:] == ["accuracy", "val_loss"]
    assert first.split()[-1] == "0.31"
    assert second.split()[-1] == "0.5"


def test_the_metrics_to_show_are_chosen_by_name_in_either_spelling(run, store, file) -> None:
    store.save(file, step=1, metrics={"loss": 1.0, "val_acc": 0.75})

    head, line = run("ls", store.url, "--metric", "val_accuracy").stdout.splitlines()

    assert head.split()[-1] == "val_accuracy"
    assert line.split()[-1] == "0.75"
    assert "loss" not in head


def test_more_metrics_than_fit_are_named_beside_the_table(run, store, file) -> None:
    store.save(file, step=1, metrics={f"metric_{number}": number for number in range(7)})

    listed = run("ls", store.url)

    assert "metric_4" in listed.stdout
    assert "metric_5" not in listed.stdout
    assert "metric_5, metric_6" in listed.stderr


def test_pins_are_shown(run, store, file) -> None:
    saved = store.save(file, step=1)
    store.pin(saved, "paper")
    store.pin(saved, "best")

    listed = run("ls", store.url)

    assert listed.stdout.splitlines()[1].endswith("best, paper")


def test_a_session_that_was_resumed_says_from_where_once(run, store, file, tmp_path) -> None:
    origin = store.save(file, step=9)
    store.restore(Files(tmp_path / "restored"))
    store.save(file, step=1)
    store.save(file, step=2)

    lines = run("ls", store.url).stdout.splitlines()

    assert lines[0].endswith("RESUMED FROM")
    assert lines[2].endswith(str(origin))
    assert lines[3].split()[-1] == "B"


def test_an_empty_store_says_so(run, root) -> None:
    root.mkdir()

    listed = run("ls", root)

    assert listed.exit_code == 0
    assert listed.stdout == ""
    assert f"{root} holds no checkpoint" in listed.stderr


def test_an_empty_store_is_a_document_without_checkpoints(run, root) -> None:
    root.mkdir()

    listed = run("ls", root, "--json")

    assert json.loads(listed.stdout) == {"store": f"file://{root}", "checkpoints": []}
    assert listed.stderr == ""


def test_the_document_of_a_list_has_every_checkpoint_whole(run, store, file) -> None:
    saved = store.save(file, step=7, metrics={"loss": 0.5}, metadata={"note": "héllo", "n": None})
    store.pin(saved, "paper")

    document = json.loads(run("ls", store.url, "--json").stdout)

    assert document.keys() == {"store", "checkpoints"}
    [listed] = document["checkpoints"]
    assert listed.keys() == RECORD
    assert listed["id"] == str(saved)
    assert (listed["session"], listed["step"], listed["size"]) == (1, 7, 7)
    assert datetime.fromisoformat(listed["created_at"]) == saved.created_at
    assert listed["files"] == [{"path": "model.keras", "size": 7, "hash": saved.files[0].hash}]
    assert listed["metrics"] == {"loss": 0.5}
    assert listed["metadata"] == {"note": "héllo", "n": None}
    assert listed["parent"] is None
    assert listed["pins"] == ["paper"]


def test_all_of_a_checkpoint_is_shown(run, store, file) -> None:
    saved = store.save(file, step=7, metrics={"loss": 1 / 3}, metadata={"lr": 0.1, "ok": True})
    store.pin(saved, "paper")

    shown = run("show", store.url, "latest")

    assert shown.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines() if "  " in line)
    assert facts["id"] == str(saved)
    assert facts["step"] == "7"
    assert facts["pins"] == "paper"
    assert facts["loss"] == "0.3333333333333333"
    assert facts["lr"] == "0.1"
    assert facts["ok"] == "true"
    assert facts["model.keras"] == f"7 B  {saved.files[0].hash}"


def test_the_document_of_a_checkpoint_has_the_same_shape_as_in_a_list(run, store, file) -> None:
    store.save(file, step=7)

    document = json.loads(run("show", store.url, "7", "--json").stdout)

    assert document.keys() == {"store", "checkpoint"}
    assert document["checkpoint"].keys() == RECORD


def test_a_checkpoint_is_named_in_every_way(run, store, file) -> None:
    worst = store.save(file, step=1, metrics={"val_loss": 3.0, "score": 1.0})
    best = store.save(file, step=2, metrics={"val_loss": 1.0, "score": 3.0})
    latest = store.save(file, step=3, metrics={"val_loss": 2.0, "score": 2.0})
    store.pin(worst, "paper")
    names = {
        "latest": latest, str(worst): worst, "2": best, "paper": worst, "best:val_loss": best,
        "best:val_loss:max": worst, "best:score:max": best, "best:score:min": worst,
    }  # fmt: skip

    found = {
        name: json.loads(run("show", store.url, name, "--json").stdout)["checkpoint"]["id"]
        for name in names
    }

    assert found == {name: str(checkpoint) for name, checkpoint in names.items()}


@pytest.mark.parametrize("name", ["12", "nobody", "0001-000000000012-00000000", "best:f1"])
def test_a_name_that_nothing_has_is_not_found(run, store, file, name) -> None:
    store.save(file, step=1, metrics={"loss": 1.0})

    shown = run("show", store.url, name)

    assert shown.exit_code == 3
    assert shown.stderr.startswith("error: ")


def test_a_best_that_nothing_has_names_what_there_is(run, store, file) -> None:
    store.save(file, step=1, metrics={"loss": 1.0})

    shown = run("show", store.url, "best:f1")

    assert "metrics present: loss" in shown.stderr


def test_a_metric_that_does_not_tell_its_direction_asks_for_it(run, store, file) -> None:
    store.save(file, step=1, metrics={"zeal": 1.0})

    shown = run("show", store.url, "best:zeal")

    assert shown.exit_code == 2
    assert "best:METRIC:min" in shown.stderr


def test_a_manifest_that_cannot_be_read_is_passed_over_with_a_warning(run, store, file, root):
    whole, damaged = store.save(file, step=1), store.save(file, step=2)
    (root / "manifests" / f"{damaged}.json").write_bytes(b"{}")

    listed = run("ls", root)

    assert listed.exit_code == 0
    assert str(whole) in listed.stdout
    assert str(damaged) not in listed.stdout
    assert listed.stderr.startswith(f"warning: the manifest of {damaged} is passed over")


def test_a_store_that_cannot_be_read_does_not_look_empty(run, store, file, root) -> None:
    saved = store.save(file, step=1)
    (root / "manifests" / f"{saved}.json").write_bytes(b"{}")

    listed = run("ls", root)

    assert listed.exit_code == 5
    assert listed.stdout == ""


def test_what_came_from_a_store_cannot_move_the_cursor(run, root, file) -> None:
    store = CheckpointStore(LocalBackend(root))
    saved = store.save(
        file,
        step=1,
        metrics={"\x1b[31mred": 1.0, "zwölf": 2.0},
        metadata={"bell\x07": "\x9b2J\u202e\r\n\x7f", "note": "\u2028"},
    )
    planted = root / "pins" / "\x1b[2J" / str(saved)
    planted.parent.mkdir(parents=True)
    planted.touch()

    printed = [run(*words, store.url).output for words in (["ls"], ["prune", "--keep-last", "1"])]
    printed.append(run("show", store.url, "latest").output)

    for text in printed:
        assert all(each.isprintable() or each == "\n" for each in text)
    assert "\\x1b[31mred" in printed[0]
    assert "zwölf" in printed[0]
    assert "\\x1b[2J" in printed[0]
    assert "\\x9b2J\\u202e\\r\\n\\x7f" in printed[2]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1min"), (7_199, "1h"), (86_400 * 40, "40d")],
)
def test_an_age_is_in_the_largest_unit_that_it_fills(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)

    assert tables.age(now - timedelta(seconds=seconds), now) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**61, "2048.0 PiB")],
)
def test_a_size_is_in_binary_units(count: int, text: str) -> None:
    assert tables.size(count) == text


def test_a_column_without_content_is_left_out() -> None:
    text = tables.table(
        [
            tables.Column("A", ["1", "10"], right=True),
            tables.Column("B", ["", ""]),
            tables.Column("C", ["x", ""]),
        ]
    )

    assert text == " A  C\n 1  x\n10"
