"""Several evaluations of one protocol, set side by side: over photographs, over the seeds of trainings, in pairs.

A measured run is a dict from a hole to its figures, the figures a dict by metric, see `read_measured`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from utils.cli import UserError
from utils.metrics import summarize

METRICS = ("hole_psnr", "hole_ssim", "hole_l1")  # what is compared

Hole = tuple[int, int, str]  # place of the photograph in its list, number of the hole, and which hole it is
Measured = dict[Hole, dict[str, float]]


class ComparisonError(UserError):
    """Results cannot be read or do not go together; the message names the file."""


class Estimate(NamedTuple):
    """A mean, and how far it may be off; nan where there is one photograph or one seed alone."""

    mean: float
    over_photographs: float  # standard error over photographs, each the mean of its holes and of all seeds
    over_seeds: float  # standard error over seeds, each the mean of all photographs


def read_measured(path: str) -> dict[str, Measured]:
    """The measured runs of a test.csv by method, in its order. Raises ComparisonError."""
    methods: dict[str, Measured] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                hole = int(row["index"]), int(row["hole_number"]), row["hole"]
                methods.setdefault(row["method"], {})[hole] = {name: float(row[name]) for name in METRICS}
    except OSError as error:
        raise ComparisonError(f"{path}: cannot be read: {error.strerror}") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise ComparisonError(f"{path}: is not a test.csv as test.py writes it") from None
    if not methods:
        raise ComparisonError(f"{path}: holds no measurement")
    return methods


def check_same_holes(runs: Mapping[str, Measured]) -> None:
    """ComparisonError, naming the run, unless all of them (by name) are of the same holes."""
    (first, expected), *others = runs.items()
    for name, measured in others:
        if measured.keys() != expected.keys():
            raise ComparisonError(f"{name} was not evaluated on the holes of {first}: evaluate both anew")


def estimate(runs: Sequence[Measured]) -> dict[str, Estimate]:
    """Every metric of one method over its runs, which are of the same holes and differ in the seed."""
    holes = list(runs[0])
    photographs = [index for index, _, _ in holes]
    averaged = [{name: float(np.mean([run[hole][name] for run in runs])) for name in METRICS} for hole in holes]
    together = summarize(averaged, photographs)
    single = [summarize([run[hole] for hole in holes], photographs) for run in runs]
    return {
        name: Estimate(
            together[name].mean, together[name].standard_error, _standard_error([one[name].mean for one in single])
        )
        for name in METRICS
    }


def estimate_difference(ours: Sequence[Measured], theirs: Sequence[Measured]) -> dict[str, Estimate]:
    """The same of ours less theirs, hole by hole and run by run: run k of one belongs to run k of the other."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} runs cannot be paired with {len(theirs)}")
    return estimate(
        [
            {hole: {name: our[hole][name] - their[hole][name] for name in METRICS} for hole in our}
            for our, their in zip(ours, theirs)
        ]
    )


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
