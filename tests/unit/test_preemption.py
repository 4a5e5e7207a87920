"""SIGTERM gives a notice, and `end` does what it would have done; clouds give notices too."""

import http.client
import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from holdfast import InvalidInputError, Preemption, Saver, notices, open_store
from holdfast.preemption import Notice
from tests.servers.metadata import PATIENCE, MetadataServer
from tests.servers.web import Answered

SIGTERM = signal.SIGTERM


@pytest.fixture
def before():
    """A handler that was there before, as the list of what it was called with."""
    calls = []
    original = signal.signal(SIGTERM, lambda *given: calls.append(given))
    yield calls
    signal.signal(SIGTERM, original)


@pytest.fixture
def told():
    """What the log says, as a list; `wait` waits until it has so many lines."""

    class Lines(logging.Handler):
        def __init__(self):
            super().__init__()
            self.lines = []
            self._changed = threading.Condition()

        def emit(self, record):
            with self._changed:
                self.lines.append(record.getMessage())
                self._changed.notify_all()

        def wait(self, count):
            with self._changed:
                assert self._changed.wait_for(lambda: len(self.lines) >= count, PATIENCE)
            return self.lines

    lines = Lines()
    logger = logging.getLogger("holdfast")
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


def in_a_thread(work):
    """What a call returns in another thread."""
    returned = []
    thread = threading.Thread(target=lambda: returned.append(work()))
    thread.start()
    thread.join(PATIENCE)
    return returned[0]


class Child:
    """A forked process, in which SIGTERM does what it does by default; it may tell lines."""

    def __init__(self, work, handler=signal.SIG_DFL):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                if handler is not None:
                    signal.signal(SIGTERM, handler)
                with os.fdopen(writing, "w", 1) as pipe:
                    work(lambda line: print(line, file=pipe, flush=True))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        self.told = os.fdopen(reading)
        self._last_resort = threading.Timer(PATIENCE, os.kill, (self.pid, signal.SIGKILL))
        self._last_resort.daemon = True
        self._last_resort.start()

    def terminate(self):
        os.kill(self.pid, SIGTERM)

    def end(self):
        """Its exit code, and what it told besides what was read."""
        with self.told:
            rest = self.told.read().split()
        self._last_resort.cancel()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), rest


def train(tell):
    """Run until somebody ends the process."""
    tell("training")
    while True:
        time.sleep(PATIENCE)


# ------------------------------------------------------------- a notice


def test_the_handler_takes_note_and_does_nothing_else(before):
    with Preemption(grace=10) as preemption:
        assert preemption.notice is None
        assert preemption.remaining() is None

        begun = time.monotonic()
        signal.raise_signal(SIGTERM)

        assert preemption.notice == Notice("SIGTERM", pytest.approx(begun + 10, abs=5))
        assert 0 < preemption.remaining() <= 10
    assert before == []


def test_the_end_is_what_the_handler_before_does_once(before):
    with Preemption() as preemption:
        for times in (1, 2):  # training went on, and the next signal is a new one
            signal.raise_signal(SIGTERM)
            assert len(before) == times - 1
            preemption.end()

            assert [number for number, _ in before] == [SIGTERM] * times
            assert preemption.notice is None


def test_a_second_signal_acts_at_once(before):
    with Preemption() as preemption:
        signal.raise_signal(SIGTERM)
        signal.raise_signal(SIGTERM)

        assert len(before) == 1
        assert preemption.notice is None


def test_a_signal_after_a_notice_of_another_kind_is_no_second_one(before):
    with Preemption() as preemption:
        preemption.request("the scheduler", grace=5)
        signal.raise_signal(SIGTERM)

        assert preemption.notice.reason == "the scheduler"
        assert before == []


def test_of_two_notices_the_one_that_leaves_less_time_counts():
    preemption = Preemption(grace=20)
    for reason, grace in (("two minutes", 120), ("soon", None), ("an hour", 3600)):
        preemption.request(reason, grace=grace)

    assert preemption.notice.reason == "soon"
    assert preemption.remaining() <= 20


def test_nothing_remains_after_the_deadline():
    preemption = Preemption()
    preemption.request(grace=0)

    assert preemption.remaining() == 0


