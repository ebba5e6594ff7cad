"""What an evaluation runs on: photographs with their holes, in the order of the list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data.decode import ImageError, decode_image
from data.file_list import DataError
from data.holes import DrawnHoles, Hole, SavedHoles, crop_photo, masks_by_name, masks_in_order


class Sample(NamedTuple):
    """A photograph to evaluate on, with one hole."""

    index: int  # place in the list
    name: str
    number: int  # of the hole, from 0
    truth: np.ndarray  # uint8 [H, W, 3]
    hole: Hole


def saved_holes(
    protocol: str, mask_path: str, names: Sequence[str], holes_per_image: int, size: tuple[int, int]
) -> SavedHoles:
    """The holes of protocol mask_dir or mask_list for the photographs `names`; all masks are looked for now."""
    try:
        if protocol == "mask_dir":
            return SavedHoles(masks_by_name(mask_path, names, holes_per_image), size)
        return SavedHoles(masks_in_order(mask_path, len(names), holes_per_image), size)
    except DataError as error:
        raise DataError(f"mask_path: {error}") from None


class Samples:
    """Every photograph of a list with each of its holes; those that cannot be used are left out.

    paths, names: of the photographs. holes: see `data.holes`. size: (height, width) of the samples; crop: see
    `data.holes.crop_photo`. warn: told of each photograph left out, once; `skipped` has path, name and error.
    """

    def __init__(
        self,
        paths: Sequence[str],
        names: Sequence[str],
        holes: DrawnHoles | SavedHoles,
        holes_per_image: int,
        size: tuple[int, int],
        crop: str | tuple[int, int],
        warn: Callable[[str], None],
    ):
        self.skipped: list[tuple[str, str, ImageError]] = []
        self._paths, self._names = paths, names
        self._holes, self._holes_per_image = holes, holes_per_image
        self._size, self._crop = size, crop
        self._warn = warn

    def __iter__(self) -> Iterator[Sample]:
        for index, (path, name) in enumerate(zip(self._paths, self._names)):
            try:
                truth = self._photo(index)
                samples = [self._sample(index, number, truth) for number in range(self._holes_per_image)]
            except ImageError as error:
                self._warn(f"skipped {error}")
                self.skipped.append((path, name, error))
                continue
            yield from samples

    def load(self, index: int, number: int) -> Sample:
        """One photograph with one of its holes; ImageError if it or its mask cannot be used."""
        return self._sample(index, number, self._photo(index))

    def _sample(self, index: int, number: int, truth: np.ndarray) -> Sample:
        return Sample(index, self._names[index], number, truth, self._holes.hole(index, number))

    def _photo(self, index: int) -> np.ndarray:
        path = self._paths[index]
        image = decode_image(path)
        try:
            return crop_photo(image, self._size, self._crop)
        except ImageError as error:
            raise ImageError(path, error.reason) from None  # there it has no name
