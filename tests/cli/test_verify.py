"""`holdfast verify`."""

import json
import os
import pty
import subprocess
import sys


def test_a_store_without_damage_verifies(run, store, file) -> None:
    store.save(file, step=1)
    store.save(file, step=2)

    result = run("verify", store.url)

    assert result.exit_code == 0
    assert result.stdout == (
        "2 checkpoints verified (presence and sizes only): all are as their manifests say\n"
    )
    assert result.stderr == ""


def test_a_missing_file_is_damage(run, store, file, root) -> None:
    damaged = store.save(file, step=1)
    store.save(file, step=2)
    (root / "files" / str(damaged) / "model.keras").unlink()

    result = run("verify", store.url)

    assert result.exit_code == 4
    assert result.stdout.splitlines()[1].split() == [str(damaged), "model.keras", "missing"]
    assert "2 checkpoints verified" in result.stdout
    assert "1 damaged" in result.stdout


def test_a_manifest_that_cannot_be_read_is_damage(run, store, file, root) -> None:
    damaged = store.save(file, step=1)
    store.save(file, step=2)
    manifest = root / "manifests" / f"{damaged}.json"
    manifest.write_bytes(manifest.read_bytes()[:-1])

    for deep in ([], ["--deep"]):
        result = run("verify", store.url, *deep)

        assert result.exit_code == 4
        assert f"manifests/{damaged}.json" in result.stdout


def test_other_content_of_the_same_size_is_found_by_hashing_only(run, store, file, root) -> None:
    damaged = store.save(file, step=1)
    stored = root / "files" / str(damaged) / "model.keras"
    stored.unlink()
    stored.write_bytes(b"wEights")

    quick, deep = run("verify", store.url), run("verify", store.url, "--deep")

    assert quick.exit_code == 0
    assert deep.exit_code == 4
    assert "other content" in deep.stdout
    assert "every byte hashed" in deep.stdout


def test_the_document_tells_each_damage_once(run, store, file, root) -> None:
    whole, damaged = store.save(file, step=1), store.save(file, step=2)
    (root / "files" / str(damaged) / "model.keras").unlink()

    result = run("verify", store.url, "--deep", "--json")

    assert result.exit_code == 4
    assert json.loads(result.stdout) == {
        "store": store.url,
        "ok": False,
        "deep": True,
        "checked": [str(whole), str(damaged)],
        "damage": [{"checkpoint": str(damaged), "path": "model.keras", "what": "missing"}],
    }


def test_one_checkpoint_is_verified_alone(run, store, file, root) -> None:
    damaged = store.save(file, step=1)
    store.save(file, step=2)
    (root / "files" / str(damaged) / "model.keras").unlink()

    assert run("verify", store.url, "latest").exit_code == 0
    assert run("verify", store.url, "1").exit_code == 4


def test_nothing_to_verify_is_no_success(run, root) -> None:
    root.mkdir()

    result = run("verify", root)

    assert result.exit_code == 3
    assert "nothing was verified" in result.stderr


def test_hashing_leaves_nothing_behind(run, store, file, root, tmp_path) -> None:
    store.save(file, step=1)
    before = sorted(root.rglob("*"))

    run("verify", store.url, "--deep", "--workspace", tmp_path / "work")

    assert sorted(root.rglob("*")) == before
    assert not (tmp_path / "work").exists()


def test_hashing_shows_how_far_it_is_on_a_terminal_only(run, store, file) -> None:
    store.save(file, step=1)
    screen, stderr = pty.openpty()

    shown = subprocess.run(
        [sys.executable, "-m", "holdfast", "verify", store.url, "--deep"],
        stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60,
    )  # fmt: skip
    os.close(stderr)
    progress = os.read(screen, 10_000).decode()
    os.close(screen)

    assert "verifying" in progress
    assert "100%" in progress
    assert "verifying" not in shown.stdout
    assert run("verify", store.url, "--deep").stderr == ""
