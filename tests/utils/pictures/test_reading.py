from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from utils.cli import UserError
from utils.pictures.files import fill_hole, fit_to_format, write_picture
from utils.pictures.reading import Picture, PictureError, read_picture, turn_upright
from utils.visualization import OutputError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (6, 9), dtype=np.uint8)
HOLE = np.zeros((6, 9), bool)
HOLE[2:4, 3:6] = True


def picture(samples: np.ndarray = RGB, **about) -> Picture:
    everything = {"alpha": None, "icc": None, "exif": None, "dpi": None, "color_chunks": (), "frames": 1}
    return Picture(samples, **{**everything, **about})


def test_grey_is_filled_with_luma() -> None:
    filled = np.full((6, 9, 3), (255, 0, 0), np.uint8)  # 0.299 * 255 = 76.2
    result = fill_hole(picture(RGB[:, :, :1]), filled, HOLE).samples
    assert (result[HOLE] == 76).all()
    np.testing.assert_array_equal(result[~HOLE], RGB[:, :, :1][~HOLE])


def test_sixteen_bits_are_filled_from_black_to_white() -> None:
    deep = np.full((6, 9, 3), 1234, np.uint16)
    filled = np.full((6, 9, 3), (0, 128, 255), np.uint8)
    result = fill_hole(picture(deep), filled, HOLE).samples
    assert result.dtype == np.uint16
    assert (result[HOLE] == (0, 128 * 257, 65535)).all()
    assert (result[~HOLE] == 1234).all()


def test_cmyk_is_filled_with_what_becomes_the_same_rgb() -> None:
    result = fill_hole(picture(np.zeros((6, 9, 4), np.uint8)), RGB, HOLE).samples
    back = np.array(Image.frombytes("CMYK", (9, 6), result.tobytes()).convert("RGB"))
    np.testing.assert_array_equal(back[HOLE], RGB[HOLE])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgba = np.dstack([RGB, ALPHA])
    path = str(tmp_path / "turned.png")
    Image.fromarray(rgba).save(path, exif=exif)
    upright = np.array(Image.fromarray(turn_upright(rgba, orientation)))
    with Image.open(path) as image:
        np.testing.assert_array_equal(upright, np.array(ImageOps.exif_transpose(image)))
    found = read_picture(path, np.ascontiguousarray(upright[:, :, :3]))
    np.testing.assert_array_equal(found.alpha, upright[:, :, 3])
    assert found.exif is None


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sixteen_bit_tiff_is_turned_once(tmp_path: Path, orientation: int) -> None:
    deep = RGB.astype(np.uint16) * 256 + 7
    path = str(tmp_path / "turned.tif")
    tifffile.imwrite(path, deep, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    found = read_picture(path, turn_upright(RGB, orientation))
    np.testing.assert_array_equal(found.samples, turn_upright(deep, orientation))


def test_decoders_that_disagree_are_noticed(tmp_path: Path) -> None:
    path = str(tmp_path / "deep.png")
    cv2.imwrite(path, RGB.astype(np.uint16) * 256)
    with pytest.raises(PictureError, match="two decoders disagree"):
        read_picture(path, RGB)  # the colours in the wrong order
    with pytest.raises(PictureError, match="two decoders disagree"):
        read_picture(path, RGB[:5])


def test_a_thumbnail_and_the_makers_notes_are_left_behind(tmp_path: Path) -> None:
    """A thumbnail shows what the hole is to remove."""
    thumbnail = io.BytesIO()
    Image.fromarray(RGB).resize((40, 30)).save(thumbnail, "JPEG")
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0x927C: b"private" * 20, 0xA002: 9, 0xA003: 6})
    exif[0x8769] = exif.get_ifd(0x8769)
    data = exif.tobytes() + thumbnail.getvalue()
    path, result = str(tmp_path / "in.png"), str(tmp_path / "out.png")
    Image.fromarray(RGB).save(path, exif=data)
    write_picture(result, read_picture(path, RGB))
    content = Path(result).read_bytes()
    assert b"private" not in content
    assert b"JFIF" not in content
    with Image.open(result) as image:
        found = image.getexif()
    assert found[0x010F] == "Maker"
    assert float(found.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)


