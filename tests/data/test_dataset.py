from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from data.dataset import PhotoDataset, center_crop
from data.image_io import read_rgb
from utils.cli import UserError


def write(folder, name, image):
    path = str(folder / name)
    assert cv2.imwrite(path, image[..., ::-1])
    return path


@pytest.fixture
def photos(tmp_path):
    """Seven PNGs of different sizes and noise, all at least 20x20."""
    rng = np.random.default_rng(0)
    sizes = [(20, 20), (20, 31), (25, 20), (40, 40), (33, 21), (22, 50), (64, 48)]
    return [
        write(tmp_path, f"{number}.png", rng.integers(0, 256, (*size, 3)).astype(np.uint8))
        for number, size in enumerate(sizes)
    ]


def source_of(sample, images):
    """Which image a window comes from, and from where: its only place in all of them."""
    places = [
        (number, top, left)
        for number, image in enumerate(images)
        for top in range(image.shape[0] - sample.shape[0] + 1)
        for left in range(image.shape[1] - sample.shape[1] + 1)
        if np.array_equal(image[top : top + sample.shape[0], left : left + sample.shape[1]], sample)
    ]
    assert len(places) == 1
    return places[0]


def samples_of(dataset, count):
    return [dataset.load(number)[0] for number in range(count)]


def test_a_crop_is_a_window_of_the_image_and_an_epoch_visits_each_once(photos):
    images = [read_rgb(path) for path in photos]
    dataset = PhotoDataset(photos, (20, 20), seed=3)
    assert len(dataset) == 7
    epochs = []
    for epoch in range(3):
        found = [dataset.load(number) for number in range(7 * epoch, 7 * epoch + 7)]
        for sample, bad in found:
            assert sample.shape == (20, 20, 3) and sample.dtype == np.uint8 and sample.flags.c_contiguous
            assert bad == []
        epochs.append([source_of(sample, images)[0] for sample, _ in found])
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_crops_reach_all_places(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (10, 11, 3)).astype(np.uint8)
    dataset = PhotoDataset([write(tmp_path, "a.png", image)], (8, 8), seed=0)
    places = [source_of(sample, [image])[1:] for sample in samples_of(dataset, 300)]
    assert set(places) == {(top, left) for top in range(3) for left in range(4)}


def test_sample_is_a_pure_function_of_seed_and_number(photos):
    options = {"horizontal_flip": True, "scale_range": (0.5, 2.0)}
    first = PhotoDataset(photos, (16, 16), 5, **options)
    straight = samples_of(first, 30)
    second = PhotoDataset(photos, (16, 16), 5, cache_mb=1, **options)
    for _ in range(2):  # the second time from the cache
        for number in np.random.default_rng(0).permutation(30):
            assert np.array_equal(second.load(int(number))[0], straight[number])
    other = samples_of(PhotoDataset(photos, (16, 16), 6, **options), 30)
    assert not any(np.array_equal(a, b) for a, b in zip(straight, other))


def test_cached_images_are_not_the_callers(photos):
    dataset = PhotoDataset(photos[:1], (20, 20), 0, cache_mb=1)
    before = dataset.load(0)[0]
    dataset.load(0)[0][:] = 0
    assert np.array_equal(dataset.load(0)[0], before) and before.any()


def test_cache_saves_reading_within_its_budget(photos, monkeypatch):
    reads = []
    monkeypatch.setattr("data.dataset.read_rgb", lambda path: reads.append(path) or read_rgb(path))
    sizes = [read_rgb(path).nbytes for path in photos]
    samples_of(PhotoDataset(photos, (16, 16), 0, cache_mb=1), 70)
    assert len(reads) == 7
    reads.clear()
    samples_of(PhotoDataset(photos, (16, 16), 0), 70)
    assert len(reads) == 70
    reads.clear()
    samples_of(PhotoDataset(photos, (16, 16), 0, cache_mb=sum(sizes) / 2 / 2**20), 70)
    assert 7 < len(reads) < 70


def test_small_images_are_enlarged_just_enough(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (16, 40, 3)).astype(np.uint8)
    dataset = PhotoDataset([write(tmp_path, "a.png", image)], (32, 32), seed=0)
    enlarged = cv2.resize(image, (80, 32), interpolation=cv2.INTER_LINEAR)
    places = {source_of(sample, [enlarged])[2] for sample in samples_of(dataset, 20)}
    assert len(places) > 5
    assert np.array_equal(center_crop(image, 32, 32), enlarged[:, 24:56])


def test_one_pixel_becomes_a_flat_sample(tmp_path):
    dataset = PhotoDataset([write(tmp_path, "a.png", np.full((1, 1, 3), 7, np.uint8))], (16, 24), seed=0)
    assert dataset.load(0)[0].shape == (16, 24, 3)
    assert (dataset.load(0)[0] == 7).all()


