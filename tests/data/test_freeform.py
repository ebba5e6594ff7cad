from __future__ import annotations

import numpy as np
import pytest

from data import masks as freeform
from data.eval_set import mask_checksum
from data.masks import MAX_AREA, STYLES, _paint, freeform_mask


def masks(name: str, count: int, size=(64, 64), seed: int = 0) -> list[np.ndarray]:
    return [freeform_mask(name, size, np.random.default_rng([seed, i])) for i in range(count)]


@pytest.mark.parametrize(
    ("name", "checksums"),
    [
        ("freeform-thin", ["516a21b2698f", "5cda26dd23d2"]),
        ("freeform-medium", ["de713c7b761b", "d9191b350826"]),
        ("freeform-thick", ["a548ba364d4a", "2858a7b153aa"]),
    ],
)
def test_the_same_masks_everywhere(name: str, checksums: list[str]) -> None:
    """Recorded once: another version of NumPy or a change of the drawing would make other sets."""
    drawn = [freeform_mask(name, size, np.random.default_rng(5)) for size in ((256, 256), (48, 64))]
    assert [mask_checksum(mask) for mask in drawn] == checksums


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("size", [(64, 64), (32, 120), (8, 8)])
def test_masks_are_neither_empty_nor_more_than_half(name: str, size: tuple[int, int]) -> None:
    for mask in masks(name, 30, size):
        assert mask.shape == size
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1}
        assert 0 < mask.mean() <= MAX_AREA


def test_a_round_brush_by_hand() -> None:
    """Width 2 reaches pixels at a distance of at most 1 from the line."""
    mask = np.zeros((5, 8), np.uint8)
    _paint(mask, np.array([2, 2]), np.array([2, 5]), 2)
    assert mask.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_a_diagonal_and_a_point_at_the_border_by_hand() -> None:
    mask = np.zeros((4, 4), np.uint8)
    _paint(mask, np.array([0, 0]), np.array([3, 3]), 1)  # at most 0.5 away: the next diagonal is 0.71 away
    np.testing.assert_array_equal(mask, np.eye(4))
    mask[:] = 0
    _paint(mask, np.array([0, 3]), np.array([0, 3]), 3)  # at most 1.5 away: the corner's whole neighbourhood
    assert np.argwhere(mask).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


def test_painting_agrees_with_distances() -> None:
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:40, :50]
    for width in (1, 4, 9):
        start, end = rng.integers(0, 40, 2), rng.integers(0, 40, 2)
        step = (end - start).astype(float)
        along = ((rows - start[0]) * step[0] + (columns - start[1]) * step[1]) / (step @ step)
        along = np.clip(along, 0, 1)
        distance = np.hypot(rows - start[0] - along * step[0], columns - start[1] - along * step[1])
        clear = np.abs(distance - width / 2) > 1e-9  # not decided by rounding
        mask = np.zeros((40, 50), np.uint8)
        _paint(mask, start, end, width)
        np.testing.assert_array_equal(mask[clear], (distance < width / 2)[clear])


def test_thicker_styles_have_larger_and_rounder_holes() -> None:
    def depth(mask: np.ndarray) -> float:  # of the hole: its area by its border
        border = np.abs(np.diff(mask.astype(int), axis=0)).sum() + np.abs(np.diff(mask.astype(int))).sum()
        return mask.sum() / border

    thin, medium, thick = (np.mean([depth(m) for m in masks(name, 40, (128, 128))]) for name in STYLES)
    assert thin < medium < thick


def test_sizes_grow_with_the_shorter_side() -> None:
    """The mean area of a style does not depend on the resolution, but for what rounding does."""
    for name in STYLES:
        small, large = (np.mean([m.mean() for m in masks(name, 60, size)]) for size in ((96, 96), (256, 256)))
        assert small == pytest.approx(large, rel=0.3)


def test_boxes_are_three_in_thirteen_of_the_thicker_styles(monkeypatch) -> None:
    made = []
    for kind in ("_draw_boxes", "_draw_strokes"):
        mask = np.zeros((8, 8), np.uint8)
        monkeypatch.setattr(freeform, kind, lambda *_, kind=kind, mask=mask: made.append(kind) or mask)
    for name, low, high in (("freeform-thin", 0, 0), ("freeform-medium", 200, 260), ("freeform-thick", 200, 260)):
        made.clear()
        rng = np.random.default_rng(0)
        for _ in range(1000):
            freeform_mask(name, (8, 8), rng)
        assert len(made) == 1000
        assert low <= made.count("_draw_boxes") <= high


def test_boxes_keep_to_their_sizes_and_margin() -> None:
    style = STYLES["freeform-thick"]._replace(boxes=(1, 1))
    sides = set()
    for i in range(200):
        places = np.argwhere(freeform._draw_boxes(style, (256, 300), np.random.default_rng(i)))
        low, high = places.min(axis=0), places.max(axis=0)
        assert (low >= 10).all() and (high <= (256 - 11, 300 - 11)).all()
        assert len(places) == (high - low + 1).prod()
        sides.update((high - low + 1).tolist())
    assert 30 <= min(sides) < 40 and 140 < max(sides) <= 150
