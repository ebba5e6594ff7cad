"""The holes of training: inside the box, a function of the random numbers, with the distance for the discount."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data.masks import STYLES, TrainingHoles, box_distance, center_box, known_distance, random_box, shrink_box
from models.losses import discount_mask
from tests.data.test_loader import make, photos, take  # noqa: F401
from utils.cli import UserError


@pytest.fixture
def masks(tmp_path):
    """A small mark, one larger than the box, one at the corner."""
    folder = tmp_path / "masks"
    folder.mkdir()
    places = {"small": np.s_[40:45, 70:73], "large": np.s_[5:75, 10:90], "corner": np.s_[70:80, 90:100]}
    for name, place in places.items():
        mask = np.zeros((80, 100), np.uint8)
        mask[place] = 255
        cv2.imwrite(str(folder / f"{name}.png"), mask)
    return str(folder)


def drawn(kind, count=40, size=(64, 96), box=(32, 48), **options):
    holes = TrainingHoles(kind, size, box, **options)
    return [holes.draw(np.random.default_rng([3, i])) for i in range(count)]


@pytest.mark.parametrize("kind", ["box", "freeform", "mixed", "masks"])
def test_every_hole_lies_inside_its_box(kind, masks):
    for box, mask, distance in drawn(masks if kind == "masks" else kind):
        top, left, height, width = box
        assert (height, width) == (32, 48) == distance.shape and mask.shape == (64, 96)
        inside = mask[top : top + height, left : left + width]
        assert inside.any() and inside.sum() == mask.sum() and set(np.unique(mask)) <= {0, 1}


def test_the_same_numbers_the_same_holes(masks):
    for kind in ("freeform", "mixed", masks):
        for one, other in zip(drawn(kind, 10), drawn(kind, 10)):
            assert one[0] == other[0] and np.array_equal(one[1], other[1]) and np.array_equal(one[2], other[2])


def test_boxes_draw_what_they_always_drew():
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    holes = TrainingHoles("box", (64, 96), (32, 48), (2, 3), (8, 6))
    for _ in range(20):
        box, mask, _ = holes.draw(rng)
        assert box == random_box((64, 96), (32, 48), (2, 3), other)
        top, left, height, width = shrink_box(box, (8, 6), other)
        assert mask.sum() == height * width and mask[top : top + height, left : left + width].all()


@pytest.mark.parametrize("gamma", [0.99, 0.9, 1.0])
def test_the_discount_of_a_box_has_the_bits_of_the_papers(gamma):
    for size in ((16, 16), (128, 128), (17, 40)):
        found = np.float32(gamma ** box_distance(*size).astype(np.float64))
        assert np.array_equal(found, discount_mask(*size, gamma)[0, 0])


def test_distance_by_hand():
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    mask[4, 4] = 0  # a known pixel in the middle
    distance = known_distance(mask, (1, 1, 7, 7))
    root = np.sqrt(2)
    expected = [[0, 0, 0, 0, 0, 0, 0],
                [0, 1, 1, 1, 1, 1, 0],
                [0, 1, root, 1, root, 1, 0],
                [0, 1, 1, 0, 1, 1, 0],
                [0, 1, root, 1, root, 1, 0],
                [0, 1, 1, 1, 1, 1, 0],
                [0, 0, 0, 0, 0, 0, 0]]  # fmt: skip
    assert distance == pytest.approx(np.array(expected), abs=1e-6)


def test_mixed_is_half_boxes():
    boxes = sum(distance[0, 0] == 0 and distance.max() == 16 and mask.sum() == 32 * 48
                for _, mask, distance in drawn("mixed", 200))  # fmt: skip
    assert 70 <= boxes <= 130


def test_own_masks_are_placed_whole_or_cut(masks):
    areas = {int(mask.sum()) for _, mask, _ in drawn(masks, 60)}
    assert areas == {5 * 3, 10 * 10, 32 * 48}


def test_fixed_holes():
    center = np.zeros((64, 96))
    top, left, height, width = center_box((64, 96), (32, 48))
    center[top : top + height, left : left + width] = 1
    rng = np.random.default_rng
    assert np.array_equal(TrainingHoles("box", (64, 96), (32, 48)).fixed(2, rng(0)), [[center], [center]])
    mixed = TrainingHoles("mixed", (64, 96), (32, 48)).fixed(4, rng(0))
    assert [np.array_equal(mask[0], center) for mask in mixed] == [True, False, True, False]
    assert mixed.dtype == np.float32 and not mixed[:, 0][:, center == 0].any()
    assert TrainingHoles("freeform", (64, 96), (32, 48)).fixed(0, rng(0)).shape == (0, 1, 64, 96)


def test_masks_that_cannot_be_used(tmp_path, masks):
    (tmp_path / "masks" / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "masks" / "black.png"), np.zeros((20, 20), np.uint8))
    holes = TrainingHoles(masks, (64, 96), (32, 48))
    for i in range(60):
        holes.draw(np.random.default_rng(i))
    reasons = dict(holes.take_bad())
    assert sorted(path.rsplit("/", 1)[1] for path in reasons) == ["black.png", "broken.png"]
    assert "no pixel is white" in " ".join(reasons.values()) and holes.take_bad() == []
    folder = tmp_path / "black"
    folder.mkdir()
    cv2.imwrite(str(folder / "black.png"), np.zeros((20, 20), np.uint8))
    with pytest.raises(UserError, match="20 masks in a row of .*black.png: is a mask without a hole"):
        TrainingHoles(str(folder), (64, 96), (32, 48))
    with pytest.raises(UserError, match="does not exist"):
        TrainingHoles(str(tmp_path / "gone"), (64, 96), (32, 48))


def test_a_hole_never_covers_the_whole_image(tmp_path):
    cv2.imwrite(str(tmp_path / "white.png"), np.full((40, 40), 255, np.uint8))
    with pytest.raises(UserError, match="covers the whole image"):
        TrainingHoles(str(tmp_path), (32, 32), (32, 32))


@pytest.mark.parametrize("hole", ["freeform", "mixed", "masks"])
@pytest.mark.parametrize("same", [True, False])
def test_batches_do_not_depend_on_workers_or_the_start(photos, masks, hole, same):  # noqa: F811
    options = {"hole": masks if hole == "masks" else hole, "mask_batch_same": same}
    straight = take(5, photos, **options)
    for workers, start in ((2, 0), (0, 3), (2, 3)):
        for one, other in zip(straight[start:], take(5 - start, photos, num_workers=workers, start=start, **options)):
            assert all(np.array_equal(a, b) for a, b in zip(one, other))
    count = 1 if same else 4
    assert straight[0].mask.shape == (count, 1, 32, 32) and straight[0].distance.shape == (count, 1, 16, 16)
    assert len({batch.mask.tobytes() for batch in straight}) == 5


def test_ranks_share_the_holes_of_a_batch(photos):  # noqa: F811
    options = {"hole": "mixed", "mask_batch_same": False}
    whole = take(2, photos, **options)
    for rank in (0, 1):
        for one, part in zip(whole, take(2, photos, rank=rank, ranks=2, **options)):
            assert all(np.array_equal(a[2 * rank : 2 * rank + 2], b) for a, b in zip(one, part))


def test_every_style_is_drawn(monkeypatch):
    seen = set()
    import data.masks

    inner = data.masks.freeform_mask
    monkeypatch.setattr(data.masks, "freeform_mask", lambda name, *rest: seen.add(name) or inner(name, *rest))
    drawn("freeform", 30)
    assert seen == set(STYLES)
