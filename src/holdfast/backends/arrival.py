"""Whether Google Drive has what was written through its mount, which sends it later."""

import errno
import os
import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from holdfast import disk
from holdfast.errors import DeadlineExceeded, InvalidInputError, StorageError

#: The extended attribute by which Drive's client tells a file's id. It begins with `local` until
#: Drive has the file.
_ID, _NOT_THERE_YET = "user.drive.id", b"local"
#: Seconds between two looks at it; the pause doubles up to the second.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


def have_arrived(url: str, keys: Iterable[str]) -> bool:
    """
    Whether objects would still be there if this machine died now, as far as its mount tells.

    Of a place whose mount does not tell, this is taken to be so.

    Parameters:
        url (str): the place, as its backend calls it.
        keys (Iterable[str]): the objects.
    """
    try:
        return all(_is_in_drive(file, url) for file in _files(url, keys))
    except InvalidInputError:
        return True
    except StorageError:
        return False  # gone, or unknown: then nothing may rest on it


def wait_until_in_drive(url: str, keys: Sequence[str], timeout: timedelta) -> None:
    """
    Wait until Drive has objects that were written through its mount.

    Parameters:
        url (str): the place, as its backend calls it.
        keys (Sequence[str]): the objects.
        timeout (timedelta): how long to wait; more than nothing.

    Raises:
        InvalidInputError: the place is no mount of Drive, or one that does not tell; or there is no
            time to wait.
        DeadlineExceeded: some had not arrived by then.
        StorageError: the mount failed, or an object is gone.
    """
    if timeout <= timedelta(0):
        raise InvalidInputError(
            f"a timeout is more than nothing, not {timeout}. Give a longer one."
        )
    waiting = _files(url, keys)
    failures: list[BaseException] = []
    ended, given_up = threading.Event(), threading.Event()

    def watch() -> None:
        pause = _FIRST_PAUSE_S
        try:
            while not given_up.is_set():
                waiting[:] = [file for file in waiting if not _is_in_drive(file, url)]
                if not waiting:
                    break
                given_up.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failures.append(error)
        finally:
            ended.set()

    # In a thread of its own, which nobody waits for at the end: a mount may also hang.
    threading.Thread(target=watch, name="holdfast wait for Drive", daemon=True).start()
    try:
        in_time = ended.wait(min(timeout.total_seconds(), threading.TIMEOUT_MAX))
    finally:
        given_up.set()
    if failures:
        raise failures[0]
    if not in_time:
        raise DeadlineExceeded(
            f"of {len(keys):,} files in {url} {len(waiting):,} had not arrived in Google Drive "
            f"after {timeout}. Nothing is lost: they lie in this machine's cache, and its client "
            "goes on sending them while this machine runs. Wait again, or, at the end, call "
            "drive.flush_and_unmount()."
        )


def _files(url: str, keys: Iterable[str]) -> list[Path]:
    if not url.startswith("file://"):
        raise _never_told(url)
    return [Path(url.removeprefix("file://"), key) for key in keys]


def _is_in_drive(file: Path, url: str) -> bool:
    if not hasattr(os, "getxattr"):  # on macOS Python has no such call
        raise _never_told(url)
    with disk.disk_errors("look at", file):
        try:
            id = os.getxattr(file, _ID)
            return id != b"" and not id.startswith(_NOT_THERE_YET)
        except OSError as error:
            if error.errno == errno.EIO:
                return False  # as a busy client answers; the next look may tell
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                raise _never_told(url) from error
            raise


def _never_told(url: str) -> InvalidInputError:
    return InvalidInputError(
        f"nothing tells when Google Drive has what is saved into {url}: its files have no "
        f"attribute {_ID}, as those on a mounted Drive have. Nothing was touched. In Colab, "
        "drive.flush_and_unmount() waits for everything; and on gdrive:// Drive has each "
        "checkpoint when its save returns."
    )
