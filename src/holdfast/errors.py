"""
Every error that Holdfast raises.

    CheckpointError
    ├── NotFoundError     (LookupError)   no such checkpoint              ask for another, or start afresh
    ├── CorruptionError                   bytes differ from the manifest  restore an older one
    ├── FormatError                       a record that we cannot read    upgrade, or look elsewhere
    ├── StorageError      (OSError)       the place failed                the same call may be repeated
    │   ├── AccessDenied                  no right, or expired            grant it, then repeat
    │   ├── StorageFull                   no space or quota               make room, then repeat
    │   ├── DeadlineExceeded              no answer in time               repeat later
    │   └── AlreadyExists                 the key is taken                (users never meet it)
    ├── SupersededError                   another session took over       stop this process
    ├── PendingSaveError                  an earlier save failed          see __cause__; training is unharmed
    └── InvalidInputError (ValueError)    the call is wrong               fix the code; nothing was touched

A type exists only where its reader would act differently.
"""  # noqa: E501 - a tree reads better on one line each


class CheckpointError(Exception):
    """Base of all errors of this library."""


class NotFoundError(CheckpointError, LookupError):
    """There is no such checkpoint or object; it was never there, or it was removed."""


class CorruptionError(CheckpointError):
    """Stored bytes differ from what the manifest says."""


class FormatError(CheckpointError):
    """
    A record that this version cannot read: damaged, hostile, or of a newer format.

    Attributes:
        newer (bool): the record claims a format later than this version's. Such a record is never
            passed over, since what it says could matter.
    """

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


class StorageError(CheckpointError, OSError):
    """
    The place failed; the same call may be repeated.

    Attributes:
        errno (int | None): the operating system's number for it, where there is one.
        lasting (bool): repeating the call will not help before somebody has put something right.
        retry_after (float | None): seconds until the place wants to be asked again, if it said so.
    """

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        lasting: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.lasting = lasting
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        # OSError keeps its number outside of what is pickled.
        return type(self), self.args, {**vars(self), "errno": self.errno}


class AccessDenied(StorageError):
    """The place refused: a right is missing, or the credentials have expired."""


class StorageFull(StorageError):
    """The place has no room: the disk is full, or a quota is used up."""


class DeadlineExceeded(StorageError):
    """The place did not answer in time; whether the call took effect is unknown."""


class AlreadyExists(StorageError):
    """The key is taken, and what lies there was left alone."""


class SupersededError(CheckpointError):
    """A newer session by somebody else writes into this store; this one publishes nothing more."""


class PendingSaveError(CheckpointError):
    """A save in the background failed or gave way to a newer one; `__cause__` says why."""


class InvalidInputError(CheckpointError, ValueError):
    """The call is wrong; nothing was touched."""


class CheckpointWarning(UserWarning):
    """Something went wrong that nothing was lost by; the text says what and what to do."""
