"""The metadata services of GCE and AWS on a free port, as the two clouds document them."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any, Self

from tests.servers.web import Answered, Asked, Server

#: Seconds until a test that waits in vain fails.
PATIENCE = 30
_PREEMPTED = "/computeMetadata/v1/instance/preempted"
_TOKEN = "/latest/api/token"
_ACTION = "/latest/meta-data/spot/instance-action"


class MetadataServer:
    """
    Both services for as long as the `with` block lasts.

    A question with `wait_for_change` is held until the value differs from `last_etag`, or for
    `timeout_sec`. A token counts until `forget_tokens`.

    Attributes:
        asked (list[Asked]): every question so far.
        broken (Answered | None): what every question gets instead of its answer.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_open = True
        self.begin_again()
        self._server = Server(self._answer)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._change(lambda: setattr(self, "_is_open", False))
        self._server.__exit__()

    def environment(self) -> dict[str, str]:
        """The variables by which a client finds it, in the form that each cloud's clients take."""
        endpoint = self._server.endpoint
        return {
            "GCE_METADATA_HOST": endpoint.removeprefix("http://"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{endpoint}/",
        }

    def begin_again(self) -> None:
        """Have been asked nothing, and have nothing to tell."""
        self.asked: list[Asked] = []
        self.broken: Answered | None = None
        self._preempted = False
        self._action: dict[str, str] | None = None
        self._tokens: set[str] = set()

    def preempt(self) -> None:
        """Take the machine away, as GCE does."""
        self._change(lambda: setattr(self, "_preempted", True))

    def interrupt(self, action: str, time: str) -> None:
        """Take the machine away, as AWS does."""
        self._change(lambda: setattr(self, "_action", {"action": action, "time": time}))

    def forget_tokens(self) -> None:
        """Let every token end."""
        self._change(self._tokens.clear)

    def wait_until(self, condition: Callable[[list[Asked]], Any]) -> None:
        """Wait until what was asked fulfils a condition."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.asked), PATIENCE), self.asked

    def _change(self, change: Callable[[], None]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def _answer(self, asked: Asked) -> Answered:
        self._change(lambda: self.asked.append(asked))
        if self.broken is not None:
            return self.broken
        if asked.path == _PREEMPTED:
            return self._gce(asked)
        if asked.path == _TOKEN:
            return self._token(asked)
        return self._aws(asked)

    def _gce(self, asked: Asked) -> Answered:
        told = [("Metadata-Flavor", "Google"), ("Server", "Metadata Server for VM")]
        if asked.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in asked.headers:
            return Answered(403, told, b"")
        with self._changed:
            if asked.query.get("wait_for_change") == "true":
                seen = asked.query.get("last_etag", self._etag())
                self._changed.wait_for(
                    lambda: self._etag() != seen or not self._is_open,
                    float(asked.query.get("timeout_sec", PATIENCE)),
                )
            body = b"TRUE" if self._preempted else b"FALSE"
            return Answered(200, [*told, ("ETag", self._etag())], body)

    def _etag(self) -> str:
        return "7c1f03a9d2" if self._preempted else "411261ca6c"

    def _token(self, asked: Asked) -> Answered:
        seconds = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if asked.method != "PUT":
            return Answered(405, [], b"")
        if not re.fullmatch("[0-9]+", seconds) or not 1 <= int(seconds) <= 21_600:
            return Answered(400, [], b"")
        with self._changed:
            token = f"AQAEA{len(self.asked):08}=="
            self._tokens.add(token)
        return Answered(200, [], token.encode())

    def _aws(self, asked: Asked) -> Answered:
        if asked.headers.get("x-aws-ec2-metadata-token") not in self._tokens:
            return Answered(401, [], b"")
        if asked.path != _ACTION or self._action is None:
            return Answered(404, [], b"")
        return Answered(200, [], json.dumps(self._action).encode())
