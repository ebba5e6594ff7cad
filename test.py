"""Evaluate a trained model on a file list, or complete pictures.

python test.py [--config configs/test.yaml] [key=value ...]
python test.py --image IN.png|FOLDER|GLOB --mask MASK.png|FOLDER --output OUT.png|FOLDER
"""

# ruff: noqa: E402 (what people edit comes before the imports)
from __future__ import annotations

TOTAL = None  # how many photographs of the list are evaluated, from its beginning; None: all of them

import argparse
import functools
import os
import sys

from utils.cli import UserError, friendly_errors, prepare_paddle, set_thread_count

with friendly_errors():
    prepare_paddle()

import cv2
import numpy as np
import paddle
import skimage

from data.decode import ImageError
from data.file_list import DataError, read_file_list
from data.holes import DrawnHoles, SavedHoles
from data.samples import Samples, saved_holes
from tester import CHECKPOINT, ENGINE_PIXELS, RELEASED, EngineError, Tester, find_checkpoint
from utils.checkpoint import list_checkpoints
from utils.config import TestConfig, load_config, run_folder
from utils.device import set_device
from utils.evaluation.measuring import SAVED, completions, draw_sheet, measure, save_images
from utils.evaluation.protocol import describe_crop, describe_holes
from utils.evaluation.report import (
    METHODS,
    METRICS,
    Measurement,
    image_names,
    labelled,
    pick_extremes,
    portable_command,
    portable_path,
    prepare_folder,
    results_text,
    write_csv,
)
from utils.evaluation.run_ahead import run_ahead
from utils.inpaint import add_options, check_options, inpaint_files
from utils.progress import show_progress, warn
from utils.text_files import write_text
from utils.visualization import write_image

CONFIG = "configs/test.yaml"
PICTURES = 20  # photographs in results.png: the first of the list, unselected
EXTREMES = 4  # holes of each kind (best, median, worst) in extremes.png
SHOWN_SKIPPED = 20  # skipped files named in test.txt

ENGINES = ("auto", "eager", "inference")
ENGINE_HELP = "auto: Paddle Inference for many pictures on a CPU, otherwise, and for figures, the network itself"
ENGINE_PAYS = 32  # pictures from which making a program takes less time than it saves

HOW_TO_LIST = "; make one with: find FOLDER -name '*.jpg' | sort > LIST, or for the demonstration: make demo"


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see python test.py --help")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    description = "Evaluate a trained model on a file list, or complete pictures (--image, --mask, --output)."
    parser = Parser(description=description, allow_abbrev=False)
    parser.add_argument("--config", default=CONFIG, help="YAML file (default: %(default)s)")
    parser.add_argument(
        "--checkpoint", default=CHECKPOINT, metavar="latest|released|PATH", help="default: %(default)s"
    )
    parser.add_argument("--count", type=int, default=TOTAL, help="evaluate the first COUNT photographs only")
    parser.add_argument("--baselines", action="store_true", help="fill the same holes by other methods, too")
    parser.add_argument("--output", metavar="PATH", help="for results (default: the checkpoint's folder)")
    parser.add_argument("--save-images", action="store_true", help="save results, originals and masks as PNG")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help=ENGINE_HELP)
    parser.add_argument("--seed", type=int, help="overrides the file's seed, which fixes random holes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. protocol=random_box")
    add_options(parser)
    args = parser.parse_intermixed_args(argv)
    args.command = argv
    if args.seed is not None:
        args.overrides.append(f"seed={args.seed}")
    if args.count is not None and (type(args.count) is not int or args.count < 1):
        raise UserError(f"--count (or TOTAL in test.py) must be a whole number from 1, not {args.count}")
    return check_options(args)


def names_run(args: argparse.Namespace) -> bool:
    """Whether a certain run is asked for, be it by its configuration or by a part of its folder's name."""
    keys = ("dataset_name", "mask_type", "expname")
    return args.config != CONFIG or any(override.partition("=")[0] in keys for override in args.overrides)


def read_val_list(config: TestConfig) -> list[str]:
    try:
        return read_file_list(config.val_data_path, config.data_root)
    except DataError as error:
        missing = not os.path.exists(os.path.expanduser(config.val_data_path))
        raise DataError(f"val_data_path: {error}{HOW_TO_LIST if missing else ''}") from None


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
    engine = "" if not tester.engine_ran else "; Paddle Inference with oneDNN"
    width = f"{model.channels} channels" + (", coarse stage only" if model.coarse_only else "")
    width += "" if model.contextual_attention else ", without contextual attention"
    seen = "zeros" if model.mask_type == "hole" else f"a mosaic of {model.mosaic_unit_size}-pixel blocks"
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
            "size": describe_crop(config),
            "hole": f"{describe_holes(config)}; the model sees {seen} in it",
            "metrics": METRICS,
            "methods": [f"{name}: {METHODS[name]}" for name in methods],
            "versions": ", ".join(f"{name} {module.__version__}" for name, module in libraries.items()),
            "device": f"{device}; {set_thread_count()} CPU threads{engine}",
        }
    )
    return f"{portable_command(['test.py', *args.command])}\n\n{protocol}"


def find_holes(config: TestConfig, names: list[str]) -> DrawnHoles | SavedHoles:
    size = config.image_shape[:2]
    if config.protocol in ("mask_dir", "mask_list"):
        return saved_holes(config.protocol, config.mask_path, names, config.holes_per_image, size)
    boxes = config.mask_shape, config.margin, config.max_delta_shape
    return DrawnHoles(config.protocol, size, *boxes, config.seed)


