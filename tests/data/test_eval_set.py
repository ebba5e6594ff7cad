from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.eval_set import (
    EvalSet,
    MaskFiles,
    RandomMasks,
    crop_image,
    mask_checksum,
    masks_by_name,
    masks_in_order,
    without_masks,
)
from data.masks import STYLES, random_box, shrink_box
from utils.cli import UserError
from utils.config import FREEFORM_PROTOCOLS


def drawn(protocol: str, seed: int = 0, size=(32, 48)) -> RandomMasks:
    return RandomMasks(protocol, size, (16, 12), (2, 1), (4, 6), seed)


def write_mask(path: Path, mask: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)
    return str(path)


def test_the_central_hole_by_hand() -> None:
    mask, name = drawn("center").hole(5, 0)
    expected = np.zeros((32, 48), np.uint8)
    expected[8:24, 18:30] = 1
    np.testing.assert_array_equal(mask, expected)
    assert name == "8 18 16 12"
    assert mask.dtype == np.uint8


def test_random_boxes_come_from_the_seed_the_place_and_the_number() -> None:
    holes = drawn("random_box", seed=7)
    for index, number in ((0, 0), (3, 0), (3, 2)):
        rng = np.random.default_rng([7, 20, index, number])
        box = shrink_box(random_box((32, 48), (16, 12), (2, 1), rng), (4, 6), rng)
        mask, name = holes.hole(index, number)
        assert name == " ".join(map(str, box))
        top, left, height, width = box
        assert mask.sum() == height * width
        assert mask[top : top + height, left : left + width].all()


@pytest.mark.parametrize("protocol", ["random_box", *STYLES])
def test_drawn_holes_are_repeatable_and_differ(protocol: str) -> None:
    asked = [(index, number) for index in range(4) for number in range(3)]
    first = [drawn(protocol).hole(*which) for which in asked]
    again = [drawn(protocol).hole(*which) for which in reversed(asked)][::-1]
    for one, other in zip(first, again):
        assert one[1] == other[1]
        np.testing.assert_array_equal(one[0], other[0])
    names = [name for _, name in first]
    assert len(set(names)) > 9
    assert [drawn(protocol, seed=1).hole(*which)[1] for which in asked] != names


def test_free_form_holes_are_named_by_their_checksum() -> None:
    mask, name = drawn("freeform-thick").hole(0, 0)
    assert name == mask_checksum(mask)
    # sha256 of the bytes 0 1 1
    assert mask_checksum(np.array([[0, 1, 1]], bool)) == "fbb59ed10e9c"
    assert mask_checksum(np.array([[0, 1], [0, 1]])[:, ::-1]) != mask_checksum(np.array([[0, 1], [0, 1]]))


def test_the_configuration_knows_all_styles() -> None:
    assert tuple(STYLES) == FREEFORM_PROTOCOLS


def files(*paths, size=(8, 8), invert=False, warn=pytest.fail) -> MaskFiles:
    return MaskFiles([[str(path)] for path in paths], size, invert, warn)


@pytest.mark.parametrize("invert", [False, True])
def test_white_is_the_hole_or_black_if_asked(tmp_path: Path, invert: bool) -> None:
    levels = np.zeros((8, 16), np.uint8)
    levels[2:4, 3] = 255
    levels[5, 6:8] = 127, 128
    path = write_mask(tmp_path / "m.png", 255 - levels if invert else levels)
    said = []
    mask, name = files(path, size=(8, 16), invert=invert, warn=said.append).hole(0, 0)
    assert len(said) == 1 and "its levels are 0, 127, 128, 255" in said[0]
    assert np.argwhere(mask).tolist() == [[2, 3], [3, 3], [5, 7]]
    assert name == "m.png"
    double, _ = files(path, size=(16, 32), invert=invert, warn=said.append).hole(0, 0)
    np.testing.assert_array_equal(double, mask.repeat(2, axis=0).repeat(2, axis=1))


