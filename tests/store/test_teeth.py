"""
Each check of a promise has teeth: with the code broken on purpose it fails.

A mutant breaks one thing that a promise rests on. What it breaks, and which check has to notice, is
one line of the table at the end.
"""

import contextlib
import hashlib
import re
import warnings
from types import SimpleNamespace

import pytest

from holdfast import layout, manifest, publishing, record, removal
from holdfast.catalog import Catalog
from holdfast.checkpoint import Checkpoint, new_token
from holdfast.disk import Lock
from holdfast.errors import (
    AlreadyExists,
    CheckpointError,
    CorruptionError,
    FormatError,
    NotFoundError,
    StorageError,
)
from holdfast.fetching import CheckpointContents
from holdfast.publishing import Fence
from holdfast.removal import Remover
from holdfast.retention import PrunePlan
from holdfast.staging import Draft, Workspace
from holdfast.store import CheckpointStore
from holdfast.writer import Turn, Writer
from tests.laws import crowd, interleaved, readers, unknown
from tests.laws.machine import games
from tests.laws.rounds import MOMENT
from tests.store import checks
from tests.store.hooked import HookedBackend

# ------------------------------------------------------------- the commit


def commit_before_upload(patch):
    upload, commit = publishing._upload, publishing._commit
    later = {}
    patch.setattr(publishing, "_upload", lambda *given: later.update({given[1].id: given}))

    def commit_first(checkpoint, data, backend):
        commit(checkpoint, data, backend)
        upload(*later[checkpoint.id])

    patch.setattr(publishing, "_commit", commit_first)


def only_the_first_file_is_sent(patch):
    def upload(draft, checkpoint, backend):
        file = checkpoint.files[0]
        backend.upload(draft.directory / file.path, layout.file_key(checkpoint.id, file.path))

    patch.setattr(publishing, "_upload", upload)


def draft_discarded_before_the_commit(patch):
    upload = publishing._upload

    def and_discard(draft, checkpoint, backend):
        upload(draft, checkpoint, backend)
        draft.discard()

    patch.setattr(publishing, "_upload", and_discard)


def a_lost_reply_is_a_failure(patch):
    def commit(checkpoint, data, backend):
        backend.create(layout.manifest_key(checkpoint.id), data)

    patch.setattr(publishing, "_commit", commit)


def a_lost_reply_is_tried_under_a_new_id(patch):
    def commit(checkpoint, data, backend):
        try:
            backend.create(layout.manifest_key(checkpoint.id), data)
        except StorageError as error:
            raise publishing.AttemptLostError from error

    patch.setattr(publishing, "_commit", commit)


def exists_is_success_whatever_lies_there(patch):
    def commit(checkpoint, data, backend):
        with contextlib.suppress(AlreadyExists):
            backend.create(layout.manifest_key(checkpoint.id), data)

    patch.setattr(publishing, "_commit", commit)


def only_the_key_is_compared(patch):
    def is_committed(checkpoint, data, backend):
        try:
            backend.read(layout.manifest_key(checkpoint.id))
        except NotFoundError:
            return False
        return True

    patch.setattr(publishing, "_is_committed", is_committed)


def acknowledged_before_the_commit(patch):
    patch.setattr(publishing, "_commit", lambda *_: None)


def create_as_exists_then_write(patch):
    def create(self, key, data):
        if self._around("read", key, lambda: key in self.inner.objects):
            raise AlreadyExists(key)
        self._around("create", key, lambda: self.inner.objects.update({key: (data, MOMENT)}))

    patch.setattr(HookedBackend, "create", create)


# ------------------------------------------------------------- recovery


def recovered_under_another_id(patch):
    patch.setattr(Draft, "assigned", lambda self: None)
    patch.setattr(Fence, "turn", lambda self, sealed: Turn(0, sealed.step, new_token()))


def recovered_twice(patch):
    recovered_under_another_id(patch)
    patch.setattr(Draft, "discard", lambda self: self.lock.release() or True)


def drafts_of_the_living_are_recovered(patch):
    patch.setattr(Lock, "take", classmethod(lambda cls, path, make=True: cls(path)))


