"""Paths of images -> training samples, each a pure function of the seed and its number."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import cv2
import numpy as np

from data.image_io import MAX_PIXELS, read_rgb
from utils.cli import UserError

__all__ = ["UserError", "PhotoDataset", "center_crop", "read_rgb"]

MAX_ATTEMPTS = 20
# Second word of each seed: the streams for different purposes never meet.
ORDER_STREAM, CROP_STREAM, REPLACEMENT_STREAM = 0, 1, 2


class PhotoDataset:
    """An endless, numbered sequence of crops; each epoch visits every image once, in its own order.

    paths: image files.
    image_size: (height, width) of the samples.
    seed: not negative; with the sample's number it decides everything.
    random_crop: True: a random window, without shrinking larger images, as in TF1; False: the whole image
        resized to image_size.
    horizontal_flip: mirror every second sample, at random.
    scale_range: (lowest, highest) factor by which an image is resized before the crop, drawn log-uniformly;
        never so low that the crop no longer fits. Only with random_crop.
    cache_mb: decoded images kept in memory, per process, until this much is used.
    """

    def __init__(
        self,
        paths: Sequence[str],
        image_size: Sequence[int],
        seed: int,
        random_crop: bool = True,
        horizontal_flip: bool = False,
        scale_range: Sequence[float] = (1.0, 1.0),
        cache_mb: float = 0,
    ):
        if not len(paths):
            raise UserError("there are no images to load; the list of paths is empty")
        lowest, highest = scale_range
        if not 0 < lowest <= highest < float("inf"):
            raise UserError(f"scale_range {lowest}..{highest} is not a range of positive factors")
        if not random_crop and (lowest, highest) != (1.0, 1.0):
            raise UserError("scale_range has no effect without random_crop; set random_crop to true")
        self.paths = paths
        self.image_size = int(image_size[0]), int(image_size[1])
        self.seed = seed
        self.random_crop = random_crop
        self.horizontal_flip = horizontal_flip
        self.scale_range = lowest, highest
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._cache = {}
        self._cache_left = int(cache_mb * 2**20)

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, number: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
        """Sample `number` >= 0 -> (uint8 [H,W,3] RGB, [(path, reason) of files that failed on the way]).

        A file that fails is replaced by another one, chosen by (seed, number, attempt).
        Raises UserError: MAX_ATTEMPTS files in a row failed.
        """
        bad = []
        for index in self._candidates(number):
            # The same stream for every attempt: the crop depends on the number and the image alone.
            rng = np.random.default_rng([self.seed, CROP_STREAM, number])
            try:
                return self._sample(index, rng), bad
            except UserError as error:
                bad.append((error.path, error.reason))
        path, reason = bad[0]
        raise UserError(f"{MAX_ATTEMPTS} images in a row cannot be used, e.g. {UserError(path, reason)}; "
                        "check the list and the disk")

    def source_path(self, number: int, unusable: Container[str] = ()) -> str:
        """The path that sample `number` comes from where the files in `unusable` failed."""
        paths = [self.paths[index] for index in self._candidates(number)]
        return next((path for path in paths if path not in unusable), paths[0])

    def _candidates(self, number: int) -> Iterator[int]:
        """Indices of the file for a sample and of those that take its place, one after the other."""
        yield self._index_of(number)
        for attempt in range(1, MAX_ATTEMPTS):
            replacement = np.random.default_rng([self.seed, REPLACEMENT_STREAM, number, attempt])
            yield int(replacement.integers(len(self.paths)))

    def _index_of(self, number: int) -> int:
        epoch, place = divmod(number, len(self.paths))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, ORDER_STREAM, epoch]).permutation(len(self.paths))
            self._epoch = epoch
        return int(self._order[place])

    def _image(self, index: int) -> np.ndarray:
        image = self._cache.get(index)
        if image is None:
            image = read_rgb(self.paths[index])
            # Nothing is thrown out again: under random visits an older image is worth as much as a newer one.
            if image.nbytes <= self._cache_left:
                self._cache[index] = image
                self._cache_left -= image.nbytes
        return image

    def _sample(self, index: int, rng: np.random.Generator) -> np.ndarray:
        image = self._image(index)
        # All are drawn always, so that switching one option changes nothing else.
        factor, top, left, flip = rng.random(4)
        height, width = self.image_size
        if self.random_crop:
            lowest, highest = self.scale_range
            factor = lowest * (highest / lowest) ** factor
            image = _resize_for_crop(image, height, width, factor, self.paths[index])
            top = int(top * (image.shape[0] - height + 1))
            left = int(left * (image.shape[1] - width + 1))
            image = image[top : top + height, left : left + width]
        else:
            image = resize(image, height, width)
        if self.horizontal_flip and flip < 0.5:
            image = image[:, ::-1]
        return image.copy()  # an image of the cache stays the cache's own


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of an image for evaluation -> uint8 [height,width,3]; too small images are first upscaled.

    Raises UserError: the image is so long and narrow that upscaling it would take gigabytes.
    """
    image = _resize_for_crop(image, height, width, 1.0, "the image")
    top = (image.shape[0] - height) // 2
    left = (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width].copy()


def _resize_for_crop(image: np.ndarray, height: int, width: int, factor: float, path: str) -> np.ndarray:
    """Resize by `factor`, or by as much more as a crop of height x width needs; the aspect ratio is kept."""
    factor = max(factor, height / image.shape[0], width / image.shape[1])
    if factor == 1.0:
        return image
    new_height = max(height, round(image.shape[0] * factor))
    new_width = max(width, round(image.shape[1] * factor))
    if new_height * new_width > MAX_PIXELS:
        raise UserError(path, f"has {image.shape[1]}x{image.shape[0]} pixels, too long and narrow "
                               f"for a crop of {width}x{height}")
    return resize(image, new_height, new_width)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3] -> [height, width, 3], averaged where it shrinks, bilinear where it grows."""
    if image.shape[:2] == (height, width):
        return image
    # Averaging where it shrinks: bilinear would skip pixels and alias.
    shrinks = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
