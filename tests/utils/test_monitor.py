"""What a run shows on its way: grids of fixed images, measurements, the report of a value not finite."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from utils.cli import UserError
from utils.logger import parse_line
from utils.monitor import Board, NullLog, Previews, Validation, report_not_finite


class Painter:
    """Inpaints with the image itself."""

    def inpaint(self, image, mask):
        assert image.shape == (1, 3, 16, 24) and mask.shape == (1, 1, 16, 24)
        assert -1 <= image.min() <= image.max() <= 1
        return image * (1 - mask), image * 0, image, np.zeros((1, 2, 2, 3), np.int64)


def test_a_grid_has_a_row_an_image(tmp_path):
    folder = str(tmp_path / "run" / "previews")
    images = [np.full((16, 24, 3), level, np.uint8) for level in (0, 255)]
    Previews(folder, images, np.zeros((2, 1, 16, 24), np.float32)).write(Painter(), 30)
    assert os.listdir(folder) == ["preview_00000030.png"]
    grid = cv2.imread(os.path.join(folder, "preview_00000030.png"))
    assert grid.shape[0] >= 2 * 16 and grid.shape[1] >= 5 * 24


def test_without_images_nothing_is_written(tmp_path):
    Previews(str(tmp_path), [], None).write(Painter(), 1)
    assert os.listdir(tmp_path) == []


class Shifter:
    """Inpaints with the image and some levels more, which known pixels must not show."""

    def __init__(self, levels):
        self.levels = levels

    def inpaint(self, image, mask):
        return None, None, np.clip(image + self.levels / 127.5, -1, 1), None


def scene():
    rng = np.random.default_rng(0)
    images = [rng.integers(20, 200, (16, 24, 3)).astype(np.uint8) for _ in range(2)]
    masks = np.zeros((2, 1, 16, 24), np.float32)
    masks[:, :, 4:12, 6:18] = 1
    return images, masks


def test_measurements_by_hand_and_the_best(tmp_path):
    path = str(tmp_path / "metrics.csv")
    validation = Validation(path, *scene(), best="psnr")
    values, line, best = validation.measure(Shifter(5), 10, 40)
    share = 8 * 12 / (16 * 24)
    assert values["l1"] == pytest.approx(5 / 255 * share, rel=1e-6)
    assert values["psnr"] == pytest.approx(10 * np.log10(255**2 / (25 * share)), rel=1e-6)
    assert 0.9 < values["ssim"] < 1 and values["tv_ratio"] == pytest.approx(1, abs=0.05)
    assert best and line == (f"Val: [10/40] psnr: {values['psnr']:.5g} ssim: {values['ssim']:.5g} "
                             f"l1: {values['l1']:.5g} tv_ratio: {values['tv_ratio']:.5g} best psnr")  # fmt: skip
    assert parse_line(line) is None
    assert [validation.measure(Shifter(levels), 20, 40)[2] for levels in (9, 4, 4)] == [False, True, False]
    rows = Path(path).read_text().splitlines()
    assert rows[0] == "iteration,psnr,ssim,l1,tv_ratio"
    assert [row.split(",")[0] for row in rows[1:]] == ["10", "20", "20", "20"]


@pytest.mark.parametrize("best", ["psnr", "ssim", "l1", "tv_ratio"])
def test_every_metric_can_choose(tmp_path, best):
    validation = Validation(str(tmp_path / "metrics.csv"), *scene(), best=best)
    found = [validation.measure(Shifter(levels), 10, 40)[2] for levels in (60, 30, 90)]
    assert found == [True, True, False]


def test_rows_of_iterations_that_come_again_are_dropped(tmp_path):
    path = str(tmp_path / "metrics.csv")
    validation = Validation(path, *scene(), best="psnr")
    for iteration, levels in ((10, 9), (20, 8), (30, 1)):
        validation.measure(Shifter(levels), iteration, 40)
    straight = Path(path).read_text()
    resumed = Validation(path, *scene(), best="psnr", resumed_at=20)
    assert [row["iteration"] for row in resumed.rows] == [10, 20]
    assert resumed.measure(Shifter(1), 30, 40)[2] and Path(path).read_text() == straight
    Path(path).write_text("iteration,psnr\n1,2\n")
    with pytest.raises(UserError, match=r"metrics.csv: cannot be read as a run's metrics .*: move it away"):
        Validation(path, *scene(), best="psnr")
    with pytest.raises(UserError, match="none of the images of val_data_path can be read"):
        Validation(path, [], np.zeros((0, 1, 16, 24), np.float32), best="psnr")


def test_board(tmp_path, monkeypatch):
    """A writer of VisualDL's form; its absence is an error only where it is asked for."""
    seen = []

    class LogWriter:
        def __init__(self, logdir):
            seen.append(logdir)

        def add_scalar(self, tag, value, step):
            seen.append((tag, value, step))

        def add_image(self, tag, img, step):
            seen.append((tag, img.shape, step))

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(sys.modules, "visualdl", SimpleNamespace(LogWriter=LogWriter))
    with Board("folder") as board:
        board.scalars(3, {"l1": 0.5, "g": float("nan")})
        board.image(3, np.zeros((4, 5, 3), np.uint8))
    assert seen == ["folder", ("l1", 0.5, 3), ("preview", (4, 5, 3), 3), "closed"]
    monkeypatch.setitem(sys.modules, "visualdl", None)
    with pytest.raises(UserError, match="visualdl: true needs VisualDL: pip install visualdl"):
        Board("folder")
    with Board(None) as board:
        board.scalars(1, {"l1": 0.5})
        board.image(1, None)


def test_report(tmp_path):
    batches = SimpleNamespace(position=42, source_paths=lambda batch: ["a.png", "/b\udcff.png"][: 2 if batch else 0])
    path = str(tmp_path / "not_finite_00000007.txt")
    found = report_not_finite(str(tmp_path), 7, "iteration 7: g nan", {"l1": 0.5, "g": 2.0}, batches, "c.npz")
    assert found == (
        "iteration 7: g nan; the iteration before: l1 0.5, g 2; the batch's images are listed in "
        f"{path}; the last checkpoint is c.npz"
    )
    lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    assert lines == ["# iteration 7: g nan", "# the iteration before: l1 0.5, g 2",
                     "# images of batch 41, in its order", os.path.abspath("a.png"), "/b\udcff.png"]  # fmt: skip
    found = report_not_finite(str(tmp_path), 1, "iteration 1: g nan", {}, batches, None)
    assert "; the iteration before: none; " in found and found.endswith("; there is no checkpoint yet")


def test_null_log(capsys):
    log = NullLog()
    for line in ("Iter: [1/2] l1: 0.5", "Val: [1/2] psnr: 9", "a bad file"):
        log.write(line)
    assert capsys.readouterr() == ("", "a bad file\n")
