"""Rebuilds image A from the patches of image B: the contextual attention by itself, on plain RGB.

    python tools/attention_transfer.py A.jpg B.jpg --output OUT.png [--save-attention COLOURS.png] [--scale 0.5]

As in the authors' demonstration (TF1 `test_contextual_attention`): no network and no mask, colours as levels 0 to
255, no fusion, and B at half its size, bicubic. The levels make the softmax sharp, so that nearly every patch of A
becomes one patch of B. --save-attention writes where each patch came from, as colours: the place in B minus the
place in A.
Time grows with the pixels of A times those of B: 512x512 by 256x256 take seconds; --max-side shrinks both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from utils.cli import UserError, friendly_errors, prepare_paddle  # noqa: E402

with friendly_errors():
    prepare_paddle()

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import paddle  # noqa: E402

from data.image_io import read_rgb, write_image  # noqa: E402
from models.contextual_attention import ContextualAttention  # noqa: E402
from utils.attention_view import Window, attention_view  # noqa: E402

CELL = 2  # the attention halves what it compares: one offset for 2x2 pixels


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rebuilds image A from the patches of image B.")
    parser.add_argument("image_a", metavar="A", help="what is rebuilt")
    parser.add_argument("image_b", metavar="B", help="what its patches are taken from")
    parser.add_argument("--output", required=True, metavar="PATH", help="the rebuilt image")
    parser.add_argument("--save-attention", metavar="PATH", help="where every patch came from, as colours")
    parser.add_argument("--scale", type=float, default=0.5, help="bicubic scale of B (default: %(default)s)")
    parser.add_argument("--max-side", type=int, metavar="N", help="first shrink both to N pixels, by area")
    parser.add_argument("--fuse", action="store_true", help="let neighbours that move together reinforce each other")
    args = parser.parse_args(argv)
    if not 0.01 <= args.scale <= 4:
        raise UserError(f"--scale must be from 0.01 to 4, not {args.scale}")
    if args.max_side is not None and args.max_side < CELL:
        raise UserError(f"--max-side must be a whole number from {CELL}, not {args.max_side}")
    return args


def load(path: str, max_side: int | None, scale: float = 1.0) -> np.ndarray:
    """uint8 [H, W, 3], at most `max_side` a side, then scaled."""
    image = read_rgb(path)
    longer = max(image.shape[:2])
    if max_side is not None and longer > max_side:
        image = resized(image, max_side / longer, cv2.INTER_AREA)
    return image if scale == 1 else resized(image, scale, cv2.INTER_CUBIC)


def resized(image: np.ndarray, scale: float, interpolation: int) -> np.ndarray:
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=interpolation)


@paddle.no_grad()
def rebuild(target: np.ndarray, source: np.ndarray, fuse: bool) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W, 3] and [H', W', 3] -> target from source's patches, uint8 [H, W, 3], and offsets.

    Odd sides are mirrored by one pixel, where the demonstration cuts one off; offsets [2, ceil(H/2), ceil(W/2)].
    """
    height, width = target.shape[:2]
    foreground, background = (even_levels(image) for image in (target, source))
    features, offsets = ContextualAttention(fuse=fuse)(foreground, background)
    levels = features[0].numpy().transpose(1, 2, 0)[:height, :width]
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8), offsets[0].numpy()


def even_levels(image: np.ndarray):
    """uint8 [H, W, 3] -> float32 [1, 3, H or H+1, W or W+1], 0 to 255."""
    image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="symmetric")
    return paddle.to_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32))


def main(argv: list[str] | None = None) -> int:
    with friendly_errors():
        args = parse_arguments(argv)
        target = load(args.image_a, args.max_side)
        source = load(args.image_b, args.max_side, args.scale)
        result, offsets = rebuild(target, source, args.fuse)
        write_image(args.output, result)
        if args.save_attention:
            size = result.shape[:2]
            write_image(args.save_attention, attention_view([Window((0, 0, *size), size, offsets)], size, cell=CELL))
        difference = np.abs(result.astype(int) - target).mean()
        height, width = source.shape[:2]
        print(f"{args.output}: rebuilt from {width}x{height} pixels, {difference:.1f} levels from A on average")
    return 0


if __name__ == "__main__":
    sys.exit(main())
