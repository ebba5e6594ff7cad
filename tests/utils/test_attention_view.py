from __future__ import annotations

import numpy as np

from utils.attention_view import PANEL, RADIUS, Window, attention_view, legend_image, weights_view
from utils.visualization import offsets_to_color


def test_colours_fill_their_cells_and_are_cut_at_the_border() -> None:
    offsets = np.zeros((2, 34, 40), np.int64)
    offsets[0, 5, 7] = 3  # copied from below
    page = attention_view([Window((0, 0, 270, 315), (270, 315), offsets)], (270, 315))
    assert page.shape == (270, 315 + PANEL, 3)
    assert (page[40:48, 56:64] == (255, 0, 0)).all()
    page[40:48, 56:64] = 255
    assert (page[:, :315] == 255).all()


def test_small_images_are_enlarged_and_the_hole_is_outlined() -> None:
    hole = np.zeros((16, 64), bool)
    hole[4:8, 8:16] = True
    page = attention_view([Window((0, 0, 16, 64), (16, 64), np.zeros((2, 2, 8), np.int64))], (16, 64), hole)
    assert page.shape == (PANEL, 256 + PANEL, 3)
    black = (page[:64, :256] == 0).all(axis=2)
    rows, columns = np.nonzero(black)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 32, 63)
    assert not black[20:28, 40:60].any()


def test_the_legend_has_the_colours_of_the_image() -> None:
    """A place of the wheel has the colour of an offset that points there."""
    panel = legend_image(96)
    top, left = (PANEL - 2 * RADIUS - 1) // 2 - 10 + RADIUS, (PANEL - 2 * RADIUS - 1) // 2 + RADIUS
    assert panel[top, left].tolist() == [255, 255, 255]
    for row, column in ((40, 0), (-40, 0), (0, 40), (0, -40), (30, -25)):
        expected = offsets_to_color(np.array([[[row]], [[column]]]), max_radius=RADIUS)[0, 0]
        assert panel[top + row, left + column].tolist() == expected.tolist()


def test_a_place_is_brightest_where_most_came_from() -> None:
    image = np.full((200, 261, 3), 100, np.uint8)
    weights = np.zeros((25, 33))
    weights[3, 4], weights[10, 20] = 0.5, 0.125
    page = weights_view(image, weights, 8, (20, 30))[24:]
    assert page.shape == image.shape
    brightness = page.astype(int).sum(axis=2)
    assert np.unravel_index(brightness.argmax(), brightness.shape)[0] // 8 == 3
    assert (page[24:32, 32:40] == page[24, 32]).all()
    assert (page[0, 0] == 35).all()  # elsewhere the dimmed image
    assert 35 * 3 < brightness[84, 164] < brightness[28, 36]
    assert (page[160, 240:248] == (0, 255, 255)).all() and (page[164, 244] == 35).all()  # the frame


def test_a_place_without_any_weight() -> None:
    page = weights_view(np.full((8, 8, 3), 200, np.uint8), np.zeros((1, 1)), 8, (0, 0))
    assert page.shape == (24 + 256, 256, 3)
    assert (page[150, 100] == 70).all()


def test_windows_lie_where_they_are_and_share_one_scale() -> None:
    """The same move in the image has the same colour, at whatever size a window was worked at."""
    moved, still = np.zeros((2, 2, 2), np.int64), np.zeros((2, 4, 4), np.int64)
    moved[1, 0, 0], still[1, 1, 1] = 2, 1  # 2 cells of 8 pixels, and 1 of 16
    windows = [Window((0, 0, 16, 16), (16, 16), moved), Window((100, 200, 164, 264), (32, 32), still)]
    page = attention_view(windows, (300, 400))
    assert page.shape == (300, 400 + PANEL, 3)
    assert page[2, 2].tolist() == page[120, 220].tolist() != [255, 255, 255]
    assert (page[20:90, :400] == 255).all()
