"""Evaluates every checkpoint that a run kept and draws PSNR and SSIM in the hole against the iterations.

    python tools/learning_curve.py RUN_FOLDER [--output FOLDER] [key=value ...]

The protocol is the run's configuration's (its config.yaml), changed by key=value as for test.py, e.g.
val_data_path=LIST protocol=random_box masks_per_image=5; to have more than the newest checkpoints train with
keep_every_iter. Random holes are drawn by that configuration's seed, which was the training's: curves of runs with
different seeds are of the same holes only with seed=0 added to each.

Writes learning_curve.csv and learning_curve.png (needs matplotlib); checkpoints that were evaluated before by the
same command are not evaluated again. The run may be going on: a checkpoint that it removes meanwhile is left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from data.file_list import DataError, read_file_list  # noqa: E402
from data.samples import saved_holes  # noqa: E402
from utils.checkpoint import list_checkpoints  # noqa: E402
from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.config import MASK_PROTOCOLS, TestConfig, load_config  # noqa: E402
from utils.evaluation.baselines import BASELINES  # noqa: E402
from utils.evaluation.comparison import METRICS, Estimate, Measured, estimate, read_measured  # noqa: E402
from utils.evaluation.report import image_names, portable_path  # noqa: E402
from utils.progress import warn  # noqa: E402
from utils.pyplot import load_pyplot  # noqa: E402
from utils.scripts import ScriptError, evaluation_digest, is_evaluated, mark_evaluated, run_script  # noqa: E402
from utils.text_files import write_text  # noqa: E402

PANELS = {"hole_psnr": ("PSNR in the hole, dB", 2), "hole_ssim": ("SSIM in the hole", 3)}  # metric -> name, decimals


def evaluate(folder: str, output: str, overrides: Sequence[str]) -> dict[int, dict[str, Measured]]:
    """Every checkpoint's measured runs by iteration; the classical methods are with the first alone."""
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        raise UserError(f"{folder}: holds no checkpoint")
    config = os.path.join(folder, "config.yaml")
    checked = load_config(config, TestConfig, overrides)
    photographs = read_file_list(checked.val_data_path, checked.data_root)
    digest = evaluation_digest(checked, photographs, saved_masks(checked, photographs))
    load_pyplot()  # that it is missing should not be found out after hours
    results: dict[int, dict[str, Measured]] = {}
    for number, (iteration, path) in enumerate(checkpoints, start=1):
        place = os.path.join(output, f"{iteration:08d}")
        command = ["test.py", "--config", config, *overrides, "--checkpoint", path, "--output", place]
        command += [] if results else ["--baselines"]
        if not has_results(command, path, place, digest):
            warn(f"{path}: was removed before it was evaluated, and is left out")
            continue
        results[iteration] = read_measured(os.path.join(place, "test.csv"))
        psnr = estimate([results[iteration]["model"]])["hole_psnr"].mean
        print(f"[{number}/{len(checkpoints)}] iteration {iteration}: PSNR in the hole {psnr:.3f}", flush=True)
    if not results:
        raise UserError(f"{folder}: its checkpoints were all removed before they were evaluated; try again, or train "
                        "with more keep_checkpoints")
    return results


def saved_masks(config: TestConfig, photographs: Sequence[str]) -> list[str]:
    """The files of the masks of all photographs in turn, as test.py takes them; none where holes are drawn."""
    if config.protocol not in MASK_PROTOCOLS:
        return []
    names, size = image_names(photographs), config.image_shape[:2]
    holes = saved_holes(config.protocol, config.mask_path, names, config.masks_per_image, size)
    return [path for paths in holes.paths for path in paths]


def has_results(command: Sequence[str], checkpoint: str, output: str, digest: str) -> bool:
    """Evaluates the checkpoint unless that was done; False if it is gone: a run that goes on removes old ones."""
    if is_evaluated(command, checkpoint, output, digest):
        return True
    if not os.path.exists(checkpoint):
        return False
    try:
        run_script(command)
    except ScriptError:
        if os.path.exists(checkpoint):
            raise
        return False
    mark_evaluated(output, digest)
    return True


def to_csv(results: dict[int, dict[str, Measured]]) -> str:
    """iteration (empty for classical methods), method, and each metric's mean and standard error.

    The model is there once an iteration, each classical method once; the model's coarse stage, which is measured with
    the latter, would be there for one iteration alone and is left out.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    errors = [f"{metric}_standard_error" for metric in METRICS]
    writer.writerow(["iteration", "method", *METRICS, *errors])
    for iteration, methods in results.items():
        for method in (method for method in methods if method in (*BASELINES, "model")):
            values = estimate([methods[method]])
            means = [repr(values[metric].mean) for metric in METRICS]
            standard_errors = [repr(values[metric].over_photographs) for metric in METRICS]
            writer.writerow(["" if method in BASELINES else iteration, method, *means, *standard_errors])
    return text.getvalue()


def draw(results: dict[int, dict[str, Measured]], title: str, output: str) -> None:
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(14, 5))
    curve: list[dict[str, Estimate]] = [estimate([methods["model"]]) for methods in results.values()]
    first = next(iter(results.values()))
    classical = {method: estimate([first[method]]) for method in BASELINES if method in first}
    for axis, (metric, (name, decimals)) in zip(axes, PANELS.items()):
        means, errors = [at[metric].mean for at in curve], [at[metric].over_photographs for at in curve]
        axis.errorbar(list(results), means, errors, marker=".", capsize=2, label="model, with standard error")
        for number, (method, estimates) in enumerate(classical.items(), start=1):
            level = estimates[metric].mean
            label = f"{method} {level:.{decimals}f}"
            axis.axhline(level, color=f"C{number}", linestyle="--", linewidth=1, label=label)
        axis.set(xlabel="iterations", ylabel=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    try:
        figure.savefig(output, dpi=120)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None
    finally:
        pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draws a run's PSNR and SSIM in the hole against its iterations.")
    parser.add_argument("folder", metavar="RUN_FOLDER")
    parser.add_argument("--output", metavar="FOLDER", help="default: learning_curve in the run's folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for test.py")
    args = parser.parse_intermixed_args(argv)
    with friendly_errors(DataError):
        output = args.output or os.path.join(args.folder, "learning_curve")
        results = evaluate(args.folder, output, args.overrides)
        table, picture = (os.path.join(output, f"learning_curve.{kind}") for kind in ("csv", "png"))
        write_text(table, to_csv(results))
        draw(results, portable_path(args.folder), picture)
        print(f"{table}\n{picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
