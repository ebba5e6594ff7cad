"""What stands in checkpoints/released/ and at the top: whole, of one run, and as the documents say."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path

import pytest

from utils.checkpoint import load_checkpoint
from utils.config import TrainConfig, load_config
from utils.logger import parse_line

PROJECT = Path(__file__).resolve().parents[1]
RELEASED = PROJECT / "checkpoints" / "released"
LIMIT = 20 * 10**6  # bytes of the weights


def test_every_file_is_the_one_that_was_released():
    lines = (RELEASED / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    assert set(sums) == {path.name for path in RELEASED.iterdir()} - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((RELEASED / name).read_bytes()).hexdigest() == digest, name
    assert (RELEASED / "generator.npz").stat().st_size <= LIMIT


def test_the_logs_at_the_top_are_those_of_the_released_run():
    assert (PROJECT / "train.txt").read_bytes() == (RELEASED / "train.txt").read_bytes()
    assert (PROJECT / "test.txt").read_bytes() == (RELEASED / "metrics_128_val_center.txt").read_bytes()


def test_the_log_is_unbroken_and_finite():
    """Every line an iteration of print_iter, none missing or twice over all resumes, up to the released weights."""
    config = load_config(str(RELEASED / "config.yaml"), TrainConfig, [])
    _, meta = load_checkpoint(str(RELEASED / "generator.npz"))
    lines = (RELEASED / "train.txt").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(parse_line, lines) if row]
    iterations = [row["iteration"] for row in rows]
    assert iterations == list(range(config.print_iter, iterations[-1] + 1, config.print_iter))
    assert iterations[-1] > meta["iteration"] - config.print_iter
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("name", ["train.txt", "config.yaml", "metrics_128_val_center.txt", "README.md"])
def test_no_folder_of_a_machine_is_published(name):
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|mnt)/", (RELEASED / name).read_text(encoding="utf-8"))
