"""Google Drive, through its own API."""

from holdfast.backends.gdrive.backend import GdriveBackend as GdriveBackend
