"""Evaluate a trained model on a list of images, or inpaint images of your own.

python test.py [--config configs/test.yaml] [--checkpoint latest|released|PATH] [--baselines] [key=value ...]
python test.py --image IN.png|FOLDER|GLOB --mask MASK.png|FOLDER --output OUT.png|FOLDER
"""

# ruff: noqa: E402 (what people edit comes before the imports)
from __future__ import annotations

TOTAL = None  # how many images of the list are evaluated, from its beginning; None: all of them

import argparse
import contextlib
import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from utils.cli import UserError, friendly_errors, prepare_paddle, set_thread_count

with friendly_errors():
    prepare_paddle()

import cv2
import numpy as np
import paddle
import skimage

from data.eval_set import EvalSet, MaskFiles, RandomMasks, masks_by_name, masks_in_order, without_masks
from data.file_list import read_file_list
from tester import CHECKPOINT, RELEASED, Tester, resolve_checkpoint
from utils.config import MASK_PROTOCOLS, TestConfig, load_config, run_folder
from utils.device import set_device
from utils.evaluation.evaluate import SAVED, inpaint_all, measure, results_sheet, save_images
from utils.evaluation.protocol import METHODS, METRICS, describe_crop, describe_holes, describe_model, format_fields
from utils.evaluation.report import Score, best_median_worst, results_text, write_csv
from utils.inpaint import add_options, check_options, inpaint_files
from utils.paths import image_names, portable_command, portable_path, portable_text, prepare_folder
from utils.progress import show_progress, warn
from utils.text_files import write_text
from utils.visualization import write_image

CONFIG = "configs/test.yaml"
SHOWN = 20  # images in results.png: the first of the list, unselected
EXTREMES = 4  # holes of each kind in best_median_worst.png
SHOWN_SKIPPED = 20  # skipped files named in test.txt
HOW_TO_LIST = "; make one with: find FOLDER -name '*.jpg' | sort > LIST, or for the demonstration: make demo"
GONE = {"--engine": "the network itself is as fast; for deployment see docs/deploy.md"}


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see python test.py --help")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    description = "Evaluate a trained model on a list of images, or inpaint images (--image, --mask, --output)."
    parser = Parser(description=description, allow_abbrev=False)
    parser.add_argument("--config", default=CONFIG, help="YAML file (default: %(default)s)")
    parser.add_argument(
        "--checkpoint", default=CHECKPOINT, metavar="latest|released|PATH", help="default: %(default)s"
    )
    parser.add_argument("--count", type=int, default=TOTAL, help="evaluate the first COUNT images only")
    parser.add_argument("--baselines", action="store_true", help="inpaint the same holes by other methods, too")
    parser.add_argument("--output", metavar="PATH", help="for results (default: the checkpoint's folder)")
    parser.add_argument("--save-images", action="store_true", help="save results, originals and masks as PNG")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument("--seed", type=int, help="overrides the file's seed, which fixes random holes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. protocol=random_box")
    add_options(parser)
    for word in argv:
        flag = word.partition("=")[0]
        if flag in GONE:
            raise UserError(f"{flag} is gone: {GONE[flag]}")
    args = parser.parse_intermixed_args(argv)
    args.command = argv
    if args.seed is not None:
        args.overrides.append(f"seed={args.seed}")
    if args.image is None and args.invert_mask:  # of the masks of an evaluation
        args.overrides.append("mask_invert=true")
        args.invert_mask = False
    if args.count is not None and (type(args.count) is not int or args.count < 1):
        raise UserError(f"--count (or TOTAL in test.py) must be a whole number from 1, not {args.count}")
    return check_options(args)


def read_config(args: argparse.Namespace) -> TestConfig:
    """The default file is found beside this script, from any working folder."""
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), CONFIG)
    path = beside if args.config == CONFIG and not os.path.exists(CONFIG) else args.config
    return load_config(path, TestConfig, args.overrides)


def load_tester(args: argparse.Namespace, config: TestConfig | None) -> Tester:
    """The model of --checkpoint; config: for the latest checkpoint of its run.

    The weights of another run than one that is asked for, by a configuration or by a part of its folder's name,
    would mislead: only where none is named do the released weights stand in for a run without a checkpoint.
    """
    keys = ("dataset_name", "mask_type", "expname")
    named = args.config != CONFIG or any(override.partition("=")[0] in keys for override in args.overrides)
    return Tester(resolve_checkpoint(args.checkpoint, run_folder(config) if config else "", warn, not named))


def read_val_list(config: TestConfig) -> list[str]:
    try:
        paths = read_file_list(config.val_data_path, config.data_root)
    except UserError as error:
        missing = not os.path.exists(os.path.expanduser(config.val_data_path))
        raise UserError(f"val_data_path: {error}{HOW_TO_LIST if missing else ''}") from None
    images = without_masks(paths) if config.protocol == "mask_dir" else paths
    if len(images) < len(paths):
        warn(f"{len(paths) - len(images)} of {len(paths)} files are masks of others by their names and left out")
    return images