def unsealed_drafts_are_left(patch):
    patch.setattr(Workspace, "abandoned", lambda self: [])


def drafts_of_any_place_are_recovered(patch):
    patch.setattr("holdfast.store.workspace_for", lambda url, given: Workspace(given))


def whatever_is_in_the_workspace_is_ours(patch):
    patch.setattr(Workspace, "_is_ours", lambda self, name: True)
    take = Lock.take
    patch.setattr(Lock, "take", classmethod(lambda cls, path, make=True: take(path)))


# ------------------------------------------------------------- the fence


def a_superseded_writer_goes_on(patch):
    patch.setattr(Fence, "check", lambda self, session: None)


def a_superseded_writer_goes_on_pruning(patch):
    patch.setattr(CheckpointStore, "_check_not_superseded", lambda self: None)


def of_two_in_one_session_both_go_on(patch):
    rival = Fence._rival

    def blind(self, others, session):
        return rival(self, [id for id in others if id.session > session], session)

    patch.setattr(Fence, "_rival", blind)


def order_by_step_alone(patch):
    ids = Catalog.ids
    patch.setattr(
        Catalog, "ids", lambda self, after="": sorted(ids(self, after), key=lambda id: id.step)
    )


def a_rollback_stays_in_its_session(patch):
    patch.setattr(Writer, "turn", lambda self, step: Turn(0, step, new_token()))


# ------------------------------------------------------------- pins and prune


def files_deleted_before_the_manifest(patch):
    def remove(self, id):
        mark = layout.doomed_key(id, new_token())
        self._backend.create(mark, b"")
        if id in self.pins():
            self._backend.delete(mark)
            return False
        self._remove_files_and_marks(id)
        self._backend.delete(layout.manifest_key(id))
        self._catalog.forget(id)
        return True

    patch.setattr(Remover, "_remove", remove)


def no_mark(patch):
    def remove(self, id):
        if id in self.pins():
            return False
        self._backend.delete(layout.manifest_key(id))
        self._remove_files_and_marks(id)
        return True

    patch.setattr(Remover, "_remove", remove)


def pins_are_looked_at_before_the_mark(patch):
    def remove(self, id):
        if id in self.pins():
            return False
        self._backend.create(layout.doomed_key(id, new_token()), b"")
        self._backend.delete(layout.manifest_key(id))
        self._remove_files_and_marks(id)
        return True

    patch.setattr(Remover, "_remove", remove)


def prunes_share_one_mark(patch):
    def remove(self, id):
        mark = layout.doomed_key(id, "shared")
        with contextlib.suppress(AlreadyExists):
            self._backend.create(mark, b"")
        if id in self.pins():
            self._backend.delete(mark)
            return False
        self._backend.delete(layout.manifest_key(id))
        self._remove_files_and_marks(id)
        return True

    patch.setattr(Remover, "_remove", remove)


def a_pin_looks_only_once(patch):
    def pin(self, id, name):
        self._catalog.read_again(id)
        self._backend.create(layout.pin_key(name, id), b"")

    patch.setattr(Remover, "pin", pin)


def a_pin_looks_at_the_manifest_before_the_marks(patch):
    def pin(self, id, name):
        self._backend.create(layout.pin_key(name, id), b"")
        self._catalog.read_again(id)
        if list(self._backend.scan(layout.doomed_prefix(id))):
            raise NotFoundError(str(id))

    patch.setattr(Remover, "pin", pin)


def a_pin_takes_a_tombstone_for_a_checkpoint(patch):
    def pin(self, id, name):
        self._backend.create(layout.pin_key(name, id), b"")
        marks = list(self._backend.scan(layout.doomed_prefix(id)))
        self._catalog.read_again(id)
        if marks:
            raise NotFoundError(str(id))

    patch.setattr(Remover, "pin", pin)


def pins_are_overlooked(patch):
    patch.setattr(Remover, "pins", lambda self: {})


def the_damaged_count_as_good(patch):
    patch.setattr(Remover, "_good", lambda self, history: history)


def what_a_dead_prune_left_stays(patch):
    patch.setattr(Remover, "_finish_earlier_prunes", lambda self: None)
    patch.setattr(Remover, "_marks_and_pins_of_nothing", lambda self: [])


