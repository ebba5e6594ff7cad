from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.evaluation.baselines import BASELINES, fill_biharmonic, fill_mean_color, fill_navier_stokes, fill_telea


def ramp(size: int = 32) -> np.ndarray:
    """A horizontal ramp in red, a vertical one in green, constant blue."""
    levels = np.arange(size) * 7
    image = np.full((size, size, 3), 60)
    image[..., 0], image[..., 1] = levels[None], levels[:, None]
    return image.astype(np.uint8)


def center_mask(size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), np.float32)
    mask[size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return mask


def test_mean_color_of_the_ring_by_hand() -> None:
    """A one-pixel hole: the ring is the 9 x 9 square around it, 80 known pixels."""
    image = np.zeros((20, 20, 3), np.uint8)
    image[6:10, 6:10] = (80, 160, 5)  # 16 pixels within 4 pixels of the hole at (10, 10)
    image[10, 5] = 255  # five pixels away: not in the ring
    image[10, 10] = 77  # the truth must not be seen
    mask = np.zeros((20, 20))
    mask[10, 10] = 1
    filled = fill_mean_color(image, mask)
    assert filled[10, 10].tolist() == [16, 32, 1]  # 16/80 of each


def test_mean_color_at_the_border() -> None:
    image = np.full((12, 12, 3), 9, np.uint8)
    mask = np.zeros((12, 12))
    mask[:3, :3] = 1
    image[:3, :3] = 200
    np.testing.assert_array_equal(fill_mean_color(image, mask), np.full((12, 12, 3), 9))


def test_biharmonic_continues_a_ramp() -> None:
    """A linear function solves the biharmonic equation."""
    difference = fill_biharmonic(ramp(), center_mask()).astype(int) - ramp()
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("fill", "flag"),
    [(fill_telea, cv2.INPAINT_TELEA), (fill_navier_stokes, cv2.INPAINT_NS)],
    ids=["telea", "ns"],
)
def test_opencv_fills_are_opencv_with_radius_three(fill, flag) -> None:
    image, mask = ramp(), center_mask()
    expected = cv2.inpaint(image, mask.astype(np.uint8), 3, flag)
    np.testing.assert_array_equal(fill(image, mask), expected)
    assert not np.array_equal(expected, image)


@pytest.mark.parametrize("name", BASELINES)
def test_only_the_hole_changes_and_the_truth_in_it_is_unseen(name: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    mask = np.zeros((24, 24), bool)
    mask[2:10, 0:9] = True
    mask[15, 15:20] = True
    other = image.copy()
    other[mask] = rng.integers(0, 256, (mask.sum(), 3))
    before = image.copy()
    filled = BASELINES[name](image, mask)
    assert filled.dtype == np.uint8
    assert filled.shape == image.shape
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    np.testing.assert_array_equal(filled, BASELINES[name](other, mask))
    np.testing.assert_array_equal(image, before)
    assert not np.array_equal(filled[mask], image[mask])


@pytest.mark.parametrize("name", BASELINES)
def test_no_hole_and_nothing_but_hole(name: str) -> None:
    image = ramp(16)
    np.testing.assert_array_equal(BASELINES[name](image, np.zeros((16, 16))), image)
    np.testing.assert_array_equal(BASELINES[name](image, np.ones((16, 16))), np.full((16, 16, 3), 128))


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"mask \[4, 5\] does not fit the image \[4, 4, 3\]"):
        fill_telea(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="must be uint8"):
        fill_telea(np.zeros((4, 4, 3)), np.zeros((4, 4)))
