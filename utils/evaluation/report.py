"""What an evaluation leaves behind: scores by image as CSV, tables with standard errors as text."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from utils.evaluation.baselines import BASELINES
from utils.evaluation.protocol import LABEL
from utils.metrics import Summary, summarize
from utils.paths import portable_command, portable_path, portable_text, prepare_folder  # noqa: F401 (see below)
from utils.text_files import write_text

# The names of utils.paths stay here, too, until the other rooms import them from there.

COLUMNS = {  # metric -> (heading, decimals)
    "psnr": ("PSNR", 3),
    "psnr_of_mean": ("PSNR*", 3),
    "ssim": ("SSIM", 4),
    "l1": ("l1", 5),
    "l2": ("l2", 5),
    "l1_percent": ("l1 %", 3),
    "l2_percent": ("l2 %", 3),
    "tv": ("TV", 4),
    "tv_ratio": ("TV ratio", 3),
}
OF_MEANS = ("psnr_of_mean", "tv_ratio")  # not scores of single images
PAIRED = tuple(metric for metric in COLUMNS if metric not in OF_MEANS)
REGIONS = {"hole_": "in the hole", "": "on the full image"}
SHARES = 10  # classes of hole share: 0-10 %, 10-20 %, ...
BY_SHARE = {"hole_psnr": "PSNR in the hole", "psnr": "PSNR on the full image", "ssim": "SSIM on the full image"}
UNKNOWN = Summary(math.nan, math.nan, 0, 0)


class Score(NamedTuple):
    """How well one method inpainted one hole of one image."""

    image_index: int  # place in the file list, from 0; with the seed and hole_index it decides the hole
    image: str
    hole_index: int  # from 0; 0 where each image has one hole
    hole: str  # a box: "top left height width" in pixels; a saved mask: its file; free form: a checksum
    hole_area: float  # fraction of the image
    method: str
    metrics: dict[str, float]  # of utils.metrics.image_metrics


def write_csv(path: str, scores: Sequence[Score]) -> None:
    """One line an image, hole and method, scores with all their digits. Raises UserError."""
    names = list(scores[0].metrics)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*Score._fields[:-1], *names])
    for row in scores:
        table.writerow([*row[:-1], *(repr(row.metrics[name]) for name in names)])
    write_text(path, text.getvalue())


def results_text(scores: Sequence[Score]) -> str:
    """Tables of means with standard errors, by region and method; with the model's paired differences.

    The model is the last method; with no other there are no differences.
    """
    by_method = _by_method(scores)
    *others, model = by_method
    images = [row.image_index for row in by_method[model]]
    summaries = {method: _summary(rows) for method, rows in by_method.items()}
    metrics = {method: [row.metrics for row in rows] for method, rows in by_method.items()}
    paired = {other: paired_difference(metrics[model], metrics[other], images) for other in others}
    count, holes = len(set(images)), len(images)
    counted = f"{count} image{'s' * (count != 1)}"
    if holes != count:
        counted += f" with {holes} holes, standard errors over images"

    lines = ["Mean PSNR and SSIM on the full image, 8 bits, known pixels unchanged, as most others print them:"]
    for method, summary in summaries.items():
        lines.append(f"{method:{LABEL}}{summary['psnr'].mean:.2f} dB  {summary['ssim'].mean:.4f}")
    lines.append("")
    for prefix, region in REGIONS.items():
        lines += [f"Mean {region}, {counted} (below it the standard error)"]
        lines += [*_metric_table(summaries, prefix, tuple(COLUMNS)), ""]
    for prefix, region in REGIONS.items() if others else ():
        lines.append(f"Paired difference, {model} - other method, {region} (below it the standard error)")
        differences = {f"- {other}": difference for other, difference in paired.items()}
        lines += [*_metric_table(differences, prefix, PAIRED, signed=True), ""]
    lines += _share_tables(by_method)
    best = best_baseline(scores)
    if best:
        lines.append(f"Best baseline, by mean PSNR in the hole: {best}. Paired difference, {model} - {best}:")
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


def best_baseline(scores: Sequence[Score]) -> str | None:
    """The classical method with the largest mean PSNR in the hole, or None if there is no such method."""
    rows = {method: of for method, of in _by_method(scores).items() if method in BASELINES}
    psnrs = {method: _summary(of)["hole_psnr"].mean for method, of in rows.items()}
    finite = {method: psnr for method, psnr in psnrs.items() if math.isfinite(psnr)}
    return max(finite, key=finite.get, default=None)


def best_median_worst(scores: Sequence[Score], each: int) -> list[tuple[str, Score]]:
    """The model's holes of highest, middle and lowest PSNR in the hole, up to `each` of every kind.

    Returns ("best" | "median" | "worst", score), from best to worst, none twice. The model is the last
    method. Holes whose PSNR is undefined are passed over.
    """
    model = scores[-1].method
    ranked = [row for row in scores if row.method == model and not math.isnan(row.metrics["hole_psnr"])]
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
    """Mean and standard error of ours - theirs, hole by hole, for every metric.

    images: the image of each row, see `utils.metrics.summarize`. Holes where a metric is infinite or undefined
    for either are left out of it and counted as excluded.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} images cannot be paired with {len(theirs)}")
    # The suffix keeps summarize from taking a difference of l2 for an l2 and giving the PSNR of its mean.
    suffix = "_difference"
    rows = [{f"{name}{suffix}": a[name] - b[name] for name in a} for a, b in zip(ours, theirs)]
    return {name[: -len(suffix)]: value for name, value in summarize(rows, images).items()}


