"""The holes: boxes, free-form masks and people's own. A box is (top, left, height, width); in a mask 1 = hole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from data.file_list import read_file_list
from data.image_io import read_rgb
from utils.cli import UserError

Box = tuple[int, int, int, int]

BASE_SIDE = 256  # the shorter side that the sizes below are for
MAX_AREA = 0.5  # fraction of the image; a mask with a larger hole is drawn anew
MAX_BENDS = 5  # straight pieces of a stroke, at most
MAX_TURN = 4.0  # radians: a piece turns by up to this, in every second stroke to the other side

Range = tuple[int, int]  # lowest and highest, both included


class Style(NamedTuple):
    """One thickness; lengths in pixels of an image whose shorter side is 256."""

    strokes: Range  # how many
    length: Range  # of a straight piece
    width: Range  # of the brush, which is round
    box_share: float = 0.0  # fraction of the masks that are made of boxes instead
    boxes: Range = (1, 1)
    box_side: Range = (1, 1)
    box_margin: int = 0  # kept free of boxes at the image's border


STYLES = {
    "freeform-thin": Style((4, 50), (10, 49), (5, 14)),
    "freeform-medium": Style((4, 5), (10, 109), (5, 54), 3 / 13, (1, 5), (10, 50), 0),
    "freeform-thick": Style((1, 5), (10, 209), (5, 104), 3 / 13, (1, 3), (30, 150), 10),
}


def random_box(
    image_size: Sequence[int],
    box_size: Sequence[int],
    margin: Sequence[int],
    rng: np.random.Generator,
) -> Box:
    """A box at a uniformly random place; source: TF1 random_bbox, whose range is half-open.

    image_size, box_size: (height, width). margin: pixels kept free at (top and bottom, left and right).
    top lies in [margin, H - margin - h), so a box never touches the bottom margin, unless box and margins
    fill the image exactly, which leaves one place. The same for left.
    Raises UserError: the box and its margins do not fit the image.
    """
    starts = []
    for whole, part, edge, name in zip(image_size, box_size, margin, ("height", "width")):
        if part < 1 or edge < 0 or part + 2 * edge > whole:
            raise UserError(f"a box of {name} {part} with a margin of {edge} on both sides "
                            f"does not fit an image of {name} {whole}")
        last = whole - edge - part
        starts.append(int(rng.integers(edge, last)) if last > edge else edge)
    return starts[0], starts[1], int(box_size[0]), int(box_size[1])


def center_box(image_size: Sequence[int], box_size: Sequence[int]) -> Box:
    """The box in the middle of the image, the odd pixel below and to the right.

    Raises UserError: the box does not fit the image.
    """
    (height, width), (box_height, box_width) = image_size, box_size
    if not (1 <= box_height <= height and 1 <= box_width <= width):
        raise UserError(f"a box of {box_height}x{box_width} does not fit an image of {height}x{width}")
    return (height - box_height) // 2, (width - box_width) // 2, int(box_height), int(box_width)


def shrink_box(box: Sequence[int], max_delta: Sequence[int], rng: np.random.Generator) -> Box:
    """The hole inside a box; source: TF1 bbox2mask.

    The same number of rows, uniform in 0..max_delta[0] // 2 (both included), goes at the top and at the
    bottom, and in the same way columns, by max_delta[1], at the left and at the right.
    Raises UserError: nothing might be left of the box.
    """
    top, left, height, width = (int(side) for side in box)
    most_rows, most_columns = max_delta[0] // 2, max_delta[1] // 2
    if min(max_delta) < 0 or 2 * most_rows >= height or 2 * most_columns >= width:
        raise UserError(f"a box of {height}x{width} cannot shrink by max_delta {max_delta[0]}x{max_delta[1]}")
    rows = int(rng.integers(0, most_rows + 1))
    columns = int(rng.integers(0, most_columns + 1))
    return top + rows, left + columns, height - 2 * rows, width - 2 * columns


def boxes_to_mask(boxes: Sequence[Sequence[int]], image_size: Sequence[int]) -> np.ndarray:
    """boxes [M,4] -> float32 mask [M,1,H,W], 1 in the box and 0 elsewhere.

    Raises UserError: a box reaches beyond the image.
    """
    height, width = image_size
    mask = np.zeros((len(boxes), 1, height, width), np.float32)
    for plane, box in zip(mask[:, 0], boxes):
        top, left, rows, columns = (int(side) for side in box)
        if min(top, left, rows, columns) < 0 or top + rows > height or left + columns > width:
            raise UserError(f"the box {(top, left, rows, columns)} leaves an image of {height}x{width}")
        plane[top : top + rows, left : left + columns] = 1.0
    return mask


def freeform_mask(name: str, image_size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """A mask of the style STYLES[name] -> uint8 [H, W], 1 = hole; never empty, at most half of the image.

    Brush strokes or boxes in the manner of LaMa's evaluation sets; sizes and numbers are those of Suvorov et al.,
    "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (WACV 2022), for 256x256, and grow and shrink
    with the shorter side of the image. Differences: directions are continuous and not four, masks are drawn on the
    crop and not on the whole image, and strokes are drawn in whole numbers, so that no library's way of drawing
    lines matters. image_size: (height, width).
    """
    style = STYLES[name]
    while True:
        boxes = rng.random() < style.box_share
        mask = _draw_boxes(style, image_size, rng) if boxes else _draw_strokes(style, image_size, rng)
        if mask.mean() <= MAX_AREA:
            return mask


def _scaled(pixels: int, image_size: Sequence[int]) -> int:
    return max(1, round(pixels * min(image_size) / BASE_SIDE))


def _draw(bounds: Range, rng: np.random.Generator) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _draw_boxes(style: Style, image_size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    margin = _scaled(style.box_margin, image_size) if style.box_margin else 0
    boxes = []
    for _ in range(_draw(style.boxes, rng)):
        sides = [_scaled(_draw(style.box_side, rng), image_size) for _ in image_size]
        starts = [_draw((margin, whole - margin - side), rng) for whole, side in zip(image_size, sides)]
        boxes.append((*starts, *sides))
    return boxes_to_mask(boxes, image_size).max(axis=(0, 1)).astype(np.uint8)


def _draw_strokes(style: Style, image_size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(image_size, np.uint8)
    last = np.array(image_size) - 1
    for stroke in range(_draw(style.strokes, rng)):
        start = rng.integers(0, last + 1)  # row, column
        for _ in range(_draw((1, MAX_BENDS), rng)):
            angle = rng.random() * MAX_TURN * (-1 if stroke % 2 else 1)
            length = _scaled(_draw(style.length, rng), image_size)
            width = _scaled(_draw(style.width, rng), image_size)
            step = np.rint(length * np.array([np.cos(angle), np.sin(angle)])).astype(np.int64)
            end = np.clip(start + step, 0, last)
            _paint(mask, start, end, width)
            start = end
    return mask


def _paint(mask: np.ndarray, start: np.ndarray, end: np.ndarray, width: int) -> None:
    """Sets the pixels at most width / 2 away from the line from start to end, in whole numbers throughout."""
    reach = width // 2
    low = np.maximum(np.minimum(start, end) - reach, 0)
    high = np.minimum(np.maximum(start, end) + reach + 1, mask.shape)
    rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
    (down, across), (height, length) = start, end - start
    square = height**2 + length**2
    along = (rows - down) * height + (columns - across) * length  # 0 at the start, `square` at the end
    aside = (rows - down) * length - (columns - across) * height
    to_start = (rows - down) ** 2 + (columns - across) ** 2
    to_end = (rows - end[0]) ** 2 + (columns - end[1]) ** 2
    between = (along > 0) & (along < square) & (4 * aside**2 <= width**2 * square)
    near = (4 * to_start <= width**2) | (4 * to_end <= width**2)
    mask[low[0] : high[0], low[1] : high[1]][between | near] = 1


def box_distance(height: int, width: int) -> np.ndarray:
    """Distance of each pixel of a box to the nearest known one, float32 [height, width], as TF1 counts it.

    `models.losses.discount_mask` is gamma to the power of it: 0 in the first row and column, 1 in the last.
    """
    rows, columns = (np.minimum(np.arange(side), side - np.arange(side)) for side in (height, width))
    return np.minimum(rows[:, None], columns[None, :]).astype(np.float32)


def known_distance(mask: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Euclidean distance of each pixel of a box to the nearest known one, float32 [height, width]; 0 for known ones.

    mask [H, W], 1 = hole, with at least one known pixel.
    """
    top, left, height, width = box
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = distance[top : top + height, left : left + width]
    # Squares of distances are whole numbers; OpenCV's last bits differ from call to call.
    return np.sqrt(np.rint(distance**2)).astype(np.float32)