def test_alpha_is_the_mask_where_some_of_it_is_transparent(tmp_path: Path) -> None:
    """A painting program's mask: white everywhere, opaque where it was painted."""
    levels = np.full((8, 8, 4), 255, np.uint8)
    levels[..., 3] = 0
    levels[2:4, 3:6, 3] = 255
    mask, _ = files(write_mask(tmp_path / "m.png", levels)).hole(0, 0)
    expected = np.zeros((8, 8), np.uint8)
    expected[2:4, 3:6] = 1
    np.testing.assert_array_equal(mask, expected)


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    write_mask(tmp_path / "black.png", np.full((8, 8), 127, np.uint8))
    write_mask(tmp_path / "white.png", np.full((8, 8), 128, np.uint8))
    write_mask(tmp_path / "wide.png", np.full((8, 9), 255, np.uint8))
    (tmp_path / "empty.png").write_bytes(b"")
    for name, message in {
        "black": "black.png: has no hole: its levels are all 127.*mask_invert=true",
        "white": "white.png: covers the whole image.*mask_invert=true",
        "wide": r"wide.png: is 9x8 \(width x height\), the image 8x8; .*of the same proportions",
        "empty": "empty.png: is empty",
    }.items():
        with pytest.raises(UserError, match=message):
            files(tmp_path / f"{name}.png").hole(0, 0)
    with pytest.raises(UserError, match="white.png: has no hole: its levels are all 128"):
        files(tmp_path / "white.png", invert=True).hole(0, 0)


def test_a_hole_of_most_of_the_image_warns_once(tmp_path: Path) -> None:
    levels = np.full((8, 8), 255, np.uint8)
    levels[:2, :2] = 0
    paths = [write_mask(tmp_path / f"{name}.png", levels) for name in "ab"]
    warnings = []
    holes = files(*paths, warn=warnings.append)
    assert [holes.hole(index, 0)[0].sum() for index in (0, 1)] == [60, 60]
    (warning,) = warnings
    assert warning.startswith(f"{paths[0]}: the hole is 94% of the image; black holes: --invert-mask, or mask_in")
    levels[0] = 128  # another kind of warning does not hide this one
    holes = files(write_mask(tmp_path / "c.png", levels), warn=warnings.append)
    holes.hole(0, 0)
    assert ["levels" in text for text in warnings[1:]] == [True, False]
    assert files(paths[0], invert=True).hole(0, 0)[0].sum() == 4


def test_masks_in_order(tmp_path: Path) -> None:
    a, b, c = (write_mask(tmp_path / f"{name}.png", np.full((8, 8), 255, np.uint8)) for name in "abc")
    (tmp_path / "list.txt").write_text("c.png\na.png\nc.png\nb.png\n")
    assert masks_in_order(str(tmp_path / "list.txt"), 2, 2) == [[c, a], [c, b]]
    assert masks_in_order(str(tmp_path / "list.txt"), 3, 1) == [[c], [a], [c]]
    assert masks_in_order(str(tmp_path), 1, 3) == [[a, b, c]]
    with pytest.raises(UserError, match="mask_path: .* has 4 masks, but 5 images with 1 hole each need 5: add masks"):
        masks_in_order(str(tmp_path / "list.txt"), 5, 1)
    with pytest.raises(UserError, match="has 3 masks, but 2 images with 2 holes each need 4"):
        masks_in_order(str(tmp_path), 2, 2)


def by_name(folder: Path, names: list[str], masks_per_image: int = 1) -> list[list[str]]:
    return masks_by_name(str(folder), [f"/elsewhere/{name}" for name in names], names, masks_per_image)


def some_files(folder: Path, *names: str) -> list[str]:
    return [write_mask(folder / name, np.full((8, 8), 255, np.uint8)) for name in names]


def test_masks_by_name(tmp_path: Path) -> None:
    names = ["one.png", "sub/two_1.png", "sub/two_1_1.bmp", "one_1.png", "sub/three_0.png"]
    one, two, two_1, one_1, three = some_files(tmp_path, *names)
    assert by_name(tmp_path, ["one.jpg", "sub/three.jpg"]) == [[one], [three]]
    assert by_name(tmp_path, ["sub/two_1.jpg", "one.jpg"], 2) == [[two, two_1], [one, one_1]]
    with pytest.raises(UserError, match=r"3 of 4 masks are not in .*, e\.g\. sub/three_1\.png, two\.png, two_1"):
        by_name(tmp_path, ["sub/three.jpg", "two.jpg"], 2)
    with pytest.raises(UserError, match="mask_path: the folder of masks .*absent does not exist"):
        by_name(tmp_path / "absent", ["one.jpg"])