def _by_method(scores: Sequence[Score]) -> dict[str, list[Score]]:
    by_method: dict[str, list[Score]] = {}
    for row in scores:
        by_method.setdefault(row.method, []).append(row)
    return by_method


def _summary(scores: Sequence[Score]) -> dict[str, Summary]:
    return summarize([row.metrics for row in scores], [row.image_index for row in scores])


def _against_error(metric: str, difference: Summary) -> str:
    """One difference in words: "PSNR +2.000, standard error 1.000 (+2.0 of them)"."""
    heading, decimals = COLUMNS[metric]
    mean, error = difference.mean, difference.standard_error
    text = f"{heading} {_number(mean, decimals, signed=True).strip()}"
    if not math.isnan(error):
        text += f", standard error {error:.{decimals}f}"
    return f"{text} ({mean / error:+.1f} of them)" if error > 0 else text


def _metric_table(
    summaries: Mapping[str, Mapping[str, Summary]], prefix: str, metrics: Sequence[str], signed: bool = False
) -> list[str]:
    """A row a method; below the methods, where TV has a ratio, the originals with their own TV."""
    rows = {name: [summary[prefix + metric] for metric in metrics] for name, summary in summaries.items()}
    if "tv_ratio" in metrics:
        own = {"tv": next(iter(summaries.values()))[f"{prefix}tv_original"]}
        rows["original"] = [own.get(metric, UNKNOWN) for metric in metrics]
    headings, decimals = zip(*(COLUMNS[metric] for metric in metrics))
    return _table(headings, rows, decimals, signed)


def _share_tables(by_method: Mapping[str, Sequence[Score]]) -> list[str]:
    """Means by the share of the image that is hole, in classes of 10 %; nothing where all are in one class."""
    counts = Counter(map(_share, next(iter(by_method.values()))))
    shares = sorted(counts)
    if len(shares) < 2:
        return []
    by_share = {
        method: [_summary([row for row in rows if _share(row) == share]) for share in shares]
        for method, rows in by_method.items()
    }
    headings = [f"{100 * share // SHARES}-{100 * (share + 1) // SHARES}%" for share in shares]
    holes = f"{'holes':{LABEL}}" + "".join(f"{counts[share]:>9}" for share in shares)
    lines = []
    for metric, words in BY_SHARE.items():
        decimals = COLUMNS[metric.replace("hole_", "")][1]
        rows = {method: [summary[metric] for summary in summaries] for method, summaries in by_share.items()}
        lines.append(f"Mean {words} by hole share (below it the standard error)")
        lines += [*_table(headings, rows, [decimals] * len(shares)), holes, ""]
    return lines


def _share(row: Score) -> int:
    """Class of the hole's share; its upper bound belongs to it: 10 % is in 0-10 %."""
    return max(math.ceil(row.hole_area * SHARES - 1e-9) - 1, 0)


def _table(
    headings: Sequence[str], rows: Mapping[str, Sequence[Summary]], decimals: Sequence[int], signed: bool = False
) -> list[str]:
    """Two lines a row: the means and, below, their standard errors."""
    lines = [" " * LABEL + "".join(f"{heading:>9}" for heading in headings)]
    for name, values in rows.items():
        means = "".join(_number(value.mean, digits, signed) for value, digits in zip(values, decimals))
        errors = "".join(_number(value.standard_error, digits) for value, digits in zip(values, decimals))
        lines += [f"{name:{LABEL}}{means}", (" " * LABEL + errors).rstrip()]
    return lines


def _number(value: float, decimals: int, signed: bool = False) -> str:
    text = "-" if math.isnan(value) else f"{value:{'+' if signed else ''}.{decimals}f}"
    return f"{text:>9}"
