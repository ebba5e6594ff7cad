"""Images and masks as people have them, each with what must come out; for tests/test_inputs.py."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms

HEIGHT, WIDTH = 37, 45
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@dataclass
class Case:
    """One command line. `truth` and `alpha` are what a lossless result must hold outside of `hole`."""

    name: str
    arguments: list[str]
    truth: np.ndarray | None = None  # [H, W, C] upright; None: refused, or not compared
    alpha: np.ndarray | None = None
    hole: np.ndarray | None = None  # bool [H, W]
    result: str = "out.png"
    profile: bool = False
    needs: tuple[str, ...] = ()  # what stderr must say
    code: int = 0
    extra: dict[str, tuple[int, int]] = field(default_factory=dict)  # other results: name -> (height, width)


def photo(height: int = HEIGHT, width: int = WIDTH, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth noise, uint8 [height, width, channels]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(height // 8, 2), max(width // 8, 2), channels), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def deep_photo(channels: int) -> np.ndarray:
    """uint16, with lower bits of its own."""
    low = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    return photo(channels=channels).astype(np.uint16) * 256 + low


def box(height: int = HEIGHT, width: int = WIDTH, top: int = 10, left: int = 12, rows: int = 10, columns: int = 18):
    hole = np.zeros((height, width), bool)
    hole[top : top + rows, left : left + columns] = True
    return hole


def pil(array: np.ndarray, mode: str | None = None) -> Image.Image:
    mode = mode or {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[array.shape[2]]
    return Image.frombytes(mode, array.shape[1::-1], np.ascontiguousarray(array).tobytes())


def save_mask(folder: Path, hole: np.ndarray, name: str = "mask.png") -> None:
    Image.fromarray(hole.astype(np.uint8) * 255).save(folder / name)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge image."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def line(image: str = "in.png", output: str = "out.png", *options: str, mask: str = "mask.png") -> list[str]:
    return ["--image", image, "--mask", mask, "--output", output, *options]


def make_plain(folder: Path) -> list[Case]:
    """Formats that keep every sample, in and out."""
    rgb, rgba, hole = photo(), photo(channels=4), box()
    grey, grey_alpha = photo(channels=1), photo(channels=2)
    save_mask(folder, hole)
    pil(rgb).save(folder / "rgb.png", icc_profile=PROFILE, dpi=(300, 300))
    pil(rgba).save(folder / "rgba.png")
    pil(grey).save(folder / "grey.png")
    pil(grey_alpha).save(folder / "grey_alpha.png")
    palette = pil(rgb).quantize(32)
    palette.save(folder / "palette.png")
    palette.save(folder / "palette_clear.png", transparency=3)
    looked_up = np.array(palette.convert("RGB"))
    clear = np.where(np.array(palette) == 3, 0, 255).astype(np.uint8)
    bits = grey[:, :, 0] > 127
    Image.fromarray(bits).save(folder / "bits.png")
    deep = {1: deep_photo(1), 3: deep_photo(3), 4: deep_photo(4)}
    for channels, order in ((1, [0]), (3, [2, 1, 0]), (4, [2, 1, 0, 3])):
        cv2.imwrite(str(folder / f"deep{channels}.png"), np.ascontiguousarray(deep[channels][:, :, order]))
    pil(rgb).save(folder / "rgb.tif", compression="tiff_lzw", icc_profile=PROFILE)
    pil(rgba).save(folder / "rgba.tif")
    tifffile.imwrite(folder / "deep.tif", deep[3], photometric="rgb", iccprofile=PROFILE)
    tifffile.imwrite(folder / "deep_rgba.tif", deep[4], photometric="rgb", extrasamples=["unassalpha"])
    cmyk = photo(channels=4, seed=3)
    pil(cmyk, "CMYK").save(folder / "cmyk.tif")
    pil(rgb).save(folder / "rgb.bmp")
    pil(rgba).save(folder / "rgba.webp", lossless=True, exact=True, icc_profile=PROFILE)
    pil(rgb).save(folder / "rgb.ppm")

    def case(name: str, image: str, output: str, truth: np.ndarray, alpha: np.ndarray | None = None, **more) -> Case:
        return Case(name, line(image, output), truth, alpha, hole, output, **more)

    return [
        case("PNG, RGB, ICC profile, 300 dpi, 45x37", "rgb.png", "out.png", rgb, profile=True),
        case("PNG, RGBA", "rgba.png", "out_rgba.png", rgba[:, :, :3], rgba[:, :, 3]),
        case("PNG, grey", "grey.png", "out_grey.png", grey),
        case("PNG, grey with alpha", "grey_alpha.png", "out_ga.png", grey_alpha[:, :, :1], grey_alpha[:, :, 1]),
        case("PNG, palette", "palette.png", "out_palette.png", looked_up),
        case("PNG, palette with a transparent entry", "palette_clear.png", "out_clear.png", looked_up, clear),
        case("PNG, 1 bit", "bits.png", "out_bits.png", bits[:, :, None].astype(np.uint8) * 255),
        case("PNG, 16-bit grey", "deep1.png", "out_deep1.png", deep[1]),
        case("PNG, 16-bit RGB", "deep3.png", "out_deep3.png", deep[3]),
        case("PNG, 16-bit RGBA", "deep4.png", "out_deep4.png", deep[4][:, :, :3], deep[4][:, :, 3]),
        case("TIFF, RGB, LZW, ICC profile", "rgb.tif", "out.tif", rgb, profile=True),
        case("TIFF, RGBA", "rgba.tif", "out_rgba.tif", rgba[:, :, :3], rgba[:, :, 3]),
        case("TIFF, 16-bit RGB, ICC profile", "deep.tif", "out_deep.tif", deep[3], profile=True),
        case("TIFF, 16-bit RGBA", "deep_rgba.tif", "out_dr.tiff", deep[4][:, :, :3], deep[4][:, :, 3]),
        case("TIFF, 16-bit RGB, ICC profile, to PNG", "deep.tif", "deep_tif.png", deep[3], profile=True),
        case("TIFF, CMYK", "cmyk.tif", "out_cmyk.tif", cmyk),
        case("BMP, RGB", "rgb.bmp", "out.bmp", rgb),
        case("WebP, lossless, RGBA, ICC", "rgba.webp", "out.webp", rgba[:, :, :3], rgba[:, :, 3], profile=True),
        case("PPM, RGB", "rgb.ppm", "out.ppm", rgb),
    ]


def make_lossy(folder: Path) -> list[Case]:
    """Formats that lose something by nature: what was decoded must come back."""
    rgb, hole = photo(), box()
    save_mask(folder, hole)
    pil(rgb).save(folder / "rgb.jpg", icc_profile=PROFILE)
    pil(photo(channels=1)).save(folder / "grey.jpg")
    pil(photo(channels=4), "CMYK").save(folder / "cmyk.jpg")
    pil(rgb).save(folder / "lossy.webp", quality=80)
    frames = [pil(photo(seed=k)).quantize(64) for k in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    pil(rgb).save(folder / "really a png.jpg", "PNG")
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Camera"
    pil(rgb).save(folder / "turned.jpg", exif=exif, icc_profile=PROFILE)
    save_mask(folder, box(WIDTH, HEIGHT, 20, 8, 12, 9), "upright.png")
    upright = np.rot90(np.array(Image.open(folder / "turned.jpg")), -1)

    def decoded(name: str) -> np.ndarray:
        array = np.array(Image.open(folder / name).convert("L" if name == "grey.jpg" else "RGB"))
        return array.reshape(HEIGHT, WIDTH, -1)

    def case(name: str, image: str, **more) -> Case:
        return Case(name, line(image, f"{image}.png"), decoded(image), None, hole, f"{image}.png", **more)

    return [
        case("JPEG, RGB, ICC profile, to PNG", "rgb.jpg", profile=True),
        case("JPEG, grey, to PNG", "grey.jpg"),
        case("JPEG, CMYK, to PNG: becomes RGB", "cmyk.jpg"),
        case("WebP, lossy, to PNG", "lossy.webp"),
        case("GIF, animated, to PNG", "moving.gif", needs=("holds 3 frames",)),
        case("PNG named .jpg, a space in its name", "really a png.jpg"),
        Case(
            "JPEG, EXIF orientation 6, ICC profile; mask drawn upright",
            line("turned.jpg", "turned.png", mask="upright.png"),
            upright, None, box(WIDTH, HEIGHT, 20, 8, 12, 9), "turned.png", profile=True,
        ),
        Case("JPEG to JPEG", line("rgb.jpg", "again.jpg"), result="again.jpg", needs=("JPEG changes known",)),
    ]  # fmt: skip


def make_sizes(folder: Path) -> list[Case]:
    """From one pixel to twelve million."""
    cases = []
    for height, width, hole, options in (
        (1, 2, box(1, 2, 0, 0, 1, 1), ()),
        (7, 9, box(7, 9, 2, 3, 3, 3), ()),
        (64, 64, box(64, 64), ()),
        (8, 500, box(8, 500, 2, 100, 4, 20), ()),
        (301, 203, box(301, 203, 290, 180, 11, 23), ()),
        (3000, 4000, box(3000, 4000, 1000, 900, 200, 300) | box(3000, 4000, 10, 3000, 90, 700), ()),
    ):
        name = f"{width}x{height}"
        image = photo(height, width) if height < 3000 else photo(30, 40).repeat(100, 0).repeat(100, 1)
        pil(image).save(folder / f"{name}.png", compress_level=1)
        save_mask(folder, hole, f"{name}_mask.png")
        extra = {}
        if width == 203:
            options = ("--save-attention", "colours.png", "--attention-at", "190,295")
            extra = {"colours.png": (301, 403), "colours_at.png": (280, 256)}
        arguments = line(f"{name}.png", f"{name}_out.png", *options, mask=f"{name}_mask.png")
        cases.append(Case(f"PNG, {name}", arguments, image, None, hole, f"{name}_out.png", extra=extra))
    for name, level in (("white", True), ("black", False)):
        pil(photo(1, 1)).save(folder / "1x1.png")
        save_mask(folder, np.full((1, 1), level), f"{name}.png")
        needs = ("covers the whole image" if level else "has no hole",)
        cases.append(Case(f"PNG, 1x1, {name} mask", line("1x1.png", mask=f"{name}.png"), code=2, needs=needs))
    return cases


def make_masks(folder: Path) -> list[Case]:
    """Every way to say where the hole is."""
    rgb, hole = photo(), box()
    pil(rgb).save(folder / "in.png")
    several = box() | box(top=0, left=38, rows=5, columns=7) | box(top=36, left=0, rows=1, columns=45)
    strokes = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    strokes[hole] = (200, 0, 0, 255)
    erased = np.dstack([rgb, np.where(hole, 0, 255).astype(np.uint8)])
    deep = np.where(hole, 128 << 8, 127 << 8 | 255).astype(np.uint16)  # just above and just below
    levels = np.where(hole, 128, 127).astype(np.uint8)
    save_mask(folder, hole, "white hole.png")
    save_mask(folder, ~hole, "black hole.png")
    save_mask(folder, several, "several.png")
    pil(strokes).save(folder / "strokes.png")
    pil(erased).save(folder / "erased.png")
    cv2.imwrite(str(folder / "deep.png"), deep)
    Image.fromarray(levels).save(folder / "levels.png")
    Image.fromarray(hole.astype(np.uint8) * 255).save(folder / "mask.jpg", quality=60)
    save_mask(folder, box(74, 90, 20, 24, 20, 36), "double.png")
    save_mask(folder, np.zeros_like(hole), "empty.png")
    save_mask(folder, np.ones_like(hole), "full.png")
    big = photo(96, 96)
    pil(big).save(folder / "big.png")
    save_mask(folder, box(96, 96, 8, 8, 80, 80), "wide.png")
    clear = np.dstack([rgb, np.where(hole, 0, 255).astype(np.uint8)])

    def case(name: str, mask: str, *options: str, where: np.ndarray = hole, needs: tuple[str, ...] = ()) -> Case:
        output = f"out {mask}.png"
        return Case(name, line("in.png", output, *options, mask=mask), rgb, None, where, output, needs=needs)

    def refused(name: str, mask: str, *needs: str, options: tuple[str, ...] = ()) -> Case:
        return Case(name, line("in.png", "never.png", *options, mask=mask), code=2, needs=needs)

    return [
        case("mask: black hole", "black hole.png", "--invert-mask"),
        case("mask: several holes, on borders too", "several.png", where=several),
        case("mask: red strokes on a transparent layer", "strokes.png"),
        case("mask: the image with the hole erased", "erased.png", "--invert-mask"),
        case("mask: levels 128 and 127", "levels.png", needs=("its levels are 127, 128; those above 127",)),
        case("mask: 16 bit, just above and below the threshold", "deep.png", needs=("its levels are 127, 128",)),
        case("mask: JPEG with grey seams", "mask.jpg"),
        case("mask: twice the size, stretched", "double.png", "--resize-mask"),
        refused("mask: twice the size", "double.png", "is 90x74 (width x height), the image 45x37", "--resize-mask"),
        refused("mask: empty", "empty.png", "has no hole"),
        refused("mask: full", "full.png", "covers the whole image"),
        refused("mask: missing", "absent.png", "--mask absent.png: no such file"),
        Case(
            "hole much wider than those trained on",
            line("big.png", "big_out.png", mask="wide.png"),
            big, None, box(96, 96, 8, 8, 80, 80), "big_out.png", needs=("wide.png: the hole is 69% of the image",),
        ),
        Case(
            "the same, the whole image at once",
            line("big.png", "big_whole.png", "--window", "none", mask="wide.png"),
            big, None, box(96, 96, 8, 8, 80, 80), "big_whole.png", needs=("try --max-side", "69% of the image"),
        ),
        Case(
            "RGBA, transparent all over the hole",
            line("erased.png", "erased_out.png", mask="white hole.png"),
            clear[:, :, :3], clear[:, :, 3], hole, "erased_out.png", needs=("is transparent all over the hole",),
        ),
    ]  # fmt: skip


def make_refused(folder: Path) -> list[Case]:
    """What cannot be used is said in one line."""
    save_mask(folder, box())
    whole = io.BytesIO()
    pil(photo()).save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[:-20])
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture\n" * 50, encoding="utf-8")
    (folder / "bomb.png").write_bytes(png_claiming(60000, 60000))
    tifffile.imwrite(folder / "float.tif", photo().astype(np.float32)[:, :, 0])
    pil(photo(channels=4)).save(folder / "rgba.png")
    pil(photo()).save(folder / "in.png")

    def case(name: str, image: str, *needs: str, output: str = "never.png", options: tuple[str, ...] = ()) -> Case:
        return Case(name, line(image, output, *options), code=2, needs=needs)

    place = ("--save-attention", "a.png", "--attention-at", "45,0")
    return [
        case("JPEG, truncated", "cut.jpg", "cut.jpg: is truncated"),
        case("file of 0 bytes", "zero.png", "zero.png: is empty (0 bytes)"),
        case("text named .png", "text.png", "is not an image of a known format"),
        case("PNG that claims 60000x60000 pixels", "bomb.png", "60000x60000 pixels, above the limit"),
        case("TIFF, floating point", "float.tif", "floating-point"),
        case("missing image", "absent.png", "--image absent.png: no such image"),
        case("RGBA to JPEG", "rgba.png", ".jpg cannot hold alpha of this image", output="never.jpg"),
        case("to an unknown suffix", "in.png", "give the output one of these suffixes", output="never.gif"),
        case("onto itself", "in.png", "is the image or the mask itself", output="in.png"),
        case("--attention-at outside of the image", "in.png", "is outside of the image", options=place),
    ]


def make_folders(folder: Path) -> list[Case]:
    """Several images: the good ones are inpainted, the others named."""
    hole = box()
    for sub in ("all good", "some bad/deeper", "masks/deeper"):
        (folder / sub).mkdir(parents=True)
    for k, name in enumerate(("a.png", "b.jpg", "ж.webp")):
        pil(photo(seed=k)).save(folder / "all good" / name)
    pil(photo()).save(folder / "some bad/a.png")
    pil(photo(seed=1)).save(folder / "some bad/deeper/b.png")
    (folder / "some bad/broken.png").write_bytes(b"")
    pil(photo()).save(folder / "some bad/lonely.png")
    save_mask(folder, hole)
    for name in ("a.png", "deeper/b_mask.png", "broken.png"):
        save_mask(folder, hole, f"masks/{name}")
    size = (HEIGHT, WIDTH)
    bad = ("broken.png: is empty", "lonely.png: has no mask in masks", "2 of 4 images were not inpainted")
    return [
        Case(
            "folder of three formats, one mask for all", line("all good", "done"),
            extra={"done/a.png": size, "done/b.png": size, "done/ж.png": size}, result="",
        ),
        Case("pattern", line("all good/[ab].*", "some"), extra={"some/a.png": size, "some/b.png": size}, result=""),
        Case(
            "folder with a mask for each, a broken image, an image without mask",
            line("some bad", "rest", mask="masks"),
            extra={"rest/a.png": size, "rest/deeper/b.png": size}, result="", code=2, needs=bad,
        ),
    ]  # fmt: skip


def make_reported(folder: Path) -> list[Case]:
    """What people reported of programs of this kind."""
    rgb, hole, size = photo(), box(), (HEIGHT, WIDTH)
    black = np.zeros_like(rgb)
    for name in ("lama/x.png", "authors/y_input.png", "authors/y_output.png", "kinds/a.jpe", "plain/z.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        pil(rgb).save(folder / name, "PNG")
    (folder / "kinds/b.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    for name in ("lama/x_mask001.png", "authors/y_mask.png", "mask.png"):
        save_mask(folder, hole, name)
    pil(rgb).save(folder / "in.png")
    corner = np.dstack([np.where(hole[:, :, None], 255, black), np.full(size, 255)]).astype(np.uint8)
    corner[:2, :2] = 0
    pil(corner).save(folder / "corner.png")
    pil(np.dstack([black + 255, np.where(hole, 255, 0).astype(np.uint8)])).save(folder / "alpha.png")
    pil(np.where(hole[:, :, None], np.array([255, 0, 0], np.uint8), black)).save(folder / "red.png")
    pil(np.where(hole[:, :, None], np.array([255, 0, 0], np.uint8), black + 255)).save(folder / "red on white.png")
    Image.fromarray(hole.astype(np.uint8)).save(folder / "ones.png")
    Image.fromarray(np.where(hole, 4095, 0).astype(np.uint16)).save(folder / "deep ones.png")
    soft = cv2.GaussianBlur(hole.astype(np.uint8) * 255, (0, 0), 1.5)
    Image.fromarray(soft).save(folder / "soft.png")
    near = cv2.distanceTransform((soft <= 127).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= 3
    save_mask(folder, ~hole, "black hole.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    pil(rgb).save(folder / "phone.png", exif=exif)
    turned = (np.rot90(rgb, -1), None, np.rot90(hole, -1))
    exif = Image.Exif()
    exif[0x010F] = "workflow " * 9000
    pil(rgb).save(folder / "long exif.webp", lossless=True, exif=exif)
    pil(photo(8, 16400)).save(folder / "strip.png")
    save_mask(folder, box(8, 16400, 2, 100, 4, 20), "strip_mask.png")
    pil(rgb).save(folder / "large profile.png", icc_profile=np.random.default_rng(0).bytes(2**21))
    deep = photo(channels=1).astype(np.uint16) * 257
    tifffile.imwrite(folder / "white is zero.tif", 65535 - deep[:, :, 0], photometric="miniswhite")
    cv2.imwrite(str(folder / "12 bits.png"), photo().astype(np.uint16)[:, :, ::-1] * 16)

    def case(name: str, image: str = "in.png", mask: str = "mask.png", truth=rgb, where=hole, *options: str, **more):
        output = f"{len(name)} {mask}.png"
        return Case(name, line(image, output, *options, mask=mask), truth, None, where, output, **more)

    def refused(name: str, arguments: list[str], *needs: str) -> Case:
        return Case(name, arguments, code=2, needs=needs)

    def folders(name: str, source: str, mask: str, result: str, *needs: str) -> Case:
        made = {f"done {source}/{result}": size}
        return Case(name, line(source, f"done {source}", mask=mask), extra=made, result="", needs=needs)

    return [
        folders("LaMa's names in one folder", "lama", "lama", "x.png", "1 of 2 images are masks"),
        folders("the authors' names in one folder", "authors", "authors", "y_input.png", "1 of 3 images are results"),
        refused("one folder, no masks by name", line("plain", "never", mask="plain"), "named as a mask"),
        folders("a folder with a file of another kind", "kinds", "mask.png", "a.png", "1 .heic (b.HEIC)"),
        case("mask: black and white with a transparent corner", mask="corner.png", needs=("the colours are taken",)),
        case("mask: white everywhere, the hole in the alpha", mask="alpha.png"),
        case("mask: red on black", mask="red.png", needs=("its colours are black and (255, 0, 0)",)),
        refused("mask: red on white", line(output="never.png", mask="red on white.png"), "of which any may be"),
        case("mask: levels 0 and 1", mask="ones.png", needs=("its levels are 0 and 1; 1 is taken",)),
        case("mask: 16 bit, levels 0 and 4095", mask="deep ones.png"),
        case("mask: soft edge", mask="soft.png", where=soft > 127, needs=("has a soft edge",)),
        case("mask: soft edge, grown and feathered", "in.png", "soft.png", rgb, near, "--grow", "3", "--feather", "3",
             needs=("has a soft edge",)),
        case("mask: black hole, not said", mask="black hole.png", where=~hole, needs=("black holes: --invert-mask",)),
        case("EXIF orientation 6, mask drawn before", "phone.png", truth=turned[0], where=turned[2],
             needs=("before its EXIF orientation turned it",)),
        case("the same with --resize-mask", "phone.png", "mask.png", turned[0], turned[2], "--resize-mask",
             needs=("before its EXIF orientation turned it",)),
        refused("image and mask swapped", line("mask.png", "never.png", mask="in.png"), "are the two swapped?"),
        refused("16400 pixels to WebP", line("strip.png", "never.webp", mask="strip_mask.png"), "up to 16383 pixels"),
        Case("EXIF of 81 KB to JPEG", line("long exif.webp", "long.jpg"), result="long.jpg",
             needs=("its EXIF of 81", "JPEG changes known")),
        Case("PNG, profile of 2 MiB", line("large profile.png", "large.png"), result="", extra={"large.png": size}),
        case("TIFF, 16-bit grey, white is zero", "white is zero.tif", truth=deep),
        case("PNG, 12 bits in 16", "12 bits.png", truth=photo().astype(np.uint16) * 16),
        refused("--attention", line("in.png", "never.png", "--attention", "a.png"), "is now called --save-attention"),
    ]  # fmt: skip


GROUPS: dict[str, Callable[[Path], list[Case]]] = {
    "Formats that keep every sample": make_plain,
    "Formats that lose something": make_lossy,
    "Sizes": make_sizes,
    "Masks": make_masks,
    "Refused": make_refused,
    "Folders": make_folders,
    "As people report them": make_reported,
}
