"""How far a long piece of work is: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

PLAIN_LINES = 10  # how many lines a log file gets


@contextlib.contextmanager
def show_progress(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Gives a function that is called with the number of units just done. Everything goes to stderr."""
    if sys.stderr.isatty():
        with tqdm(total=total, unit=unit) as bar:
            yield bar.update
        return
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if done * PLAIN_LINES // total > before * PLAIN_LINES // total:
            print(f"{done}/{total} {unit}s", file=sys.stderr, flush=True)

    yield advance


def warn(message: str) -> None:
    """A warning on stderr, above the bar if there is one."""
    tqdm.write(f"warning: {message}", file=sys.stderr)
