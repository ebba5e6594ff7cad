"""Image files: the one reader and the one writer, for training, evaluation, people's own images and the page.

`read_rgb` gives what a network sees; `read_image` also keeps the rest (depth, alpha, profile, EXIF), so that an image
whose hole has been inpainted is written with every other sample as it was; `data/mask_io.py` makes holes of masks.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np
import PIL.Image
import tifffile
from PIL import PngImagePlugin

from data.metadata import clean_dpi, png_chunks, read_exif
from utils.cli import UserError

MAX_PIXELS = 2**28
MAX_METADATA = 2**26  # bytes of one decompressed text or profile of a PNG; Pillow's own limit is 1 MiB
# Pillow tries only these readers; its others (one of them starts a program) never see a file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# suffix -> (Pillow's name, bits a sample, holds alpha, a colour profile, CMYK, longest side, longest EXIF)
OUTPUT_FORMATS = {
    ".png": ("PNG", 16, True, True, False, 2**31 - 1, 2**31 - 1),
    ".tif": ("TIFF", 16, True, True, True, 2**31 - 1, 2**31 - 1),
    ".webp": ("WEBP", 8, True, True, False, 16383, 2**31 - 1),
    ".bmp": ("BMP", 8, False, False, False, 2**31 - 1, 2**31 - 1),
    ".ppm": ("PPM", 8, False, False, False, 2**31 - 1, 2**31 - 1),
    ".jpg": ("JPEG", 8, False, True, True, 65500, 65533 - 6),  # of a segment, without its own length and Exif\0\0
}
OUTPUT_FORMATS.update({".tiff": OUTPUT_FORMATS[".tif"], ".jpeg": OUTPUT_FORMATS[".jpg"]})
SAVE_OPTIONS = {  # of Pillow; all but JPEG keep every sample
    "PNG": {"compress_level": 4},  # half the time of the usual 6 for files a few percent larger
    "WEBP": {"lossless": True, "exact": True},  # exact: also the colours under transparent pixels
    "JPEG": {"quality": 95, "subsampling": 0},
}
KEPT = {"TIFF": ("icc_profile", "exif", "dpi"), "WEBP": ("icc_profile", "exif"), "BMP": ("dpi",), "PPM": ()}
KEPT["JPEG"] = KEPT["TIFF"]
COLOR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")  # of a PNG: how its numbers are meant


@dataclass(frozen=True)
class Image:
    """An upright image and what its file says about it."""

    samples: np.ndarray  # uint8 or uint16 [H, W, C]; C is 1 (grey), 3 (RGB) or 4 (CMYK); 0 is black, or no ink
    alpha: np.ndarray | None = None  # [H, W] of the same type
    bits: int = 8  # that the samples use: of uint16 8, 10, 12 or 16
    icc: bytes | None = None  # the colour profile as it stands
    exif: PIL.Image.Exif | None = None  # without orientation, thumbnail and the camera maker's own notes
    dpi: tuple[float, float] | None = None
    color_chunks: tuple[tuple[bytes, bytes], ...] = ()  # of a PNG
    frames: int = 1  # images in the file; this is the first
    orientation: int = 1  # of EXIF, 1 to 8, that has been undone

    @property
    def rgb(self) -> np.ndarray:
        """What a network sees, uint8 [H, W, 3]: 8 of the bits, without alpha; CMYK without its profile."""
        deep = self.samples.dtype == np.uint16
        color = (self.samples >> (self.bits - 8)).astype(np.uint8) if deep else self.samples
        if color.shape[2] == 4:
            return np.array(PIL.Image.fromarray(color, "CMYK").convert("RGB"))
        return np.repeat(color, 3, axis=2) if color.shape[2] == 1 else color


def read_rgb(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Any image file -> RGB, uint8 [H, W, 3], 0 to 255, upright. Raises UserError as `read_image` does."""
    return read_image(path, max_pixels).rgb


