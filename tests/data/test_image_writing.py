"""Images as they come back from a file: depth, alpha, profile, EXIF; and the hole in them."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from PIL import ImageOps

from data.image_io import Image, fit_to_format, read_image, turn_upright, write_image
from utils.cli import UserError
from utils.inpaint import fill_hole

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (6, 9), dtype=np.uint8)
HOLE = np.zeros((6, 9), bool)
HOLE[2:4, 3:6] = True


def image(samples: np.ndarray = RGB, **about) -> Image:
    return Image(samples, bits=16 if samples.dtype == np.uint16 else 8, **about)


def test_grey_is_filled_with_luma() -> None:
    filled = np.full((6, 9, 3), (255, 0, 0), np.uint8)  # 0.299 * 255 = 76.2
    result = fill_hole(image(RGB[:, :, :1]), filled, HOLE).samples
    assert (result[HOLE] == 76).all()
    np.testing.assert_array_equal(result[~HOLE], RGB[:, :, :1][~HOLE])


def test_sixteen_bits_are_filled_from_black_to_white() -> None:
    deep = np.full((6, 9, 3), 1234, np.uint16)
    filled = np.full((6, 9, 3), (0, 128, 255), np.uint8)
    result = fill_hole(image(deep), filled, HOLE).samples
    assert result.dtype == np.uint16
    assert (result[HOLE] == (0, 128 * 257, 65535)).all()
    assert (result[~HOLE] == 1234).all()


def test_cmyk_is_filled_with_what_becomes_the_same_rgb() -> None:
    result = fill_hole(image(np.zeros((6, 9, 4), np.uint8)), RGB, HOLE).samples
    back = np.array(PIL.Image.frombytes("CMYK", (9, 6), result.tobytes()).convert("RGB"))
    np.testing.assert_array_equal(back[HOLE], RGB[HOLE])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(tmp_path: Path, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    rgba = np.dstack([RGB, ALPHA])
    path = str(tmp_path / "turned.png")
    PIL.Image.fromarray(rgba).save(path, exif=exif)
    upright = np.array(PIL.Image.fromarray(turn_upright(rgba, orientation)))
    with PIL.Image.open(path) as file:
        np.testing.assert_array_equal(upright, np.array(ImageOps.exif_transpose(file)))
    found = read_image(path)
    np.testing.assert_array_equal(found.alpha, upright[:, :, 3])
    assert found.exif is None


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sixteen_bit_tiff_is_turned_once(tmp_path: Path, orientation: int) -> None:
    deep = RGB.astype(np.uint16) * 256 + 7
    path = str(tmp_path / "turned.tif")
    tifffile.imwrite(path, deep, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    found = read_image(path)
    np.testing.assert_array_equal(found.samples, turn_upright(deep, orientation))


def test_a_thumbnail_and_the_makers_notes_are_left_behind(tmp_path: Path) -> None:
    """A thumbnail shows what the hole is to remove."""
    thumbnail = io.BytesIO()
    PIL.Image.fromarray(RGB).resize((40, 30)).save(thumbnail, "JPEG")
    exif = PIL.Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0x927C: b"private" * 20, 0xA002: 9, 0xA003: 6})
    exif[0x8769] = exif.get_ifd(0x8769)
    data = exif.tobytes() + thumbnail.getvalue()
    path, result = str(tmp_path / "in.png"), str(tmp_path / "out.png")
    PIL.Image.fromarray(RGB).save(path, exif=data)
    write_image(result, read_image(path))
    content = Path(result).read_bytes()
    assert b"private" not in content
    assert b"JFIF" not in content
    with PIL.Image.open(result) as file:
        found = file.getexif()
    assert found[0x010F] == "Maker"
    assert float(found.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)


def test_the_sides_in_exif_are_those_of_the_upright_image(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0xA002: 9, 0xA003: 6})
    exif[0x8769] = exif.get_ifd(0x8769)
    path = str(tmp_path / "in.png")
    PIL.Image.fromarray(RGB).save(path, exif=exif)
    folder = read_image(path).exif.get_ifd(0x8769)
    assert (folder[0xA002], folder[0xA003]) == (6, 9)


def test_how_a_png_means_its_numbers_is_kept(tmp_path: Path) -> None:
    gamma = (b"gAMA", (45455).to_bytes(4, "big"))
    path = str(tmp_path / "gamma.png")
    write_image(path, image(color_chunks=(gamma, (b"sRGB", b"\0"))))
    found = read_image(path)
    assert found.color_chunks == (gamma, (b"sRGB", b"\0"))
    with PIL.Image.open(path) as file:
        file.load()  # checks the sums of all chunks
        assert file.info["gamma"] == pytest.approx(0.45455)
    write_image(path, replace(found, icc=b"\0" * 128))
    assert read_image(path).color_chunks == (gamma,)  # a profile and sRGB exclude each other


@pytest.mark.parametrize(
    ("what", "name", "message"),
    [
        (image(alpha=ALPHA), "out.jpg", r"\.jpg cannot hold alpha of this image; choose \.png or \.tif"),
        (image(RGB.astype(np.uint16)), "out.WebP", r"\.webp cannot hold 16 bits"),
        (image(icc=b"icc"), "out.bmp", "cannot hold the colour profile"),
        (image(RGB.astype(np.uint16), icc=b"icc"), "out.bmp", "cannot hold 16 bits and the colour profile"),
        (image(), "out", "give the output one of these suffixes: .png"),
        (image(), "out.gif", "give the output one of these suffixes: .png"),
    ],
)
def test_formats_that_would_lose_something_are_refused(what: Image, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_to_format(what, name)


def test_cmyk_becomes_rgb_without_its_profile_where_it_must() -> None:
    cmyk = image(np.zeros((6, 9, 4), np.uint8), icc=b"icc")
    as_png = fit_to_format(cmyk, "out.png")
    assert (as_png.samples == 255).all() and as_png.samples.shape == RGB.shape and as_png.icc is None
    assert fit_to_format(cmyk, "out.tif") is cmyk


def test_webp_holds_grey_as_equal_colours(tmp_path: Path) -> None:
    path = tmp_path / "grey.webp"
    write_image(str(path), image(RGB[:, :, :1], alpha=ALPHA))
    with PIL.Image.open(path) as file:
        expected = np.dstack([RGB[:, :, :1]] * 3 + [ALPHA])
        np.testing.assert_array_equal(np.array(file.convert("RGBA")), expected)


def test_a_folder_that_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*none/out.png: No such file"):
        write_image(str(tmp_path / "none/out.png"), image())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_every_format_with_room_for_it_keeps_exif_and_resolution(tmp_path: Path, suffix: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "Maker"
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0xA002: 9, 0xA003: 6})
    exif[0x8769] = exif.get_ifd(0x8769)
    path, result = str(tmp_path / "in.jpg"), str(tmp_path / f"out{suffix}")
    PIL.Image.fromarray(RGB).save(path, exif=exif, dpi=(240, 240))
    write_image(result, read_image(path))
    with PIL.Image.open(result) as file:
        found, dpi = file.getexif(), file.info.get("dpi")
        folder = found.get_ifd(0x8769)
    assert found[0x010F] == "Maker"
    assert 0x0112 not in found
    assert float(folder[0x829A]) == pytest.approx(0.01)
    assert suffix == ".webp" or dpi == pytest.approx((240, 240), abs=0.02)
    again = read_image(result)
    assert float(again.exif.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("data", [b"", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\1"])
def test_broken_exif_does_not_cost_the_image(tmp_path: Path, data: bytes) -> None:
    path, result = str(tmp_path / "in.jpg"), str(tmp_path / "out.png")
    PIL.Image.fromarray(RGB).save(path, exif=b"Exif\0\0" + data)
    write_image(result, read_image(path))
    np.testing.assert_array_equal(read_image(result).samples, cv2.imread(path)[:, :, ::-1])


def test_white_may_be_zero(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        meant = RGB[:, :, 0].astype(dtype) * (257 if dtype == np.uint16 else 1)
        path = str(tmp_path / "white.tif")
        tifffile.imwrite(path, np.iinfo(dtype).max - meant, photometric="miniswhite")
        found = read_image(path)
        np.testing.assert_array_equal(found.samples[:, :, 0], meant)
        np.testing.assert_array_equal(found.rgb, np.repeat(RGB[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_levels_of_every_depth_reach_the_network(tmp_path: Path, bits: int) -> None:
    """Data of 10 or 12 bits in 16-bit files keep their levels, and a hole is filled in the same range."""
    deep = (RGB.astype(np.uint16) << (bits - 8)) + (1 << (bits - 8)) - 1
    path = str(tmp_path / "deep.png")
    cv2.imwrite(path, deep)
    found = read_image(path)
    assert found.bits == bits
    np.testing.assert_array_equal(found.rgb, RGB[:, :, ::-1])
    filled = fill_hole(found, np.full((6, 9, 3), 255, np.uint8), HOLE)
    assert (filled.samples[HOLE] == 2**bits - 1).all()
    np.testing.assert_array_equal(filled.samples[~HOLE], deep[:, :, ::-1][~HOLE])


@pytest.mark.parametrize(("kind", "depth", "key"), [(0, 1, (1,)), (0, 2, (2,)), (0, 4, (7,)), (0, 8, (9,)),
                                                    (0, 16, (300,)), (2, 8, (1, 2, 3)), (2, 16, (400, 5, 6))])
def test_the_transparent_colour_of_a_png(tmp_path: Path, kind: int, depth: int, key: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 2**depth, (8, 8, len(key)))
    levels[2, 3], levels[5, 5] = key, key
    bits = (levels.reshape(8, -1)[:, :, None] >> np.arange(depth)[::-1]) & 1
    rows = b"".join(b"\0" + np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in bits)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, 0)
    body = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) + chunk(b"IDAT", zlib.compress(rows))
    path = tmp_path / "clear.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b""))
    found = read_image(str(path))
    full = 65535 if depth == 16 else 255
    np.testing.assert_array_equal(found.samples, levels * (full // (2**depth - 1)))
    np.testing.assert_array_equal(found.alpha, np.where((levels == key).all(axis=2), 0, full))
    write_image(str(tmp_path / "again.png"), found)
    again = read_image(str(tmp_path / "again.png"))
    np.testing.assert_array_equal(again.samples - found.samples, 0)  # grey of 16 bits with alpha comes back as RGB
    np.testing.assert_array_equal(again.alpha, found.alpha)


@pytest.mark.parametrize(("suffix", "shape"), [(".webp", (2, 16384)), (".webp", (16384, 2)), (".jpg", (2, 65501))])
def test_sides_beyond_a_format_are_refused_before_the_work(suffix: str, shape: tuple[int, int]) -> None:
    long = image(np.zeros((*shape, 3), np.uint8))
    with pytest.raises(UserError, match=f"out{suffix}: {suffix} holds sides of up to .*choose .png or .tif"):
        fit_to_format(long, f"out{suffix}")
    assert fit_to_format(long, "out.png") is long


def test_exif_that_does_not_fit_is_left_out_with_a_warning(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x010F] = "workflow " * 9000
    said = []
    fits = fit_to_format(image(exif=exif), "out.jpg", said.append)
    assert fits.exif is None and len(said) == 1 and "is left out: .jpg holds up to" in said[0]
    write_image(tmp_path / "out.jpg", fits)
    for suffix in (".png", ".webp", ".tif"):
        path = str(tmp_path / f"out{suffix}")
        write_image(path, image(exif=exif))
        assert read_image(path).exif[0x010F] == exif[0x010F]


def test_large_profiles_and_texts_of_a_png_are_read(tmp_path: Path) -> None:
    """Above all what was written here."""
    profile = np.random.default_rng(0).bytes(3 * 2**20)
    path = str(tmp_path / "large.png")
    write_image(path, image(icc=profile))
    assert read_image(path).icc == profile
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 2**21, zip=True)
    PIL.Image.fromarray(RGB).save(path, pnginfo=text)
    np.testing.assert_array_equal(read_image(path).rgb, RGB)


def test_an_encoder_that_fails_is_one_line(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("encoder error -2")

    monkeypatch.setattr("data.image_io._encode_png", fail)
    with pytest.raises(UserError, match="out.png: cannot be encoded: encoder error -2"):
        write_image(tmp_path / "out.png", image())


def test_a_heic_file_is_called_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(UserError, match="is a file of kind HEIC .*save it as JPEG or PNG"):
        read_image(str(path))
