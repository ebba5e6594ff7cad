from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.cli import UserError
from utils.visualization import color_wheel, image_grid, offsets_to_color, to_uint8, write_image


def test_wheel_runs_through_six_pure_hues() -> None:
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    starts = np.cumsum([0, 15, 6, 4, 11, 13])
    red, yellow, green = [255, 0, 0], [255, 255, 0], [0, 255, 0]
    cyan, blue, magenta = [0, 255, 255], [0, 0, 255], [255, 0, 255]
    np.testing.assert_array_equal(wheel[starts], [red, yellow, green, cyan, blue, magenta])
    np.testing.assert_array_equal(wheel[1], [255, 17, 0])  # 255 / 15 = 17
    np.testing.assert_array_equal(wheel[16], [213, 255, 0])  # 255 - floor(255 / 6) = 255 - 42


def test_colors_of_hand_computed_offsets() -> None:
    """One row of four patches; the longest offset is 4."""
    offsets = np.array([[[0, -4, 4, -2]], [[0, 0, 0, 0]]])
    colors = offsets_to_color(offsets)
    # up: atan2(-0.0, 4) is -0.0: place 27, two steps from cyan to blue, green 255 - floor(255 * 2 / 11)
    assert colors.dtype == np.uint8
    assert colors.shape == (1, 4, 3)
    np.testing.assert_array_equal(colors[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(colors[0, 1], [0, 209, 255])
    # down: atan2(-0.0, -4) is -pi, place 0: red
    np.testing.assert_array_equal(colors[0, 2], [255, 0, 0])
    # up by half the radius: half way from white, 255 - 0.5 * (255 - c), rounded down
    np.testing.assert_array_equal(colors[0, 3], [127, 232, 255])


def test_no_movement_is_white_and_beyond_the_radius_is_dark() -> None:
    np.testing.assert_array_equal(offsets_to_color(np.zeros((2, 3, 5), np.int64)), np.full((3, 5, 3), 255))
    beyond = offsets_to_color(np.array([[[4]], [[0]]]), max_radius=2)
    assert beyond[0, 0].tolist() == [191, 0, 0]  # 0.75 * 255


def test_offsets_of_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"offsets must be \[2, h, w\], got \[3, 4, 4\]"):
        offsets_to_color(np.zeros((3, 4, 4), np.int64))


def test_colors_equal_the_recorded_ones(golden: Path) -> None:
    """TF1 scales by the longest offset of the samples so far, so the radius is passed here."""
    recorded = np.load(golden / "tf1_contextual_attention.npz")
    cases = {name.split("/")[0] for name in recorded.files}
    assert len(cases) == 12
    for case in cases:
        offsets, flow = recorded[f"{case}/offsets_rel"], recorded[f"{case}/flow"]
        lengths = np.hypot(offsets[:, 0], offsets[:, 1]).max(axis=(1, 2))
        for i in range(len(offsets)):
            ours = offsets_to_color(offsets[i], max_radius=lengths[: i + 1].max())
            ours = ours.repeat(2, axis=0).repeat(2, axis=1).transpose(2, 0, 1) / 127.5 - 1
            np.testing.assert_allclose(ours, flow[i], atol=1e-6, err_msg=f"{case}, sample {i}")


def test_every_level_survives_the_way_through_floats() -> None:
    levels = np.arange(256, dtype=np.uint8)
    floats = levels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(to_uint8(floats), levels)


def test_to_uint8_clips_and_rounds() -> None:
    values = np.array([[-7.0, -1.0, 0.5 / 127.5 - 1.001, 0.6 / 127.5 - 1, 1.0, 3.0]], np.float32)
    np.testing.assert_array_equal(to_uint8(values), [[0, 0, 0, 1, 255, 255]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_to_uint8_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(np.array([0.0, value], np.float32))


def test_grid_places_and_enlarges() -> None:
    red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    small = np.zeros((8, 8, 3), np.uint8)
    small[0, 0] = (0, 255, 0)
    grid = image_grid([[red, small], [red]])
    assert grid.shape == (2 * 128 + 4, 2 * 128 + 4, 3)
    np.testing.assert_array_equal(grid[:128, :128], np.broadcast_to([255, 0, 0], (128, 128, 3)))
    np.testing.assert_array_equal(grid[:16, 132:148], np.broadcast_to([0, 255, 0], (16, 16, 3)))
    assert grid[16:128, 148:].max() == 0
    assert grid[128:132].min() == 255  # the gap
    assert grid[132:, 132:].min() == 255  # a shorter row leaves white
    np.testing.assert_array_equal(grid[132:, :128], grid[:128, :128])


def test_grid_headings_stand_above_their_columns() -> None:
    black = np.zeros((128, 128, 3), np.uint8)
    grid = image_grid([[black, black]], labels=["", "truth"])
    assert grid.shape == (20 + 128, 2 * 128 + 4, 3)
    assert grid[:20, :132].min() == 255
    assert grid[:20, 132:].min() < 128
    assert grid[20:, :128].max() == 0


def test_wide_images_are_not_enlarged() -> None:
    assert image_grid([[np.zeros((100, 130, 3), np.uint8)]]).shape == (100, 130, 3)


def test_grid_errors() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        image_grid([[]])
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], got float32 \[4, 4, 3\]"):
        image_grid([[np.zeros((4, 4, 3), np.float32)]])


def test_written_image_is_rgb(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    path = tmp_path / "bild ä.png"
    write_image(path, image)
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], image)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/a.png", "No such file or directory"),
        ("folder.png", "Is a directory"),
        ("a.txt", "give it a suffix that names an image format"),
        ("plain", "give it a suffix that names an image format"),
    ],
)
def test_write_errors_name_the_file_and_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=reason) as caught:
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert str(caught.value).startswith(f"cannot write {tmp_path / name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_full_disk(tmp_path: Path) -> None:
    (tmp_path / "full.png").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left"):
        write_image(tmp_path / "full.png", np.zeros((4, 4, 3), np.uint8))