def the_newest_is_not_spared(patch):
    plan = removal.plan

    def without_the_last(rule, history, **given):
        planned = plan(rule, history, **given)
        everything = tuple(kept.checkpoint for kept in planned.keep) + planned.remove
        return PrunePlan((), tuple(one for one in everything if one.id not in given["pinned"]))

    patch.setattr(removal, "plan", without_the_last)


# ------------------------------------------------------------- sweep


def a_sweep_without_tombstones(patch):
    def fenced(self, id, writer):
        try:
            return not isinstance(self._catalog.read_again(id), Checkpoint)
        except NotFoundError:
            return True

    patch.setattr(Remover, "_fenced", fenced)


def a_sweep_that_does_not_look_again(patch):
    def fenced(self, id, writer):
        with contextlib.suppress(AlreadyExists):
            data = manifest.write_tombstone(id, writer)
            self._backend.create(layout.manifest_key(id), data)
        return True

    patch.setattr(Remover, "_fenced", fenced)


def a_sweep_of_everything(patch):
    patch.setattr(layout, "parse_file_key", lambda key: (checks.CheckpointId(1, 1, "0" * 8), key))


# ------------------------------------------------------------- unknown is not absent


def a_failed_listing_is_empty(patch):
    ids = Catalog.ids

    def swallow(self, after=""):
        try:
            return ids(self, after)
        except StorageError:
            return []

    patch.setattr(Catalog, "ids", swallow)


def a_newer_format_is_passed_over(patch):
    check = manifest.check_format

    def quietly(members):
        try:
            check(members)
        except FormatError as error:
            raise FormatError(str(error)) from error

    patch.setattr(manifest, "check_format", quietly)


def a_missing_bucket_is_empty(patch):
    scan = HookedBackend.scan

    def swallow(self, prefix, after=""):
        try:
            return iter(list(scan(self, prefix, after)))
        except StorageError as error:
            if "bucket does not exist" in str(error):
                return iter([])
            raise

    patch.setattr(HookedBackend, "scan", swallow)


def a_lagging_listing_is_believed(patch):
    def ids(self, after=""):
        keys = (entry.key for entry in self._backend.scan(layout.MANIFESTS, after))
        return sorted(id for key in keys if (id := layout.parse_manifest_key(key)))

    patch.setattr(Catalog, "ids", ids)


def a_clock_decides_what_is_latest(patch):
    newest_first = Catalog.newest_first

    def by_time(self, *given):
        return iter(sorted(newest_first(self, *given), key=lambda one: one.created_at)[::-1])

    patch.setattr(Catalog, "newest_first", by_time)


def what_came_since_the_listing_is_overlooked(patch):
    def take_once(self, checkpoint, where, take):
        damaged = None
        for candidate in self._catalog.newest_first():
            contents = CheckpointContents(candidate, self._backend, self.workspace)
            try:
                return candidate, contents.lend(take)
            except NotFoundError:
                return self._take(checkpoint, where, take)
            except CorruptionError as error:
                damaged = error
        raise damaged or NotFoundError("there is none")

    patch.setattr(CheckpointStore, "_take", take_once)


def what_is_gone_was_the_last(patch):
    def take_once(self, checkpoint, where, take):
        for candidate in self._catalog.newest_first():
            with contextlib.suppress(NotFoundError):
                contents = CheckpointContents(candidate, self._backend, self.workspace)
                return candidate, contents.lend(take)
        raise NotFoundError("there is none")

    patch.setattr(CheckpointStore, "_take", take_once)


def an_older_one_stands_in_for_the_newest(patch):
    def listed(self, wanted, *, whole):
        for id in reversed(self.ids()):
            with contextlib.suppress(NotFoundError):
                found = self.read(id)
                if isinstance(found, Checkpoint) and wanted(found):
                    yield found

    patch.setattr(Catalog, "_listed", listed)


# ------------------------------------------------------------- damage


def no_hash_on_restore(patch):
    def read(self, file, read):
        with self._open(file) as opened:
            read(opened)

    patch.setattr(CheckpointContents, "_read", read)


