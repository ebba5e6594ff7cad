"""Paths and commands as they can be published, and the check of a folder for results."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Sequence

from utils.cli import UserError

# In running text; a path may have blanks, so that it goes on up to what separates it from other words.
ABSOLUTE_PATH = re.compile(r"(?<![\w.~/-])~?/(?=\S).+?(?=: |[;,)] |[;:,)]?$)", re.MULTILINE)


def prepare_folder(folder: str) -> None:
    """Makes the folder if it is missing and tries to write in it. Raises UserError."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to the folder {folder}: {error.strerror or error}") from None


def portable_path(path: str) -> str:
    """A path as it can be published: within the current folder from there, else its last two parts."""
    absolute = os.path.abspath(os.path.expanduser(path))
    relative = os.path.relpath(absolute)
    if relative.split(os.sep)[0] != os.pardir:
        return relative
    return os.path.join("...", *absolute.split(os.sep)[-2:])


def portable_text(text: str) -> str:
    """A text as it can be published: the absolute paths in it as `portable_path` makes them."""
    return ABSOLUTE_PATH.sub(lambda found: portable_path(found[0]), text)


def portable_command(arguments: Sequence[str]) -> str:
    """A command line as it can be published and, within the current folder, repeated."""

    def shorten(path: str) -> str:
        return portable_path(path) if os.path.isabs(path) or path.startswith("~") else path

    def word(argument: str) -> str:
        key, equals, value = argument.partition("=")  # --config=PATH, data_root=PATH
        return f"{key}={shorten(value)}" if equals and not os.path.isabs(key) else shorten(argument)

    return shlex.join(["python", *map(word, arguments)])


def image_names(paths: Sequence[str]) -> list[str]:
    """Names of the images of a list without the folders that all of them are in."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath({os.path.dirname(path) for path in absolute})
    return [os.path.relpath(path, common) for path in absolute]
