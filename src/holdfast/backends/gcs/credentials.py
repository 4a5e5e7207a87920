"""The options that a bucket is opened with, and the credentials that are found for it."""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google.auth
from gcsfs.core import GCSFileSystem
from google.auth.exceptions import GoogleAuthError
from google.oauth2.credentials import Credentials

from holdfast.backends.gcs.client import GcsClient
from holdfast.backends.translating import redact
from holdfast.errors import AccessDenied, InvalidInputError

#: What else fsspec takes for every filesystem; none of it changes what a backend does.
_FSSPEC_OPTIONS = frozenset(
    {"listings_expiry_time", "max_paths", "skip_instance_cache", "use_listings_cache"}
)
_OURS = frozenset({"self", "kwargs", "asynchronous", "loop"})
#: Enough for all six verbs; gcsfs would ask for the right to change access too.
_ACCESS = "read_write"
_LOGIN = (
    "Log in with `gcloud auth application-default login`, in Colab with "
    "`google.colab.auth.authenticate_user()`, or give storage_options={'token': …}; 'anon' stands "
    "for no credentials."
)


def client_options(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    What gcsfs is opened with; the credentials are looked for now, and never fall back to none.

    Parameters:
        url (str): the place, for messages.
        options (Mapping[str, Any]): the user's.

    Raises:
        InvalidInputError: there is no such option, or the credentials cannot be read.
        AccessDenied: no credentials were found.
    """
    _check(url, options)
    chosen = {"access": _ACCESS, **options}
    token = chosen.get("token")
    if token is None and _is_plain(chosen.get("endpoint_url")):
        # An emulator. Credentials that were not given for it are not for the open wire.
        chosen = {**chosen, "token": "anon"}
    elif token in (None, "google_default"):
        scope = f"https://www.googleapis.com/auth/devstorage.{chosen['access']}"
        try:
            chosen["token"], project = google.auth.default(scopes=[scope])
        except GoogleAuthError as error:
            raise AccessDenied(
                f"cannot open {url}: no credentials for Google Cloud were found: {error} Nothing "
                f"was touched. {_LOGIN}"
            ) from error
        if project and not chosen.get("project"):
            chosen["project"] = project
    elif isinstance(token, str) and token not in ("anon", "cache", "cloud"):
        chosen["token"] = _credentials(url, token)
    return chosen


def new_client(url: str, options: Mapping[str, Any], secrets: Mapping[str, Any]) -> GcsClient:
    """
    A client that has the credentials that it was given, or none where that was said.

    Parameters:
        url (str): the place, for messages.
        options (Mapping[str, Any]): from `client_options`.
        secrets (Mapping[str, Any]): options whose values are cut from messages.

    Raises:
        InvalidInputError: the options do not fit.
        AccessDenied: the credentials do not work.
    """
    try:
        client = GcsClient(**options)
    except GoogleAuthError as error:
        raise AccessDenied(
            f"cannot open {url}: {redact(str(error), secrets)}. Nothing was touched. {_LOGIN}"
        ) from None
    except (TypeError, ValueError, LookupError, OSError) as error:
        raise InvalidInputError(
            f"the storage_options {', '.join(options)} do not fit {url}; nothing was touched. "
            f"{redact(str(error), secrets)}"
        ) from None
    if client.credentials.credentials is None and options.get("token") != "anon":
        raise AccessDenied(
            f"cannot open {url}: {redact(str(options.get('token')), {})} has no credentials. "
            f"Nothing was touched. {_LOGIN}"
        )
    return client


def _check(url: str, options: Mapping[str, Any]) -> None:
    known = {*inspect.signature(GCSFileSystem.__init__).parameters, *_FSSPEC_OPTIONS} - _OURS
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InvalidInputError(
            f"gcsfs has no option {', '.join(unknown)}, so {url} was not opened and nothing was "
            "touched. Correct the storage_options."
        )
    endpoint = options.get("endpoint_url")
    parts = urlsplit(str(endpoint or "https://x"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise InvalidInputError(
            "the endpoint_url is not of the form https://host or http://host:port. Nothing was "
            "touched. Correct the storage_options."
        )


def _is_plain(endpoint: str | None) -> bool:
    """Whether requests go over an unencrypted wire, as to an emulator."""
    if endpoint:
        return endpoint.startswith("http://")
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    return emulator not in ("", "default") and not emulator.startswith("https://")


def _credentials(url: str, token: str) -> Credentials | str:
    """A file of credentials as gcsfs reads it, or an access token, which needs no look-up."""
    path = Path(token).expanduser()
    if path.is_file():
        return str(path)
    if token.endswith(".json") or token.startswith(("/", ".", "~")):
        raise InvalidInputError(
            f"the file of credentials that `token` names for {url} does not exist. Nothing was "
            "touched. Correct the storage_options."
        )
    return Credentials(token)  # type: ignore[no-untyped-call]
