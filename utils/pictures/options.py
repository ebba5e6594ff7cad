"""The command line's options for people's own pictures."""

from __future__ import annotations

import argparse

from utils.cli import UserError

LEAST_SIDE = 8  # the generator's smallest picture


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures of your own, of any size; results are PNG, or as OUT.suffix says")
    group.add_argument("--image", metavar="PATH", help="a picture, a folder, or a quoted glob")
    group.add_argument("--mask", metavar="PATH", help="white = hole; one for all, or a folder of same names")
    group.add_argument("--invert-mask", action="store_true", help="black = hole")
    group.add_argument("--resize-mask", action="store_true", help="stretch masks of another size (nearest)")
    group.add_argument("--max-side", type=int, metavar="N", help="work at N pixels, paste only the hole back")
    group.add_argument("--attention", metavar="PATH", help="also write where the hole was copied from, as colours")
    group.add_argument("--probe", metavar="X,Y", help="and what this one place copied, beside it")


def check_picture_options(args: argparse.Namespace) -> argparse.Namespace:
    """UserError for picture options that do not go together; --probe becomes (x, y)."""
    of_pictures = ("mask", "invert_mask", "resize_mask", "max_side", "attention", "probe")
    if args.image is None:
        values = {f"--{name.replace('_', '-')}": getattr(args, name) for name in of_pictures}
        given = [option for option, value in values.items() if value is not None and value is not False]
        if given:
            raise UserError(f"{given[0]} needs --image: the picture to complete")
        return args
    if not (args.mask and args.output):
        raise UserError(f"--image needs {'--output' if args.mask else '--mask'} as well")
    if args.max_side is not None and args.max_side < LEAST_SIDE:
        raise UserError(f"--max-side must be a whole number from {LEAST_SIDE}, not {args.max_side}")
    if args.probe is not None:
        x, _, y = args.probe.partition(",")
        if not (x.strip().isdecimal() and y.strip().isdecimal()):
            raise UserError(f"--probe must be X,Y in whole pixels from the top left, not {args.probe}")
        if not args.attention:
            raise UserError("--probe needs --attention: its map is written beside the colours")
        args.probe = int(x), int(y)
    return args
