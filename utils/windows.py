"""Where the holes of a large image are inpainted, and images at the sizes that a generator takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from utils.cli import UserError

MULTIPLE = 8  # of which the generator's sides must be
LARGEST_WINDOW = 2  # sides, in those trained at; longer holes are filled piece by piece

Box = tuple[int, int, int, int]  # top, left, bottom, right, the last two excluded


def plan_windows(
    hole: np.ndarray, image_size: Sequence[int], box_size: Sequence[int]
) -> Iterator[tuple[Box, float, np.ndarray]]:
    """Where the holes of bool [H, W] are inpainted, widest first: box, scale and the pixels filled in the box, bool.

    A hole is scaled until it is no deeper than the boxes that were trained on, never enlarged, and has around it what
    was known around those, so that its share of the window is about as in training. Windows that overlap are one,
    where their scales are alike; what is longer than LARGEST_WINDOW is filled piece by piece, and a piece that is
    filled is known to the next one. Depth: the largest distance to a known pixel.
    """
    margin = max(whole - box for whole, box in zip(image_size, box_size)) / 2
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hole.astype(np.uint8), connectivity=8)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, labels[hole], depth[hole])
    scales = np.minimum(1.0, min(box_size) / 2 / np.maximum(deepest, 1e-6))
    groups = {}  # by scale, in powers of two: labels of the holes
    for label in range(1, count):
        groups.setdefault(int(np.ceil(np.log2(scales[label]))), []).append(label)
    for exponent in sorted(groups):
        labels_left = groups[exponent]
        scale = float(scales[labels_left].min())
        cores = [(y, x, y + h, x + w) for x, y, w, h, _ in stats[labels_left]]
        cores, members = _join(cores, [[label] for label in labels_left], hole.shape, scale, margin, image_size)
        for core, names in zip(cores, members):
            part = np.zeros(count, bool)
            part[names] = True
            scale = float(scales[names].min())
            side = max(int((LARGEST_WINDOW * max(image_size) - 2 * margin) / scale), 1)
            for top in range(core[0], core[2], side):
                for left in range(core[1], core[3], side):
                    found = part[labels[top : min(top + side, core[2]), left : min(left + side, core[3])]]
                    if not found.any():
                        continue
                    rows, columns = (np.flatnonzero(found.any(axis=axis))[[0, -1]] for axis in (1, 0))
                    found = found[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
                    first = top + int(rows[0]), left + int(columns[0])
                    box = _window((*first, *np.add(first, found.shape)), hole.shape, scale, margin, image_size)
                    piece = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
                    y, x = np.subtract(first, box[:2])
                    piece[y : y + found.shape[0], x : x + found.shape[1]] = found
                    yield box, scale, piece


def _window(core: Sequence[int], shape: Sequence[int], scale: float, margin: float, least: Sequence[int]) -> Box:
    """The box around `core` with the margin, at least as large as trained at, moved to lie inside of the image."""
    sides = []
    for start, stop, whole, smallest in zip(core[:2], core[2:], shape, least):
        length = min(max(int(np.ceil(stop - start + 2 * margin / scale)), int(np.ceil(smallest / scale))), whole)
        first = min(max((start + stop - length) // 2, 0), whole - length)
        sides.append((int(first), int(first + length)))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _join(cores, members, shape, scale: float, margin: float, least) -> tuple[list, list]:  # noqa: ANN001
    """Cores whose windows overlap become one, until none do."""
    while True:
        canvas = np.zeros(shape, np.uint8)
        windows = [_window(core, shape, scale, margin, least) for core in cores]
        for top, left, bottom, right in windows:
            canvas[top:bottom, left:right] = 1
        _, areas = cv2.connectedComponents(canvas, connectivity=4)
        joined = {}
        for core, names, (top, left, _, _) in zip(cores, members, windows):
            joined.setdefault(areas[top, left], []).append((core, names))
        if len(joined) == len(cores):
            return cores, members
        cores, members = [], []
        for group in joined.values():
            corners = np.array([core for core, _ in group])
            cores.append((*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0)))
            members.append([name for _, names in group for name in names])


def shrink(rgb: np.ndarray, hole: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Image and hole scaled by at most 1.

    The image is area averaged; every pixel that has any of the hole in it is hole, so nothing of what the hole hides
    leaks into what is known.
    """
    if scale >= 1:
        return rgb, hole
    size = tuple(max(round(side * scale), 1) for side in hole.shape[::-1])
    touched = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), touched


def pad_to_multiple(rgb: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both made divisible by 8 below and to the right, by their mirror image with the border pixel repeated.

    A mirror continues textures, where a repeated border pixel draws streaks for the attention to copy, and grey
    or zeros show an edge that the image does not have. The hole is mirrored as well, so no pixel of it ever
    counts as known; a side of one pixel can be mirrored, too. On two sides only, positions stay where they are.
    """
    rows, columns = (-side % MULTIPLE for side in hole.shape)
    return (
        np.pad(rgb, ((0, rows), (0, columns), (0, 0)), mode="symmetric"),
        np.pad(hole, ((0, rows), (0, columns)), mode="symmetric"),
    )


def enlarge(rgb: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """[h, w, 3] at the full (height, width), bicubic; as it is if it has that size."""
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC)


def grow_hole(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The hole, bool [H, W], and all that is at most `pixels` from it. UserError if that is everything."""
    hole = mask.astype(bool)
    if pixels:
        hole = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= pixels
        if hole.all():
            raise UserError(f"--grow {pixels} leaves nothing known of the image")
    return hole
