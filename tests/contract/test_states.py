"""Files hold the contract of a state, and the contract bites: broken states are caught by it."""

import copy
import inspect
import json
import tempfile
import threading
from pathlib import Path

import pytest

from holdfast.errors import InvalidInputError
from holdfast.hashing import hash_file
from holdfast.state import Files
from holdfast.testing.states import StateContract


@pytest.fixture
def here(request, tmp_path):
    """Gives a test the place where its states lie, apart from where it keeps them."""
    request.instance.here = tmp_path / "states"
    request.instance.here.mkdir()


def counted_up(path):
    path.write_text(str(int(path.read_text()) + 1))


@pytest.mark.usefixtures("here")
class TestOneFile(StateContract):
    def make(self):
        path = Path(tempfile.mkdtemp(dir=self.here)) / "model.bin"
        path.write_text("0")
        return Files(path)

    def train(self, state):
        counted_up(state.path)

    def look(self, state):
        return state.path.read_bytes()


@pytest.mark.usefixtures("here")
class TestADirectory(StateContract):
    def make(self):
        root = Path(tempfile.mkdtemp(dir=self.here))
        for path in ("weights/0", "weights/more/1", ".config"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("0")
        return Files(root)

    def train(self, state):
        for path in [*state.path.rglob("*")]:
            if path.is_file():
                counted_up(path)
        step = (state.path / ".config").read_text()
        (state.path / "weights" / f"made-at-{step}").write_text(step)

    def look(self, state):
        return {
            path.relative_to(state.path): path.read_bytes()
            for path in state.path.rglob("*")
            if path.is_file()
        }

    @pytest.mark.skip("a directory has no parts of its own: what was kept takes its place whole")
    def test_a_missing_part_is_an_error_and_leaves_the_state_as_it_was(self): ...


@pytest.mark.usefixtures("here")
class TestAFileThatIsNotThereYet(TestOneFile):
    """As on the machine that a run is resumed on."""

    def _restored(self, directory):
        state = self.make()
        state.path.unlink()
        state.restore(directory)
        return state


class Numbers:
    """A state of two parts in two files, as it should be; those below spoil one thing each."""

    def __init__(self):
        self.parts = {"weights": [0.0, 0.0], "seed": [1]}

    def snapshot(self):
        return Written(copy.deepcopy(self.parts))

    def restore(self, directory):
        self.parts = {name: self.read(directory, name) for name in self.parts}

    def read(self, directory, name):
        return json.loads((directory / f"{name}.json").read_text())


class Written:
    def __init__(self, parts):
        self.parts = parts

    def write_to(self, directory):
        for name, values in self.parts.items():
            (directory / f"{name}.json").write_text(json.dumps(values))


class NumbersContract(StateContract):
    kind = Numbers

    def make(self):
        return self.kind()

    def train(self, state):
        drawn = state.parts["seed"][0] * 48_271 % (2**31 - 1)
        state.parts["seed"][0] = drawn
        state.parts["weights"] = [value + drawn for value in state.parts["weights"]]

    def look(self, state):
        return copy.deepcopy(state.parts)


class TestNumbers(NumbersContract):
    pass


class SharesItsValues(Numbers):
    def snapshot(self):
        return Written(self.parts)


class SharesOnePart(Numbers):
    def snapshot(self):
        return Written(dict(self.parts))


class ForgetsTheSeed(Numbers):
    def restore(self, directory):
        self.parts["weights"] = self.read(directory, "weights")


class DrawsOnCapture(Numbers):
    def snapshot(self):
        self.parts["seed"][0] += 1
        return super().snapshot()


class AssignsBeforeItHasReadAll(Numbers):
    def restore(self, directory):
        for name in self.parts:
            self.parts[name] = self.read(directory, name)


class PassesOverWhatIsMissing(Numbers):
    def restore(self, directory):
        for name in self.parts:
            if (directory / f"{name}.json").exists():
                self.parts[name] = self.read(directory, name)


class StartsAfreshWhereNothingIsKept(Numbers):
    def restore(self, directory):
        if any(directory.iterdir()):
            super().restore(directory)


class ReadsLater(Numbers):
    """Only the names are looked at; the values are read when they are asked for."""

    def __init__(self):
        self.directory = None
        super().__init__()

    @property
    def parts(self):
        if self.directory:
            directory, self.directory = self.directory, None
            super().restore(directory)
        return self._parts

    @parts.setter
    def parts(self, parts):
        self._parts = parts

    def restore(self, directory):
        for name in self.parts:
            (directory / f"{name}.json").stat()
        self.directory = directory


class WritesBeside(Numbers):
    def snapshot(self):
        class Beside(Written):
            def write_to(self, directory):
                super().write_to(directory)
                (directory.parent / "latest").write_text(directory.name)

        return Beside(copy.deepcopy(self.parts))


class WritesNothing(Numbers):
    def snapshot(self):
        class Nothing(Written):
            def write_to(self, directory):
                pass

        return Nothing(self.parts)


class WritesALink(Numbers):
    def snapshot(self):
        class Linked(Written):
            def write_to(self, directory):
                super().write_to(directory)
                (directory / "latest").symlink_to("weights.json")

        return Linked(copy.deepcopy(self.parts))


class StaysOnItsThread(Numbers):
    def snapshot(self):
        class Bound(Written):
            def write_to(self, directory, home=threading.get_ident()):  # noqa: B008
                if threading.get_ident() != home:
                    raise RuntimeError("another thread")
                super().write_to(directory)

        return Bound(copy.deepcopy(self.parts))


class HasOneSnapshot(Numbers):
    def __init__(self):
        super().__init__()
        self.only = Written({})

    def snapshot(self):
        self.only.parts = copy.deepcopy(self.parts)
        return self.only


class SharesAcrossStates(Numbers):
    common = {"weights": [0.0, 0.0], "seed": [1]}  # noqa: RUF012

    def __init__(self):
        self.parts = self.common


class GivesAnotherHash(Numbers):
    def snapshot(self):
        class Hashed(Written):
            def write_to(self, directory):
                super().write_to(directory)
                return {"seed.json": hash_file(directory / "weights.json")}

        return Hashed(copy.deepcopy(self.parts))


class ReadsOnePart(Numbers):
    def restore_from(self, contents):
        self.parts["weights"] = json.loads(contents.read("weights.json"))


def fails(test, kind, tmp_path):
    """Whether a test of the contract fails with a state."""
    contract = NumbersContract()
    contract.kind = kind
    method = getattr(contract, test)
    given = {"tmp_path": tmp_path} if inspect.signature(method).parameters else {}
    try:
        method(**given)
    except (Exception, pytest.fail.Exception):
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (SharesItsValues, "test_a_snapshot_does_not_show_later_steps"),
        (SharesOnePart, "test_a_snapshot_does_not_show_later_steps"),
        (ForgetsTheSeed, "test_a_fresh_state_restored_equals_the_one_captured"),
        (ForgetsTheSeed, "test_training_on_from_both_gives_the_same"),
        (ForgetsTheSeed, "test_a_state_that_went_on_is_taken_back"),
        (DrawsOnCapture, "test_a_capture_leaves_the_state_as_it_is"),
        (
            AssignsBeforeItHasReadAll,
            "test_a_missing_part_is_an_error_and_leaves_the_state_as_it_was",
        ),
        (PassesOverWhatIsMissing, "test_a_missing_part_is_an_error_and_leaves_the_state_as_it_was"),
        (
            PassesOverWhatIsMissing,
            "test_an_empty_directory_is_an_error_and_leaves_the_state_as_it_was",
        ),
        (
            StartsAfreshWhereNothingIsKept,
            "test_an_empty_directory_is_an_error_and_leaves_the_state_as_it_was",
        ),
        (ReadsLater, "test_the_directory_may_vanish_after_a_restore"),
        (WritesBeside, "test_a_snapshot_touches_nothing_outside_its_directory"),
        (WritesNothing, "test_a_snapshot_is_written_as_files_that_a_store_can_keep"),
        (WritesALink, "test_a_snapshot_is_written_as_files_that_a_store_can_keep"),
        (GivesAnotherHash, "test_the_hashes_that_are_given_are_those_of_the_files"),
        (ReadsOnePart, "test_what_a_store_keeps_is_restored_from_it"),
        (StaysOnItsThread, "test_a_snapshot_may_be_written_on_another_thread"),
        (HasOneSnapshot, "test_each_snapshot_keeps_its_own_moment"),
        (SharesAcrossStates, "test_fresh_states_are_the_same_and_share_nothing"),
    ],
)
def test_a_state_broken_on_purpose_is_caught(kind, test, tmp_path):
    assert not fails(test, Numbers, tmp_path_of(tmp_path, "sound"))

    assert fails(test, kind, tmp_path_of(tmp_path, "broken"))


def tmp_path_of(tmp_path, name):
    path = tmp_path / name
    path.mkdir()
    return path


def test_a_training_that_changes_nothing_is_caught(tmp_path):
    class Idle(NumbersContract):
        def train(self, state):
            pass

    with pytest.raises(AssertionError):
        Idle().test_a_step_of_training_shows()


def test_a_look_at_the_live_values_is_caught():
    class Live(NumbersContract):
        def train(self, state):
            state.parts["weights"][0] += 1

        def look(self, state):
            return state.parts

    with pytest.raises(AssertionError):
        Live().test_a_step_of_training_shows()


def test_files_refuse_what_is_not_theirs_before_anything_changes(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "other.bin").write_text("other")
    (tmp_path / "model.bin").write_text("mine")

    with pytest.raises(InvalidInputError, match=r"other\.bin"):
        Files(tmp_path / "model.bin").restore(tmp_path / "kept")

    assert (tmp_path / "model.bin").read_text() == "mine"
