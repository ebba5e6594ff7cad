"""Draws the curves of a training log: `python tools/plot_log.py checkpoints/.../train.txt [more.txt ...]`.

Reads train.txt of this project and the logs of the earlier ports, whose lines have the same form. A value that is not
finite leaves a gap and is counted below its name. Where a log goes back (a restart of the earlier ports, which kept
both courses), each course is a line of its own.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.logger import parse_line  # noqa: E402

Course = dict[str, list[float]]


def read_courses(path: str) -> list[Course]:
    """The scalars of a log by name, with "iteration"; a new course begins where the iteration does not grow."""
    courses: list[Course] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                values = parse_line(line)
                if values is None:
                    continue
                if not courses or values["iteration"] <= courses[-1]["iteration"][-1]:
                    courses.append({"iteration": []})
                course = courses[-1]
                before = len(course["iteration"])
                for name in [*course, *(name for name in values if name not in course)]:
                    course.setdefault(name, [math.nan] * before).append(values.get(name, math.nan))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not courses:
        raise UserError(f"{path}: holds no line of a training log (Iter: [1/100] l1: ...)")
    return courses


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of up to `width` values before each and itself, those that are not finite left out."""
    finite = np.isfinite(values)
    sums = np.cumsum(np.where(finite, values, 0.0), dtype=np.float64)
    counts = np.cumsum(finite)
    sums[width:], counts[width:] = sums[width:] - sums[:-width], counts[width:] - counts[:-width]
    return np.where(finite, sums / np.maximum(counts, 1), np.nan)


def draw(logs: dict[str, list[Course]], output: str, width: int) -> None:
    """A picture with one panel a scalar, and a colour a log."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("matplotlib is not installed: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    skipped = ("iteration", "total", "speed")
    names = list(dict.fromkeys(name for courses in logs.values() for course in courses for name in course))
    names = sorted((name for name in names if name not in skipped), key=order)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for name, axis in zip(names, axes.flat):
        lost = 0
        for number, (path, courses) in enumerate(logs.items()):
            for course in courses:
                x, y = (np.array(course.get(key, []), np.float64) for key in ("iteration", name))
                if not y.size:
                    continue
                lost += np.count_nonzero(~np.isfinite(y))
                color = f"C{number}"
                axis.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
                label = path if course is courses[0] else None
                axis.plot(x, smoothed(y, width), color=color, linewidth=1.4, label=label)
        axis.set_title(name + (f"\n{lost} values are not finite" if lost else ""), fontsize=10)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("iteration")
    if len(logs) > 1:
        axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    try:
        figure.savefig(output, dpi=110)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture that it does not know
        raise UserError(f"{output}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        pyplot.close(figure)


def order(name: str) -> int:
    """Where a scalar's panel goes: losses, critics, the rest."""
    known = ["l1", "ae", "g", "wgan_g", "wgan_d", "wgan_gp", "d", "critic_gap", "grad_norm_g", "grad_norm_d"]
    return known.index(name) if name in known else len(known)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Draw the curves of training logs.")
    parser.add_argument("logs", nargs="+", help="train.txt of a run, or a log of the earlier ports")
    parser.add_argument("--output", default="train.png", help="default: %(default)s")
    parser.add_argument("--smooth", type=int, default=20, metavar="LINES", help="lines in a mean (%(default)s)")
    args = parser.parse_args(argv)
    with friendly_errors():
        if args.smooth < 1:
            raise UserError(f"--smooth must be at least 1, not {args.smooth}")
        logs = {os.path.relpath(path) if os.path.exists(path) else path: read_courses(path) for path in args.logs}
        draw(logs, args.output, args.smooth)
        print(f"{sum(len(c['iteration']) for courses in logs.values() for c in courses)} lines drawn: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