def test_masks_named_as_other_sets_do(tmp_path: Path) -> None:
    names = ["a_mask001.png", "a_mask002.png", "b_mask.png", "c_mask.png"]
    first, second, plain, of_input = some_files(tmp_path, *names)
    assert by_name(tmp_path, ["a.jpg", "b.jpg"]) == [[first], [plain]]
    assert by_name(tmp_path, ["a.jpg"], 2) == [[first, second]]
    assert by_name(tmp_path, ["c_input.jpg"]) == [[of_input]]
    (own,) = some_files(tmp_path, "a.png")  # the image's very name wins
    assert by_name(tmp_path, ["a.jpg"]) == [[own]]


def test_images_and_masks_in_one_folder(tmp_path: Path) -> None:
    """An image is never its own mask, and a mask of another image is no image."""
    names = ["a.png", "a_mask001.png", "b_input.png", "b_mask.png", "d_mask.png"]
    a, a_mask, b, b_mask, d = some_files(tmp_path, *names)
    images = without_masks([a, a_mask, b, b_mask, d])
    assert images == [a, b, d]
    names = ["a.png", "b_input.png"]
    assert masks_by_name(str(tmp_path), images[:2], names, 1) == [[a_mask], [b_mask]]
    with pytest.raises(UserError, match=r"1 of 1 masks are not in .*, e\.g\. d_mask\.png: a mask has"):
        masks_by_name(str(tmp_path), [d], ["d_mask.png"], 1)


def test_the_samples_of_a_list(tmp_path: Path) -> None:
    a, b, c = some_files(tmp_path, "a.png", "b.png", "c.png")
    Path(b).write_bytes(b"")
    warnings = []
    samples = EvalSet([a, b, c], list("abc"), drawn("random_box", size=(32, 48)), 2, (32, 48), "fit", warnings.append)
    assert len(samples) == 6
    for _ in range(2):  # it can be gone through again
        found = list(samples)
        assert [(sample.image_index, sample.name, sample.hole_index) for sample in found] == [
            (0, "a", 0), (0, "a", 1), (2, "c", 0), (2, "c", 1)
        ]
        assert [str(error) for error in samples.skipped] == [f"{b}: is empty (0 bytes)"]
    assert warnings == [f"skipped {b}: is empty (0 bytes)"] * 2
    assert found[0].target.shape == (32, 48, 3) and found[0].mask.shape == (32, 48)
    again = samples.load(2, 1)
    assert again.hole == found[3].hole
    np.testing.assert_array_equal(again.target, found[3].target)
    with pytest.raises(UserError):
        samples.load(1, 0)


def ramp(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)


def test_crops_by_hand() -> None:
    image = ramp(32, 64)
    np.testing.assert_array_equal(crop_image(image, (16, 16), "center"), image[8:24, 24:40])
    half = image.reshape(16, 2, 32, 2, 3).mean(axis=(1, 3))  # area averaging by two: mean of four pixels
    np.testing.assert_allclose(crop_image(image, (16, 16), "fit"), half[:, 8:24], atol=0.5)
    middle = image[:, 16:48].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop_image(image, (16, 16), (32, 32)), middle, atol=0.5)
    narrow = image.reshape(16, 2, 16, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop_image(image, (16, 16), "stretch"), narrow, atol=0.5)


@pytest.mark.parametrize("crop", ["center", "fit", "stretch", (100, 20)])
@pytest.mark.parametrize("size", [(5, 7), (16, 16), (17, 90), (300, 18)])
def test_every_crop_of_every_size_fits(crop, size: tuple[int, int]) -> None:
    assert crop_image(np.zeros((*size, 3), np.uint8), (16, 24), crop).shape == (16, 24, 3)
