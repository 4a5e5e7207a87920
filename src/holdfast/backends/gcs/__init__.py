"""Google Cloud Storage."""

from holdfast.backends.gcs.backend import GcsBackend as GcsBackend
