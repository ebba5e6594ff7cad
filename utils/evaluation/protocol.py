"""The protocol of an evaluation in words, without which its numbers mean nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from utils.config import FREEFORM_PROTOCOLS, TestConfig
from utils.evaluation.baselines import INPAINT_RADIUS, RING_WIDTH
from utils.metrics import SSIM_PARAMETERS
from utils.paths import portable_path

LABEL, LINE = 15, 100  # width of the first column and of a line of text, characters
SSIM_SETTINGS = ", ".join(f"{name}={value}" for name, value in SSIM_PARAMETERS.items())
METRICS = (
    "All are of 8-bit RGB images, as saved: results rounded to the nearest level, known pixels unchanged.",
    "PSNR: 10 log10(1 / l2) in dB, mean over images; PSNR*: the same of the mean l2.",
    f"SSIM: skimage.metrics.structural_similarity({SSIM_SETTINGS}); in the hole the mean of its map there.",
    "l1, l2: mean absolute and mean squared error, levels scaled to [0, 1].",
    "l1 %, l2 %: 100 sum|r - t| / sum|t| and 100 sum(r - t)^2 / sum t^2 of result r and original t.",
    "TV, of the result alone: mean absolute difference of vertical neighbours plus that of horizontal ones, "
    "levels scaled to [0, 1]; in the hole the pairs with a pixel in it. TV ratio: mean TV / that of the originals.",
)
METHODS = {
    "mean_color": f"mean colour of the known pixels within {RING_WIDTH} pixels of the hole",
    "telea": f"cv2.inpaint, INPAINT_TELEA, radius {INPAINT_RADIUS:g}",
    "navier_stokes": f"cv2.inpaint, INPAINT_NS, radius {INPAINT_RADIUS:g}",
    "biharmonic": "skimage.restoration.inpaint_biharmonic",
    "coarse": "the model's coarse stage alone",
    "model": "the model",
}
STYLE_WORDS = {
    "freeform-thin": "4 to 50 brush strokes, 5 to 14 pixels wide in 256",
    "freeform-medium": "4 to 5 brush strokes, 5 to 54 pixels wide in 256, or (3 in 13) up to 5 boxes",
    "freeform-thick": "1 to 5 brush strokes, 5 to 104 pixels wide in 256, or (3 in 13) up to 3 boxes",
}


def describe_model(model: Any) -> str:
    """A `tester.ModelInfo` in words."""
    words = f"iteration {model.iteration}, dialect {model.dialect}, {model.channels} channels"
    words += ", coarse stage only" if model.coarse_only else ""
    return words + ("" if model.contextual_attention else ", without contextual attention")


def describe_crop(config: TestConfig) -> str:
    """What part of an image is evaluated, at which resolution."""
    crop = {
        "center": "the middle of the image at full resolution",
        "fit": "the image shrunk (area averaging) to just cover it, then the middle",
        "stretch": "the whole image, resized without keeping its aspect ratio",
    }
    if isinstance(config.eval_crop, str):
        words = crop[config.eval_crop]
    else:
        words = f"the middle {_size(config.eval_crop)} of the image, resized"
    return f"{_size(config.image_shape)} (height x width), {words}; what is too small is enlarged (bilinear)"


def describe_holes(config: TestConfig) -> str:
    """Where the holes come from; the same words mean the same holes, for saved masks with the same files."""
    words = _one_hole(config)
    if config.masks_per_image > 1:
        words += f"; {config.masks_per_image} holes an image, one at a time"
    return f"{config.protocol}: {words}"


def _one_hole(config: TestConfig) -> str:
    box = f"{_size(config.mask_shape)} pixels (height x width)"
    drawn = f"drawn from seed {config.seed} and the place in the list"
    if config.protocol == "center":
        return f"{box} in the middle"
    if config.protocol == "random_box":
        shrunk = f"shrunk by up to half of {list(config.max_delta_shape)} per side, "
        return f"{box}, {shrunk if any(config.max_delta_shape) else ''}margin {list(config.margin)}, {drawn}"
    if config.protocol in FREEFORM_PROTOCOLS:
        return f"{STYLE_WORDS[config.protocol]}, at most half of the image, {drawn}"
    order = "of the images' names" if config.protocol == "mask_dir" else "in the images' order"
    color = "black" if config.mask_invert else "white"
    return f"masks of {portable_path(config.mask_path)} {order}, {color} is the hole"


def format_fields(entries: Mapping[str, str | Sequence[str]]) -> str:
    """Paragraphs, each beside its label; a label without any is left out."""
    lines = []
    for label, content in entries.items():
        for paragraph in [content] if isinstance(content, str) else content:
            wrapped = textwrap.wrap(paragraph, LINE - LABEL, break_long_words=False, break_on_hyphens=False)
            for line in wrapped:
                lines.append(f"{label:{LABEL}}{line}")
                label = ""
    return "\n".join(lines)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[:2]))
