"""Text files that a run writes beside its checkpoints and its log."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence

from utils.cli import UserError
from utils.logger import show


class QuietLog(contextlib.nullcontext):
    """The log of a rank that has none; what concerns its own files goes to its standard error."""

    def write(self, line: str) -> None:
        if not line.startswith("Iter:"):
            show(line, sys.stderr)


def write_text(path: str, text: str) -> None:
    """Writes a file whole; its folder is made if it is missing. Raises UserError."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def report_not_finite(
    path: str, text: str, before: Mapping[str, float], batch: int, photographs: Sequence[str], saved: str | None
) -> str:
    """The whole message of an iteration that went wrong; lists the batch's photographs in the file `path`.

    text: what went wrong; before: the scalars of the iteration before; saved: the last checkpoint, if any.
    """
    last = ", ".join(f"{name} {value:g}" for name, value in before.items()) or "none"
    lines = [f"# {text}", f"# the iteration before: {last}", f"# photographs of batch {batch}, in its order"]
    write_text(path, "\n".join([*lines, *(os.path.abspath(photograph) for photograph in photographs), ""]))
    kept = f"the last checkpoint is {saved}" if saved else "there is no checkpoint yet"
    return f"{text}; the iteration before: {last}; the batch's photographs are listed in {path}; {kept}"
