"""Which image goes with which mask and where its results go; names only, nothing is opened."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.file_list import read_file_list
from utils.cli import UserError
from utils.progress import warn

# x_mask.png and LaMa's x_mask001.png, for x.png; the authors' x_mask.png, for x_input.png beside x_output.png
MASK_NAME = re.compile(r"(?P<of>.+)[ _.-]mask[ _-]?\d*", re.IGNORECASE)
INPUT, OUTPUT = "_input", "_output"


@dataclass(frozen=True)
class Job:
    """One image to inpaint."""

    image: str
    name: str  # relative to what all images have in common
    output: str
    attention: str | None
    mask: str  # one for all images, or what the masks are found in
    masks: Mapping[str, Sequence[str]] | None = None  # by the stem of the image; None: `mask` is the one

    def find_mask(self) -> str:
        """UserError if there is none, or more than one."""
        if self.masks is None:
            return self.mask
        stem = _stem(self.name)
        found = sorted({*self.masks.get(stem, ()), *self.masks.get(stem.removesuffix(INPUT), ())} - {self.image})
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(self.image, f"has several masks: {', '.join(found[:3])}; keep one")
        raise UserError(self.image, f"has no mask in {self.mask}; name it {stem}.png or {stem}_mask.png")


def plan_jobs(image: str, mask: str, output: str, attention: str | None) -> list[Job]:
    """What --image, --mask, --output and --save-attention mean together.

    An image given by its name goes to `output`, as PNG under its own name if that is a folder. Those of a folder or a
    pattern go to PNG files of the same names in the folders `output` and `attention`. Files that are masks by their
    name, or that --mask names, are no images. Raises UserError: nothing there, no masks, results among the images.
    """
    many = os.path.isdir(image) or (_is_pattern(image) and not os.path.exists(image))
    if not many and not os.path.isfile(image):
        raise UserError(f"--image {image}: no such image or folder")
    if not os.path.exists(mask) and not _is_pattern(mask):
        raise UserError(f"--mask {mask}: no such file or folder")
    images = read_file_list(image) if many else [image]
    base = _base(image, images) if many else os.path.dirname(image) or "."
    one = os.path.isfile(mask)
    masks = [mask] if one else read_file_list(mask, note=lambda text: None)
    by_name = not one and os.path.isdir(mask) and os.path.realpath(mask) == os.path.realpath(base)
    if by_name:  # one folder for both
        masks = [path for path in masks if MASK_NAME.fullmatch(_stem(os.path.basename(path)))]
        if not masks:
            reason = "is where the images are, and none of its files is named as a mask (x_mask.png for x.png)"
            raise UserError(f"--mask {mask} {reason}; name masks so, or keep them in a folder of their own")
    if many:
        images = _without_masks(images, masks)
    if not images:
        raise UserError(f"--image {image}: all its images are masks")
    found: dict[str, list[str]] | None = None if one else {}
    start = "" if one else _base(mask, masks)
    for path in masks if not one else ():
        stem = _stem(os.path.relpath(path, start))
        named = MASK_NAME.fullmatch(stem)
        for key in {named["of"] if named else stem, stem}:
            found.setdefault(key, []).append(path)
    if not many:
        name = os.path.basename(image)
        return [Job(image, name, _within(output, name), attention and _within(attention, name), mask, found)]
    for folder, option in ((output, "--output"), (attention, "--save-attention")):
        if folder is None:
            continue
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise UserError(f"{option} {folder} is a file; several images need a folder")
        if os.path.isdir(image) and is_within(folder, image):
            raise UserError(f"{option} {folder} is within --image {image}; choose a folder outside of it")
    names = [os.path.relpath(path, base) for path in images]
    stems = Counter(_stem(name) for name in names)
    jobs = []
    for path, name in zip(images, names):
        # a.jpg and a.png: both keep their suffix
        result = (name if stems[_stem(name)] > 1 else _stem(name)) + ".png"
        there = attention and os.path.join(attention, result)
        jobs.append(Job(path, name, os.path.join(output, result), there, mask, found))
    return jobs


def _without_masks(images: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Without masks, and without the authors' x_output.png beside x_input.png; a line says how many."""
    real = {os.path.realpath(path) for path in masks}
    stems = {_stem(path) for path in images}
    rest = [path for path in images if os.path.realpath(path) not in real]
    made = {stem.removesuffix(INPUT) + OUTPUT for stem in stems if stem.endswith(INPUT)}
    kept = [path for path in rest if _stem(path) not in made]
    for what, count in (("masks", len(images) - len(rest)), (f"results (x{OUTPUT})", len(rest) - len(kept))):
        if count:
            warn(f"{count} of {len(images)} images are {what} and are not inpainted")
    return kept


def protect_originals(job: Job, mask: str) -> None:
    """UserError if a result would replace an image or a mask, or another result."""
    for result in (job.output, job.attention):
        for original in (job.image, mask):
            if result and os.path.exists(result) and os.path.samefile(result, original):
                raise UserError(result, "is the image or the mask itself; choose another name for the result")
    if job.attention and os.path.abspath(job.attention) == os.path.abspath(job.output):
        raise UserError(job.output, "--output and --save-attention name the same file")


def is_within(path: str, folder: str) -> bool:
    folder = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), folder]) == folder


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _base(source: str, paths: Sequence[str]) -> str:
    return source if os.path.isdir(source) else os.path.commonpath([os.path.dirname(path) or "." for path in paths])


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _within(output: str, name: str) -> str:
    is_folder = os.path.isdir(output) or output.endswith(os.sep)
    return os.path.join(output, _stem(name) + ".png") if is_folder else output
