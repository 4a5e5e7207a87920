"""What clients throw, as our errors: once, in plain words, without what may be secret in it."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    CheckpointError,
    DeadlineExceeded,
    NotFoundError,
    StorageError,
    StorageFull,
)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: What looks like a secret, wherever it stands: user info and queries of URLs; keys of AWS; tokens,
#: refresh tokens and client secrets of Google; tokens of JSON; keys in PEM; what a name announces.
_SECRETS = re.compile(
    r"(?<=//)[^/@\s]+(?=@)|(?<=\?)[^\s'\")]+|A[KS]IA[A-Z0-9]{12,}"
    r"|ya29\.[\w.-]+|\b1//[\w-]{10,}|GOCSPX-[\w-]+|eyJ[\w-]+\.[\w.-]+"
    r"|-----BEGIN.*?(-----END[^-]*-----|\Z)"
    r"|(?i:\bbearer\s+\S+|(?:password|secret|token|signature|credential|key)[\"']?\s*=\s*[^\s,;)]+)"
    r"|(?i:[\"'][\w-]*(?:password|secret|token|private_key)[\"']\s*:\s*[\"'][^\"']+)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Reaction:
    """
    What one failure of a client means.

    Attributes:
        kind (type[CheckpointError]): what is raised. A `NotFoundError` stays one only where a
            missing key is an answer.
        cure (str): what is so after it, and what to do, in sentences.
        why (str): the reason in plain words; empty for the client's own text.
        lasting (bool): trying again by itself will not help.
        retry_after (float | None): seconds until the place wants to be asked again.
    """

    kind: type[CheckpointError]
    cure: str = "The call may be repeated."
    why: str = ""
    lasting: bool = False
    retry_after: float | None = None


#: What a backend knows of the failures of its own client; None for those that it does not.
React = Callable[[Exception], Reaction | None]


@contextlib.contextmanager
def storage_errors(
    action: str,
    place: str,
    options: Mapping[str, Any],
    *,
    may_be_missing: bool = False,
    react: React = lambda _: None,
) -> Iterator[None]:
    """
    Translate what a client throws into our errors, once, without what may be secret in it.

    Filesystems throw what their clients throw: `OSError` and its kinds, but also `ValueError`,
    `RuntimeError` and errors of HTTP libraries. So everything but the end of the process is caught.

    Parameters:
        action (str): what was tried, as it follows `cannot`.
        place (str): the URL that it was tried on.
        options (Mapping[str, Any]): the client's options; their values are cut from messages.
        may_be_missing (bool): "not found" is an answer, a NotFoundError, and no failure.
        react (Callable): what the backend knows of its client's failures; what it does not know is
            judged by what all clients have in common.
    """
    failure: Exception
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 - the kinds are those of any library
        failure = error
    else:
        return
    reaction = react(failure) or _reaction(failure)
    translated = _translated(reaction, failure, f"{action} {place}", place, options, may_be_missing)
    chain = list(causes(failure))
    if any(redact(f"{link} {link.args}", options) != f"{link} {link.args}" for link in chain):
        raise translated from None  # with its cause the secret would be shown
    raise translated from failure


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from, down to the first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def redact(text: str, options: Mapping[str, Any]) -> str:
    """A text without the values of options, and without what looks like a secret."""
    for secret in sorted(_texts(options), key=len, reverse=True):
        text = text.replace(secret, "…")
    return _SECRETS.sub("…", text)


def _translated(
    reaction: Reaction,
    failure: Exception,
    what: str,
    place: str,
    options: Mapping[str, Any],
    may_be_missing: bool,  # noqa: FBT001 - handed on
) -> CheckpointError:
    kind, number = reaction.kind, _errno(failure)
    if issubclass(kind, NotFoundError):
        if may_be_missing:
            return NotFoundError(f"there is no {place}")
        kind, number = StorageError, errno.ENOENT
    why = reaction.why or f"{type(failure).__name__}: {failure}".rstrip(": ")
    message = (
        f"cannot {what}: {redact(why, options).rstrip('.')}. What is committed is untouched. "
        f"{reaction.cure}"
    )
    if not issubclass(kind, StorageError):
        return kind(message)
    return kind(message, errno=number, lasting=reaction.lasting, retry_after=reaction.retry_after)


def _reaction(error: Exception) -> Reaction:
    """What all clients have in common."""
    codes = {code for link in causes(error) for code in _codes(link)}
    if isinstance(error, FileNotFoundError) and not is_bucket_missing(error):
        return Reaction(NotFoundError)
    if isinstance(error, FileExistsError) or "PreconditionFailed" in codes:
        return Reaction(AlreadyExists, "What lies there is unchanged.")
    if isinstance(error, PermissionError) or codes & {401, 403}:
        cure = "Grant the right or renew the credentials, then repeat the call."
        return Reaction(AccessDenied, cure)
    if getattr(error, "errno", None) in _FULL:
        return Reaction(StorageFull, "Make room there, or on this machine, then repeat the call.")
    if isinstance(error, TimeoutError):
        cure = "Whether it took effect is unknown; the call may be repeated."
        return Reaction(DeadlineExceeded, cure)
    return Reaction(StorageError)


def _errno(error: Exception) -> int | None:
    number = getattr(error, "errno", None)
    if number is None and isinstance(error, FileNotFoundError):
        return errno.ENOENT  # filesystems leave it out
    return number if isinstance(number, int) else None


def _codes(error: BaseException) -> tuple[object, object]:
    """What the server answered: botocore's code, and an HTTP status."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None
    status = getattr(error, "status", None)
    return code, getattr(error, "code", None) if status is None else status


def is_bucket_missing(error: BaseException) -> bool:
    """Whether "not found" speaks of the whole place, which is never the same as an empty one."""
    return any(
        "NoSuchBucket" in _codes(link) or "bucket does not exist" in str(link)
        for link in causes(error)
    )


def _texts(value: Any) -> Iterator[str]:
    """The texts in a filesystem's options, however deep; short ones are no secrets."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, str) and len(value) >= 6:
        yield value
