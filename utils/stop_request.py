"""Signals that ask a program to stop when it has come to a good place."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any


class StopRequest:
    """Notes Ctrl-C, SIGTERM and the end of the terminal; a second such signal ends the program at once.

    signal: the number of the first one, or None. A signal that was ignored before (nohup) stays so. At once
    means SystemExit with the signal's exit code, so that what is under way is cleaned up.
    with_parent: the end of the parent process counts as SIGTERM (`stop_with_parent` looks for it).
    """

    def __init__(self, with_parent: bool = False) -> None:
        self.signal: int | None = None
        self._parent = os.getppid() if with_parent else None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            sys.exit(128 + number)
        self.signal = number
        # print() could be interrupting a print(); the terminal may be gone, which is what SIGHUP says
        with contextlib.suppress(OSError):
            os.write(2, b"stopping after this iteration; once more to stop at once\n")

    def stop_with_parent(self) -> None:
        """Requests the stop where the parent has ended since."""
        if self._parent is not None and self.signal is None and os.getppid() != self._parent:
            self.signal = signal.SIGTERM

    def agreed(self, ranks: Any) -> bool:
        """Whether any rank was asked to stop: all stop after the same iteration. ranks: a `utils.ranks.Ranks`."""
        self.stop_with_parent()
        number = ranks.largest(self.signal or 0)
        self.signal = number or self.signal  # one that came since is for the next iteration
        return number > 0

    @property
    def exit_code(self) -> int:
        """What a shell calls the end by the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal
