from __future__ import annotations

import numpy as np
import pytest

from utils.pictures.holes import (
    enlarge,
    fit_hole,
    hole_remarks,
    pad_to_multiple,
    picture_remarks,
    read_hole,
    shrink,
)
from utils.pictures.reading import Picture, PictureError


def mask_of(alpha: np.ndarray | None = None, frames: int = 1) -> Picture:
    return Picture(np.zeros((2, 3, 3), np.uint8), alpha, None, None, None, (), frames)


def grey(levels: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(levels, np.uint8)[:, :, None], 3, axis=2)


LEVELS = grey([[0, 127, 128], [255, 1, 254]])


def test_levels_above_the_threshold_are_the_hole() -> None:
    assert read_hole(mask_of(), LEVELS, False).tolist() == [[False, False, True], [True, False, True]]
    assert read_hole(mask_of(), LEVELS, True).tolist() == [[True, True, False], [False, True, False]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_alpha_is_the_mask_where_it_says_something(kind: type) -> None:
    opaque = np.iinfo(kind).max
    alpha = np.array([[0, opaque, 0], [0, 0, 0]], kind)
    assert read_hole(mask_of(alpha), LEVELS, False).tolist() == [[False, True, False], [False] * 3]
    everywhere = np.full((2, 3), opaque, kind)
    assert read_hole(mask_of(everywhere), LEVELS, False).sum() == 3  # then the colours are


def test_a_mask_of_another_size() -> None:
    hole = np.array([[True, False]])
    with pytest.raises(PictureError, match=r"a.png: its mask m.png is 2x1, the picture 4x3 .*--resize-mask"):
        fit_hole(hole, (3, 4), False, "m.png", "a.png")
    stretched = fit_hole(hole, (3, 4), True, "m.png", "a.png")
    assert stretched.tolist() == [[True, True, False, False]] * 3
    assert fit_hole(hole, (1, 2), False, "m.png", "a.png") is hole


def test_empty_and_full_masks() -> None:
    with pytest.raises(PictureError, match="a.png: its mask m.png has no hole: nothing in it is above 127"):
        fit_hole(np.zeros((2, 3), bool), (2, 3), False, "m.png", "a.png")
    with pytest.raises(PictureError, match="covers the whole picture"):
        fit_hole(np.ones((2, 3), bool), (2, 3), False, "m.png", "a.png")


def test_padding_mirrors_picture_and_hole_alike() -> None:
    rgb = np.arange(7 * 10 * 3, dtype=np.uint8).reshape(7, 10, 3)
    hole = np.zeros((7, 10), bool)
    hole[6, 9] = True
    image, mask = pad_to_multiple(rgb, hole)
    assert image.shape == (8, 16, 3) and mask.shape == (8, 16)
    np.testing.assert_array_equal(image[:7, :10], rgb)
    np.testing.assert_array_equal(image[7, :10], rgb[6])
    np.testing.assert_array_equal(image[:7, 10:16], rgb[:, 9:3:-1])
    assert np.argwhere(mask).tolist() == [[6, 9], [6, 10], [7, 9], [7, 10]]


def test_padding_of_one_pixel_and_of_nothing() -> None:
    one = np.full((1, 1, 3), 9, np.uint8)
    image, mask = pad_to_multiple(one, np.ones((1, 1), bool))
    assert image.shape == (8, 8, 3) and (image == 9).all() and mask.all()
    whole = np.zeros((8, 16, 3), np.uint8)
    assert pad_to_multiple(whole, np.zeros((8, 16), bool))[0].shape == whole.shape


def test_shrinking_hides_all_that_the_hole_touches() -> None:
    """What is in the hole must not reach a known pixel: other values in it, the same known pixels."""
    rng = np.random.default_rng(2)
    rgb = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    hole = np.zeros((50, 70), bool)
    hole[11:28, 23:40] = True
    other = np.where(hole[:, :, None], 255 - rgb, rgb)
    small, touched = shrink(rgb, hole, 32)
    assert small.shape == (23, 32, 3) and touched.shape == (23, 32)
    again, _ = shrink(other, hole, 32)
    np.testing.assert_array_equal(small[~touched], again[~touched])
    assert 0 < touched.mean() < 2 * hole.mean()


def test_shrinking_never_enlarges_and_leaves_something_known() -> None:
    rgb, hole = np.zeros((50, 70, 3), np.uint8), np.zeros((50, 70), bool)
    for side in (None, 70, 1000):
        assert shrink(rgb, hole, side)[0] is rgb
    hole[::5, ::5] = True
    with pytest.raises(ValueError, match="nothing known is left"):
        shrink(rgb, hole, 8)


def test_enlarging_to_the_same_size_changes_nothing() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    assert enlarge(image, (4, 6)) is image
    assert enlarge(image, (9, 13)).shape == (9, 13, 3)


def test_wide_holes_are_remarked_and_thin_ones_are_not() -> None:
    wide, thin = np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    wide[20:240, 20:240] = True  # 110 from the border of the hole: more than 1.5 * 64
    thin[100:110] = True
    (remark,) = hole_remarks(wide, (128, 128), (256, 256))
    assert remark.startswith("the hole reaches 110 pixels from what is known, those trained on 64")
    assert remark.endswith("try --max-side 148")  # 256 * 64 / 110
    assert hole_remarks(thin, (128, 128), (256, 256)) == []
    assert hole_remarks(wide, None, None) == []  # nothing to compare with
    stripes = np.ones((256, 256), bool)
    stripes[::40] = False
    (remark,) = hole_remarks(stripes, (128, 128), (256, 256))
    assert remark.startswith("the hole is 97% of the picture, those trained on 25%")


def test_slow_sizes_are_remarked() -> None:
    (remark,) = hole_remarks(np.zeros((3000, 4000), bool), (128, 128), (256, 256))
    assert remark.startswith("4000x3000 pixels take about 131 times as long as 1024x1024")


def test_what_a_result_will_not_show() -> None:
    hole = np.array([[True, False, False], [False] * 3])
    alpha = np.array([[0, 255, 255], [255] * 3], np.uint8)
    assert picture_remarks(mask_of(), hole) == []
    assert picture_remarks(mask_of(alpha), ~hole) == []
    assert picture_remarks(mask_of(alpha), hole)[0].startswith("is transparent all over the hole")
    assert picture_remarks(mask_of(frames=3), hole)[0].startswith("holds 3 frames")
