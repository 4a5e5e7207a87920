"""How the tests of Cloud Storage open a bucket of the test server."""

from holdfast.backends.gcs import GcsBackend
from holdfast.backends.gcs.credentials import client_options, new_client

#: Bytes of the smallest chunk that there is.
CHUNK = 256 * 1024
VERBS = {
    "create": lambda backend, path: backend.create("manifests/a", b"a"),
    "read": lambda backend, path: backend.read("manifests/a"),
    "upload": lambda backend, path: backend.upload(path / "source", "files/a"),
    "download": lambda backend, path: backend.download("files/a", path / "target"),
    "scan": lambda backend, path: list(backend.scan("manifests/")),
    "delete": lambda backend, path: backend.delete("manifests/a"),
}


def opened(server, role="owner", place="runs/a", endpoint=None, **options):
    given = {**server.storage_options(role), **options}
    if endpoint:
        given["endpoint_url"] = endpoint
    return GcsBackend.open(f"gs://{server.bucket}/{place}".rstrip("/"), given)


def in_chunks(server, endpoint=None, role="owner", chunk_bytes=CHUNK):
    """A backend whose large files go in the smallest chunks that there are."""
    url = f"gs://{server.bucket}/runs/a"
    options = client_options(
        url, {**server.storage_options(role), "endpoint_url": endpoint or server.endpoint}
    )
    return GcsBackend(url, lambda: new_client(url, options, {}), chunk_bytes=chunk_bytes)