def only_the_beginning_is_hashed(patch):
    class Beginning:
        def __init__(self):
            self.head = b""

        def update(self, block):
            self.head = (self.head + bytes(block))[:32]

        def hexdigest(self):
            return hashlib.sha256(self.head).hexdigest()

    patch.setattr("holdfast.hashing.hashlib", SimpleNamespace(sha256=Beginning))


def the_digest_is_not_compared(patch):
    def decode(data):
        tail = record._TAIL_PATTERN.search(data)
        if tail is None:
            raise FormatError("no digest")
        return record.parse(data[: tail.start()] + b"\n}", "the record")

    patch.setattr(record, "decode", decode)


def paths_are_not_checked(patch):
    patch.setattr(layout, "check_paths", lambda paths: list(paths) and None)


def a_key_may_come_twice(patch):
    patch.setattr(record, "_object", dict)


# ------------------------------------------------------------- the table


def a_run_rolled_back_is_later(tmp):
    store = checks.Scene(tmp).process()
    saved = [store.save(tmp / "model.bin", step=step) for step in (10_000, 500, 20)]
    assert store.latest() == saved[-1]
    assert store.checkpoints() == saved


def a_recovery_after_a_sweep(tmp):
    checks.a_recovery_killed_anywhere(tmp, "before", swept=True)


def a_recovery(tmp):
    checks.a_recovery_killed_anywhere(tmp, "after")


def _none_is_broken(rounds):
    with contextlib.closing(rounds):
        for trouble in rounds:
            assert not trouble, trouble  # it ends with the first that is


def some_rounds_of_a_crowd(tmp):
    _none_is_broken(crowd.crowds(1, 200))


def some_rounds_with_wrong_clocks(tmp):
    _none_is_broken(crowd.clocks(1, 50))


def some_rounds_of_pins(tmp):
    _none_is_broken(interleaved.pins(1, 2000))


def some_rounds_of_restores(tmp):
    _none_is_broken(readers.restores(1, 1000))


def some_rounds_with_listings_that_lag(tmp):
    _none_is_broken(readers.lags(1, 1000))


def some_games_with_a_dictionary(tmp):
    _none_is_broken(games(1, 1000))


def every_fault_of_a_look(tmp):
    _none_is_broken(unknown.looks())


