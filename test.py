"""Evaluate a trained model on a file list: `python test.py [--config configs/test.yaml] [key=value ...]`."""

# ruff: noqa: E402 (what people edit comes before the imports)
from __future__ import annotations

TOTAL = None  # how many photographs of the list are evaluated, from its beginning; None: all of them

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from utils.cli import UserError, friendly_errors, prepare_paddle, set_thread_count

with friendly_errors():
    prepare_paddle()

import cv2
import numpy as np
import paddle
import skimage

from data.dataset import center_crop
from data.decode import ImageError, decode_image
from data.file_list import DataError, read_file_list
from data.masks import boxes_to_mask, center_box, random_box, shrink_box
from tester import CHECKPOINT, Tester, find_checkpoint
from utils.baselines import BASELINES
from utils.config import TestConfig, load_config, run_folder
from utils.device import set_device
from utils.evaluation import (
    METHODS,
    METRICS,
    Measurement,
    image_names,
    labelled,
    portable_command,
    portable_path,
    prepare_folder,
    results_text,
    write_csv,
    write_text,
)
from utils.metrics import image_metrics
from utils.progress import show_progress, warn
from utils.visualization import image_grid, write_image

HOLE_STREAM = 20  # second word of the seeds drawn here; training uses others
PICTURES = 8  # photographs in results.png
SHOWN_SKIPPED = 20  # skipped files named in test.txt

HOW_TO_LIST = "; make one with: find FOLDER -name '*.jpg' | sort > LIST, or for the demonstration: make demo"


