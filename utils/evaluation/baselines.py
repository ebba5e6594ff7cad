"""Classical ways to fill a hole, for comparison on the same holes.

Each takes an image (uint8 [H, W, 3] RGB) and a mask ([H, W], 1 = hole) and returns a uint8 image of the same
size in which only the hole differs. Where nothing is known (the hole is the whole image) all return mid-grey.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic

RING_WIDTH = 4  # pixels around the hole that fill_mean_color averages
INPAINT_RADIUS = 3.0  # pixels, cv2.inpaint's neighbourhood


def fill_mean_color(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean colour of the known pixels within 4 pixels (rows and columns, diagonals too) of the hole."""
    return _fill(image, mask, _mean_of_ring)


def fill_telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fast marching (Telea 2004): cv2.inpaint with radius 3."""
    return _fill(image, mask, lambda known, hole: cv2.inpaint(known, hole, INPAINT_RADIUS, cv2.INPAINT_TELEA))


def fill_navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fluid dynamics (Bertalmio et al. 2001): cv2.inpaint with radius 3."""
    return _fill(image, mask, lambda known, hole: cv2.inpaint(known, hole, INPAINT_RADIUS, cv2.INPAINT_NS))


def fill_biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The biharmonic equation (Damelin and Hoang 2018): skimage's inpaint_biharmonic, rounded to uint8."""
    return _fill(image, mask, _solve_biharmonic)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean_color": fill_mean_color,
    "telea": fill_telea,
    "navier_stokes": fill_navier_stokes,
    "biharmonic": fill_biharmonic,
}
"""All of them by name, in the order in which a table shows them."""


def _fill(
    image: np.ndarray, mask: np.ndarray, method: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Calls method(image with the hole zeroed, hole as uint8 0/1) and takes the hole's pixels from it."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask {list(mask.shape)} does not fit the image {list(image.shape)}")
    hole = mask > 0.5
    if not hole.any():
        return image.copy()
    if hole.all():
        return np.full_like(image, 128)
    known = np.where(hole[..., None], np.uint8(0), image)  # no method can peek at the truth
    return np.where(hole[..., None], method(known, hole.astype(np.uint8)), image)


def _mean_of_ring(known: np.ndarray, hole: np.ndarray) -> np.ndarray:
    side = 2 * RING_WIDTH + 1
    ring = (cv2.dilate(hole, np.ones((side, side), np.uint8)) - hole).astype(bool)
    return np.rint(known[ring].mean(axis=0)).astype(np.uint8)  # [3], broadcast over the hole


def _solve_biharmonic(known: np.ndarray, hole: np.ndarray) -> np.ndarray:
    levels = inpaint_biharmonic(known / 255.0, hole.astype(bool), channel_axis=-1)
    return np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
