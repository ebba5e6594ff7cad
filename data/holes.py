"""What an evaluation measures on: the crop of a photograph, and its holes by the name of the protocol."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data.dataset import center_crop, resize
from data.decode import ImageError, decode_image
from data.file_list import DataError, one_line, read_file_list
from data.masks import STYLES, boxes_to_mask, center_box, freeform_mask, random_box, shrink_box

# Second word of the seeds drawn here; training uses others, below 20.
STREAMS = {"random_box": 20, **{name: 21 + i for i, name in enumerate(STYLES)}}
SHOWN_MISSING = 3


class Hole(NamedTuple):
    """One hole of one photograph."""

    mask: np.ndarray  # uint8 [H, W], 1 = hole
    name: str  # a box: "top left height width" in pixels; a saved mask: its file; free form: a checksum


@dataclass(frozen=True)
class DrawnHoles:
    """Holes that depend on the seed, the photograph's place in the list and their own number alone.

    protocol: center, random_box (TF1 random_bbox and bbox2mask) or a name in `data.freeform.STYLES`.
    image_size, box_size, margin, max_delta: (height, width); the last three are for boxes.
    """

    protocol: str
    image_size: tuple[int, int]
    box_size: tuple[int, int]
    margin: tuple[int, int]
    max_delta: tuple[int, int]
    seed: int

    def hole(self, index: int, number: int) -> Hole:
        """Hole `number` of the photograph at place `index`, both from 0."""
        if self.protocol == "center":
            return self._box(center_box(self.image_size, self.box_size))
        rng = np.random.default_rng([self.seed, STREAMS[self.protocol], index, number])
        if self.protocol == "random_box":
            box = random_box(self.image_size, self.box_size, self.margin, rng)
            return self._box(shrink_box(box, self.max_delta, rng))
        mask = freeform_mask(self.protocol, self.image_size, rng)
        return Hole(mask, mask_checksum(mask))

    def _box(self, box: Sequence[int]) -> Hole:
        return Hole(boxes_to_mask([box], self.image_size)[0, 0].astype(np.uint8), " ".join(map(str, box)))


@dataclass(frozen=True)
class SavedHoles:
    """Masks from files: paths[index][number], each read when it is asked for. White is the hole."""

    paths: Sequence[Sequence[str]]
    image_size: tuple[int, int]

    def hole(self, index: int, number: int) -> Hole:
        """Raises ImageError: the file is no image, has another aspect ratio than the crop, or is all black."""
        path = self.paths[index][number]
        levels = decode_image(path).max(axis=2)
        height, width = self.image_size
        if levels.shape[0] * width != levels.shape[1] * height:
            size = f"{levels.shape[0]}x{levels.shape[1]}"
            raise ImageError(path, f"is a mask of {size}, which does not fit {height}x{width} photographs")
        mask = cv2.resize((levels > 127).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        if not mask.any():
            raise ImageError(path, "is a mask without a hole: no pixel is white")
        return Hole(mask, os.path.basename(path))


def mask_checksum(mask: np.ndarray) -> str:
    """12 hexadecimal digits of the SHA-256 of a mask's pixels, a byte each (0 or 1), row by row."""
    return hashlib.sha256(np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()[:12]


def masks_in_order(source: str, photos: int, holes_per_image: int) -> list[list[str]]:
    """Masks of a text list, folder or glob, in its order: holes_per_image for each photograph.

    A text list may name a mask several times. More masks than needed are left over.
    Raises DataError: there are too few, or the list cannot be used.
    """
    paths = read_file_list(source, keep_repeats=True)
    needed = photos * holes_per_image
    if len(paths) < needed:
        raise DataError(
            f"{one_line(source)} has {len(paths)} masks, but {photos} photographs with {holes_per_image} "
            f"hole{'s' * (holes_per_image != 1)} each need {needed}: add masks, or evaluate fewer with --count"
        )
    return [paths[i : i + holes_per_image] for i in range(0, needed, holes_per_image)]


def masks_by_name(folder: str, names: Sequence[str], holes_per_image: int) -> list[list[str]]:
    """Masks of a folder that have the names of the photographs, with any image suffix.

    Hole 0 of `a/photo.jpg` is `a/photo.png` or `a/photo_0.png`; hole 1, `a/photo_1.png`, and so on.
    Raises DataError: masks are missing, or the folder cannot be used.
    """
    if not os.path.isdir(folder):
        raise DataError(f"the folder of masks {one_line(folder)} does not exist")
    by_stem = {os.path.splitext(os.path.relpath(path, folder))[0]: path for path in read_file_list(folder)}
    found, missing = [], []
    for name in names:
        stem = os.path.splitext(name)[0]
        masks = [by_stem.get(f"{stem}_{number}") for number in range(holes_per_image)]
        masks[0] = masks[0] or by_stem.get(stem)
        missing += [f"{stem}_{number}" if number else stem for number, path in enumerate(masks) if not path]
        found.append(masks)
    if missing:
        total = len(names) * holes_per_image
        examples = ", ".join(f"{one_line(stem)}.png" for stem in missing[:SHOWN_MISSING])
        raise DataError(
            f"{len(missing)} of {total} masks are not in {one_line(folder)}, e.g. {examples}: a mask has its "
            "photograph's name; for masks with other names use protocol=mask_list"
        )
    return found


def crop_photo(image: np.ndarray, image_size: Sequence[int], crop: str | Sequence[int]) -> np.ndarray:
    """The part of a photograph that is evaluated -> uint8 [height, width, 3].

    crop: "center": the middle, at full resolution. "fit": shrunk until the image is just covered, then the
        middle. "stretch": the whole, resized without keeping its aspect ratio. (height, width): the middle of
        this many pixels, resized. What is too small is enlarged (bilinear); what is shrunk is averaged.
    Raises DataError: the photograph is too long and narrow.
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
