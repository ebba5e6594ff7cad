"""Draws the PSNR in the hole of an evaluation: against the hole's area, and the model against a baseline.

    python tools/plot_results.py TEST_CSV [--output results_plot.png]

TEST_CSV is what `python test.py` writes; the left panel is there where the areas vary, the right one after
`--baselines`. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from utils.cli import UserError  # noqa: E402
from utils.pyplot import load_pyplot  # noqa: E402

BASELINES = ("mean_color", "telea", "navier_stokes", "biharmonic")
GROUPS = 8  # points of a curve, each of as many holes as the next


class PlotError(UserError):
    """There is nothing to draw; the message is one line for the user."""


def read_points(path: Path) -> dict[str, np.ndarray]:
    """Method -> float [holes, 2], area (fraction of the image) and PSNR in the hole; rows correspond."""
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                pair = float(row["hole_area"]), float(row["hole_psnr"])
                points.setdefault(row["method"], []).append(pair)
    except OSError as error:
        raise PlotError(f"cannot read {path}: {error.strerror}") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise PlotError(f"{path} is not a test.csv: columns method, hole_area and hole_psnr are needed") from None
    if "model" not in points or len({len(pairs) for pairs in points.values()}) != 1:
        raise PlotError(f"{path} is not a whole test.csv: each hole needs all methods, one of them the model")
    return {method: np.array(pairs) for method, pairs in points.items()}


def group_means(points: np.ndarray, groups: int = GROUPS) -> np.ndarray:
    """Points sorted by area and cut into groups of nearly equal number -> [groups, 3].

    Mean area, mean PSNR and its standard error (0 for a single point); infinite PSNRs are left out.
    """
    points = points[np.isfinite(points[:, 1])]
    points = points[np.argsort(points[:, 0], kind="stable")]
    means = []
    for part in np.array_split(points, min(groups, len(points)) or 1):
        if len(part):
            error = part[:, 1].std(ddof=1) / math.sqrt(len(part)) if len(part) > 1 else 0.0
            means.append((*part.mean(axis=0), error))
    return np.array(means).reshape(-1, 3)


def best_baseline(points: dict[str, np.ndarray]) -> str | None:
    """The classical method of largest mean PSNR, infinite ones left out."""
    means = {}
    for method in BASELINES:
        psnr = points[method][:, 1] if method in points else np.empty(0)
        if np.isfinite(psnr).any():
            means[method] = psnr[np.isfinite(psnr)].mean()
    return max(means, key=means.get, default=None)


def draw(points: dict[str, np.ndarray], output: Path) -> None:
    pyplot = load_pyplot()
    varies = bool(np.ptp(points["model"][:, 0]) > 0)
    best = best_baseline(points)
    if not varies and best is None:
        raise PlotError("all holes are of one area and there is no baseline: nothing to draw; try --baselines")
    figure, panels = pyplot.subplots(1, varies + (best is not None), squeeze=False, figsize=(12, 5))
    panels = list(panels[0])
    if varies:
        panel = panels.pop(0)
        for method, pairs in points.items():
            area, psnr, error = group_means(pairs).T
            line = panel.errorbar(100 * area, psnr, error, marker=".", label=method)
            if method == "model":
                panel.plot(100 * pairs[:, 0], pairs[:, 1], ".", alpha=0.25, color=line[0].get_color())
        panel.set(xlabel="hole, % of the image", ylabel="PSNR in the hole, dB")
        panel.legend(title="mean and standard error")
    if best is not None:
        panel = panels.pop(0)
        panel.plot(points[best][:, 1], points["model"][:, 1], ".")
        panel.axline((20, 20), slope=1, color="grey", linewidth=0.8)
        panel.set(xlabel=f"{best}: PSNR in the hole, dB", ylabel="model: PSNR in the hole, dB")
    figure.tight_layout()
    try:
        figure.savefig(output, dpi=120)
    except (OSError, ValueError) as error:
        raise PlotError(f"cannot write {output}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draws the PSNR in the hole of an evaluation.")
    parser.add_argument("table", type=Path, metavar="TEST_CSV")
    parser.add_argument("--output", type=Path, help="a picture (default: results_plot.png beside the table)")
    args = parser.parse_args(arguments)
    output = args.output or args.table.parent / "results_plot.png"
    try:
        draw(read_points(args.table), output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
