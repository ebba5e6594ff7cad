from __future__ import annotations

import numpy as np
import pytest

from data.masks import boxes_to_mask, center_box, random_box, shrink_box
from utils.cli import UserError


def test_random_box_range_is_half_open():
    rng = np.random.default_rng(0)
    boxes = {random_box((10, 12), (4, 5), (1, 2), rng) for _ in range(500)}
    # top in [1, 10 - 1 - 4), left in [2, 12 - 2 - 5)
    assert boxes == {(top, left, 4, 5) for top in (1, 2, 3, 4) for left in (2, 3, 4)}


def test_random_box_is_uniform():
    rng = np.random.default_rng(1)
    tops = [random_box((12, 12), (8, 8), (0, 0), rng)[0] for _ in range(4000)]
    assert np.bincount(tops, minlength=4) == pytest.approx([1000] * 4, abs=150)


@pytest.mark.parametrize("image, box, margin, place", [
    ((8, 8), (8, 8), (0, 0), (0, 0)),
    ((8, 9), (4, 3), (2, 3), (2, 3)),
    ((9, 9), (4, 4), (2, 2), (2, 2)),  # one place by the half-open range
])
def test_random_box_with_one_place(image, box, margin, place):
    rng = np.random.default_rng(0)
    assert {random_box(image, box, margin, rng)[:2] for _ in range(20)} == {place}


@pytest.mark.parametrize("image, box, margin", [
    ((8, 8), (9, 8), (0, 0)), ((8, 8), (8, 9), (0, 0)), ((8, 8), (4, 4), (0, 3)),
    ((8, 8), (0, 4), (0, 0)), ((8, 8), (4, 4), (-1, 0)),
])
def test_random_box_that_does_not_fit(image, box, margin):
    with pytest.raises(UserError, match="does not fit an image of (height|width) 8"):
        random_box(image, box, margin, np.random.default_rng(0))


def test_random_box_follows_its_generator():
    def draw():
        return [random_box((64, 64), (16, 16), (0, 0), np.random.default_rng(seed)) for seed in range(20)]

    assert draw() == draw()
    assert len(set(draw())) > 10


def test_center_box():
    assert center_box((256, 256), (128, 128)) == (64, 64, 128, 128)
    assert center_box((7, 10), (4, 3)) == (1, 3, 4, 3)
    with pytest.raises(UserError, match="9x4 does not fit an image of 8x8"):
        center_box((8, 8), (9, 4))


def test_shrink_box_takes_the_same_from_opposite_sides():
    rng = np.random.default_rng(0)
    holes = {shrink_box((10, 20, 12, 9), (5, 4), rng) for _ in range(300)}
    # 5 // 2 = 2 rows and 4 // 2 = 2 columns at most, both ends of the range included
    assert holes == {(10 + r, 20 + c, 12 - 2 * r, 9 - 2 * c) for r in (0, 1, 2) for c in (0, 1, 2)}


def test_shrink_box_by_nothing_and_by_too_much():
    rng = np.random.default_rng(0)
    assert shrink_box((3, 4, 8, 8), (0, 0), rng) == (3, 4, 8, 8)
    assert shrink_box((3, 4, 8, 8), (1, 1), rng) == (3, 4, 8, 8)
    for too_much in ((8, 0), (0, 8), (-1, 0)):
        with pytest.raises(UserError, match="8x8 cannot shrink by max_delta"):
            shrink_box((3, 4, 8, 8), too_much, rng)


def test_boxes_to_mask():
    mask = boxes_to_mask([(0, 1, 2, 2), (2, 0, 1, 4)], (3, 4))
    assert mask.dtype == np.float32
    assert mask.tolist() == [
        [[[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]],
        [[[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]],
    ]
    assert boxes_to_mask(np.array([[0, 0, 3, 4]]), (3, 4)).min() == 1


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, -1, 2, 2), (2, 0, 2, 2), (0, 3, 2, 2)])
def test_boxes_to_mask_refuses_a_box_outside(box):
    with pytest.raises(UserError, match="leaves an image of 3x4"):
        boxes_to_mask([box], (3, 4))


def test_mask_equals_the_recorded_one(golden):
    recorded = np.load(golden / "tf1_model_losses.npz")
    top, left, height, width = recorded["bbox_tlhw"].reshape(-1)
    rows, columns = recorded["mask_delta_hw"].reshape(-1)
    hole = (top + rows, left + columns, height - 2 * rows, width - 2 * columns)
    assert np.array_equal(boxes_to_mask([hole], recorded["mask"].shape[2:]), recorded["mask"])
