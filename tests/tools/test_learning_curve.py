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
from utils.scripts import ScriptError

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "learning_curve.py"
spec = importlib.util.spec_from_file_location("learning_curve", SCRIPT)
learning_curve = importlib.util.module_from_spec(spec)
spec.loader.exec_module(learning_curve)


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Path:
    """A run of three checkpoints and a stand-in for test.py: its PSNR is the iteration, Telea's is 15.

    SSIM is a hundredth of the PSNR. `removed`: the checkpoints that are gone as soon as it is called the first time.
    """
    folder = tmp_path / "run"
    for iteration in (10, 20, 30):
        tiny_checkpoint.write(folder, iteration)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png\n")
    (folder / "config.yaml").write_text(f"val_data_path: {tmp_path}/list.txt\nniter: 30\nresume: latest\n")
    commands, removed = [], []

    def run_script(command: list[str]) -> None:
        commands.append(command)
        for iteration in removed:
            (folder / f"checkpoint_{iteration:08d}.npz").unlink(missing_ok=True)
        if not Path(command[command.index("--checkpoint") + 1]).exists():
            raise ScriptError("test.py: ended with exit code 2; its own message is above")
        output = Path(command[command.index("--output") + 1])
        output.mkdir(parents=True, exist_ok=True)
        (output / "test.txt").write_text(portable_command(command) + "\n")
        methods = {"model": int(output.name)}
        if "--baselines" in command:
            methods = {"telea": 15, "coarse": 5, **methods}
        psnrs = [(i, method, psnr + 2 * i) for i in range(2) for method, psnr in methods.items()]
        rows = [f"{i},0,box,{method},{psnr},{psnr / 100},0.1" for i, method, psnr in psnrs]
        header = "index,hole_number,hole,method,hole_psnr,hole_ssim,hole_l1"
        (output / "test.csv").write_text("\n".join([header, *rows]) + "\n")
        (output / "extremes.png").write_bytes(b"")

    monkeypatch.setattr(learning_curve, "run_script", run_script)
    monkeypatch.setattr(learning_curve, "commands", commands, raising=False)
    monkeypatch.setattr(learning_curve, "removed", removed, raising=False)
    return folder


def table(run: Path) -> list[tuple[str, str, float]]:
    with open(run / "learning_curve/learning_curve.csv", newline="") as file:
        return [(row["iteration"], row["method"], float(row["hole_psnr"])) for row in csv.DictReader(file)]


def test_a_curve(run: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert learning_curve.main([str(run), "protocol=random_box"]) == 0
    assert "[2/3] iteration 20: PSNR in the hole 21.000\n" in capsys.readouterr().out
    assert len(learning_curve.commands) == 3
    assert ["--baselines" in command for command in learning_curve.commands] == [True, False, False]
    assert all("protocol=random_box" in command for command in learning_curve.commands)
    assert table(run) == [("", "telea", 16.0), ("10", "model", 11.0), ("20", "model", 21.0), ("30", "model", 31.0)]
    assert cv2.imread(str(run / "learning_curve/learning_curve.png")).std() > 5
    assert learning_curve.main([str(run), "protocol=random_box"]) == 0
    assert len(learning_curve.commands) == 3  # nothing is evaluated twice
    cv2.imwrite(str(run.parent / "b.png"), np.zeros((8, 8, 3), np.uint8))
    (run.parent / "list.txt").write_text("a.png\nb.png\n")
    assert learning_curve.main([str(run), "protocol=random_box"]) == 0
    assert len(learning_curve.commands) == 6  # but for another list


def test_both_metrics_are_drawn(run: Path, monkeypatch) -> None:
    """PSNR and SSIM, each with its error bars (two photographs that differ by 2) and Telea's level."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures, close = [], pyplot.close
    monkeypatch.setattr(pyplot, "close", figures.append)
    assert learning_curve.main([str(run)]) == 0
    panels = [("PSNR in the hole, dB", 1, "16.00"), ("SSIM in the hole", 100, "0.160")]
    assert len(figures[0].axes) == len(panels)
    for axis, (name, scale, level) in zip(figures[0].axes, panels):
        assert axis.get_ylabel() == name
        (bars,) = axis.containers
        assert bars[0].get_xdata().tolist() == [10, 20, 30]
        assert bars[0].get_ydata() * scale == pytest.approx([11, 21, 31])
        assert bars[2][0].get_segments()[0][:, 1] * scale == pytest.approx([10, 12])
        (line,) = [line for line in axis.lines if line.get_label() == f"telea {level}"]
        assert line.get_ydata() == pytest.approx([16 / scale] * 2)
    close(figures[0])


@pytest.mark.parametrize(
    ("removed", "left", "evaluated"),
    [
        ([20], [("", "telea", 16.0), ("10", "model", 11.0), ("30", "model", 31.0)], 2),  # before its turn
        ([10], [("", "telea", 16.0), ("20", "model", 21.0), ("30", "model", 31.0)], 3),  # in its turn
    ],
)
def test_a_checkpoint_that_is_removed_meanwhile_is_left_out(run: Path, capsys, removed, left, evaluated) -> None:
    pytest.importorskip("matplotlib")
    learning_curve.removed.extend(removed)
    assert learning_curve.main([str(run)]) == 0
    path = run / f"checkpoint_{removed[0]:08d}.npz"
    assert capsys.readouterr().err == f"warning: {path}: was removed before it was evaluated, and is left out\n"
    assert table(run) == left and len(learning_curve.commands) == evaluated


def test_no_checkpoint_is_left(run: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    learning_curve.removed.extend([10, 20, 30])
    with pytest.raises(SystemExit) as exit_:
        learning_curve.main([str(run)])
    *warnings, error = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and [line.split(":")[0] for line in warnings] == ["warning"] * 3
    assert error.startswith(f"error: {run}: its checkpoints were all removed before they were evaluated")


def test_an_evaluation_that_fails_ends_it(run: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("matplotlib")

    def fail(command: list[str]) -> None:
        raise ScriptError("test.py: ended with exit code 2; its own message is above")

    monkeypatch.setattr(learning_curve, "run_script", fail)
    with pytest.raises(SystemExit):
        learning_curve.main([str(run)])
    assert capsys.readouterr().err == "error: test.py: ended with exit code 2; its own message is above\n"


@pytest.mark.parametrize("protocol", ["mask_list", "mask_dir"])
def test_other_masks_are_evaluated_anew(run: Path, protocol: str) -> None:
    pytest.importorskip("matplotlib")
    masks = run.parent / "masks"
    masks.mkdir()
    for name, side in (("a.png", 3), ("other.png", 5)):
        cv2.imwrite(str(masks / name), np.pad(np.full((side, side), 255, np.uint8), (0, 8 - side)))
    (masks / "masks.txt").write_text("a.png\n")
    path = masks if protocol == "mask_dir" else masks / "masks.txt"
    command = [str(run), f"protocol={protocol}", f"mask_path={path}"]
    for _ in range(2):
        assert learning_curve.main(command) == 0
        assert len(learning_curve.commands) == 3
    if protocol == "mask_list":
        (masks / "masks.txt").write_text("other.png\n")
    else:
        (masks / "a.png").write_bytes((masks / "other.png").read_bytes())
    assert learning_curve.main(command) == 0
    assert len(learning_curve.commands) == 6


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
        (["RUN", "protocol=mask_list", "mask_path=absent.txt"], "mask_path: the file list absent.txt does not exist"),
    ],
)
def test_one_line_says_what_is_wrong(run: Path, capsys, arguments, message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        learning_curve.main([word.replace("RUN", str(run)) for word in arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert learning_curve.commands == []
