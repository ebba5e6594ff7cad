from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data.image_io import read_rgb
from utils.cli import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
# Smooth, so that lossy formats stay close.
ROWS, COLUMNS = np.mgrid[:40, :60]
SMOOTH = np.stack([ROWS * 6, COLUMNS * 4, 255 - COLUMNS * 4], axis=-1).astype(np.uint8)


def encoded(image, image_format, **options):
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(pixels, colour_type, bits=8, chunks=()):
    """A PNG of any colour type, which Pillow cannot write; pixels [H,W] or [H,W,C]."""
    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    extra = b"".join(chunk(name, content) for name, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def decode(tmp_path):
    def write_and_decode(content, name="image.jpg", **options):
        path = tmp_path / name
        path.write_bytes(content)
        return read_rgb(str(path), **options)

    return write_and_decode


@pytest.fixture
def refusal(decode):
    def write_and_fail(content, name="image.jpg", **options):
        with pytest.raises(UserError) as caught:
            decode(content, name, **options)
        assert os.path.basename(caught.value.path) == name
        assert str(caught.value) == f"{caught.value.path}: {caught.value.reason}"
        assert "\n" not in str(caught.value)
        return caught.value.reason

    return write_and_fail


def gray(pixels):
    return np.repeat(pixels[..., None], 3, axis=2)


@pytest.mark.parametrize("image_format, options", [
    ("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
])
def test_lossless_formats_whatever_the_suffix(decode, image_format, options):
    found = decode(encoded(NOISE, image_format, **options), "mislabelled.jpg")
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.array_equal(found, NOISE)


@pytest.mark.parametrize("image_format, options", [
    ("JPEG", {"quality": 98}), ("JPEG", {"quality": 98, "progressive": True}), ("WEBP", {"quality": 98}),
])
def test_lossy_formats_keep_red_red(decode, image_format, options):
    found = decode(encoded(SMOOTH, image_format, **options), "mislabelled.png")
    assert np.abs(found.astype(int) - SMOOTH).mean() < 3


def test_sixteen_bits_lose_the_lower_eight(decode):
    levels = np.random.default_rng(1).integers(0, 65536, (9, 7, 4))
    levels[0, 0] = [0x00FF, 0x0100, 0xFFFF, 0x8000]
    expected = (levels >> 8).astype(np.uint8)
    assert np.array_equal(decode(png(levels[..., 0], 0, 16)), gray(expected[..., 0]))
    assert np.array_equal(decode(png(levels[..., :2], 4, 16)), gray(expected[..., 0]))
    assert np.array_equal(decode(png(levels[..., :3], 2, 16)), expected[..., :3])
    assert np.array_equal(decode(png(levels, 6, 16)), expected[..., :3])
    one = levels[..., 0].astype(np.uint16)
    assert np.array_equal(decode(encoded(one, "TIFF")), gray(expected[..., 0]))
    assert np.array_equal(decode(b"P5 7 9 65535\n" + one.astype(">u2").tobytes()), gray(expected[..., 0]))


def test_gray_and_one_bit(decode):
    assert np.array_equal(decode(encoded(NOISE[..., 0], "PNG")), gray(NOISE[..., 0]))
    found = decode(encoded(SMOOTH[..., 0], "JPEG", quality=98))
    assert found.shape == (40, 60, 3) and np.ptp(found, axis=2).max() == 0
    bits = Image.fromarray(NOISE[..., 0] > 127)
    assert np.array_equal(decode(encoded(bits, "PNG")), gray(np.where(NOISE[..., 0] > 127, 255, 0)))


def test_alpha_is_dropped_not_blended(decode):
    alpha = NOISE[..., :1] // 2
    assert np.array_equal(decode(png(np.dstack([NOISE, alpha]), 6)), NOISE)
    assert np.array_equal(decode(png(np.dstack([NOISE[..., 1:2], alpha]), 4)), gray(NOISE[..., 1]))
    assert np.array_equal(decode(png(NOISE, 2, chunks=[(b"tRNS", b"\0\x05" * 3)])), NOISE)
    rgba = Image.fromarray(np.dstack([NOISE, alpha]))
    assert np.array_equal(decode(encoded(rgba, "WEBP", lossless=True, exact=True)), NOISE)
    assert np.array_equal(decode(encoded(rgba, "TIFF")), NOISE)


def test_palettes_are_looked_up(decode):
    palette, indices = NOISE.reshape(-1, 3)[:256], NOISE[..., 0]
    content = palette.tobytes()
    assert np.array_equal(decode(png(indices, 3, chunks=[(b"PLTE", content)])), palette[indices])
    translucent = [(b"PLTE", content), (b"tRNS", bytes(range(256)))]
    assert np.array_equal(decode(png(indices, 3, chunks=translucent)), palette[indices])
    few = Image.fromarray(indices % 5).convert("L")
    few.putpalette(content)
    for image_format in ("GIF", "BMP", "TIFF"):
        assert np.array_equal(decode(encoded(few, image_format)), palette[indices % 5])


def test_jpeg_with_two_pictures_gives_the_first(decode, refusal):
    first, second = Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)
    content = encoded(first, "MPO", save_all=True, append_images=[second], quality=98)
    assert np.abs(decode(content).astype(int) - SMOOTH).mean() < 3
    assert refusal(content[: len(content) // 3]) == "is truncated"


def test_jpeg_that_holds_rgb(decode):
    content = encoded(SMOOTH, "JPEG", quality=98, keep_rgb=True)
    assert np.abs(decode(content).astype(int) - SMOOTH).mean() < 3


def test_cmyk_jpeg(decode):
    ink = 255 - SMOOTH  # no black: cyan is what red lacks
    picture = Image.fromarray(np.dstack([ink, np.zeros_like(ink[..., :1])]), mode="CMYK")
    found = decode(encoded(picture, "JPEG", quality=98))
    assert np.abs(found.astype(int) - SMOOTH).mean() < 4
    half_black = Image.new("CMYK", (16, 16), (0, 255, 255, 128))  # red is 255 * (1 - 0) * (1 - 128 / 255)
    assert (np.abs(decode(encoded(half_black, "JPEG", quality=100)).astype(int) - [127, 0, 0]) <= 2).all()


def test_animations_give_their_first_frame(decode):
    frames = [Image.fromarray(frame) for frame in (NOISE, 255 - NOISE, NOISE[::-1])]
    more = {"save_all": True, "append_images": frames[1:]}
    assert np.array_equal(decode(encoded(frames[0], "WEBP", lossless=True, **more)), NOISE)
    assert np.array_equal(decode(encoded(frames[0], "PNG", **more)), NOISE)
    assert np.array_equal(decode(encoded(frames[0], "TIFF", **more)), NOISE)
    flat = [Image.new("RGB", (8, 6), colour) for colour in ("#ff0000", "#00ff00")]
    found = decode(encoded(flat[0], "GIF", save_all=True, append_images=flat[1:]))
    assert found.shape == (6, 8, 3) and (found == [255, 0, 0]).all()


# How the pixels lie in the file for each EXIF orientation of one upright image.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 1),  # the viewer turns it clockwise
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(decode, image_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98}, "WEBP": {"lossless": True}}.get(image_format, {})
    stored = np.ascontiguousarray(STORED[orientation](SMOOTH))
    found = decode(encoded(stored, image_format, exif=exif, **options))
    assert found.shape == SMOOTH.shape and found.flags.c_contiguous
    assert np.abs(found.astype(int) - SMOOTH).mean() < (3 if image_format == "JPEG" else 0.01)


def test_senseless_exif_changes_nothing(decode):
    exif = Image.Exif()
    exif[0x0112] = 9
    assert np.array_equal(decode(encoded(NOISE, "PNG", exif=exif)), NOISE)
    assert decode(encoded(NOISE, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff broken")).shape == NOISE.shape


def test_one_pixel_and_strange_names(decode):
    for image_format in ("PNG", "JPEG", "BMP", "WEBP"):
        found = decode(encoded(np.full((1, 1, 3), 200, np.uint8), image_format), "ein größeres Bild 図 .jpg")
        assert found.shape == (1, 1, 3) and np.abs(found.astype(int) - 200).max() <= 3


@pytest.mark.parametrize("image_format, options", [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("BMP", {}), ("TIFF", {}), ("GIF", {}), ("PPM", {}),
])
def test_truncated_files(refusal, image_format, options):
    content = encoded(NOISE, image_format, **options)
    for length in (len(content) // 4, len(content) // 2, len(content) - 100):
        assert refusal(content[:length])


def test_truncated_jpeg_with_a_whole_thumbnail(refusal, decode):
    # The thumbnail's end marker must not pass for the photograph's.
    thumbnail = encoded(NOISE[:8, :8], "JPEG")
    content = encoded(NOISE, "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert decode(content).shape == NOISE.shape
    assert refusal(content[: len(content) * 3 // 4]) == "is truncated"
    assert refusal(content[: len(content) * 3 // 4] + bytes(5000)) == "is truncated"


def test_bytes_after_the_end_do_no_harm(decode):
    for image_format in ("JPEG", "PNG", "WEBP"):
        assert decode(encoded(NOISE, image_format) + bytes(300)).shape == NOISE.shape


def test_damaged_png(refusal):
    content = bytearray(encoded(NOISE, "PNG"))
    content[len(content) // 2] ^= 0xFF
    assert refusal(bytes(content)) == "is damaged"


def test_files_that_are_no_images(refusal, tmp_path):
    assert refusal(b"") == "is empty (0 bytes)"
    assert refusal(b"not an image\n" * 99).startswith("is not an image of a known format (JPEG, PNG")
    assert refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").startswith("is not an image")
    assert refusal(encoded(NOISE, "JPEG")[:2])
    assert refusal(encoded(np.ones((4, 4), np.float32), "TIFF")).startswith("holds floating-point numbers")
    assert refusal(encoded(np.full((4, 4), 2**20, np.int32), "TIFF")) == "has more than 16 bits a channel"


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in {
        "folder.jpg": "is a folder, not an image",
        "pipe.jpg": "is not a regular file",
        "gone.jpg": "cannot be read: No such file or directory",
    }.items():
        with pytest.raises(UserError) as caught:
            read_rgb(str(tmp_path / name))
        assert caught.value.reason == reason


def test_decompression_bombs_are_refused_by_their_header(refusal, decode):
    def resized(content, width, height):
        header = content[12:16] + struct.pack(">II", width, height) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]

    started = time.perf_counter()
    content = png(NOISE, 2)
    above = f"pixels, above the limit of {2**28}"
    assert refusal(resized(content, 2**14, 2**14 + 1)) == f"has 16384x16385 {above}"
    assert refusal(resized(content, 2**30, 2**30)) == f"has 1073741824x1073741824 {above}"
    jpeg = bytearray(encoded(NOISE, "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = b"\xff\xdc\xff\xdc"
    assert refusal(bytes(jpeg)) == f"has 65500x65500 {above}"
    assert time.perf_counter() - started < 1
    assert Image.MAX_IMAGE_PIXELS  # Pillow's own limit is as it was
    assert refusal(content, max_pixels=2399) == "has 60x40 pixels, above the limit of 2399"
    assert decode(content, max_pixels=2400).shape == (40, 60, 3)


def test_file_too_long_for_its_pixels(refusal, tmp_path):
    path = tmp_path / "image.jpg"
    with open(path, "wb") as file:
        file.truncate(2**26 + 81)  # a sparse file
    with pytest.raises(UserError, match="has 67108945 bytes, too many for 10 pixels"):
        read_rgb(str(path), max_pixels=10)


def test_same_pixels_as_opencv_on_the_plain_road(decode, tmp_path):
    path = tmp_path / "plain.jpg"
    assert cv2.imwrite(str(path), SMOOTH)
    assert np.array_equal(read_rgb(str(path)), cv2.imread(str(path))[..., ::-1])


def test_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(UserError("a\nb.jpg", "is truncated")))
    assert (error.path, error.reason, str(error)) == ("a\nb.jpg", "is truncated", "a\\nb.jpg: is truncated")
