"""A tree of directories walked in the order of the keys, and no further than need be."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def walk(
    names: Callable[[str], Iterable[tuple[str, T]]], prefix: str, after: str
) -> Iterator[tuple[str, T]]:
    """
    Every file whose key starts with the prefix and sorts after `after`, in the order of the keys.

    The names of one directory are not in that order: `-` and `.` sort before `/`, so the file `a-b`
    comes before what lies in the directory `a`. A directory therefore sorts as its name with the
    `/` that all keys in it have.

    Parameters:
        names (Callable): given a directory, which is empty or ends with `/`, gives the names in it
            with whatever belongs to each. The name of a directory ends with `/`.
        prefix (str): what keys start with.
        after (str): what keys sort after.
    """

    def below(directory: str) -> Iterator[tuple[str, T]]:
        inside = [(directory + name, found) for name, found in names(directory)]
        return iter(sorted(inside, key=lambda pair: pair[0]))

    # A stack and not a recursion: how deep a tree goes is not ours to say.
    stack = [below(prefix[: prefix.rfind("/") + 1])]
    while stack:
        for key, found in stack[-1]:
            if key.endswith("/"):
                if _may_hold(key, prefix, after):
                    stack.append(below(key))
                    break
            elif key.startswith(prefix) and key > after:
                yield key, found
        else:
            stack.pop()


def _may_hold(directory: str, prefix: str, after: str) -> bool:
    """Whether a key in the directory can start with the prefix and sort after `after`."""
    within = directory.startswith(prefix) or prefix.startswith(directory)
    return within and (directory > after or after.startswith(directory))
