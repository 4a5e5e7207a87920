"""What goes wrong on the way to a server: every fault that is tried, and what has to come of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.errors import AccessDenied, CheckpointError, DeadlineExceeded, StorageError
from tests.conformance.places import Place
from tests.servers.proxy import Answer, Fault, Kind


@dataclass(frozen=True)
class Trouble:
    """
    A fault that can strike any request.

    Attributes:
        name: in the ids of tests.
        kind: what the proxy does.
        answers: what it says where it answers, for each wording of errors, or for one place.
        lasting: whether it stays.
        passes: one more try helps, so that the operation has to succeed.
        is_ours: what is made was made already, by the request itself: where it makes something, the
            operation has to succeed.
        may_lack: a look may miss what is there, where listings do; it still never says "nothing".
        waits: the server says how long it wants to be left alone.
        raises: what comes out where the operation does not succeed.
    """

    name: str
    kind: Kind
    answers: Mapping[str, Answer] | None = None
    lasting: bool = False
    passes: bool = False
    is_ours: bool = False
    may_lack: bool = False
    waits: bool = False
    raises: type[CheckpointError] = CheckpointError

    def at(self, number: int, place: Place) -> Fault:
        """The fault that strikes the request with this number."""
        by_place = self.answers or {}
        answer = by_place.get(place.name) or by_place.get(place.errors) or Answer()
        kind = self.kind
        if kind == "flip reply" and place.always_tls:
            kind = "flip content"
        return Fault(kind, number, self.lasting, answer=answer)


def _said(
    status: int, code: str, reason: str, *headers: tuple[str, str], message: str = ""
) -> dict[str, Answer]:
    """One refusal in the words of S3, and in those of Google."""
    message = message or reason
    xml = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    json = (
        f'{{"error": {{"code": {status}, "message": "{message}", "errors": '
        f'[{{"domain": "usageLimits", "reason": "{reason}", "message": "{message}"}}]}}}}'
    )
    xml_type, json_type = ("Content-Type", "application/xml"), ("Content-Type", "application/json")
    return {
        "s3": Answer(status, xml.encode(), (xml_type, *headers)),
        "google": Answer(status, json.encode(), (json_type, *headers)),
    }


def _page(status: int) -> dict[str, Answer]:
    html = Answer(status, b"<html><h1>Bad Gateway</h1></html>", (("Content-Type", "text/html"),))
    return {"s3": html, "google": html}


#: How long a server asks to be left alone.
RETRY_AFTER_S = 1
_ASKS = ("Retry-After", str(RETRY_AFTER_S))
_TIRED = _said(503, "SlowDown", "backendError")
_BROKEN = _said(500, "InternalError", "internalError")
_BUSY = _said(429, "TooManyRequests", "rateLimitExceeded")
_EXPIRED = {
    "s3": _said(400, "ExpiredToken", "")["s3"],
    "google": _said(401, "", "authError")["google"],
}
_RATE = {
    "s3": _said(429, "TooManyRequests", "")["s3"],
    "google": _said(403, "", "userRateLimitExceeded")["google"],
}
_FORBIDDEN = {
    **_said(403, "AccessDenied", "forbidden"),
    "drive": _said(403, "", "insufficientFilePermissions")["google"],
}
_GONE = {
    **_said(404, "NoSuchBucket", "notFound"),
    "gcs": _said(404, "", "notFound", message="The specified bucket does not exist.")["google"],
}
_CONFLICT = _said(409, "ConditionalRequestConflict", "conflict")
_TAKEN = {
    **_said(412, "PreconditionFailed", "conditionNotMet"),
    "drive": _said(409, "", "fileIdInUse")["google"],
}

TROUBLES = [
    Trouble("refused", "refuse", passes=True),
    Trouble("reply lost", "lost", passes=True),
    Trouble("cut on the way there", "cut request", passes=True),
    Trouble("cut on the way back", "cut reply", passes=True),
    Trouble("short", "short reply", passes=True),
    Trouble("flipped on the way there", "flip request"),
    Trouble("flipped on the way back", "flip content"),
    Trouble("flipped in what the server says", "flip reply", may_lack=True),
    Trouble("hangs", "hang", raises=StorageError),
    Trouble("stands still on the way back", "stall", raises=StorageError),
    Trouble(
        "503 with Retry-After",
        "answer",
        _said(503, "SlowDown", "backendError", _ASKS),
        passes=True,
        waits=True,
    ),
    Trouble("500", "answer", _BROKEN, passes=True),
    Trouble("500 though done", "answer after", _BROKEN, passes=True),
    Trouble("429", "answer", _BUSY, passes=True),
    Trouble(
        "429 with Retry-After",
        "answer",
        _said(429, "TooManyRequests", "rateLimitExceeded", _ASKS),
        passes=True,
        waits=True,
    ),
    Trouble("rate limit", "answer", _RATE, passes=True),
    Trouble("409", "answer", _CONFLICT, passes=True),
    Trouble("taken, by ourselves", "answer after", _TAKEN, is_ours=True, raises=StorageError),
    Trouble("502 in HTML", "answer", _page(502), passes=True),
    Trouble("504 in HTML", "answer", _page(504), passes=True),
    Trouble("200 with an error in it", "answer", _said(200, "InternalError", "internalError")),
    Trouble("refused for good", "refuse", lasting=True, raises=StorageError),
    Trouble("503 for good", "answer", _TIRED, lasting=True, raises=StorageError),
    Trouble("no such bucket for good", "answer", _GONE, lasting=True),
    Trouble("hangs for good", "hang", lasting=True, raises=DeadlineExceeded),
    Trouble("expired", "answer", _EXPIRED, raises=AccessDenied),
    Trouble("expired for good", "answer", _EXPIRED, lasting=True, raises=AccessDenied),
    Trouble("forbidden", "answer", _FORBIDDEN, raises=AccessDenied),
    Trouble("forbidden for good", "answer", _FORBIDDEN, lasting=True, raises=AccessDenied),
]


def elsewhere(host: str) -> Trouble:
    """The server sends the client to another host, which must never hear of anything."""
    answer = Answer(307, b"", (("Location", f"{host}/elsewhere"),))
    return Trouble("redirected", "answer", {"s3": answer, "google": answer}, raises=StorageError)
