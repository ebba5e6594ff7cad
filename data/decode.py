"""One image file -> RGB pixels, or an ImageError that says why not."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image

from data.file_list import DataError, one_line

MAX_PIXELS = 2**28
# Pillow tries only these readers; its others (one of them starts a program) never see a file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
ORIENTATION_TAG = 0x0112


class ImageError(DataError):
    """This one file cannot be used; `path` and `reason` say which and why."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)  # both, so that the error survives the way between processes
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{one_line(self.path)}: {self.reason}"


def decode_image(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a file by its content, whatever its suffix says -> uint8 [H,W,3], RGB, 0..255.

    16 bits become 8 by dropping the lower ones, gray is repeated, palettes are looked up, CMYK is converted
    without a colour profile, alpha is dropped, the EXIF orientation is applied, and of an animation the first
    frame is taken. An image of more than `max_pixels` by its header is refused before it is decoded.
    Raises ImageError: not readable, not an image of a known format, truncated or damaged, or too large.
    """
    content = _read(path, max_pixels)
    with _own_limit_only():
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise ImageError(path, f"has {width}x{height} pixels, above the limit of {max_pixels}")
                if not _is_whole(content, picture.format):
                    raise ImageError(path, "is truncated")
                if _suits_opencv(picture):
                    return _upright(_decode_with_opencv(path, content), _orientation(picture))
                picture.load()  # turns TIFF upright by itself and clears the tag
                return _upright(_pixels(path, picture), _orientation(picture))
        except ImageError:
            raise
        except Image.UnidentifiedImageError:
            raise ImageError(path, f"is not an image of a known format ({', '.join(FORMATS)})") from None
        except Exception as error:  # a damaged file can raise nearly anything in a decoder
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(path, f"cannot be decoded: {reason}") from None


@contextmanager
def _own_limit_only() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata, and suspend its size limit, which is below the one here."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read(path: str, max_pixels: int) -> bytes:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(path, "is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise ImageError(path, "is not a regular file")
        if status.st_size == 0:
            raise ImageError(path, "is empty (0 bytes)")
        # 8 bytes a pixel is 16-bit RGBA, uncompressed; the rest is for metadata.
        if status.st_size > 8 * max_pixels + 2**26:
            raise ImageError(path, f"has {status.st_size} bytes, too many for {max_pixels} pixels")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise ImageError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _is_whole(content: bytes, image_format: str) -> bool:
    """False where the end of the file is missing; OpenCV may fill the lost part with grey and say nothing."""
    if image_format in ("JPEG", "MPO"):
        return content.rfind(b"\xff\xd9", _jpeg_scan_start(content)) >= 0
    if image_format == "PNG":
        return content.rfind(b"IEND") >= 0
    if image_format == "WEBP":
        return int.from_bytes(content[4:8], "little") + 8 <= len(content)
    return True  # Pillow reads the others and refuses to guess


def _jpeg_scan_start(content: bytes) -> int:
    """Where the pixels begin; segments before (EXIF) may hold a thumbnail with an end marker of its own."""
    position = 2
    while position + 4 <= len(content):
        position = content.find(b"\xff", position)
        if position < 0:
            break
        marker = content[position + 1 : position + 2]
        if marker == b"\xda":
            return position
        if marker == b"\xff":  # padding before a marker
            position += 1
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return len(content)


def _suits_opencv(picture: Image.Image) -> bool:
    """OpenCV is faster and knows 16-bit PNG; Pillow rounds CMYK right and knows all animations."""
    if picture.format in ("JPEG", "MPO"):
        return picture.mode in ("L", "RGB")
    return picture.format in ("PNG", "WEBP") and not getattr(picture, "is_animated", False)


def _decode_with_opencv(path: str, content: bytes) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)  # [H,W,3] BGR
    if image is None:
        raise ImageError(path, "is damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _pixels(path: str, picture: Image.Image) -> np.ndarray:
    """A loaded picture of any mode -> uint8 [H,W,3]."""
    if picture.mode == "F":
        raise ImageError(path, "holds floating-point numbers, which have no fixed range of colours")
    if picture.mode.startswith("I"):  # one channel of 16 bits; "I" has room for 32
        levels = np.asarray(picture)
        if levels.min() < 0 or levels.max() > 65535:
            raise ImageError(path, "has more than 16 bits a channel")
        return np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(picture.convert("RGB"))


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF data must not cost the image
        return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation 1..8; other values mean nothing and change nothing."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