def blob_mask(size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """One to three smooth random shapes -> uint8 [height, width], 1 = hole; the radius varies with the direction."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros(size, np.uint8)
    for _ in range(_draw((1, 3), rng)):
        down, across = rng.integers(0, (height, width))  # its own pixel is in it: the radius is positive
        angle = np.arctan2(rows - down, columns - across)
        amplitudes, phases = rng.random(4) * 0.24, rng.random(4) * 2 * np.pi
        waves = sum(a * np.cos(k * angle + p) for k, (a, p) in enumerate(zip(amplitudes, phases), start=1))
        radius = (0.15 + 0.3 * rng.random()) * min(size) * (1 + waves)
        mask[np.hypot(rows - down, columns - across) <= radius] = 1
    return mask


class TrainingHoles:
    """The holes of training, each inside the box that the local critic sees, each a function of its random numbers.

    kind: "box": the box shrunk by up to half of max_delta a side (TF1). "freeform": strokes of the three styles and
        smooth shapes. "mixed": half the one, half the other. Else a list or folder of masks, white = hole: one is
        taken at random, at its own resolution; one larger than the box is cut at a random place of its hole.
    image_size, box_size, margin, max_delta: (height, width); see `random_box` and `shrink_box`.

    bad: [(path, reason)] of masks that could not be used and were replaced, for the loader to report and empty.
    Raises UserError: the box does not fit the image, or the list cannot be used.
    """

    def __init__(
        self,
        kind: str,
        image_size: Sequence[int],
        box_size: Sequence[int],
        margin: Sequence[int] = (0, 0),
        max_delta: Sequence[int] = (0, 0),
    ):
        self.kind = kind
        self.image_size, self.box_size, self.margin, self.max_delta = image_size, box_size, margin, max_delta
        self.bad: list[tuple[str, str]] = []
        self._paths = [] if kind in ("box", "freeform", "mixed") else read_file_list(kind)
        self._masks: dict[int, np.ndarray | None] = {}  # those read so far, cut to their holes
        self.draw(np.random.default_rng(0))  # raises now, not in the middle of a run

    def draw(self, rng: np.random.Generator) -> tuple[Box, np.ndarray, np.ndarray]:
        """A box at a random place -> (box, mask uint8 [H, W], distance float32 [h, w] for the discount)."""
        box = random_box(self.image_size, self.box_size, self.margin, rng)
        if self.kind == "box" or (self.kind == "mixed" and rng.random() < 0.5):
            hole = shrink_box(box, self.max_delta, rng)
            return box, boxes_to_mask([hole], self.image_size)[0, 0].astype(np.uint8), box_distance(*self.box_size)
        return self.inside(box, rng)

    def inside(self, box: Sequence[int], rng: np.random.Generator) -> tuple[Box, np.ndarray, np.ndarray]:
        """The same for a given box, with a free-form hole or a mask of the list."""
        top, left, height, width = box
        mask = np.zeros(self.image_size, np.uint8)
        mask[top : top + height, left : left + width] = self._from_list(rng) if self._paths else self._freeform(rng)
        if mask.all():
            raise UserError("a hole covers the whole image: nothing is known to inpaint it from")
        return tuple(box), mask, known_distance(mask, box)

    def take_bad(self) -> list[tuple[str, str]]:
        """What `bad` holds, which is empty then."""
        bad, self.bad = self.bad, []
        return bad

    def fixed(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Holes in the middle of the image to watch a run by: float32 [count, 1, H, W].

        Boxes are the whole box, as in the evaluation's protocol center; "mixed" takes turns.
        """
        box = center_box(self.image_size, self.box_size)
        whole = boxes_to_mask([box], self.image_size)[0]
        drawn = [
            whole if self.kind == "box" or (self.kind == "mixed" and index % 2 == 0)
            else self.inside(box, rng)[1][None].astype(np.float32)
            for index in range(count)
        ]  # fmt: skip
        return np.stack(drawn) if drawn else np.zeros((0, 1, *self.image_size), np.float32)

    def _freeform(self, rng: np.random.Generator) -> np.ndarray:
        """A window of a free-form mask as the evaluation draws them, or blobs; uint8 [h, w], never empty."""
        styles = (*STYLES, "blob")
        style = styles[int(rng.integers(len(styles)))]
        return self._fit(blob_mask(self.box_size, rng) if style == "blob" else
                         freeform_mask(style, self.image_size, rng), rng)  # fmt: skip

    def _from_list(self, rng: np.random.Generator) -> np.ndarray:
        for _ in range(20):
            mask = self._read(int(rng.integers(len(self._paths))))
            if mask is not None:
                return self._fit(mask, rng)
        raise UserError(f"hole: 20 masks in a row of {self.kind} cannot be used, e.g. {UserError(*self.bad[0])}")

    def _fit(self, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A mask cut or placed to fit the box, at random; uint8 [h, w], never empty."""
        rows, columns = np.nonzero(mask)
        anchor = int(rng.integers(len(rows)))  # a pixel of the hole that will be in the box
        result = np.zeros(self.box_size, np.uint8)
        takes, puts = [], []
        for places, side in zip((rows, columns), self.box_size):
            first, last, pixel = int(places.min()), int(places.max()) + 1, int(places[anchor])
            if last - first > side:  # cut: a window that holds the anchor
                first = int(rng.integers(max(first, pixel - side + 1), min(pixel, last - side) + 1))
                last = first + side
            start = int(rng.integers(0, side - (last - first) + 1))  # placed: anywhere in the box
            takes.append(slice(first, last))
            puts.append(slice(start, start + last - first))
        result[tuple(puts)] = mask[tuple(takes)]
        return result

    def _read(self, index: int) -> np.ndarray | None:
        """A mask of the list cut to its hole, uint8; None where it cannot be used."""
        if index not in self._masks:
            try:
                mask = np.uint8(read_rgb(self._paths[index]).max(axis=2) > 127)
                rows, columns = np.nonzero(mask)
                if not len(rows):
                    raise UserError(self._paths[index], "is a mask without a hole: no pixel is white")
                self._masks[index] = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            except UserError as error:
                self.bad.append((error.path, error.reason))
                self._masks[index] = None
        return self._masks[index]
