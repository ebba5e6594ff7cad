"""test.py from the outside: what it measures, what it writes, what it says when something is wrong."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from skimage.metrics import structural_similarity

import tester
from data.dataset import center_crop
from data.image_io import read_rgb
from tests import tiny_checkpoint
from utils.evaluation.baselines import fill_telea

PROJECT = Path(__file__).resolve().parents[1]
METHODS = ["mean_color", "telea", "navier_stokes", "biharmonic", "coarse", "model"]
CONFIG = """\
dataset_name: toy
expname: small
val_data_path: {list}
image_shape: [32, 40, 3]
mask_shape: [16, 20]
"""


def load_script(path: str = "test.py"):
    """A script as a module; test.py's own name belongs to a package of Python."""
    spec = importlib.util.spec_from_file_location("a_script", PROJECT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load_script()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with five good photographs, two bad ones, a configuration and a run."""
    folder = tmp_path_factory.mktemp("place")
    photos = folder / "photos"
    photos.mkdir()
    rng = np.random.default_rng(5)
    lines = []
    for i in range(5):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        photo = cv2.resize(coarse, (60 + i, 50), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(photos / f"photo {i}.png"), photo)
        lines.append(f"photos/photo {i}.png")
    whole = cv2.imencode(".jpg", photo)[1].tobytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").write_bytes(b"")
    lines[2:2] = ["photos/cut.jpg"]
    lines.append("photos/empty.png")
    (folder / "list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "config.yaml").write_text(CONFIG.format(list=folder / "list.txt"), encoding="utf-8")
    tiny_checkpoint.write(folder / "checkpoints/toy/hole_small", 20)
    return folder


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "test.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)


def evaluate(script, place: Path, output: Path, *arguments: str) -> list[dict[str, str]]:
    """The lines of test.csv after a run within this process."""
    common = ["--config", "config.yaml", "--output", str(output), "--device", "cpu"]
    before = os.getcwd()
    os.chdir(place)
    try:
        assert script.main([*common, *arguments]) == 0
    finally:
        os.chdir(before)
    return read_csv(output)


def read_csv(folder: Path) -> list[dict[str, str]]:
    with open(folder / "test.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def full(place: Path) -> subprocess.CompletedProcess:
    """One run with everything on, as a user starts it; its files are in the run's folder."""
    return run(place, "--config", "config.yaml", "--baselines", "--save-images", "--device", "cpu")


@pytest.fixture
def results(place: Path, full) -> Path:
    return place / "checkpoints/toy/hole_small"


def test_a_run_succeeds_and_shows_what_it_saves(full, results: Path) -> None:
    assert full.returncode == 0, full.stderr
    summary = (results / "test.txt").read_text(encoding="utf-8")
    assert summary in full.stdout
    assert "Traceback" not in full.stderr


def test_each_bad_photograph_is_named_once_and_counted(full, results: Path) -> None:
    for name in ("cut.jpg", "empty.png"):
        lines = [line for line in full.stderr.splitlines() if name in line]
        assert len(lines) == 1
        assert lines[0].startswith("warning: skipped ")
    summary = (results / "test.txt").read_text(encoding="utf-8")
    assert "5: the first 7 of 7, less 2 skipped" in summary
    assert "cut.jpg: is truncated" in summary
    assert "empty.png: is empty (0 bytes)" in summary


def test_progress_is_plain_lines_without_a_terminal(full) -> None:
    assert "5/7 images" in full.stderr
    assert "\r" not in full.stderr


def test_the_summary_states_the_protocol(results: Path) -> None:
    summary = (results / "test.txt").read_text(encoding="utf-8")
    for part in (
        "python test.py --config config.yaml --baselines --save-images --device cpu",
        "checkpoints/toy/hole_small/checkpoint_00000020.npz",
        "iteration 20, dialect tf1, 4 channels",
        "list.txt",
        "32x40",
        "center: 16x20",
        "Best baseline, by mean PSNR in the hole: ",
        "sees zeros",
        "structural_similarity(gaussian_weights=True",
        "rounded to the nearest level",
        f"PaddlePaddle {paddle.__version__}",
        "cpu; ",
    ):
        assert part in " ".join(summary.split()), part
    assert max(map(len, summary.splitlines()[1:])) <= 110


def test_no_path_of_the_machine_is_saved(place: Path, script, tmp_path: Path, results: Path) -> None:
    checkpoint = str(results / "checkpoint_00000020.npz")
    evaluate(script, place, tmp_path, "--checkpoint", checkpoint, "--count", "1")
    for folder in (results, tmp_path):
        for name in ("test.txt", "test.csv"):
            text = (folder / name).read_text(encoding="utf-8")
            assert str(place) not in text
            assert str(tmp_path) not in text


def test_figures_are_those_of_the_saved_images(place: Path, results: Path) -> None:
    """PSNR and SSIM by hand from the PNG files and the photographs agree with the table."""
    rows = {(row["image"], row["method"]): row for row in read_csv(results)}
    assert [key[1] for key in rows] == METHODS * 5
    model = tester.Tester(str(results / "checkpoint_00000020.npz"))
    names = [f"photo {i}.png" for i in range(5)]
    indices = [0, 1, 3, 4, 5]  # places in the list, where a bad one is the third
    saved = sorted((results / "images").iterdir())
    for folder in ("originals", "masks"):
        assert sorted(path.name for path in (results / folder).iterdir()) == [path.name for path in saved]
    assert [path.name for path in saved] == [f"{k:06d}_{name}" for k, name in zip(indices, names)]
    for path, name, index in zip(saved, names, indices):
        row = rows[name, "model"]
        assert (row["image_index"], row["hole"], row["hole_area"]) == (str(index), "8 10 16 20", "0.25")
        result, original, mask = (
            cv2.cvtColor(cv2.imread(str(results / folder / path.name)), cv2.COLOR_BGR2RGB)
            for folder in ("images", "originals", "masks")
        )
        truth = center_crop(read_rgb(str(place / "photos" / name)), 32, 40)
        known = np.ones((32, 40), bool)
        known[8:24, 10:30] = False
        np.testing.assert_array_equal(original, truth)
        np.testing.assert_array_equal(mask, np.where(known[..., None], 0, [255] * 3))
        expected = model.inpaint_stages(truth[None], ~known[None])[1][0]
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(result[known], truth[known])
        compare(row, result, truth, ~known)
        by_telea = fill_telea(truth, ~known)
        compare(rows[name, "telea"], by_telea, truth, ~known)


def compare(row: dict[str, str], result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> None:
    error = result.astype(float) - truth
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = structural_similarity(truth, result, data_range=255, channel_axis=2, **window)
    expected = {
        "psnr": 10 * math.log10(255**2 / (error**2).mean()),
        "hole_psnr": 10 * math.log10(255**2 / (error[hole] ** 2).mean()),
        "hole_l1": np.abs(error[hole]).mean() / 255,
        "ssim": ssim,
    }
    for name, value in expected.items():
        assert float(row[name]) == pytest.approx(value, abs=1e-6), name


def test_the_table_holds_the_means(results: Path) -> None:
    rows = read_csv(results)
    summary = (results / "test.txt").read_text(encoding="utf-8").splitlines()
    hole = summary[summary.index("Mean in the hole, 5 images (below it the standard error)") :]
    means = {}
    for method in METHODS:
        means[method] = np.mean([float(row["hole_psnr"]) for row in rows if row["method"] == method])
        line = next(line for line in hole if line.startswith(method))
        assert line.split()[1] == f"{means[method]:.3f}"
    line = next(line for line in hole if line.startswith("- telea"))
    assert line.split()[2] == f"{means['model'] - means['telea']:+.3f}"


def test_the_sheets(results: Path) -> None:
    sheet = cv2.imread(str(results / "results.png"))
    # five rows and five columns of 40x32 pixels four times enlarged, gaps of 4 and a heading of 20
    assert sheet.shape == (20 + 5 * (4 * 32 + 4) - 4, 5 * (4 * 40 + 4) - 4, 3)
    assert (sheet[20 + 64, 164 + 80] == 128).all()  # the hole as the model sees it
    extremes = cv2.imread(str(results / "best_median_worst.png"))
    assert extremes.shape == (20 + 3 * (4 * 32 + 4) - 4, 5 * (4 * 40 + 4) - 4, 3)
    rows = [row for row in read_csv(results) if row["method"] == "model"]
    best = max(rows, key=lambda row: float(row["hole_psnr"]))
    result = cv2.imread(str(results / "images" / f"{int(best['image_index']):06d}_{best['image']}"))
    shown = extremes[20 : 20 + 128 : 4, 3 * 164 : 3 * 164 + 160 : 4]  # the column of results
    np.testing.assert_array_equal(shown, result)


def test_two_runs_with_any_number_of_threads_agree(script, place: Path, tmp_path: Path) -> None:
    random = ("protocol=random_box", "max_delta_shape=[4,4]")
    first = evaluate(script, place, tmp_path / "a", *random)
    again = evaluate(script, place, tmp_path / "b", *random)
    threads = evaluate(script, place, tmp_path / "c", *random, "--baselines", "num_workers=5")
    assert first == again == [row for row in threads if row["method"] == "model"]
    assert threads == evaluate(script, place, tmp_path / "c", *random, "--baselines", "num_workers=0")
    assert (tmp_path / "a/results.png").read_bytes() == (tmp_path / "b/results.png").read_bytes()


def test_random_holes_depend_on_the_seed_and_the_place(script, place: Path, tmp_path: Path) -> None:
    random = ("protocol=random_box", "margin=[1,2]", "max_delta_shape=[4,4]")
    holes = {row["image_index"]: row["hole"] for row in evaluate(script, place, tmp_path / "a", *random)}
    assert len(set(holes.values())) > 1
    for hole in holes.values():
        top, left, height, width = map(int, hole.split())
        assert 12 <= height <= 16 and 16 <= width <= 20  # less up to 2 on each side
        # the range of places is half-open: one pixel more than the margin stays free at the far ends
        assert top >= 1 and left >= 2 and top + height <= 30 and left + width <= 37
    assert any(int(hole.split()[2]) < 16 for hole in holes.values())
    few = evaluate(script, place, tmp_path / "b", *random, "--count", "2")
    assert {row["image_index"]: row["hole"] for row in few} == {k: holes[k] for k in ("0", "1")}
    other = evaluate(script, place, tmp_path / "c", *random, "--seed", "1")
    assert [row["hole"] for row in other] != list(holes.values())
    written_out = evaluate(script, place, tmp_path / "d", "seed=1", *random)
    assert [row["hole"] for row in other] == [row["hole"] for row in written_out]


@pytest.mark.parametrize("protocol", ["random_box", "freeform-thin", "freeform-thick"])
def test_saved_masks_give_the_same_figures(script, place: Path, tmp_path: Path, protocol: str) -> None:
    """tools/make_masks.py, then protocol mask_list and, renamed after the photographs, mask_dir."""
    holes = [f"protocol={protocol}", "seed=3", "masks_per_image=2"]
    drawn = evaluate(script, place, tmp_path / "a", *holes)
    assert [(row["image_index"], row["hole_index"]) for row in drawn[:4]] == [
        ("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")
    ]
    assert len({row["hole"] for row in drawn}) == len(drawn) == 10
    masks = tmp_path / "masks"
    make_masks = load_script("tools/make_masks.py")
    assert make_masks.main([str(masks), "--config", str(place / "config.yaml"), *holes]) == 0
    assert len(list(masks.glob("*.png"))) == 14  # the photographs that cannot be read have holes, too
    by_list = ["protocol=mask_list", f"mask_path={masks}/masks.txt", "masks_per_image=2"]
    listed = evaluate(script, place, tmp_path / "b", *by_list)
    assert listed[0]["hole"] == "000000_0.png"
    names = ["photo 0", "photo 1", "cut", "photo 2", "photo 3", "photo 4", "empty"]
    for index, name in enumerate(names):
        (masks / f"{index:06d}_0.png").rename(masks / f"{name}.png")
        (masks / f"{index:06d}_1.png").rename(masks / f"{name}_1.png")
    named = evaluate(script, place, tmp_path / "c", "protocol=mask_dir", *by_list[1:], f"mask_path={masks}")
    for row, *others in zip(drawn, listed, named):
        for other in others:
            assert {**other, "hole": ""} == {**row, "hole": ""}
    assert [row["hole"] for row in named[:2]] == ["photo 0.png", "photo 0_1.png"]


def test_a_mask_that_cannot_be_used_costs_its_image(script, place: Path, tmp_path: Path, capsys) -> None:
    for i in range(7):
        levels = np.zeros((32, 40), np.uint8)
        levels[: {0: 0, 4: 32}.get(i, 8)] = 255  # nothing, everything, a quarter
        cv2.imwrite(str(tmp_path / f"{i}.png"), levels)
    cv2.imwrite(str(tmp_path / "3.png"), np.eye(40, dtype=np.uint8) * 255)
    rows = evaluate(script, place, tmp_path / "out", "protocol=mask_list", f"mask_path={tmp_path}/?.png")
    assert [row["image_index"] for row in rows] == ["1", "5"]
    assert [row["hole_area"] for row in rows] == ["0.25"] * 2
    error = capsys.readouterr().err
    assert "0.png: has no hole: its levels are all 0" in error
    assert "3.png: is 40x40 (width x height), the image 40x32" in error
    assert "4.png: covers the whole image, which leaves nothing known" in error
    summary = (tmp_path / "out/test.txt").read_text(encoding="utf-8")
    assert "2: the first 7 of 7, less 5 skipped" in summary
    assert "/0.png: has no hole" in summary and str(tmp_path) not in summary


@pytest.mark.parametrize("option", ["mask_invert=true", "--invert-mask"])
def test_masks_in_which_black_is_the_hole(script, place: Path, tmp_path: Path, capsys, option: str) -> None:
    for i in range(7):
        levels = np.full((32, 40), 255, np.uint8)
        levels[:4] = 0
        cv2.imwrite(str(tmp_path / f"{i}.png"), levels)
    masks = ["protocol=mask_list", f"mask_path={tmp_path}/?.png", "--count", "2"]
    rows = evaluate(script, place, tmp_path / "a", *masks)
    assert [row["hole_area"] for row in rows] == ["0.875"] * 2
    assert capsys.readouterr().err.count("the hole is 88% of the image; black holes") == 1
    rows = evaluate(script, place, tmp_path / "b", *masks, option)
    assert [row["hole_area"] for row in rows] == ["0.125"] * 2
    assert "black holes" not in capsys.readouterr().err
    assert "black is the hole" in " ".join((tmp_path / "b/test.txt").read_text(encoding="utf-8").split())


def test_images_and_masks_in_one_folder(script, place: Path, tmp_path: Path, capsys) -> None:
    for i in range(2):
        shutil.copy(place / f"photos/photo {i}.png", tmp_path / f"image{i}.png")
        levels = np.zeros((32, 40), np.uint8)
        levels[4:12, 8:20] = 255
        cv2.imwrite(str(tmp_path / f"image{i}_mask001.png"), levels)
    masks = ["protocol=mask_dir", f"mask_path={tmp_path}", f"val_data_path={tmp_path}"]
    rows = evaluate(script, place, tmp_path / "out", *masks)
    assert [(row["image"], row["hole"]) for row in rows] == [
        ("image0.png", "image0_mask001.png"), ("image1.png", "image1_mask001.png")
    ]
    assert "2 of 4 files are masks of others by their names and left out" in capsys.readouterr().err


def test_the_crop_is_chosen_and_stated(script, place: Path, tmp_path: Path) -> None:
    for crop, words in (
        ("fit", "shrunk (area averaging) to just cover it"),
        ("stretch", "without keeping its aspect ratio"),
        ("[40,50]", "the middle 40x50 of the image, resized"),
    ):
        rows = evaluate(script, place, tmp_path, f"eval_crop={crop}", "--count", "1", "--save-images")
        photo = read_rgb(str(place / "photos/photo 0.png"))  # 50 rows, 60 columns
        photo = {"fit": photo, "stretch": photo, "[40,50]": photo[5:45, 5:55]}[crop]
        size = (40, 33) if crop == "fit" else (40, 32)
        expected = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)[:32]
        saved = cv2.imread(str(tmp_path / "originals/000000_photo 0.png"))
        np.testing.assert_array_equal(saved, expected[..., ::-1])
        assert len(rows) == 1
        assert words in " ".join((tmp_path / "test.txt").read_text(encoding="utf-8").split())


def test_total_is_what_count_overrides(script, place: Path, tmp_path: Path, monkeypatch) -> None:
    assert script.TOTAL is None
    monkeypatch.setattr(script, "TOTAL", 1)
    assert len(evaluate(script, place, tmp_path)) == 1
    assert len(evaluate(script, place, tmp_path, "--count", "2")) == 2
    assert len(evaluate(script, place, tmp_path, "--count", "1000000")) == 5


def test_a_training_file_serves_as_well(script, place: Path, tmp_path: Path) -> None:
    text = (place / "config.yaml").read_text() + "train_data_path: absent.txt\nnetG: {ngf: 8}\nniter: 3\n"
    (tmp_path / "train.yaml").write_text(text)
    rows = evaluate(script, place, tmp_path, "--config", str(tmp_path / "train.yaml"), "--count", "1")
    assert [row["method"] for row in rows] == ["model"]


def test_the_checkpoint_decides_what_the_model_sees(script, place: Path, tmp_path: Path, capsys) -> None:
    path = tiny_checkpoint.write(tmp_path, mask_type="mosaic", mosaic_unit_size=4)
    evaluate(script, place, tmp_path, "--checkpoint", path, "--count", "1")
    captured = capsys.readouterr()
    assert "warning: the model was trained with mask_type mosaic" in captured.err
    assert "sees a mosaic of 4-pixel blocks" in " ".join(captured.out.split())


def test_a_coarse_model_is_compared_with_the_classical_methods(script, place: Path, tmp_path: Path) -> None:
    path = tiny_checkpoint.write(tmp_path, coarse_only=True)
    rows = evaluate(script, place, tmp_path, "--checkpoint", path, "--count", "1", "--baselines")
    assert [row["method"] for row in rows] == [method for method in METHODS if method != "coarse"]
    assert "coarse stage only" in (tmp_path / "test.txt").read_text(encoding="utf-8")


def test_a_model_without_contextual_attention_is_named_so(script, place: Path, tmp_path: Path) -> None:
    architecture = {"generator_channels": 4, "dialect": "tf1", "contextual_attention": False}
    path = tiny_checkpoint.write(tmp_path, architecture=architecture)
    rows = evaluate(script, place, tmp_path, "--checkpoint", path, "--count", "1", "--baselines")
    assert [row["method"] for row in rows] == list(METHODS)
    summary = (tmp_path / "test.txt").read_text(encoding="utf-8")
    assert "dialect tf1, 4 channels, without contextual attention" in " ".join(summary.split())


def test_a_damaged_newest_checkpoint_is_passed_over(script, place: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "checkpoints/toy/hole_small"
    tiny_checkpoint.write(folder, 5)
    (folder / "checkpoint_00000006.npz").write_bytes(b"PK")
    (tmp_path / "config.yaml").write_bytes((place / "config.yaml").read_bytes())
    evaluate(script, tmp_path, tmp_path / "out", "--count", "1")
    captured = capsys.readouterr()
    assert "checkpoint_00000006.npz" in captured.err
    assert "iteration 5" in captured.out


def test_the_released_generator_where_no_run_is_named(script, place: Path, tmp_path, monkeypatch, capsys) -> None:
    """A fresh clone: no run, the default configuration. A run that is named must have a checkpoint of its own."""
    released = tiny_checkpoint.write(tmp_path / "release", 31)
    monkeypatch.setattr(tester, "RELEASED", released)
    monkeypatch.setattr(script, "RELEASED", released)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/test.yaml").write_bytes((place / "config.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    common = ["--count", "1", "--device", "cpu"]
    assert script.main(common) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("weights: release/checkpoint_00000031.npz, iteration 31\n")
    assert "warning" not in captured.err.replace("warning: skipped", "")
    assert [path.name for path in (tmp_path / "release").iterdir()] == ["checkpoint_00000031.npz"]
    assert (tmp_path / "checkpoints/toy/hole_small/test.txt").is_file()  # the project's own folder stays as it is

    for named in (["--config", "./configs/test.yaml"], ["expname=other"], ["mask_type=mosaic"]):
        with pytest.raises(SystemExit):
            script.main([*common, *named])
        assert "or name a checkpoint with --checkpoint (released: the one" in capsys.readouterr().err
        assert script.main([*common, *named, "--checkpoint", "released", "--output", "out"]) == 0


def test_names_that_are_no_text(script, place: Path, tmp_path: Path) -> None:
    good, bad = (os.fsencode(tmp_path) + name for name in (b"/f\xe9.png", b"/\xff.png"))
    try:
        Path(os.fsdecode(good)).write_bytes((place / "photos/photo 0.png").read_bytes())
        Path(os.fsdecode(bad)).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such names")
    (tmp_path / "list.txt").write_bytes(b"f\xe9.png\n\xff.png\n")
    overrides = [f"val_data_path={tmp_path}/list.txt", "--save-images"]
    rows = evaluate(script, place, tmp_path / "out", *overrides)
    assert [row["image"] for row in rows] == ["f\\udce9.png"]
    assert "\\udcff.png: is empty" in (tmp_path / "out/test.txt").read_text(encoding="utf-8")
    assert len(list((tmp_path / "out/images").iterdir())) == 1


def errors(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """Name -> (arguments, what the one line must say)."""
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "missing.txt").write_text("one.png\ntwo.png\n")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (tmp_path / "bad.txt").write_text("bad.png\n")
    (tmp_path / "zero.npz").write_bytes(b"")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04N.")
    (tmp_path / "broken.yaml").write_text("val_data_path: [\n")
    wide = tiny_checkpoint.write(tmp_path / "wide", architecture={"generator_channels": 2, "dialect": "tf1"})
    return {
        "no config": (["--config", "absent.yaml"], "absent.yaml: no such configuration file"),
        "broken config": (["--config", f"{tmp_path}/broken.yaml"], "not valid YAML"),
        "unknown key": (["protocl=center"], "unknown key 'protocl': did you mean protocol?"),
        "no key": (["center"], "write key=value"),
        "unknown option": (["--checkpont", "x"], "unrecognized arguments: --checkpont"),
        "count 0": (["--count", "0"], "--count (or TOTAL in test.py) must be a whole number from 1, not 0"),
        "count word": (["--count", "few"], "argument --count: invalid int value: 'few'"),
        "seed": (["--seed", "-1"], "seed must be a whole number"),
        "no list": (["val_data_path=absent.txt"], "val_data_path: the file list absent.txt does not exist"),
        "how to list": (["val_data_path=absent.txt"], "make one with: find FOLDER -name '*.jpg' | sort >"),
        "empty list": ([f"val_data_path={tmp_path}/empty.txt"], "empty.txt is empty"),
        "missing files": ([f"val_data_path={tmp_path}/missing.txt"], "2 of 2 files listed"),
        "all bad": ([f"val_data_path={tmp_path}/bad.txt"], "bad.png: is not an image of a known format"),
        "hole too large": (["mask_shape=[40,40]"], "mask_shape"),
        "no mask path": (["protocol=mask_dir"], "protocol mask_dir needs mask_path"),
        "no mask folder": (["protocol=mask_dir", "mask_path=absent"], "mask_path: the folder of masks absent"),
        "masks missing": (["protocol=mask_dir", f"mask_path={tmp_path}"], "7 of 7 masks are not in"),
        "few masks": (["protocol=mask_list", f"mask_path={tmp_path}"], "has 1 masks, but 7 images"),
        "engine": (["--engine", "eager"], "--engine is gone: the network itself is as fast; for deployment see"),
        "holes": (["masks_per_image=2"], "masks_per_image must be 1 with protocol center"),
        "inverted boxes": (["--invert-mask"], "mask_invert needs protocol mask_dir or mask_list"),
        "old keys": (["holes_per_image=2"], "key holes_per_image is not used here: its name is masks_per_image"),
        "crop": (["eval_crop=middle"], "eval_crop must be center, fit, stretch or [height, width]"),
        "side": (["image_shape=[36,40,3]"], "divisible by 8"),
        "no run": (["expname=other"], "hole_other: holds no checkpoint: train first (python train.py"),
        "no checkpoint": (["--checkpoint", "absent.npz"], "absent.npz: no such checkpoint"),
        "empty checkpoint": (["--checkpoint", f"{tmp_path}/zero.npz"], "empty (0 bytes)"),
        "pickle": (["--checkpoint", f"{tmp_path}/pickle.npz"], "pickle.npz: holds weights of another implementation"),
        "other width": (["--checkpoint", wide], "of another width (4 channels, here 2"),
        "no folder": (["--output", f"{tmp_path}/zero.npz/out"], "cannot write to the folder"),
    }


@pytest.mark.parametrize("name", [
    "no config", "broken config", "unknown key", "no key", "unknown option", "count 0", "count word", "seed",
    "no list", "how to list", "empty list", "missing files", "all bad", "hole too large", "no mask path",
    "no mask folder", "masks missing", "few masks", "holes", "engine", "inverted boxes", "old keys",
    "crop", "side", "no run",
    "no checkpoint", "empty checkpoint", "pickle", "other width", "no folder",
])
def test_one_line_says_what_is_wrong(
    script, place: Path, tmp_path: Path, monkeypatch, capsys, name: str
) -> None:
    arguments, message = errors(tmp_path)[name]
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as exit_:
        script.main(["--config", "config.yaml", "--output", str(tmp_path / "out"), *arguments])
    assert exit_.value.code == 2
    beside = "warning: skipped", "note: "
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(beside)]
    lines = [line for line in lines if not line.endswith("images")]  # progress
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="this Paddle may have a GPU to use")
def test_a_gpu_that_is_not_there(script, place: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as exit_:
        script.main(["--config", "config.yaml", "--device", "gpu"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: --device gpu: ")


def test_the_default_configuration_without_places2(tmp_path: Path) -> None:
    """`python test.py`, from any folder, without data: one line, no traceback, exit code 2."""
    finished = run(tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stderr.startswith("error: val_data_path: the file list data_places2/val.txt does not")
