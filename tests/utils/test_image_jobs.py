"""Which image goes with which mask, and where its results go."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from utils.cli import UserError
from utils.image_jobs import Job, plan_jobs, protect_originals
from utils.inpaint import add_options, check_options


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch("in/sub/", "masks/sub/", "m.png")


def touch(*names: str) -> None:
    for name in names:
        Path(os.path.dirname(name) or ".").mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            Path(name).write_bytes(b"x")


def pairs(image: str, mask: str) -> dict[str, str]:
    return {job.name: job.find_mask() for job in plan_jobs(image, mask, "out", None)}


def test_one_image_goes_to_a_file_or_a_folder() -> None:
    touch("in/a.jpg")
    assert plan_jobs("in/a.jpg", "m.png", "b.tif", None) == [Job("in/a.jpg", "a.jpg", "b.tif", None, "m.png")]
    to_folders = Job("in/a.jpg", "a.jpg", "in/a.png", "new/a.png", "m.png")
    assert plan_jobs("in/a.jpg", "m.png", "in", "new/") == [to_folders]


def test_a_folder_keeps_its_shape_and_no_two_results_meet() -> None:
    touch("in/a.jpg", "in/a.png", "in/sub/b.c.webp", "x.png", "y.png")
    jobs = plan_jobs("in", "m.png", "out", "colours")
    assert [job.output for job in jobs] == ["out/a.jpg.png", "out/a.png.png", "out/sub/b.c.png"]
    assert jobs[2].attention == "colours/sub/b.c.png"
    assert [job.output for job in plan_jobs("in/**/*.*", "m.png", "out", None)] == [job.output for job in jobs]
    assert [job.output for job in plan_jobs("*.png", "m.png", "out", None)] == ["out/x.png", "out/y.png"]


@pytest.mark.parametrize("output", ["in", "in/sub", "in/new", "masks/../in/new"])
def test_results_do_not_go_among_the_images(output: str) -> None:
    touch("in/a.png")
    with pytest.raises(UserError, match="--output .* is within --image in"):
        plan_jobs("in", "m.png", output, None)
    with pytest.raises(UserError, match="--save-attention .* is within --image in"):
        plan_jobs("in", "m.png", "out", output)


def test_several_images_need_a_folder() -> None:
    touch("in/a.png", "file")
    with pytest.raises(UserError, match="--output file is a file; several images need a folder"):
        plan_jobs("in", "m.png", "file", None)


def test_masks_of_a_folder_are_found_by_name() -> None:
    touch("in/a.jpg", "in/sub/b.png", "in/b.png", "in/c.png", "in/d_input.png")
    touch("masks/a.gif", "masks/sub/b_mask.png", "masks/c.png", "masks/c_mask.png", "masks/d-Mask002.png")
    jobs = {job.name: job for job in plan_jobs("in", "masks", "out", None)}
    assert jobs["a.jpg"].find_mask() == "masks/a.gif"
    assert jobs["sub/b.png"].find_mask() == "masks/sub/b_mask.png"
    assert jobs["d_input.png"].find_mask() == "masks/d-Mask002.png"
    with pytest.raises(UserError, match="in/b.png: has no mask in masks; name it b.png or b_mask.png"):
        jobs["b.png"].find_mask()
    with pytest.raises(UserError, match="in/c.png: has several masks: masks/c.png, masks/c_mask.png; keep one"):
        jobs["c.png"].find_mask()
    assert pairs("in/sub/b.png", "m.png") == {"b.png": "m.png"}
    assert pairs("in/a.jpg", "masks") == {"a.jpg": "masks/a.gif"}


@pytest.mark.parametrize("image", ["in", "in/", "in/*", "in/x*", "./masks/../in"])
def test_images_and_masks_in_one_folder(image: str, capsys) -> None:
    """LaMa's names and the authors': masks and results are not inpainted, and no image is its own mask."""
    touch("in/x.png", "in/x_mask001.png", "in/xy_input.jpg", "in/xy_mask.png", "in/xy_output.png")
    assert pairs(image, "in") == {"x.png": "in/x_mask001.png", "xy_input.jpg": "in/xy_mask.png"}
    said = capsys.readouterr().err
    assert "2 of 5 images are masks and are not inpainted" in said
    assert "1 of 5 images are results (x_output) and are not inpainted" in said


def test_one_folder_without_names_of_masks_is_refused() -> None:
    touch("in/x.jpg", "in/x.png")
    with pytest.raises(UserError, match="--mask in is where the images are, and none of its files is named as"):
        plan_jobs("in", "in", "out", None)
    touch("in/x_mask.png", "in/y.png")  # the one that has none does not become its own
    jobs = {job.name: job for job in plan_jobs("in", "in", "out", None)}
    assert jobs["x.jpg"].find_mask() == "in/x_mask.png"
    with pytest.raises(UserError, match="in/y.png: has no mask in in"):
        jobs["y.png"].find_mask()


def test_masks_below_the_images_and_a_mask_among_them(capsys) -> None:
    touch("in/a.png", "in/masks/a.png", "in/one.png")
    (only,) = [job for job in plan_jobs("in", "in/masks", "out", None) if job.name == "a.png"]
    assert only.find_mask() == "in/masks/a.png"
    assert pairs("in/a.png", "in/one.png") == {"a.png": "in/one.png"}
    assert pairs("in/*.png", "in/one.png") == {"a.png": "in/one.png"}
    assert "1 of 2 images are masks and are not inpainted" in capsys.readouterr().err
    assert pairs("in/a.png", "in/a.png") == {"a.png": "in/a.png"}  # as asked


def test_files_that_are_no_images_are_named(capsys) -> None:
    touch("in/a.jfif", "in/b.JPE", "in/c.HEIC")
    assert [job.output for job in plan_jobs("in", "m.png", "out", None)] == ["out/a.png", "out/b.png"]
    assert "in: 1 file ignored, no images by their names: 1 .heic (c.HEIC)" in capsys.readouterr().err


def test_originals_are_not_replaced() -> None:
    for name in ("a.png", "m.png"):
        Path(name).write_bytes(b"")
    os.link("a.png", "again.png")
    for result in ("a.png", "m.png", "./sub/../a.png", "again.png"):
        Path("sub").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="is the image or the mask itself"):
            protect_originals(Job("a.png", "a.png", result, None, "m.png"), "m.png")
    with pytest.raises(UserError, match="is the image or the mask itself"):
        protect_originals(Job("a.png", "a.png", "b.png", "m.png", "m.png"), "m.png")
    with pytest.raises(UserError, match="--output and --save-attention name the same file"):
        protect_originals(Job("a.png", "a.png", "b.png", "./b.png", "m.png"), "m.png")
    protect_originals(Job("a.png", "a.png", "b.png", "c.png", "m.png"), "m.png")


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    add_options(parser)
    return check_options(parser.parse_args(arguments))


WHOLE = ("--image", "a", "--mask", "b", "--output", "c")


def test_good_options() -> None:
    assert options().image is None
    assert options(*WHOLE, "--save-attention", "d", "--attention-at", "12, 7").attention_at == (12, 7)
    assert options(*WHOLE, "--max-side", "8", "--grow", "3").grow == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mask", "b"), "--mask needs --image"),
        (("--invert-mask",), "--invert-mask needs --image"),
        (("--max-side", "0"), "--max-side needs --image"),
        (("--window", "none"), "--window needs --image"),
        (("--feather", "2"), "--feather needs --image"),
        ((*WHOLE, "--grow", "-1"), "--grow must be a whole number from 0, not -1"),
        ((*WHOLE, "--attention", "d"), "--attention is now called --save-attention"),
        ((*WHOLE, "--probe", "1,2"), "--probe is now called --attention-at"),
        (WHOLE[:4], "--image needs --output as well"),
        (WHOLE[:2], "--image needs --mask as well"),
        ((*WHOLE, "--max-side", "7"), "--max-side must be a whole number from 8, not 7"),
        ((*WHOLE, "--attention-at", "1,2"), "--attention-at needs --save-attention"),
        ((*WHOLE, "--save-attention", "d", "--attention-at", "1"), "--attention-at must be X,Y in whole pixels"),
        ((*WHOLE, "--save-attention", "d", "--attention-at", "1,-2"), "--attention-at must be X,Y in whole pixels"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        options(*arguments)

