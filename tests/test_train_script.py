"""train.py as a user starts it: the dry run, and what it refuses. Runs and their faults: tests/faults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.faults.harness import CONFIG

SCRIPT = Path(__file__).resolve().parents[1] / "train.py"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(4):
        picture = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), picture)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def run(place, *options):
    command = [sys.executable, str(SCRIPT), "--config", "config.yaml", "--device", "cpu", *options]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_dry_run(place):
    before = set(place.iterdir())
    done = run(place, "--dry-run", "amp=bfloat16", "niter=100")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "warning: amp: bfloat16 needs a GPU and is off on the CPU"
    assert set(place.iterdir()) - before == {place / "dry_run.png"}
    assert cv2.imread(str(place / "dry_run.png")).shape == (20 + 128, 3 * 128 + 8, 3)  # viz_max_out is 1
    text = done.stdout
    assert "\namp: none\n" in text and "\nphotographs: 4 in photos\n" in text
    for line in (
        r"generator, layer +output +parameters +MFLOP",
        r"  coarse_generator.conv1 +2x32x32 +252 +0\.5",
        r"  fine_generator.contextual_attention +8x8x8 +0 +0\.0",
        r"global_critic, layer +output +parameters +MFLOP",
        r"  linear +1 +33 +0\.0",
        r"operations of an iteration, batches of 2: [\d.]+ GFLOP: 2 critic updates of .*",
        r"memory, estimated: [\d.]+ MiB and work space: .*",
        r"not trained by crops so small: up to 8 of 9 weights a channel of coarse_generator.conv9_atrous, .*",
        r"memory, measured: .*",
        r"first batch: dry_run.png",
        r"first iteration: [\d.]+ s, 3 batches of 2",
        r"second iteration: [\d.]+ s, 3 batches of 2",
        r"100 iterations like the second: \d+ .*",
        r"Iter: \[2/100\] l1: .* grad_norm_g: [\d.]+ speed: .*",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line


def test_dry_run_of_the_coarse_stage_and_picture_elsewhere(place):
    done = run(place, "--dry-run", "seen.png", "pretrain_coarse_network=true")
    assert done.returncode == 0 and (place / "seen.png").is_file() and not (place / "dry_run.png").exists()
    assert "fine_generator" not in done.stdout and "critic, layer" not in done.stdout
    assert "GFLOP: a generator update without critics\n" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run", ""], "error: --dry-run: the picture's name is empty: leave it out for dry_run.png"),
        (["--dry-run", "seen"], "error: cannot write seen: give it a suffix that names an image format, e.g. .png"),
        (["--dry-run", "away/seen.png"], "error: cannot write away/seen.png: No such file or directory"),
        (["--dry-run", "amp=true"], "error: command line ('amp=true'): amp must be one of none, float16, bfloat16"),
    ],
)
def test_refusals(place, options, message):
    done = run(place, *options)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in place.iterdir()) == ["config.yaml", "photos"]
