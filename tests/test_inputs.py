"""test.py --image on images as people have them; the table docs/inputs.md is what happens.

WRITE_INPUTS=1 python -m pytest tests/test_inputs.py    writes the table; without it, the table must say what they do
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

import tester
from tests import tiny_checkpoint
from tests.image_format_cases import GROUPS, PROFILE, Case, line

PROJECT = Path(__file__).resolve().parents[1]
TABLE = PROJECT / "docs" / "inputs.md"
WRITE = bool(os.environ.get("WRITE_INPUTS"))
HEAD = """\
# What goes in and what comes out

Written by `WRITE_INPUTS=1 python -m pytest tests/test_inputs.py`, which runs every line below as
`python test.py LINE --checkpoint ...` with a small untrained network; the ordinary tests check that it still holds.
*Identical* means: compared with the samples that the file was made from, or, for lossy formats, decoded to.
Code is the exit code. Small images are 45x37 pixels.
"""


class Outcome(NamedTuple):
    group: str
    case: Case
    folder: Path
    code: int
    errors: list[str]  # lines of stderr without progress


def load_script():
    """test.py as a module; its own name belongs to a package of Python."""
    spec = importlib.util.spec_from_file_location("images_script", PROJECT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_within(script, folder: Path, arguments: list[str]) -> tuple[int, str]:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = script.main(arguments)
            except SystemExit as exit_:
                code = exit_.code
    finally:
        os.chdir(before)
    err.flush()
    return code, err.buffer.getvalue().decode()


def run_program(folder: Path, arguments: list[str]) -> tuple[int, str]:
    command = [sys.executable, str(PROJECT / "test.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    return done.returncode, done.stderr.decode()


def messages(text: str) -> list[str]:
    """Lines of stderr without progress."""
    return [message for message in text.splitlines() if not re.fullmatch(r"\d+/\d+ (image|window)s?", message)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    architecture = {"generator_channels": 4, "dialect": "tf1", "image_size": [64, 64], "box_size": [32, 32]}
    return tiny_checkpoint.write(tmp_path_factory.mktemp("run"), architecture=architecture)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, checkpoint: str) -> list[Outcome]:
    script, found = load_script(), []
    for group, make in GROUPS.items():
        folder = tmp_path_factory.mktemp("inputs")
        for case in make(folder):
            arguments = [*case.arguments, "--checkpoint", checkpoint, "--device", "cpu"]
            code, text = run_within(script, folder, arguments)
            lines = messages(text)
            found.append(Outcome(group, case, folder, code, lines))
    return found


def read_back(path: Path) -> tuple[np.ndarray, np.ndarray | None, bytes | None]:
    """Colour, alpha and profile of a result, by the decoders alone."""
    with Image.open(path) as image:
        profile, array = image.info.get("icc_profile"), np.array(image)
        has_alpha = image.mode in ("RGBA", "LA")
    deep = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if deep is not None and deep.dtype == np.uint16:
        array = deep.reshape(*deep.shape[:2], -1)
        array = array[:, :, {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]]
    array = array.reshape(*array.shape[:2], -1)
    return (array[:, :, :-1], array[:, :, -1], profile) if has_alpha else (array, None, profile)


def describe(outcome: Outcome) -> str:
    """The last column of the table, from what is on the disk."""
    case, parts = outcome.case, []
    if case.result and outcome.code == 0:
        color, alpha, profile = read_back(outcome.folder / case.result)
        kind = {1: "grey", 3: "RGB", 4: "CMYK"}[color.shape[2]] + ("" if alpha is None else " + alpha")
        parts.append(f"{color.dtype.itemsize * 8}-bit {kind} {color.shape[1]}x{color.shape[0]}")
        if case.truth is not None:
            same = [("known pixels", np.array_equal(color[~case.hole], case.truth[~case.hole]))]
            if alpha is not None:
                same.append(("alpha", np.array_equal(alpha, case.alpha)))
            if profile is not None:
                same.append(("profile", profile == PROFILE))
            parts.append(", ".join(f"{name} {'identical' if good else 'CHANGED'}" for name, good in same))
    present = [name for name in case.extra if (outcome.folder / name).is_file()]
    if present:
        parts.append("written: " + ", ".join(present))
    return "; ".join([*parts, *outcome.errors]).replace("|", "\\|")


def table(outcomes: list[Outcome]) -> str:
    text = HEAD
    for group in GROUPS:
        text += f"\n## {group}\n\n| input | line | code | outcome |\n|---|---|---|---|\n"
        for outcome in outcomes:
            if outcome.group == group:
                command = shlex.join(outcome.case.arguments).replace("|", "\\|")
                text += f"| {outcome.case.name} | `{command}` | {outcome.code} | {describe(outcome)} |\n"
    return text


def test_there_are_many_inputs(outcomes: list[Outcome]) -> None:
    assert len(outcomes) >= 25
    assert len({outcome.case.name for outcome in outcomes}) == len(outcomes)


def test_each_ends_as_it_should(outcomes: list[Outcome]) -> None:
    for _, case, folder, code, errors in outcomes:
        assert code == case.code, (case.name, errors)
        for text in case.needs:
            assert any(text in error for error in errors), (case.name, errors)
        if not case.needs:
            assert errors == [], case.name
        assert not any("Traceback" in error for error in errors), case.name
        if code and not case.extra:
            assert len(errors) == 1 and errors[0].startswith("error: "), (case.name, errors)
            assert not list(folder.glob("never*")), case.name


def test_known_pixels_alpha_and_profile_are_kept(outcomes: list[Outcome]) -> None:
    """And the hole is filled: with something else than what was in it."""
    compared = 0
    for _, case, folder, _, _ in outcomes:
        if case.truth is None:
            continue
        color, alpha, profile = read_back(folder / case.result)
        assert color.dtype == case.truth.dtype, case.name
        assert color.shape == case.truth.shape, case.name
        np.testing.assert_array_equal(color[~case.hole], case.truth[~case.hole], case.name)
        assert (color[case.hole] != case.truth[case.hole]).any(), case.name
        assert (alpha is None) == (case.alpha is None), case.name
        if alpha is not None:
            np.testing.assert_array_equal(alpha, case.alpha, case.name)
        if case.profile:
            assert profile == PROFILE, case.name
        compared += 1
    assert compared >= 35


def test_all_further_results_are_there(outcomes: list[Outcome]) -> None:
    for _, case, folder, _, _ in outcomes:
        for name, size in case.extra.items():
            assert cv2.imdecode(np.fromfile(folder / name, np.uint8), 1).shape[:2] == size, (case.name, name)


def test_upright_and_without_orientation(outcomes: list[Outcome]) -> None:
    folder = next(outcome.folder for outcome in outcomes if outcome.case.result == "turned.png")
    with Image.open(folder / "turned.png") as image:
        exif = image.getexif()
    assert 0x0112 not in exif
    assert exif[0x0110] == "Camera"


def test_resolution_is_kept(outcomes: list[Outcome]) -> None:
    folder = outcomes[0].folder
    with Image.open(folder / "out.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_sixteen_bits_are_filled_with_scaled_levels(outcomes: list[Outcome]) -> None:
    deep = next(outcome for outcome in outcomes if outcome.case.result == "out_deep3.png")
    color, _, _ = read_back(deep.folder / deep.case.result)
    assert (color[deep.case.hole] % 257 == 0).all()


def test_the_table_says_so(outcomes: list[Outcome]) -> None:
    if WRITE:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(table(outcomes), encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table(outcomes), (
        "docs/inputs.md is out of date; write it with WRITE_INPUTS=1"
    )


def test_a_program_of_its_own_does_the_same(outcomes: list[Outcome], checkpoint: str) -> None:
    """Exit codes and messages as a shell sees them."""
    for name in ("PNG, RGBA", "mask: empty"):
        outcome = next(outcome for outcome in outcomes if outcome.case.name == name)
        result = outcome.folder / outcome.case.result
        before = result.read_bytes() if outcome.case.truth is not None else b""
        code, text = run_program(outcome.folder, [*outcome.case.arguments, "--checkpoint", checkpoint])
        lines = messages(text)
        assert (code, lines) == (outcome.code, outcome.errors)
        assert (result.read_bytes() if before else b"") == before


def test_an_image_too_large_for_the_memory_does_not_end_a_folder(
    tmp_path: Path, checkpoint: str, monkeypatch
) -> None:
    script = load_script()
    for name in ("a.png", "b.png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (16 if name == "a.png" else 24, 16)).save(tmp_path / "in" / name)
    mask = Image.new("L", (16, 16))
    mask.putpixel((3, 3), 255)
    mask.save(tmp_path / "mask.png")
    complete = script.Tester.inpaint_stages

    def limited(self, images, masks):
        if images.shape[2] < 24:
            raise MemoryError
        return complete(self, images, masks)

    monkeypatch.setattr(script.Tester, "inpaint_stages", limited)
    arguments = line("in", "out", "--resize-mask", "--checkpoint", checkpoint)
    code, errors = run_within(script, tmp_path, arguments)
    assert code == 2
    assert "in/a.png: 16x16 pixels need more memory; choose a smaller --max-side" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"coarse_only": True}, "since only its coarse stage was trained"),
        (
            {"architecture": {"generator_channels": 4, "dialect": "tf1", "contextual_attention": False}},
            "since it was trained with contextual_attention: false",
        ),
    ],
)
def test_a_model_without_attention_has_none_to_show(tmp_path: Path, changes: dict, reason: str) -> None:
    path = tiny_checkpoint.write(tmp_path, **changes)
    Image.new("RGB", (16, 16)).save(tmp_path / "in.png")
    arguments = line("in.png", "out.png", "--save-attention", "a.png", "--checkpoint", path, mask="in.png")
    code, errors = run_within(load_script(), tmp_path, arguments)
    assert code == 2
    assert f"{path} has no attention, {reason}" in errors


def test_a_fresh_clone_inpaints_with_the_released_generator(tmp_path: Path, checkpoint: str, monkeypatch) -> None:
    monkeypatch.setattr(tester, "RELEASED", checkpoint)
    Image.new("RGB", (16, 16)).save(tmp_path / "in.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for name in ("configs/test.yaml", "c.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("dataset_name: none\nval_data_path: absent.txt\n")
    script = load_script()
    for named in (["--config", "c.yaml"], ["expname=other"]):  # a run that is named must have a checkpoint of its own
        code, errors = run_within(script, tmp_path, [*line(), *named])
        assert code == 2 and not (tmp_path / "out.png").exists()
        assert "holds no checkpoint: train first" in errors
    code, errors = run_within(script, tmp_path, line())
    assert code == 0 and (tmp_path / "out.png").is_file()
    assert messages(errors) == []  # one plain line on stdout says which weights are used
    code, text = run_program(tmp_path, [*line(), "--checkpoint", checkpoint])
    assert code == 0 and messages(text) == []


def test_the_frame_is_where_it_points(tmp_path: Path, checkpoint: str) -> None:
    """The frame of the map lies on the pixel asked for, at full and at reduced size and in a window."""
    script = load_script()
    Image.new("RGB", (400, 320), (90, 90, 90)).save(tmp_path / "in.png")
    mask = np.zeros((320, 400), np.uint8)
    mask[96:160, 200:264] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    common = [*line(), "--save-attention", "a.png", "--attention-at", "221,101", "--checkpoint", checkpoint]
    for options, corner in ((("--window", "none"), (96, 216)), (("--max-side", "200"), (2 * 48, 2 * 104)),
                            ((), (4 * 16, 4 * 24))):
        code, errors = run_within(script, tmp_path, [*common, *options])
        assert code == 0, errors
        page = cv2.cvtColor(cv2.imread(str(tmp_path / "a_at.png")), cv2.COLOR_BGR2RGB)[24:]
        frame = np.argwhere((page == (0, 255, 255)).all(axis=2))
        assert tuple(frame.min(axis=0)) == corner
