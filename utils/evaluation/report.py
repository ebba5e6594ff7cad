"""What an evaluation leaves behind: figures by image as CSV, a summary as text."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shlex
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from utils.evaluation.baselines import BASELINES, INPAINT_RADIUS, RING_WIDTH
from utils.metrics import SSIM_PARAMETERS, Summary, summarize
from utils.text_files import write_text
from utils.visualization import OutputError

COLUMNS = {  # metric -> (heading, decimals)
    "psnr": ("PSNR", 3),
    "psnr_of_mean": ("PSNR*", 3),
    "ssim": ("SSIM", 4),
    "l1": ("l1", 5),
    "l2": ("l2", 5),
    "l1_percent": ("l1 %", 3),
    "l2_percent": ("l2 %", 3),
    "tv": ("TV", 4),
}
PAIRED = tuple(metric for metric in COLUMNS if metric != "psnr_of_mean")  # not a figure of single images
SSIM_SETTINGS = ", ".join(f"{name}={value}" for name, value in SSIM_PARAMETERS.items())
# In running text; a path may have blanks, so that it goes on up to what separates it from other words.
ABSOLUTE_PATH = re.compile(r"(?<![\w.~/-])~?/(?=\S).+?(?=: |[;,)] |[;:,)]?$)", re.MULTILINE)
LABEL, LINE = 15, 100  # width of the first column and of a line of text, characters
REGIONS = {"hole_": "in the hole", "": "on the full image"}

METRICS = (
    "All are of 8-bit RGB images, as saved: results rounded to the nearest level, known pixels unchanged.",
    "PSNR: 10 log10(1 / l2) in dB, mean over images; PSNR*: the same of the mean l2.",
    f"SSIM: skimage.metrics.structural_similarity({SSIM_SETTINGS}); in the hole the mean of its map there.",
    "l1, l2: mean absolute and mean squared error, levels scaled to [0, 1].",
    "l1 %, l2 %: 100 sum|r - t| / sum|t| and 100 sum(r - t)^2 / sum t^2 of result r and photograph t.",
    "TV, of the result alone: mean absolute difference of vertical neighbours plus that of horizontal ones, "
    "levels scaled to [0, 1]; in the hole the pairs with a pixel in it.",
)
METHODS = {
    "mean_color": f"mean colour of the known pixels within {RING_WIDTH} pixels of the hole",
    "telea": f"cv2.inpaint, INPAINT_TELEA, radius {INPAINT_RADIUS:g}",
    "navier_stokes": f"cv2.inpaint, INPAINT_NS, radius {INPAINT_RADIUS:g}",
    "biharmonic": "skimage.restoration.inpaint_biharmonic",
    "coarse": "the model's coarse stage alone",
    "model": "the model",
}


class Measurement(NamedTuple):
    """The figures of one method on one image."""

    index: int  # place in the file list, from 0; with the seed and hole_number it decides the hole
    image: str
    hole_number: int  # from 0; 0 where each image has one hole
    hole: str  # a box: "top left height width" in pixels; a saved mask: its file; free form: a checksum
    hole_area: float  # fraction of the image
    method: str
    metrics: dict[str, float]  # of utils.metrics.image_metrics


def write_csv(path: str, measurements: Sequence[Measurement]) -> None:
    """One line an image and method, figures with all their digits. Raises OutputError."""
    names = list(measurements[0].metrics)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*Measurement._fields[:-1], *names])
    for row in measurements:
        table.writerow([*row[:-1], *(repr(row.metrics[name]) for name in names)])
    write_text(path, text.getvalue())


def prepare_folder(folder: str) -> None:
    """Makes the folder if it is missing and tries to write in it. Raises OutputError."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to the folder {folder}: {error.strerror or error}") from None


def results_text(measurements: Sequence[Measurement]) -> str:
    """Tables of means with standard errors, by region and method; with the model's paired differences.

    The model is the last method; with no other there are no differences.
    """
    by_method = _by_method(measurements)
    images = [row.index for row in next(iter(by_method.values()))]
    metrics = {method: [row.metrics for row in rows] for method, rows in by_method.items()}
    summaries = {method: summarize(rows, images) for method, rows in metrics.items()}
    count, holes = len(set(images)), len(images)
    counted = f"{count} image{'s' * (count != 1)}"
    if holes != count:
        counted += f" with {holes} holes, standard errors over images"
    lines = []
    for prefix, region in REGIONS.items():
        title = f"Mean {region}, {counted} (below it the standard error)"
        lines += [title, *_table(summaries, prefix, tuple(COLUMNS)), ""]
    *others, model = by_method
    paired = {other: paired_difference(metrics[model], metrics[other], images) for other in others}
    for prefix, region in REGIONS.items() if others else ():
        title = f"The {model} less another method {region}, mean by image (below it the standard error)"
        rows = {f"- {other}": difference for other, difference in paired.items()}
        lines += [title, *_table(rows, prefix, PAIRED, signed=True), ""]
    best = best_baseline(measurements)
    if best:
        lines.append(f"Best baseline, by the largest mean PSNR in the hole: {best}. The {model} less {best}:")
        for prefix, region in REGIONS.items():
            for metric in ("psnr", "ssim"):
                lines.append(f"{region + ':':<20}{_against_error(metric, paired[best][prefix + metric])}")
        lines.append("")
    lines += [
        f"{method} {metric}: {value.excluded} of {holes} holes left out, infinite or undefined there"
        for method, summary in summaries.items()
        for metric, value in summary.items()
        if value.excluded
    ]
    return "\n".join(lines).rstrip("\n")


