"""The first argument of a callback: which store, and how the file in each checkpoint is called."""

import os
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.checkpoint import metric
from holdfast.errors import InvalidInputError
from holdfast.keras.formats import check_name, format_of

#: What a field reads whose value is not known.
UNKNOWN = "none"


def split(filepath: object) -> tuple[str | Path, str]:
    """
    Split Keras's `filepath` into the place of the store and the template of the file's name.

    The last component is the template, what precedes it the place. A name without a directory
    gets a directory that is named after it, so that the current one is never littered:
    `best.keras` becomes `best/` and `best.keras`, `w-{epoch:02d}.keras` becomes `w/` and itself.

    Parameters:
        filepath (str | os.PathLike): a path or a URL. What is no text is never taken for a URL.

    Returns:
        tuple[str | Path, str]: a directory or URL, and a template.

    Raises:
        InvalidInputError: it names no file, or a placeholder stands in a directory.
    """
    text: object = os.fspath(filepath) if isinstance(filepath, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InvalidInputError(
            f"filepath is a path, a URL or a CheckpointStore, not {filepath!r}; "
            "nothing was touched."
        )
    scheme, mark, rest = text.rpartition("://")
    place, slash, name = rest.rpartition("/")
    if not name or (mark and not slash):
        raise InvalidInputError(
            f"{text!r} names no file in a store; nothing was touched. The last component is the "
            "file in each checkpoint, what precedes it is the store: 's3://bucket/run/best.keras'."
        )
    if any(field is not None for _, field, _, _ in _parse(text, place)):
        raise InvalidInputError(
            f"a placeholder in a directory of {text!r} would begin a new store at every save; "
            "nothing was touched. Use placeholders in the last component only."
        )
    place = "".join(literal for literal, _, _, _ in _parse(text, place))
    if mark:
        return scheme + mark + place, name
    if Path(place) == Path() and not text.startswith("/"):
        place = _named_after(name)
    return (place or "/") if isinstance(filepath, str) else Path(place or "/"), name


class Template:
    """
    How the file in each checkpoint is called; `str.format` rules, as in Keras.

    Fields are `epoch` and `batch`, counted from 1, and every key of the logs. `acc` and `accuracy`
    stand for each other, with `val_` in front or without.

    Parameters:
        text (str): the template, without a directory.

    Raises:
        InvalidInputError: it asks for no format, a field has no name or a wrong format code, or no
            name that it can give is portable; `layout.check_paths` has the grammar.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = []
        for literal, field, code, conversion in _parse(text, text):
            pieces.append(literal)
            if field is not None:
                pieces.append(self._sample(field, code or "", conversion))
        self._format = format_of(text)
        check_name("".join(pieces))

    def fill(
        self, *, epoch: int, batch: int | None, logs: Mapping[str, Any]
    ) -> tuple[str, set[str]]:
        """
        The file's name at this point of the training.

        Parameters:
            epoch (int): from 1.
            batch (int | None): from 1; None at the end of an epoch.
            logs (Mapping[str, Any]): what Keras hands to the callback. A key `batch` in it counts
                more than the number of the batch.

        Returns:
            tuple[str, set[str]]: the name, and the fields without a value, which read `none`.

        Raises:
            InvalidInputError: the name is not portable, such as one that starts with `-` because
                a negative loss comes first, or asks for another format than the template.
        """
        counters = {"epoch": epoch} if batch is None else {"epoch": epoch, "batch": batch}
        formatter = _Formatter()
        name = formatter.vformat(self.text, (), {**counters, **logs})
        try:
            found = check_name(name)
        except InvalidInputError as error:
            raise self._refused(name, str(error)) from error
        if found != self._format:
            raise self._refused(name, "its suffix is not that of the template.")
        return name, formatter.missing

    def _refused(self, name: str, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"the template {self.text!r} gives {name!r} here, which cannot be kept: {why} "
            "Earlier checkpoints are safe. Put a letter in front of a number that may be "
            "negative, as in 'loss{val_loss:.2f}', and no text of the logs at the end."
        )

    def _sample(self, field: str, code: str, conversion: str | None) -> str:
        root = re.split(r"[.\[]", field, maxsplit=1)[0]
        if not root or root.isdigit():
            raise InvalidInputError(
                f"a field of {self.text!r} has no name; nothing was touched. "
                "Give one, such as {epoch:02d} or {val_loss:.2f}."
            )
        samples: tuple[object, ...] = (0.5, 1, "text")  # what another callback adds to the logs
        if root in ("epoch", "batch"):
            samples = (1,)
        elif root == "loss" or root.startswith("val_"):
            samples = (0.5,)
        elif field != root:
            return UNKNOWN  # a part of something that another callback adds: nobody knows yet
        mark = f"!{conversion}" if conversion else ""
        for sample in samples:
            try:
                return f"{{{field}{mark}:{code}}}".format(**{root: sample})
            except (ValueError, TypeError, LookupError, AttributeError):
                continue
        raise InvalidInputError(
            f"the format code of {{{field}{mark}:{code}}} in {self.text!r} does not fit a number "
            "of its kind; nothing was touched. Use one such as {epoch:02d} or {val_loss:.2f}."
        )


def spelled(logs: Mapping[str, Any], name: str) -> str | None:
    """The key in the logs that this name stands for: itself, or its other spelling; else None."""
    if name in logs:
        return name
    return next((key for key in logs if metric({key: 0.0}, name) is not None), None)


def _parse(text: str, part: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(part))
    except ValueError as error:
        raise InvalidInputError(
            f"the braces in {text!r} do not match: {error}. Nothing was touched. "
            "Write {epoch:02d} for a field, and {{ for a brace."
        ) from error


def _named_after(template: str) -> str:
    stem = template.removesuffix(format_of(template).suffix)
    literals = "".join(literal for literal, _, _, _ in _parse(template, stem))
    return re.sub(r"[-_.=+,@]{2,}", "-", literals).strip("-_.=+,@") or "checkpoints"


class _Unknown:
    """Stands for a value that is not there, whatever its format code."""

    def __format__(self, code: str) -> str:
        return UNKNOWN

    def __repr__(self) -> str:
        return UNKNOWN


class _Formatter(string.Formatter):
    def __init__(self) -> None:
        self.missing: set[str] = set()

    def get_value(self, key: int | str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        del args  # fields without a name were refused before
        return kwargs[spelled(kwargs, str(key)) or key]  # type: ignore[index]  # else: KeyError

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        try:
            return super().get_field(field_name, args, kwargs)
        except (LookupError, AttributeError, TypeError):
            self.missing.add(field_name)
            return _Unknown(), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        try:
            return str(super().format_field(value, format_spec))
        except (ValueError, TypeError):
            self.missing.add(str(value))
            return UNKNOWN
