"""Images for people: attention offsets as colours, grids, and the writing of image files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from utils.cli import UserError

# (steps, channel that stays at 255, channel that moves, +1 rising | -1 falling):
# red -> yellow -> green -> cyan -> blue -> magenta -> red
WHEEL_SECTORS = ((15, 0, 1, 1), (6, 1, 0, -1), (4, 1, 2, 1), (11, 2, 1, -1), (13, 2, 0, 1), (6, 0, 2, -1))
GAP = 4  # white pixels between the cells of a grid
MIN_CELL = 128  # narrower cells are enlarged, so that a heading can be read
HEADING = 20  # height of the line of headings, pixels




def color_wheel() -> np.ndarray:
    """The 55 hues of the Middlebury optical-flow wheel (Baker et al. 2007): float64 [55, 3] RGB in 0..255."""
    sectors = []
    for steps, full, moving, direction in WHEEL_SECTORS:
        ramp = np.floor(255 * np.arange(steps) / steps)
        colors = np.zeros((steps, 3))
        colors[:, full] = 255
        colors[:, moving] = ramp if direction > 0 else 255 - ramp
        sectors.append(colors)
    return np.concatenate(sectors)


def offsets_to_color(offsets: np.ndarray, max_radius: float | None = None) -> np.ndarray:
    """Attention offsets as colours: hue is direction, saturation is length; no movement is white.

    As TF1's `flow_to_image`, with the row offset in the place of the horizontal flow and the column offset in
    the place of the vertical one. TF1 scales a sample by the longest offset of its batch so far; here it is
    its own longest, so that an image does not depend on its neighbours, unless `max_radius` is given.

    Args:
        offsets: [2, h, w] integers, (row, column) of the best patch minus the own position, in patches.
        max_radius: length shown at full saturation, in patches (None: the longest of this sample);
            longer offsets are darkened.

    Returns:
        uint8 [h, w, 3] RGB.
    """
    if offsets.ndim != 3 or offsets.shape[0] != 2:
        raise ValueError(f"offsets must be [2, h, w], got {list(offsets.shape)}")
    rows, columns = offsets.astype(np.float64)
    longest = np.hypot(rows, columns).max() if max_radius is None else max_radius
    scale = longest + np.finfo(np.float64).eps  # eps: where nothing moves, 0 / eps = 0 and not NaN
    rows, columns = rows / scale, columns / scale
    radius = np.sqrt(rows**2 + columns**2)[..., None]  # [h, w, 1]

    wheel = color_wheel()
    # the angle in turns, [-1, 1], becomes a place on the wheel, [0, 54]; hue 54 is followed by hue 0
    place = (np.arctan2(-columns, -rows) / np.pi + 1) / 2 * (len(wheel) - 1)
    first = np.floor(place).astype(np.int64)
    low, high = wheel[first], wheel[(first + 1) % len(wheel)]  # [h, w, 3]
    hue = low + (place - first)[..., None] * (high - low)
    return np.floor(np.where(radius <= 1, 255 - radius * (255 - hue), 0.75 * hue)).astype(np.uint8)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] to uint8 of the same shape: clipped, (x + 1) * 127.5, rounded to the nearest level.

    TF1 truncates instead. Rounding is chosen because it gives every level k of x = k / 127.5 - 1 back exactly
    in float32, where truncation loses a level to the last bit and darkens results by half a level on average.

    Raises:
        ValueError: a value is NaN or infinite (a file would show it as black).
    """
    if not np.isfinite(image).all():
        raise ValueError("the image holds values that are not finite")
    return np.rint((np.clip(image, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def image_grid(rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str] = ()) -> np.ndarray:
    """Images in rows and columns on white, with optional column headings.

    Every cell has the size of the largest image; smaller ones (attention colours) are enlarged to it by
    nearest neighbour. Cells narrower than 128 pixels are enlarged by a whole factor.

    Args:
        rows: rows of uint8 [h, w, 3] RGB images; rows may be of different length.
        labels: one short ASCII heading a column, or none.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    images = [image for row in rows for image in row]
    if not images:
        raise ValueError("a grid needs at least one image")
    for image in images:
        _check_rgb(image)
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    factor = -(-MIN_CELL // width)
    height, width = height * factor, width * factor
    top = HEADING if labels else 0
    columns = max(len(row) for row in rows)

    grid = np.full((top + len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = top + i * (height + GAP), j * (width + GAP)
            cell = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
            grid[y : y + height, x : x + width] = cell
    for j, label in enumerate(labels):
        place = (j * (width + GAP) + 2, HEADING - 6)
        cv2.putText(grid, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return grid


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes an RGB image (uint8 [H, W, 3]) in the format of the file name's suffix; PNG keeps every level.

    Raises:
        UserError: unknown suffix, missing folder, no permission, full disk.
    """
    _check_rgb(image)
    path = os.fspath(path)
    try:
        encoded, data = cv2.imencode(os.path.splitext(path)[1], cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:  # an unknown suffix
        encoded = False
    if not encoded:
        raise UserError(f"cannot write {path}: give it a suffix that names an image format, e.g. .png")
    write_bytes(path, data.tobytes())


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file whole. Raises UserError: missing folder, no permission, full disk."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _check_rgb(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
