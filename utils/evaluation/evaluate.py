"""One sample of an evaluation inpainted by every method, measured, saved and shown.

A sample is a `data.eval_set.Sample`, a tester a `tester.Tester`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import cv2
import numpy as np

from data.eval_set import Sample
from utils.evaluation.baselines import BASELINES
from utils.evaluation.report import Score, best_baseline
from utils.metrics import image_metrics
from utils.visualization import MIN_CELL, image_grid, write_image

SAVED = ("images", "originals", "masks")  # folders of saved images
LINE_HEIGHT = 16  # of captions, pixels
FONT, FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.38


def inpaint_all(tester: Any, sample: Sample, baselines: bool, pool: Executor) -> dict[str, np.ndarray]:
    """The results by method, uint8 [H, W, 3]; the model comes last.

    With baselines: first the classical methods, which run in the pool beside the model, and its coarse stage.
    """
    classical = BASELINES if baselines else {}
    filled = pool.map(lambda fill: fill(sample.target, sample.mask), classical.values())
    coarse, refined, _ = tester.inpaint_stages(sample.target[None], sample.mask[None])
    own = {"coarse": coarse[0]} if baselines and not tester.model.coarse_only else {}
    return {**dict(zip(classical, filled)), **own, "model": refined[0]}


def measure(sample: Sample, method: str, result: np.ndarray) -> Score:
    metrics = image_metrics(result, sample.target, sample.mask)
    where = sample.image_index, sample.name, sample.hole_index, sample.hole, float(sample.mask.mean())
    return Score(*where, method, metrics)


def save_images(folder: str, sample: Sample, result: np.ndarray, several: bool) -> None:
    """The result, the original and the mask (white is the hole), each as a PNG; several: holes of an image."""
    stem = os.path.splitext(os.path.basename(sample.name))[0][:50]  # file systems allow 255 bytes in all
    number = f"_{sample.hole_index}" if several else ""
    name = f"{sample.image_index:06d}_{stem}{number}.png"
    mask = np.repeat(sample.mask[..., None] * np.uint8(255), 3, axis=2)
    for subfolder, image in zip(SAVED, (result, sample.target, mask)):
        write_image(os.path.join(folder, subfolder, name), image)


def results_sheet(
    tester: Any,
    shown: Sequence[tuple[Sample, Mapping[str, np.ndarray]]],
    scores: Sequence[Score],
    kinds: Sequence[str] = (),
    blocks: int = 1,
) -> np.ndarray:
    """A row a sample: what the model sees, the best baseline's result, the model's, the original.

    shown: samples with their results by method. scores: of the whole evaluation. kinds: a word beside each row
    instead of the image's place in the list. blocks: see `draw_sheet`. Returns uint8 RGB.
    """
    psnrs = {(row.image_index, row.hole_index, row.method): row.metrics["hole_psnr"] for row in scores}
    methods = list(filter(None, (best_baseline(scores), "model")))
    rows, captions = [], []
    for place, (sample, results) in enumerate(shown):
        seen = tester.masked_input(sample.target[None], sample.mask[None])[0]
        rows.append({"input": seen, **{name: results[name] for name in methods}, "original": sample.target})
        index = sample.image_index, sample.hole_index
        lines = [kinds[place] if kinds else f"{sample.image_index}", os.path.basename(sample.name)[:18]]
        captions.append([*lines, "PSNR in the hole", *(f"{psnrs[(*index, name)]:.2f} {name}" for name in methods)])
    return draw_sheet(rows, captions, blocks)


def draw_sheet(
    rows: Sequence[Mapping[str, np.ndarray]], captions: Sequence[Sequence[str]], blocks: int = 1
) -> np.ndarray:
    """Rows of images with their captions at the left.

    Args:
        rows: heading -> uint8 [H, W, 3]; the same headings and sizes in every row.
        captions: lines of text for every row; what does not fit its cell is cut off.
        blocks: in how many columns of rows the sheet is laid out, top to bottom.

    Returns:
        uint8 RGB. Images narrower than 128 pixels are enlarged by a whole factor.
    """
    if not rows or len(rows) != len(captions):
        raise ValueError(f"{len(rows)} rows and {len(captions)} captions make no sheet")
    cells = [
        [_caption_cell(lines, next(iter(row.values())).shape), *row.values()] for row, lines in zip(rows, captions)
    ]
    height = -(-len(cells) // blocks)
    columns = [cells[start : start + height] for start in range(0, len(cells), height)]
    merged = [[cell for column in columns for row in column[i : i + 1] for cell in row] for i in range(height)]
    return image_grid(merged, ["", *rows[0]] * len(columns))


def _caption_cell(lines: Sequence[str], shape: Sequence[int]) -> np.ndarray:
    """White, with text from the top; as large as image_grid will make the images, so that letters stay sharp."""
    factor = -(-MIN_CELL // shape[1])
    cell = np.full((shape[0] * factor, shape[1] * factor, 3), 255, np.uint8)
    for i, line in enumerate(lines):
        place = (2, (i + 1) * LINE_HEIGHT)
        text = line.encode("ascii", "replace").decode()
        cv2.putText(cell, text, place, FONT, FONT_SIZE, (0, 0, 0), 1, cv2.LINE_AA)
    return cell
