"""What a file says about its image, as far as it still holds when a hole of it has been inpainted."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import PIL.Image

ORIENTATION = 0x0112
# What EXIF says of the image and not of the file: description, make, model, software, date, artist, rights.
EXIF_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
EXIF_FOLDERS = (0x8769, 0x8825)  # of the exposure, of the place
MAKER_NOTE, WIDTH_TAG, HEIGHT_TAG = 0x927C, 0xA002, 0xA003


def read_exif(file: PIL.Image.Image) -> tuple[PIL.Image.Exif | None, int]:
    """What still holds of EXIF, and the orientation; broken EXIF must not cost the image.

    A thumbnail would show what the hole is to remove, and the image will be upright.
    """
    orientation = 1
    try:
        exif, clean = file.getexif(), PIL.Image.Exif()
        orientation = exif.get(ORIENTATION, 1)
        for tag in EXIF_TAGS:
            if tag in exif:
                clean[tag] = exif[tag]
        for tag in EXIF_FOLDERS:
            folder = {key: value for key, value in exif.get_ifd(tag).items() if key != MAKER_NOTE}
            if WIDTH_TAG in folder:  # the sides are those of the upright image
                folder[WIDTH_TAG], folder[HEIGHT_TAG] = file.size[:: -1 if orientation in (5, 6, 7, 8) else 1]
            if folder:
                clean.get_ifd(tag).update(folder)
                clean[tag] = clean.get_ifd(tag)
        clean.tobytes()  # what cannot be written is found here
        return (clean if len(clean) else None), orientation
    except Exception:  # whatever broken data make the reader raise
        return None, orientation


def clean_dpi(dpi: object) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if min(across, down) >= 1 and math.isfinite(max(across, down)) else None


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and data of all chunks; nothing for other formats. Pillow does not notice pixels whose sum is wrong."""
    position = 8 if content.startswith(b"\x89PNG") else len(content)
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        data, position = content[position + 8 : position + 8 + length], position + 12 + length
        if name == b"IDAT" and zlib.crc32(name + data).to_bytes(4, "big") != content[position - 4 : position]:
            raise ValueError("truncated" if position > len(content) else "damaged")
        yield name, data
