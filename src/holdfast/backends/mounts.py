"""Whether the disk that a directory should lie on is there."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.errors import StorageError

#: Where `drive.mount` of `google.colab` puts Google Drive.
_DRIVE = Path("/content/drive")
#: Where systems and people mount further disks, one directory for each.
_PARENTS = (Path("/mnt"), Path("/media"), Path("/run/media"), Path("/Volumes"))
_FSTAB = Path("/etc/fstab")
_MOUNTINFO = Path("/proc/self/mountinfo")


def is_mount(path: Path) -> bool:
    """Whether a disk is mounted at a path."""
    # The table knows what comparing devices cannot show: a directory bound to another place of the
    # same disk. Where there is no table (macOS) the comparison has to do.
    return os.path.ismount(path) or path in _mount_points(_MOUNTINFO, column=4)


def is_on_drive(path: Path) -> bool:
    """Whether a path lies where Google Drive is mounted in Colab."""
    return path.is_relative_to(_DRIVE)


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
            f"drive.mount({str(drive)!r}) from google.colab, then repeat the call."
        )
    listed = _mount_points(fstab, column=1)
    for place in line:
        if place in listed and not is_mount(place):
            raise StorageError(
                f"{path} lies on a disk that is not mounted: {fstab} lists {place} as a mount "
                f"point. Nothing was written. Mount it (mount {place}), then repeat the call."
            )
        if place.parent in parents and place not in parents and not place.exists():
            raise StorageError(
                f"{place} does not exist: the disk that {path} lies on is not mounted. Nothing was "
                "written. Mount it, or make that directory yourself if it is to lie on this disk."
            )


def _mount_points(table: Path, *, column: int) -> set[Path]:
    """
    What a table names as mount points: fstab(5), or mountinfo of proc_pid_mountinfo(5).

    Spaces, tabs, line ends and backslashes in a path are written as three octal digits.
    """
    try:
        lines = os.fsdecode(table.read_bytes()).splitlines()
    except OSError:
        return set()  # there is no such table on this system
    rows = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return {
        Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), row[column]))
        for row in rows
        if len(row) > column and row[column].startswith("/")
    }
