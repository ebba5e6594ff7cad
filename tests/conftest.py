"""What all tests share: the way paddle is imported, and the folder of recorded arrays."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from utils.cli import prepare_paddle

prepare_paddle()  # here, because it has to come before any other import of paddle

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in a shell's background: tests that send it would wait
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).resolve().parents[1].parent / "shared" / "golden"
"""Arrays recorded by running the original programs. They are no part of the repository."""


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded arrays; the test is skipped where it is absent."""
    if not GOLDEN.is_dir():
        pytest.skip(f"the recorded arrays of the original programs are not at {GOLDEN}")
    return GOLDEN
