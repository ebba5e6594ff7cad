"""From a mask to a hole, and from a picture of any size to one that the generator takes and back."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.pictures.reading import Picture, PictureError

THRESHOLD = 127  # a mask's levels above it are the hole
MULTIPLE = 8  # of which the generator's sides must be
MUCH_DEEPER, MUCH_LARGER = 1.5, 2.0  # than trained on: depth of a hole, share of the picture
MANY_PIXELS = 2048 * 1024  # the attention's cost grows with the square of the pixels


def read_hole(mask: Picture, rgb: np.ndarray, invert: bool) -> np.ndarray:
    """A mask's picture and its 8-bit RGB -> bool [H, W], True = hole.

    White (luma above 127) is the hole. If any of the mask is transparent, its alpha is the mask instead: what
    has been painted is the hole, whatever the colour. `invert` swaps hole and known.
    """
    levels = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if mask.alpha is not None:
        alpha = mask.alpha >> 8 if mask.alpha.dtype == np.uint16 else mask.alpha
        if (alpha <= THRESHOLD).any():
            levels = alpha
    return (levels > THRESHOLD) != invert


def fit_hole(hole: np.ndarray, size: Sequence[int], resize: bool, mask_path: str, image_path: str) -> np.ndarray:
    """The hole at the picture's (height, width); PictureError for another size, an empty or a full one."""
    height, width = size
    if hole.shape != (height, width):
        if not resize:
            sizes = f"{hole.shape[1]}x{hole.shape[0]}, the picture {width}x{height}"
            raise PictureError(
                f"{image_path}: its mask {mask_path} is {sizes} (width x height); "
                "give a mask of the same size, or stretch it with --resize-mask"
            )
        rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), hole.shape))
        hole = hole[rows][:, columns]  # nearest neighbour
    if not hole.any():
        reason = f"has no hole: nothing in it is above {THRESHOLD} (white = hole; --invert-mask swaps)"
    elif hole.all():
        reason = "covers the whole picture, which leaves nothing to complete it from (--invert-mask swaps)"
    else:
        return hole
    raise PictureError(f"{image_path}: its mask {mask_path} {reason}")


def shrink(rgb: np.ndarray, hole: np.ndarray, max_side: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Picture and hole with the longer side at most `max_side`; never enlarged, None keeps the size.

    The picture is area averaged; every pixel that has any of the hole in it is hole, so nothing of what the hole
    hides leaks into what is known. Raises ValueError: nothing known is left.
    """
    height, width = hole.shape
    if max_side is None or max(height, width) <= max_side:
        return rgb, hole
    scale = max_side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    touched = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if touched.all():
        raise ValueError("nothing known is left at this size")
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), touched


def pad_to_multiple(rgb: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both made divisible by 8 below and to the right, by their mirror image with the border pixel repeated.

    A mirror continues textures, where a repeated border pixel draws streaks for the attention to copy, and grey
    or zeros show an edge that the picture does not have. The hole is mirrored as well, so no pixel of it ever
    counts as known; a side of one pixel can be mirrored, too. On two sides only, positions stay where they are.
    """
    rows, columns = (-side % MULTIPLE for side in hole.shape)
    return (
        np.pad(rgb, ((0, rows), (0, columns), (0, 0)), mode="symmetric"),
        np.pad(hole, ((0, rows), (0, columns)), mode="symmetric"),
    )


def enlarge(completed: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A completed picture [h, w, 3] at the full (height, width), bicubic; as it is if it has that size."""
    height, width = size
    if completed.shape[:2] == (height, width):
        return completed
    return cv2.resize(completed, (width, height), interpolation=cv2.INTER_CUBIC)


def hole_remarks(
    hole: np.ndarray, box_size: Sequence[int] | None, image_size: Sequence[int] | None
) -> list[str]:
    """What to expect of completing `hole` at this resolution, compared with the boxes that were trained on.

    A hole's depth is the largest distance to a known pixel: long thin ones are easy, wide ones are not.
    """
    remarks = []
    height, width = hole.shape
    if box_size and image_size:
        trained_depth = min(box_size) / 2
        depth = float(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max())
        trained_share = box_size[0] * box_size[1] / (image_size[0] * image_size[1])
        if depth > MUCH_DEEPER * trained_depth:
            side = max(int(max(height, width) * trained_depth / depth), MULTIPLE)
            remarks.append(
                f"the hole reaches {depth:.0f} pixels from what is known, those trained on {trained_depth:.0f}: "
                f"expect a poor filling; try --max-side {side}"
            )
        elif hole.mean() > MUCH_LARGER * trained_share:
            remarks.append(
                f"the hole is {hole.mean():.0%} of the picture, those trained on {trained_share:.0%}: "
                "expect a poor filling"
            )
    if height * width > MANY_PIXELS:
        remarks.append(
            f"{width}x{height} pixels take about {(height * width / 1024**2) ** 2:.0f} times as long as "
            "1024x1024; --max-side works at a lower resolution"
        )
    return remarks


def picture_remarks(picture: Picture, hole: np.ndarray) -> list[str]:
    """What a result of this picture will not show."""
    remarks = []
    if picture.frames > 1:
        remarks.append(f"holds {picture.frames} frames or pages, of which the first is completed")
    if picture.alpha is not None and not picture.alpha[hole].any():
        remarks.append("is transparent all over the hole and stays so (alpha is kept): what is filled in is not seen")
    return remarks
