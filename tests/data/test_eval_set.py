from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.decode import ImageError
from data.file_list import DataError
from data.freeform import STYLES
from data.holes import DrawnHoles, SavedHoles, crop_photo, mask_checksum, masks_by_name, masks_in_order
from data.masks import random_box, shrink_box
from utils.config import FREEFORM_PROTOCOLS


def drawn(protocol: str, seed: int = 0, size=(32, 48)) -> DrawnHoles:
    return DrawnHoles(protocol, size, (16, 12), (2, 1), (4, 6), seed)


def write_mask(path: Path, mask: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)
    return str(path)


def test_the_central_hole_by_hand() -> None:
    hole = drawn("center").hole(5, 0)
    expected = np.zeros((32, 48), np.uint8)
    expected[8:24, 18:30] = 1
    np.testing.assert_array_equal(hole.mask, expected)
    assert hole.name == "8 18 16 12"
    assert hole.mask.dtype == np.uint8


def test_random_boxes_come_from_the_seed_the_place_and_the_number() -> None:
    holes = drawn("random_box", seed=7)
    for index, number in ((0, 0), (3, 0), (3, 2)):
        rng = np.random.default_rng([7, 20, index, number])
        box = shrink_box(random_box((32, 48), (16, 12), (2, 1), rng), (4, 6), rng)
        hole = holes.hole(index, number)
        assert hole.name == " ".join(map(str, box))
        top, left, height, width = box
        assert hole.mask.sum() == height * width
        assert hole.mask[top : top + height, left : left + width].all()


@pytest.mark.parametrize("protocol", ["random_box", *STYLES])
def test_drawn_holes_are_repeatable_and_differ(protocol: str) -> None:
    asked = [(index, number) for index in range(4) for number in range(3)]
    first = [drawn(protocol).hole(*which) for which in asked]
    again = [drawn(protocol).hole(*which) for which in reversed(asked)][::-1]
    for one, other in zip(first, again):
        assert one.name == other.name
        np.testing.assert_array_equal(one.mask, other.mask)
    assert len({hole.name for hole in first}) > 9
    assert [drawn(protocol, seed=1).hole(*which).name for which in asked] != [hole.name for hole in first]


def test_free_form_holes_are_named_by_their_checksum() -> None:
    hole = drawn("freeform-thick").hole(0, 0)
    assert hole.name == mask_checksum(hole.mask)
    # sha256 of the bytes 0 1 1
    assert mask_checksum(np.array([[0, 1, 1]], bool)) == "fbb59ed10e9c"
    assert mask_checksum(np.array([[0, 1], [0, 1]])[:, ::-1]) != mask_checksum(np.array([[0, 1], [0, 1]]))


def test_the_configuration_knows_all_styles() -> None:
    assert tuple(STYLES) == FREEFORM_PROTOCOLS


def test_white_is_the_hole(tmp_path: Path) -> None:
    levels = np.zeros((8, 16), np.uint8)
    levels[2:4, 3] = 255
    levels[5, 6:8] = 127, 128
    path = write_mask(tmp_path / "m.png", levels)
    hole = SavedHoles([[path]], (8, 16)).hole(0, 0)
    assert np.argwhere(hole.mask).tolist() == [[2, 3], [3, 3], [5, 7]]
    assert hole.name == "m.png"
    double = SavedHoles([[path]], (16, 32)).hole(0, 0).mask
    np.testing.assert_array_equal(double, hole.mask.repeat(2, axis=0).repeat(2, axis=1))


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    write_mask(tmp_path / "black.png", np.full((8, 8), 127, np.uint8))
    write_mask(tmp_path / "wide.png", np.full((8, 9), 255, np.uint8))
    (tmp_path / "empty.png").write_bytes(b"")
    paths = [[str(tmp_path / f"{name}.png")] for name in ("black", "wide", "empty")]
    holes = SavedHoles(paths, (8, 8))
    for index, message in enumerate((
        "black.png: is a mask without a hole: no pixel is white",
        "wide.png: is a mask of 8x9, which does not fit 8x8 photographs",
        "empty.png: is empty",
    )):
        with pytest.raises(ImageError, match=message):
            holes.hole(index, 0)


def test_masks_in_order(tmp_path: Path) -> None:
    a, b, c = (write_mask(tmp_path / f"{name}.png", np.full((8, 8), 255, np.uint8)) for name in "abc")
    (tmp_path / "list.txt").write_text("c.png\na.png\nc.png\nb.png\n")
    assert masks_in_order(str(tmp_path / "list.txt"), 2, 2) == [[c, a], [c, b]]
    assert masks_in_order(str(tmp_path / "list.txt"), 3, 1) == [[c], [a], [c]]
    assert masks_in_order(str(tmp_path), 1, 3) == [[a, b, c]]
    with pytest.raises(DataError, match="has 4 masks, but 5 photographs with 1 hole each need 5: add masks"):
        masks_in_order(str(tmp_path / "list.txt"), 5, 1)
    with pytest.raises(DataError, match="has 3 masks, but 2 photographs with 2 holes each need 4"):
        masks_in_order(str(tmp_path), 2, 2)


def test_masks_by_name(tmp_path: Path) -> None:
    names = ["one.png", "sub/two_1.png", "sub/two_1_1.bmp", "one_1.png", "sub/three_0.png"]
    one, two, two_1, one_1, three = (
        write_mask(tmp_path / name, np.full((8, 8), 255, np.uint8)) for name in names
    )
    assert masks_by_name(str(tmp_path), ["one.jpg", "sub/three.jpg"], 1) == [[one], [three]]
    assert masks_by_name(str(tmp_path), ["sub/two_1.jpg", "one.jpg"], 2) == [[two, two_1], [one, one_1]]
    with pytest.raises(DataError, match=r"3 of 4 masks are not in .*, e\.g\. sub/three_1\.png, two\.png, two_1"):
        masks_by_name(str(tmp_path), ["sub/three.jpg", "two.jpg"], 2)
    with pytest.raises(DataError, match="the folder of masks .*absent does not exist"):
        masks_by_name(str(tmp_path / "absent"), ["one.jpg"], 1)


def ramp(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)


def test_crops_by_hand() -> None:
    photo = ramp(32, 64)
    np.testing.assert_array_equal(crop_photo(photo, (16, 16), "center"), photo[8:24, 24:40])
    half = photo.reshape(16, 2, 32, 2, 3).mean(axis=(1, 3))  # area averaging by two: mean of four pixels
    np.testing.assert_allclose(crop_photo(photo, (16, 16), "fit"), half[:, 8:24], atol=0.5)
    middle = photo[:, 16:48].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop_photo(photo, (16, 16), (32, 32)), middle, atol=0.5)
    narrow = photo.reshape(16, 2, 16, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop_photo(photo, (16, 16), "stretch"), narrow, atol=0.5)


@pytest.mark.parametrize("crop", ["center", "fit", "stretch", (100, 20)])
@pytest.mark.parametrize("size", [(5, 7), (16, 16), (17, 90), (300, 18)])
def test_every_crop_of_every_size_fits(crop, size: tuple[int, int]) -> None:
    assert crop_photo(np.zeros((*size, 3), np.uint8), (16, 24), crop).shape == (16, 24, 3)
