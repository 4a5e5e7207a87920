"""What every state has to hold, as a test suite: subclass `StateContract`."""

# ruff: noqa: D102 - a test's name is its sentence

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast import disk, hashing, layout
from holdfast.backends.local import LocalBackend
from holdfast.state import BorrowingSnapshot, State
from holdfast.store import CheckpointStore
from holdfast.testing.threads import begin


class StateContract:
    """
    The contract of a state: `holdfast.state.State` as one behaviour per test.

    Subclass it, and say how to make your state, how to train it and how to look at it:

        class TestTorchState(StateContract):
            def make(self) -> TorchState:
                torch.manual_seed(1)
                ...

            def train(self, state: TorchState) -> None: ...

            def look(self, state: TorchState) -> object: ...

    A state that cannot keep a promise overrides that test and says why.

    Attributes:
        patience_s (float): seconds until a thread that did not end fails its test.
    """

    patience_s = 60.0

    # What a subclass gives.

    def make(self) -> Any:
        """A fresh state; each call gives the same values, and shares nothing with another's."""
        raise NotImplementedError("say how to make a state")

    def train(self, state: Any) -> None:
        """One step, which changes every part; the same state goes the same way."""
        raise NotImplementedError("say how to train it")

    def look(self, state: Any) -> object:
        """All that a restore brings back, as a value that `==` compares and no step changes."""
        raise NotImplementedError("say how to look at it")

    def parts(self, directory: Path) -> Sequence[str]:
        """The files of a snapshot that a restore cannot do without: all, unless you say less."""
        return [path for path, _ in disk.walk(directory)]

    # What the three methods have to do for the other tests to mean something.

    def test_fresh_states_are_the_same_and_share_nothing(self) -> None:
        one, other = self.make(), self.make()
        fresh = self.look(one)

        self.train(one)

        assert isinstance(one, State)
        assert self.look(other) == fresh

    def test_a_step_of_training_shows(self) -> None:
        state = self.make()
        fresh = self.look(state)

        self.train(state)

        assert self.look(state) != fresh

    def test_the_same_state_is_trained_the_same_way(self) -> None:
        one, other = self._trained(steps=3), self._trained(steps=3)

        assert self.look(one) == self.look(other)

    # Capture.

    def test_a_capture_leaves_the_state_as_it_is(self, tmp_path: Path) -> None:
        captured, left_alone = self._trained(), self._trained()
        before = self.look(captured)

        self._keep(captured, tmp_path / "kept")

        assert self.look(captured) == before
        self.train(captured)
        self.train(left_alone)
        assert self.look(captured) == self.look(left_alone)

    def test_a_snapshot_does_not_show_later_steps(self, tmp_path: Path) -> None:
        state = self._trained()
        captured = self.look(state)

        snapshot = state.snapshot()
        self._train(state, steps=2)
        snapshot.write_to(_empty(tmp_path / "kept"))

        assert self.look(self._restored(tmp_path / "kept")) == captured

    def test_each_snapshot_keeps_its_own_moment(self, tmp_path: Path) -> None:
        state = self._trained()
        moments = {"early": (self.look(state), state.snapshot())}
        self.train(state)
        moments["late"] = (self.look(state), state.snapshot())

        for name in ("late", "early"):
            moments[name][1].write_to(_empty(tmp_path / name))

        for name, (captured, _) in moments.items():
            assert self.look(self._restored(tmp_path / name)) == captured

    def test_a_snapshot_may_be_written_on_another_thread(self, tmp_path: Path) -> None:
        state = self._trained()
        captured = self.look(state)
        snapshot = state.snapshot()
        target = _empty(tmp_path / "kept")
        if isinstance(snapshot, BorrowingSnapshot):
            snapshot.detach()  # as a Saver does

        writing = begin(lambda: snapshot.write_to(target))
        self._train(state, steps=2)
        writing.result(self.patience_s)

        assert self.look(self._restored(target)) == captured

    def test_a_snapshot_is_written_as_files_that_a_store_can_keep(self, tmp_path: Path) -> None:
        state = self._trained()

        kept = self._keep(state, tmp_path / "kept")

        paths = [path for path, _ in disk.walk(kept)]  # refuses links and special files
        assert paths, "no file was written"
        layout.check_paths(paths)

    def test_the_hashes_that_are_given_are_those_of_the_files(self, tmp_path: Path) -> None:
        target = _empty(tmp_path / "kept")

        hashes = self._trained().snapshot().write_to(target) or {}

        assert hashes == {path: hashing.hash_file(target / path) for path in hashes}

    def test_a_snapshot_touches_nothing_outside_its_directory(self, tmp_path: Path) -> None:
        (tmp_path / "beside").mkdir()
        (tmp_path / "beside" / "file").write_bytes(b"somebody else's")
        snapshot = self._trained().snapshot()
        target = _empty(tmp_path / "kept")
        before = _contents(tmp_path)

        snapshot.write_to(target)

        inside = [path for path in _contents(tmp_path) if path.startswith("kept/")]
        after = {path: data for path, data in _contents(tmp_path).items() if path not in inside}
        assert after == before

    # Restore.

    def test_a_fresh_state_restored_equals_the_one_captured(self, tmp_path: Path) -> None:
        state = self._trained(steps=2)
        kept = self._keep(state, tmp_path / "kept")

        restored = self._restored(kept)

        assert self.look(restored) == self.look(state)

    def test_what_a_store_keeps_is_restored_from_it(self, tmp_path: Path) -> None:
        state = self._trained(steps=2)
        store = CheckpointStore(LocalBackend(tmp_path / "store"))
        store.save(state, step=2)
        restored = self.make()

        store.restore(restored)

        assert self.look(restored) == self.look(state)

    def test_a_state_that_went_on_is_taken_back(self, tmp_path: Path) -> None:
        state = self._trained()
        captured = self.look(state)
        kept = self._keep(state, tmp_path / "kept")
        self._train(state, steps=2)

        state.restore(kept)

        assert self.look(state) == captured

    def test_training_on_from_both_gives_the_same(self, tmp_path: Path) -> None:
        state = self._trained(steps=2)
        restored = self._restored(self._keep(state, tmp_path / "kept"))

        for _ in range(3):
            self.train(state)
            self.train(restored)

            assert self.look(restored) == self.look(state)

    def test_what_was_restored_is_kept_and_restored_again(self, tmp_path: Path) -> None:
        state = self._trained(steps=2)
        restored = self._restored(self._keep(state, tmp_path / "first"))

        again = self._restored(self._keep(restored, tmp_path / "second"))

        assert self.look(again) == self.look(state)

    def test_the_directory_may_vanish_after_a_restore(self, tmp_path: Path) -> None:
        state = self._trained(steps=2)
        kept = self._keep(state, tmp_path / "kept")

        restored = self._restored(kept)
        shutil.rmtree(kept, ignore_errors=True)

        assert self.look(restored) == self.look(state)
        self.train(restored)
        self.train(state)
        assert self.look(restored) == self.look(state)

    def test_a_missing_part_is_an_error_and_leaves_the_state_as_it_was(
        self, tmp_path: Path
    ) -> None:
        kept = self._keep(self._trained(), tmp_path / "kept")
        state = self._trained(steps=2)
        before = self.look(state)

        for number, part in enumerate(self.parts(kept)):
            broken = tmp_path / f"broken-{number}"
            shutil.copytree(kept, broken)
            (broken / part).unlink()
            self._refuses(state, broken, f"{part} is missing")

            assert self.look(state) == before, f"it changed, though {part} is missing"

    def test_an_empty_directory_is_an_error_and_leaves_the_state_as_it_was(
        self, tmp_path: Path
    ) -> None:
        state = self._trained()
        before = self.look(state)

        self._refuses(state, _empty(tmp_path / "empty"), "nothing was kept")

        assert self.look(state) == before

    def _trained(self, steps: int = 1) -> Any:
        state = self.make()
        self._train(state, steps)
        return state

    def _train(self, state: Any, steps: int) -> None:
        for _ in range(steps):
            self.train(state)

    def _keep(self, state: Any, directory: Path) -> Path:
        state.snapshot().write_to(_empty(directory))
        return directory

    def _restored(self, directory: Path) -> Any:
        state = self.make()
        state.restore(directory)
        return state

    def _refuses(self, state: Any, directory: Path, why: str) -> None:
        try:
            state.restore(directory)
        except Exception:  # noqa: BLE001 - which error it is, is the state's own matter
            return
        pytest.fail(f"it was restored without an error, though {why}")


def _empty(directory: Path) -> Path:
    directory.mkdir(0o700)
    return directory


def _contents(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory: files with their content, directories with None."""
    return {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }
