"""What the answers of Cloud Storage mean."""

import re
from collections.abc import Callable

from gcsfs.retry import HttpError, NonRetryableError
from google.auth.exceptions import GoogleAuthError, TransportError

from holdfast.backends.gcs.client import RefusedError
from holdfast.backends.translating import Reaction, causes
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    NotFoundError,
    StorageError,
)

#: The right that each verb needs.
_RIGHTS = {
    "create": "storage.objects.create",
    "upload": "storage.objects.create",
    "read": "storage.objects.get",
    "download": "storage.objects.get",
    "compare": "storage.objects.get",
    "list": "storage.objects.list",
    "delete": "storage.objects.delete",
}
#: To these verbs nothing can be missing but the bucket.
_NEED_NO_KEY = frozenset({"create", "upload", "list"})
_LATER = "The call may be repeated."
_RENEW = (
    "Renew the credentials, with `gcloud auth application-default login` or in Colab with "
    "`google.colab.auth.authenticate_user()`, then repeat the call."
)
_BUSY = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"})
#: Refusals that are not for want of a right on the object: what to do about each.
_CURES = {
    "accountDisabled": "Put the billing of the project that owns the bucket in order.",
    "billingNotEnabled": "Put the billing of the project that owns the bucket in order.",
    "accessNotConfigured": "Enable the Cloud Storage API in the project, then repeat the call.",
    "insufficientPermissions": (
        "The credentials may not be used for that: give the machine or the login the scope "
        "devstorage.read_write, and the account the right {right}."
    ),
    "UserProjectAccessDenied": (
        "The account needs serviceusage.services.use on the project that is to be billed."
    ),
    "objectUnderActiveHold": "Release the hold, or leave the object where it is.",
    "retentionPolicyNotMet": (
        "The bucket keeps objects for a while; delete it when that is over, or change the "
        "retention policy."
    ),
}
_PROTECTED = frozenset({"objectUnderActiveHold", "retentionPolicyNotMet"})


def react(action: str) -> Callable[[Exception], Reaction | None]:
    """
    How failures of one verb are told; what is not Cloud Storage's own is left to others.

    Parameters:
        action (str): `create`, `upload`, `read`, `download`, `compare`, `list` or `delete`.
    """

    def reaction(error: Exception) -> Reaction | None:
        if isinstance(error, RefusedError):
            return _refused(error, action)
        if isinstance(error, TimeoutError):
            cure = "Whether it took effect is unknown; the call may be repeated."
            return Reaction(DeadlineExceeded, cure, "the other side fell silent")
        return _unauthenticated(error)

    return reaction


def _unauthenticated(error: Exception) -> Reaction | None:
    """Credentials that could not be renewed, which is found out before anything is sent."""
    if not isinstance(error, HttpError | NonRetryableError | GoogleAuthError):
        return None
    for cause in causes(error):
        if isinstance(cause, TransportError) or getattr(cause, "retryable", False):
            return Reaction(StorageError, why="the credentials could not be renewed just now")
    return Reaction(AccessDenied, _RENEW, "the credentials have expired, or were revoked")


def _refused(error: RefusedError, action: str) -> Reaction:
    status, reason, message = error.status, error.reason, error.message
    said = f"{status} {reason}: {message}"
    putting = action in ("create", "upload")
    if status == 412 and putting:
        return Reaction(AlreadyExists, "What lies there is unchanged.", "the key is taken")
    if error.is_passing or reason in _BUSY:
        return Reaction(StorageError, _LATER, said, retry_after=error.retry_after)
    if status == 401:
        if "anonymous" in message.lower():
            return Reaction(AccessDenied, f"It needs {_RIGHTS[action]}. {_RENEW}", said)
        return Reaction(AccessDenied, _RENEW, f"the credentials have expired ({said})")
    if status == 403:
        return _forbidden(error, action)
    if status == 404:
        return _missing(error, action)
    if status in (409, 410, 412, 416) or "doesn't match calculated" in message:
        return Reaction(StorageError, _LATER, said)
    if "requester pays" in message.lower() or reason == "UserProjectMissing":
        cure = "Say who pays: storage_options={'requester_pays': 'your-project'}."
        return Reaction(StorageError, cure, said, lasting=True)
    cure = "Look at the endpoint and the options that the store was opened with."
    return Reaction(StorageError, cure, said, lasting=True)


def _forbidden(error: RefusedError, action: str) -> Reaction:
    said = f"403 {error.reason}: {error.message}"
    named = re.search(r"storage\.objects\.\w+", error.message)
    right = named[0] if named else _RIGHTS[action]
    # Nothing is ever overwritten: who is told that he may not has met what lies there.
    if action in ("create", "upload") and (
        right == "storage.objects.delete" or error.reason in _PROTECTED
    ):
        return Reaction(AlreadyExists, "What lies there is unchanged.", "the key is taken")
    cure = _CURES.get(error.reason, "It needs the right {right}. Grant it, then repeat the call.")
    return Reaction(AccessDenied, cure.format(right=right), said)


def _missing(error: RefusedError, action: str) -> Reaction:
    said = error.message
    if "bucket does not exist" in said or (action in _NEED_NO_KEY and error.reason):
        cure = "Make the bucket, or give the URL of one that exists."
        return Reaction(StorageError, cure, "the bucket does not exist", lasting=True)
    if error.reason == "notFound" or said.startswith(("No such object", "Not Found")):
        return Reaction(NotFoundError)
    cure = "What answers there is not Cloud Storage; look at the endpoint_url."
    return Reaction(StorageError, cure, f"404: {said[:200]}", lasting=True)