def test_where_nobody_looks_any_more_the_signal_acts_at_once(before):
    frames = []
    preemption = Preemption()
    preemption.install(heeded=frames.append)

    def train():
        signal.raise_signal(SIGTERM)

    train()
    preemption.uninstall()

    assert [frame.f_code for frame in frames] == [train.__code__]
    assert [frame.f_code for _, frame in before] == [train.__code__]
    assert preemption.notice is None


def test_a_handler_before_that_ends_the_process_is_let_through(before):
    def leave(*_):
        raise SystemExit(3)

    signal.signal(SIGTERM, leave)
    preemption = Preemption()
    preemption.install()
    signal.raise_signal(SIGTERM)

    with pytest.raises(SystemExit):
        preemption.end()

    assert preemption.notice is None
    preemption.uninstall()
    assert signal.getsignal(SIGTERM) is leave


# ------------------------------------------------------------- in and out


def test_the_handler_before_is_put_back(before):
    was = signal.getsignal(SIGTERM)
    with Preemption():
        assert signal.getsignal(SIGTERM) is not was

    assert signal.getsignal(SIGTERM) is was


def test_installed_twice_it_stays_until_it_was_uninstalled_twice(before):
    was = signal.getsignal(SIGTERM)
    preemption = Preemption()
    assert preemption.install()
    assert preemption.install(heeded=lambda _: False)

    preemption.uninstall()
    signal.raise_signal(SIGTERM)

    assert preemption.notice
    assert before == []
    for _ in range(2):  # once too often does no harm
        preemption.uninstall()
    assert signal.getsignal(SIGTERM) is was


def test_the_end_of_a_block_is_the_end_of_what_was_installed_in_it(before):
    was = signal.getsignal(SIGTERM)
    preemption = Preemption()
    with preemption:
        with preemption:
            preemption.install()  # by somebody who was cut off by an exception

        signal.raise_signal(SIGTERM)
        assert preemption.notice

    assert signal.getsignal(SIGTERM) is was


def test_a_handler_that_was_put_in_since_is_left_alone_and_may_go_on_calling(before):
    first, second = Preemption(), Preemption()
    first.install()
    second.install()
    top = signal.getsignal(SIGTERM)

    first.uninstall()
    assert signal.getsignal(SIGTERM) is top
    first.install()  # above the second now, whose handler calls the first's old one
    signal.raise_signal(SIGTERM)
    assert (first.notice is None, second.notice is None) == (False, True)
    first.end()
    assert second.notice
    second.end()

    assert len(before) == 1
    first.uninstall()
    second.uninstall()


def test_an_end_that_nobody_asked_for_acts_as_the_signal(before):
    preemption = Preemption()
    preemption.end()
    with preemption:
        preemption.end()

    assert [number for number, _ in before] == [SIGTERM, SIGTERM]


@pytest.mark.parametrize("before_it", [signal.SIG_IGN, None])
def test_what_cannot_be_chained_is_left_as_it_was(before, told, monkeypatch, before_it):
    signal.signal(SIGTERM, signal.SIG_IGN)
    if before_it is None:
        monkeypatch.setattr(signal, "getsignal", lambda _: None)  # put in by a library in C

    with Preemption() as preemption:
        signal.raise_signal(SIGTERM)
        assert preemption.notice is None
        preemption.request()
        preemption.end()

    assert signal.signal(SIGTERM, signal.SIG_DFL) == signal.SIG_IGN
    assert preemption.notice is None
    assert len(told.lines) == 1
    assert "SIGTERM gives no notice" in told.lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        *({"grace": grace} for grace in (-1, float("nan"), float("inf"), "25", True, None)),
        *({"watch": watch} for watch in ("gce", ("azure",), ["gce", "GCE"])),
    ],
    ids=str,
)
def test_what_is_no_time_and_no_cloud_is_refused(arguments):
    with pytest.raises(InvalidInputError, match=r"^(grace is|watch holds)"):
        Preemption(**arguments)


# ------------------------------------------------------------- other threads, other processes


