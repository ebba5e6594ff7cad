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
from utils.evaluation.report import portable_path, prepare_folder
from utils.image_jobs import Job, plan_jobs, protect_originals
from utils.progress import show_progress, warn

MULTIPLE = 8  # of which the generator's sides must be
PAPER = (256, 256), (128, 128)  # what a model was trained at that does not say so: image and box, height and width
MUCH_DEEPER, MUCH_LARGER = 1.5, 2.0  # than trained: depth of a hole, share of the image
MANY_PIXELS = 2048 * 1024  # at once; the attention's cost grows with the square of the pixels
LARGEST_WINDOW = 2  # sides, in those trained at; longer holes are filled piece by piece

Box = tuple[int, int, int, int]  # top, left, bottom, right, the last two excluded


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


def plan_windows(
    hole: np.ndarray, image_size: Sequence[int], box_size: Sequence[int]
) -> Iterator[tuple[Box, float, np.ndarray]]:
    """Where the holes of bool [H, W] are inpainted, widest first: box, scale and the pixels filled in the box, bool.

    A hole is scaled until it is no deeper than the boxes that were trained on, never enlarged, and has around it what
    was known around those, so that its share of the window is about as in training. Windows that overlap are one,
    where their scales are alike; what is longer than LARGEST_WINDOW is filled piece by piece, and a piece that is
    filled is known to the next one. Depth: the largest distance to a known pixel.
    """
    margin = max(whole - box for whole, box in zip(image_size, box_size)) / 2
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hole.astype(np.uint8), connectivity=8)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, labels[hole], depth[hole])
    scales = np.minimum(1.0, min(box_size) / 2 / np.maximum(deepest, 1e-6))
    groups = {}  # by scale, in powers of two: labels of the holes
    for label in range(1, count):
        groups.setdefault(int(np.ceil(np.log2(scales[label]))), []).append(label)
    for exponent in sorted(groups):
        labels_left = groups[exponent]
        scale = float(scales[labels_left].min())
        cores = [(y, x, y + h, x + w) for x, y, w, h, _ in stats[labels_left]]
        cores, members = _join(cores, [[label] for label in labels_left], hole.shape, scale, margin, image_size)
        for core, names in zip(cores, members):
            part = np.zeros(count, bool)
            part[names] = True
            scale = float(scales[names].min())
            side = max(int((LARGEST_WINDOW * max(image_size) - 2 * margin) / scale), 1)
            for top in range(core[0], core[2], side):
                for left in range(core[1], core[3], side):
                    found = part[labels[top : min(top + side, core[2]), left : min(left + side, core[3])]]
                    if not found.any():
                        continue
                    rows, columns = (np.flatnonzero(found.any(axis=axis))[[0, -1]] for axis in (1, 0))
                    found = found[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
                    first = top + int(rows[0]), left + int(columns[0])
                    box = _window((*first, *np.add(first, found.shape)), hole.shape, scale, margin, image_size)
                    piece = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
                    y, x = np.subtract(first, box[:2])
                    piece[y : y + found.shape[0], x : x + found.shape[1]] = found
                    yield box, scale, piece


def _window(core: Sequence[int], shape: Sequence[int], scale: float, margin: float, least: Sequence[int]) -> Box:
    """The box around `core` with the margin, at least as large as trained at, moved to lie inside of the image."""
    sides = []
    for start, stop, whole, smallest in zip(core[:2], core[2:], shape, least):
        length = min(max(int(np.ceil(stop - start + 2 * margin / scale)), int(np.ceil(smallest / scale))), whole)
        first = min(max((start + stop - length) // 2, 0), whole - length)
        sides.append((int(first), int(first + length)))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _join(cores, members, shape, scale: float, margin: float, least) -> tuple[list, list]:  # noqa: ANN001
    """Cores whose windows overlap become one, until none do."""
    while True:
        canvas = np.zeros(shape, np.uint8)
        windows = [_window(core, shape, scale, margin, least) for core in cores]
        for top, left, bottom, right in windows:
            canvas[top:bottom, left:right] = 1
        _, areas = cv2.connectedComponents(canvas, connectivity=4)
        joined = {}
        for core, names, (top, left, _, _) in zip(cores, members, windows):
            joined.setdefault(areas[top, left], []).append((core, names))
        if len(joined) == len(cores):
            return cores, members
        cores, members = [], []
        for group in joined.values():
            corners = np.array([core for core, _ in group])
            cores.append((*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0)))
            members.append([name for _, names in group for name in names])


def _run(tester: Any, rgb: np.ndarray, hole: np.ndarray, scale: float) -> tuple:
    """Coarse and refined at the size of `rgb`; the size worked at, offsets, what was seen, refined at that size."""
    small, small_hole = shrink(rgb, hole, scale)
    if small_hole.all():
        raise UserError(f"at {scale:.0%} of its size nothing known is left of the image; choose a larger --max-side")
    image, mask = (padded[None] for padded in pad_to_multiple(small, small_hole))
    height, width = small_hole.shape
    try:
        coarse, refined, offsets = tester.complete(image, mask)
    except MemoryError:
        raise UserError(f"{width}x{height} pixels need more memory; choose a smaller --max-side") from None
    coarse, refined = (stage[0, :height, :width] for stage in (coarse, refined))
    if offsets is not None:
        offsets = offsets[0, :, : -(-height // MULTIPLE), : -(-width // MULTIPLE)]
    return *(enlarge(stage, hole.shape) for stage in (coarse, refined)), (height, width), offsets, (image, mask), refined


def shrink(rgb: np.ndarray, hole: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Image and hole scaled by at most 1.

    The image is area averaged; every pixel that has any of the hole in it is hole, so nothing of what the hole hides
    leaks into what is known.
    """
    if scale >= 1:
        return rgb, hole
    size = tuple(max(round(side * scale), 1) for side in hole.shape[::-1])
    touched = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), touched


def pad_to_multiple(rgb: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both made divisible by 8 below and to the right, by their mirror image with the border pixel repeated.

    A mirror continues textures, where a repeated border pixel draws streaks for the attention to copy, and grey
    or zeros show an edge that the image does not have. The hole is mirrored as well, so no pixel of it ever
    counts as known; a side of one pixel can be mirrored, too. On two sides only, positions stay where they are.
    """
    rows, columns = (-side % MULTIPLE for side in hole.shape)
    return (
        np.pad(rgb, ((0, rows), (0, columns), (0, 0)), mode="symmetric"),
        np.pad(hole, ((0, rows), (0, columns)), mode="symmetric"),
    )


def enlarge(rgb: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """[h, w, 3] at the full (height, width), bicubic; as it is if it has that size."""
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC)


def grow_hole(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The hole, bool [H, W], and all that is at most `pixels` from it. UserError if that is everything."""
    hole = mask.astype(bool)
    if pixels:
        hole = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= pixels
        if hole.all():
            raise UserError(f"--grow {pixels} leaves nothing known of the image")
    return hole


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
        names = "mask", "invert_mask", "resize_mask", "grow", "feather", "max_side", "save_attention", "attention_at"
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, False, 0)]
        if given or args.window != "auto":
            raise UserError(f"{(given + ['--window'])[0]} needs --image: the image to inpaint")
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
