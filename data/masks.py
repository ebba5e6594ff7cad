"""Boxes and masks of the holes. A box is (top, left, height, width) in pixels; in a mask 1 = hole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.file_list import DataError

Box = tuple[int, int, int, int]


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
    Raises DataError: the box and its margins do not fit the image.
    """
    starts = []
    for whole, part, edge, name in zip(image_size, box_size, margin, ("height", "width")):
        if part < 1 or edge < 0 or part + 2 * edge > whole:
            raise DataError(f"a box of {name} {part} with a margin of {edge} on both sides "
                            f"does not fit an image of {name} {whole}")
        last = whole - edge - part
        starts.append(int(rng.integers(edge, last)) if last > edge else edge)
    return starts[0], starts[1], int(box_size[0]), int(box_size[1])


def center_box(image_size: Sequence[int], box_size: Sequence[int]) -> Box:
    """The box in the middle of the image, the odd pixel below and to the right.

    Raises DataError: the box does not fit the image.
    """
    (height, width), (box_height, box_width) = image_size, box_size
    if not (1 <= box_height <= height and 1 <= box_width <= width):
        raise DataError(f"a box of {box_height}x{box_width} does not fit an image of {height}x{width}")
    return (height - box_height) // 2, (width - box_width) // 2, int(box_height), int(box_width)


def shrink_box(box: Sequence[int], max_delta: Sequence[int], rng: np.random.Generator) -> Box:
    """The hole inside a box; source: TF1 bbox2mask.

    The same number of rows, uniform in 0..max_delta[0] // 2 (both included), goes at the top and at the
    bottom, and in the same way columns, by max_delta[1], at the left and at the right.
    Raises DataError: nothing might be left of the box.
    """
    top, left, height, width = (int(side) for side in box)
    most_rows, most_columns = max_delta[0] // 2, max_delta[1] // 2
    if min(max_delta) < 0 or 2 * most_rows >= height or 2 * most_columns >= width:
        raise DataError(f"a box of {height}x{width} cannot shrink by max_delta {max_delta[0]}x{max_delta[1]}")
    rows = int(rng.integers(0, most_rows + 1))
    columns = int(rng.integers(0, most_columns + 1))
    return top + rows, left + columns, height - 2 * rows, width - 2 * columns


def boxes_to_mask(boxes: Sequence[Sequence[int]], image_size: Sequence[int]) -> np.ndarray:
    """boxes [M,4] -> float32 mask [M,1,H,W], 1 in the box and 0 elsewhere.

    Raises DataError: a box reaches beyond the image.
    """
    height, width = image_size
    mask = np.zeros((len(boxes), 1, height, width), np.float32)
    for plane, box in zip(mask[:, 0], boxes):
        top, left, rows, columns = (int(side) for side in box)
        if min(top, left, rows, columns) < 0 or top + rows > height or left + columns > width:
            raise DataError(f"the box {(top, left, rows, columns)} leaves an image of {height}x{width}")
        plane[top : top + rows, left : left + columns] = 1.0
    return mask
