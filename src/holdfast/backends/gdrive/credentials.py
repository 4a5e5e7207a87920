"""Who signs in to Drive: what `storage_options` give, or what this machine has."""

import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import google.auth
import google.auth.exceptions
from google.auth.credentials import Credentials, with_scopes_if_required
from google.oauth2.credentials import Credentials as UserCredentials
from google.oauth2.service_account import Credentials as ServiceCredentials

from holdfast.errors import AccessDenied, InvalidInputError

#: The scope that is asked for where the credentials do not bring one of their own.
_SCOPES = ("https://www.googleapis.com/auth/drive",)
#: The options that say who signs in; one of them at most.
WAYS = ("credentials", "auth", "token_file", "service_account_file")


def sign_in(options: Mapping[str, Any]) -> Credentials:
    """
    The credentials that options name, or else those of this machine.

    Raises:
        InvalidInputError: the options do not fit, or others can read the token.
        AccessDenied: nothing is given and this machine has none.
    """
    given = [way for way in WAYS if options.get(way) is not None]
    if len(given) > 1:
        raise InvalidInputError(
            f"the storage_options {' and '.join(given)} both say who signs in to Drive. Nothing "
            "was touched. Give one of them."
        )
    if not given:
        return _of_this_machine()
    value = options[given[0]]
    if given == ["credentials"]:
        if not isinstance(value, Credentials):
            raise InvalidInputError(
                f"`credentials` is a {type(value).__name__} and no credentials of google-auth. "
                "Nothing was touched. A GoogleAuth of PyDrive2 is given as `auth`."
            )
        return _scoped(value)
    if given == ["auth"]:
        return _Borrowed(value)
    return _read(Path(value), is_token=given == ["token_file"])


def _read(path: Path, *, is_token: bool) -> Credentials:
    make: Callable[[str], Credentials] = UserCredentials.from_authorized_user_file
    if not is_token:
        make = partial(ServiceCredentials.from_service_account_file, scopes=_SCOPES)
    try:
        mode = path.stat().st_mode
        credentials = make(str(path))
    except (OSError, ValueError, google.auth.exceptions.GoogleAuthError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds none"
        kind = "an authorized user" if is_token else "a service account"
        raise InvalidInputError(
            f"no credentials can be read from {path}: {why}. Nothing was touched. Give the JSON "
            f"file of {kind}."
        ) from None  # the cause may show what is in the file
    if is_token and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInputError(
            f"others may read {path}, and it holds a token that opens your Drive. Nothing was "
            f"touched. Run: chmod 600 {path}"
        )
    return credentials


def _of_this_machine() -> Credentials:
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise AccessDenied(
            "gdrive:// needs somebody to sign in, and this machine has no credentials. Nothing was "
            "touched. On Colab call google.colab.auth.authenticate_user() first; elsewhere give "
            f"one of {', '.join(WAYS)} in storage_options."
        ) from error
    return credentials


def _scoped(credentials: Credentials) -> Credentials:
    scoped: Credentials = with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]
    return scoped


class _Borrowed(Credentials):
    """
    The credentials of a PyDrive2 `GoogleAuth`, which renew themselves as they do there.

    The connection for that is ours: the one of the `GoogleAuth` is for one thread, has no deadline
    and is shared with every forked child.

    Parameters:
        auth (GoogleAuth): signed in.

    Raises:
        InvalidInputError: it is none, or nobody has signed in with it.
    """

    def __init__(self, auth: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if getattr(auth, "credentials", None) is None:
            raise InvalidInputError(
                "`auth` has no credentials. Nothing was touched. Give a GoogleAuth of PyDrive2 "
                "after its LocalWebserverAuth(), ServiceAuth() or LoadCredentialsFile()."
            )
        self._credentials = auth.credentials
        self._take()

    def refresh(self, request: Any) -> None:
        """Renew the token."""

        def call(uri: str, method: str, body: Any, headers: Any, **_: Any) -> tuple[Any, bytes]:
            response = request(uri, method=method, body=body, headers=headers)
            return response, response.data

        try:
            self._credentials.refresh(call)
        except google.auth.exceptions.GoogleAuthError:
            raise
        except Exception as error:
            refused: Callable[[str], Exception] = google.auth.exceptions.RefreshError
            raise refused(str(error)) from error
        self._take()

    def _take(self) -> None:
        self.token = self._credentials.access_token
        self.expiry = self._credentials.token_expiry
