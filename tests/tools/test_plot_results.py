from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "plot_results.py"
spec = importlib.util.spec_from_file_location("plot_results", SCRIPT)
plot_results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plot_results)


def write_table(path: Path, rows: list[tuple[str, float, float]]) -> Path:
    lines = ["index,hole_area,method,hole_psnr", *(f"0,{area!r},{method},{psnr!r}" for method, area, psnr in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_reading(tmp_path: Path) -> None:
    rows = [("telea", 0.25, 20.5), ("model", 0.25, math.inf), ("telea", 0.5, 19.0), ("model", 0.5, 18.0)]
    points = plot_results.read_points(write_table(tmp_path / "t.csv", rows))
    assert {name: pairs.tolist() for name, pairs in points.items()} == {
        "telea": [[0.25, 20.5], [0.5, 19.0]],
        "model": [[0.25, math.inf], [0.5, 18.0]],
    }


def test_groups_by_hand() -> None:
    """Four points by area in two groups; the infinite one is left out."""
    points = np.array([[0.4, 8.0], [0.1, 20.0], [0.5, math.inf], [0.2, 22.0], [0.3, 10.0]])
    assert plot_results.group_means(points, 2) == pytest.approx(np.array([[0.15, 21.0, 1.0], [0.35, 9.0, 1.0]]))
    assert plot_results.group_means(points[:1], 8) == pytest.approx(np.array([[0.4, 8.0, 0.0]]))
    assert plot_results.group_means(points[2:3]).shape == (0, 3)


def test_the_best_baseline_leaves_the_model_out() -> None:
    points = {"telea": [[0, 20.0]], "biharmonic": [[0, 21.0]], "coarse": [[0, 30.0]], "model": [[0, 40.0]]}
    points = {name: np.array(pairs) for name, pairs in points.items()}
    assert plot_results.best_baseline(points) == "biharmonic"
    assert plot_results.best_baseline({"model": points["model"]}) is None


@pytest.mark.parametrize("baseline", [True, False])
def test_drawing(tmp_path: Path, baseline: bool, capsys) -> None:
    pytest.importorskip("matplotlib")
    rows = [("model", 0.1 * (i % 5 + 1), 20.0 + i) for i in range(12)]
    rows += [("telea", area, psnr - 1) for _, area, psnr in rows] if baseline else []
    assert plot_results.main([str(write_table(tmp_path / "test.csv", rows))]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'results_plot.png'}\n"
    assert cv2.imread(str(tmp_path / "results_plot.png")).std() > 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("a,b\n1,2\n", "is not a test.csv: columns"),
        ("method,hole_area,hole_psnr\nmodel,x,2\n", "is not a test.csv: columns"),
        ("method,hole_area,hole_psnr\ntelea,0.1,2\n", "is not a whole test.csv"),
        ("method,hole_area,hole_psnr\ntelea,0.1,2\nmodel,0.1,2\nmodel,0.1,2\n", "is not a whole test.csv"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, capsys, content: str | None, message: str) -> None:
    path = tmp_path / "test.csv"
    if content is not None:
        path.write_text(content)
    assert plot_results.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_nothing_to_draw_and_no_matplotlib(tmp_path: Path, capsys, monkeypatch) -> None:
    path = write_table(tmp_path / "test.csv", [("model", 0.25, 20.0), ("model", 0.25, 21.0)])
    monkeypatch.setitem(plot_results.sys.modules, "matplotlib", None)
    assert plot_results.main([str(path)]) == 2
    assert capsys.readouterr().err == "error: matplotlib is not installed: pip install matplotlib\n"
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    assert plot_results.main([str(path)]) == 2
    assert "nothing to draw" in capsys.readouterr().err
