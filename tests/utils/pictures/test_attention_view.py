from __future__ import annotations

import numpy as np

from utils.pictures.attention_view import PANEL, RADIUS, attention_picture, legend_picture, probe_picture
from utils.visualization import offsets_to_color


def test_colours_fill_their_cells_and_are_cut_at_the_border() -> None:
    offsets = np.zeros((2, 34, 40), np.int64)
    offsets[0, 5, 7] = 3  # copied from below
    page = attention_picture(offsets, (270, 315), 8, None)
    assert page.shape == (270, 315 + PANEL, 3)
    assert (page[40:48, 56:64] == (255, 0, 0)).all()
    page[40:48, 56:64] = 255
    assert (page[:, :315] == 255).all()


def test_small_pictures_are_enlarged_and_the_hole_is_outlined() -> None:
    hole = np.zeros((16, 64), bool)
    hole[4:8, 8:16] = True
    page = attention_picture(np.zeros((2, 2, 8), np.int64), (16, 64), 8, hole)
    assert page.shape == (PANEL, 256 + PANEL, 3)
    black = (page[:64, :256] == 0).all(axis=2)
    rows, columns = np.nonzero(black)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 32, 63)
    assert not black[20:28, 40:60].any()


def test_the_legend_has_the_colours_of_the_picture() -> None:
    """A place of the wheel has the colour of an offset that points there."""
    panel = legend_picture(96)
    top, left = (PANEL - 2 * RADIUS - 1) // 2 - 10 + RADIUS, (PANEL - 2 * RADIUS - 1) // 2 + RADIUS
    assert panel[top, left].tolist() == [255, 255, 255]
    for row, column in ((40, 0), (-40, 0), (0, 40), (0, -40), (30, -25)):
        expected = offsets_to_color(np.array([[[row]], [[column]]]), max_radius=RADIUS)[0, 0]
        assert panel[top + row, left + column].tolist() == expected.tolist()


def test_a_probe_is_brightest_where_most_came_from() -> None:
    image = np.full((200, 261, 3), 100, np.uint8)
    weights = np.zeros((25, 33))
    weights[3, 4], weights[10, 20] = 0.5, 0.125
    page = probe_picture(image, weights, 8, (20, 30))[24:]
    assert page.shape == image.shape
    brightness = page.astype(int).sum(axis=2)
    assert np.unravel_index(brightness.argmax(), brightness.shape)[0] // 8 == 3
    assert (page[24:32, 32:40] == page[24, 32]).all()
    assert (page[0, 0] == 35).all()  # elsewhere the dimmed picture
    assert 35 * 3 < brightness[84, 164] < brightness[28, 36]
    assert (page[160, 240:248] == (0, 255, 255)).all() and (page[164, 244] == 35).all()  # the frame


def test_a_probe_without_any_weight() -> None:
    page = probe_picture(np.full((8, 8, 3), 200, np.uint8), np.zeros((1, 1)), 8, (0, 0))
    assert page.shape == (24 + 256, 256, 3)
    assert (page[150, 100] == 70).all()
