"""The way of an evaluation: samples -> completed by every method -> figures and sheets.

A sample is a `data.samples.Sample`: index, name, number, truth, hole; a tester a `tester.Tester`.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from utils.evaluation.baselines import BASELINES
from utils.evaluation.contact_sheet import contact_sheet
from utils.evaluation.report import Measurement, best_baseline
from utils.metrics import image_metrics
from utils.visualization import write_image

SAVED = ("images", "originals", "masks")  # folders of saved pictures


class Picture(NamedTuple):
    """What a sheet shows of a sample."""

    sample: Any
    shown: np.ndarray  # uint8 [H, W, 3], what the model sees
    results: dict[str, np.ndarray]  # by method


def in_batches(samples: Iterable[Any], size: int) -> Iterator[list]:
    samples = iter(samples)
    while batch := list(itertools.islice(samples, size)):
        yield batch


def completions(
    tester: Any, samples: Iterable[Any], batch_size: int, baselines: bool
) -> Iterator[Callable[[], Picture]]:
    """For every sample what remains to be done after the model: the classical methods, if any."""
    for batch in in_batches(samples, batch_size):
        truths = np.stack([sample.truth for sample in batch])
        masks = np.stack([sample.hole.mask for sample in batch])
        coarse, completed, _ = tester.complete(truths, masks)
        shown = tester.shown(truths, masks)
        for i, sample in enumerate(batch):
            own = {"model": completed[i]}
            if baselines and not tester.model.coarse_only:
                own = {"coarse": coarse[i], **own}
            yield functools.partial(fill_and_show, sample, shown[i], own, baselines)


def fill_and_show(
    sample: Any, shown: np.ndarray, own: dict[str, np.ndarray], baselines: bool
) -> Picture:
    """The sample completed by all methods; the model comes last."""
    classical = BASELINES if baselines else {}
    results = {name: fill(sample.truth, sample.hole.mask) for name, fill in classical.items()}
    return Picture(sample, shown, {**results, **own})


def measure(complete: Callable[[], Picture]) -> tuple[Picture, list[Measurement]]:
    picture = complete()
    sample = picture.sample
    area = float(sample.hole.mask.mean())
    where = sample.index, sample.name, sample.number, sample.hole.name, area
    return picture, [
        Measurement(*where, method, image_metrics(result, sample.truth, sample.hole.mask))
        for method, result in picture.results.items()
    ]


def save_images(folder: str, picture: Picture, holes_per_image: int) -> None:
    """The completed photograph, the original and the mask (white is the hole), each as a PNG."""
    sample = picture.sample
    stem = os.path.splitext(os.path.basename(sample.name))[0][:50]  # file systems allow 255 bytes in all
    number = f"_{sample.number}" if holes_per_image > 1 else ""
    name = f"{sample.index:06d}_{stem}{number}.png"
    mask = np.repeat(sample.hole.mask[..., None] * np.uint8(255), 3, axis=2)
    images = picture.results["model"], sample.truth, mask
    for subfolder, image in zip(SAVED, images):
        write_image(os.path.join(folder, subfolder, name), image)


def draw_sheet(
    pictures: list[Picture], measurements: list[Measurement], kinds: list[str], blocks: int
) -> np.ndarray:
    """A row a picture: figures, what the model sees, the best baseline, the model's result, the original."""
    psnrs = {(row.index, row.hole_number, row.method): row.metrics["hole_psnr"] for row in measurements}
    best = best_baseline(measurements)
    rows, captions = [], []
    for (sample, shown, results), kind in zip(pictures, kinds):
        columns = {"input": shown, best: results.get(best), "completed": results["model"]}
        rows.append({**{label: image for label, image in columns.items() if label}, "original": sample.truth})
        methods = [method for method in (best, "model") if method]
        captions.append(
            [kind or f"{sample.index}", os.path.basename(sample.name)[:18], "PSNR in the hole"]
            + [f"{psnrs[sample.index, sample.number, method]:.2f} {method}" for method in methods]
        )
    return contact_sheet(rows, captions, blocks)
