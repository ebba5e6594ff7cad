"""What an evaluation measures on: every image of a list, cropped, with each of its holes by the protocol."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.dataset import center_crop, resize
from data.file_list import one_line, read_file_list
from data.image_io import read_rgb
from data.mask_io import read_mask
from data.masks import STYLES, boxes_to_mask, center_box, freeform_mask, random_box, shrink_box
from utils.cli import UserError

# Second word of the seeds drawn here; training uses others, below 20.
STREAMS = {"random_box": 20, **{name: 21 + i for i, name in enumerate(STYLES)}}
MASK_STEM = re.compile(r"(.+)_mask\d*")  # x_mask, x_mask001: masks of x, of x_input, in the manner of others' sets
SHOWN_MISSING = 3


class Sample(NamedTuple):
    """One image with one hole."""

    image_index: int  # place in the list, from 0
    name: str
    hole_index: int  # from 0
    target: np.ndarray  # uint8 [H, W, 3]
    mask: np.ndarray  # uint8 [H, W], 1 = hole
    hole: str  # a box: "top left height width" in pixels; a saved mask: its file; free form: a checksum


class EvalSet:
    """The samples of a list of images, in its order; what cannot be used is left out.

    paths, names: of the images. holes: has hole(image_index, hole_index) -> (mask, name). masks_per_image: holes
    of each image. size: (height, width) of the samples. crop: see `crop_image`. warn: called with each image left
    out; `skipped` gets the same errors.
    """

    def __init__(
        self,
        paths: Sequence[str],
        names: Sequence[str],
        holes: RandomMasks | MaskFiles,
        masks_per_image: int,
        size: tuple[int, int],
        crop: str | tuple[int, int],
        warn: Callable[[str], None],
    ):
        self.paths, self.names = paths, names
        self.holes, self.masks_per_image = holes, masks_per_image
        self.size, self.crop = size, crop
        self.warn = warn
        self.skipped: list[UserError] = []

    def __len__(self) -> int:
        """Samples, if no image is skipped."""
        return len(self.paths) * self.masks_per_image

    def __iter__(self) -> Iterator[Sample]:
        self.skipped.clear()
        for index in range(len(self.paths)):
            try:
                target = self._target(index)
                samples = [self._sample(index, hole, target) for hole in range(self.masks_per_image)]
            except UserError as error:
                self.warn(f"skipped {error}")
                self.skipped.append(error)
                continue
            yield from samples

    def load(self, image_index: int, hole_index: int) -> Sample:
        """One sample. Raises UserError if the image or its mask cannot be used."""
        return self._sample(image_index, hole_index, self._target(image_index))

    def _sample(self, index: int, hole_index: int, target: np.ndarray) -> Sample:
        return Sample(index, self.names[index], hole_index, target, *self.holes.hole(index, hole_index))

    def _target(self, index: int) -> np.ndarray:
        image = read_rgb(self.paths[index])
        try:
            return crop_image(image, self.size, self.crop)
        except UserError as error:
            raise UserError(self.paths[index], error.reason) from None  # there it has no name


@dataclass(frozen=True)
class RandomMasks:
    """Holes that depend on the seed, the image's place in the list and their own number alone.

    protocol: center, random_box (TF1 random_bbox and bbox2mask) or a name in `STYLES`.
    image_size, box_size, margin, max_delta: (height, width); the last three are for boxes.
    """

    protocol: str
    image_size: tuple[int, int]
    box_size: tuple[int, int]
    margin: tuple[int, int]
    max_delta: tuple[int, int]
    seed: int

    def hole(self, image_index: int, hole_index: int) -> tuple[np.ndarray, str]:
        """uint8 [H, W], 1 = hole, and what the hole is called."""
        rng = np.random.default_rng([self.seed, STREAMS.get(self.protocol, 0), image_index, hole_index])
        if self.protocol in STYLES:
            mask = freeform_mask(self.protocol, self.image_size, rng)
            return mask, mask_checksum(mask)
        if self.protocol == "center":
            box = center_box(self.image_size, self.box_size)
        else:
            box = shrink_box(random_box(self.image_size, self.box_size, self.margin, rng), self.max_delta, rng)
        return boxes_to_mask([box], self.image_size)[0, 0].astype(np.uint8), " ".join(map(str, box))


class MaskFiles:
    """Masks from files: paths[image_index][hole_index], each read when it is asked for.

    size: (height, width); masks of the same aspect ratio are resized to it (nearest). invert: black is the hole.
    warn: called for the first unusual mask of each kind.
    """

    def __init__(
        self, paths: Sequence[Sequence[str]], size: tuple[int, int], invert: bool, warn: Callable[[str], None]
    ):
        self.paths, self.size, self.invert, self.warn = paths, size, invert, warn
        self._warned: set[str] = set()

    def hole(self, image_index: int, hole_index: int) -> tuple[np.ndarray, str]:
        """uint8 [H, W], 1 = hole, and the file's name.

        Raises UserError, as `read_mask` does.
        """
        path = self.paths[image_index][hole_index]
        return read_mask(path, self.size, self.invert, self._warn_once), os.path.basename(path)

    def _warn_once(self, text: str) -> None:
        kind = " ".join(text.partition(": ")[2].split()[:3])  # "the hole is", "its levels are", ...
        if kind not in self._warned:
            self._warned.add(kind)
            self.warn(f"{text} (further masks like this are not named)")


def mask_checksum(mask: np.ndarray) -> str:
    """12 hexadecimal digits of the SHA-256 of a mask's pixels, a byte each (0 or 1), row by row."""
    return hashlib.sha256(np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()[:12]


def masks_in_order(source: str, images: int, masks_per_image: int) -> list[list[str]]:
    """Masks of a text list, folder or glob, in its order: masks_per_image for each image.

    A text list may name a mask several times. More masks than needed are left over.
    Raises UserError: there are too few, or the list cannot be used.
    """
    paths = read_file_list(source, keep_repeats=True)
    needed = images * masks_per_image
    if len(paths) < needed:
        raise UserError(
            f"mask_path: {one_line(source)} has {len(paths)} masks, but {images} images with {masks_per_image} "
            f"hole{'s' * (masks_per_image != 1)} each need {needed}: add masks, or evaluate fewer with --count"
        )
    return [paths[i : i + masks_per_image] for i in range(0, needed, masks_per_image)]


def masks_by_name(
    folder: str, paths: Sequence[str], names: Sequence[str], masks_per_image: int
) -> list[list[str]]:
    """Masks of a folder that have the names of the images, with any image suffix.

    Hole 0 of `a/x.jpg` is `a/x.png` or `a/x_0.png`; hole 1, `a/x_1.png`, and so on. Where they are missing, the
    masks `a/x_mask.png`, `a/x_mask001.png`, ... of `a/x.jpg` or `a/x_input.jpg` in their order. The folder may be
    that of the images: an image is never its own mask.
    Raises UserError: masks are missing, or the folder cannot be used.
    """
    if not os.path.isdir(folder):
        raise UserError(f"mask_path: the folder of masks {one_line(folder)} does not exist")
    images = {os.path.realpath(path) for path in paths}
    by_stem: dict[str, str] = {}
    of_image: dict[str, list[str]] = {}
    for path in read_file_list(folder):
        stem = _stem(os.path.relpath(path, folder))
        if os.path.realpath(path) not in images:
            by_stem[stem] = path
        if match := MASK_STEM.fullmatch(stem):
            of_image.setdefault(match[1], []).append(path)
    found, missing = [], []
    for stem in map(_stem, names):
        masks = [by_stem.get(f"{stem}_{number}") for number in range(masks_per_image)]
        masks[0] = masks[0] or by_stem.get(stem)
        others = of_image.get(stem) or of_image.get(stem.removesuffix("_input"), [])
        if not all(masks) and len(others) >= masks_per_image:
            masks = others[:masks_per_image]
        missing += [f"{stem}_{number}" if number else stem for number, path in enumerate(masks) if not path]
        found.append(masks)
    if missing:
        total = len(names) * masks_per_image
        examples = ", ".join(f"{one_line(stem)}.png" for stem in missing[:SHOWN_MISSING])
        raise UserError(
            f"mask_path: {len(missing)} of {total} masks are not in {one_line(folder)}, e.g. {examples}: a mask has "
            "its image's name (x.png for x.jpg) or x_mask.png; for masks with other names use protocol=mask_list"
        )
    return found


def without_masks(paths: Sequence[str]) -> list[str]:
    """The paths less those that are, by their names, masks of others: x_mask.png or x_mask001.png beside x.png."""
    stems = {_stem(path) for path in paths}

    def is_mask(path: str) -> bool:
        match = MASK_STEM.fullmatch(_stem(path))
        return bool(match) and not stems.isdisjoint((match[1], f"{match[1]}_input"))

    return [path for path in paths if not is_mask(path)]


def crop_image(image: np.ndarray, image_size: Sequence[int], crop: str | Sequence[int]) -> np.ndarray:
    """The part of an image that is evaluated -> uint8 [height, width, 3].

    crop: "center": the middle, at full resolution. "fit": shrunk until it just covers image_size, then the
        middle. "stretch": the whole, resized without keeping its aspect ratio. (height, width): the middle of
        this many pixels, resized. What is too small is enlarged (bilinear); what is shrunk is averaged.
    Raises UserError: the image is too long and narrow.
    """
    height, width = image_size
    if crop == "stretch":
        return resize(image, height, width)
    if crop == "fit":
        factor = max(height / image.shape[0], width / image.shape[1])
        if factor < 1:
            rows, columns = (round(side * factor) for side in image.shape[:2])
            image = resize(image, max(rows, height), max(columns, width))
    elif crop != "center":
        return resize(center_crop(image, *crop), height, width)
    return center_crop(image, height, width)


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]
