"""What sets the filesystems of fsspec apart, where they do not say it themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

#: Whose `mode="create"` asks the server for put-if-absent. Elsewhere fsspec only looks first.
_CREATING = frozenset({"abfs", "abfss", "az"})
#: Whose `mv` renames a file on the server, and of these, whose refuses a name that is taken.
_RENAMING = frozenset({"ftp", "sftp", "smb"})
_REFUSING = frozenset({"sftp", "smb"})
#: Whose first part of a path is a container, which is not there unless somebody made it.
_CONTAINERS = _CREATING | {"oci", "ocilake", "oss", "tos", "tosfs"}
#: Where there are no directories to make, and trying may make a container.
_FLAT = _CONTAINERS | {"hf", "memory"}

#: What filesystems are opened with where the user says nothing: no call may hang for minutes.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    **{azure: {"connection_timeout": 10, "read_timeout": 20} for azure in _CREATING},
    "ftp": {"timeout": 20},
    "smb": {"timeout": 10, "register_session_retries": 0},
}


@dataclass(frozen=True)
class Kind:
    """
    What a filesystem can do.

    Attributes:
        creates (bool): its put refuses a key that is taken.
        renames (bool): its `mv` is one step on the server, and its `rmdir` spares what is not
            empty.
        refuses (bool): a put, or the rename after it, refuses a key that is taken.
        finds (bool): its `find` is one listing of all keys below a path, past every cache.
        has_directories (bool): a put needs a directory that is there.
        has_container (bool): the first part of a path has to be there.
        in_memory (bool): its open files share one position among all threads.
    """

    creates: bool
    renames: bool
    refuses: bool
    finds: bool
    has_directories: bool
    has_container: bool
    in_memory: bool

    @classmethod
    def of(cls, fs: Any) -> Self:
        """The kind of a filesystem, by its protocol."""
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
        return cls(
            creates=bool(protocols & _CREATING),
            renames=bool(protocols & _RENAMING),
            refuses=bool(protocols & (_CREATING | _REFUSING)),
            finds=bool(protocols & _CREATING),
            has_directories=not protocols & _FLAT,
            has_container=bool(protocols & _CONTAINERS),
            in_memory="memory" in protocols,
        )
