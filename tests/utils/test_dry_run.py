"""The lines of a dry run, with values worked out by hand, and its picture."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from utils.cli import UserError
from utils.dry_run import (
    layer_table,
    measured_line,
    size,
    untrained_lines,
    work_lines,
    write_batch_image,
)


def test_table():
    layers = [
        SimpleNamespace(name="conv1", shape=(8, 64, 96), parameters=1008, operations=49_152_000.0),
        SimpleNamespace(name="linear", shape=(1,), parameters=513, operations=1024.0),
    ]
    assert layer_table("critic", layers) == [
        "critic, layer        output  parameters      MFLOP",
        "  conv1             8x64x96       1,008       49.2",
        "  linear                  1         513        0.0",
        "  together                        1,521       49.2",
    ]
    layers[0].name = "dis_conv_module.conv1"
    assert layer_table("critic", layers[:1]) == [
        "critic, layer                  output  parameters      MFLOP",
        "  dis_conv_module.conv1       8x64x96       1,008       49.2",
        "  together                                  1,008       49.2",
    ]


def test_work():
    parts = {"critics": 2e9, "generator": 3.5e9, "iteration": 13.5e9}
    cost = SimpleNamespace(parameters=2**20, operations=parts, kept={"critics": 2**20, "generator": 2**28})
    assert work_lines(cost, 8, 5) == [
        "an iteration, batches of 8: 108.0 GFLOP: "
        "5 critic updates of 16.0 + a generator update of 28.0",
        "estimated memory: 2.02 GiB = 16.0 MiB (weights, gradients, Adam's moments) + 2.00 GiB (activations of 8 "
        "images), without convolution workspace",
    ]
    cost.operations = {"critics": 0.0, "generator": 3e9, "iteration": 3e9}
    assert work_lines(cost, 2, 5)[0] == (
        "an iteration, batches of 2: 6.0 GFLOP: a generator update without critics"
    )


def test_untrained():
    layers = [SimpleNamespace(name=name, taps_outside=taps) for name, taps in (("a", 0), ("b", 6), ("c", 8))]
    assert untrained_lines(layers[:1]) == []
    (line,) = untrained_lines(layers)
    assert line.startswith("crops too small for b, c: up to 8 of 9 kernel taps only ever see padding")


def test_measured():
    assert measured_line(1536.0) == "measured memory: 1.50 GiB at the peak, beyond what Paddle took before"
    assert measured_line(None) == "measured memory: not on this system"
    assert [size(n) for n in (0, 2**29, 2**30)] == ["0.0 MiB", "512.0 MiB", "1.00 GiB"]


def test_picture(tmp_path):
    images = np.full((3, 3, 128, 128), 1.0, np.float32)
    boxes = np.full((3, 3, 64, 64), -1.0, np.float32)
    path = str(tmp_path / "batch.png")
    write_batch_image(path, images, 0 * images, boxes, most=2)
    picture = cv2.imread(path)
    assert picture.shape == (20 + 128 + 4 + 128, 128 * 3 + 4 * 2, 3)  # a heading and two of the three
    assert [int(picture[100, x, 0]) for x in (64, 64 + 132, 64 + 264)] == [255, 128, 0]
    with pytest.raises(UserError, match="cannot write .*batch: give it a suffix"):
        write_batch_image(str(tmp_path / "batch"), images, images, boxes, most=2)
