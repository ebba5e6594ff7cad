from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest

from utils.evaluation.comparison import (
    METRICS,
    ComparisonError,
    Estimate,
    check_same_holes,
    estimate,
    estimate_difference,
    read_measured,
)
from utils.evaluation.comparison_table import Difference, Table, Value, tables_csv, tables_text


def measured(*psnrs: tuple[int, int, float]):
    """(photograph, hole, PSNR); the other metrics are a hundredth and a thousandth of it."""
    return {
        (index, number, f"box {number}"): {"hole_psnr": psnr, "hole_ssim": psnr / 100, "hole_l1": psnr / 1000}
        for index, number, psnr in psnrs
    }


def test_means_and_errors_by_hand() -> None:
    """Photograph 0 has two holes and counts once: over both seeds it has 14, photograph 1 has 20."""
    runs = [
        measured((0, 0, 10.0), (0, 1, 14.0), (1, 0, 19.0)),
        measured((0, 0, 14.0), (0, 1, 18.0), (1, 0, 21.0)),
    ]
    psnr = estimate(runs)["hole_psnr"]
    assert psnr.mean == pytest.approx(17)
    assert psnr.over_photographs == pytest.approx(3)  # sqrt(((14-17)^2 + (20-17)^2) / 1 / 2)
    # seed 0: mean(12, 19) = 15.5; seed 1: mean(16, 21) = 18.5
    assert psnr.over_seeds == pytest.approx(1.5)
    assert estimate(runs)["hole_l1"].mean == pytest.approx(0.017)


def test_one_seed_and_one_photograph_have_no_error() -> None:
    psnr = estimate([measured((0, 0, 10.0))])["hole_psnr"]
    assert psnr.mean == 10 and math.isnan(psnr.over_photographs) and math.isnan(psnr.over_seeds)


def test_differences_are_taken_in_pairs() -> None:
    """Photographs differ by 100, the methods by 1 and 3: the pairing takes the photographs' differences out."""
    ours = [measured((0, 0, 11.0), (1, 0, 113.0)), measured((0, 0, 12.0), (1, 0, 112.0))]
    theirs = [measured((0, 0, 10.0), (1, 0, 110.0)), measured((0, 0, 11.0), (1, 0, 109.0))]
    psnr = estimate_difference(ours, theirs)["hole_psnr"]
    assert psnr == pytest.approx(Estimate(2.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="2 runs cannot be paired with 1"):
        estimate_difference(ours, theirs[:1])


def test_an_infinite_figure_is_left_out() -> None:
    runs = [measured((0, 0, math.inf), (0, 1, 12.0), (1, 0, 14.0))]
    assert estimate(runs)["hole_psnr"].mean == pytest.approx(13)
    assert estimate_difference(runs, runs)["hole_psnr"].mean == pytest.approx(0)


def test_only_the_same_holes_compare() -> None:
    one = measured((0, 0, 1.0), (1, 0, 2.0))
    check_same_holes({"a.csv": one, "b.csv": measured((1, 0, 7.0), (0, 0, 3.0))})
    for other in (measured((0, 0, 1.0)), measured((0, 1, 1.0), (1, 0, 2.0))):
        with pytest.raises(ComparisonError, match="b.csv was not evaluated on the holes of a.csv"):
            check_same_holes({"a.csv": one, "b.csv": other})


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    names = ",".join(METRICS)
    path.write_text(f"index,image,hole_number,hole,method,{names}\n3,a.png,1,1 2 3 4,telea,20.5,0.5,0.1\n"
                    "3,a.png,1,1 2 3 4,model,inf,1.0,0\n")
    assert read_measured(str(path)) == {
        "telea": {(3, 1, "1 2 3 4"): {"hole_psnr": 20.5, "hole_ssim": 0.5, "hole_l1": 0.1}},
        "model": {(3, 1, "1 2 3 4"): {"hole_psnr": math.inf, "hole_ssim": 1.0, "hole_l1": 0.0}},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "test.csv: cannot be read: No such file"),
        ("index,method\n0,model\n", "is not a test.csv"),
        (f"index,hole_number,hole,method,{','.join(METRICS)}\n0,0,x,model,a,b,c\n", "is not a test.csv"),
        (f"index,hole_number,hole,method,{','.join(METRICS)}\n", "holds no measurement"),
    ],
)
def test_what_is_no_result(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "test.csv").write_text(content)
    with pytest.raises(ComparisonError, match=message):
        read_measured(str(tmp_path / "test.csv"))


def tables() -> list[Table]:
    def all_of(*values: float) -> dict[str, Estimate]:
        return {metric: Estimate(*values) for metric in METRICS}

    values = [Value("telea", 0, all_of(18.25, 0.5, math.nan)), Value("full", 3, all_of(18.0, 0.25, 0.125))]
    return [Table("val", "center", 100, 500, values, [Difference("telea", 3, all_of(-0.25, 0.1, 0.2))])]


def test_the_text() -> None:
    text = tables_text(tables(), "full", ["python train.py"], "the last checkpoint")
    assert text.startswith("Evaluated is the last checkpoint of every training. ")
    assert max(map(len, text.splitlines())) <= 118
    assert "## val, center: 100 photographs, 500 holes" in text
    assert "| telea |  | 18.250 ± 0.500 | 18.2500 ± 0.5000 | 18.25000 ± 0.50000 |" in text
    assert "| full | 3 | 18.000 ± 0.250 ± 0.125 |" in text
    assert "| full less | seeds | PSNR, dB | SSIM | l1 |" in text
    assert "| telea | 3 | -0.250 ± 0.100 ± 0.200 |" in text
    assert text.endswith("```\npython train.py\n```\n")


def test_the_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(tables_csv(tables()))))
    assert len(rows) == 3 * len(METRICS)
    assert rows[0] == {
        "list": "val", "protocol": "center", "photographs": "100", "holes": "500", "figure": "value",
        "method": "telea", "seeds": "0", "metric": "hole_psnr", "mean": "18.25", "over_photographs": "0.5",
        "over_seeds": "",
    }  # fmt: skip
    assert [row["figure"] for row in rows[::3]] == ["value", "value", "difference"]
