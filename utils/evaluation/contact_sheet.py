"""Many results on one sheet, each row with a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from utils.visualization import MIN_CELL, image_grid

LINE_HEIGHT = 16  # pixels
FONT, FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.38


def contact_sheet(
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
        [_caption(lines, next(iter(row.values())).shape), *row.values()] for row, lines in zip(rows, captions)
    ]
    height = -(-len(cells) // blocks)
    columns = [cells[start : start + height] for start in range(0, len(cells), height)]
    merged = [[cell for column in columns for row in column[i : i + 1] for cell in row] for i in range(height)]
    return image_grid(merged, ["", *rows[0]] * len(columns))


def _caption(lines: Sequence[str], shape: Sequence[int]) -> np.ndarray:
    """White, with text from the top; as large as image_grid will make the images, so that letters stay sharp."""
    factor = -(-MIN_CELL // shape[1])
    cell = np.full((shape[0] * factor, shape[1] * factor, 3), 255, np.uint8)
    for i, line in enumerate(lines):
        place = (2, (i + 1) * LINE_HEIGHT)
        text = line.encode("ascii", "replace").decode()
        cv2.putText(cell, text, place, FONT, FONT_SIZE, (0, 0, 0), 1, cv2.LINE_AA)
    return cell
