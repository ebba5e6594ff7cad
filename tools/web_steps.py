"""What the page of tools/web_demo.py does, step by step; knows nothing of browsers.

A picture is opened, its hole is gathered from strokes, boxes and a mask, and it is completed as `test.py --image`
does. Errors are UserError; `in_page_words` makes lines for the page of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage

from data.image_io import Image, fit_to_format, read_image
from data.mask_io import THRESHOLD, read_mask
from tester import Tester
from utils.attention_view import attention_view
from utils.cli import UserError, one_line
from utils.inpaint import fill_hole, image_warnings, inpaint_rgb
from utils.paths import portable_path

MEGABYTE = 2**20
MAX_PIXELS = 2**24  # of a picture or a mask: 4096 x 4096
VIEW_SIDE = 1280  # what is shown for painting has no more pixels a side
SAMPLES = ("coffee.png", "chelsea.png", "rocket.jpg", "astronaut.png", "gravel.png")  # in scikit-image's package
HOLE_COLOR = (230, 40, 40)
LABELS = {  # the command line's options -> the page's labels
    "--max-side": "working size",
    "--invert-mask": "“black is the hole”",
    "--resize-mask": "“stretch the mask”",
}

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the picture, all within the box


@dataclass(frozen=True)
class Opened:
    """A picture that can be completed."""

    path: str
    size: tuple[int, int]  # height and width
    view: np.ndarray  # uint8 [h, w, 3], at most VIEW_SIDE a side

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


@dataclass(frozen=True)
class Completed:
    """A result: what is saved, and what is shown."""

    picture: Image
    before: np.ndarray  # uint8 [h, w, 3] like the other two, at most VIEW_SIDE a side
    after: np.ndarray
    coarse: np.ndarray
    attention: np.ndarray | None  # colours with their legend; None if the model has no attention
    remarks: list[str]


def sample_paths() -> list[str]:
    """Photographs that are installed with scikit-image; its loading functions might fetch what is missing."""
    folder = Path(skimage.__file__).parent / "data"
    return [str(folder / name) for name in SAMPLES if (folder / name).is_file()]


def checkpoint_line(tester: Tester) -> str:
    model = tester.model
    parts = [f"iteration {model.iteration}", f"{model.channels} channels"]
    if model.without_attention:
        parts.append(f"no attention, {model.without_attention}")
    for text, size in (("trained at", model.image_size), ("with holes in boxes of", model.box_size)):
        if size:
            parts.append(f"{text} {size[1]}x{size[0]} pixels")
    megabytes = os.path.getsize(tester.source) / MEGABYTE
    return f"{portable_path(tester.source)} ({megabytes:.1f} MB): {', '.join(parts)}"


def check_size(path: str, max_megabytes: float) -> None:
    """UserError for a file that is gone, or larger than `max_megabytes`."""
    try:
        megabytes = os.path.getsize(path) / MEGABYTE
    except OSError:
        raise UserError(f"{path}: is no longer on the server; upload it again") from None
    if megabytes > max_megabytes:
        raise UserError(f"{path}: has {megabytes:.1f} megabytes, above the limit of {max_megabytes:g}")


def open_picture(path: str, max_megabytes: float) -> Opened:
    """Judges a picture before anybody paints on it. Raises UserError."""
    check_size(path, max_megabytes)
    rgb = read_image(path, MAX_PIXELS).rgb
    return Opened(path, rgb.shape[:2], reduced(rgb))


def reduced(rgb: np.ndarray) -> np.ndarray:
    """At most VIEW_SIDE pixels a side, by area."""
    height, width = rgb.shape[:2]
    scale = VIEW_SIDE / max(height, width)
    if scale >= 1:
        return rgb
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def painted(layers: Iterable[np.ndarray]) -> np.ndarray | None:
    """The brush's layers, uint8 [h, w, 4] of one size -> bool [h, w], True where paint covers; None: no paint."""
    alphas = [layer[:, :, 3] > THRESHOLD for layer in layers]
    strokes = np.logical_or.reduce(alphas) if alphas else np.zeros((1, 1), bool)
    return strokes if strokes.any() else None


