"""
Cloud Storage's JSON API on a free port: as much of it as checkpoints need, as its reference says.

Conditions are judged under a lock, so of many creators one wins. Objects lie in files of a
temporary directory, so that the memory of a process that serves and asks can be measured.
"""

import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

from tests.servers.gcs_bucket import Bucket
from tests.servers.gcs_http import Http


class GcsServer(Bucket):
    """
    One bucket, served for as long as the `with` block lasts.

    Who comes without a token is the owner, as with other emulators; an unknown token has expired.

    Parameters:
        bucket: its name.
        anonymous: the role of who comes without a token.

    Attributes:
        endpoint: such as `http://127.0.0.1:5000`.
    """

    def __init__(self, bucket: str = "holdfast-test", *, anonymous: str = "owner") -> None:
        super().__init__(bucket, anonymous, Path(tempfile.mkdtemp(prefix="holdfast-gcs-")))
        self._http = Http(self)
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.01,), name="gcs-server"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.close()
        shutil.rmtree(self._directory)

    def storage_options(self, role: str = "owner") -> dict[str, Any]:
        """What to open a store with, to be this role."""
        token = "anon" if role == self.anonymous else f"token-of-{role}"
        return {"endpoint_url": self.endpoint, "token": token}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the directory goes too
    with GcsServer() as server:
        print(server.endpoint, flush=True)
        threading.Event().wait()
