"""The one place that writes whole text files; logs, which grow, are in utils.logger."""

from __future__ import annotations

import contextlib
import os

from utils.cli import UserError


def write_text(path: str, text: str, errors: str = "backslashreplace") -> None:
    """Writes a file such that ``path`` holds either its old content or all of the new one, in UTF-8.

    errors: what becomes of bytes of file names that are no text; "surrogateescape" keeps them. Raises UserError:
    missing folder, no permission, full disk; ``path`` is then as it was and nothing else is left.
    """
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8", errors=errors, newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too must leave no half-written file
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None
        raise