def test_scale_shrinks_but_never_below_the_crop(tmp_path):
    blocks = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).repeat(2, axis=0).repeat(2, axis=1)
    blocks = blocks.astype(np.uint8)
    path = write(tmp_path, "a.png", blocks)
    halved = PhotoDataset([path], (16, 16), seed=0, scale_range=(0.5, 0.5))
    for sample in samples_of(halved, 5):  # averaging 2x2 equal pixels gives the pixels back
        source_of(sample, [blocks[::2, ::2]])
    tiny = PhotoDataset([path], (48, 48), seed=0, scale_range=(0.1, 0.1))
    whole = cv2.resize(blocks, (48, 48), interpolation=cv2.INTER_AREA)
    assert np.array_equal(tiny.load(0)[0], whole)


def test_scale_is_drawn_log_uniformly(tmp_path, monkeypatch):
    asked = []
    resize = cv2.resize

    def note(image, size, **options):
        asked.append(size[0])
        return resize(image, size, **options)

    monkeypatch.setattr(cv2, "resize", note)
    path = write(tmp_path, "a.png", np.zeros((100, 100, 3), np.uint8))
    samples_of(PhotoDataset([path], (8, 8), seed=0, scale_range=(0.25, 4.0)), 400)
    assert min(asked) >= 25 and max(asked) <= 400
    assert np.mean(np.log2(np.array(asked) / 100)) == pytest.approx(0, abs=0.2)
    assert np.mean(np.array(asked) < 50) == pytest.approx(0.25, abs=0.08)


def test_flip_mirrors_half_of_the_same_crops(photos):
    plain = samples_of(PhotoDataset(photos, (20, 20), seed=1), 60)
    flipped = samples_of(PhotoDataset(photos, (20, 20), seed=1, horizontal_flip=True), 60)
    mirrored = [not np.array_equal(a, b) for a, b in zip(plain, flipped)]
    assert 15 < sum(mirrored) < 45
    for a, b, turned in zip(plain, flipped, mirrored):
        assert np.array_equal(a[:, ::-1] if turned else a, b)


def test_without_random_crop_the_whole_image_is_resized(photos):
    dataset = PhotoDataset(photos, (10, 12), seed=0, random_crop=False)
    expected = [cv2.resize(read_rgb(path), (12, 10), interpolation=cv2.INTER_AREA) for path in photos]
    found = samples_of(dataset, 7)
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected))


def test_a_bad_file_is_replaced_and_reported(photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    images = [read_rgb(path) for path in photos]
    dataset = PhotoDataset([*photos, str(broken)], (20, 20), seed=0)
    os.remove(photos[0])  # vanished after the list was checked
    reasons = {}
    used, replacements = set(), set()
    for number in range(80):
        sample, bad = dataset.load(number)
        assert [entry[0] for entry in bad] == [entry[0] for entry in dataset.load(number)[1]]
        used.add(source_of(sample, images)[0])
        if bad:
            replacements.add(source_of(sample, images)[0])
        reasons.update(bad)
    assert reasons == {
        str(broken): "is empty (0 bytes)",
        photos[0]: "cannot be read: No such file or directory",
    }
    assert used == set(range(1, 7))
    assert len(replacements) > 3  # not always the same one


def test_nothing_but_bad_files(tmp_path):
    paths = [str(tmp_path / f"{number}.jpg") for number in range(3)]
    with pytest.raises(UserError, match="20 images in a row cannot be used, e.g. .*.jpg: cannot be read"):
        PhotoDataset(paths, (8, 8), seed=0).load(0)


def test_long_and_narrow_images_do_not_fill_the_memory(tmp_path):
    narrow = np.zeros((1, 20000, 3), np.uint8)
    with pytest.raises(UserError, match="20000x1 pixels, too long and narrow for a crop of 256x256"):
        center_crop(narrow, 256, 256)
    paths = [write(tmp_path, "narrow.png", narrow)]
    with pytest.raises(UserError, match="narrow.png: has 20000x1 pixels"):
        PhotoDataset(paths, (256, 256), seed=0).load(0)


def test_center_crop_of_larger_images():
    image = np.arange(9 * 8 * 3, dtype=np.uint8).reshape(9, 8, 3)
    assert np.array_equal(center_crop(image, 4, 4), image[2:6, 2:6])
    assert np.array_equal(center_crop(image, 9, 8), image)


@pytest.mark.parametrize("options, message", [
    ({"scale_range": (0.0, 1.0)}, "not a range of positive factors"),
    ({"scale_range": (2.0, 1.0)}, "not a range of positive factors"),
    ({"scale_range": (0.5, 1.0), "random_crop": False}, "no effect without random_crop"),
])
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        PhotoDataset(["a.jpg"], (8, 8), 0, **options)
    with pytest.raises(UserError, match="list of paths is empty"):
        PhotoDataset([], (8, 8), 0)
