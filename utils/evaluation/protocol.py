"""The crop and the holes of an evaluation in words, without which its figures mean nothing."""

from __future__ import annotations

from utils.config import FREEFORM_PROTOCOLS, TestConfig
from utils.evaluation.report import portable_path

STYLE_WORDS = {
    "freeform-thin": "4 to 50 brush strokes, 5 to 14 pixels wide in 256",
    "freeform-medium": "4 to 5 brush strokes, 5 to 54 pixels wide in 256, or (3 in 13) up to 5 boxes",
    "freeform-thick": "1 to 5 brush strokes, 5 to 104 pixels wide in 256, or (3 in 13) up to 3 boxes",
}


def describe_crop(config: TestConfig) -> str:
    """What part of a photograph is evaluated, at which resolution."""
    crop = {
        "center": "the middle of the photograph at full resolution",
        "fit": "the photograph shrunk (area averaging) to just cover it, then the middle",
        "stretch": "the whole photograph, resized without keeping its aspect ratio",
    }
    if isinstance(config.eval_crop, str):
        words = crop[config.eval_crop]
    else:
        words = f"the middle {_size(config.eval_crop)} of the photograph, resized"
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
        less = f"less up to half of {list(config.max_delta_shape)} on each side, "
        return f"{box}, {less if any(config.max_delta_shape) else ''}margin {list(config.margin)}, {drawn}"
    if config.protocol in FREEFORM_PROTOCOLS:
        return f"{STYLE_WORDS[config.protocol]}, at most half of the image, {drawn}"
    order = "of the photographs' names" if config.protocol == "mask_dir" else "in the photographs' order"
    return f"masks of {portable_path(config.mask_path)} {order}, white is the hole"


def _size(shape) -> str:
    return "x".join(map(str, shape[:2]))