class Photo(NamedTuple):
    """A photograph to evaluate on, and its hole."""

    index: int  # place in the list
    name: str
    truth: np.ndarray  # uint8 [H, W, 3]
    hole: tuple[int, int, int, int]  # top, left, height, width


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see python test.py --help")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description="Evaluate a trained model on a file list.", allow_abbrev=False)
    parser.add_argument("--config", default="configs/test.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument("--checkpoint", default=CHECKPOINT, metavar="PATH", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=TOTAL, help="evaluate the first COUNT photographs only")
    parser.add_argument("--baselines", action="store_true", help="fill the same holes by other methods, too")
    parser.add_argument("--output", metavar="FOLDER", help="for results (default: the checkpoint's folder)")
    parser.add_argument("--save-images", action="store_true", help="save every completed photograph as PNG")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument("--seed", type=int, help="overrides the file's seed, which fixes random holes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. protocol=random_box")
    args = parser.parse_intermixed_args(argv)
    args.command = argv
    if args.seed is not None:
        args.overrides.append(f"seed={args.seed}")
    if args.count is not None and (type(args.count) is not int or args.count < 1):
        raise UserError(f"--count (or TOTAL in test.py) must be a whole number from 1, not {args.count}")
    return args


def read_val_list(config: TestConfig) -> list[str]:
    try:
        return read_file_list(config.val_data_path, config.data_root)
    except DataError as error:
        missing = not os.path.exists(os.path.expanduser(config.val_data_path))
        raise DataError(f"val_data_path: {error}{HOW_TO_LIST if missing else ''}") from None


def draw_hole(config: TestConfig, index: int) -> tuple[int, int, int, int]:
    """The box of the hole in photograph `index` of the list; depends on nothing else."""
    size = config.image_shape[:2]
    if config.protocol == "center":
        return center_box(size, config.mask_shape)
    rng = np.random.default_rng([config.seed, HOLE_STREAM, index])
    return shrink_box(random_box(size, config.mask_shape, config.margin, rng), config.max_delta_shape, rng)


def describe_hole(config: TestConfig) -> str:
    height, width = config.mask_shape
    if config.protocol == "center":
        return f"center: {height}x{width} pixels (height x width) in the middle"
    return (
        f"random_box: {height}x{width} pixels (height x width), less up to half of {config.max_delta_shape} "
        f"on each side, margin {config.margin}, drawn from seed {config.seed} and the place in the list"
    )


def load_photos(
    config: TestConfig, paths: list[str], names: list[str], skipped: dict[str, str]
) -> Iterator[Photo]:
    """The photographs in the list's order; those that cannot be used go to `skipped` with the reason."""
    height, width = config.image_shape[:2]
    for index, (path, name) in enumerate(zip(paths, names)):
        try:
            truth = center_crop(decode_image(path), height, width)
        except ImageError as error:
            warn(f"skipped {ImageError(path, error.reason)}")
            skipped[name] = error.reason
            continue
        yield Photo(index, name, truth, draw_hole(config, index))


def in_batches(photos: Iterator[Photo], size: int) -> Iterator[list[Photo]]:
    while batch := list(itertools.islice(photos, size)):
        yield batch


def complete_by_all_methods(
    tester: Tester, truths: np.ndarray, masks: np.ndarray, baselines: bool
) -> list[dict[str, np.ndarray]]:
    """Each image of a batch completed, by method; the model comes last."""
    coarse, completed, _ = tester.complete(truths, masks)
    results = []
    for i, (truth, mask) in enumerate(zip(truths, masks)):
        by_method = {}
        if baselines:
            by_method.update((name, fill(truth, mask)) for name, fill in BASELINES.items())
            if not tester.model.coarse_only:
                by_method["coarse"] = coarse[i]
        results.append({**by_method, "model": completed[i]})
    return results


def file_name(photo: Photo) -> str:
    stem = os.path.splitext(os.path.basename(photo.name))[0][:50]  # file systems allow 255 bytes in all
    return f"{photo.index:06d}_{stem}.png"


def picture_row(
    shown: np.ndarray, results: dict[str, np.ndarray], truth: np.ndarray
) -> dict[str, np.ndarray]:
    """A row of results.png, by heading."""
    row = {"input": shown, "telea": results.get("telea"), "completed": results["model"], "original": truth}
    return {label: image for label, image in row.items() if image is not None}


def describe(
    args: argparse.Namespace,
    config: TestConfig,
    tester: Tester,
    device: str,
    listed: int,
    skipped: dict[str, str],
    measurements: list[Measurement],
) -> str:
    """The complete protocol, without which the figures mean nothing."""
    model = tester.model
    width = f"{model.channels} channels" + (", coarse stage only" if model.coarse_only else "")
    seen = "zeros" if model.mask_type == "hole" else f"a mosaic of {model.mosaic_unit_size}-pixel blocks"
    crop = "x".join(map(str, config.image_shape[:2]))
    used = len({row.index for row in measurements})
    methods = dict.fromkeys(row.method for row in measurements)
    reasons = [f"{name}: {reason}" for name, reason in skipped.items()]
    if len(reasons) > SHOWN_SKIPPED:
        reasons[SHOWN_SKIPPED:] = [f"and {len(reasons) - SHOWN_SKIPPED} more"]
    libraries = {"PaddlePaddle": paddle, "NumPy": np, "OpenCV": cv2, "scikit-image": skimage}
    protocol = labelled(
        {
            "checkpoint": portable_path(tester.source),
            "model": f"iteration {model.iteration}, dialect {model.dialect}, {width}",
            "list": portable_path(config.val_data_path),
            "images": f"{used}: the first {used + len(skipped)} of {listed}, less {len(skipped)} skipped",
            "skipped": reasons,
            "size": f"{crop} (height x width), the middle of the photograph at full resolution; a photograph "
            "too small for that is first enlarged (bilinear)",
            "hole": f"{describe_hole(config)}; the model sees {seen} in it",
            "metrics": METRICS,
            "methods": [f"{name}: {METHODS[name]}" for name in methods],
            "versions": ", ".join(f"{name} {module.__version__}" for name, module in libraries.items()),
            "device": f"{device}; {set_thread_count()} CPU threads",
        }
    )
    return f"{portable_command(['test.py', *args.command])}\n\n{protocol}"


def evaluate(args: argparse.Namespace) -> None:
    config = load_config(args.config, TestConfig, args.overrides)
    paths = read_val_list(config)
    device = set_device(args.device)
    tester = Tester(find_checkpoint(args.checkpoint, run_folder(config), warn))
    if tester.model.mask_type != config.mask_type:
        warn(f"the model was trained with mask_type {tester.model.mask_type} and is evaluated with it")
    output = args.output or os.path.dirname(tester.source) or "."
    prepare_folder(output)
    if args.save_images:
        prepare_folder(os.path.join(output, "images"))

    names = image_names(paths)
    chosen = paths[: args.count]
    measurements, pictures, skipped = [], [], {}
    with show_progress(len(chosen), "image") as advance:
        for batch in in_batches(load_photos(config, chosen, names, skipped), config.eval_batch_size):
            truths = np.stack([photo.truth for photo in batch])
            masks = boxes_to_mask([photo.hole for photo in batch], config.image_shape[:2])[:, 0]
            results = complete_by_all_methods(tester, truths, masks, args.baselines)
            if len(pictures) < PICTURES:
                shown = tester.shown(truths, masks)
                pictures += [picture_row(*row) for row in zip(shown, results, truths)]
            for photo, mask, by_method in zip(batch, masks, results):
                hole = " ".join(map(str, photo.hole))
                for method, result in by_method.items():
                    metrics = image_metrics(result, photo.truth, mask)
                    area = float(mask.mean())
                    measurements.append(Measurement(photo.index, photo.name, hole, area, method, metrics))
                if args.save_images:
                    write_image(os.path.join(output, "images", file_name(photo)), by_method["model"])
            advance(len(batch))
    if not measurements:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"none of the {len(chosen)} images can be used, e.g. {ImageError(name, reason)}")

    protocol = describe(args, config, tester, device, len(paths), skipped, measurements)
    summary = f"{protocol}\n\n{results_text(measurements)}\n"
    write_text(os.path.join(output, "test.txt"), summary)
    write_csv(os.path.join(output, "test.csv"), measurements)
    grid = image_grid([list(row.values()) for row in pictures[:PICTURES]], list(pictures[0]))
    write_image(os.path.join(output, "results.png"), grid)
    print(f"{summary}\nresults.png, test.csv and test.txt are in {output}")


def main(argv: list[str] | None = None) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    with friendly_errors(DataError):
        evaluate(parse_arguments(sys.argv[1:] if argv is None else argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
