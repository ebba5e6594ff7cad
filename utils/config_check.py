"""Checks of single configuration values.

A check is a function from a raw value to the checked one; it raises ValueError with the end of a
sentence that begins with the key: "must be a whole number from 1 to 4096, not 0".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from utils.cli import UserError, one_line

HOLES = ("box", "freeform", "mixed")
"""The holes of training; any other value of `hole` is the path of a list or folder of masks."""
MAX_SIDE = 4096
MAX_COUNT = 10**9
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

Check = Callable[[Any], Any]


class ConfigError(UserError):
    """The configuration cannot be used; the message names the file or the key."""


def short_repr(value: object) -> str:
    """``value`` for an error message, short."""
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def integer(low: int, high: int) -> Check:
    """A whole number in [low, high]; true and false are not numbers."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {short_repr(value)}")
        return value

    return check


def number(low: float, high: float, above: bool = False, below: bool = False) -> Check:
    """A finite number in [low, high]; ``above`` / ``below`` leave out that end.

    YAML 1.1 reads 1e-4 (no point) as text, so text that spells a number counts as one.
    """
    lower, upper = "above" if above else "at least", "below" if below else "at most"
    wanted = f"must be a number {lower} {low:g} and {upper} {high:g}"

    def check(value: Any) -> float:
        if isinstance(value, str) and _FLOAT.fullmatch(value):
            value = float(value)
        inside = (
            type(value) in (int, float)
            and low <= value <= high
            and math.isfinite(value)
            and not (above and value == low)
            and not (below and value == high)
        )
        if not inside:
            raise ValueError(f"{wanted}, not {short_repr(value)}")
        return float(value)

    return check


def boolean(value: Any) -> bool:
    """true or false."""
    if type(value) is not bool:
        raise ValueError(f"must be true or false, not {short_repr(value)}")
    return value


def text(value: Any) -> str:
    """Text such as a path; nothing (``key:``) counts as empty text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {short_repr(value)}: put it in quotes")
    if "\0" in value:
        raise ValueError("must not contain a zero character")
    return value


def folder_name(value: Any) -> str:
    """Text that can be one part of a path."""
    name = text(value)
    spaced = name != name.strip() or not name.isprintable()
    if not name or spaced or name in (".", "..") or re.search(r"[/\\]", name):
        raise ValueError(f"must be a name usable for a folder, without slashes, not {short_repr(name)}")
    if len(name.encode()) > 100:
        raise ValueError("must be at most 100 bytes long")
    return name


def choice(*options: str) -> Check:
    """One of a few words."""

    def check(value: Any) -> str:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}, not {short_repr(value)}")
        return value

    return check


def resume_value(value: Any) -> bool | str:
    """false, true or "latest" (the newest checkpoint of the run's folder), or a path."""
    if value is True or value == "true":
        return "latest"
    if value is None or value is False or value in ("", "false"):
        return False
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"must be false, true, latest or a path, not {short_repr(value)}")
    return value


def sequence(count: int, item: Check) -> Check:
    """A list of ``count`` values, each checked by ``item``; becomes a tuple."""

    def check(value: Any) -> tuple:
        if not isinstance(value, (list, tuple)) or len(value) != count:
            raise ValueError(f"must be a list of {count} values, not {short_repr(value)}")
        try:
            return tuple(item(v) for v in value)
        except ValueError as error:
            raise ValueError(f"must be a list of {count} values, each of which {error}") from None

    return check


def even(check: Check) -> Check:
    """A whole number that the check allows, and even."""

    def checked(value: Any) -> int:
        if check(value) % 2:
            raise ValueError(f"must be even (the last layers have half as many channels), not {value}")
        return value

    return checked


def hole_source(value: Any) -> str:
    """A word of HOLES or a path."""
    if not text(value):
        raise ValueError(f"must be {', '.join(HOLES)} or the path of a list or folder of masks")
    return value


def milestones(value: Any) -> tuple[int, ...]:
    """A rising list of iterations, perhaps empty."""
    good = isinstance(value, (list, tuple)) and all(type(item) is int and 0 < item <= MAX_COUNT for item in value)
    if not good or list(value) != sorted(set(value)):
        raise ValueError(f"must be a rising list of iterations such as [60000, 80000], not {short_repr(value)}")
    return tuple(value)


def eval_crop(value: Any) -> str | tuple[int, int]:
    """A word for the part of an image that is evaluated, or its height and width."""
    if value in ("center", "fit", "stretch"):
        return value
    try:
        return sequence(2, integer(8, MAX_SIDE))(value)
    except ValueError:
        wanted = f"center, fit, stretch or [height, width] with sides from 8 to {MAX_SIDE}"
        raise ValueError(f"must be {wanted}, not {short_repr(value)}") from None