def test_the_sides_in_exif_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0xA002: 9, 0xA003: 6})
    exif[0x8769] = exif.get_ifd(0x8769)
    path = str(tmp_path / "in.png")
    Image.fromarray(RGB).save(path, exif=exif)
    folder = read_picture(path, turn_upright(RGB, 6)).exif.get_ifd(0x8769)
    assert (folder[0xA002], folder[0xA003]) == (6, 9)


def test_how_a_png_means_its_numbers_is_kept(tmp_path: Path) -> None:
    gamma = (b"gAMA", (45455).to_bytes(4, "big"))
    path = str(tmp_path / "gamma.png")
    write_picture(path, picture(color_chunks=(gamma, (b"sRGB", b"\0"))))
    found = read_picture(path, RGB)
    assert found.color_chunks == (gamma, (b"sRGB", b"\0"))
    with Image.open(path) as image:
        image.load()  # checks the sums of all chunks
        assert image.info["gamma"] == pytest.approx(0.45455)
    write_picture(path, replace(found, icc=b"\0" * 128))
    assert read_picture(path, RGB).color_chunks == (gamma,)  # a profile and sRGB exclude each other


@pytest.mark.parametrize(
    ("what", "name", "message"),
    [
        (picture(alpha=ALPHA), "out.jpg", r"\.jpg cannot hold alpha of this picture; choose \.png or \.tif"),
        (picture(RGB.astype(np.uint16)), "out.WebP", r"\.webp cannot hold 16 bits"),
        (picture(icc=b"icc"), "out.bmp", "cannot hold the colour profile"),
        (picture(RGB.astype(np.uint16), icc=b"icc"), "out.bmp", "cannot hold 16 bits and the colour profile"),
        (picture(), "out", "give the output one of these suffixes: .png"),
        (picture(), "out.gif", "give the output one of these suffixes: .png"),
    ],
)
def test_formats_that_would_lose_something_are_refused(what: Picture, name: str, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        fit_to_format(what, RGB, name)
    assert issubclass(PictureError, UserError)


def test_cmyk_becomes_rgb_without_its_profile_where_it_must() -> None:
    cmyk = picture(np.zeros((6, 9, 4), np.uint8), icc=b"icc")
    as_png = fit_to_format(cmyk, RGB, "out.png")
    assert as_png.samples is RGB and as_png.icc is None
    assert fit_to_format(cmyk, RGB, "out.tif") is cmyk


def test_webp_holds_grey_as_equal_colours(tmp_path: Path) -> None:
    path = tmp_path / "grey.webp"
    write_picture(str(path), picture(RGB[:, :, :1], alpha=ALPHA))
    with Image.open(path) as image:
        expected = np.dstack([RGB[:, :, :1]] * 3 + [ALPHA])
        np.testing.assert_array_equal(np.array(image.convert("RGBA")), expected)


def test_a_folder_that_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write .*none/out.png: No such file"):
        write_picture(str(tmp_path / "none/out.png"), picture())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_every_format_with_room_for_it_keeps_exif_and_resolution(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "Maker"
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0xA002: 9, 0xA003: 6})
    exif[0x8769] = exif.get_ifd(0x8769)
    path, result = str(tmp_path / "in.jpg"), str(tmp_path / f"out{suffix}")
    Image.fromarray(RGB).save(path, exif=exif, dpi=(240, 240))
    write_picture(result, read_picture(path, RGB))
    with Image.open(result) as image:
        found, dpi = image.getexif(), image.info.get("dpi")
        folder = found.get_ifd(0x8769)
    assert found[0x010F] == "Maker"
    assert 0x0112 not in found
    assert float(folder[0x829A]) == pytest.approx(0.01)
    assert suffix == ".webp" or dpi == pytest.approx((240, 240), abs=0.02)
    again = read_picture(result, RGB)
    assert float(again.exif.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("data", [b"", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\1"])
def test_broken_exif_does_not_cost_the_picture(tmp_path: Path, data: bytes) -> None:
    path, result = str(tmp_path / "in.jpg"), str(tmp_path / "out.png")
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0" + data)
    write_picture(result, read_picture(path, RGB))
    with Image.open(result) as image:
        np.testing.assert_array_equal(np.array(image), RGB)
