from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from utils.metrics import image_metrics, summarize


def noisy_pair(height: int = 24, width: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    target = rng.integers(30, 226, (height, width, 3))
    result = target + rng.integers(-25, 26, target.shape)
    return result.astype(np.uint8), target.astype(np.uint8)


def test_errors_by_hand() -> None:
    """2 x 2 pixels; one of them, the hole, is off by 51 (a fifth of the range) in each channel."""
    target = np.full((2, 2, 3), 102, np.uint8)
    result = target.copy()
    result[1, 0] = 153
    mask = np.array([[0, 0], [1, 0]], np.float32)
    metrics = image_metrics(result, target, mask)
    assert metrics["l1"] == pytest.approx(0.2 / 4)
    assert metrics["l2"] == pytest.approx(0.04 / 4)
    assert metrics["l1_percent"] == pytest.approx(100 * 51 / (4 * 102))  # 12.5
    assert metrics["l2_percent"] == pytest.approx(100 * 51**2 / (4 * 102**2))  # 6.25
    assert metrics["psnr"] == pytest.approx(20.0)  # 10 log10(1 / 0.01)
    assert metrics["hole_l1"] == pytest.approx(0.2)
    assert metrics["hole_l2"] == pytest.approx(0.04)
    assert metrics["hole_l1_percent"] == pytest.approx(50.0)
    assert metrics["hole_l2_percent"] == pytest.approx(25.0)
    assert metrics["hole_psnr"] == pytest.approx(10 * math.log10(25))
    # vertical pairs differ by 0.2 and 0, horizontal ones by 0 and 0.2; the hole touches one of each
    assert metrics["tv"] == pytest.approx(0.1 + 0.1)
    assert metrics["hole_tv"] == pytest.approx(0.2 + 0.2)


def test_full_image_agrees_with_skimage() -> None:
    result, target = noisy_pair()
    metrics = image_metrics(result, target)
    expected = peak_signal_noise_ratio(target, result, data_range=255)
    assert metrics["psnr"] == pytest.approx(expected, abs=1e-9)
    expected = structural_similarity(
        target,
        result,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert metrics["ssim"] == pytest.approx(expected, abs=1e-9)
    assert 0 < metrics["ssim"] < 1
    assert not any(name.startswith("hole_") for name in metrics)


def test_ssim_of_constant_images_by_hand() -> None:
    """Without variance SSIM is (2ab + C1) / (a^2 + b^2 + C1), C1 = (0.01 * 255)^2; 100 against 150."""
    result, target = np.full((16, 16, 3), 150, np.uint8), np.full((16, 16, 3), 100, np.uint8)
    metrics = image_metrics(result, target, np.eye(16))
    c1 = 2.55**2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert metrics["ssim"] == pytest.approx(expected, abs=1e-9)
    assert metrics["hole_ssim"] == pytest.approx(expected, abs=1e-9)


def test_hole_ssim_is_the_mean_of_the_map() -> None:
    result, target = noisy_pair()
    mask = np.zeros((24, 30))
    mask[3:10, 20:30] = 1
    options = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
    _, ssim_map = structural_similarity(target, result, full=True, **options)
    assert image_metrics(result, target, mask)["hole_ssim"] == pytest.approx(ssim_map[3:10, 20:30].mean())


def test_window_of_ssim_has_eleven_pixels() -> None:
    result, target = noisy_pair(11, 11)
    assert math.isfinite(image_metrics(result, target)["ssim"])
    result, target = noisy_pair(10, 40)
    metrics = image_metrics(result, target, np.ones((10, 40)))
    assert math.isnan(metrics["ssim"])
    assert math.isnan(metrics["hole_ssim"])
    assert math.isfinite(metrics["hole_psnr"])


def test_whole_image_as_hole_gives_the_same_errors() -> None:
    result, target = noisy_pair()
    metrics = image_metrics(result, target, np.ones((24, 30), bool))
    for name in ("l1", "l2", "l1_percent", "l2_percent", "psnr", "tv", "tv_original"):
        assert metrics[f"hole_{name}"] == metrics[name]


def test_errors_outside_the_hole_do_not_count_in_it() -> None:
    target = noisy_pair()[1]
    result = target.copy()
    result[:, 0] ^= 255
    mask = np.zeros((24, 30), np.uint8)
    mask[8:16, 10:20] = 1
    metrics = image_metrics(result, target, mask)
    assert metrics["hole_l1"] == 0
    assert metrics["hole_psnr"] == math.inf
    assert metrics["l1"] > 0


def test_uint8_differences_do_not_wrap() -> None:
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    assert image_metrics(black, white)["l1"] == 1
    assert image_metrics(white, black)["l1"] == 1
    assert image_metrics(white, black)["psnr"] == 0
    stripes = np.where(np.arange(12)[:, None, None] % 2, white, black)
    assert image_metrics(stripes, stripes)["tv"] == 1
    assert image_metrics(black, stripes)["tv"] == 0 and image_metrics(black, stripes)["tv_original"] == 1


def test_equal_images_and_undefined_values() -> None:
    black = np.zeros((12, 12, 3), np.uint8)
    metrics = image_metrics(black, black, np.zeros((12, 12)))
    assert metrics["psnr"] == math.inf
    assert metrics["ssim"] == pytest.approx(1)
    assert metrics["l1"] == 0
    assert math.isnan(metrics["l1_percent"])  # nothing to be relative to
    names = ("l1", "l2", "l1_percent", "l2_percent", "psnr", "ssim", "tv", "tv_original")
    assert all(math.isnan(metrics[f"hole_{name}"]) for name in names)


@pytest.mark.parametrize(
    ("result", "target", "mask", "message"),
    [
        (np.zeros((4, 4, 3)), np.zeros((4, 4, 3), np.uint8), None, r"result must be uint8 .*got float64"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), None, r"target must be uint8 .*\[4, 4\]"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), None, "differ in shape"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4)), "does not fit"),
    ],
)
def test_wrong_input(result: np.ndarray, target: np.ndarray, mask: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_metrics(result, target, mask)


def test_summary_by_hand() -> None:
    rows = [
        {"file": "a.png", "l2": 0.01, "psnr": 20.0, "hole_l2": 0.1},
        {"file": "b.png", "l2": 0.03, "psnr": 16.0, "hole_l2": 0.1},
        {"file": "c.png", "l2": 0.0, "psnr": math.inf, "hole_l2": math.nan},
    ]
    summary = summarize(rows)
    assert set(summary) == {"l2", "psnr", "hole_l2", "psnr_of_mean", "hole_psnr_of_mean"}
    assert summary["psnr"] == pytest.approx((18.0, 2.0, 2, 1))  # deviation sqrt(8), over sqrt(2)
    assert summary["hole_l2"] == pytest.approx((0.1, 0.0, 2, 1))
    mean, error = 0.04 / 3, math.sqrt((0.01**2 + 0.03**2 - 0.04**2 / 3) / 2 / 3)
    assert summary["l2"] == pytest.approx((mean, error, 3, 0))
    assert summary["psnr_of_mean"].mean == pytest.approx(-10 * math.log10(mean))
    assert summary["psnr_of_mean"].count == 3
    assert summary["hole_psnr_of_mean"] == pytest.approx((10.0, 0.0, 2, 1))


def test_summary_over_images_with_several_holes_by_hand() -> None:
    """Images 7 (1 and 3), 2 (8) and 5 (all undefined): means 2 and 8, deviation sqrt(18), error 3."""
    values, images = [1.0, 8.0, math.nan, 3.0, math.inf], [7, 2, 5, 7, 2]
    summary = summarize([{"psnr": value} for value in values], images)
    assert summary["psnr"] == pytest.approx((5.0, 3.0, 2, 2))
    with pytest.raises(ValueError, match="5 rows cannot be of 4 images"):
        summarize([{"psnr": value} for value in values], images[1:])


def test_standard_error_in_decibels_is_the_slope_times_the_error() -> None:
    rows = [{"l2": 0.010}, {"l2": 0.012}]
    summary = summarize(rows)
    step = 1e-6
    slope = 10 * (math.log10(0.011 + step) - math.log10(0.011 - step)) / (2 * step)
    assert summary["psnr_of_mean"].standard_error == pytest.approx(slope * 0.001, rel=1e-4)


def test_summary_of_one_image_and_of_none() -> None:
    single = summarize([{"psnr": 20.0}])["psnr"]
    assert single.mean == 20.0
    assert math.isnan(single.standard_error)
    perfect = summarize([{"l2": 0.0, "psnr": math.inf}])
    assert math.isnan(perfect["psnr"].mean)
    assert perfect["psnr"].excluded == 1
    assert perfect["psnr_of_mean"].mean == math.inf
    with pytest.raises(ValueError, match="no images"):
        summarize([])


def test_the_ratio_of_total_variations_by_hand() -> None:
    """Means 3 and 5: 0.6; residuals 2 - 0.6 * 4 and 4 - 0.6 * 6: -0.4 and 0.4, whose mean is off by 0.4; over 5."""
    rows = [{"hole_tv": 2.0, "hole_tv_original": 4.0}, {"hole_tv": 4.0, "hole_tv_original": 6.0}]
    ratio = summarize(rows)["hole_tv_ratio"]
    assert ratio.mean == pytest.approx(0.6)
    assert ratio.standard_error == pytest.approx(0.08)
    assert (ratio.count, ratio.excluded) == (2, 0)
    assert "tv_ratio" not in summarize(rows)
    # holes of one image count as one: (2 + 4) / 2 = 3, again
    rows = [{"tv": 2.0, "tv_original": 4.0}, {"tv": 4.0, "tv_original": 4.0}, {"tv": 3.0, "tv_original": 6.0}]
    assert summarize(rows, [7, 7, 8])["tv_ratio"].mean == pytest.approx(3 / 5)
    flat = summarize([{"tv": 1.0, "tv_original": 0.0}])["tv_ratio"]
    assert math.isnan(flat.mean) and flat.excluded == 1
