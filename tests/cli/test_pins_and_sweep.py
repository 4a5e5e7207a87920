"""`holdfast pin`, `holdfast unpin` and `holdfast sweep`."""

import json
import os
import time


def test_a_pin_protects_what_a_name_stands_for(run, store, file) -> None:
    saved = store.save(file, step=1)
    store.save(file, step=2)

    result = run("pin", store.url, "1", "paper")

    assert result.exit_code == 0
    assert result.stdout == f"{saved} is pinned as paper.\n"
    assert store.pins() == {"paper": [saved.id]}


def test_the_document_of_a_pin_has_the_checkpoint(run, store, file) -> None:
    saved = store.save(file, step=1)

    document = json.loads(run("pin", store.url, "latest", "paper", "--json").stdout)

    assert document.keys() == {"store", "pin", "checkpoint"}
    assert document["pin"] == "paper"
    assert document["checkpoint"]["id"] == str(saved)
    assert document["checkpoint"]["pins"] == ["paper"]


def test_a_pin_needs_a_portable_name(run, store, file) -> None:
    store.save(file, step=1)

    assert run("pin", store.url, "1", "a/b").exit_code == 2
    assert store.pins() == {}


def test_a_pin_cannot_take_a_name_that_stands_for_something_else(run, store, file) -> None:
    saved = store.save(file, step=1)

    for taken in ("latest", "1", str(saved)):
        result = run("pin", store.url, "1", taken)

        assert result.exit_code == 2
        assert "names a checkpoint already" in result.stderr
    assert store.pins() == {}


def test_unpinning_a_name_frees_all_that_have_it(run, store, file) -> None:
    first, second = store.save(file, step=1), store.save(file, step=2)
    store.pin(first, "paper")
    store.pin(second, "paper")

    document = json.loads(run("unpin", store.url, "paper", "--json").stdout)

    assert document == {
        "store": store.url,
        "pin": "paper",
        "freed": [str(first), str(second)],
    }
    assert store.pins() == {}


def test_unpinning_one_checkpoint_leaves_the_other(run, store, file) -> None:
    first, second = store.save(file, step=1), store.save(file, step=2)
    store.pin(first, "paper")
    store.pin(second, "paper")

    result = run("unpin", store.url, "paper", "1")

    assert result.stdout == f"{first}: no longer pinned as paper.\n"
    assert store.pins() == {"paper": [second.id]}


def test_the_pin_of_a_checkpoint_that_is_gone_is_removed_by_its_id(run, store, file, root) -> None:
    gone = store.save(file, step=1)
    store.save(file, step=2)
    store.pin(gone, "paper")
    (root / "manifests" / f"{gone}.json").unlink()

    assert run("unpin", store.url, "paper", gone).exit_code == 0
    assert store.pins() == {}


def test_a_pin_that_is_not_there_is_not_found(run, store, file) -> None:
    store.save(file, step=1)

    assert run("unpin", store.url, "paper").exit_code == 3
    assert run("unpin", store.url, "paper", "1").exit_code == 3


def leave_remains(root, *, hours_ago: float) -> str:
    key = "files/0009-000000000009-0badc0de/model.keras"
    (root / key).parent.mkdir(parents=True)
    (root / key).write_bytes(b"part")
    then = time.time() - hours_ago * 3600
    os.utime(root / key, (then, then))
    return key


def test_a_sweep_prints_what_it_removes(run, store, file, root) -> None:
    store.save(file, step=1)
    key = leave_remains(root, hours_ago=48)

    result = run("sweep", store.url)

    assert result.exit_code == 0
    assert result.stdout == f"{key}\n"
    assert result.stderr == "1 file removed.\n"
    assert not (root / key).exists()
    assert run("verify", store.url).exit_code == 0


def test_a_sweep_spares_what_is_younger_than_it_is_told(run, store, file, root) -> None:
    store.save(file, step=1)
    key = leave_remains(root, hours_ago=2)

    assert run("sweep", store.url).stdout == ""
    assert run("sweep", store.url, "--older-than", "90min").stdout == f"{key}\n"


def test_a_dry_sweep_removes_nothing(run, store, file, root) -> None:
    store.save(file, step=1)
    key = leave_remains(root, hours_ago=48)

    document = json.loads(run("sweep", store.url, "--dry-run", "--json").stdout)

    assert document == {"store": store.url, "dry_run": True, "remove": [key]}
    assert (root / key).exists()
