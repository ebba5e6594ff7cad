"""Images of any size: windows around their holes, and what comes back bit-identical."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data.image_io import Image
from utils.cli import UserError
from utils.inpaint import fill_hole, hole_warnings, image_warnings, inpaint_image, inpaint_rgb
from utils.windows import enlarge, grow_hole, pad_to_multiple, plan_windows, shrink

TRAINED = (64, 64), (32, 32)  # image and box


class MeanColor:
    """A tester that fills holes with the mean of what is known, and remembers what it saw."""

    model = SimpleNamespace(image_size=TRAINED[0], box_size=TRAINED[1])

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def inpaint_stages(self, images: np.ndarray, masks: np.ndarray) -> tuple:
        assert images.shape[1] % 8 == images.shape[2] % 8 == 0
        self.seen.append((images[0].copy(), masks[0].copy()))
        hole = masks[0].astype(bool)
        filled = images.copy()
        filled[0][hole] = np.rint(images[0][~hole].mean(axis=0)).astype(np.uint8)
        return images, filled, np.zeros((1, 2, images.shape[1] // 8, images.shape[2] // 8), np.int64)


def photo(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height))


def boxes(shape: tuple[int, int], *places: tuple[int, int, int, int]) -> np.ndarray:
    hole = np.zeros(shape, bool)
    for top, left, height, width in places:
        hole[top : top + height, left : left + width] = True
    return hole


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
    small, touched = shrink(rgb, hole, 32 / 70)
    assert small.shape == (23, 32, 3) and touched.shape == (23, 32)
    again, _ = shrink(other, hole, 32 / 70)
    np.testing.assert_array_equal(small[~touched], again[~touched])
    assert 0 < touched.mean() < 2 * hole.mean()


def test_enlarging_to_the_same_size_changes_nothing() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    assert enlarge(image, (4, 6)) is image
    assert enlarge(image, (9, 13)).shape == (9, 13, 3)


def test_a_hole_has_the_share_that_it_had_in_training() -> None:
    """Four times the box in the same geometry is worked at as in training."""
    for factor in (1, 2, 4):
        hole = boxes((400, 500), (100, 150, 32 * factor, 32 * factor))
        ((box, scale, part),) = plan_windows(hole, *TRAINED)
        assert scale == pytest.approx(1 / factor, rel=0.1)
        height, width = box[2] - box[0], box[3] - box[1]
        assert scale * height == pytest.approx(64, abs=2) and scale * width == pytest.approx(64, abs=2)
        assert (hole[box[0] : box[2], box[1] : box[3]] == part).all()
        assert part.mean() == pytest.approx(1 / 4, rel=0.15)


def test_small_and_thin_holes_are_not_scaled() -> None:
    for place in ((30, 40, 4, 4), (20, 10, 3, 380), (0, 0, 9, 9)):
        plan = list(plan_windows(boxes((300, 400), place), *TRAINED))
        assert all(scale == 1 for _, scale, _ in plan)
        assert all(min(bottom - top, right - left) >= 64 for (top, left, bottom, right), _, _ in plan)
        assert all(0 <= box[0] < box[2] <= 300 and 0 <= box[1] < box[3] <= 400 for box, _, _ in plan)


def test_overlapping_windows_are_one_and_far_ones_are_not() -> None:
    near = boxes((400, 400), (100, 100, 10, 10), (100, 130, 10, 10), (300, 300, 10, 10))
    plan = list(plan_windows(near, *TRAINED))
    assert sorted(int(part.sum()) for _, _, part in plan) == [100, 200]


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_is_filled_once_in_windows_of_bounded_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = cv2.resize(rng.random((20, 30), np.float32), (600, 400), interpolation=cv2.INTER_CUBIC)
    hole = noise > (0.9, 0.8, 0.6, 0.5, 0.7, 0.95)[seed]
    hole |= boxes(hole.shape, (5, 5, 2, 590)) if seed % 2 else boxes(hole.shape, (0, 0, 390, 200))
    filled = np.zeros(hole.shape, int)
    for (top, left, bottom, right), scale, part in plan_windows(hole, *TRAINED):
        filled[top:bottom, left:right] += part
        assert (bottom - top) * scale <= 3 * 64 and (right - left) * scale <= 3 * 64
    np.testing.assert_array_equal(filled, hole)


def test_known_pixels_are_identical_and_filled_ones_are_known_to_the_next_window() -> None:
    rgb = photo(300, 400)
    hole = boxes((300, 400), (40, 60, 100, 90), (200, 20, 3, 370))
    tester, steps = MeanColor(), []
    done = inpaint_rgb(tester, rgb, hole, track=lambda total, unit: Track(total, unit, steps))
    for stage in (done.coarse, done.refined):
        np.testing.assert_array_equal(stage[~hole], rgb[~hole])
    assert (done.refined[hole] != rgb[hole]).any(axis=1).mean() > 0.9
    assert len(tester.seen) == len(done.windows) == len(steps) - 1 > 2
    assert steps[0] == (len(done.windows), "window")
    strips = [mask for image, mask in tester.seen if mask.sum() < 0.1 * mask.size]
    assert any((mask.any(axis=0) == 0).any() for mask in strips[1:])  # what was filled before is no hole now


class Track:
    """Notes what a progress bar is told."""

    def __init__(self, total: int, unit: str, steps: list):
        steps.append((total, unit))
        self.steps = steps

    def __enter__(self):
        return self.steps.append

    def __exit__(self, *_: object) -> None:
        pass


def test_small_images_and_window_none_are_worked_at_as_a_whole() -> None:
    for size, options in (((64, 60), {}), ((100, 90), {"window": "none"}), ((100, 90), {"max_side": 50})):
        tester, said = MeanColor(), []
        hole = boxes(size, (10, 10, 50, 45))
        done = inpaint_rgb(tester, photo(*size), hole, warn=said.append, **options)
        assert [window.box for window in done.windows] == [(0, 0, *size)]
        assert max(done.windows[0].size) == options.get("max_side", max(size))
        assert any("expect a poor result" in text for text in said) == (size == (64, 60))
    with pytest.raises(UserError, match="nothing known is left of the image"):
        inpaint_rgb(MeanColor(), photo(80, 80), boxes((80, 80), *((y, x, 1, 1) for y in range(0, 80, 5)
                                                                 for x in range(0, 80, 5))), max_side=8)


def test_a_model_that_does_not_say_what_it_was_trained_at() -> None:
    tester = MeanColor()
    tester.model = SimpleNamespace(image_size=None, box_size=None)
    done = inpaint_rgb(tester, photo(300, 400), boxes((300, 400), (0, 0, 20, 20)))
    assert done.windows[0].box == (0, 0, 256, 256)  # the paper's


def test_too_little_memory_is_one_line() -> None:
    tester = MeanColor()
    tester.inpaint_stages = lambda *_: (_ for _ in ()).throw(MemoryError)
    with pytest.raises(UserError, match="64x64 pixels need more memory; choose a smaller --max-side"):
        inpaint_rgb(tester, photo(64, 64), boxes((64, 64), (5, 5, 9, 9)))


def test_growing_by_hand() -> None:
    hole = boxes((9, 9), (4, 4, 1, 1))
    assert grow_hole(hole, 0).sum() == 1
    assert grow_hole(hole, 1).sum() == 5  # the four neighbours
    assert grow_hole(hole, 2).sum() == 13
    with pytest.raises(UserError, match="--grow 9 leaves nothing known"):
        grow_hole(hole, 9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("grow", "feather"), [(0, 0), (3, 0), (0, 4), (3, 2), (4, 4)])
def test_outside_of_the_grown_mask_nothing_changes(dtype: type, grow: int, feather: int) -> None:
    samples = photo(90, 80).astype(dtype) * (257 if dtype == np.uint16 else 1)
    image = Image(samples, alpha=samples[:, :, 0], bits=16 if dtype == np.uint16 else 8, icc=b"icc")
    mask = boxes((90, 80), (30, 30, 20, 20))
    done = inpaint_image(MeanColor(), image, mask, grow=grow, feather=feather)
    grown = grow_hole(mask, grow)
    assert done.samples.dtype == dtype and done.icc == b"icc"
    np.testing.assert_array_equal(done.samples[~grown], samples[~grown])
    np.testing.assert_array_equal(done.alpha, image.alpha)
    ring = grown & ~mask
    assert not grow or (done.samples[ring] != samples[ring]).any(axis=1).mean() > 0.9


def test_feathering_by_hand() -> None:
    """From the edge inwards 1/3, 2/3 and all of the filling; deeper inside nothing of the image."""
    image = Image(np.full((11, 11, 3), 90, np.uint8))
    hole = boxes((11, 11), (0, 3, 11, 8))
    done = fill_hole(image, np.full((11, 11, 3), 210, np.uint8), hole, feather=2)
    assert done.samples[5, :, 0].tolist() == [90, 90, 90, 130, 170, *[210] * 6]


def test_what_to_expect_of_a_whole_image() -> None:
    wide, thin = boxes((256, 256), (20, 20, 220, 220)), boxes((256, 256), (100, 0, 10, 256))
    sizes = (128, 128), (256, 256)
    (text,) = hole_warnings(wide, 1.0, *sizes)
    assert text.startswith("the hole reaches 110 pixels from what is known, those trained on 64")
    assert text.endswith("try --max-side 148")  # 256 * 64 / 110
    assert list(hole_warnings(thin, 1.0, *sizes)) == list(hole_warnings(wide, 0.5, *sizes))[1:] == []
    stripes = np.ones((256, 256), bool)
    stripes[::40] = False
    assert "the hole is 97% of the image, those trained on 25%" in next(hole_warnings(stripes, 1.0, *sizes))
    (text,) = hole_warnings(np.zeros((3000, 4000), bool), 1.0, *sizes)
    assert text.startswith("4000x3000 pixels at once take about 131 times")
    assert text.endswith("--window auto is faster")


def test_what_a_result_will_not_show() -> None:
    hole = boxes((2, 3), (0, 0, 1, 1))
    samples, alpha = np.zeros((2, 3, 3), np.uint8), np.array([[0, 255, 255], [255] * 3], np.uint8)
    assert list(image_warnings(Image(samples), hole)) == list(image_warnings(Image(samples, alpha), ~hole)) == []
    assert "is transparent all over the hole" in next(image_warnings(Image(samples, alpha), hole))
    assert "holds 3 frames" in next(image_warnings(Image(samples, frames=3), hole))
