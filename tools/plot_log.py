"""Draws the curves of a training log: `python tools/plot_log.py checkpoints/.../train.txt [more.txt ...]`.

Reads train.txt of this project and the logs of the earlier ports, whose lines have the same form. A value that is not
finite leaves a gap and is counted below its name. Where a log goes back (a restart of the earlier ports, which kept
both courses), each course is a line of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.logger import parse_line  # noqa: E402
from utils.pyplot import load_pyplot  # noqa: E402

NOT_DRAWN = ("iteration", "total", "speed")


class Course(NamedTuple):
    """An unbroken part of a log; each scalar has the iterations of just those lines that hold it."""

    iterations: list[int]
    scalars: dict[str, list[tuple[int, float]]]  # name -> (iteration, value)


def read_courses(path: str) -> list[Course]:
    """What there is to draw of a log; a new course begins where the iteration does not grow. Raises UserError."""
    courses: list[Course] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                values = parse_line(line)
                if values is None:
                    continue
                iteration = values["iteration"]
                if not courses or iteration <= courses[-1].iterations[-1]:
                    courses.append(Course([], {}))
                courses[-1].iterations.append(iteration)
                for name, value in values.items():
                    if name not in NOT_DRAWN:
                        courses[-1].scalars.setdefault(name, []).append((iteration, value))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not courses:
        raise UserError(f"{path}: holds no line of a training log (Iter: [1/100] l1: ...)")
    if not any(course.scalars for course in courses):
        raise UserError(f"{path}: its lines hold no value but the speed, so that there is nothing to draw")
    return courses


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of up to `width` values before each and itself, those that are not finite left out."""
    finite = np.isfinite(values)
    window = np.ones(min(width, len(values)))
    # Every sum is of its own values: a difference of running sums would lose the small ones behind a large one.
    sums, counts = (np.convolve(kept, window)[: len(values)] for kept in (np.where(finite, values, 0.0), finite))
    return np.where(finite, sums / np.maximum(counts, 1), np.nan)


def draw(logs: dict[str, list[Course]], output: str, width: int) -> None:
    """A picture with one panel a scalar, and a colour a log."""
    pyplot = load_pyplot()
    names = dict.fromkeys(name for courses in logs.values() for course in courses for name in course.scalars)
    names = sorted(names, key=order)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for name, axis in zip(names, axes.flat):
        lost = 0
        for number, (path, courses) in enumerate(logs.items()):
            for course in courses:
                if name not in course.scalars:
                    continue
                x, y = np.array(course.scalars[name], np.float64).T
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
        print(f"{sum(len(c.iterations) for courses in logs.values() for c in courses)} lines drawn: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
