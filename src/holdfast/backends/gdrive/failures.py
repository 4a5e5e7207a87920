"""What Drive answers when it refuses, and what that means."""

from http import HTTPStatus
from typing import Any, Self

import google.auth.exceptions
import requests

from holdfast.backends.translating import Reaction
from holdfast.errors import AccessDenied, DeadlineExceeded, StorageError, StorageFull

_SIGN_IN = (
    "Sign in again: auth.authenticate_user() on Colab, the same OAuth client elsewhere. The "
    "refresh tokens of an OAuth client in testing end after 7 days."
)
_SCOPE = (
    "The credentials lack the scope: sign in with https://www.googleapis.com/auth/drive.file, or "
    "with .../auth/drive where other programs made the folder."
)
_RIGHT = (
    "Let the owner grant this account the right. Removing for good takes the file's owner, or a "
    "manager of the shared drive; whoever may only use the trash gives trash=True in "
    "storage_options."
)
_ROOM = "Make room in Drive and empty its trash, which counts too, then repeat the call."
_ROOMLESS = (
    "A service account has no room of its own: put the store on a shared drive that it is a "
    "member of, or sign in as a user."
)
_MEMBERS = "Drive takes no more files there. Prune, or open the store in another folder or drive."
_WAIT = "Drive asks to be called less often. The call may be repeated."

#: By the reason that Drive gives. What the docs of Drive list and is not here is judged by the
#: status alone.
_REASONS: dict[str, Reaction] = {
    **dict.fromkeys(
        ("rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded"),
        Reaction(StorageError, _WAIT),
    ),
    "dailyLimitExceeded": Reaction(
        StorageError,
        "The project of the OAuth client has used up its day's calls: repeat the call tomorrow, or "
        "raise its quota.",
        lasting=True,
    ),
    "downloadQuotaExceeded": Reaction(
        StorageError,
        "The file was downloaded too often today: repeat the call tomorrow.",
        lasting=True,
    ),
    "storageQuotaExceeded": Reaction(StorageFull, _ROOM),
    **dict.fromkeys(
        (
            "activeItemCreationLimitExceeded",
            "myDriveHierarchyDepthLimitExceeded",
            "numChildrenInNonRootLimitExceeded",
            "teamDriveFileLimitExceeded",
            "teamDriveHierarchyTooDeep",
        ),
        Reaction(StorageFull, _MEMBERS),
    ),
    **dict.fromkeys(
        ("insufficientPermissions", "insufficientScopes"), Reaction(AccessDenied, _SCOPE)
    ),
    "appNotAuthorizedToFile": Reaction(
        AccessDenied,
        "With the scope drive.file only what this OAuth client made is seen: use that client, or "
        "sign in with the scope https://www.googleapis.com/auth/drive.",
    ),
    "insufficientFilePermissions": Reaction(AccessDenied, _RIGHT),
    "accessNotConfigured": Reaction(
        AccessDenied, "Enable the Google Drive API in the project of the OAuth client."
    ),
}
_MISSING = (
    "Look at the URL, and whether this account sees the folder; with the scope drive.file only "
    "what the same OAuth client made is seen."
)


class Refusal(Exception):
    """
    An answer of Drive that is an error.

    Attributes:
        status (int): the HTTP status.
        reason (str): Drive's own word for it; empty where it gives none.
        retry_after (float | None): seconds until Drive wants to be asked again.
    """

    def __init__(
        self, status: int, reason: str = "", text: str = "", retry_after: float | None = None
    ) -> None:
        why = f"{status} {reason}".strip()
        super().__init__(f"Drive answered {why}: {text}" if text else f"Drive answered {why}")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    @classmethod
    def of(cls, response: requests.Response) -> Self:
        """The refusal that a response is; a page of HTML is not shown."""
        after = response.headers.get("Retry-After", "")
        retry_after = float(after) if after.isdigit() else None
        try:
            error = response.json()["error"]
            reason = _reason(error)
            return cls(response.status_code, reason, str(error["message"])[:300], retry_after)
        except (ValueError, KeyError, TypeError):
            return cls(response.status_code, retry_after=retry_after)


def react(error: Exception) -> Reaction | None:
    """What a failure of the calls to Drive means; None for what has nothing to do with them."""
    if isinstance(error, Refusal):
        return _refused(error)
    if isinstance(error, requests.Timeout):
        cure = "Whether it took effect is unknown; the call may be repeated."
        return Reaction(DeadlineExceeded, cure, why="Drive did not answer in time")
    if isinstance(error, requests.RequestException):
        why = f"the connection to Drive failed ({type(error).__name__})"
        return Reaction(StorageError, why=why)
    if isinstance(error, google.auth.exceptions.TransportError) or _may_pass(error):
        why = "Google's servers for signing in cannot be reached"
        return Reaction(StorageError, why=why)
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return Reaction(
            AccessDenied, _SIGN_IN, why=f"the credentials were refused: {_first(error)}"
        )
    return None


def _refused(error: Refusal) -> Reaction:
    reaction = _REASONS.get(error.reason)
    if error.reason == "storageQuotaExceeded" and "Service Accounts" in str(error):
        reaction = Reaction(StorageFull, _ROOMLESS)
    if reaction is None:
        reaction = _by_status(error.status)
    return Reaction(
        reaction.kind,
        reaction.cure,
        why=str(error),
        lasting=reaction.lasting,
        retry_after=error.retry_after,
    )


def _by_status(status: int) -> Reaction:
    if status == HTTPStatus.UNAUTHORIZED:
        return Reaction(AccessDenied, _SIGN_IN)
    if status == HTTPStatus.FORBIDDEN:
        return Reaction(AccessDenied, "Grant the right, then repeat the call.")
    if status == HTTPStatus.NOT_FOUND:
        return Reaction(StorageError, _MISSING, lasting=True)
    if 300 <= status < 400:
        cure = "Drive sends nobody to another address: look at the proxy and the endpoint."
        return Reaction(StorageError, cure, lasting=True)
    return Reaction(StorageError)


def _reason(error: dict[str, Any]) -> str:
    return str(error["errors"][0]["reason"]) if error.get("errors") else ""


def _may_pass(error: Exception) -> bool:
    return isinstance(error, google.auth.exceptions.GoogleAuthError) and bool(error.retryable)


def _first(error: Exception) -> str:
    """What the error says, without the whole answer that it carries along."""
    return str(error.args[0]) if error.args else type(error).__name__
