from __future__ import annotations

import pytest

from utils.config import PROTOCOLS, TestConfig
from utils.evaluation.protocol import describe_crop, describe_holes, format_fields


def config(**values) -> TestConfig:
    return TestConfig(val_data_path="list.txt", **values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "center: 128x128 pixels (height x width) in the middle"),
        (
            {"protocol": "random_box", "seed": 4, "margin": [1, 2]},
            "random_box: 128x128 pixels (height x width), margin [1, 2], drawn from seed 4 and the place in the list",
        ),
        (
            {"protocol": "random_box", "max_delta_shape": [8, 4], "masks_per_image": 3},
            "random_box: 128x128 pixels (height x width), shrunk by up to half of [8, 4] per side, margin [0, 0], "
            "drawn from seed 0 and the place in the list; 3 holes an image, one at a time",
        ),
        (
            {"protocol": "mask_dir", "mask_path": "/data/nobody/masks"},
            "mask_dir: masks of .../nobody/masks of the images' names, white is the hole",
        ),
        (
            {"protocol": "mask_list", "mask_path": "a.txt"},
            "mask_list: masks of a.txt in the images' order, white is the hole",
        ),
        (
            {"protocol": "mask_list", "mask_path": "a.txt", "mask_invert": True},
            "mask_list: masks of a.txt in the images' order, black is the hole",
        ),
    ],
)
def test_holes_in_words(values: dict, words: str) -> None:
    assert describe_holes(config(**values)) == words


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name.startswith("freeform")])
def test_free_form_holes_name_style_and_seed(protocol: str) -> None:
    words = describe_holes(config(protocol=protocol, seed=9))
    assert words.startswith(f"{protocol}: ") and "strokes" in words and "seed 9" in words


@pytest.mark.parametrize(
    ("crop", "words"),
    [
        ("center", "the middle of the image at full resolution"),
        ("fit", "shrunk (area averaging) to just cover it"),
        ("stretch", "the whole image"),
        ([384, 320], "the middle 384x320 of the image, resized"),
    ],
)
def test_crops_in_words(crop, words: str) -> None:
    text = describe_crop(config(eval_crop=crop, image_shape=[256, 264, 3]))
    assert text.startswith("256x264 (height x width), ") and words in text


def test_labels_stand_beside_wrapped_paragraphs() -> None:
    text = format_fields({"one": "word " * 30, "none": [], "two": ["a", "b"]})
    lines = text.splitlines()
    assert lines[0].startswith("one            word word")
    assert lines[1].startswith(" " * 15 + "word")
    assert lines[-2:] == ["two            a", " " * 15 + "b"]
    assert max(map(len, lines)) <= 100
