"""Inpainting people's own images, of any size and kind: holes in windows, at full resolution, from file to file."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np

from data.image_io import Image, fit_to_format, read_image, write_image
from data.mask_io import read_mask
from utils.attention_view import Window, attention_at, attention_view
from utils.cli import UserError
from utils.image_jobs import Job, plan_jobs, protect_originals
from utils.paths import portable_path, prepare_folder
from utils.progress import show_progress, warn
from utils.windows import MULTIPLE, enlarge, grow_hole, pad_to_multiple, plan_windows, shrink

PAPER = (256, 256), (128, 128)  # what a model was trained at that does not say so: image and box, height and width
MUCH_DEEPER, MUCH_LARGER = 1.5, 2.0  # than trained: depth of a hole, share of the image
DEFAULTS = {  # of the options that need --image
    "mask": None, "invert_mask": False, "resize_mask": False, "grow": 0, "feather": 0, "window": "auto",
    "max_side": None, "save_attention": None, "attention_at": None,
}  # fmt: skip
MANY_PIXELS = 2048 * 1024  # at once; the attention's cost grows with the square of the pixels


class Inpainted(NamedTuple):
    """Both stages at full size, uint8 [H, W, 3], known pixels as they were, and the windows in their order."""

    coarse: np.ndarray
    refined: np.ndarray
    windows: list[Window]


@contextlib.contextmanager
def quiet(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """As `utils.progress.show_progress`, without showing anything."""
    yield lambda count: None


def inpaint_image(
    tester: Any, image: Image, mask: np.ndarray, *, grow: int = 0, feather: int = 0, **options: Any
) -> Image:
    """An image in memory -> the same with its hole inpainted; every other sample, alpha, profile as they were.

    tester: of class `tester.Tester`. mask: [H, W], 1 = hole. grow: pixels added around it. feather: pixels inside of
    the hole's edge that blend from image to filling. options: of `inpaint_rgb`. Raises UserError.
    """
    hole = grow_hole(mask, grow)
    return fill_hole(image, inpaint_rgb(tester, image.rgb, hole, **options).refined, hole, feather)


def inpaint_rgb(
    tester: Any,
    rgb: np.ndarray,
    mask: np.ndarray,
    window: str = "auto",
    max_side: int | None = None,
    warn: Callable[[str], None] = lambda text: None,
    track: Callable = quiet,
) -> Inpainted:
    """Inpaints uint8 [H, W, 3] of any size; mask: [H, W], 1 = hole; known pixels come back bit-identical.

    window: "auto": in an image larger than those the model was trained at, each hole in a window around it; "none":
    the whole image at once. max_side: the whole image at no more than so many pixels a side, and only the hole pasted
    back. warn: called before the work with what to expect. track: shows progress, as `show_progress` does.
    Raises UserError, which does not name a file: nothing known is left at this size, or the memory is too small.
    """
    hole = mask.astype(bool)
    image_size, box_size = (getattr(tester.model, name) or size for name, size in
                            zip(("image_size", "box_size"), PAPER))  # fmt: skip
    if window == "auto" and max_side is None and max(hole.shape) > max(image_size):
        parts = list(plan_windows(hole, image_size, box_size))
    else:
        scale = min(1.0, (max_side or max(hole.shape)) / max(hole.shape))
        for text in hole_warnings(hole, scale, box_size, image_size):
            warn(text)
        parts = [((0, 0, *hole.shape), scale, hole)]
    stages, left, windows = [rgb.copy(), rgb.copy()], hole.copy(), []
    with track(len(parts), "window") as advance:
        for box, scale, part in parts:
            here = slice(box[0], box[2]), slice(box[1], box[3])
            made = _run(tester, stages[1][here], left[here], scale)
            for stage, filled in zip(stages, made[:2]):
                stage[here][part] = filled[part]
            left[here][part] = False  # from now on known, so that the next window continues it
            windows.append(Window(box, *made[2:]))
            advance(1)
    return Inpainted(*stages, windows)


def _run(tester: Any, rgb: np.ndarray, hole: np.ndarray, scale: float) -> tuple:
    """Coarse and refined at the size of `rgb`; the size worked at, offsets, what was seen, refined at that size."""
    small, small_hole = shrink(rgb, hole, scale)
    if small_hole.all():
        raise UserError(f"at {scale:.0%} of its size nothing known is left of the image; choose a larger --max-side")
    image, mask = (padded[None] for padded in pad_to_multiple(small, small_hole))
    height, width = small_hole.shape
    try:
        coarse, refined, offsets = tester.inpaint_stages(image, mask)
    except MemoryError:
        raise UserError(f"{width}x{height} pixels need more memory; choose a smaller --max-side") from None
    coarse, refined = (stage[0, :height, :width] for stage in (coarse, refined))
    if offsets is not None:
        offsets = offsets[0, :, : -(-height // MULTIPLE), : -(-width // MULTIPLE)]
    full = (enlarge(stage, hole.shape) for stage in (coarse, refined))
    return *full, (height, width), offsets, (image, mask), refined


def fill_hole(image: Image, filled: np.ndarray, hole: np.ndarray, feather: int = 0) -> Image:
    """The image with its hole, [H, W] bool, taken from `filled`, uint8 [H, W, 3] RGB; the rest is untouched.

    Grey takes the luma; deeper samples the 8 bits stretched to theirs, so that black stays black and white white;
    CMYK the complement without black, which any program turns into the same RGB. Alpha stays, in the hole too.
    feather: so many pixels inside of the hole's edge the filling grows from nothing to all.
    """
    channels = image.samples.shape[2]
    if channels == 1:
        filled = cv2.cvtColor(filled, cv2.COLOR_RGB2GRAY)[:, :, None]
    elif channels == 4:
        filled = np.dstack([255 - filled, np.zeros(filled.shape[:2], np.uint8)])
    if image.bits > 8:
        filled = np.rint(filled * ((2**image.bits - 1) / 255)).astype(np.uint16)
    if feather:
        inside = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[:, :, None]
        share = np.minimum(inside / (feather + 1), 1)
        filled = np.rint(share * filled + (1 - share) * image.samples)
    samples = np.where(hole[:, :, None], filled, image.samples).astype(image.samples.dtype)
    return replace(image, samples=samples)


def hole_warnings(
    hole: np.ndarray, scale: float, box_size: Sequence[int], image_size: Sequence[int]
) -> Iterator[str]:
    """What to expect of filling `hole`, bool [H, W], in the whole image at this scale."""
    trained_depth, trained_share = min(box_size) / 2, np.prod(box_size) / np.prod(image_size)
    depth = scale * float(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max())
    height, width = (round(side * scale) for side in hole.shape)
    if depth > MUCH_DEEPER * trained_depth:
        side = max(int(max(height, width) * trained_depth / depth), MULTIPLE)
        yield (f"the hole reaches {depth:.0f} pixels from what is known, those trained on {trained_depth:.0f}: "
               f"expect a poor result; try --max-side {side}")  # fmt: skip
    elif hole.mean() > MUCH_LARGER * trained_share:
        yield (f"the hole is {hole.mean():.0%} of the image, those trained on {trained_share:.0%}: "
               "expect a poor result")  # fmt: skip
    if height * width > MANY_PIXELS:
        yield (f"{width}x{height} pixels at once take about {(height * width / 1024**2) ** 2:.0f} times as long as "
               "1024x1024; --window auto is faster")  # fmt: skip


def image_warnings(image: Image, hole: np.ndarray) -> Iterator[str]:
    """What a result of this image will not show."""
    if image.frames > 1:
        yield f"holds {image.frames} frames or pages, of which the first is inpainted"
    if image.alpha is not None and not image.alpha[hole].any():
        yield "is transparent all over the hole and stays so (alpha is kept): what is filled in is not seen"


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("your own images, of any size; results are PNG, or as OUT.suffix says")
    group.add_argument("--image", metavar="PATH", help="an image, a folder, or a quoted glob")
    group.add_argument("--mask", metavar="PATH", help="white = hole; one for all, or a folder: x.png or x_mask.png")
    group.add_argument("--invert-mask", action="store_true", help="black = hole")
    group.add_argument("--resize-mask", action="store_true", help="stretch masks of another size (nearest)")
    group.add_argument("--grow", "--dilate-mask", type=int, default=0, metavar="N", help="add N pixels to the hole")
    group.add_argument("--feather", type=int, default=0, metavar="N", help="blend over N pixels inside of its edge")
    group.add_argument("--window", choices=("auto", "none"), default="auto",
                       help="auto: in large images each hole in a window around it")  # fmt: skip
    group.add_argument("--max-side", type=int, metavar="N", help="the whole image at N pixels instead")
    group.add_argument("--save-attention", metavar="PATH", help="also write where it copied from, as colours")
    group.add_argument("--attention-at", metavar="X,Y", help="and what this one place copied, next to it")
    for old, new in (("--attention", "--save-attention"), ("--probe", "--attention-at")):
        group.add_argument(old, dest="gone", type=_renamed(old, new), help=argparse.SUPPRESS)


def _renamed(old: str, new: str) -> Callable[[str], None]:
    def refuse(value: str) -> None:
        raise UserError(f"{old} is now called {new}")

    return refuse


def check_options(args: argparse.Namespace) -> argparse.Namespace:
    """UserError for options that do not go together; --attention-at becomes (x, y)."""
    if args.image is None:
        given = [f"--{name.replace('_', '-')}" for name, value in DEFAULTS.items() if getattr(args, name) != value]
        if given:
            raise UserError(f"{given[0]} needs --image: the image to inpaint")
        return args
    if not (args.mask and args.output):
        raise UserError(f"--image needs {'--output' if args.mask else '--mask'} as well")
    for name, least in (("max_side", MULTIPLE), ("grow", 0), ("feather", 0)):
        if (getattr(args, name) if getattr(args, name) is not None else least) < least:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} must be a whole number from {least}, not {getattr(args, name)}")
    if args.attention_at is not None:
        x, _, y = args.attention_at.partition(",")
        if not (x.strip().isdecimal() and y.strip().isdecimal()):
            raise UserError(f"--attention-at must be X,Y in whole pixels from the top left, not {args.attention_at}")
        if not args.save_attention:
            raise UserError("--attention-at needs --save-attention: its map is written next to the colours")
        args.attention_at = int(x), int(y)
    return args


def inpaint_files(args: argparse.Namespace, tester: Any) -> None:
    """--image, --mask, --output: what cannot be inpainted is named, and the rest goes on."""
    size = tester.model.image_size
    trained = f", trained at {size[1]}x{size[0]} pixels" if size else ""
    print(f"weights: {portable_path(tester.source)}, iteration {tester.model.iteration}{trained}")
    if args.save_attention and tester.model.without_attention:
        raise UserError(f"--save-attention: {tester.source} has no attention, {tester.model.without_attention}")
    jobs = plan_jobs(args.image, args.mask, args.output, args.save_attention)
    single, failed = os.path.isfile(args.image), []
    with (quiet if single else show_progress)(len(jobs), "image") as advance:
        for job in jobs:
            try:
                inpaint_file(args, tester, job, show_progress if single else quiet)
            except UserError as error:
                if single:
                    raise
                failed.append(job.image)
                warn(f"skipped {error}")
            advance(1)
    if failed:
        some = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        raise UserError(f"{len(failed)} of {len(jobs)} images were not inpainted: {some}; the warnings say why")
    print(f"{len(jobs)} image{'s' * (len(jobs) != 1)} inpainted: {jobs[0].output if single else args.output}")


def inpaint_file(args: argparse.Namespace, tester: Any, job: Job, track: Callable) -> None:
    """One image from file to file."""
    def say(text: str) -> None:
        warn(f"{job.image}: {text}")

    mask_path = job.find_mask()
    protect_originals(job, mask_path)
    for path in filter(None, (job.output, job.attention)):
        prepare_folder(os.path.dirname(path) or ".")
    image = read_image(job.image)
    result = fit_to_format(image, job.output, say)
    if job.output.lower().endswith((".jpg", ".jpeg")):
        say("JPEG changes known pixels; .png keeps them")
    try:
        mask = read_mask(mask_path, None, args.invert_mask, warn, args.resize_mask, image)
    except UserError as error:
        raise UserError(job.image, f"its mask {error}") from None
    if args.attention_at and not all(place < side for place, side in zip(args.attention_at, mask.shape[::-1])):
        raise UserError(job.image, f"--attention-at {args.attention_at} is outside of the image")
    try:
        hole = grow_hole(mask, args.grow)
        for text in image_warnings(image, hole):
            say(text)
        done = inpaint_rgb(tester, image.rgb, hole, args.window, args.max_side, say, track)
    except UserError as error:
        raise UserError(job.image, str(error)) from None
    write_image(job.output, fill_hole(result, done.refined, hole, args.feather))
    if job.attention:
        write_image(job.attention, attention_view(done.windows, hole.shape, hole))
    if args.attention_at:
        stem, suffix = os.path.splitext(job.attention)
        write_image(f"{stem}_at{suffix}", attention_at(tester, done.windows, args.attention_at))