def skipped_reasons(samples: Samples) -> dict[str, str]:
    """Why each photograph that was left out, by its name; a bad mask is named in the reason."""
    reasons = {}
    for path, name, error in samples.skipped:
        reasons[name] = error.reason if error.path == path else f"{portable_path(error.path)}: {error.reason}"
    return reasons


def evaluate(args: argparse.Namespace) -> None:
    config = load_config(args.config, TestConfig, args.overrides)
    paths = read_val_list(config)
    device = set_device(args.device)
    chosen, names = paths[: args.count], image_names(paths)
    holes = find_holes(config, names[: len(chosen)])
    # Results of other weights than those of a run that was named would mislead, here and in complete_pictures.
    checkpoint = find_checkpoint(args.checkpoint, run_folder(config), warn, fall_back=not names_run(args))
    tester = Tester(checkpoint)
    size = config.image_shape[:2]
    # The network itself, unless asked for: figures to the last digit.
    set_engine(args, tester, device, pictures=0, pixels=size[0] * size[1])
    if tester.model.mask_type != config.mask_type:
        warn(f"the model was trained with mask_type {tester.model.mask_type} and is evaluated with it")
    released = os.path.abspath(checkpoint) == RELEASED  # whose folder is part of the project
    output = args.output or (run_folder(config) if released else os.path.dirname(checkpoint)) or "."
    prepare_folder(output)
    for folder in SAVED if args.save_images else ():
        prepare_folder(os.path.join(output, folder))

    measurements, pictures = [], []
    samples = Samples(chosen, names, holes, config.holes_per_image, size, config.eval_crop, warn)
    # Sums over a batch are grouped by its size, which moves outputs by 1e-6 and now and then a level of the
    # result by one. A CPU gains nothing from batches, and its figures do not depend on them at all.
    batch_size = 1 if device == "cpu" else config.eval_batch_size
    complete = functools.partial(completions, tester, batch_size=batch_size, baselines=args.baselines)
    total, unit = len(chosen) * config.holes_per_image, "image" if config.holes_per_image == 1 else "hole"
    with show_progress(total, unit) as advance:
        calls = (functools.partial(measure, call) for call in complete(samples))
        for picture, measured in run_ahead(calls, config.num_workers):
            measurements += measured
            if len(pictures) < PICTURES and picture.sample.number == 0:
                pictures.append(picture)
            if args.save_images:
                save_images(output, picture, config.holes_per_image)
            advance(1)
    skipped = skipped_reasons(samples)
    if not measurements:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"none of the {len(chosen)} images can be used, e.g. {ImageError(name, reason)}")

    protocol = describe(args, config, tester, device, len(paths), skipped, measurements)
    summary = f"{protocol}\n\n{results_text(measurements)}\n"
    write_text(os.path.join(output, "test.txt"), summary)
    write_csv(os.path.join(output, "test.csv"), measurements)
    blocks = 1 if len(pictures) <= PICTURES // 2 else 2
    sheet = draw_sheet(pictures, measurements, [""] * len(pictures), blocks)
    write_image(os.path.join(output, "results.png"), sheet)
    # Done once more for the few that are shown, since nobody can know before which they will be.
    extremes = pick_extremes(measurements, EXTREMES)
    again = [samples.load(row.index, row.hole_number) for _, row in extremes]
    pictures = [call() for call in complete(again)]
    sheet = draw_sheet(pictures, measurements, [kind for kind, _ in extremes], blocks=1)
    write_image(os.path.join(output, "extremes.png"), sheet)
    print(f"{summary}\nresults.png, extremes.png, test.csv and test.txt are in {output}")


def set_engine(args: argparse.Namespace, tester: Tester, device: str, pictures: int, pixels: int = 0) -> None:
    """Takes Paddle Inference if --engine says so, or if it is safe and pays; falls back with a warning.

    pixels: of every picture, where that is known beforehand.
    """
    on_cpu = device == "cpu"
    if args.engine == "inference" and not on_cpu:
        raise UserError("--engine inference runs on the CPU; add --device cpu")
    if args.engine == "inference" and pixels > ENGINE_PIXELS:
        limit = f"takes pictures of up to {ENGINE_PIXELS} pixels, not {pixels}"
        raise UserError(f"--engine inference {limit}: leave it out for the network itself")
    if args.engine == "eager" or (args.engine == "auto" and (not on_cpu or pictures < ENGINE_PAYS)):
        return
    try:
        tester.use_inference_engine()
    except EngineError as error:
        if args.engine == "inference":
            raise
        warn(f"{error}; the network itself is used")


def inpaint(args: argparse.Namespace) -> None:
    device = set_device(args.device)
    chosen, folder = args.checkpoint, ""
    if chosen == "latest":
        folder = run_folder(load_config(args.config, TestConfig, args.overrides))
        if not (names_run(args) or list_checkpoints(folder)):
            chosen = "released"  # the line about the weights says so
    tester = Tester(find_checkpoint(chosen, folder, warn, fall_back=not names_run(args)))
    set_engine(args, tester, device, pictures=0)
    inpaint_files(args, tester)


def main(argv: list[str] | None = None) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    with friendly_errors(DataError):
        args = parse_arguments(sys.argv[1:] if argv is None else argv)
        evaluate(args) if args.image is None else inpaint(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
