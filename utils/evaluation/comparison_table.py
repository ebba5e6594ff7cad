"""Comparisons as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from utils.evaluation.comparison import METRICS, Estimate

HEADINGS = {"hole_psnr": ("PSNR, dB", 3), "hole_ssim": ("SSIM", 4), "hole_l1": ("l1", 5)}  # metric -> decimals
LINE = 118  # characters
NOTE = (
    "Evaluated is {evaluated} of every training. All figures are in the hole, the mean over photographs, each the "
    "mean of its holes and of all seeds. After the first ± stands the standard error over photographs; after the "
    "second, where a row has several seeds, that over the trainings of these seeds: with 3 seeds, a difference of "
    "less than 4.3 times the second is no evidence at the level of 5%. A difference is taken hole by hole, between "
    "trainings of one seed."
)


class Value(NamedTuple):
    """One method of a table."""

    name: str
    seeds: int  # trainings that it is the mean of; 0 for a method that is not trained
    estimates: dict[str, Estimate]  # by metric


class Difference(NamedTuple):
    """The full model less another method."""

    name: str
    seeds: int
    estimates: dict[str, Estimate]


class Table(NamedTuple):
    """One list of photographs by one protocol."""

    list_name: str
    protocol: str
    photographs: int
    holes: int
    values: list[Value]
    differences: list[Difference]


def tables_text(tables: Sequence[Table], full: str, commands: Sequence[str], evaluated: str) -> str:
    """Markdown: a section a table, then the commands of the trainings.

    full: what the differences start from; evaluated: which weights of a training.
    """
    lines = [textwrap.fill(NOTE.format(evaluated=evaluated), LINE), ""]
    for table in tables:
        counted = f"{table.photographs} photographs, {table.holes} holes"
        lines += [f"## {table.list_name}, {table.protocol}: {counted}", ""]
        lines += _rows("method", table.values, signed=False)
        lines += _rows(f"{full} less", table.differences, signed=True) if table.differences else []
    lines += ["## Trainings", "", "```", *commands, "```", ""]
    return "\n".join(lines)


def _rows(first: str, entries: Sequence[Value | Difference], signed: bool) -> list[str]:
    headings = [first, "seeds", *(HEADINGS[metric][0] for metric in METRICS)]
    lines = [f"| {' | '.join(headings)} |", f"|---|---:{'|---:' * len(METRICS)}|"]
    for entry in entries:
        cells = [_cell(entry.estimates[metric], HEADINGS[metric][1], signed) for metric in METRICS]
        lines.append(f"| {' | '.join([entry.name, str(entry.seeds or ''), *cells])} |")
    return [*lines, ""]


def _cell(value: Estimate, decimals: int, signed: bool) -> str:
    errors = "".join(f" ± {error:.{decimals}f}" for error in value[1:] if not math.isnan(error))
    return f"{value.mean:{'+' if signed else ''}.{decimals}f}{errors}"


def tables_csv(tables: Sequence[Table]) -> str:
    """One line a method (or difference) and metric, figures with all their digits; an unknown error is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    where = ("list", "protocol", "photographs", "holes")
    writer.writerow([*where, "figure", "method", "seeds", "metric", *Estimate._fields])
    for table in tables:
        for entry in (*table.values, *table.differences):
            figure = "difference" if isinstance(entry, Difference) else "value"
            for metric in METRICS:
                numbers = ["" if math.isnan(number) else repr(number) for number in entry.estimates[metric]]
                writer.writerow([*table[:4], figure, entry.name, entry.seeds, metric, *numbers])
    return text.getvalue()
