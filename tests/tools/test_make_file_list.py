from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.file_list import read_file_list

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "make_file_list.py"
spec = importlib.util.spec_from_file_location("make_file_list", SCRIPT)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def save(path: Path, width: int = 20, height: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


@pytest.fixture
def places2(tmp_path: Path) -> Path:
    folder = tmp_path / "places2"
    for k in range(12):
        save(folder / f"data_large/a/abbey/{k:08d}.jpg", 10 + k, 30)
    for k in range(5):
        save(folder / f"val_large/Places365_val_{k:08d}.jpg")
    save(folder / "test_large/Places365_test_00000001.jpg")
    (folder / "data_large/a/abbey/broken.jpg").write_bytes(b"no picture")
    return folder


def names(path: Path) -> list[str]:
    return [os.path.basename(line) for line in read_file_list(str(path))]


def test_places2_as_it_is_unpacked(places2: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "lists"
    assert tool.main([str(places2), "--output", str(output)]) == 0
    assert len(names(output / "train.txt")) == 13
    assert sorted(names(output / "val.txt")) == [f"Places365_val_{k:08d}.jpg" for k in range(5)]
    assert names(output / "train.txt") != sorted(names(output / "train.txt"))
    assert "train.txt: 13 of 13 images\n" in capsys.readouterr().out


@pytest.mark.parametrize("train", ["data_256_standard", "data_large_standard", "pictures"])
def test_validation_images_are_never_trained_on(tmp_path: Path, capsys, train: str) -> None:
    """Torchvision's names, and a name that nobody knows beside folders that do not hold training images."""
    for name in (f"{train}/a/abbey/1.jpg", f"{train}/2.jpg", "val_256/v.jpg", "test_256/t.jpg"):
        save(tmp_path / "sets" / name)
    assert tool.main([str(tmp_path / "sets"), "--output", str(tmp_path / "lists")]) == 0
    assert sorted(names(tmp_path / "lists/train.txt")) == ["1.jpg", "2.jpg"]
    assert names(tmp_path / "lists/val.txt") == ["v.jpg"]
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / "sets"), "--output", str(tmp_path / "lists"), "--val-count", "1"])
    assert "val_256 holds the validation images; leave the option out" in capsys.readouterr().err


def test_the_order_depends_on_the_seed_alone(places2: Path, tmp_path: Path) -> None:
    lists = []
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert tool.main([str(places2), "--output", str(tmp_path / folder), "--seed", seed]) == 0
        lists.append(names(tmp_path / folder / "train.txt"))
    assert lists[0] == lists[1] != lists[2]
    assert sorted(lists[0]) == sorted(lists[2])


def test_small_and_broken_ones_are_counted_and_left_out(places2: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "lists"
    assert tool.main([str(places2), "--output", str(output), "--min-side", "14"]) == 0
    assert sorted(names(output / "train.txt")) == [f"{k:08d}.jpg" for k in range(4, 12)]
    said = capsys.readouterr().out
    assert "train.txt: 8 of 13 images; left out: 4 smaller than 14, 1 no images\n" in said
    assert "val.txt: 5 of 5 images\n" in said


def test_a_heap_is_split(tmp_path: Path, capsys) -> None:
    for k in range(20):
        save(tmp_path / f"mine/{k:02d}.png")
    arguments = [str(tmp_path / "mine"), "--output", str(tmp_path / "lists"), "--val-count", "6"]
    assert tool.main(arguments) == 0
    train, val = (set(names(tmp_path / f"lists/{split}.txt")) for split in ("train", "val"))
    assert len(train) == 14 and len(val) == 6 and not train & val


def test_lists_beside_the_images_can_be_moved_with_them(tmp_path: Path) -> None:
    save(tmp_path / "train/#1 of a.png")
    save(tmp_path / "val/b c.png")
    save(tmp_path / "val/new\nline.png")
    assert tool.main([str(tmp_path), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "val.txt").read_text() == "val/b c.png\n"
    os.rename(tmp_path / "train.txt", tmp_path / "train" / "list.txt")
    assert tool.main([str(tmp_path), "--output", str(tmp_path / "train")]) == 0
    assert (tmp_path / "train/train.txt").read_text() == "./#1 of a.png\n"
    assert len(read_file_list(str(tmp_path / "train/train.txt"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("absent",), "absent: no such folder"),
        (("heap",), "has no folder of validation images (val_large, val_256, val"),
        (("heap", "--val-count", "3"), "--val-count 3 of 3 images: each list needs at least one"),
        (("heap", "--val-count", "0"), "--val-count 0 of 3 images"),
        (("heap", "--min-side", "-1"), "--min-side must not be negative"),
        (("heap", "--val-count", "1", "--min-side", "99"), "none of the 2 images for train.txt can be used"),
        (("heap", "--val-count", "1", "--output", "heap/0.png/x"), "cannot write to the folder"),
        (("both", "--val-count", "1"), "val holds the validation images; leave the option out"),
    ],
)
def test_one_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch, capsys, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        save(Path(f"heap/{k}.png"))
    save(Path("both/train/a.png"))
    save(Path("both/val/a.png"))
    with pytest.raises(SystemExit) as exit_:
        tool.main(list(options))
    assert exit_.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("headers")]
    assert len(error) == 1 and error[0].startswith("error: ") and message in error[0]