def build_set(config: TestConfig, paths: list[str], names: list[str]) -> EvalSet:
    """The images of the list with their holes; saved masks are looked for now."""
    size = config.image_shape[:2]
    if config.protocol == "mask_dir":
        masks = masks_by_name(config.mask_path, paths, names, config.masks_per_image)
    elif config.protocol == "mask_list":
        masks = masks_in_order(config.mask_path, len(paths), config.masks_per_image)
    if config.protocol in MASK_PROTOCOLS:
        holes = MaskFiles(masks, size, config.mask_invert, warn)
    else:
        boxes = config.mask_shape, config.margin, config.max_delta_shape
        holes = RandomMasks(config.protocol, size, *boxes, config.seed)
    return EvalSet(paths, names, holes, config.masks_per_image, size, config.eval_crop, warn)


def describe(
    args: argparse.Namespace,
    config: TestConfig,
    tester: Tester,
    device: str,
    listed: int,
    dataset: EvalSet,
    scores: list[Score],
) -> str:
    """The command and the complete protocol, without which the scores mean nothing."""
    model = tester.model
    seen = "zeros" if model.mask_type == "hole" else f"a mosaic of {model.mosaic_unit_size}-pixel blocks"
    reasons = [portable_text(str(error)) for error in dataset.skipped]
    if len(reasons) > SHOWN_SKIPPED:
        reasons[SHOWN_SKIPPED:] = [f"and {len(reasons) - SHOWN_SKIPPED} more"]
    used, tried, skipped = len({row.image_index for row in scores}), len(dataset.paths), len(dataset.skipped)
    libraries = {"PaddlePaddle": paddle, "NumPy": np, "OpenCV": cv2, "scikit-image": skimage}
    protocol = format_fields(
        {
            "checkpoint": portable_path(tester.source),
            "model": describe_model(model),
            "list": portable_path(config.val_data_path),
            "images": f"{used}: the first {tried} of {listed}, less {skipped} skipped",
            "skipped": reasons,
            "size": describe_crop(config),
            "hole": f"{describe_holes(config)}; the model sees {seen} in it",
            "metrics": METRICS,
            "methods": [f"{name}: {METHODS[name]}" for name in dict.fromkeys(row.method for row in scores)],
            "versions": ", ".join(f"{name} {module.__version__}" for name, module in libraries.items()),
            "device": f"{device}; {set_thread_count()} CPU threads",
        }
    )
    return f"{portable_command(['test.py', *args.command])}\n\n{protocol}"


def evaluate(args: argparse.Namespace) -> None:
    config = read_config(args)
    paths = read_val_list(config)
    dataset = build_set(config, paths[: args.count], image_names(paths)[: args.count])
    device = set_device(args.device)
    tester = load_tester(args, config)
    print(f"weights: {portable_path(tester.source)}, iteration {tester.model.iteration}")
    if tester.model.mask_type != config.mask_type:
        warn(f"the model was trained with mask_type {tester.model.mask_type} and is evaluated with it")
    released = os.path.abspath(tester.source) == RELEASED  # whose folder is part of the project
    output = args.output or (run_folder(config) if released else os.path.dirname(tester.source)) or "."
    for folder in ("", *(SAVED if args.save_images else ())):
        prepare_folder(os.path.join(output, folder))

    scores, shown = [], []
    several = config.masks_per_image > 1
    with show_progress(len(dataset), "hole" if several else "image") as advance, \
            ThreadPoolExecutor(max(config.num_workers, 1)) as pool:
        for sample in dataset:  # for each image, for each hole
            results = inpaint_all(tester, sample, args.baselines, pool)  # by each method
            scores += pool.map(functools.partial(measure, sample), results, results.values())
            if args.save_images:
                save_images(output, sample, results["model"], several)
            if len(shown) < SHOWN and sample.hole_index == 0:
                shown.append((sample, results))
            advance(1)
        if not scores:
            raise UserError(f"none of the {len(dataset.paths)} images can be used, e.g. {dataset.skipped[0]}")
        # Inpainted once more for the few that are shown, since nobody can know before which they will be.
        extremes = best_median_worst(scores, EXTREMES)
        again = [dataset.load(row.image_index, row.hole_index) for _, row in extremes]
        again = [(sample, inpaint_all(tester, sample, args.baselines, pool)) for sample in again]

    protocol = describe(args, config, tester, device, len(paths), dataset, scores)
    summary = f"{protocol}\n\n{results_text(scores)}\n"
    write_text(os.path.join(output, "test.txt"), summary)
    write_csv(os.path.join(output, "test.csv"), scores)
    sheet = results_sheet(tester, shown, scores, blocks=1 if len(shown) <= SHOWN // 2 else 2)
    write_image(os.path.join(output, "results.png"), sheet)
    sheet = results_sheet(tester, again, scores, [kind for kind, _ in extremes])
    write_image(os.path.join(output, "best_median_worst.png"), sheet)
    print(f"{summary}\nresults.png, best_median_worst.png, test.csv and test.txt are in {output}")


def main(argv: list[str] | None = None) -> int:
    with contextlib.suppress(AttributeError):  # a notebook's stdout has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    with friendly_errors():
        args = parse_arguments(sys.argv[1:] if argv is None else argv)
        if args.image is None:
            evaluate(args)
        else:
            set_device(args.device)
            inpaint_files(args, load_tester(args, read_config(args) if args.checkpoint == "latest" else None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
