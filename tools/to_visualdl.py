"""Shows a run in VisualDL: `python tools/to_visualdl.py checkpoints/<dataset>/<run> [--output FOLDER]`, then

    visualdl --logdir FOLDER

Writes the scalars of the run's train.txt and its preview pictures. The text log stays the record of a run; this can
be made from it at any time. Needs `pip install visualdl`, which brings some forty packages: no requirement here.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402

from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.logger import parse_line  # noqa: E402


def read_scalars(path: str) -> list[dict[str, float]]:
    """The lines of a training log, by name."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = [values for values in map(parse_line, file) if values]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{path}: holds no line of a training log (Iter: [1/100] l1: ...)")
    return found


def write_board(writer, lines: list[dict[str, float]], previews: dict[int, str]) -> None:
    """Every finite scalar and every preview, at its iteration; writer: a visualdl.LogWriter."""
    for values in lines:
        for name, value in values.items():
            if name not in ("iteration", "total") and math.isfinite(value):
                writer.add_scalar(tag=name, value=value, step=values["iteration"])
    for iteration, path in sorted(previews.items()):
        image = cv2.imread(path)
        if image is not None:
            writer.add_image(tag="preview", img=image[..., ::-1], step=iteration)


def find_previews(folder: str) -> dict[int, str]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [re.fullmatch(r"preview_(\d+)\.png", name) for name in names]
    return {int(match[1]): os.path.join(folder, match[0]) for match in matches if match}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Show a training run in VisualDL.")
    parser.add_argument("run", help="the folder of a run, with its train.txt")
    parser.add_argument("--output", help="where VisualDL's files go (default: visualdl/ in the run's folder)")
    args = parser.parse_args(argv)
    with friendly_errors():
        lines = read_scalars(os.path.join(args.run, "train.txt"))
        previews = find_previews(os.path.join(args.run, "previews"))
        try:
            from visualdl import LogWriter
        except ImportError:
            raise UserError("visualdl is not installed: pip install visualdl") from None
        output = args.output or os.path.join(args.run, "visualdl")
        with LogWriter(logdir=output) as writer:
            write_board(writer, lines, previews)
        print(f"{len(lines)} lines and {len(previews)} previews: visualdl --logdir {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
