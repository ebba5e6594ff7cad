"""tools/ablation.sh: the commands of the ablation study and their order, with a stand-in for the programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "tools" / "ablation.sh"

# Writes what each program would, notes its arguments, and fails once where the test asks for it. A model's PSNR is 20
# and 22 dB for the two images; without attention 1 and 0 dB less, plus the seed.
STAND_IN = f"""#!{sys.executable} -SE
import os, subprocess, sys
program, *words = sys.argv[1:]
if program == "-":
    sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)
keys = dict(word.split("=", 1) for word in words if "=" in word)
option = lambda name: words[words.index(name) + 1]
with open("calls.txt", "a") as file:
    print(os.path.relpath(program, {str(PROJECT)!r}), *words, file=file)
if program.endswith("train.py"):
    run = "checkpoints/ablation64/hole_" + keys["expname"]
    os.makedirs(run, exist_ok=True)
    open(run + "/checkpoint_00000001.npz", "w").close()
    if os.path.exists("stop"):
        os.unlink("stop")
        sys.exit(130)
elif program.endswith("release.py"):
    open(option("--output"), "w").close()
else:
    output = option("--output")
    os.makedirs(output)
    less = 0
    if "without_attention" in output:
        less = 1 + int(output.split("seed")[1][0])
    with open(output + "/test.csv", "w") as file:
        print("image,method,hole_psnr,hole_ssim", file=file)
        print("a.jpg,telea,1,1", file=file)
        print(f"a.jpg,refined,{{20 - less}},0.5", file=file)
        print(f"b.jpg,refined,{{22 - max(less - 1, 0)}},0.5", file=file)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def ablation(place: Path, *lists: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": str(place / "python"), "SEEDS": "0 1", **variables}
    return subprocess.run([str(SCRIPT), *lists], cwd=place, env=environment, capture_output=True, text=True)


def calls(place: Path) -> list[str]:
    return (place / "calls.txt").read_text().splitlines()


def test_every_row_is_trained_averaged_and_evaluated(place: Path) -> None:
    done = ablation(place, "my lists/train.txt", "val.txt", "urban.txt", KEYS="niter=5 lr=0.1")
    assert done.returncode == 0, done.stderr
    found = calls(place)
    assert [call.split()[0] for call in found] == (["train.py", "tools/release.py"] + ["test.py"] * 4) * 6
    trainings = [call for call in found if call.startswith("train.py")]
    assert all("train_data_path=my lists/train.txt val_data_path=val.txt" in call for call in trainings)
    assert [call.split("expname=")[1] for call in trainings] == [
        "full_seed0 seed=0 niter=5 lr=0.1",
        "without_attention_seed0 seed=0 contextual_attention=false niter=5 lr=0.1",
        "full_seed1 seed=1 niter=5 lr=0.1",
        "without_attention_seed1 seed=1 contextual_attention=false niter=5 lr=0.1",
        "without_discounting_seed0 seed=0 discounted_mask=false niter=5 lr=0.1",
        "without_critics_seed0 seed=0 gan_loss_alpha=0 niter=5 lr=0.1",
    ]
    assert sum("--baselines" in call for call in found) == 4
    run = "checkpoints/ablation64/hole_full_seed0"
    assert found[1] == f"tools/release.py {run} --last 8 --output {run}/mean.npz"
    assert found[5].endswith(f"--checkpoint {run}/mean.npz --output {run}/urban_random_box val_data_path=urban.txt "
                             "protocol=random_box masks_per_image=5")


def test_differences_by_hand(place: Path) -> None:
    """By seed the means are 0.5 and 1.5 dB, by image 1.5 and 0.5: half a dB of error each way."""
    lines = ablation(place, "train.txt", "val.txt").stdout.splitlines()
    assert len(lines) == 2 * 3 * 2
    found = [" ".join(line.split()) for line in lines]
    assert found[0] == ("val_center full - without_attention hole_psnr +1.000 ± 0.500 over images ± 0.500 over seeds")
    assert found[2] == "val_center full - without_discounting hole_psnr +0.000 ± 0.000 over images"


def test_it_resumes(place: Path) -> None:
    (place / "stop").touch()
    assert ablation(place, "train.txt", "val.txt").returncode == 130 and len(calls(place)) == 1
    assert ablation(place, "train.txt", "val.txt").returncode == 0
    found = calls(place)
    assert "--resume" in found[1] and not any("--resume" in call for call in found[2:])
    assert ablation(place, "train.txt", "val.txt").returncode == 0 and calls(place) == found  # nothing is left to do
    (place / "checkpoints/ablation64/hole_full_seed1/val_center/test.csv").unlink()
    (place / "checkpoints/ablation64/hole_full_seed1/val_center").rmdir()
    assert ablation(place, "train.txt", "val.txt").returncode == 0
    assert len(calls(place)) == len(found) + 1


def test_without_lists_it_says_how_it_is_called(place: Path) -> None:
    done = ablation(place, "train.txt")
    assert done.returncode == 2 and "tools/ablation.sh TRAIN_LIST VAL_LIST" in done.stderr


def test_the_commands_are_those_that_the_programs_take(place: Path) -> None:
    """Their keys exist: the configuration is read as train.py and test.py read it."""
    from utils.config import TestConfig, TrainConfig, load_config

    assert ablation(place, "train.txt", "val.txt").returncode == 0
    for call in calls(place):
        kind = {"train.py": TrainConfig, "test.py": TestConfig}.get(call.split()[0])
        if kind:
            keys = [word for word in call.split() if "=" in word]
            load_config(str(PROJECT / "configs/ablation64.yaml"), kind, keys)
