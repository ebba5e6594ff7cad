"""The pictures of a training run: fixed photographs with fixed holes, completed by the networks of the moment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.visualization import image_grid, offsets_to_color, to_uint8, write_image


class Previews:
    """Writes grids with a row a photograph: input, coarse, completed, original, attention.

    folder: where they go; made if it is missing. images: uint8 [H,W,3] RGB each; masks: float32 [n,1,H,W],
    1 = hole, or None where there are no images: then nothing is written.
    """

    def __init__(self, folder: str, images: Sequence[np.ndarray], masks: np.ndarray | None) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder, self.images, self.masks = folder, images, masks

    def write(self, trainer: Any, iteration: int) -> None:
        """trainer: a `trainer.Trainer`, or has its `complete()`."""
        rows = []
        for i, original in enumerate(self.images):
            image = np.float32(original.transpose(2, 0, 1)[None]) / 127.5 - 1
            hidden, coarse, completed, offsets = trainer.complete(image, self.masks[i : i + 1])
            row = [to_uint8(x[0].transpose(1, 2, 0)) for x in (hidden, coarse, completed)] + [original]
            if offsets is not None:
                row.append(np.kron(offsets_to_color(offsets[0]), np.ones((8, 8, 1), np.uint8)))
            rows.append(row)
        if rows:
            labels = ("input", "coarse", "completed", "original", "attention")[: len(rows[0])]
            write_image(os.path.join(self.folder, f"preview_{iteration:08d}.png"), image_grid(rows, labels))
