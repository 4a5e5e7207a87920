"""What is typed on a command line, read: times, pairs of a key and a value."""

import json
import re
from datetime import timedelta
from typing import Any, NoReturn

import click

_TIME = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|min|h|d)\s*", re.ASCII)
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


def time(text: str) -> dict[str, float]:
    """
    A time such as `30s`, `90min`, `6h` or `1d`, as the one argument that `timedelta` takes for it.

    Raises:
        click.BadParameter: it is no time.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no time; write 30s, 90min, 6h or 1d.")
    number = float(match["number"])
    return {_UNITS[match["unit"]]: int(number) if number.is_integer() else number}


def duration(text: str) -> timedelta:
    """
    A time such as `30s`, `90min`, `6h` or `1d`.

    Raises:
        click.BadParameter: it is no time, or longer than 2.7 million years.
    """
    try:
        return timedelta(**time(text))
    except OverflowError as error:
        raise click.BadParameter(f"{text!r} is too long a time.") from error


def pair(text: str) -> tuple[str, Any]:
    """
    A key and its value: what is JSON as what it says, all else as the text it is.

    Raises:
        click.BadParameter: it is no pair. The text is not shown, since it may hold a secret.
    """
    key, value = _split(text)
    try:
        return key, json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return key, value


def metric(text: str) -> tuple[str, float]:
    """
    A metric's name and its value.

    Raises:
        click.BadParameter: it is no pair, or the value is no number.
    """
    name, value = _split(text)
    try:
        return name, float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}, the value of {name!r}, is no number.") from error


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.BadParameter("write KEY=VALUE.")
    return key, value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON, whatever Python thinks")
