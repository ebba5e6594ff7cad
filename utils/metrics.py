"""How close a result is to its target. Every number is of uint8 images, as they are saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from skimage.metrics import structural_similarity

SSIM_SIDE = 11  # side of the Gaussian window: sigma 1.5 cut at 3.5 sigma
SSIM_PARAMETERS = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 255,
    "channel_axis": 2,
}
"""Those of Wang et al. (2004), for skimage's structural_similarity; channels are averaged."""


class Summary(NamedTuple):
    """One metric over many images."""

    mean: float
    standard_error: float  # of the mean: sample standard deviation / sqrt(count); NaN for a single image
    count: int  # images that the mean is over
    excluded: int  # rows left out because the metric is infinite or undefined there


def image_metrics(result: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """All metrics of one image; every pixel and channel of the region weighs the same.

    - `l1`, `l2`: mean absolute and mean squared error, levels scaled to [0, 1].
    - `l1_percent`, `l2_percent`: relative to the target t of result r, 100 * sum|r - t| / sum|t| and
      100 * sum(r - t)^2 / sum t^2; NaN if the target is black.
    - `psnr`: 10 log10(255^2 / mean squared error) in dB; infinite where the images are equal.
    - `ssim`: skimage's structural_similarity with SSIM_PARAMETERS; NaN if a side is below 11 pixels.
    - `tv`: total variation of the result alone, in [0, 2]: mean absolute difference of vertical neighbours
      plus that of horizontal neighbours, levels scaled to [0, 1]. `tv_original`: the same of the target.

    With a mask the same again for the hole alone, prefixed `hole_`: errors over the hole's pixels;
    `hole_ssim` is the mean of the SSIM map (of whole images) over the hole; `hole_tv` counts pairs with at
    least one pixel in the hole, so that its seam counts. All are NaN where the hole is empty.

    Args:
        result: uint8 [H, W, 3].
        target: uint8 [H, W, 3].
        mask: [H, W], 1 = hole, any numeric or boolean type; None for the full image only.

    Raises:
        ValueError: wrong type or shape.
    """
    for name, image in (("result", result), ("target", target)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name} must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if result.shape != target.shape:
        raise ValueError(f"result {list(result.shape)} and target {list(target.shape)} differ in shape")
    if mask is not None and mask.shape != result.shape[:2]:
        raise ValueError(f"mask {list(mask.shape)} does not fit the image {list(result.shape)}")

    ssim, ssim_map = _ssim(result, target)
    everywhere = np.ones(result.shape[:2], bool)
    metrics = _region_metrics(result, target, everywhere)
    metrics["ssim"] = ssim
    if mask is not None:
        hole = mask > 0.5
        for name, value in _region_metrics(result, target, hole).items():
            metrics[f"hole_{name}"] = value
        metrics["hole_ssim"] = float(ssim_map[hole].mean()) if hole.any() else math.nan
    return metrics


def summarize(
    rows: Sequence[dict[str, float]], images: Sequence[int] | None = None
) -> dict[str, Summary]:
    """Mean and standard error of each metric over images.

    With several holes an image, an image counts once, with the mean of its holes: holes of one image
    resemble one another, and as if they were independent the standard error would come out too small.

    Infinite PSNRs (equal images) and undefined values are left out of their metric's mean and counted as
    `excluded`. Added: `psnr_of_mean` (and `hole_psnr_of_mean`), the PSNR in dB of the mean of `l2`, equal
    images included; its standard error is that of the mean of `l2` carried to dB to first order. Added as well:
    `tv_ratio` (and `hole_tv_ratio`), the mean of `tv` over the mean of `tv_original`, 1 for results as rich in
    detail as the originals, below 1 for smoother ones; with the first-order standard error of a ratio of means.

    Args:
        rows: dicts of `image_metrics`, one a hole, all with the same keys; keys whose values are not
            numbers are not summarised.
        images: the image that each row is of, as a number; None: each row has an image of its own.

    Raises:
        ValueError: no rows, or not one image a row.
    """
    if not rows:
        raise ValueError("there are no images to summarise")
    if images is None:
        images = range(len(rows))
    elif len(images) != len(rows):
        raise ValueError(f"{len(rows)} rows cannot be of {len(images)} images")
    _, group = np.unique(np.asarray(images), return_inverse=True)
    names = [name for name, value in rows[0].items() if isinstance(value, (int, float))]
    values = {name: np.array([row[name] for row in rows], np.float64) for name in names}
    summary = {name: _summarize_values(values[name], group) for name in names}
    for prefix in ("", "hole_"):
        if f"{prefix}l2" in summary:
            summary[f"{prefix}psnr_of_mean"] = _psnr_of_mean(summary[f"{prefix}l2"])
        if f"{prefix}tv_original" in summary:
            tv, original = values[f"{prefix}tv"], values[f"{prefix}tv_original"]
            summary[f"{prefix}tv_ratio"] = _ratio_of_means(tv, original, group)
    return summary


def _region_metrics(result: np.ndarray, target: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """Everything but SSIM over the pixels of a boolean [H, W]."""
    inside = target[region].astype(np.float64)  # [pixels, 3]
    error = result[region] - inside
    absolute, squared = np.abs(error).sum(), np.square(error).sum()
    l2 = _ratio(squared, error.size * 255.0**2)
    return {
        "l1": _ratio(absolute, error.size * 255.0),
        "l2": l2,
        "l1_percent": 100 * _ratio(absolute, inside.sum()),
        "l2_percent": 100 * _ratio(squared, np.square(inside).sum()),
        "psnr": _psnr(l2),
        "tv": _total_variation(result, region),
        "tv_original": _total_variation(target, region),
    }


def _total_variation(image: np.ndarray, region: np.ndarray) -> float:
    levels = image.astype(np.float64) / 255.0
    vertical = np.abs(np.diff(levels, axis=0))[region[1:] | region[:-1]]
    horizontal = np.abs(np.diff(levels, axis=1))[region[:, 1:] | region[:, :-1]]
    return _ratio(vertical.sum(), vertical.size) + _ratio(horizontal.sum(), horizontal.size)


def _ssim(result: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """The image's SSIM (scikit-image leaves out a border of half a window) and its map [H, W, 3]."""
    if min(result.shape[:2]) < SSIM_SIDE:
        return math.nan, np.full(result.shape, math.nan)
    value, ssim_map = structural_similarity(target, result, full=True, **SSIM_PARAMETERS)
    return float(value), ssim_map


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else math.nan


def _psnr(l2: float) -> float:
    return math.inf if l2 == 0 else -10 * math.log10(l2)


def _summarize_values(values: np.ndarray, group: np.ndarray) -> Summary:
    finite = np.isfinite(values)
    holes = np.bincount(group[finite])
    sums = np.bincount(group[finite], values[finite])
    by_image = sums[holes > 0] / holes[holes > 0]
    count = len(by_image)
    mean = float(by_image.mean()) if count else math.nan
    standard_error = float(by_image.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Summary(mean, standard_error, count, int((~finite).sum()))


def _psnr_of_mean(l2: Summary) -> Summary:
    slope = 10 / (math.log(10) * l2.mean) if l2.mean > 0 else math.nan  # |d PSNR / d l2|
    return Summary(_psnr(l2.mean), slope * l2.standard_error, l2.count, l2.excluded)


def _ratio_of_means(values: np.ndarray, originals: np.ndarray, group: np.ndarray) -> Summary:
    mean = _summarize_values(originals, group).mean
    if not mean > 0:
        return Summary(math.nan, math.nan, 0, len(values))
    ratio = _summarize_values(values, group).mean / mean
    residual = _summarize_values(values - ratio * originals, group)  # its mean is 0
    return residual._replace(mean=ratio, standard_error=residual.standard_error / mean)
