"""What the failures of S3's client mean: the missing right, the wrong region, the expired token."""

import dataclasses
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from botocore import exceptions as botocore

from holdfast.backends.translating import Reaction, causes
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    NotFoundError,
    StorageError,
    StorageFull,
)

_TAKEN = ("PreconditionFailed", "412")
#: The rights that operations need, as a policy spells them; all others need the one to write.
_READ, _WRITE = "s3:GetObject", "s3:PutObject"
_RIGHTS: Final = {
    "GetObject": _READ,
    "HeadObject": _READ,
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
#: What the codes of S3, and of servers that speak like it, mean (Amazon S3 API Reference, "Error
#: responses"). An answer without a body has its status for a code.
_KNOWN: Final[Mapping[str, Reaction]] = {
    code: reaction
    for codes, reaction in (
        (_TAKEN, Reaction(AlreadyExists, "What lies there is unchanged.", "the key is taken")),
        (("NoSuchKey", "404"), Reaction(NotFoundError)),
        (
            ("NoSuchBucket",),
            Reaction(
                StorageError,
                "Create it, or correct the URL, then repeat the call.",
                "the bucket {bucket} does not exist, and Holdfast creates none",
                lasting=True,
            ),
        ),
        (
            ("InvalidBucketName",),
            Reaction(
                StorageError, "Correct the URL.", "{bucket} is no name of a bucket", lasting=True
            ),
        ),
        (
            ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
            Reaction(
                AccessDenied,
                "Log in again, or renew the token, then repeat the call.",
                "the credentials have expired ({code})",
            ),
        ),
        (
            (
                "InvalidAccessKeyId",
                "InvalidClientTokenId",
                "InvalidToken",
                "UnrecognizedClientException",
            ),
            Reaction(
                AccessDenied,
                "Give the credentials that belong to this place, then repeat the call.",
                "the server does not know the access key ({code})",
            ),
        ),
        (
            ("SignatureDoesNotMatch", "Unauthorized", "401"),
            Reaction(
                AccessDenied,
                "Give the secret that belongs to the access key, then repeat the call.",
                "the signature was refused ({code})",
            ),
        ),
        (
            ("RequestTimeTooSkewed",),
            Reaction(
                StorageError,
                "Set this machine's clock, then repeat the call.",
                "the clocks of this machine and of the server are too far apart",
                lasting=True,
            ),
        ),
        (
            ("InvalidObjectState",),
            Reaction(
                StorageError,
                "Restore it from the archive (aws s3api restore-object), then repeat the call.",
                "the object lies in an archive and cannot be read from there",
                lasting=True,
            ),
        ),
        (
            ("NotImplemented", "501"),
            Reaction(
                StorageError,
                "Checkpoints need a server that has conditional writes (If-None-Match).",
                "the server cannot do what it was asked for ({code})",
                lasting=True,
            ),
        ),
        (
            ("507", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"),
            Reaction(StorageFull, "Make room there, then repeat the call.", "no room ({code})"),
        ),
    )
    for code in codes
}
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"})
_MOVED = frozenset(
    {
        "301",
        "307",
        "308",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "Redirect",
        "TemporaryRedirect",
    }
)
_LATER = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"})
#: What credentials are missing or spent, found before anything was sent.
_NO_CREDENTIALS = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.TokenRetrievalError,
    botocore.SSOError,
    botocore.NoAuthTokenError,
)
_TIMES_OUT = (botocore.ReadTimeoutError, botocore.ConnectTimeoutError)
#: What was asked for in a way that no server would understand.
_MALFORMED = (botocore.ParamValidationError, botocore.ProfileNotFound, TypeError, ValueError)


class RedirectedError(Exception):
    """The server pointed to another host, and was not followed there."""

    def __init__(self, host: str | None) -> None:
        super().__init__(f"the server points to {host or 'elsewhere'}; redirects are not followed")


def reaction(error: Exception, *, bucket: str) -> Reaction | None:
    """
    What a failure of the client means; None for what is like that of any other client.

    Parameters:
        error (Exception): as it came.
        bucket (str): its name.
    """
    for link in causes(error):
        if isinstance(link, botocore.ClientError):
            right = _RIGHTS.get(link.operation_name, _WRITE)
            return _of_answer(link.response, right, bucket)
    return _of_client(error)


def _of_answer(answer: Mapping[str, Any], right: str, bucket: str) -> Reaction:
    said = answer.get("Error", {})
    code, text = str(said.get("Code", "")), str(said.get("Message", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _TAKEN and right == _READ:
        return Reaction(StorageError, why="the object was replaced while it was being read")
    if "kms:" in text or code.startswith("KMS."):
        return _of_kms(code, text)
    if known := _KNOWN.get(code):
        return dataclasses.replace(known, why=known.why.format(bucket=bucket, code=code))
    if code in _DENIED:
        return _denied(code, right, bucket)
    if code in _MOVED:
        return _moved(answer, code, bucket)
    if code in _LATER or status in (408, 429) or status >= 500:
        why = f"the server could not do it now ({code or status})"
        return Reaction(StorageError, why=why, retry_after=_retry_after(answer))
    # Said without the client's own kind: `NoSuchUpload` is no missing key, and may be repeated.
    return Reaction(StorageError, why=f"{code or status}: {text}")


def _of_client(error: Exception) -> Reaction | None:
    for link in causes(error):
        if isinstance(link, RedirectedError):
            cure = "Give the region and the endpoint that the bucket belongs to."
            return Reaction(StorageError, cure, str(link), lasting=True)
        if isinstance(link, _NO_CREDENTIALS):
            return Reaction(
                AccessDenied,
                "Log in (aws configure, aws sso login), set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give key and secret in storage_options; for a bucket "
                "that anybody may read, give anon=True.",
                f"there are no credentials ({type(link).__name__})",
            )
        if type(link) is TimeoutError:  # of asyncio, which says nothing with it
            cure = "Whether it took effect is unknown; the call may be repeated."
            return Reaction(DeadlineExceeded, cure, "the server took nothing for a long time")
        if isinstance(link, _TIMES_OUT):
            cure = "Whether it took effect is unknown; the call may be repeated."
            return Reaction(DeadlineExceeded, cure, f"{_host(link)} did not answer in time")
        if isinstance(link, botocore.SSLError | botocore.ProxyConnectionError):
            cure = "Check the endpoint, the certificates and the proxy, then repeat the call."
            return Reaction(StorageError, cure, f"no safe connection to {_host(link)}: {link}")
        if isinstance(link, botocore.EndpointConnectionError):
            cure = "Check the network and the endpoint, then repeat the call."
            return Reaction(StorageError, cure, f"{_host(link)} cannot be reached")
    if isinstance(error, _MALFORMED):
        cure = "Correct the URL or the storage_options."
        return Reaction(StorageError, cure, str(error), lasting=True)
    return None


def _denied(code: str, right: str, bucket: str) -> Reaction:
    cure = f"Grant {right}, then repeat the call."
    if right == _READ:
        cure = (
            "Grant it, then repeat the call. To who lacks s3:ListBucket, S3 gives this answer for "
            "a key that is missing too: grant both."
        )
    why = f"the bucket {bucket} refused, since the right {right} is missing ({code})"
    return Reaction(AccessDenied, cure, why)


def _of_kms(code: str, text: str) -> Reaction:
    needed = re.search(r"kms:\w+", text)
    if needed:
        cure = f"Grant {needed[0]} on that key, then repeat the call."
        why = f"the key that encrypts the bucket refused, since the right {needed[0]} is missing"
        return Reaction(AccessDenied, cure, why)
    cure = "Put the key of the bucket's encryption right, then repeat the call."
    return Reaction(AccessDenied, cure, f"the key that encrypts the bucket cannot be used ({code})")


def _moved(answer: Mapping[str, Any], code: str, bucket: str) -> Reaction:
    region = answer["Error"].get("Region") or _headers(answer).get("x-amz-bucket-region")
    if not region:
        cure = "Give the region and the endpoint that the bucket belongs to."
        why = f"the bucket {bucket} is not served here ({code})"
        return Reaction(StorageError, cure, why, lasting=True)
    cure = (
        f"Set AWS_DEFAULT_REGION={region}, or give client_kwargs={{'region_name': '{region}'}} in "
        "storage_options; with an endpoint of your own, give the one of that region."
    )
    why = f"the bucket {bucket} lies in the region {region} ({code})"
    return Reaction(StorageError, cure, why, lasting=True)


def _retry_after(answer: Mapping[str, Any]) -> float | None:
    said = _headers(answer).get("retry-after", "")
    if said.isdecimal():
        return float(said)
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # no date, or one without a zone
        return None


def _headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return found


def _host(error: BaseException) -> str:
    """Whom the client talked to; the whole URL would show more than anybody needs."""
    said = getattr(error, "kwargs", {})
    url = urlsplit(str(said.get("endpoint_url") or said.get("proxy_url") or ""))
    return f"{url.hostname}:{url.port}" if url.hostname and url.port else url.hostname or "S3"
