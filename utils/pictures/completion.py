"""From a picture's 8-bit RGB and its hole to the completed picture, of any size, at a lower resolution if asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from utils.pictures.attention_view import attention_picture
from utils.pictures.holes import MULTIPLE, enlarge, hole_remarks, pad_to_multiple, shrink
from utils.pictures.reading import PictureError


class Completion(NamedTuple):
    """What the generator made of a picture [H, W, 3] that it saw as [h, w, 3]."""

    coarse: np.ndarray  # uint8 [H, W, 3], the first stage; like `refined` meant for the hole alone
    refined: np.ndarray  # uint8 [H, W, 3]
    small: np.ndarray  # uint8 [h, w, 3], refined at the size it was made at
    hole: np.ndarray  # bool [h, w]
    offsets: np.ndarray | None  # int64 [2, ceil(h/8), ceil(w/8)] of the attention; None without one
    shown: tuple[np.ndarray, np.ndarray]  # the padded image [1, h', w', 3] and mask [1, h', w']

    def attention_picture(self) -> np.ndarray:
        """The offsets as colours, with their legend."""
        return attention_picture(self.offsets, self.hole.shape, MULTIPLE, self.hole)

    def cell(self, x: int, y: int) -> tuple[int, int]:
        """Row and column, in the attention's units, of a pixel of the picture."""
        (height, width), (h, w) = self.refined.shape[:2], self.hole.shape
        return int(y * (h / height)) // MULTIPLE, int(x * (w / width)) // MULTIPLE


def complete(
    tester: Any, rgb: np.ndarray, hole: np.ndarray, max_side: int | None, remark: Callable[[str], None]
) -> Completion:
    """Fills a hole, working at no more than `max_side` pixels a side (None: at the picture's own size).

    tester: of class `tester.Tester`. rgb: uint8 [H, W, 3]; hole: bool [H, W]. remark: told before the work starts
    what to expect of such a hole. Raises PictureError, which does not name the file: at this resolution nothing
    known is left, or the memory is too small.
    """
    try:
        small, small_hole = shrink(rgb, hole, max_side)
    except ValueError as error:
        raise PictureError(f"--max-side {max_side}: {error}; choose a larger one") from None
    for text in hole_remarks(small_hole, tester.model.box_size, tester.model.image_size):
        remark(text)
    image, mask = (padded[None] for padded in pad_to_multiple(small, small_hole))
    height, width = small_hole.shape
    try:
        coarse, refined, offsets = tester.complete(image, mask)
    except MemoryError:
        raise PictureError(f"{width}x{height} pixels need more memory; choose a smaller --max-side") from None
    coarse, refined = (stage[0, :height, :width] for stage in (coarse, refined))
    if offsets is not None:
        offsets = offsets[0, :, : -(-height // MULTIPLE), : -(-width // MULTIPLE)]
    full = (enlarge(stage, hole.shape) for stage in (coarse, refined))
    return Completion(*full, refined, small_hole, offsets, (image, mask))
