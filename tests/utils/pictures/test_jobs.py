from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from utils.cli import UserError
from utils.pictures.jobs import Job, Masks, plan_many, plan_one, probe_path, protect_originals
from utils.pictures.options import add_picture_options, check_picture_options
from utils.pictures.reading import PictureError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("in/sub", "masks/sub"):
        Path(folder).mkdir(parents=True)


def test_one_picture_goes_to_a_file_or_a_folder() -> None:
    assert plan_one("in/a.jpg", "b.tif", None) == Job("in/a.jpg", "a.jpg", "b.tif", None)
    assert plan_one("in/a.jpg", "in", "new/") == Job("in/a.jpg", "a.jpg", "in/a.png", "new/a.png")


def test_a_folder_keeps_its_shape_and_no_two_results_meet() -> None:
    images = ["in/a.jpg", "in/a.png", "in/sub/b.c.webp"]
    jobs = plan_many("in", images, "out", "colours")
    assert [job.output for job in jobs] == ["out/a.jpg.png", "out/a.png.png", "out/sub/b.c.png"]
    assert jobs[2].attention == "colours/sub/b.c.png"
    by_pattern = plan_many("in/**/*.*", images, "out", None)
    assert [job.output for job in by_pattern] == [job.output for job in jobs]
    assert plan_many("*.png", ["a.png", "b.png"], "out", None)[1].output == "out/b.png"


@pytest.mark.parametrize("output", ["in", "in/sub", "in/new", "masks/../in/new"])
def test_results_do_not_go_among_the_pictures(output: str) -> None:
    with pytest.raises(PictureError, match="is within --image in"):
        plan_many("in", ["in/a.png"], output, None)
    with pytest.raises(PictureError, match="--attention .* is within --image in"):
        plan_many("in", ["in/a.png"], "out", output)


def test_several_pictures_need_a_folder() -> None:
    Path("file").write_bytes(b"")
    with pytest.raises(PictureError, match="--output file is a file; several pictures need a folder"):
        plan_many("in", ["in/a.png"], "file", None)


def test_masks_of_a_folder_are_found_by_name() -> None:
    masks = Masks("masks", ["masks/a.gif", "masks/sub/b_mask.png", "masks/c.png", "masks/c_mask.png"])

    def find(name: str) -> str:
        return masks.find(Job(f"in/{name}", name, "", None))

    assert find("a.jpg") == "masks/a.gif"
    assert find("sub/b.png") == "masks/sub/b_mask.png"
    with pytest.raises(PictureError, match="in/b.png: has no mask in masks; name it b.png or b_mask.png"):
        find("b.png")
    with pytest.raises(PictureError, match="in/c.png: has several masks: masks/c.png, masks/c_mask.png; keep one"):
        find("c.png")
    assert Masks("one.png").find(Job("in/z.png", "z.png", "", None)) == "one.png"


def test_originals_are_not_replaced() -> None:
    for name in ("a.png", "m.png"):
        Path(name).write_bytes(b"")
    os.link("a.png", "again.png")
    for result in ("a.png", "m.png", "./sub/../a.png", "again.png"):
        Path("sub").mkdir(exist_ok=True)
        with pytest.raises(PictureError, match="is the picture or the mask itself"):
            protect_originals(Job("a.png", "a.png", result, None), "m.png")
    with pytest.raises(PictureError, match="is the picture or the mask itself"):
        protect_originals(Job("a.png", "a.png", "b.png", "m.png"), "m.png")
    with pytest.raises(PictureError, match="--output and --attention name the same file"):
        protect_originals(Job("a.png", "a.png", "b.png", "./b.png"), "m.png")
    protect_originals(Job("a.png", "a.png", "b.png", "c.png"), "m.png")


def test_the_probe_lies_beside_the_colours() -> None:
    assert probe_path("out/a.b.png") == "out/a.b_probe.png"


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    add_picture_options(parser)
    return check_picture_options(parser.parse_args(arguments))


WHOLE = ("--image", "a", "--mask", "b", "--output", "c")


def test_good_options() -> None:
    assert options().image is None
    assert options(*WHOLE, "--attention", "d", "--probe", "12, 7").probe == (12, 7)
    assert options(*WHOLE, "--max-side", "8").max_side == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mask", "b"), "--mask needs --image"),
        (("--invert-mask",), "--invert-mask needs --image"),
        (("--max-side", "0"), "--max-side needs --image"),
        (WHOLE[:4], "--image needs --output as well"),
        (WHOLE[:2], "--image needs --mask as well"),
        ((*WHOLE, "--max-side", "7"), "--max-side must be a whole number from 8, not 7"),
        ((*WHOLE, "--probe", "1,2"), "--probe needs --attention"),
        ((*WHOLE, "--attention", "d", "--probe", "1"), "--probe must be X,Y in whole pixels"),
        ((*WHOLE, "--attention", "d", "--probe", "1,-2"), "--probe must be X,Y in whole pixels"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        options(*arguments)