def box_between(opened: Opened, first: Sequence[int], second: Sequence[int]) -> Box:
    """The box of two opposite corners, (x, y) each in pixels of the view."""
    scale = [full / shown for full, shown in zip(opened.size, opened.view.shape)][::-1]
    low = [int(min(pair) * by) for pair, by in zip(zip(first, second), scale)]
    high = [int((max(pair) + 1) * by - 1e-6) for pair, by in zip(zip(first, second), scale)]
    left, top = (max(place, 0) for place in low)
    right, bottom = (min(place, side - 1) for place, side in zip(high, opened.size[::-1]))
    return left, top, right, bottom


def draw_boxes(opened: Opened, boxes: Iterable[Box], corner: Sequence[int] | None = None) -> np.ndarray:
    """The view with boxes filled, and with a cross where a first corner (x, y) waits for the second."""
    picture = opened.view.copy()
    scale = [shown / full for full, shown in zip(opened.size, opened.view.shape)][::-1]
    for left, top, right, bottom in boxes:
        first = round(left * scale[0]), round(top * scale[1])
        second = round((right + 1) * scale[0]) - 1, round((bottom + 1) * scale[1]) - 1
        cv2.rectangle(picture, first, second, HOLE_COLOR, cv2.FILLED)
    if corner is not None:
        cv2.drawMarker(picture, tuple(corner), HOLE_COLOR, cv2.MARKER_CROSS, max(max(picture.shape) // 30, 8), 2)
    return picture


def load_mask(opened: Opened, path: str, max_megabytes: float, invert: bool, stretch: bool) -> np.ndarray:
    """A mask's file -> bool [H, W] at the picture's size. Raises UserError."""
    check_size(path, max_megabytes)
    image = read_image(opened.path, MAX_PIXELS)
    try:
        return read_mask(path, None, invert, stretch=stretch, image=image).astype(bool)
    except UserError as error:
        raise UserError(f"{opened.name}: its mask {error}") from None


def find_hole(
    opened: Opened, layers: Iterable[np.ndarray], boxes: Iterable[Box], mask: np.ndarray | None
) -> np.ndarray:
    """All that is painted, boxed and masked together, bool [H, W]; UserError if it is nothing, or everything."""
    hole = np.zeros(opened.size, bool) if mask is None else mask.copy()
    strokes = painted(layers)
    if strokes is not None:
        rows, columns = (np.arange(new) * old // new for new, old in zip(opened.size, strokes.shape))
        hole |= strokes[rows][:, columns]
    for left, top, right, bottom in boxes:
        hole[top : bottom + 1, left : right + 1] = True
    if not hole.any():
        raise UserError("there is no hole yet: paint over what is to be replaced, draw a box, or upload a mask")
    if hole.all():
        raise UserError("the hole covers the whole picture, which leaves nothing to complete it from")
    return hole


def complete(tester: Tester, opened: Opened, hole: np.ndarray, max_side: int, max_megabytes: float) -> Completed:
    """Fills `hole`, bool [H, W], working at no more than `max_side` pixels a side.

    The picture holds what `test.py --image` with `--max-side` writes. Raises UserError,
    CheckpointError.
    """
    check_size(opened.path, max_megabytes)
    picture = fit_to_format(read_image(opened.path, MAX_PIXELS), "result.png")
    rgb, remarks = picture.rgb, list(image_warnings(picture, hole))
    done = inpaint_rgb(tester, rgb, hole, max_side=max_side, warn=remarks.append)
    shown = done.windows[0].offsets is not None
    attention = attention_view(done.windows, hole.shape, hole) if shown else None
    views = map(reduced, (rgb, done.refined, done.coarse))
    return Completed(fill_hole(picture, done.refined, hole), *views, attention, remarks)


def in_page_words(message: object, *paths: str | None) -> str:
    """One line for people who see a page and not a command line: labels for options, names for paths."""
    text = one_line(message)
    for path in filter(None, paths):
        text = text.replace(one_line(path), one_line(os.path.basename(path)))
    for option, label in LABELS.items():
        text = text.replace(option, label)
    return text
