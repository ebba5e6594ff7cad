"""Evaluates every checkpoint that a run kept and draws the PSNR in the hole against the iterations.

    python tools/learning_curve.py RUN_FOLDER [--output FOLDER] [key=value ...]

The protocol is the run's configuration's (its config.yaml), changed by key=value as for test.py, e.g.
val_data_path=LIST protocol=random_box holes_per_image=5; to have more than the newest checkpoints train with
keep_every_iter. Writes learning_curve.csv and learning_curve.png (needs matplotlib); checkpoints that were evaluated
before by the same command are not evaluated again.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from data.file_list import DataError, read_file_list  # noqa: E402
from utils.checkpoint import list_checkpoints  # noqa: E402
from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.config import TestConfig, load_config  # noqa: E402
from utils.evaluation.baselines import BASELINES  # noqa: E402
from utils.evaluation.comparison import METRICS, Estimate, Measured, estimate, read_measured  # noqa: E402
from utils.evaluation.report import portable_path  # noqa: E402
from utils.scripts import evaluation_digest, is_evaluated, mark_evaluated, run_script  # noqa: E402
from utils.text_files import write_text  # noqa: E402


def load_pyplot() -> ModuleType:
    """matplotlib.pyplot for files. Raises UserError."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("matplotlib is not installed: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def evaluate(folder: str, output: str, overrides: Sequence[str]) -> dict[int, dict[str, Measured]]:
    """Every checkpoint's measured runs by iteration; the classical methods are with the first alone."""
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        raise UserError(f"{folder}: holds no checkpoint")
    config = os.path.join(folder, "config.yaml")
    checked = load_config(config, TestConfig, overrides)
    digest = evaluation_digest(checked, read_file_list(checked.val_data_path, checked.data_root))
    load_pyplot()  # that it is missing should not be found out after hours
    results = {}
    for number, (iteration, path) in enumerate(checkpoints, start=1):
        place = os.path.join(output, f"{iteration:08d}")
        command = ["test.py", "--config", config, *overrides, "--checkpoint", path, "--output", place]
        command += ["--baselines"] if number == 1 else []
        if not is_evaluated(command, path, place, digest):
            run_script(command)
            mark_evaluated(place, digest)
        results[iteration] = read_measured(os.path.join(place, "test.csv"))
        psnr = estimate([results[iteration]["model"]])["hole_psnr"].mean
        print(f"[{number}/{len(checkpoints)}] iteration {iteration}: PSNR in the hole {psnr:.3f}", flush=True)
    return results


def to_csv(results: dict[int, dict[str, Measured]]) -> str:
    """iteration (empty for classical methods), method, and each metric's mean and standard error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    errors = [f"{metric}_standard_error" for metric in METRICS]
    writer.writerow(["iteration", "method", *METRICS, *errors])
    for iteration, methods in results.items():
        for method, measured in methods.items():
            values = estimate([measured])
            means = [repr(values[metric].mean) for metric in METRICS]
            standard_errors = [repr(values[metric].over_photographs) for metric in METRICS]
            writer.writerow(["" if method in BASELINES else iteration, method, *means, *standard_errors])
    return text.getvalue()


def draw(results: dict[int, dict[str, Measured]], title: str, output: str) -> None:
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(8, 5))
    values: list[Estimate] = [estimate([methods["model"]])["hole_psnr"] for methods in results.values()]
    means, errors = [value.mean for value in values], [value.over_photographs for value in values]
    axis.errorbar(list(results), means, errors, marker=".", capsize=2, label="model, with standard error")
    first = next(iter(results.values()))
    for number, method in enumerate(method for method in BASELINES if method in first):
        level = estimate([first[method]])["hole_psnr"].mean
        axis.axhline(level, color=f"C{number + 1}", linestyle="--", linewidth=1, label=f"{method} {level:.2f}")
    axis.set(xlabel="iterations", ylabel="PSNR in the hole, dB", title=title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    try:
        figure.savefig(output, dpi=120)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None
    finally:
        pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draws a run's PSNR in the hole against its iterations.")
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