def test_outside_the_main_thread_it_is_told_and_the_request_is_left(before, told):
    was = signal.getsignal(SIGTERM)
    preemption = Preemption()

    assert in_a_thread(preemption.install) is False
    assert signal.getsignal(SIGTERM) is was
    assert [line for line in told.lines if "main thread only" in line] == told.lines != []

    in_a_thread(preemption.request)
    assert preemption.notice
    in_a_thread(preemption.end)
    assert [number for number, _ in before] == [SIGTERM]
    in_a_thread(preemption.uninstall)


def test_the_end_from_another_thread_acts_in_the_main_thread_and_returns_after_it(before):
    threads = []
    signal.signal(SIGTERM, lambda *_: threads.append(threading.current_thread()))
    with Preemption() as preemption:
        signal.raise_signal(SIGTERM)

        assert in_a_thread(lambda: [preemption.end(), len(threads)]) == [None, 1]

        assert threads == [threading.main_thread()]
        assert preemption.notice is None
        signal.raise_signal(SIGTERM)
        assert preemption.notice


def test_taken_out_from_another_thread_it_passes_everything_on(before):
    preemption = Preemption()
    preemption.install()

    in_a_thread(preemption.uninstall)
    signal.raise_signal(SIGTERM)

    assert len(before) == 1
    assert preemption.notice is None


