from __future__ import annotations

import numpy as np
import pytest

from utils.evaluation.evaluate import draw_sheet

CELL = 128 + 4


def row(level: int) -> dict[str, np.ndarray]:
    return {name: np.full((16, 32, 3), level + k, np.uint8) for k, name in enumerate(("input", "original"))}


def test_places_by_hand() -> None:
    """32-pixel images are four times enlarged: cells of 128x64, gaps of 4, headings of 20."""
    sheet = draw_sheet([row(10), row(20), row(30)], [["a"], ["b"], ["ß", "x" * 99]], blocks=2)
    assert sheet.shape == (20 + 2 * 68 - 4, 6 * CELL - 4, 3)
    for level, top, left in ((10, 20, 0), (20, 88, 0), (30, 20, 3 * CELL)):  # down, then the next block
        caption = sheet[top : top + 64, left : left + 128]
        assert (caption.max(), caption.min() < 255) == (255, True)
        for k in (0, 1):
            start = left + (k + 1) * CELL
            assert (sheet[top : top + 64, start : start + 128] == level + k).all()
    assert (sheet[88:, 3 * CELL :] == 255).all()


def test_one_block_and_wrong_input() -> None:
    assert draw_sheet([row(0)] * 3, [[]] * 3).shape == (20 + 3 * 68 - 4, 3 * CELL - 4, 3)
    with pytest.raises(ValueError, match="0 rows"):
        draw_sheet([], [])
    with pytest.raises(ValueError, match="1 rows and 2 captions"):
        draw_sheet([row(0)], [[], []])
