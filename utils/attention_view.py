"""What the attention does, as images for people: where every place copied from, and what one place copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.cli import UserError
from utils.visualization import offsets_to_color

CELL = 8  # pixels a side that the attention moves as one
RADIUS = 56  # of the legend's wheel, pixels
PANEL = 200  # width and least height of the legend
LEAST_SIDE = 256  # smaller images are shown enlarged by a whole factor
DIMMED = 0.35  # brightness of an image under a map
HEAD = 24  # height of a line of text
BLACK, MARK = (0, 0, 0), (0, 255, 255)


class Window(NamedTuple):
    """A part of an image that a network saw, and what it made of it."""

    box: tuple[int, int, int, int]  # top, left, bottom, right in the image, the last two excluded
    size: tuple[int, int]  # height and width that it was worked at
    offsets: np.ndarray | None  # int64 [2, h/8, w/8] of the attention; None without one
    seen: tuple[np.ndarray, np.ndarray] | None = None  # the padded image [1, h', w', 3] and mask [1, h', w']
    refined: np.ndarray | None = None  # uint8 [h, w, 3], at `size`


def attention_view(
    windows: Sequence[Window], size: tuple[int, int], hole: np.ndarray | None = None, cell: int = CELL
) -> np.ndarray:
    """Offsets of all windows as colours at the image's (height, width), with the colour wheel as legend next to it.

    hole: bool [height, width] to be outlined. cell: pixels a side of an offset, at its window's size. The rim of the
    wheel stands for the longest offset; what no window covers is white. Returns uint8 [H, W, 3] RGB.
    """
    colors = np.full((*size, 3), 255, np.uint8)
    moved = []  # in pixels of the image
    for (top, left, bottom, right), (height, width), offsets, *_ in windows:
        scale = np.array([(bottom - top) / height, (right - left) / width])
        moved.append(offsets * (cell * scale)[:, None, None])
    longest = max((float(np.hypot(*offsets).max()) for offsets in moved), default=0.0)
    for window, offsets in zip(windows, moved):
        top, left, bottom, right = window.box
        area = _magnified(offsets_to_color(offsets, longest), cell, window.size)
        shape = (right - left, bottom - top)
        colors[top:bottom, left:right] = cv2.resize(area, shape, interpolation=cv2.INTER_NEAREST)
    factor = _factor(size)
    colors = np.ascontiguousarray(colors.repeat(factor, 0).repeat(factor, 1))
    if hole is not None:
        shape = np.ascontiguousarray(hole.repeat(factor, 0).repeat(factor, 1), np.uint8)
        outlines, _ = cv2.findContours(shape, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(colors, outlines, -1, BLACK, 1)
    legend = legend_image(longest)
    height = max(len(colors), len(legend))
    page = np.full((height, colors.shape[1] + PANEL, 3), 255, np.uint8)
    page[: len(colors), : colors.shape[1]] = colors
    page[: len(legend), colors.shape[1] :] = legend
    return page


def legend_image(longest: float) -> np.ndarray:
    """The wheel: the colour at a place of the disc means "copied from that direction"; uint8 [200, 200, 3].

    longest: what the rim stands for, in pixels of the image.
    """
    steps = np.arange(-RADIUS, RADIUS + 1)
    wheel = np.stack(np.meshgrid(steps, steps, indexing="ij"))  # (row, column) offsets
    colors = offsets_to_color(wheel, max_radius=RADIUS)
    colors[np.hypot(*wheel) > RADIUS] = 255
    panel = np.full((PANEL, PANEL, 3), 255, np.uint8)
    top, left = (PANEL - len(steps)) // 2 - 10, (PANEL - len(steps)) // 2
    panel[top : top + len(steps), left : left + len(steps)] = colors
    cv2.circle(panel, (left + RADIUS, top + RADIUS), RADIUS, BLACK, 1, cv2.LINE_AA)
    for text, x, y in (
        ("copied from", 54, 14),
        ("up", left + RADIUS - 8, top - 4),
        ("down", left + RADIUS - 18, top + len(steps) + 14),
        ("left", left - 28, top + RADIUS + 4),
        ("right", left + len(steps) + 3, top + RADIUS + 4),
        (f"rim: {longest:.0f} pixels away", 26, PANEL - 8),
    ):
        cv2.putText(panel, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, BLACK, 1, cv2.LINE_AA)
    return panel


def attention_at(tester: Any, windows: Sequence[Window], place: tuple[int, int]) -> np.ndarray:
    """What the place (x, y) of the image copied, as `weights_view` shows it. UserError: it is in no window."""
    x, y = place
    for (top, left, bottom, right), (height, width), _, seen, refined in reversed(windows):
        if top <= y < bottom and left <= x < right:
            row = int((y - top) * (height / (bottom - top))) // CELL
            column = int((x - left) * (width / (right - left))) // CELL
            weights = tester.attention_at(*seen, row, column)[0]
            return weights_view(refined, weights, CELL, (row, column))
    raise UserError(f"--attention-at {x},{y} lies in no window around a hole; --window none shows the whole image")


def weights_view(image: np.ndarray, weights: np.ndarray, cell: int, position: tuple[int, int]) -> np.ndarray:
    """The dimmed image with the weights of one position over it, bright where most was copied from.

    image: uint8 [H, W, 3]; weights: [h, w] of `cell` pixels each, 0 to 1; position: (row, column) of the cell, framed
    in cyan. Brightness is linear from 0 to the largest weight, which stands above the image.
    """
    height, width = image.shape[:2]
    most = float(weights.max())
    levels = np.rint(255 * weights / max(most, 1e-30)).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = _magnified(levels[:, :, None], cell, (height, width)) / 255  # how much of the map covers the image
    heat = _magnified(heat, cell, (height, width))
    shown = np.rint(image * DIMMED * (1 - share) + heat * share).astype(np.uint8)
    factor = _factor((height, width))
    shown = np.ascontiguousarray(shown.repeat(factor, 0).repeat(factor, 1))
    top, left = (place * cell * factor for place in position)
    far = cell * factor - 1
    cv2.rectangle(shown, (left, top), (left + far, top + far), MARK, 1)
    page = np.full((HEAD + len(shown), max(shown.shape[1], PANEL), 3), 255, np.uint8)
    page[HEAD:, : shown.shape[1]] = shown
    text = f"brightest: weight {most:.3f}"
    cv2.putText(page, text, (4, HEAD - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, BLACK, 1, cv2.LINE_AA)
    return page


def _magnified(cells: np.ndarray, cell: int, size: tuple[int, int]) -> np.ndarray:
    """[h, w, C] -> [height, width, C]: every cell a square, cut at the image's border."""
    return np.ascontiguousarray(cells.repeat(cell, 0).repeat(cell, 1)[: size[0], : size[1]])


def _factor(size: tuple[int, int]) -> int:
    return -(-LEAST_SIDE // max(size))
