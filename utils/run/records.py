"""Text files that a run writes beside its checkpoints and its log."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence

from utils.logger import show
from utils.text_files import write_text


class QuietLog(contextlib.nullcontext):
    """The log of a rank that has none; what concerns its own files goes to its standard error."""

    def write(self, line: str) -> None:
        if not line.startswith("Iter:"):
            show(line, sys.stderr)


def report_not_finite(
    path: str, text: str, before: Mapping[str, float], batch: int, photographs: Sequence[str], saved: str | None
) -> str:
    """The whole message of an iteration that went wrong; lists the batch's photographs in the file `path`.

    text: what went wrong; before: the scalars of the iteration before; saved: the last checkpoint, if any.
    """
    last = ", ".join(f"{name} {value:g}" for name, value in before.items()) or "none"
    lines = [f"# {text}", f"# the iteration before: {last}", f"# photographs of batch {batch}, in its order"]
    listing = "\n".join([*lines, *(os.path.abspath(photograph) for photograph in photographs), ""])
    write_text(path, listing, errors="surrogateescape")  # a list that can be used as it is
    kept = f"the last checkpoint is {saved}" if saved else "there is no checkpoint yet"
    return f"{text}; the iteration before: {last}; the batch's photographs are listed in {path}; {kept}"
