"""How a file gets a name that nobody else has, on mounts that can more and that can less."""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast import disk, layout

#: How a mount says that it has no such call, or not for these two names. FUSE answers EPERM to link
#: and EINVAL to renameat2.
UNSUPPORTED = frozenset(
    {
        errno.EPERM,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.EMLINK,
        errno.EXDEV,
    }
)
#: renameat2(2): paths are relative to the current directory, and a taken name is an error.
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1

#: Gives the first file the second name; FileExistsError if that is taken.
Way = Callable[[Path, Path], None]


def name_new(target: Path, write: Callable[[Path], None], ways: Sequence[Way]) -> bool:
    """
    Write a file under a temporary name and give it its own; False if that is taken.

    Parameters:
        target (Path): its name.
        write (Callable[[Path], None]): makes the file, whole and durable.
        ways (Sequence[Way]): how to name it; the next is taken where a mount has no such call.

    Raises:
        OSError: it could not be written or named. Over a network that may have happened all the
            same; what lies there is then the whole file.
    """
    temporary = target.with_name(layout.PARTIAL + disk.new_name())
    try:
        write(temporary)
        try:
            _name(temporary, target, *ways)
        except FileExistsError:
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _name(temporary: Path, target: Path, way: Way, *others: Way) -> None:
    try:
        way(temporary, target)
    except OSError as error:
        if error.errno not in UNSUPPORTED or not others:
            raise
        _name(temporary, target, *others)


def ways(*, on_drive: bool) -> Sequence[Way]:
    """The ways to try in turn, the best first."""
    return (link, rename, take_turn, claim) if on_drive else (link, rename, claim)


def link(temporary: Path, target: Path) -> None:
    """Link it: the name is never seen without its content, on any machine."""
    try:
        os.link(temporary, target)
    except OSError:
        # Over a network the reply can be lost after the link was made, or the client's own repeat
        # meets its own link. The second link of a name that only we know is proof.
        if temporary.lstat().st_nlink != 2:
            raise


def rename(temporary: Path, target: Path) -> None:
    """Rename it by the call that refuses a taken name."""
    import ctypes  # noqa: PLC0415 - few disks need it, and every import of Holdfast would pay

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # another system, or a C library before glibc 2.28
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    ours = temporary.lstat()
    old, new = os.fsencode(temporary), os.fsencode(target)
    if call(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        if number in UNSUPPORTED or not _lies_at(target, ours):
            raise OSError(number, os.strerror(number), str(target))


def take_turn(temporary: Path, target: Path) -> None:
    """
    Rename it to a name that is free, while everybody else on this machine waits.

    For a mounted Drive, where other machines could not be kept out by any call: its client sends
    what it is given later, and two files of one name are fine with Drive. A claim would itself be
    sent, as an empty file that stays if this machine dies, and fill the trash if not.
    """
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        try:
            _refuse_taken(target)
            ours = temporary.lstat()
            try:
                temporary.rename(target)
            except OSError:
                if not _lies_at(target, ours):
                    raise
        finally:
            # By name and not by closing: a child that was forked meanwhile has it open too.
            fcntl.flock(directory, fcntl.LOCK_UN)
    finally:
        os.close(directory)


def claim(temporary: Path, target: Path) -> None:
    """Create the name exclusively, then rename over it: it is seen empty for a moment."""
    ours = temporary.lstat()
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    try:
        temporary.rename(target)  # over our own claim: nobody else has a right to this name
    except BaseException as error:
        if not os.path.samestat(ours, target.lstat()):
            target.unlink(missing_ok=True)
        elif isinstance(error, OSError):
            return  # it took effect, and the reply was lost
        raise


def _lies_at(target: Path, ours: os.stat_result) -> bool:
    """Whether a call that failed has named the file all the same: its reply may have been lost."""
    try:
        return os.path.samestat(ours, target.lstat())
    except OSError:
        return False


def _refuse_taken(target: Path) -> None:
    try:
        target.lstat()
    except FileNotFoundError:
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
