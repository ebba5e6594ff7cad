"""Draws the curves of training logs.

    python tools/plot_log.py checkpoints/.../train.txt [more.txt ...] [--output FILE]

Reads train.txt of this project and the logs of the earlier ports, whose lines have the same form, and the validation
scores in metrics.csv of the same folder where a run wrote them. Without --output the curves go beside the first log:
train.png. Values that are not finite leave a gap and are counted below their name. Where a log goes back (restarts of
the earlier ports, which kept both run segments), each segment is a line of its own.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.logger import parse_line  # noqa: E402

NOT_DRAWN = ("iteration", "total", "speed")
VALIDATION = "validation "  # what the names of metrics.csv begin with here


class Segment(NamedTuple):
    """An unbroken part of a log; each scalar has the iterations of just those lines that hold it."""

    iterations: list[int]
    scalars: dict[str, list[tuple[int, float]]]  # name -> (iteration, value)


def read_log(path: str) -> list[Segment]:
    """What there is to draw of a log; a new segment begins where the iteration does not grow. Raises UserError."""
    segments: list[Segment] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                values = parse_line(line)
                if values is None:
                    continue
                iteration = values["iteration"]
                if not segments or iteration <= segments[-1].iterations[-1]:
                    segments.append(Segment([], {}))
                segments[-1].iterations.append(iteration)
                for name, value in values.items():
                    if name not in NOT_DRAWN:
                        segments[-1].scalars.setdefault(name, []).append((iteration, value))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not segments:
        raise UserError(f"{path}: holds no line of a training log (Iter: [1/100] l1: ...)")
    if not any(segment.scalars for segment in segments):
        raise UserError(f"{path}: its lines hold no value but the speed, so that there is nothing to draw")
    return segments


def read_metrics(path: str) -> list[Segment]:
    """The validation scores of a run's metrics.csv; none where there is no such file. Raises UserError."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
        segment = Segment([int(row["iteration"]) for row in rows], {})
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = getattr(error, "strerror", None) or "is not a table of numbers with a column iteration"
        raise UserError(f"{path}: cannot be read: {reason}") from None
    for row in rows:
        for name, value in row.items():
            if name not in NOT_DRAWN:
                segment.scalars.setdefault(VALIDATION + name, []).append((int(row["iteration"]), value))
    return [segment] if rows else []


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of up to `width` values before each and itself, those that are not finite left out."""
    finite = np.isfinite(values)
    window = np.ones(min(width, len(values)))
    # Every sum is of its own values: a difference of running sums would lose the small ones behind a large one.
    sums, counts = (np.convolve(kept, window)[: len(values)] for kept in (np.where(finite, values, 0.0), finite))
    return np.where(finite, sums / np.maximum(counts, 1), np.nan)


def draw(logs: dict[str, list[Segment]], output: str, width: int) -> None:
    """An image with one panel a scalar, and a colour a log. Raises UserError."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("matplotlib is not installed: pip install matplotlib") from None
    matplotlib.use("Agg")  # into files, without a window
    from matplotlib import pyplot

    names = dict.fromkeys(name for segments in logs.values() for segment in segments for name in segment.scalars)
    names = sorted(names, key=order)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for name, axis in zip(names, axes.flat):
        lost = 0
        for number, (path, segments) in enumerate(logs.items()):
            for segment in segments:
                if name not in segment.scalars:
                    continue
                x, y = np.array(segment.scalars[name], np.float64).T
                lost += np.count_nonzero(~np.isfinite(y))
                color = f"C{number}"
                label = path if segment is segments[0] else None
                if name.startswith(VALIDATION):  # few and already means over images
                    axis.plot(x, y, ".-", color=color, linewidth=1.4)
                else:
                    axis.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
                    axis.plot(x, smoothed(y, width), color=color, linewidth=1.4, label=label)
        axis.set_title(name + (f"\n{lost} values are not finite" if lost else ""), fontsize=10)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("iteration")
    if len(logs) > 1:
        axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    try:
        figure.savefig(output, dpi=110)
    except (OSError, ValueError) as error:  # ValueError: an unknown file format
        raise UserError(f"{output}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        pyplot.close(figure)


def order(name: str) -> int:
    """Where a scalar's panel goes: losses, critics, the rest."""
    known = ["l1", "ae", "g", "wgan_g", "wgan_d", "wgan_gp", "d", "critic_gap", "grad_norm_g", "grad_norm_d"]
    return known.index(name) if name in known else len(known)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Draws the curves of training logs.")
    parser.add_argument("logs", nargs="+", help="train.txt of a run, or a log of the earlier ports")
    parser.add_argument("--output", metavar="FILE", help="default: the first log's name with .png, beside it")
    parser.add_argument("--smooth", type=int, default=20, metavar="LINES", help="lines in a mean (%(default)s)")
    args = parser.parse_args(argv)
    with friendly_errors():
        if args.smooth < 1:
            raise UserError(f"--smooth must be at least 1, not {args.smooth}")
        output = args.output or os.path.splitext(args.logs[0])[0] + ".png"
        logs = {os.path.relpath(path) if os.path.exists(path) else path: read_log(path) for path in args.logs}
        lines = sum(len(segment.iterations) for segments in logs.values() for segment in segments)
        folders = set()
        for path, segments in logs.items():
            folder = os.path.dirname(path)
            if folder not in folders:
                segments += read_metrics(os.path.join(folder, "metrics.csv"))
                folders.add(folder)
        draw(logs, output, args.smooth)
        print(f"{lines} lines drawn: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
