"""train.py as a user starts it: the dry run, and what it refuses. Runs and their faults: tests/faults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.faults.harness import CONFIG, Place, assert_same_checkpoint
from utils.checkpoint import load_checkpoint
from utils.options import parse_arguments

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
    done = run(place, "--dry-run", "precision=bf16", "niter=100")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "warning: precision: bf16 needs a GPU and is off on the CPU"
    assert set(place.iterdir()) - before == {place / "dry_run.png"}
    assert cv2.imread(str(place / "dry_run.png")).shape == (20 + 128, 3 * 128 + 8, 3)  # viz_max_out is 1
    text = done.stdout
    assert "\nprecision: fp32\n" in text and "\nimages: 4 in photos\n" in text
    for line in (
        r"device: cpu; convolutions by (oneDNN|Paddle)",
        r"generator, layer +output +parameters +MFLOP",
        r"  coarse_generator.conv1 +2x32x32 +252 +0\.5",
        r"  fine_generator.contextual_attention +8x8x8 +0 +0\.0",
        r"global_critic, layer +output +parameters +MFLOP",
        r"  linear +1 +33 +0\.0",
        r"an iteration, batches of 2: [\d.]+ GFLOP: 2 critic updates of .*",
        r"estimated memory: [\d.]+ MiB = .*",
        r"crops too small for coarse_generator.conv9_atrous, .*: up to 8 of 9 kernel taps .*",
        r"measured memory: .*",
        r"first batch: dry_run.png",
        r"iteration 1: [\d.]+ s",
        r"iteration 2: [\d.]+ s",
        r"100 iterations like the second: \d+ .*",
        r"Iter: \[2/100\] l1: .* grad_norm_g: [\d.]+ lr: 0.0001 speed: .* left",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line


def test_dry_run_of_the_coarse_stage(place):
    done = run(place, "--dry-run", "pretrain_coarse_network=true")
    assert done.returncode == 0
    assert "fine_generator" not in done.stdout and "critic, layer" not in done.stdout
    assert "GFLOP: a generator update without critics\n" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run", "seen.png"], "error: --dry-run takes no file name: it writes dry_run.png"),
        (["--dry-run", "amp=true"], "key amp is not used here: its name is precision"),
        (["--resume", "gone.npz"], "error: gone.npz: no such checkpoint; --resume alone takes the newest one"),
        (["init_from=gone.npz"], "error: gone.npz: no such checkpoint"),
        (["hole=gone"], "error: the file list gone does not exist"),
    ],
)
def test_refusals(place, options, message):
    done = run(place, *options)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert not list(place.rglob("*.npz")) and not list(place.rglob("train.txt"))


@pytest.mark.parametrize(
    ("line", "overrides"),
    [
        ("", []),
        ("--dry-run niter=3", ["niter=3"]),
        ("lr=1 --dry-run niter=3 --seed 4", ["lr=1", "niter=3", "seed=4"]),
        ("--resume", ["resume=latest"]),
        ("--resume niter=3", ["niter=3", "resume=latest"]),
        ("--resume run/c.npz niter=3", ["niter=3", "resume=run/c.npz"]),
    ],
)
def test_words_behind_options(line, overrides):
    arguments = parse_arguments(line.split())
    assert (arguments.dry_run, arguments.overrides) == ("--dry-run" in line, overrides)


FEATURES = [
    "hole=mixed", "mask_batch_same=false", "accumulate=2", "batch_size=1", "ema_decay=0.9", "lr_schedule=steps",
    "lr_steps=[3, 6]", "lr_decay=0.5", "lr_warmup=2", "snapshot_save_iter=2",
]  # fmt: skip
VALIDATION = ["val_iter=2", "val_count=2"]


def test_every_feature_resumes_bit_equal_and_validation_changes_nothing(place, tmp_path_factory):
    """Straight; stopped and resumed; without validation and with workers: one result."""
    (place / "photos").rename(place / "originals")
    runs = []
    for name in ("straight", "stopped", "unwatched"):
        folder = tmp_path_factory.mktemp(name)
        runs.append(Place(folder, place / "originals"))
    straight, stopped, unwatched = runs
    straight.run(*FEATURES, *VALIDATION, "niter=8")
    stopped.run(*FEATURES, *VALIDATION, "niter=5")
    stopped.run(*FEATURES, *VALIDATION, "niter=8", "--resume")
    unwatched.run(*FEATURES, "num_workers=2", "niter=8")
    for other in (stopped, unwatched):
        assert_same_checkpoint(other.checkpoints()[8], straight.checkpoints()[8])
    assert any(name.startswith("ema/") for name in load_checkpoint(str(straight.checkpoints()[8]))[0])
    rates = [straight.logged()[k]["lr"] for k in range(1, 9)]
    assert rates == pytest.approx([5e-5, 1e-4, 1e-4, 5e-5, 5e-5, 5e-5, 2.5e-5, 2.5e-5])

    metrics = (straight.run_folder / "metrics.csv").read_text()
    assert metrics == (stopped.run_folder / "metrics.csv").read_text() and metrics.count("\n") == 5
    assert straight.log.read_text().count("\nVal: [") == stopped.log.read_text().count("\nVal: [") == 4
    rows = [line.split(",") for line in metrics.splitlines()[1:]]
    best = int(max(rows, key=lambda row: float(row[1]))[0])
    arrays, meta = load_checkpoint(str(straight.run_folder / "best.npz"))
    assert meta["iteration"] == best and meta["validation"]["psnr"] == pytest.approx(max(float(r[1]) for r in rows))
    assert not (unwatched.run_folder / "metrics.csv").exists()


def test_a_new_run_from_the_weights_of_another(place):
    first = Place(place / "new", place / "photos") if (place / "new").mkdir() is None else None
    first.run("niter=2", "snapshot_save_iter=2")
    start = str(first.checkpoints()[2])
    first.run("niter=1", "expname=second", f"init_from={start}", "lr=1e-20")
    second = first.folder / "checkpoints/faults/hole_second"
    log = (second / "train.txt").read_text()
    assert "# weights of " in log and "; cpu; convolutions by " in log.splitlines()[0]
    (ours, meta), (theirs, _) = (load_checkpoint(str(p)) for p in (second / "checkpoint_00000001.npz", start))
    for name in theirs:
        if "optimizer" not in name:
            assert np.array_equal(ours[name], theirs[name]), name
    assert meta["iteration"] == 1 and meta["position"] == 3
    first.run("niter=2", "expname=second", "init_from=gone.npz", "--resume")  # needed at the start alone
