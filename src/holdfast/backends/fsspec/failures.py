"""What filesystems of fsspec throw, where the class of it does not say what it means."""

import errno

from holdfast.backends.translating import Reaction, causes, is_bucket_missing
from holdfast.errors import AccessDenied, AlreadyExists, NotFoundError, StorageError

#: Some raise a bare OSError with its number, and no kind of it.
_KINDS = {errno.ENOENT: NotFoundError, errno.EEXIST: AlreadyExists, errno.EACCES: AccessDenied}


def react(error: Exception) -> Reaction | None:
    """What a failure means; None where it says so itself."""
    replies = [str(each) for each in causes(error) if type(each).__module__ == "ftplib"]
    if replies:
        return _react_to_ftp(replies)
    if "repository not found" in str(error).lower():  # hf, of what looks like a missing file
        return Reaction(StorageError, "Make it, or give the right name.", lasting=True)
    number = error.errno if isinstance(error, OSError) else None
    if number in _KINDS and not is_bucket_missing(error):
        return Reaction(_KINDS[number])
    return None


def is_missing(error: Exception) -> bool:
    """Whether a failure is the answer that there is no such key, and not one of the place."""
    if reaction := react(error):
        return issubclass(reaction.kind, NotFoundError)
    return isinstance(error, FileNotFoundError) and not is_bucket_missing(error)


def _react_to_ftp(replies: list[str]) -> Reaction:
    """What a server's replies mean; the filesystem says of each that the file is not there."""
    why = f"the server answered {replies[-1]!r}"
    if any("denied" in reply.lower() or reply.startswith("530") for reply in replies):
        cure = "Grant the right or correct the credentials, then repeat the call."
        return Reaction(AccessDenied, cure, why)
    if all(reply.startswith("550") for reply in replies):  # RFC 959: the file is unavailable
        return Reaction(NotFoundError)
    return Reaction(StorageError, why=why)
