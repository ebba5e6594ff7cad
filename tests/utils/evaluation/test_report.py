from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from utils.evaluation.report import (
    Score,
    best_baseline,
    best_median_worst,
    paired_difference,
    results_text,
    write_csv,
)
from utils.metrics import image_metrics

REGION = ("psnr", "ssim", "l1", "l2", "l1_percent", "l2_percent", "tv", "tv_original")


def metrics(psnr: float = 20.0, l2: float = 0.01) -> dict[str, float]:
    values = {**dict.fromkeys(REGION, 0.5), "psnr": psnr, "l2": l2}
    return {**values, **{f"hole_{name}": value for name, value in values.items()}}


def score(index: int, method: str, number: int = 0, area: float = 0.25, **values: float) -> Score:
    return Score(index, f"{index}.png", number, "0 0 8 8", area, method, metrics(**values))


def test_paired_difference_by_hand() -> None:
    ours = [{"psnr": 20.0, "l2": 0.01}, {"psnr": 23.0, "l2": 0.03}, {"psnr": math.inf, "l2": 0.0}]
    theirs = [{"psnr": 19.0, "l2": 0.02}, {"psnr": 20.0, "l2": 0.01}, {"psnr": 30.0, "l2": 0.02}]
    paired = paired_difference(ours, theirs)
    assert list(paired) == ["psnr", "l2"]
    # differences 1 and 3: mean 2, sample deviation sqrt(2), standard error sqrt(2) / sqrt(2)
    assert paired["psnr"].mean == pytest.approx(2.0)
    assert paired["psnr"].standard_error == pytest.approx(1.0)
    assert (paired["psnr"].count, paired["psnr"].excluded) == (2, 1)
    # -0.01, 0.02, -0.02: no PSNR is made of a mean that is below zero
    assert paired["l2"].mean == pytest.approx(-0.01 / 3)
    with pytest.raises(ValueError, match="1 images cannot be paired with 2"):
        paired_difference(ours[:1], theirs[:2])


def test_pairing_is_by_image_and_not_by_mean() -> None:
    """A constant lead has no spread, however much the images differ."""
    ours, theirs = [{"psnr": 10.0}, {"psnr": 30.0}], [{"psnr": 9.0}, {"psnr": 29.0}]
    assert paired_difference(ours, theirs)["psnr"].standard_error == 0.0


def test_results_text_by_hand() -> None:
    rows = [
        score(0, "telea", psnr=20.0, l2=0.01),
        score(0, "model", psnr=21.0, l2=0.01),
        score(1, "telea", psnr=22.0, l2=0.03),
        score(1, "model", psnr=25.0, l2=0.01),
    ]
    lines = results_text(rows).splitlines()
    assert lines[0] == (
        "Mean PSNR and SSIM on the full image, 8 bits, known pixels unchanged, as most others print them:"
    )
    assert lines[1].split() == ["telea", "21.00", "dB", "0.5000"]
    assert lines[2].split() == ["model", "23.00", "dB", "0.5000"]
    lines = lines[4:]
    assert lines[0] == "Mean in the hole, 2 images (below it the standard error)"
    assert lines[1].split() == ["PSNR", "PSNR*", "SSIM", "l1", "l2", "l1", "%", "l2", "%", "TV", "TV", "ratio"]
    # PSNR 20 and 22: 21, error 1; l2 0.01 and 0.03: 0.02, error 0.01; in dB 16.990, error 10 / ln 10 / 2
    assert lines[2].split()[:6] == ["telea", "21.000", "16.990", "0.5000", "0.50000", "0.02000"]
    assert lines[3].split()[:5] == ["1.000", "2.171", "0.0000", "0.00000", "0.01000"]
    assert lines[4].split()[:3] == ["model", "23.000", "20.000"]
    assert lines[4].split()[-2:] == ["0.5000", "1.000"]
    assert lines[6].split() == ["original", *"-------", "0.5000", "-"]  # TV alone
    title = "Paired difference, model - other method, in the hole (below it the standard error)"
    start = lines.index(title)
    # 21 - 20 and 25 - 22: 2, error 1
    assert lines[start + 2].split()[:4] == ["-", "telea", "+2.000", "+0.0000"]
    assert lines[start + 3].split()[0] == "1.000"
    start = lines.index("Best baseline, by mean PSNR in the hole: telea. Paired difference, model - telea:")
    assert lines[start + 1] == "in the hole:        PSNR +2.000, standard error 1.000 (+2.0 of them)"
    assert lines[start + 2] == "in the hole:        SSIM +0.0000, standard error 0.0000"
    assert lines[start + 3] == "on the full image:  PSNR +2.000, standard error 1.000 (+2.0 of them)"


