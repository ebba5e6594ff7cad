"""Grids of fixed photographs."""

from __future__ import annotations

import os

import cv2
import numpy as np

from utils.run.previews import Previews


class Painter:
    """Completes with grey."""

    def complete(self, image, mask):
        assert image.shape == (1, 3, 16, 24) and mask.shape == (1, 1, 16, 24)
        assert -1 <= image.min() <= image.max() <= 1
        return image * (1 - mask), image * 0, image, np.zeros((1, 2, 2, 3), np.int64)


def test_a_grid_has_a_row_a_photograph(tmp_path):
    folder = str(tmp_path / "run" / "previews")
    images = [np.full((16, 24, 3), level, np.uint8) for level in (0, 255)]
    Previews(folder, images, np.zeros((2, 1, 16, 24), np.float32)).write(Painter(), 30)
    assert os.listdir(folder) == ["preview_00000030.png"]
    grid = cv2.imread(os.path.join(folder, "preview_00000030.png"))
    assert grid.shape[0] >= 2 * 16 and grid.shape[1] >= 5 * 24


def test_without_photographs_nothing_is_written(tmp_path):
    Previews(str(tmp_path), [], None).write(Painter(), 1)
    assert os.listdir(tmp_path) == []
