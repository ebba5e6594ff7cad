"""Mask files: one set of rules, refusals and warnings for evaluation, training, people's own images and the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from data.image_io import Image, read_image, turn_upright
from utils.cli import UserError

THRESHOLD = 127  # levels above it are the hole
MOST = 0.5  # of the image; a larger hole is rather a mask the other way round
DARK, LIGHT = 32, 223  # levels up to the first are black for practical purposes, from the second on white
MANY_GRAYS = 0.3  # of the pixels between them: rather an image than a mask
SWAP = "black holes: --invert-mask, or mask_invert=true in an evaluation"


def ignore(text: str) -> None:
    """Where nobody wants warnings."""


def read_mask(
    path: str,
    size: Sequence[int] | None = None,
    invert: bool = False,
    warn: Callable[[str], None] = ignore,
    stretch: bool | None = None,
    image: Image | None = None,
) -> np.ndarray:
    """A mask's file -> uint8 [H, W], 1 = hole.

    White is the hole, or what is painted on a transparent layer; see `_levels`.

    Args:
        size: (height, width) that the result must have; None: the file's own, or `image`'s.
        invert: black is the hole, or what is transparent.
        warn: called with a line on whatever is unusual about the mask.
        stretch: what happens to a mask of another size. True: it is stretched (nearest neighbour), None: only where
            the proportions are the same, False: it is refused.
        image: the image that it belongs to.

    Raises UserError(path, reason): what `read_image` refuses, colours that could mean anything, another size, no
    hole, or nothing but hole.
    """
    mask = read_image(path)

    def say(text: str) -> None:
        warn(f"{path}: {text}")

    if image is not None:
        size = size or image.samples.shape[:2]
        gray = cv2.cvtColor(mask.rgb, cv2.COLOR_RGB2GRAY)
        if mask.alpha is None and _between(gray).mean() > MANY_GRAYS and looks_like_mask(image.rgb):
            raise UserError(path, "looks like an image, and the image like a mask: are the two swapped?")
    levels = _levels(path, mask, invert, say)
    hole = (levels > THRESHOLD) != invert
    if size is not None and hole.shape != tuple(size):
        hole = _resized(path, hole, tuple(size), stretch, image.orientation if image else 1, say)
    if not hole.any():
        found = f"{levels.min()} to {levels.max()}" if levels.min() < levels.max() else f"all {levels.min()}"
        raise UserError(path, f"has no hole: its levels are {found}, and above {THRESHOLD} is the hole; {SWAP}")
    if hole.all():
        raise UserError(path, f"covers the whole image, which leaves nothing known; {SWAP}")
    if hole.mean() > MOST:
        say(f"the hole is {hole.mean():.0%} of the image; {SWAP}")
    return hole.astype(np.uint8)


def looks_like_mask(rgb: np.ndarray) -> bool:
    """Whether an image has two sides, one black and one white, and hardly anything between."""
    low, high = rgb.min(axis=2), rgb.max(axis=2)
    dark, light = (high <= DARK).mean(), (low >= LIGHT).mean()
    return bool(min(dark, light) > 0 and dark + light > 0.97)


def _between(levels: np.ndarray) -> np.ndarray:
    return (levels > DARK) & (levels < LIGHT)


def _levels(path: str, mask: Image, invert: bool, say: Callable[[str], None]) -> np.ndarray:
    """A mask -> uint8 [H, W], white where it marks; what is found and how it is taken is said where it is not plain.

    The alpha is the mask where it has transparent parts, unless what is visible is itself a black and white mask.
    Black and one colour are taken like black and white, as are the levels 0 and any other one. More colours are
    refused, since each may be the hole.
    """
    rgb = mask.rgb
    alpha = mask.alpha if mask.alpha is None or mask.alpha.dtype == np.uint8 else (mask.alpha >> 8).astype(np.uint8)
    if alpha is not None and alpha.min() <= THRESHOLD and alpha.min() < alpha.max():
        clear = alpha <= alpha.max() // 2
        visible = rgb[~clear]
        both = looks_like_mask(rgb)
        by_color = looks_like_mask(visible[None])
        if not by_color:
            levels = alpha
            if both and ((cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) > THRESHOLD) != ~clear).mean() > 0.001:
                say("its colours and its alpha could both be the mask; the alpha is taken (visible = white)")
        else:
            say("its colours and its alpha could both be the mask; the colours are taken (transparent = known)")
            levels = np.where(clear, np.uint8(255 * invert), cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    else:
        levels = _color_levels(path, rgb, say)
    found = np.unique(levels)
    if len(found) == 1:
        return levels
    if len(found) == 2 and found[0] == 0 and found[1] <= THRESHOLD:
        say(f"its levels are 0 and {found[1]}; {found[1]} is taken as white")
        return np.where(levels > 0, np.uint8(255), np.uint8(0))
    between = _between(levels)
    if between.mean() > (0.005 if len(found) <= 8 else MANY_GRAYS):
        some = ", ".join(map(str, found)) if len(found) <= 8 else f"many, {between.mean():.0%} of its pixels grey"
        say(f"its levels are {some}; those above {THRESHOLD} are taken as white. Is it a mask?")
    elif (between & (levels <= THRESHOLD)).sum() > 0.02 * (levels > THRESHOLD).sum():
        say(f"has a soft edge, of which levels up to {THRESHOLD} count as black; --grow adds pixels around a hole")
    return levels


def _color_levels(path: str, rgb: np.ndarray, say: Callable[[str], None]) -> np.ndarray:
    """The gray levels; of black and one colour, how much of that colour."""
    if ((rgb.max(axis=2) - rgb.min(axis=2)) > 48).mean() <= 0.001:
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    cells = (rgb >> 5).astype(np.int64) @ (64, 8, 1)  # colours that differ by little are one
    counts = np.bincount(cells.ravel(), minlength=512)
    common = [cell for cell in np.argsort(-counts, kind="stable") if counts[cell] > 0.005 * cells.size]
    colors = [tuple(int(value) for value in np.median(rgb[cells == cell], axis=0)) for cell in common[:4]]
    others = [np.array(color, np.float32) for color in colors if max(color) > DARK]
    if len(others) < len(colors):
        color = others[0]
        share = np.minimum(rgb @ color / (color @ color), 1)  # between black and this colour; JPEG and soft edges mix
        if (np.abs(rgb - share[:, :, None] * color).max(axis=2) > 48).mean() < 0.005:
            say(f"its colours are black and {tuple(map(int, color))}; what is not black is taken as white")
            return (share * 255).astype(np.uint8)
    names = ", ".join(map(str, colors)) + ", ..." * (len(common) > len(colors))
    hint = "; are the image and the mask swapped?" if len(common) > 8 else ""
    raise UserError(path, f"has the colours {names}, of which any may be the hole: make it black and white{hint}")


def _resized(
    path: str, hole: np.ndarray, size: tuple[int, int], stretch: bool | None, orientation: int,
    say: Callable[[str], None],
) -> np.ndarray:  # fmt: skip
    """Turned as the image was, where it plainly was drawn before that, and stretched where that is allowed."""
    (height, width), (rows, columns) = size, hole.shape
    alike, turned = (abs(a * width - b * height) < max(size) for a, b in ((rows, columns), (columns, rows)))
    sizes = f"is {columns}x{rows} (width x height), the image {width}x{height}"
    if turned and not alike:
        if orientation not in (5, 6, 7, 8):
            raise UserError(path, f"{sizes}: the sides are swapped; turn the mask, or give the one of this image")
        say("was drawn on the image before its EXIF orientation turned it, and is turned in the same way")
        hole, alike = turn_upright(hole, orientation), True
    if hole.shape == size:
        return hole
    if stretch is False or (stretch is None and not alike):
        advice = "stretch it with --resize-mask" if stretch is False else "of the same proportions"
        raise UserError(path, f"{sizes}; give a mask of the same size, or {advice}")
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, hole.shape))
    return hole[rows][:, columns]  # nearest neighbour