def best_baseline(measurements: Sequence[Measurement]) -> str | None:
    """The classical method with the largest mean PSNR in the hole, or None if there is no such method."""
    psnrs = {}
    for method, rows in _by_method(measurements).items():
        if method in BASELINES:
            psnrs[method] = summarize([row.metrics for row in rows], [row.index for row in rows])["hole_psnr"]
    finite = {method: psnr.mean for method, psnr in psnrs.items() if math.isfinite(psnr.mean)}
    return max(finite, key=finite.get, default=None)


def pick_extremes(measurements: Sequence[Measurement], each: int) -> list[tuple[str, Measurement]]:
    """The model's holes of highest, middle and lowest PSNR in the hole, up to `each` of every kind.

    Returns ("best" | "median" | "worst", measurement), from best to worst, none twice. The model is the last
    method. Holes whose PSNR is undefined are passed over.
    """
    model = measurements[-1].method
    ranked = [row for row in measurements if row.method == model and not math.isnan(row.metrics["hole_psnr"])]
    ranked.sort(key=lambda row: -row.metrics["hole_psnr"])  # stable: by place in the list where they are equal
    each = min(each, max(1, len(ranked) // 3))
    middle = (len(ranked) - each) // 2
    places = {
        **dict.fromkeys(range(middle, middle + each), "median"),
        **dict.fromkeys(range(len(ranked) - each, len(ranked)), "worst"),
        **dict.fromkeys(range(each), "best"),
    }
    return [(places[place], ranked[place]) for place in sorted(places) if 0 <= place < len(ranked)]


def paired_difference(
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
    images: Sequence[int] | None = None,
) -> dict[str, Summary]:
    """Mean and standard error of ours minus theirs, hole by hole, for every metric.

    images: the image of each row, see `utils.metrics.summarize`. Holes where a metric is infinite or undefined
    for either are left out of it and counted as excluded.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} images cannot be paired with {len(theirs)}")
    # The suffix keeps summarize from taking a difference of l2 for an l2 and giving the PSNR of its mean.
    suffix = "_difference"
    rows = [{f"{name}{suffix}": a[name] - b[name] for name in a} for a, b in zip(ours, theirs)]
    return {name[: -len(suffix)]: value for name, value in summarize(rows, images).items()}


def _by_method(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    by_method: dict[str, list[Measurement]] = {}
    for row in measurements:
        by_method.setdefault(row.method, []).append(row)
    return by_method


def _against_error(metric: str, difference: Summary) -> str:
    """One difference in words: "PSNR +2.000, standard error 1.000 (+2.0 of them)"."""
    heading, decimals = COLUMNS[metric]
    mean, error = difference.mean, difference.standard_error
    text = f"{heading} {_figure(mean, decimals, signed=True).strip()}"
    if not math.isnan(error):
        text += f", standard error {error:.{decimals}f}"
    return f"{text} ({mean / error:+.1f} of them)" if error > 0 else text


def _table(
    summaries: Mapping[str, Mapping[str, Summary]], prefix: str, metrics: Sequence[str], signed: bool = False
) -> list[str]:
    """Two lines a row: the means and, below, their standard errors."""
    lines = [" " * LABEL + "".join(f"{COLUMNS[metric][0]:>9}" for metric in metrics)]
    for name, summary in summaries.items():
        values = [(summary[prefix + metric], COLUMNS[metric][1]) for metric in metrics]
        means = "".join(_figure(value.mean, digits, signed) for value, digits in values)
        lines.append(f"{name:{LABEL}}{means}")
        errors = "".join(_figure(value.standard_error, digits) for value, digits in values)
        lines.append((" " * LABEL + errors).rstrip())
    return lines


def _figure(value: float, decimals: int, signed: bool = False) -> str:
    text = "-" if math.isnan(value) else f"{value:{'+' if signed else ''}.{decimals}f}"
    return f"{text:>9}"


def labelled(entries: Mapping[str, str | Sequence[str]]) -> str:
    """Paragraphs, each beside its label; a label without any is left out."""
    lines = []
    for label, content in entries.items():
        for paragraph in [content] if isinstance(content, str) else content:
            wrapped = textwrap.wrap(paragraph, LINE - LABEL, break_long_words=False, break_on_hyphens=False)
            for line in wrapped:
                lines.append(f"{label:{LABEL}}{line}")
                label = ""
    return "\n".join(lines)


def portable_path(path: str) -> str:
    """A path as it can be published: within the current folder from there, else its last two parts."""
    absolute = os.path.abspath(os.path.expanduser(path))
    relative = os.path.relpath(absolute)
    if relative.split(os.sep)[0] != os.pardir:
        return relative
    return os.path.join("...", *absolute.split(os.sep)[-2:])


def portable_text(text: str) -> str:
    """A log as it can be published: the absolute paths in it as `portable_path` makes them."""
    return ABSOLUTE_PATH.sub(lambda found: portable_path(found[0]), text)


def portable_command(arguments: Sequence[str]) -> str:
    """A command line as it can be published and, within the current folder, repeated."""

    def shorten(path: str) -> str:
        return portable_path(path) if os.path.isabs(path) or path.startswith("~") else path

    def word(argument: str) -> str:
        key, equals, value = argument.partition("=")  # --config=PATH, data_root=PATH
        return f"{key}={shorten(value)}" if equals and not os.path.isabs(key) else shorten(argument)

    return shlex.join(["python", *map(word, arguments)])


def image_names(paths: Sequence[str]) -> list[str]:
    """Names of the images of a list without the folders that all of them are in."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath({os.path.dirname(path) for path in absolute})
    return [os.path.relpath(path, common) for path in absolute]
