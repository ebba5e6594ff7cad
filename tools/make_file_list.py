"""Writes train.txt and val.txt, the lists of images that train.py and test.py read.

    python tools/make_file_list.py /data/places2 [--output data_places2] [--seed 0] [--min-side 256]
    python tools/make_file_list.py my_photos --val-count 100

Places2 as it is unpacked is known by its folders, the first of each kind that is there: data_large, data_256 (by
torchvision data_large_standard, data_256_standard) or train for training, val_large, val_256, val, valid or
validation. Where only the latter is there, all images but those and those of test folders are for training. Any
other folder is one heap of images, of which --val-count become the validation list. Both lists are shuffled by the
seed: the first N lines of one are a fair sample of it. With --min-side every file's header is read, smaller images
and files that are none are counted and left out; without it no file is opened.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from data.file_list import read_file_list  # noqa: E402
from data.image_io import FORMATS  # noqa: E402
from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.paths import prepare_folder  # noqa: E402
from utils.progress import show_progress  # noqa: E402

LAYOUT = {
    "train": ("data_large", "data_large_standard", "data_256", "data_256_standard", "train"),
    "val": ("val_large", "val_256", "val", "valid", "validation"),
}
STREAMS = {"split": 30, "train": 31, "val": 32}  # second words of the seeds drawn here
THREADS = 16  # reading headers waits for the disk


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Writes train.txt and val.txt for train.py and test.py.")
    parser.add_argument("folder", help="Places2 as it is unpacked, or any folder of images")
    parser.add_argument("--output", default="data_places2", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling and the split (default: %(default)s)")
    parser.add_argument("--min-side", type=int, default=0, metavar="N", help="leave out what has a shorter side")
    parser.add_argument("--val-count", type=int, metavar="N", help="validation images, where no folder has them")
    args = parser.parse_args(argv)
    for name in ("seed", "min_side", "val_count"):
        if (getattr(args, name) or 0) < 0:
            raise UserError(f"--{name.replace('_', '-')} must not be negative")
    return args


def find_splits(folder: str, val_count: int | None, seed: int) -> dict[str, list[str]]:
    """Sorted paths of both lists."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder")
    found = {
        split: next((path for path in (os.path.join(folder, name) for name in names) if os.path.isdir(path)), None)
        for split, names in LAYOUT.items()
    }
    paths = read_file_list(found["train"] or folder)
    if found["val"]:  # whose images are never in the training list
        if val_count is not None:
            raise UserError(f"--val-count: {found['val']} holds the validation images; leave the option out")
        if not found["train"]:
            others = [name for name in os.listdir(folder) if name.startswith("test")] + [Path(found["val"]).name]
            paths = [path for path in paths if os.path.relpath(path, folder).split(os.sep)[0] not in others]
        return {"train": paths, "val": read_file_list(found["val"])}
    if val_count is None:
        names = ", ".join(LAYOUT["val"])
        raise UserError(f"{folder}: has no folder of validation images ({names}); say how many with --val-count")
    if not 0 < val_count < len(paths):
        raise UserError(f"--val-count {val_count} of {len(paths)} images: each list needs at least one")
    rng = np.random.default_rng([seed, STREAMS["split"]])
    chosen = set(rng.choice(len(paths), val_count, replace=False).tolist())
    return {
        "train": [path for k, path in enumerate(paths) if k not in chosen],
        "val": [path for k, path in enumerate(paths) if k in chosen],
    }


def shorter_side(path: str) -> int:
    """In pixels, from the header alone; 0 for a file that is no image."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return min(image.size)
    except Exception:  # whatever a damaged header makes a decoder raise
        return 0


def keep_large(paths: list[str], min_side: int) -> tuple[list[str], int, int]:
    """The paths of images that are large enough, how many are too small, and how many are none."""
    kept, small, broken = [], 0, 0
    with ThreadPoolExecutor(THREADS) as pool, show_progress(len(paths), "header") as advance:
        for start in range(0, len(paths), 10_000):
            part = paths[start : start + 10_000]
            for path, side in zip(part, pool.map(shorter_side, part)):
                small += 0 < side < min_side
                broken += side == 0
                if side >= min_side and side > 0:
                    kept.append(path)
            advance(len(part))
    return kept, small, broken


def as_line(path: str, base: str) -> str:
    """Relative to the list where the image is below it, else absolute."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute, base)
    if relative.split(os.sep)[0] == os.pardir:
        return absolute
    return f"./{relative}" if relative.startswith("#") else relative


def write_list(path: str, lines: list[str]) -> None:
    try:
        with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def make_lists(args: argparse.Namespace) -> None:
    splits = find_splits(args.folder, args.val_count, args.seed)
    base = os.path.abspath(args.output)
    for split, paths in splits.items():
        listed = len(paths)
        small = broken = 0
        if args.min_side:
            paths, small, broken = keep_large(paths, args.min_side)
        # Such names exist, and a list of one path a line cannot hold them.
        lines = [line for line in (as_line(path, base) for path in paths) if line == line.strip(" \t")]
        lines = [line for line in lines if "\n" not in line and "\r" not in line]
        unfit = len(paths) - len(lines)
        if not lines:
            raise UserError(f"{args.folder}: none of the {listed} images for {split}.txt can be used")
        order = np.random.default_rng([args.seed, STREAMS[split]]).permutation(len(lines))
        prepare_folder(args.output)
        path = os.path.join(args.output, f"{split}.txt")
        write_list(path, [lines[k] for k in order])
        counts = {f"smaller than {args.min_side}": small, "no images": broken, "with names no list can hold": unfit}
        left_out = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        print(f"{path}: {len(lines)} of {listed} images" + (f"; left out: {left_out}" if left_out else ""))


def main(argv: list[str] | None = None) -> int:
    with friendly_errors():
        make_lists(parse_arguments(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
