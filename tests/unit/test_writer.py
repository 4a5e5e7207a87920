"""Turns keep the order of a process's saves, and a place has one writer in a process."""

import dataclasses
import os
import re
import threading
from types import SimpleNamespace

import pytest

from holdfast import writer as module
from holdfast.checkpoint import CheckpointId
from holdfast.writer import Writer


def place(turn):
    return turn.lap, turn.step, turn.token


def test_later_steps_are_of_one_lap():
    writer = Writer()

    turns = [writer.turn(step) for step in (0, 1, 500, 10_000)]

    assert {turn.lap for turn in turns} == {0}
    assert [turn.step for turn in turns] == [0, 1, 500, 10_000]


def test_an_earlier_step_begins_a_new_lap():
    writer = Writer()

    laps = [writer.turn(step).lap for step in (100, 200, 150, 160, 200, 0, 1)]

    assert laps == [0, 0, 1, 1, 1, 2, 2]


def test_at_one_step_the_tokens_rise():
    writer = Writer()

    turns = [writer.turn(7) for _ in range(1_000)]

    assert turns == sorted(turns, key=place)
    assert len({turn.token for turn in turns}) == 1_000
    assert {turn.lap for turn in turns} == {0}


def test_every_turn_comes_after_the_one_before():
    writer = Writer()
    steps = [5, 5, 6, 2, 2, 2, 9, 9, 1, 1, 9]

    turns = [writer.turn(step) for step in steps]

    assert turns == sorted(turns, key=place)


def test_a_step_without_a_token_left_goes_on_in_a_new_lap(monkeypatch):
    writer = Writer()
    monkeypatch.setattr(module, "new_token", lambda after=None: "ffffff00")
    writer.turn(7)
    monkeypatch.undo()

    turns = [writer.turn(7) for _ in range(3)]

    assert [turn.lap for turn in turns] == [1, 1, 1]
    assert turns == sorted(turns, key=place)


def test_two_writers_draw_other_tokens():
    assert len({Writer().turn(7).token for _ in range(20)}) > 15


def test_a_turn_never_changes():
    turn = Writer().turn(3)

    with pytest.raises(dataclasses.FrozenInstanceError):
        turn.lap = 1


def test_a_place_has_one_writer_in_a_process():
    one = Writer.of("memory://writers/one")

    assert Writer.of("memory://writers/one") is one
    assert Writer.of("memory://writers/other") is not one


def test_a_forked_child_has_a_writer_of_its_own():
    parent = Writer.of("memory://writers/forked")
    reading, writing = os.pipe()

    child = os.fork()
    if not child:
        try:
            os.write(writing, Writer.of("memory://writers/forked").name.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    name = os.read(reading, 200).decode()
    assert name != parent.name
    assert f":{child}:" in name
    assert Writer.of("memory://writers/forked") is parent
    os.close(reading)
    os.close(writing)


def test_a_writer_has_a_name_that_no_other_has():
    names = {Writer().name for _ in range(10)}

    assert len(names) == 10
    assert all(
        re.fullmatch(rf"[A-Za-z0-9.-]+:{os.getpid()}:[0-9a-f]{{16}}", name) for name in names
    )
    assert Writer("trainer").name == "trainer"


@pytest.mark.parametrize(
    ("host", "written"), [("a_b c/d", "a-b-c-d"), ("", "host"), ("x" * 100, "x" * 64), ("ä", "-")]
)
def test_a_host_of_any_name_makes_a_portable_one(monkeypatch, host, written):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=host))

    assert Writer().name.partition(":")[0] == written


def test_a_lap_has_its_session_once_it_took_one():
    writer = Writer()
    assert (writer.session(0), writer.newest_session) == (None, None)

    writer.take(0, 4)
    writer.take(1, 7)

    assert (writer.session(0), writer.session(1), writer.session(2)) == (4, 7, None)
    assert writer.newest_session == 7
    assert [writer.lap_of(session) for session in (4, 7, 5)] == [0, 1, 0]


def test_a_session_without_a_number_is_likely_to_get_the_next():
    writer = Writer()
    assert [writer.likely_session(lap) for lap in (0, 2)] == [1, 3]

    writer.parent = CheckpointId(3, 1, "0badc0de")
    assert writer.likely_session(0) == 4
    writer.come_after(7)
    writer.come_after(5)
    assert [writer.likely_session(lap) for lap in (0, 1)] == [8, 9]

    writer.take(1, 20)
    assert [writer.likely_session(lap) for lap in (0, 1, 3)] == [8, 20, 22]
    writer.take(2, 30)
    assert [writer.likely_session(lap) for lap in (1, 2, 4)] == [20, 30, 32]


def test_a_session_that_is_given_up_moves_those_after_it_on():
    writer = Writer()
    for lap, session in enumerate((3, 5, 6)):
        writer.take(lap, session)

    writer.move(5)

    assert [writer.session(lap) for lap in range(3)] == [3, 6, 7]


def test_a_new_writer_has_no_past():
    writer = Writer()

    assert (writer.parent, writer.claimed, writer.superseded) == (None, {}, None)
    writer.claimed[1] = CheckpointId(1, 1, "0badc0de")
    assert Writer().claimed == {}


def test_a_child_waits_for_no_thread_of_its_parent(monkeypatch):
    held = threading.Lock()
    held.acquire()
    monkeypatch.setattr(Writer, "_guard", held)

    Writer.after_fork()

    assert Writer.of("memory://writers/guarded") is Writer.of("memory://writers/guarded")


def test_a_place_that_nobody_has_saved_into_may_be_begun_anew():
    Writer.renew("memory://writers/never seen")

    assert Writer.of("memory://writers/never seen").claimed == {}


def test_threads_take_their_turns_one_after_the_other(monkeypatch):
    writer = Writer()
    entered, others = [], []

    def drawn(after=None):
        entered.append(after)
        if len(entered) == 1:
            others.append(threading.Thread(target=writer.turn, args=(8,)))
            others[0].start()
            others[0].join(0.05)
            assert len(entered) == 1, "another turn began before this one was taken"
        return "0badc0de"

    monkeypatch.setattr(module, "new_token", drawn)

    taken = writer.turn(9)
    others[0].join()

    assert taken.lap == 0
    assert writer.turn(8).lap == 1