def test_the_exit_code_is_the_signals_own():
    script = (
        "from holdfast import Preemption\n"
        "with Preemption() as preemption:\n"
        "    print('training', flush=True)\n"
        "    while not preemption.notice: pass\n"
        "    print('saved', flush=True)\n"
        "    preemption.end()\n"
        "print('went on')\n"
    )
    shell = '"$0" -c "$1" & read _; kill $!; wait $!; echo $?'
    process = subprocess.Popen(
        ["sh", "-c", shell, sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "training\n"
        process.stdin.write("\n")
        process.stdin.flush()

        assert process.stdout.read() == "saved\n143\n"


@pytest.mark.parametrize("where", ["main", "thread"])
def test_by_default_the_end_is_death_by_the_signal(where):
    def work(tell):
        with Preemption() as preemption:
            preemption.request()
            if where == "main":
                preemption.end()
            threading.Thread(target=preemption.end, daemon=True).start()
            train(tell)

    assert Child(work).end()[0] == -SIGTERM


def test_a_save_that_hangs_does_not_outlive_the_second_signal():
    def work(tell):
        with Preemption() as preemption:
            tell("training")
            while not preemption.notice:
                time.sleep(0.001)
            train(tell)

    child = Child(work)
    for _ in range(2):
        assert child.told.readline() == "training\n"
        child.terminate()

    assert child.end() == (-SIGTERM, [])


def test_a_forked_child_ends_at_the_signal_as_it_would_have_before(before):
    signal.signal(SIGTERM, signal.SIG_DFL)
    with Preemption() as preemption:
        child = Child(train, handler=None)
        assert child.told.readline() == "training\n"
        child.terminate()

        assert child.end() == (-SIGTERM, [])
        assert preemption.notice is None


def test_a_forked_child_may_install_it_for_itself():
    preemption = Preemption()
    preemption.request("the parent's")

    def work(tell):
        preemption.install()
        tell(preemption.notice)
        signal.raise_signal(SIGTERM)
        tell(preemption.notice.reason)
        preemption.end()

    assert Child(work).end() == (-SIGTERM, ["None", "SIGTERM"])


def test_a_plain_loop_loses_nothing_at_any_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a power cut is tried elsewhere
    chance = random.Random(20)

    def work(place):
        def loop(tell):
            state = place.parent / f"{place.name}.bin"
            store = open_store(place)
            with Preemption() as preemption, Saver(store) as saver:
                for step in itertools.count():
                    state.write_bytes(b"%d" % step)
                    tell(step)
                    if preemption.notice:
                        saver.save(state, step=step)
                        saver.wait(timeout=preemption.remaining())
                        preemption.end()
                    elif step % 3 == 0:
                        saver.save(state, step=step)

        return loop

    for run in range(20):
        place = tmp_path / f"{run}"
        child = Child(work(place))
        for _ in range(chance.randrange(1, 12)):
            last = child.told.readline()
        child.terminate()
        code, rest = child.end()
        last = int([last, *rest][-1])

        assert code == -SIGTERM
        newest = open_store(place).latest()
        assert newest.step == last
        copy = open_store(place).download(newest)
        assert (copy / f"{run}.bin").read_bytes() == b"%d" % last


# ------------------------------------------------------------- the notices of clouds


@pytest.fixture(scope="module")
def services():
    with MetadataServer() as server:
        yield server


@pytest.fixture
def server(services, monkeypatch):
    """Both clouds' services, asked without pauses; no thread of a watcher is left behind."""
    services.begin_again()
    monkeypatch.setattr(notices.Gce, "every", 0.001)
    monkeypatch.setattr(notices.Aws, "every", 0.001)
    monkeypatch.setattr(notices, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(notices, "LONGEST_PAUSE_SECONDS", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name, value in services.environment().items():
        monkeypatch.setenv(name, value)
    yield services
    watchers_end()


def watchers_end():
    for thread in threading.enumerate():
        if thread.name.startswith("holdfast-watch"):
            thread.join(PATIENCE)
            assert not thread.is_alive()


def at(seconds):
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


class Watched(Preemption):
    """A preemption that tells when a notice has come."""

    def __init__(self, **given):
        super().__init__(**given)
        self.came = threading.Event()

    def request(self, *given, **named):
        super().request(*given, **named)
        self.came.set()


def is_held(asked):
    return any("wait_for_change" in each.target for each in asked)


def test_gce_holds_its_answer_back_until_it_preempts(server, before):
    with Watched(watch=["gce"], grace=25) as preemption:
        server.wait_until(is_held)
        assert preemption.notice is None

        server.preempt()
        assert preemption.came.wait(PATIENCE)

        assert preemption.notice.reason == "GCE preempts this machine"
        assert 0 < preemption.remaining() <= 25
        preemption.end()
    assert len(before) == 1
    assert [each.query.get("last_etag") for each in server.asked] == [None, "411261ca6c"]


def test_a_preemption_between_two_questions_is_not_missed(server, before):
    server.preempt()
    with Watched(watch=["gce"]) as preemption:
        assert preemption.came.wait(PATIENCE)

    assert not is_held(server.asked)


def test_gce_is_asked_again_after_an_answer_without_news(server, before, monkeypatch):
    monkeypatch.setattr(notices, "HOLD_SECONDS", 0)
    with Watched(watch=["gce"]) as preemption:
        server.wait_until(lambda asked: len(asked) > 3)
        server.preempt()

        assert preemption.came.wait(PATIENCE)


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_aws_is_looked_at_again_and_again(server, before, action):
    with Watched(watch=["aws"]) as preemption:
        server.wait_until(lambda asked: len(asked) > 3)  # a token, and then there is none
        assert preemption.notice is None

        server.interrupt(action, at(60))
        assert preemption.came.wait(PATIENCE)

        assert preemption.notice.reason == f"AWS will {action} this machine"
        at_most = 25 if action == "hibernate" else 60 - notices.MARGIN_SECONDS
        assert at_most - 20 < preemption.remaining() <= at_most
    assert [each.method for each in server.asked].count("PUT") == 1


@pytest.mark.parametrize(
    "time",
    [at(-10), at(7200), "soon", "2026-11-21T09:00:00"],
    ids=["over", "two hours", "no time", "no zone"],
)
def test_a_time_that_cannot_be_is_no_deadline(server, before, time):
    server.interrupt("stop", time)
    with Watched(watch=["aws"], grace=25) as preemption:
        assert preemption.came.wait(PATIENCE)

        assert 5 < preemption.remaining() <= 25


def test_a_token_of_aws_that_has_ended_is_renewed(server, before, told):
    with Watched(watch=["aws"]) as preemption:
        server.wait_until(lambda asked: len(asked) > 1)
        server.forget_tokens()
        server.wait_until(lambda asked: [each.method for each in asked].count("PUT") == 2)
        server.interrupt("stop", at(120))

        assert preemption.came.wait(PATIENCE)
    assert told.lines == []


@pytest.mark.parametrize("cloud", ["gce", "aws"])
@pytest.mark.parametrize(
    "broken",
    [
        Answered(503, [("Metadata-Flavor", "Google")], b""),
        Answered(200, [], b"true"),
        Answered(200, [("Metadata-Flavor", "Amazon")], b'{"action": "wave"}'),
        Answered(200, [], b"\xff\r\n"),
    ],
    ids=["not now", "no header", "another", "no text"],
)
def test_a_service_that_is_not_the_clouds_is_told_once_and_asked_again(
    server, before, told, cloud, broken
):
    server.broken = broken
    with Watched(watch=[cloud]) as preemption:
        server.wait_until(lambda asked: len(asked) > 6)
        assert preemption.notice is None
        assert len(told.lines) == 1
        assert "no metadata service of it answers" in told.lines[0]

        server.broken = None
        server.preempt()
        server.interrupt("stop", at(120))
        assert preemption.came.wait(PATIENCE)
    assert len(told.lines) == 1


def test_a_service_that_falls_silent_again_is_told_again(server, before, told):
    with Preemption(watch=["aws"]):
        for count in (1, 2):
            server.broken = Answered(503, [], b"")
            told.wait(count)
            server.broken = None
            so_far = len(server.asked)
            server.wait_until(lambda asked, so_far=so_far: len(asked) > so_far + 3)

    assert len(told.lines) == 2


def test_where_there_is_no_service_the_log_says_what_to_do(server, before, told, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{port}")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://me:secret@[::1:nowhere")

    with Preemption(watch=["gce", "aws"]) as preemption:
        gce, aws = sorted(told.wait(2), key=lambda line: "AWS" in line)
        signal.raise_signal(SIGTERM)
        assert preemption.notice

    assert "refused" in gce
    assert "Set GCE_METADATA_HOST" in gce
    assert "leave 'aws' out of watch" in aws
    assert "secret" not in gce + aws


def test_an_absent_service_is_asked_more_and_more_rarely(monkeypatch):
    pauses = []

    class Stopped(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            if len(pauses) == 9:
                self.set()

    def look(self, ask):
        raise ConnectionRefusedError

    monkeypatch.setattr(notices.Gce, "look", look)
    patient = SimpleNamespace(Event=Stopped, Thread=threading.Thread)
    monkeypatch.setattr(notices, "threading", patient)
    notices.Watcher("gce", lambda *_: None)
    watchers_end()

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_watcher_that_is_stopped_waits_for_no_answer(server, before):
    preemption = Preemption(watch=["gce"])
    preemption.install()
    server.wait_until(is_held)

    preemption.uninstall()

    watchers_end()  # long before the server would answer
    server.preempt()
    assert preemption.notice is None


def test_a_watcher_that_is_stopped_while_it_connects_asks_nothing(server, before, monkeypatch):
    preemption = Preemption(watch=["gce"])
    installed = threading.Event()

    class Connection(http.client.HTTPConnection):
        def connect(self):
            if server.asked:
                assert installed.wait(PATIENCE)
                preemption.uninstall()
            super().connect()

    monkeypatch.setattr(http.client, "HTTPConnection", Connection)
    preemption.install()
    installed.set()
    server.wait_until(bool)
    watchers_end()

    assert not is_held(server.asked)


def test_what_a_watcher_learns_after_it_was_stopped_is_no_notice(before, monkeypatch):
    preemption = Preemption(watch=["gce"])
    installed = threading.Event()

    def look(self, ask):
        assert installed.wait(PATIENCE)
        preemption.uninstall()
        return "too late", None

    monkeypatch.setattr(notices.Gce, "look", look)
    preemption.install()
    installed.set()
    watchers_end()

    assert preemption.notice is None


def test_a_forked_child_neither_watches_nor_cuts_the_parents_watcher_off(server, before):
    with Watched(watch=["gce", "gce"]) as preemption:
        server.wait_until(is_held)

        def work(tell):
            preemption.uninstall()
            tell(threading.active_count())

        assert Child(work).end() == (0, ["1"])
        server.preempt()
        assert preemption.came.wait(PATIENCE)

    assert len(server.asked) == 2
