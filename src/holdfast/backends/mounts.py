"""What a directory is mounted on, and so whether it is there and what it can be relied on for."""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from holdfast.backends.base import Traits
from holdfast.errors import DeadlineExceeded, StorageError

#: Where `drive.mount` of `google.colab` puts Google Drive, unless it is told another place.
_DRIVE = Path("/content/drive")
#: What the client of Drive is called in the table of mounts.
_DRIVE_KIND = "fuse.drive"
#: Where Drive for desktop shows its files on macOS, which has no table.
_DRIVE_ON_MACOS = "Library/CloudStorage/GoogleDrive-*"
#: FUSE filesystems that stand before a disk of this machine, and keep what it keeps. `fuseblk`, a
#: disk itself, is not called `fuse.` anything.
_BEFORE_A_DISK = frozenset(
    {"fuse.bindfs", "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.mergerfs"}
)
#: Filesystems whose server keeps every promise, while what other machines did shows late (nfs(5),
#: "Data and metadata coherence"; mount.cifs(8), `actimeo`).
_SHARED = frozenset({"cifs", "nfs", "nfs4", "smb3"})
#: Where systems and people mount further disks, one directory for each.
_PARENTS = (Path("/mnt"), Path("/media"), Path("/run/media"), Path("/Volumes"))
_FSTAB = Path("/etc/fstab")
_MOUNTINFO = Path("/proc/self/mountinfo")
#: Seconds that a mount has for its first answer.
_PATIENCE_S = 30.0


def is_mount(path: Path) -> bool:
    """Whether a disk is mounted at a path."""
    # The table knows what comparing devices cannot show: a directory bound to another place of the
    # same disk. Where there is no table (macOS) the comparison has to do.
    return os.path.ismount(path) or path in _mount_points(_MOUNTINFO, column=4)


def kind(path: Path, table: Path = _MOUNTINFO) -> str:
    """
    The type of the filesystem that a path lies on, such as `ext4`; empty where there is no table.

    Parameters:
        path (Path): absolute, with no links in it.
        table (Path): what is mounted, as proc_pid_mountinfo(5) has it.
    """
    # A later line hides an earlier one of the same place.
    found = {
        _unescaped(row[4]): row[row.index("-", 6) + 1] for row in _rows(table) if "-" in row[6:-1]
    }
    return next((found[place] for place in (path, *path.parents) if place in found), "")


def is_on_drive(path: Path, table: Path = _MOUNTINFO) -> bool:
    """Whether a path lies in a mounted Google Drive: Colab's, wherever it is, or that of macOS."""
    return (
        path.is_relative_to(_DRIVE)
        or any(place.match(_DRIVE_ON_MACOS) for place in (path, *path.parents))
        or kind(path, table) == _DRIVE_KIND
    )


def traits(path: Path, table: Path = _MOUNTINFO) -> Traits:
    """What can be relied on where a path lies; of a FUSE mount that is not known, nothing."""
    found = kind(path, table)
    is_fuse = found == "fuse" or found.startswith("fuse.")
    if is_on_drive(path, table) or (is_fuse and found not in _BEFORE_A_DISK):
        return Traits(exclusive=False, fresh=False, durable=False)
    return Traits(fresh=found not in _SHARED)


def mount_point(path: Path, is_mount: Callable[[Path], bool] = is_mount) -> Path:
    """The directory where the disk is mounted that a path lies on."""
    line = (path, *path.parents)
    return next((place for place in line if is_mount(place)), line[-1])


def refuse_absent(
    path: Path,
    *,
    is_mount: Callable[[Path], bool] = is_mount,
    drive: Path = _DRIVE,
    fstab: Path = _FSTAB,
    parents: Sequence[Path] = _PARENTS,
) -> None:
    """
    Refuse a path on a disk that is not mounted: what is saved there would be lost or hidden.

    Parameters:
        path (Path): absolute, with no links in it.
        is_mount (Callable[[Path], bool]): whether a disk is mounted at a path.
        drive (Path): where Google Drive is mounted in Colab.
        fstab (Path): the table of what is to be mounted where.
        parents (Sequence[Path]): directories whose children are mount points.

    Raises:
        StorageError: the disk is not there; nothing was written.
    """
    line = (path, *path.parents)
    if drive in line and not is_mount(drive):
        raise StorageError(
            f"{path} is not in Google Drive: Drive is not mounted at {drive}, and what is saved "
            "there now is lost with this machine. Nothing was written. Run "
            f"drive.mount({str(drive)!r}) from google.colab, then repeat the call.",
            lasting=True,
        )
    listed = _mount_points(fstab, column=1)
    for place in line:
        if place in listed and not is_mount(place):
            raise StorageError(
                f"{path} lies on a disk that is not mounted: {fstab} lists {place} as a mount "
                f"point. Nothing was written. Mount it (mount {place}), then repeat the call.",
                lasting=True,
            )
        is_point = place.match(_DRIVE_ON_MACOS) or (place.parent in parents)
        if is_point and place not in parents and not place.exists():
            raise StorageError(
                f"{place} does not exist: the disk that {path} lies on is not mounted. Nothing was "
                "written. Mount it, or make that directory yourself if it is to lie on this disk.",
                lasting=True,
            )


def refuse_hanging(path: Path) -> None:
    """
    Refuse a path on a mount whose client has stopped answering: a call on it may wait for ever.

    Raises:
        DeadlineExceeded: there was no answer; nothing was written.
    """
    answered = threading.Event()

    def look() -> None:
        with contextlib.suppress(OSError, ValueError):  # a refusal is an answer too
            path.stat()
        answered.set()

    threading.Thread(target=look, name=f"holdfast look at {path}", daemon=True).start()
    if not answered.wait(_PATIENCE_S):
        raise DeadlineExceeded(
            f"cannot look at {path}: its mount gives no answer within {_PATIENCE_S:.0f} seconds. "
            "Nothing was written. Mount it again; in Colab, with drive.mount('/content/drive', "
            "force_remount=True)."
        )


def _mount_points(table: Path, *, column: int) -> set[Path]:
    """What a table names as mount points: fstab(5), or mountinfo of proc_pid_mountinfo(5)."""
    return {
        _unescaped(row[column])
        for row in _rows(table)
        if len(row) > column and row[column].startswith("/")
    }


def _rows(table: Path) -> Iterator[list[str]]:
    try:
        lines = os.fsdecode(table.read_bytes()).splitlines()
    except OSError:
        return  # there is no such table on this system
    yield from (line.split() for line in lines if not line.lstrip().startswith("#"))


def _unescaped(text: str) -> Path:
    """A path of a table: its spaces, tabs, line ends and backslashes are three octal digits."""
    return Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text))
