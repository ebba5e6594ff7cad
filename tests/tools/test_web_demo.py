from __future__ import annotations

import argparse
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

import tester
from data.image_io import write_image
from tests import tiny_checkpoint
from utils.cli import UserError

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load(name: str) -> ModuleType:
    """As for a script, whose own folder is where imports begin."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


steps = load("web_steps")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tester.Tester:
    architecture = tiny_checkpoint.meta()["architecture"] | {"image_size": [64, 64], "box_size": [16, 16]}
    return tester.Tester(tiny_checkpoint.write(tmp_path_factory.mktemp("checkpoint"), architecture=architecture))


def write(path: Path, image: np.ndarray) -> str:
    assert cv2.imwrite(str(path), image)
    return str(path)


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def opened(height: int, width: int, shown: tuple[int, int] | None = None):
    view = np.zeros((*(shown or (height, width)), 3), np.uint8)
    return steps.Opened("/tmp/server/photo.png", (height, width), view)


def layer(height: int, width: int, *places: tuple[int, int], alpha: int = 255) -> np.ndarray:
    strokes = np.zeros((height, width, 4), np.uint8)
    for row, column in places:
        strokes[row, column] = (230, 40, 40, alpha)
    return strokes


def test_samples_are_installed_and_can_be_opened() -> None:
    paths = steps.sample_paths()
    assert [Path(path).name for path in paths] == list(steps.SAMPLES)
    assert steps.open_picture(paths[0], 1).size == (400, 600)


def test_paint_is_what_covers_in_any_layer() -> None:
    assert steps.painted([]) is None
    assert steps.painted([layer(4, 6), layer(4, 6, (1, 1), alpha=127)]) is None
    strokes = steps.painted([layer(4, 6, (0, 5)), layer(4, 6, (3, 2), alpha=128)])
    assert np.argwhere(strokes).tolist() == [[0, 5], [3, 2]]


def test_paint_on_a_reduced_view_covers_whole_blocks_of_the_picture() -> None:
    hole = steps.find_hole(opened(8, 12, (4, 6)), [layer(4, 6, (1, 2))], [], None)
    assert np.argwhere(hole).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def test_strokes_boxes_and_mask_add_up() -> None:
    mask = np.zeros((4, 6), bool)
    mask[0, 0] = True
    hole = steps.find_hole(opened(4, 6), [layer(4, 6, (3, 5))], [(1, 1, 2, 1)], mask)
    assert np.argwhere(hole).tolist() == [[0, 0], [1, 1], [1, 2], [3, 5]]
    assert mask.sum() == 1  # the caller's own


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((1, 2), (3, 4), (1, 2, 3, 4)),
        ((3, 2), (1, 4), (1, 2, 3, 4)),  # any two opposite corners
        ((5, 3), (5, 3), (5, 3, 5, 3)),  # one pixel
        ((-1, 0), (9, 9), (0, 0, 5, 4)),  # no more than the picture
    ],
)
def test_box_of_two_corners(first, second, expected) -> None:
    assert steps.box_between(opened(5, 6), first, second) == expected


def test_box_on_a_reduced_view() -> None:
    """A pixel of the view is 2 x 2.5 pixels (across, down); all that it touches is in the box."""
    assert steps.box_between(opened(10, 12, (4, 6)), (1, 1), (2, 2)) == (2, 2, 5, 7)


def test_boxes_and_a_waiting_corner_are_drawn() -> None:
    picture = opened(80, 60, (40, 30))
    drawn = steps.draw_boxes(picture, [(10, 20, 19, 39)])
    rows, columns = np.nonzero((drawn == steps.HOLE_COLOR).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 19, 5, 9) and len(rows) == 50
    assert not picture.view.any()
    assert (steps.draw_boxes(picture, [], (15, 20))[20, 15] == steps.HOLE_COLOR).all()


@pytest.mark.parametrize(
    ("layers", "boxes", "message"),
    [
        ([], [], "there is no hole yet: paint over what is to be replaced, draw a box, or upload a mask"),
        ([], [(0, 0, 5, 3)], "the hole covers the whole picture"),
        ([layer(2, 2, (0, 0), (0, 1), (1, 0), (1, 1))], [], "covers the whole picture"),
    ],
)
def test_holes_that_are_none(layers, boxes, message) -> None:
    with pytest.raises(UserError, match=message):
        steps.find_hole(opened(4, 6), layers, boxes, None)


def test_mask_options(tmp_path) -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    path = write(tmp_path / "mask.png", mask)
    small = steps.open_picture(write(tmp_path / "small.png", photo(4, 6)), 1)
    picture = steps.open_picture(write(tmp_path / "photo.png", photo(8, 12)), 1)
    assert np.argwhere(steps.load_mask(small, path, 1, False, False)).tolist() == [[1, 2]]
    assert steps.load_mask(small, path, 1, True, False).sum() == 23
    assert steps.load_mask(picture, path, 1, False, True).sum() == 4
    with pytest.raises(UserError) as error:
        steps.load_mask(picture, path, 1, False, False)
    assert steps.in_page_words(error.value, path) == (
        "photo.png: its mask mask.png: is 6x4 (width x height), the image 12x8; give a mask of the same size, "
        "or stretch it with “stretch the mask”"
    )


def test_limits(tmp_path, monkeypatch) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(bytes(2**20 + 2**19))
    with pytest.raises(UserError, match=r"large.png: has 1.5 megabytes, above the limit of 1$"):
        steps.open_picture(str(path), 1)
    with pytest.raises(UserError, match="is no longer on the server; upload it again"):
        steps.open_picture(str(tmp_path / "gone.png"), 1)
    monkeypatch.setattr(steps, "MAX_PIXELS", 23)
    path = write(tmp_path / "many.png", photo(4, 6))
    with pytest.raises(Exception, match="has 6x4 pixels, above the limit of 23") as error:
        steps.open_picture(path, 1)
    assert steps.in_page_words(error.value, path).startswith("many.png: ")  # no paths of the server


def test_large_pictures_are_shown_reduced(tmp_path) -> None:
    picture = steps.open_picture(write(tmp_path / "wide.png", np.full((10, 2 * steps.VIEW_SIDE, 3), 77, np.uint8)), 1)
    assert picture.size == (10, 2 * steps.VIEW_SIDE)
    assert picture.view.shape == (5, steps.VIEW_SIDE, 3) and (picture.view == 77).all()


def test_complete_is_the_tester_and_known_pixels_stay(model, tmp_path) -> None:
    image = photo(21, 30, 4)
    picture = steps.open_picture(write(tmp_path / "photo.png", image), 1)
    hole = np.zeros((21, 30), bool)
    hole[5:9, 10:16] = True
    done = steps.complete(model, picture, hole, 1024, 1)

    rgb = cv2.cvtColor(image, cv2.COLOR_BGRA2RGB)
    padded = np.pad(rgb, ((0, 3), (0, 2), (0, 0)), mode="symmetric")
    coarse, refined, _ = model.inpaint_stages(padded[None], np.pad(hole, ((0, 3), (0, 2)), mode="symmetric")[None])
    np.testing.assert_array_equal(done.before, rgb)
    np.testing.assert_array_equal(done.after, np.where(hole[..., None], refined[0, :21, :30], rgb))
    np.testing.assert_array_equal(done.coarse, np.where(hole[..., None], coarse[0, :21, :30], rgb))
    assert done.attention.shape[2] == 3 and done.remarks == []
    write_image(str(tmp_path / "out.png"), done.picture)
    saved = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(saved[..., 2::-1], done.after)
    np.testing.assert_array_equal(saved[..., 3], image[..., 3])


def test_complete_at_a_lower_resolution_with_a_warning(model, tmp_path) -> None:
    image = photo(80, 96)
    picture = steps.open_picture(write(tmp_path / "photo.png", image), 1)
    hole = np.zeros((80, 96), bool)
    hole[10:70, 10:80] = True
    done = steps.complete(model, picture, hole, 48, 1)
    np.testing.assert_array_equal(done.after[~hole], image[..., ::-1][~hole])
    assert len(done.remarks) == 1
    assert "expect a poor result; try working size 2" in steps.in_page_words(done.remarks[0])
    hole[:] = True
    hole[0, 0] = False
    with pytest.raises(UserError) as error:
        steps.complete(model, picture, hole, 8, 1)
    expected = "at 8% of its size nothing known is left of the image; choose a larger working size"
    assert steps.in_page_words(error.value) == expected


def test_no_memory_is_said_in_one_line(model, tmp_path, monkeypatch) -> None:
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(model, "inpaint_stages", fail)
    picture = steps.open_picture(write(tmp_path / "photo.png", photo(8, 16)), 1)
    with pytest.raises(UserError, match="16x8 pixels need more memory; choose a smaller --max-side"):
        steps.complete(model, picture, np.eye(8, 16, dtype=bool), 64, 1)


def test_a_model_without_attention(tmp_path) -> None:
    model = tester.Tester(tiny_checkpoint.write(tmp_path, coarse_only=True))
    assert steps.checkpoint_line(model).endswith(
        "iteration 7, 4 channels, no attention, since only its coarse stage was trained"
    )
    picture = steps.open_picture(write(tmp_path / "photo.png", photo(8, 16)), 1)
    assert steps.complete(model, picture, np.eye(8, 16, dtype=bool), 64, 1).attention is None


def test_the_page_says_which_checkpoint(model) -> None:
    line = steps.checkpoint_line(model)
    assert "checkpoint_00000007.npz (0.3 MB): iteration 7, 4 channels" in line
    assert line.endswith("trained at 64x64 pixels, with holes in boxes of 16x16 pixels")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port must be a whole number from 1 to 65535, not 0"),
        (["--max-side", "7"], "--max-side must be a whole number from 8 to 65536, not 7"),
        (["--max-megabytes", "0"], "--max-megabytes must be a whole number from 1 to 10000, not 0"),
    ],
)
def test_bad_options(capsys, arguments, message) -> None:
    with pytest.raises(SystemExit) as exit_:
        load("web_demo").main(arguments)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("named", [False, True])
def test_the_released_generator_never_stands_in_for_a_run_that_is_named(tmp_path, monkeypatch, capsys, named) -> None:
    monkeypatch.chdir(tmp_path)
    demo = load("web_demo")
    monkeypatch.setattr(demo, "prepare_gradio", lambda folder: None)
    served = []
    monkeypatch.setattr(demo, "serve", lambda model, args, folder: served.append(model.source))
    released = tiny_checkpoint.write(tmp_path / "released")
    monkeypatch.setattr(tester, "RELEASED", str(released))
    text = (TOOLS.parent / "configs/test.yaml").read_text()
    for name in ("configs/test.yaml", "mine.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if named:
        with pytest.raises(SystemExit):
            demo.main(["--config", "mine.yaml"])
        assert "holds no checkpoint: train first" in capsys.readouterr().err and not served
    else:
        assert demo.main([]) == 0
        assert [Path(path).resolve() for path in served] == [Path(released).resolve()]


def test_without_gradio_one_line_says_how_to_get_it(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # to be as before afterwards
    with pytest.raises(SystemExit) as exit_:
        load("web_demo").main([])
    assert exit_.value.code == 2
    expected = "error: gradio is not installed: pip install -r requirements-web.txt (needs Python 3.10 or newer)\n"
    assert capsys.readouterr().err == expected


def test_other_threads_work_in_the_main_thread() -> None:
    demo = load("web_demo")
    main_thread = demo.MainThread()

    def stop() -> None:
        raise KeyboardInterrupt

    seen = []
    works = (threading.get_ident, lambda: {}["key"], stop)

    def ask() -> None:
        for work in works:
            try:
                seen.append(main_thread.call(work))
            except (KeyError, demo.UserError) as error:
                seen.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        main_thread.serve()
    thread.join(10)
    assert not thread.is_alive()
    assert seen == [threading.get_ident(), "'key'", "the program was stopped"]


def test_errors_become_a_line_of_the_page(capsys, model, tmp_path) -> None:
    pytest.importorskip("gradio", reason="needs Gradio: pip install -r requirements-web.txt")
    page = load("web_page")

    def fail(path: str):
        raise ValueError("secret") if path == "defect" else UserError(f"{path}: is <b>bad</b>")

    run = page.told(fail, "status")
    path = "/tmp/server/a.png"
    assert run(path) == {"status": '<p class="line error" role="alert">Error: a.png: is &lt;b&gt;bad&lt;/b&gt;</p>'}
    assert "secret" not in run("defect")["status"]
    assert "ValueError: secret" in capsys.readouterr().err  # for whoever runs the server
    assert page.paths([SimpleNamespace(path=path), None, 3, "b.png"]) == [path, "b.png"]
    options = argparse.Namespace(max_side=64, max_megabytes=1)
    built = page.build_page(model, options, str(tmp_path), None)
    assert built.title == "Complete a picture"

    # the picture is forgotten after an hour, and the browser still shows it
    (mark_corner,) = (function.fn for function in built.fns.values() if function.fn.__name__ == "mark_corner")
    (status,) = mark_corner(None, [], None, SimpleNamespace(index=[1, 2])).values()
    assert "Error: there is no picture yet: upload one or choose a sample<" in status
