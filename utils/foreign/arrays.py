"""What the readers of other programs' files share: the error, arrays read when asked for, bounded opening."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from utils.cli import UserError, one_line

# Full width with both Adam moments is about 130 MB.
MAX_FILE_BYTES = 2**30
MAX_DIMENSIONS = 8


class WeightsError(UserError):
    """A file of another program cannot be read or does not fit; the message names the file."""

    named = False  # whether the message names the file already


def _nothing() -> np.ndarray:
    raise WeightsError("an array in it has no content")


@dataclass
class ForeignArray:
    """An array in a file: its form is known and bounded by the file, its content is read when asked for."""

    shape: tuple[int, ...] = ()
    dtype: str = "unknown"  # NumPy's name, or what the file calls it if there is none
    read: Callable[[], np.ndarray] = _nothing


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns whatever goes wrong with the file at `path` into a WeightsError of one line that names it."""
    try:
        yield
    except WeightsError as error:
        if error.named:
            raise
        raise _named(path, str(error)) from None
    except OSError as error:
        raise _named(path, f"cannot be read: {error.strerror or one_line(error)}") from None
    except Exception as error:  # damage can surface anywhere in zipfile, pickletools or NumPy's header parser
        reason = one_line(error)[:200] or type(error).__name__
        raise _named(path, f"is damaged, incomplete or no file of weights: {reason}") from error


def _named(path: str, text: str) -> WeightsError:
    error = WeightsError(f"{path}: {one_line(text)}")  # names in a file may hold anything
    error.named = True
    return error


@contextlib.contextmanager
def open_bounded(path: str, limit: int = MAX_FILE_BYTES) -> Iterator[tuple[BinaryIO, int]]:
    """An ordinary, non-empty file of at most `limit` bytes, and its size."""
    if not os.path.isfile(path):
        raise WeightsError("is not an ordinary file" if os.path.exists(path) else "no such file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise WeightsError("is empty (0 bytes)")
        if size > limit:
            raise WeightsError(f"is {size / 2**20:.0f} MiB long; such a file has at most {limit / 2**20:.0f}")
        yield file, size


def checked_shape(value: object) -> tuple[int, ...]:
    """A sequence of whole numbers that can be the sides of an array in a file, as a tuple."""
    if (
        not isinstance(value, (tuple, list))
        or len(value) > MAX_DIMENSIONS
        or any(type(side) is not int or not 0 <= side <= MAX_FILE_BYTES for side in value)
    ):
        raise WeightsError("an array in it has an impossible shape")
    return tuple(value)