TABLE = [
    (commit_before_upload, checks.a_save_killed_anywhere),
    (commit_before_upload, some_rounds_of_a_crowd),
    (only_the_first_file_is_sent, checks.a_save_killed_anywhere),
    (draft_discarded_before_the_commit, checks.a_save_killed_anywhere),
    (a_lost_reply_is_a_failure, checks.a_lost_reply_makes_no_duplicate),
    (a_lost_reply_is_a_failure, checks.an_answer_exists_about_our_own_record_is_success),
    (a_lost_reply_is_tried_under_a_new_id, checks.a_lost_reply_makes_no_duplicate),
    (exists_is_success_whatever_lies_there, checks.a_tombstone_is_not_taken_for_success),
    (only_the_key_is_compared, checks.a_tombstone_is_not_taken_for_success),
    (only_the_key_is_compared, a_recovery_after_a_sweep),
    (only_the_key_is_compared, some_rounds_of_a_crowd),
    (create_as_exists_then_write, some_rounds_of_a_crowd),
    (acknowledged_before_the_commit, checks.a_save_killed_anywhere),
    (recovered_under_another_id, a_recovery),
    (recovered_under_another_id, some_rounds_of_a_crowd),
    (recovered_twice, a_recovery),
    (recovered_twice, some_rounds_of_a_crowd),
    (drafts_of_the_living_are_recovered, checks.a_draft_that_is_worked_on_is_nobody_elses),
    (unsealed_drafts_are_left, checks.a_save_killed_anywhere),
    (drafts_of_any_place_are_recovered, checks.drafts_of_another_place_stay_its_own),
    (whatever_is_in_the_workspace_is_ours, checks.a_workspace_holds_what_is_of_others),
    (a_superseded_writer_goes_on, checks.a_superseded_writer_publishes_and_prunes_nothing),
    (a_superseded_writer_goes_on, some_rounds_of_a_crowd),
    (a_superseded_writer_goes_on_pruning, checks.a_superseded_writer_publishes_and_prunes_nothing),
    (a_superseded_writer_goes_on_pruning, some_rounds_of_a_crowd),
    (of_two_in_one_session_both_go_on, checks.of_two_writers_in_one_session_one_goes_on),
    (order_by_step_alone, a_run_rolled_back_is_later),
    (a_rollback_stays_in_its_session, a_run_rolled_back_is_later),
    (a_rollback_stays_in_its_session, some_games_with_a_dictionary),
    (files_deleted_before_the_manifest, checks.a_prune_killed_anywhere),
    (files_deleted_before_the_manifest, some_rounds_of_a_crowd),
    (no_mark, interleaved.a_pin_holds_against_a_prune),
    (pins_are_looked_at_before_the_mark, interleaved.a_pin_holds_against_a_prune),
    (prunes_share_one_mark, interleaved.a_pin_holds_against_two_prunes),
    (a_pin_looks_only_once, interleaved.a_pin_holds_against_a_prune),
    (a_pin_looks_at_the_manifest_before_the_marks, interleaved.a_pin_holds_against_a_prune),
    (a_pin_looks_at_the_manifest_before_the_marks, some_rounds_of_pins),
    (a_pin_takes_a_tombstone_for_a_checkpoint, checks.a_pin_on_what_was_swept_is_refused),
    (pins_are_overlooked, checks.a_save_with_a_rule_killed_anywhere),
    (pins_are_overlooked, some_games_with_a_dictionary),
    (the_damaged_count_as_good, checks.a_prune_killed_anywhere),
    (the_damaged_count_as_good, some_games_with_a_dictionary),
    (what_a_dead_prune_left_stays, checks.a_prune_killed_anywhere),
    (the_newest_is_not_spared, checks.a_prune_killed_anywhere),
    (the_newest_is_not_spared, some_games_with_a_dictionary),
    (a_sweep_without_tombstones, checks.a_sweep_never_takes_what_commits_meanwhile),
    (a_sweep_without_tombstones, some_rounds_of_a_crowd),
    (a_sweep_that_does_not_look_again, checks.a_sweep_never_takes_what_commits_meanwhile),
    (a_sweep_of_everything, checks.files_of_others_stay),
    (a_failed_listing_is_empty, checks.a_failed_listing_is_no_empty_store),
    (a_failed_listing_is_empty, every_fault_of_a_look),
    (a_missing_bucket_is_empty, every_fault_of_a_look),
    (a_lagging_listing_is_believed, some_rounds_with_listings_that_lag),
    (a_clock_decides_what_is_latest, some_rounds_with_wrong_clocks),
    (what_came_since_the_listing_is_overlooked, some_rounds_of_restores),
    (no_hash_on_restore, some_rounds_of_restores),
    (a_newer_format_is_passed_over, checks.a_newer_format_is_not_passed_over),
    (what_is_gone_was_the_last, checks.a_removal_is_no_emptiness),
    (an_older_one_stands_in_for_the_newest, checks.a_removal_is_no_emptiness),
    (no_hash_on_restore, checks.every_damage_is_noticed),
    (only_the_beginning_is_hashed, checks.every_damage_is_noticed),
    (the_digest_is_not_compared, checks.every_flip_in_a_manifest_is_noticed),
    (paths_are_not_checked, checks.no_manifest_leads_elsewhere),
    (a_key_may_come_twice, checks.no_manifest_leads_elsewhere),
]


@pytest.mark.parametrize(
    ("mutant", "check"),
    TABLE,
    ids=[f"{mutant.__name__}-{check.__name__}" for mutant, check in TABLE],
)
def test_code_broken_on_purpose_is_caught(tmp_path, monkeypatch, mutant, check):
    mutant(monkeypatch)

    with pytest.raises((AssertionError, pytest.fail.Exception, CheckpointError)) as caught:
        _run(check, tmp_path)

    # A mutant that is itself in error would be caught by anything.
    assert not re.search("TypeError|AttributeError|NameError|KeyError", str(caught.value))


def _run(check, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(tmp_path)


def test_code_that_is_whole_passes(tmp_path):
    a_run_rolled_back_is_later(tmp_path)  # the others have tests of their own