def read_image(path: str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decodes a file by its content, whatever its suffix says; of an animation the first frame.

    An image of more than `max_pixels` by its header is refused before it is decoded. Raises UserError(path, reason):
    not readable, not an image of a known format, truncated or damaged, too large, or of a kind without fixed range.
    """
    content = _read_file(path, max_pixels)
    try:
        with _own_limits(), PIL.Image.open(io.BytesIO(content), formats=FORMATS) as file:
            width, height = file.size
            if width * height > max_pixels:
                raise UserError(path, f"has {width}x{height} pixels, above the limit of {max_pixels}")
            info, kind = dict(file.info), file.format
            exif, orientation = read_exif(file)  # first: its folders are read from the open file
            frames = 1 if kind in ("JPEG", "MPO") else getattr(file, "n_frames", 1)
            samples, alpha = _decode(path, file, content)
    except PIL.UnidentifiedImageError:
        raise UserError(path, _unknown(content)) from None
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything in a decoder
        text = " ".join(str(error).split()) or type(error).__name__
        known = text.endswith(("truncated", "damaged"))
        raise UserError(path, f"is {text.split()[-1]}" if known else f"cannot be decoded: {text}") from None
    if kind != "TIFF":  # which both libraries turn by themselves
        samples, alpha = (part if part is None else turn_upright(part, orientation) for part in (samples, alpha))
    most = int(samples.max()) if samples.dtype == np.uint16 else 0
    chunks = tuple((name, data) for name, data in png_chunks(content) if name in COLOR_CHUNKS)
    bits = next(bits for bits in (8, 10, 12, 16) if most < 1 << bits)
    return Image(
        samples, alpha, bits, info.get("icc_profile"), exif, clean_dpi(info.get("dpi")),
        chunks, frames, orientation,
    )  # fmt: skip


def _unknown(content: bytes) -> str:
    if content[4:8] == b"ftyp":
        brand = content[8:12].decode("latin-1").strip().upper()
        return f"is a file of kind {brand} (HEIC, AVIF or a video), which is not read; save it as JPEG or PNG"
    return f"is not an image of a known format ({', '.join(FORMATS)})"


@contextmanager
def _own_limits() -> Iterator[None]:
    """Silences Pillow's warnings on odd metadata, and puts the limits of this file in the place of its own."""
    before = PIL.Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PIL.Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_METADATA
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


def _read_file(path: str, max_pixels: int) -> bytes:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UserError(path, "is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise UserError(path, "is not a regular file")
        if status.st_size == 0:
            raise UserError(path, "is empty (0 bytes)")
        # 8 bytes a pixel is 16-bit RGBA, uncompressed; the rest is for metadata.
        if status.st_size > 8 * max_pixels + 2**26:
            raise UserError(path, f"has {status.st_size} bytes, too many for {max_pixels} pixels")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _decode(path: str, file: PIL.Image.Image, content: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples [H, W, C] and alpha."""
    kind, mode = file.format, file.mode
    if kind in ("JPEG", "MPO") and mode in ("L", "RGB"):  # 1.5 times as fast as by Pillow, and the same bits
        if content.rfind(b"\xff\xd9", _jpeg_scan_start(content)) < 0:
            raise UserError(path, "is truncated")  # OpenCV would fill the lost part with grey
        flag = cv2.IMREAD_GRAYSCALE if mode == "L" else cv2.IMREAD_COLOR
        array = cv2.imdecode(np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if array is None:
            raise UserError(path, "is damaged")
        return (array[:, :, None] if mode == "L" else cv2.cvtColor(array, cv2.COLOR_BGR2RGB, dst=array)), None
    tags = file.tag_v2 if kind == "TIFF" else {}
    depth = content[24] if kind == "PNG" else max(tags.get(0x0102, (8,)))  # IHDR; BitsPerSample
    if mode == "F":
        raise UserError(path, "holds floating-point numbers, which have no fixed range of colours")
    if depth == 16 and kind in ("PNG", "TIFF"):  # Pillow has 8 of them, but for grey
        samples, alpha = _decode_deep(path, content, tags.get(0x0115))
        if kind == "PNG" and content[25] in (0, 4):  # OpenCV may repeat grey
            samples = samples[:, :, :1]
        if tags.get(0x0106) == 0:  # PhotometricInterpretation: white is zero
            samples = 65535 - samples
    elif mode.startswith("I"):  # PGM of more than 8 bits, stretched to 16 by Pillow; "I" has room for 32
        samples, alpha = np.asarray(file)[:, :, None], None
        if samples.min() < 0 or samples.max() > 65535:
            raise UserError(path, "has more than 16 bits a channel")
        samples = samples.astype(np.uint16)
    else:
        clear = mode in ("RGBA", "LA", "PA", "RGBa", "La") or (mode == "P" and "transparency" in file.info)
        grey = mode in ("1", "L", "LA", "La")
        wanted = "CMYK" if mode == "CMYK" else ("L" if grey else "RGB") + "A" * clear
        array = np.array(file.convert("RGBA" if mode in ("RGBa", "La") else wanted))
        array = array.reshape(*array.shape[:2], -1)
        samples, alpha = (array[:, :, :-1], array[:, :, -1]) if clear else (array, None)
        samples = samples[:, :, :1] if grey else samples
    key = dict(png_chunks(content)).get(b"tRNS")
    if key and alpha is None and mode != "P":  # the one colour of a PNG that is transparent, in its own depth
        full = np.iinfo(samples.dtype).max
        color = np.array(struct.unpack(f">{samples.shape[2]}H", key)) * (full // (2**depth - 1))
        alpha = np.where((samples == color).all(axis=2), 0, full).astype(samples.dtype)
    return np.ascontiguousarray(samples), alpha


def _decode_deep(path: str, content: bytes, channels: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """uint16 colour [H, W, 1 or 3] and alpha."""
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    array = None if array is None else array.reshape(*array.shape[:2], -1)
    if array is None or array.dtype != np.uint16 or array.shape[2] != (channels or array.shape[2]):
        raise UserError(path, "is a damaged 16-bit image, or of a kind that cannot be read; save it as PNG")
    if array.shape[2] < 3:
        return array[:, :, :1], array[:, :, 1] if array.shape[2] == 2 else None
    return array[:, :, 2::-1], array[:, :, 3] if array.shape[2] == 4 else None  # OpenCV has BGR


def _jpeg_scan_start(content: bytes) -> int:
    """Where the pixels begin; segments before (EXIF) may hold a thumbnail with an end marker of its own."""
    position = 2
    while position + 4 <= len(content):
        position = content.find(b"\xff", position)
        if position < 0:
            break
        marker = content[position + 1]
        if marker == 0xDA:
            return position
        position += 1 if marker == 0xFF else 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return len(content)


def turn_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation of 2 to 8 for [H, W] or [H, W, C]; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(array[rows, columns])


def fit_to_format(image: Image, path: str, warn: Callable[[str], None] = lambda text: None) -> Image:
    """The image as the format of `path` will hold it: CMYK becomes RGB where it must, EXIF goes where it is too long.

    To be called before the work. Raises UserError(path, reason): the suffix is unknown, or the format would lose
    depth, alpha or the colour profile, or has no room for sides so long.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in OUTPUT_FORMATS:
        raise UserError(path, f"give the output one of these suffixes: {' '.join(OUTPUT_FORMATS)}")
    _, bits, can_alpha, can_profile, can_cmyk, longest, longest_exif = OUTPUT_FORMATS[suffix]
    height, width = image.samples.shape[:2]
    if max(height, width) > longest:
        limit = f"{suffix} holds sides of up to {longest} pixels, not {width}x{height}"
        raise UserError(path, f"{limit}; choose .png or .tif")
    if image.samples.shape[2] == 4 and not can_cmyk:
        image = replace(image, samples=image.rgb, icc=None)  # a profile of CMYK means nothing for RGB
    lost = {
        "16 bits": image.samples.dtype == np.uint16 and bits == 8,
        "alpha": image.alpha is not None and not can_alpha,
        "the colour profile": image.icc is not None and not can_profile,
    }
    if any(lost.values()):
        names = " and ".join(name for name, is_lost in lost.items() if is_lost)
        raise UserError(path, f"{suffix} cannot hold {names} of this image; choose .png or .tif")
    if image.exif is not None and len(image.exif.tobytes()) > longest_exif:
        warn(f"its EXIF of {len(image.exif.tobytes())} bytes is left out: {suffix} holds up to {longest_exif}")
        image = replace(image, exif=None)
    return image


def write_image(path: str | os.PathLike[str], image: Image | np.ndarray) -> None:
    """Writes an image, or uint8 [H, W, 3] RGB, in the format of the suffix; all but JPEG keep every sample.

    Raises UserError: unknown suffix, what `fit_to_format` refuses, missing folder, no permission, full disk.
    """
    path = os.fspath(path)
    image = fit_to_format(image if isinstance(image, Image) else Image(image), path)
    kind = OUTPUT_FORMATS[os.path.splitext(path)[1].lower()][0]
    try:
        if kind == "PNG":
            data = _encode_png(image)
        elif image.samples.dtype == np.uint16:
            data = _encode_deep_tiff(image)
        else:
            about = {"icc_profile": image.icc, "exif": image.exif, "dpi": image.dpi}
            about = {name: about[name] for name in KEPT[kind] if about[name] is not None}
            if kind == "TIFF" and "exif" not in about:
                about["compression"] = "tiff_adobe_deflate"  # the compressor cannot write the folders of EXIF
            data = _encode(image, kind, **about)
    except Exception as error:  # whatever an encoder raises
        raise UserError(path, f"cannot be encoded: {error}") from None
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def _with_alpha(image: Image) -> np.ndarray:
    """[H, W, C], alpha last."""
    return image.samples if image.alpha is None else np.dstack([image.samples, image.alpha])


def _encode(image: Image, kind: str, **about: object) -> bytes:
    """8-bit samples with Pillow."""
    array = _with_alpha(image)
    mode = "CMYK" if image.samples.shape[2] == 4 else {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[array.shape[2]]
    file = io.BytesIO()
    encoded = PIL.Image.frombytes(mode, array.shape[1::-1], np.ascontiguousarray(array).tobytes())
    if kind == "WEBP" and mode in ("L", "LA"):
        encoded = encoded.convert({"L": "RGB", "LA": "RGBA"}[mode])
    encoded.save(file, kind, **SAVE_OPTIONS.get(kind, {}), **about)
    return file.getvalue()


def _encode_png(image: Image) -> bytes:
    """8 or 16 bits; what says how the numbers are meant comes right after the header."""
    if image.samples.dtype == np.uint16:
        array = _with_alpha(image)
        if array.shape[2] == 2:  # OpenCV has no grey with alpha
            array = array[:, :, [0, 0, 0, 1]]
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]  # OpenCV's BGR
        encoded = cv2.imencode(".png", np.ascontiguousarray(array[:, :, order]))[1].tobytes()
    else:
        encoded = _encode(image, "PNG")
    chunks = [chunk for chunk in image.color_chunks if chunk[0] != b"sRGB" or image.icc is None]
    if image.icc is not None:
        chunks.append((b"iCCP", b"profile\0\0" + zlib.compress(image.icc)))
    if image.dpi is not None:
        per_metre = (min(round(value / 0.0254), 2**31 - 1) for value in image.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if image.exif is not None:
        chunks.append((b"eXIf", image.exif.tobytes().removeprefix(b"Exif\0\0")))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    header = 8 + 25  # the signature and IHDR
    return encoded[:header] + body + encoded[header:]


def _encode_deep_tiff(image: Image) -> bytes:
    """16 bits, which Pillow cannot write in colour; without EXIF."""
    array, grey = _with_alpha(image), image.samples.shape[2] == 1
    dpi = {} if image.dpi is None else {"resolution": image.dpi, "resolutionunit": "INCH"}
    file = io.BytesIO()
    tifffile.imwrite(
        file, array[:, :, 0] if array.shape[2] == 1 else array, photometric="minisblack" if grey else "rgb",
        extrasamples=None if image.alpha is None else ["unassalpha"], compression="zlib", iccprofile=image.icc,
        planarconfig=None if array.shape[2] == 1 else "contig", metadata=None, **dpi,
    )  # fmt: skip
    return file.getvalue()
