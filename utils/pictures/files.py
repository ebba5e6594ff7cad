"""Writing whole pictures: what each format can hold, the filled hole, and the files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import tifffile
from PIL import Image

from utils.pictures.reading import Picture, PictureError
from utils.visualization import write_bytes

# suffix -> (Pillow's name, bits a sample, can hold alpha, a colour profile, CMYK)
OUTPUT_FORMATS = {
    ".png": ("PNG", 16, True, True, False),
    ".tif": ("TIFF", 16, True, True, True),
    ".tiff": ("TIFF", 16, True, True, True),
    ".webp": ("WEBP", 8, True, True, False),
    ".bmp": ("BMP", 8, False, False, False),
    ".ppm": ("PPM", 8, False, False, False),
    ".jpg": ("JPEG", 8, False, True, True),
    ".jpeg": ("JPEG", 8, False, True, True),
}
LOSSY = (".jpg", ".jpeg")
SAVE_OPTIONS = {  # of Pillow; all of them keep every sample but JPEG
    "PNG": {"compress_level": 4},  # half the time of the usual 6 for files a few percent larger
    "WEBP": {"lossless": True, "exact": True},  # exact: also the colours under transparent pixels
    "JPEG": {"quality": 95, "subsampling": 0},
}
ABOUT = {  # what the format keeps beside the samples
    "TIFF": ("icc_profile", "exif", "dpi"),
    "WEBP": ("icc_profile", "exif"),
    "JPEG": ("icc_profile", "exif", "dpi"),
    "BMP": ("dpi",),
    "PPM": (),
}
INCH = 0.0254  # metres


def fill_hole(picture: Picture, filled: np.ndarray, hole: np.ndarray) -> Picture:
    """The picture with its hole, [H, W] bool, taken from `filled`, uint8 [H, W, 3] RGB; the rest is untouched.

    Grey takes the luma; 16 bits the 8 bits times 257, so that black stays black and white white; CMYK the
    complement without black, which any program turns into the same RGB. Alpha stays as it is, in the hole too.
    """
    channels = picture.samples.shape[2]
    if channels == 1:
        filled = cv2.cvtColor(filled, cv2.COLOR_RGB2GRAY)[:, :, None]
    elif channels == 4:
        filled = np.dstack([255 - filled, np.zeros(filled.shape[:2], np.uint8)])
    if picture.samples.dtype == np.uint16:
        filled = filled.astype(np.uint16) * 257
    return replace(picture, samples=np.where(hole[:, :, None], filled, picture.samples))


def fit_to_format(picture: Picture, rgb: np.ndarray, path: str) -> Picture:
    """The picture as the format of `path` will hold it; only CMYK is changed, into `rgb`, where it must.

    Raises PictureError: the format is unknown or would lose depth, alpha or the colour profile.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in OUTPUT_FORMATS:
        raise PictureError(f"{path}: give the output one of these suffixes: {' '.join(OUTPUT_FORMATS)}")
    _, bits, can_alpha, can_profile, can_cmyk = OUTPUT_FORMATS[suffix]
    if picture.samples.shape[2] == 4 and not can_cmyk:
        picture = replace(picture, samples=rgb, icc=None)  # a profile of CMYK means nothing for RGB
    lost = {
        "16 bits": picture.samples.dtype == np.uint16 and bits == 8,
        "alpha": picture.alpha is not None and not can_alpha,
        "the colour profile": picture.icc is not None and not can_profile,
    }
    if any(lost.values()):
        names = " and ".join(name for name, is_lost in lost.items() if is_lost)
        raise PictureError(f"{path}: {suffix} cannot hold {names} of this picture; choose .png or .tif")
    return picture


def write_picture(path: str, picture: Picture) -> None:
    """Writes a picture that fits the format of the suffix; all but JPEG keep every sample.

    Raises OutputError: missing folder, no permission, full disk.
    """
    kind = OUTPUT_FORMATS[os.path.splitext(path)[1].lower()][0]
    if kind == "PNG":
        data = _encode_png(picture)
    elif picture.samples.dtype == np.uint16:
        data = _encode_deep_tiff(picture)
    else:
        about = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
        about = {name: about[name] for name in ABOUT[kind] if about[name] is not None}
        if kind == "TIFF" and "exif" not in about:
            about["compression"] = "tiff_adobe_deflate"  # the compressor cannot write the folders of EXIF
        data = _encode(picture, kind, **about)
    write_bytes(path, data)


def _with_alpha(picture: Picture) -> np.ndarray:
    """[H, W, C], alpha last."""
    return picture.samples if picture.alpha is None else np.dstack([picture.samples, picture.alpha])


def _encode(picture: Picture, kind: str, **about: object) -> bytes:
    """8-bit samples with Pillow."""
    array = np.ascontiguousarray(_with_alpha(picture))
    mode = "CMYK" if picture.samples.shape[2] == 4 else {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[array.shape[2]]
    if kind == "WEBP" and mode in ("L", "LA"):
        array, mode = _with_equal_colors(array), {"L": "RGB", "LA": "RGBA"}[mode]
    image = Image.frombytes(mode, array.shape[1::-1], array.tobytes())
    file = io.BytesIO()
    image.save(file, kind, **SAVE_OPTIONS.get(kind, {}), **about)
    return file.getvalue()


def _with_equal_colors(array: np.ndarray) -> np.ndarray:
    """Grey, with or without alpha, as RGB."""
    return np.dstack([array[:, :, :1]] * 3 + [array[:, :, 1:]])


def _encode_png(picture: Picture) -> bytes:
    """8 or 16 bits; what says how the numbers are meant comes right after the header."""
    if picture.samples.dtype == np.uint16:
        array = _with_alpha(picture)
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]  # OpenCV's BGR
        encoded = cv2.imencode(".png", np.ascontiguousarray(array[:, :, order]))[1].tobytes()
    else:
        encoded = _encode(picture, "PNG")
    chunks = [chunk for chunk in picture.color_chunks if chunk[0] != b"sRGB" or picture.icc is None]
    if picture.icc is not None:
        chunks.append((b"iCCP", b"profile\0\0" + zlib.compress(picture.icc)))
    if picture.dpi is not None:
        chunks.append((b"pHYs", struct.pack(">IIB", *(min(round(d / INCH), 2**31 - 1) for d in picture.dpi), 1)))
    if picture.exif is not None:
        chunks.append((b"eXIf", picture.exif.tobytes().removeprefix(b"Exif\0\0")))
    body = b"".join(_chunk(*chunk) for chunk in chunks)
    header = 8 + 25  # the signature and IHDR
    return encoded[:header] + body + encoded[header:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _encode_deep_tiff(picture: Picture) -> bytes:
    """16 bits, which Pillow cannot write in colour; without EXIF."""
    array = _with_alpha(picture)
    dpi = {} if picture.dpi is None else {"resolution": picture.dpi, "resolutionunit": "INCH"}
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        array[:, :, 0] if array.shape[2] == 1 else array,
        photometric="minisblack" if array.shape[2] == 1 else "rgb",
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        compression="zlib",
        iccprofile=picture.icc,
        metadata=None,
        **dpi,
    )
    return file.getvalue()
