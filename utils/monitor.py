"""What a training run shows on its way: previews, validation, VisualDL, and the report of a value not finite."""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from utils.cli import UserError, one_line
from utils.logger import show
from utils.metrics import image_metrics, summarize
from utils.text_files import write_text
from utils.visualization import image_grid, offsets_to_color, to_uint8, write_image


class NullLog:
    """The log of a rank that writes none; warnings about its own files go to its standard error."""

    def write(self, line: str) -> None:
        if not line.startswith(("Iter:", "Val:")):
            show(line, sys.stderr)


class Previews:
    """Writes grids with a row an image: input, coarse, inpainted, original, attention.

    folder: where they go; made if it is missing. images: uint8 [H,W,3] RGB each; masks: float32 [n,1,H,W],
    1 = hole; with no images nothing is written.
    """

    def __init__(self, folder: str, images: Sequence[np.ndarray], masks: np.ndarray | None) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder, self.images, self.masks = folder, images, masks

    def write(self, trainer: Any, iteration: int) -> np.ndarray | None:
        """The grid, which is in the file then. trainer: a `trainer.Trainer`, or has its `inpaint()`."""
        rows = []
        for i, original in enumerate(self.images):
            image = np.float32(original.transpose(2, 0, 1)[None]) / 127.5 - 1
            masked, coarse, inpainted, offsets = trainer.inpaint(image, self.masks[i : i + 1])
            row = [to_uint8(x[0].transpose(1, 2, 0)) for x in (masked, coarse, inpainted)] + [original]
            if offsets is not None:
                row.append(np.kron(offsets_to_color(offsets[0]), np.ones((8, 8, 1), np.uint8)))
            rows.append(row)
        if not rows:
            return None
        grid = image_grid(rows, ("input", "coarse", "inpainted", "original", "attention")[: len(rows[0])])
        write_image(os.path.join(self.folder, f"preview_{iteration:08d}.png"), grid)
        return grid


class Validation:
    """PSNR, SSIM, L1 and total variation of fixed images with fixed holes during a run, in `metrics.csv`.

    path: the file, a row a measurement; rows later than `resumed_at`, which come again, are dropped. images: uint8
    [H,W,3] RGB each; masks: float32 [n,1,H,W], 1 = hole. best: the metric by which a checkpoint is the best so far.
    """

    COLUMNS = ("psnr", "ssim", "l1", "tv_ratio")

    def __init__(
        self, path: str, images: Sequence[np.ndarray], masks: np.ndarray, best: str, resumed_at: int = 0
    ) -> None:
        if not len(images):
            raise UserError("val_iter: none of the images of val_data_path can be read")
        self.path, self.images, self.masks, self.best = path, images, masks, best
        self.rows = [row for row in _read_metrics(path, self.COLUMNS) if row["iteration"] <= resumed_at]
        originals = [image_metrics(x, x, mask[0])["hole_tv"] for x, mask in zip(images, masks)]
        self._original_tv = float(np.mean(originals))

    def measure(self, trainer: Any, iteration: int, total: int) -> tuple[dict[str, float], str, bool]:
        """(values by name, the log's line, whether they are the best so far); the row is in the file then.

        trainer: a `trainer.Trainer`, or has its `inpaint()`; nothing of its training changes. Every value is of uint8
        images, as test.py's: psnr in dB, ssim and l1 in [0, 1] of the whole image; tv_ratio is the total variation in
        the hole as a share of the original's there.
        """
        found = []
        for original, mask in zip(self.images, self.masks):
            image = np.float32(original.transpose(2, 0, 1)[None]) / 127.5 - 1
            inpainted = to_uint8(trainer.inpaint(image, mask[None])[2][0].transpose(1, 2, 0))
            found.append(image_metrics(np.where(mask[0][..., None] > 0, inpainted, original), original, mask[0]))
        means = {name: summary.mean for name, summary in summarize(found).items()}
        values = {name: means[name] for name in ("psnr", "ssim", "l1")}
        values["tv_ratio"] = means["hole_tv"] / self._original_tv if self._original_tv > 0 else math.nan
        row = {"iteration": iteration, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        best = all(_goodness(self.best, row) > _goodness(self.best, other) for other in self.rows)
        self.rows.append(row)
        lines = [",".join(str(row[name]) for name in ("iteration", *self.COLUMNS)) for row in self.rows]
        write_text(self.path, "\n".join([",".join(("iteration", *self.COLUMNS)), *lines, ""]))
        figures = " ".join(f"{name}: {value:.5g}" for name, value in values.items())
        return values, f"Val: [{iteration}/{total}] {figures}{' best ' + self.best if best else ''}", best


def _goodness(metric: str, row: Mapping[str, float]) -> float:
    """Larger is better; a value that is not finite is never the best."""
    value = {"l1": -row["l1"], "tv_ratio": -abs(row["tv_ratio"] - 1)}.get(metric, row[metric])
    return -math.inf if math.isnan(value) else value


def _read_metrics(path: str, columns: Sequence[str]) -> list[dict[str, float]]:
    """The rows of an earlier part of the run; none where there is no such file."""
    if not os.path.isfile(path):
        return []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{"iteration": int(row["iteration"]), **{name: float(row[name]) for name in columns}} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a run's metrics ({one_line(error)}): move it away") from None


class Board:
    """Scalars and previews for VisualDL in a folder; with None it does nothing. Raises UserError if not installed."""

    def __init__(self, folder: str | None) -> None:
        self._writer = None
        if folder is not None:
            try:
                from visualdl import LogWriter
            except ImportError:
                raise UserError("visualdl: true needs VisualDL: pip install visualdl, or set it to false") from None
            self._writer = LogWriter(logdir=folder)

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if self._writer is not None and math.isfinite(value):
                self._writer.add_scalar(tag=name, value=value, step=iteration)

    def image(self, iteration: int, image: np.ndarray | None) -> None:
        """image: uint8 [H,W,3] RGB."""
        if self._writer is not None and image is not None:
            self._writer.add_image(tag="preview", img=image, step=iteration)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def report_not_finite(
    folder: str, iteration: int, text: str, before: Mapping[str, float], batches: Any, saved: str | None
) -> str:
    """The whole message of an iteration that went wrong; lists the batch's images in a file of the run's folder.

    text: what went wrong; before: the scalars of the iteration before; batches: a `data.loader.TrainLoader`; saved:
    the last checkpoint, if any.
    """
    path, batch = os.path.join(folder, f"not_finite_{iteration:08d}.txt"), batches.position - 1
    last = ", ".join(f"{name} {value:g}" for name, value in before.items()) or "none"
    lines = [f"# {text}", f"# the iteration before: {last}", f"# images of batch {batch}, in its order"]
    listing = "\n".join([*lines, *(os.path.abspath(image) for image in batches.source_paths(batch)), ""])
    write_text(path, listing, errors="surrogateescape")  # a list that can be used as it is
    kept = f"the last checkpoint is {saved}" if saved else "there is no checkpoint yet"
    return f"{text}; the iteration before: {last}; the batch's images are listed in {path}; {kept}"
