"""What a cloud says of a machine that it will take away: the metadata services of GCE and AWS."""

import contextlib
import http.client
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from urllib.parse import quote, urlsplit

#: Told of a notice: why the machine goes, and how many seconds are left, if the cloud says that.
Tell = Callable[[str, float | None], None]

#: Where both services answer. An address, since looking a name up is a wait that nothing ends.
ADDRESS = "169.254.169.254"
#: Seconds for an answer: the service is a part of the machine's host.
ANSWER_SECONDS = 5.0
#: Seconds for which GCE is asked to hold its answer back while nothing changes.
HOLD_SECONDS = 60
#: Seconds between two questions after the first failure, and after many.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
#: Seconds before the time that AWS names at which the work has to be done.
MARGIN_SECONDS = 5.0
#: AWS tells two minutes ahead. A time further off, or over, is that of a clock that is wrong.
LONGEST_NOTICE_SECONDS = 125.0
#: Seconds for which a token of AWS is asked for; it gives none for longer.
TOKEN_SECONDS = 21_600
_LARGEST_ANSWER = 64 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a service said."""

    status: int
    headers: Message
    body: str


#: Asks: the method, the path with its query, the headers, and the seconds to wait for an answer.
Ask = Callable[[str, str, dict[str, str], float], Answer]


class NoServiceError(ValueError):
    """What answers is not the service that was asked for."""


class Gce:
    """
    Google's, which holds its answer back until something changes.

    https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption and
    https://cloud.google.com/compute/docs/metadata/querying-metadata#waitforchange

    Attributes:
        name (str): whose service it is.
        variable (str): the variable of the environment that says where else it answers.
        every (float): seconds from one look to the next, at least.
    """

    name = "GCE"
    variable = "GCE_METADATA_HOST"
    every = 1.0
    _PATH = "/computeMetadata/v1/instance/preempted"

    def __init__(self) -> None:
        self._seen = ""

    def look(self, ask: Ask) -> tuple[str, float | None] | None:
        """
        Ask what holds now, and from then on for a change since: so none is missed.

        Returns:
            tuple[str, float | None] | None: what `Tell` takes, or None without a notice.

        Raises:
            OSError, http.client.HTTPException, ValueError: the service did not answer.
        """
        path, seconds = self._PATH, ANSWER_SECONDS
        if self._seen:
            seen = quote(self._seen, safe="")
            path += f"?wait_for_change=true&last_etag={seen}&timeout_sec={HOLD_SECONDS}"
            seconds += HOLD_SECONDS
        answer = ask("GET", path, {"Metadata-Flavor": "Google"}, seconds)
        if answer.headers["Metadata-Flavor"] != "Google":
            raise NoServiceError("what answers there is not Google's")
        if answer.status != http.client.OK:
            raise NoServiceError(f"it answered with status {answer.status}")
        self._seen = answer.headers["ETag"] or ""
        if answer.body.strip().upper() != "TRUE":
            return None
        return "GCE preempts this machine", None


class Aws:
    """
    Amazon's, in its second version, which wants a token; it asks to be looked at every 5 seconds.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html

    Attributes:
        name, variable, every: as of `Gce`.
    """

    name = "AWS"
    variable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    every = 5.0
    _ACTIONS = ("terminate", "stop", "hibernate")

    def __init__(self) -> None:
        self._token: str | None = None

    def look(self, ask: Ask) -> tuple[str, float | None] | None:
        """
        Ask with the token that there is, and once with a new one if that has ended.

        Returns, Raises:
            as `Gce.look`.
        """
        answer = self._ask_for_action(ask)
        if answer.status == http.client.UNAUTHORIZED:
            self._token = None
            answer = self._ask_for_action(ask)
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise NoServiceError(f"it answered with status {answer.status}")
        told = json.loads(answer.body)
        if not isinstance(told, dict) or told.get("action") not in self._ACTIONS:
            raise NoServiceError("what answers there is not Amazon's")
        # It hibernates at once; what that interrupts goes on when the machine wakes up.
        seconds = None if told["action"] == "hibernate" else _seconds_until(told.get("time"))
        return f"AWS will {told['action']} this machine", seconds

    def _ask_for_action(self, ask: Ask) -> Answer:
        if self._token is None:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": f"{TOKEN_SECONDS}"}
            answer = ask("PUT", "/latest/api/token", wanted, ANSWER_SECONDS)
            if answer.status != http.client.OK:
                raise NoServiceError(f"it gave no token, but status {answer.status}")
            self._token = answer.body
        shown = {"X-aws-ec2-metadata-token": self._token}
        return ask("GET", "/latest/meta-data/spot/instance-action", shown, ANSWER_SECONDS)


SERVICES: dict[str, type[Gce] | type[Aws]] = {"gce": Gce, "aws": Aws}


class Watcher:
    """
    Asks one cloud's metadata service on a thread of its own until it gives a notice, then ends.

    A service that does not answer is told in the log, once until it answers again, and is asked
    more and more rarely.

    Parameters:
        cloud (str): whose service.
        tell (Tell): called with the notice, from that thread.
    """

    def __init__(self, cloud: str, tell: Tell) -> None:
        self._cloud = cloud
        self._service = SERVICES[cloud]()
        self._tell = tell
        self._stopped = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        # A daemon: a process must not live on for the sake of an answer that is held back.
        threading.Thread(target=self._run, name=f"holdfast-watch-{cloud}", daemon=True).start()

    def stop(self) -> None:
        """Ask no more, and tell nothing more; waits for nothing."""
        self._stopped.set()
        opened = self._connection and self._connection.sock
        if opened:
            with contextlib.suppress(OSError):  # closed just now
                opened.shutdown(socket.SHUT_RDWR)  # ends the wait for an answer

    def _run(self) -> None:
        pause, is_silent = FIRST_PAUSE_SECONDS, False
        while not self._stopped.is_set():
            begun = time.monotonic()
            try:
                notice = self._service.look(self._ask)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if not (is_silent or self._stopped.is_set()):
                    self._tell_silence(error)
                is_silent = True
                self._stopped.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if notice is not None:
                if not self._stopped.is_set():
                    self._tell(*notice)
                return
            pause, is_silent = FIRST_PAUSE_SECONDS, False
            self._stopped.wait(max(0.0, begun + self._service.every - time.monotonic()))

    def _ask(self, method: str, path: str, headers: dict[str, str], seconds: float) -> Answer:
        # The plain client, since it knows no proxies: this never leaves the machine's host.
        connection = http.client.HTTPConnection(
            *_address(self._service.variable), timeout=ANSWER_SECONDS
        )
        with contextlib.closing(connection):
            self._connection = connection
            connection.connect()
            # `stop` sees the socket from here on; one that came before is seen now.
            if self._stopped.is_set():
                raise NoServiceError("it is not asked any more")
            connection.sock.settimeout(seconds)
            connection.request(method, path, headers=headers)
            with connection.getresponse() as response:
                body = response.read(_LARGEST_ANSWER).decode("ascii")
                return Answer(response.status, response.headers, body)

    def _tell_silence(self, error: Exception) -> None:
        _log.warning(
            "asked to watch for notices of %s, but no metadata service of it answers: %s. "
            "Training is unharmed, SIGTERM is heeded all the same, and the service is asked again. "
            "Set %s if it answers somewhere else; leave %r out of watch if this is another cloud.",
            self._service.name,
            error,
            self._service.variable,
            self._cloud,
        )


def _address(variable: str) -> tuple[str, int]:
    """Where a service answers: Google's variable holds `host:port`, Amazon's a URL."""
    place = os.environ.get(variable) or ADDRESS
    parts = urlsplit(place if "//" in place else f"//{place}")
    return parts.hostname or "", parts.port or http.client.HTTP_PORT


def _seconds_until(moment: object) -> float | None:
    """What is left until a moment such as `2026-11-21T09:00:00Z`; None if that says nothing."""
    try:
        left = (datetime.fromisoformat(str(moment)) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return None
    return max(0.0, left - MARGIN_SECONDS) if 0 < left <= LONGEST_NOTICE_SECONDS else None
