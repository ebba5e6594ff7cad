from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import tiny_checkpoint
from utils.evaluation.report import portable_command

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "learning_curve.py"
spec = importlib.util.spec_from_file_location("learning_curve", SCRIPT)
learning_curve = importlib.util.module_from_spec(spec)
spec.loader.exec_module(learning_curve)


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Path:
    """A run of three checkpoints and a stand-in for test.py: its PSNR is the iteration, Telea's is 15."""
    folder = tmp_path / "run"
    for iteration in (10, 20, 30):
        tiny_checkpoint.write(folder, iteration)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png\n")
    (folder / "config.yaml").write_text(f"val_data_path: {tmp_path}/list.txt\nniter: 30\nresume: latest\n")
    commands = []

    def run_script(command: list[str]) -> None:
        commands.append(command)
        output = Path(command[command.index("--output") + 1])
        output.mkdir(parents=True, exist_ok=True)
        (output / "test.txt").write_text(portable_command(command) + "\n")
        methods = {"model": int(output.name)}
        if "--baselines" in command:
            methods = {"telea": 15, "coarse": 5, **methods}
        rows = [f"{i},0,box,{method},{psnr + 2 * i},0.5,0.1" for i in range(2) for method, psnr in methods.items()]
        header = "index,hole_number,hole,method,hole_psnr,hole_ssim,hole_l1"
        (output / "test.csv").write_text("\n".join([header, *rows]) + "\n")
        (output / "extremes.png").write_bytes(b"")

    monkeypatch.setattr(learning_curve, "run_script", run_script)
    monkeypatch.setattr(learning_curve, "commands", commands, raising=False)
    return folder


def test_a_curve(run: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert learning_curve.main([str(run), "protocol=random_box"]) == 0
    assert "[2/3] iteration 20: PSNR in the hole 21.000\n" in capsys.readouterr().out
    assert len(learning_curve.commands) == 3
    assert ["--baselines" in command for command in learning_curve.commands] == [True, False, False]
    assert all("protocol=random_box" in command for command in learning_curve.commands)
    with open(run / "learning_curve/learning_curve.csv", newline="") as file:
        rows = [(row["iteration"], row["method"], float(row["hole_psnr"])) for row in csv.DictReader(file)]
    assert rows == [
        ("", "telea", 16.0), ("10", "coarse", 6.0), ("10", "model", 11.0),
        ("20", "model", 21.0), ("30", "model", 31.0),
    ]  # fmt: skip
    assert cv2.imread(str(run / "learning_curve/learning_curve.png")).std() > 5
    assert learning_curve.main([str(run), "protocol=random_box"]) == 0
    assert len(learning_curve.commands) == 3  # nothing is evaluated twice
    cv2.imwrite(str(run.parent / "b.png"), np.zeros((8, 8, 3), np.uint8))
    (run.parent / "list.txt").write_text("a.png\nb.png\n")
    assert learning_curve.main([str(run), "protocol=random_box"]) == 0
    assert len(learning_curve.commands) == 6  # but for another list


def test_without_matplotlib_nothing_is_evaluated(run: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as exit_:
        learning_curve.main([str(run)])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error == "error: matplotlib is not installed: pip install matplotlib\n"
    assert learning_curve.commands == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: holds no checkpoint"),
        (["RUN", "val_data_path=absent.txt"], "the file list absent.txt does not exist"),
        (["RUN", "protocol=middle"], "protocol must be one of center"),
    ],
)
def test_one_line_says_what_is_wrong(run: Path, capsys, arguments, message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        learning_curve.main([word.replace("RUN", str(run)) for word in arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert learning_curve.commands == []
