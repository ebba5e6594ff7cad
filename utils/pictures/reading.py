"""Reading people's own pictures whole: colour at its own depth, alpha, colour profile, EXIF.

What a network sees of a picture is its 8-bit RGB; here is the rest, so that a picture whose hole has been filled
can be written (`utils/pictures/files.py`) with every other sample as it was.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from utils.cli import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Chunks that say how a PNG's numbers are meant, beside its profile.
COLOR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")
ORIENTATION = 0x0112
# What EXIF says of the picture and not of the file: description, make, model, software, date, artist, rights.
EXIF_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
EXIF_FOLDERS = (0x8769, 0x8825)  # of the exposure, of the place
MAKER_NOTE, WIDTH_TAG, HEIGHT_TAG = 0x927C, 0xA002, 0xA003


class PictureError(UserError):
    """This picture, mask or combination cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Picture:
    """An upright picture and what its file says about it."""

    samples: np.ndarray  # uint8 or uint16 [H, W, C]; C is 1 (grey), 3 (RGB) or 4 (CMYK)
    alpha: np.ndarray | None  # [H, W] of the same type
    icc: bytes | None  # the colour profile as it stands
    exif: Image.Exif | None  # without orientation, thumbnail and the camera maker's own notes
    dpi: tuple[float, float] | None
    color_chunks: tuple[tuple[bytes, bytes], ...]  # of a PNG
    frames: int  # how many pictures the file holds; this is the first


def read_picture(path: str, rgb: np.ndarray) -> Picture:
    """The rest of a picture whose 8-bit upright RGB, uint8 [H, W, 3], is known already and its file sound.

    Raises PictureError: a kind of picture whose samples cannot be read as they stand.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        with _judged_before(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            info, mode = dict(image.info), image.mode
            exif, orientation = _read_exif(image, rgb.shape)  # first: folders are read from the open file
            frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
            if _is_deep(content, image):
                samples, alpha = _deep_samples(path, content, image.format, orientation)
            else:
                samples, alpha = _samples(image, orientation)
    except Exception as error:  # rare kinds that only one of the two decoders knows
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{path}: its samples cannot be read: {error}") from None
    if samples is None:
        grey = mode in ("1", "L", "LA", "La")
        samples = rgb[:, :, :1] if grey else rgb
    _check_agreement(path, samples, rgb)
    return Picture(
        samples=samples,
        alpha=alpha,
        icc=info.get("icc_profile"),
        exif=exif,
        dpi=_clean_dpi(info.get("dpi")),
        color_chunks=_color_chunks(content),
        frames=frames,
    )


@contextmanager
def _judged_before() -> Iterator[None]:
    """Without Pillow's size limit and its remarks on odd metadata: the file is known to be sound."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _is_deep(content: bytes, image: Image.Image) -> bool:
    """Whether samples have 16 bits; Pillow gives only 8 of them for most kinds."""
    if image.format == "PNG":
        return content[24] == 16  # IHDR's bit depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(0x0102, (1,))) == 16
    return image.format == "PPM" and (image.mode.startswith("I") or _ppm_maximum(content) > 255)


def _ppm_maximum(content: bytes) -> int:
    words = b" ".join(line.partition(b"#")[0] for line in content[:1000].split(b"\n")).split()
    return int(words[3]) if len(words) > 3 and words[0] in (b"P2", b"P3", b"P5", b"P6") else 1


def _deep_samples(
    path: str, content: bytes, image_format: str, orientation: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """uint16 colour [H, W, 1 or 3] and alpha, upright."""
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise PictureError(f"{path}: this kind of 16-bit picture cannot be read; save it as PNG")
    array = array.reshape(*array.shape[:2], -1)
    if image_format != "TIFF":  # OpenCV turns TIFF by itself
        array = turn_upright(array, orientation)
    if array.shape[2] == 1:
        return array, None
    color = np.ascontiguousarray(array[:, :, 2::-1])  # OpenCV's BGR
    return color, array[:, :, 3] if array.shape[2] == 4 else None


def _samples(image: Image.Image, orientation: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """CMYK samples (None for other kinds) and alpha of an 8-bit picture, upright."""
    if image.mode == "CMYK":
        color, alpha = np.array(image), None
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        color, alpha = None, np.array(image.convert("RGBA").getchannel("A"))
    else:
        return None, None
    if image.format == "TIFF":  # Pillow turns it by itself
        return color, alpha
    return tuple(part if part is None else turn_upright(part, orientation) for part in (color, alpha))


def turn_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation of 2 to 8 for [H, W] or [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(array[rows, columns])


def _check_agreement(path: str, samples: np.ndarray, rgb: np.ndarray) -> None:
    """What will be written must be what the network sees, in the same position and at the same brightness."""
    agree = samples.shape[:2] == rgb.shape[:2]
    if agree and samples.dtype == np.uint16:
        # one level apart where one decoder rounds and the other drops the lower bits
        agree = bool((np.abs((samples >> 8).astype(np.int16) - rgb) <= 1).all())
    if not agree:
        raise PictureError(f"{path}: two decoders disagree about this kind of picture; save it as PNG")


def _read_exif(image: Image.Image, shape: tuple[int, ...]) -> tuple[Image.Exif | None, int]:
    """What is kept of EXIF, and the orientation; broken EXIF must not cost the picture."""
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(ORIENTATION, 1)
        clean = _clean_exif(exif, shape)
        if clean is not None:
            clean.tobytes()  # what cannot be written is found here
        return clean, orientation
    except Exception:  # whatever broken data make the reader raise
        return None, orientation


def _clean_exif(exif: Image.Exif, shape: tuple[int, ...]) -> Image.Exif | None:
    """The part that still holds: a thumbnail would show what the hole is to remove, and the picture is upright."""
    clean = Image.Exif()
    for tag in EXIF_TAGS:
        if tag in exif:
            clean[tag] = exif[tag]
    for tag in EXIF_FOLDERS:
        folder = {key: value for key, value in exif.get_ifd(tag).items() if key != MAKER_NOTE}
        if WIDTH_TAG in folder and HEIGHT_TAG in folder:
            folder[HEIGHT_TAG], folder[WIDTH_TAG] = shape[:2]
        if folder:
            clean.get_ifd(tag).update(folder)
            clean[tag] = clean.get_ifd(tag)
    return clean if len(clean) else None


def _clean_dpi(dpi: object) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if min(across, down) >= 1 and math.isfinite(max(across, down)) else None


def _color_chunks(content: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if not content.startswith(b"\x89PNG"):
        return ()
    found, position = [], 8
    while position + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        if name == b"IDAT":
            break
        if name in COLOR_CHUNKS:
            found.append((name, content[position + 8 : position + 8 + length]))
        position += 12 + length
    return tuple(found)
