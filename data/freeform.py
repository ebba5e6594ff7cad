"""Free-form holes: brush strokes or boxes in three thicknesses, in the manner of LaMa's evaluation sets.

The sizes and numbers are those of Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier
Convolutions" (WACV 2022), its sets for 256x256; they grow and shrink with the shorter side of the image.
Differences: directions are continuous and not four, masks are drawn on the crop and not on the whole
photograph, and strokes are drawn in whole numbers, so that no library's way of drawing lines matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.masks import boxes_to_mask

BASE_SIDE = 256  # the shorter side that the sizes below are for
MAX_AREA = 0.5  # fraction of the image; a mask with a larger hole is drawn anew
MAX_BENDS = 5  # straight pieces of a stroke, at most
MAX_TURN = 4.0  # radians: a piece turns by up to this, in every second stroke to the other side

Range = tuple[int, int]  # lowest and highest, both included


class Style(NamedTuple):
    """One thickness; lengths in pixels of an image whose shorter side is 256."""

    strokes: Range  # how many
    length: Range  # of a straight piece
    width: Range  # of the brush, which is round
    box_share: float = 0.0  # fraction of the masks that are made of boxes instead
    boxes: Range = (1, 1)
    box_side: Range = (1, 1)
    box_margin: int = 0  # kept free of boxes at the image's border


STYLES = {
    "freeform-thin": Style((4, 50), (10, 49), (5, 14)),
    "freeform-medium": Style((4, 5), (10, 109), (5, 54), 3 / 13, (1, 5), (10, 50), 0),
    "freeform-thick": Style((1, 5), (10, 209), (5, 104), 3 / 13, (1, 3), (30, 150), 10),
}


def freeform_mask(name: str, image_size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """A mask of the style STYLES[name] -> uint8 [H, W], 1 = hole; never empty, at most half of the image.

    image_size: (height, width).
    """
    style = STYLES[name]
    while True:
        boxes = rng.random() < style.box_share
        mask = _boxes(style, image_size, rng) if boxes else _strokes(style, image_size, rng)
        if mask.mean() <= MAX_AREA:
            return mask


def _scaled(pixels: int, image_size: Sequence[int]) -> int:
    return max(1, round(pixels * min(image_size) / BASE_SIDE))


def _draw(bounds: Range, rng: np.random.Generator) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _boxes(style: Style, image_size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    margin = _scaled(style.box_margin, image_size) if style.box_margin else 0
    boxes = []
    for _ in range(_draw(style.boxes, rng)):
        sides = [_scaled(_draw(style.box_side, rng), image_size) for _ in image_size]
        starts = [_draw((margin, whole - margin - side), rng) for whole, side in zip(image_size, sides)]
        boxes.append((*starts, *sides))
    return boxes_to_mask(boxes, image_size).max(axis=(0, 1)).astype(np.uint8)


def _strokes(style: Style, image_size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(image_size, np.uint8)
    last = np.array(image_size) - 1
    for stroke in range(_draw(style.strokes, rng)):
        start = rng.integers(0, last + 1)  # row, column
        for _ in range(_draw((1, MAX_BENDS), rng)):
            angle = rng.random() * MAX_TURN * (-1 if stroke % 2 else 1)
            length = _scaled(_draw(style.length, rng), image_size)
            width = _scaled(_draw(style.width, rng), image_size)
            step = np.rint(length * np.array([np.cos(angle), np.sin(angle)])).astype(np.int64)
            end = np.clip(start + step, 0, last)
            _paint(mask, start, end, width)
            start = end
    return mask


def _paint(mask: np.ndarray, start: np.ndarray, end: np.ndarray, width: int) -> None:
    """Sets the pixels at most width / 2 away from the line from start to end, in whole numbers throughout."""
    reach = width // 2
    low = np.maximum(np.minimum(start, end) - reach, 0)
    high = np.minimum(np.maximum(start, end) + reach + 1, mask.shape)
    rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
    (down, across), (height, length) = start, end - start
    square = height**2 + length**2
    along = (rows - down) * height + (columns - across) * length  # 0 at the start, `square` at the end
    aside = (rows - down) * length - (columns - across) * height
    to_start = (rows - down) ** 2 + (columns - across) ** 2
    to_end = (rows - end[0]) ** 2 + (columns - end[1]) ** 2
    between = (along > 0) & (along < square) & (4 * aside**2 <= width**2 * square)
    near = (4 * to_start <= width**2) | (4 * to_end <= width**2)
    mask[low[0] : high[0], low[1] : high[1]][between | near] = 1