def test_several_holes_of_an_image_count_as_one() -> None:
    """Holes of 20 and 22 in one image, 30 and 30 in the other: means 21 and 30, 25.5 with error 4.5."""
    rows = [score(i, "model", k, psnr=psnr) for i, k, psnr in ((0, 0, 20.0), (0, 1, 22.0), (4, 0, 30.0))]
    rows.append(score(4, "model", 1, psnr=30.0))
    lines = results_text(rows).splitlines()[3:]
    assert lines[0] == (
        "Mean in the hole, 2 images with 4 holes, standard errors over images (below it the standard error)"
    )
    assert lines[2].split()[1] == "25.500"
    assert lines[3].split()[0] == "4.500"


def test_the_best_baseline_is_a_classical_one() -> None:
    rows = [
        score(0, "mean_color", psnr=20.0),
        score(0, "telea", psnr=21.0),
        score(0, "coarse", psnr=40.0),
        score(0, "model", psnr=30.0),
    ]
    assert best_baseline(rows) == "telea"
    assert best_baseline(rows[2:]) is None
    assert "Best baseline" not in results_text(rows[2:])
    text = results_text(rows)
    assert "in the hole:        PSNR +9.000\n" in text  # one image has no standard error


def test_extremes_by_hand() -> None:
    psnrs = [13.0, 19.0, math.nan, 11.0, 17.0, 15.0, math.inf, 10.0]
    rows = [score(i, method, psnr=psnr) for i, psnr in enumerate(psnrs) for method in ("telea", "model")]
    picked = [(kind, row.image_index) for kind, row in best_median_worst(rows, 2)]
    # by PSNR: 6 1 4 5 0 3 7; the middle two of seven start at the third
    assert picked == [("best", 6), ("best", 1), ("median", 4), ("median", 5), ("worst", 3), ("worst", 7)]
    assert all(row.method == "model" for _, row in best_median_worst(rows, 2))
    assert [kind for kind, _ in best_median_worst(rows[:2], 4)] == ["best"]
    assert [kind for kind, _ in best_median_worst(rows[:4], 4)] == ["best", "worst"]
    assert best_median_worst(rows[4:6], 4) == []


def test_the_table_by_hole_share() -> None:
    """10 % belongs to 0-10 %; two holes of one image count once, and no class is shown that is empty."""
    areas = (0.1, 0.05, 0.05, 0.55)
    rows = [
        score(index, method, number, area, psnr=psnr + 5 * (method == "model"))
        for index, number, area, psnr in zip((0, 1, 1, 2), (0, 0, 1, 0), areas, (20.0, 21.0, 23.0, 12.0))
        for method in ("telea", "model")
    ]
    lines = results_text(rows).splitlines()
    start = lines.index("Mean PSNR in the hole by hole share (below it the standard error)")
    assert lines[start + 1].split() == ["0-10%", "50-60%"]
    assert lines[start + 2].split() == ["telea", "21.000", "12.000"]  # 20 and (21 + 23) / 2
    assert lines[start + 3].split() == ["1.000", "-"]
    assert lines[start + 4].split() == ["model", "26.000", "17.000"]
    assert lines[start + 6].split() == ["holes", "3", "1"]
    assert "Mean PSNR on the full image by hole share (below it the standard error)" in lines
    assert "Mean SSIM on the full image by hole share (below it the standard error)" in lines
    assert "hole share" not in results_text(rows[:6])  # all in one class


def test_one_method_and_one_image_have_no_differences_and_no_errors() -> None:
    text = results_text([score(0, "model")])
    assert "Paired difference" not in text
    assert "1 image (" in text
    assert text.splitlines()[6].split() == ["-"] * 9


def test_what_a_mean_leaves_out_is_said() -> None:
    text = results_text([score(0, "model", psnr=math.inf), score(1, "model")])
    assert "model hole_psnr: 1 of 2 holes left out, infinite or undefined there" in text


def test_the_columns_exist() -> None:
    black = np.zeros((16, 16, 3), np.uint8)
    assert set(metrics()) == set(image_metrics(black, black, np.ones((16, 16))))


def test_csv_keeps_all_digits(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    rows = [score(0, "model", psnr=0.1 + 0.2), score(1, "model", psnr=math.inf)]
    rows[1] = rows[1]._replace(image='odd, "name"\n\udce9.png')
    write_csv(str(path), rows)
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:6] == ["image_index", "image", "hole_index", "hole", "hole_area", "method"]
    assert float(lines[0]["psnr"]) == 0.1 + 0.2
    assert lines[1]["psnr"] == "inf"
    assert lines[1]["image"] == 'odd, "name"\n\\udce9.png'
