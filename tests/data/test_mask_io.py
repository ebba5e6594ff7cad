"""One set of rules for masks, wherever they are read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.image_io import read_image
from data.mask_io import looks_like_mask, read_mask
from utils.cli import UserError

HOLE = np.zeros((30, 40), bool)
HOLE[8:18, 10:26] = True
PHOTO = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8), (40, 30))


def save(path: Path, array: np.ndarray, **options) -> str:
    Image.fromarray(array).save(path, **options)
    return str(path)


def colored(hole, background=(0, 0, 0)) -> np.ndarray:
    """Uint8 [30, 40, C] of two colours."""
    return np.where(HOLE[:, :, None], np.array(hole, np.uint8), np.array(background, np.uint8)).astype(np.uint8)


def read(path: str, **options) -> tuple[np.ndarray, list[str]]:
    said: list[str] = []
    return read_mask(path, warn=said.append, **options).astype(bool), said


def levels(hole: int, known: int = 0, dtype=np.uint8) -> np.ndarray:
    return np.where(HOLE, hole, known).astype(dtype)


@pytest.mark.parametrize(("array", "said"), [
    (levels(255), None),
    (levels(200, 30), "its levels are 30, 200"),
    (HOLE, None),  # 1 bit
    (levels(1), "its levels are 0 and 1; 1 is taken as white"),
    (levels(80), "its levels are 0 and 80; 80 is taken as white"),
    (levels(65535, 0, np.uint16), None),
    (levels(4095, 0, np.uint16), None),
    (levels(255, 0, np.uint16), None),
    (levels(1, 0, np.uint16), "its levels are 0 and 1"),
    (colored((255, 0, 0)), "its colours are black and (255, 0, 0)"),
    (colored((0, 0, 128)), "its colours are black and (0, 0, 128)"),
    (colored((255, 255, 255)), None),
    (colored((255, 255, 255, 255), (0, 0, 0, 255)), None),
    (colored((200, 0, 0, 255), (0, 0, 0, 0)), None),  # strokes on a transparent layer
    (colored((255, 255, 255, 255), (255, 255, 255, 0)), None),  # white everywhere, the mask in the alpha
    (colored((255, 255, 255, 100), (255, 255, 255, 0)), "its levels are 0 and 100"),
    (colored((255, 255, 255, 128), (0, 0, 0, 128)), None),  # alpha that says nothing
    (colored((255, 255, 255, 0), (0, 0, 0, 0)), None),
    (colored((0, 0, 0, 255), (255, 255, 255, 0)), "both be the mask; the alpha is taken"),
])  # fmt: skip
def test_the_hole_is_found_and_what_is_unusual_is_said(tmp_path: Path, array: np.ndarray, said: str | None) -> None:
    found, texts = read(save(tmp_path / "m.png", array))
    np.testing.assert_array_equal(found, HOLE)
    assert len(texts) == (said is not None)
    assert said is None or said in texts[0]


def test_black_holes(tmp_path: Path) -> None:
    found, texts = read(save(tmp_path / "m.png", levels(0, 255)), invert=True)
    np.testing.assert_array_equal(found, HOLE)
    erased = np.dstack([PHOTO, levels(0, 255)])
    found, more = read(save(tmp_path / "erased.png", erased), invert=True)
    np.testing.assert_array_equal(found, HOLE)
    assert texts == more == []


@pytest.mark.parametrize("invert", [False, True])
def test_a_few_transparent_pixels_do_not_make_the_alpha_the_mask(tmp_path: Path, invert: bool) -> None:
    array = np.dstack([np.repeat(levels(255)[:, :, None] ^ np.uint8(255 * invert), 3, axis=2), levels(255, 255)])
    array[:2, :2] = 0
    found, texts = read(save(tmp_path / "m.png", array), invert=invert)
    np.testing.assert_array_equal(found, HOLE)
    assert len(texts) == 1 and "the colours are taken (transparent = known)" in texts[0]


def test_palettes(tmp_path: Path) -> None:
    image = Image.fromarray(HOLE.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 128, 0, 0])  # as segmentation sets have them
    image.save(tmp_path / "m.png")
    found, texts = read(str(tmp_path / "m.png"))
    np.testing.assert_array_equal(found, HOLE)
    assert "its colours are black and (128, 0, 0)" in texts[0]


@pytest.mark.parametrize("array", [
    colored((255, 0, 0), (255, 255, 255)), colored((255, 0, 0), (0, 0, 255)), PHOTO,
    np.vstack([colored((255, 0, 0)), colored((0, 255, 0))]),
])  # fmt: skip
def test_colours_that_may_mean_anything_are_refused_and_named(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"m.png: has the colours \(.*any may be the hole: make it black and white"):
        read(save(tmp_path / "m.png", array))


def test_jpeg_seams_are_no_levels_and_colours_stay_colours(tmp_path: Path) -> None:
    big = HOLE.repeat(8, 0).repeat(8, 1)
    found, texts = read(save(tmp_path / "m.jpg", big.astype(np.uint8) * 255, quality=60))
    assert texts == []
    np.testing.assert_array_equal(found, big)
    red = (big[:, :, None] * np.array([255, 0, 0])).astype(np.uint8)
    found, texts = read(save(tmp_path / "red.jpg", red, quality=75))
    assert "its colours are black and (254, 0, 0)" in texts[0] and (found != big).mean() < 0.01


def test_soft_edges_many_grays_and_labels_are_said(tmp_path: Path) -> None:
    big = HOLE.repeat(8, 0).repeat(8, 1).astype(np.uint8) * 255
    _, texts = read(save(tmp_path / "soft.png", cv2.GaussianBlur(big, (0, 0), 4)))
    assert len(texts) == 1 and "has a soft edge" in texts[0] and "--grow" in texts[0]
    gray = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)
    _, texts = read(save(tmp_path / "gray.png", gray))
    assert "its levels are many" in texts[0] and "Is it a mask?" in texts[0]
    labels = levels(255)
    labels[:4] = 128
    _, texts = read(save(tmp_path / "labels.png", labels))
    assert "its levels are 0, 128, 255" in texts[0]


@pytest.mark.parametrize(("array", "message"), [
    (levels(0), "has no hole: its levels are all 0"),
    (levels(90, 20), "has no hole: its levels are 20 to 90"),
    (levels(255, 255), "covers the whole image"),
    (colored((255, 255, 255, 255), (255, 255, 255, 255)), "covers the whole image"),
])  # fmt: skip
def test_nothing_and_everything_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=f"m.png: {message}.*--invert-mask"):
        read(save(tmp_path / "m.png", array))


def test_a_hole_of_most_of_the_image_is_always_said(tmp_path: Path) -> None:
    found, texts = read(save(tmp_path / "m.png", levels(0, 255)))
    assert found.mean() > 0.5 and len(texts) == 1
    assert "m.png: the hole is 87% of the image; black holes: --invert-mask, or mask_invert=true" in texts[0]


def test_other_sizes(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", levels(255))
    found, _ = read(path, size=(60, 80))  # the same proportions
    np.testing.assert_array_equal(found, HOLE.repeat(2, 0).repeat(2, 1))
    with pytest.raises(UserError, match=r"is 40x30 .*, the image 80x50; .*of the same proportions"):
        read(path, size=(50, 80))
    with pytest.raises(UserError, match="stretch it with --resize-mask"):
        read(path, size=(60, 80), stretch=False)
    assert read(path, size=(50, 80), stretch=True)[0].shape == (50, 80)
    with pytest.raises(UserError, match="the image 30x40: the sides are swapped; turn the mask") as caught:
        read(path, size=(40, 30), stretch=False)
    assert "--resize-mask" not in str(caught.value)


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_before_exif_turned_the_image_is_turned_with_it(
    tmp_path: Path, orientation: int, stretch: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    marked = np.where(HOLE[:, :, None], np.uint8(255), PHOTO // 2)  # what shows the hole turns with the image
    image = read_image(save(tmp_path / "phone.png", marked, exif=exif))
    found, texts = read(save(tmp_path / "m.png", levels(255)), stretch=stretch, image=image)
    np.testing.assert_array_equal(found, (image.rgb == 255).all(axis=2))
    assert len(texts) == 1 and "before its EXIF orientation turned it" in texts[0]
    upright = save(tmp_path / "upright.png", found.astype(np.uint8) * 255)
    np.testing.assert_array_equal(read(upright, stretch=stretch, image=image)[0], found)


def test_a_swapped_image_and_mask_are_refused(tmp_path: Path) -> None:
    gray = save(tmp_path / "photo.png", cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY))
    mask = read_image(save(tmp_path / "mask.png", levels(255)))
    for path in (gray, save(tmp_path / "color.png", PHOTO)):
        with pytest.raises(UserError, match="looks like an image, and the image like a mask: are the two swapped?"):
            read(path, image=mask)


def test_what_looks_like_a_mask() -> None:
    assert looks_like_mask(colored((255, 255, 255)))
    assert not looks_like_mask(PHOTO)
    assert not looks_like_mask(np.zeros((4, 4, 3), np.uint8))
    assert not looks_like_mask(colored((255, 0, 0)))
