"""From painting to the result in a real browser; `make test-web`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from tests import tiny_checkpoint
from tests.web.harness import PROJECT, Page, Server, find_browser, wait_for

pytestmark = pytest.mark.web
SIDE = 256  # --max-side
SAMPLE = Path(skimage.__file__).parent / "data" / "chelsea.png"  # 451 x 300


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    for package in ("gradio", "selenium"):
        pytest.importorskip(package, reason=f"needs {package}: make test-web installs it")
    find_browser()
    sizes = {"image_size": [64, 64], "box_size": [32, 32]}
    architecture = tiny_checkpoint.meta()["architecture"] | sizes
    return tiny_checkpoint.write(tmp_path_factory.mktemp("checkpoint"), architecture=architecture)


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    """One for all tests; at its end Ctrl-C must leave nothing behind."""
    server = Server(tmp_path_factory.mktemp("server"), checkpoint, "--max-side", str(SIDE), "--max-megabytes", "1")
    try:
        yield server
        assert list(server.folder.rglob("*.png"))  # there was something to delete
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0, server.said()
        assert server.said().endswith("stopped\n") and "Traceback" not in server.said()
        assert not list(server.folder.iterdir())
        assert not server.asked_outside()
    finally:
        server.process.kill()


@pytest.fixture
def page(server, tmp_path):
    page = Page(tmp_path, server.address)
    try:
        page.open()
        yield page
        assert page.errors() == []
        assert page.foreign_requests() == []
    finally:
        page.driver.quit()


def photo(path: Path, height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """Smooth noise, written as PNG."""
    small = np.random.default_rng(0).integers(0, 2 ** (8 * np.dtype(dtype).itemsize), (4, 6, 3)).astype(dtype)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    assert cv2.imwrite(str(path), image)
    return image


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def by_command_line(checkpoint: str, image: Path, hole: np.ndarray, folder: Path) -> bytes:
    """The file that test.py writes."""
    mask, output = folder / "hole.png", folder / "expected.png"
    assert cv2.imwrite(str(mask), hole.astype(np.uint8) * 255)
    command = ["test.py", "--checkpoint", checkpoint, "--image", image, "--mask", mask, "--output", output]
    subprocess.run([sys.executable, *command, "--max-side", str(SIDE)], cwd=PROJECT, check=True, capture_output=True)
    return output.read_bytes()


def test_from_painting_to_the_file(page, checkpoint, tmp_path) -> None:
    page.choose_sample(1, "chelsea.png: 451x300")
    page.driver.save_screenshot(str(tmp_path / "before.png"))
    page.drag("#editor canvas", (-100, -60), [(10, 4)] * 16)
    status = page.complete()
    page.driver.save_screenshot(str(tmp_path / "after.png"))
    result = page.download()
    assert result.name == "chelsea_completed.png"

    before, after = read(SAMPLE), read(result)
    hole = (before != after).any(axis=2)  # an untrained network hits no pixel's colour by chance
    # What comes of a wrong hole is another file; outside of the hole it would show in `hole`.
    assert result.read_bytes() == by_command_line(checkpoint, SAMPLE, hole, tmp_path)
    assert f"the hole is {hole.mean():.1%} of the picture" in status

    # It is where the mouse was: the stroke's ends in pixels of the picture, which is in the middle of the canvas.
    zoom = int(re.search(r">\s*(\d+)%", page.find("#editor .zoom-number").get_attribute("innerHTML"))[1]) / 100
    rows, columns = np.nonzero(hole)
    middle = np.array(before.shape[1::-1]) / 2
    first, last = middle + np.array([-100, -60]) / zoom, middle + np.array([60, 4]) / zoom
    radius = ((rows.max() - rows.min() + 1) - (last[1] - first[1])) / 2
    assert 2 < radius < 60
    expected = first[0] - radius, last[0] + radius, first[1] - radius, last[1] + radius
    np.testing.assert_allclose((columns.min(), columns.max(), rows.min(), rows.max()), expected, atol=4)

    # before and after, the coarse stage and the attention are shown
    assert len(page.driver.find_elements("css selector", "#slider img")) == 2
    for number, name in ((4, "coarse"), (5, "attention")):
        page.tab(number)
        assert page.find(f"#{name} img")


def test_upload_with_a_mask_of_16_bits_and_any_size(page, checkpoint, tmp_path) -> None:
    image = photo(tmp_path / "mine.png", 45, 61, np.uint16)
    hole = np.zeros((45, 61), bool)
    hole[10:22, 30:50] = True
    assert cv2.imwrite(str(tmp_path / "mask.png"), hole.astype(np.uint8) * 255)
    page.upload("upload", tmp_path / "mine.png", "mine.png: 61x45 pixels")
    page.tab(2)
    page.upload("mask", tmp_path / "mask.png", "mask.png")
    page.complete()
    result = page.download()
    assert read(result).dtype == np.uint16
    np.testing.assert_array_equal(read(result)[~hole], image[~hole])
    assert result.read_bytes() == by_command_line(checkpoint, tmp_path / "mine.png", hole, tmp_path)


def test_box_by_two_clicks_on_a_large_picture(page, checkpoint, tmp_path) -> None:
    """Shown smaller than it is, with a box in its own pixels, much larger than those trained on."""
    image = photo(tmp_path / "large.png", 900, 1600)
    page.upload("upload", tmp_path / "large.png", "large.png: 1600x900 pixels")
    page.tab(1)
    wait_for(lambda: page.find("#board img").get_property("naturalWidth") == 1280, "the picture to click on")
    scale = 1600 / min(page.find("#board img").size["width"], page.find("#board img").size["height"] * 16 / 9)
    clean = page.find("#board img").get_attribute("src")
    page.click_at("#board img", (-200, -120))
    wait_for(lambda: page.find("#board img").get_attribute("src") != clean, "the first corner")
    page.click_at("#board img", (100, 90))
    status = page.complete()
    assert "expect a poor result; try working size" in status

    after = read(page.download())
    rows, columns = np.nonzero((image != after).any(axis=2))
    expected = [800 - 200 * scale, 800 + 100 * scale, 450 - 120 * scale, 450 + 90 * scale]
    np.testing.assert_allclose([columns.min(), columns.max(), rows.min(), rows.max()], expected, atol=4 * scale)
    hole = np.zeros(image.shape[:2], bool)
    hole[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    np.testing.assert_array_equal(after[~hole], image[~hole])


def test_refusals_are_one_line(page, server, tmp_path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(SAMPLE.read_bytes() + bytes(2**20))
    page.upload("upload", large, "exceed the maximum allowed size")
    reply = subprocess.run(
        ["curl", "-s", "--noproxy", "*", "-F", f"files=@{large}", f"{server.address}/gradio_api/upload"],
        capture_output=True, text=True, check=True,
    ) if shutil.which("curl") else None  # fmt: skip
    assert reply is None or "exceeded maximum allowed size" in reply.stdout  # not the page alone refuses
    page.open()

    (tmp_path / "text.png").write_text("no picture")
    many = tmp_path / "many.png"
    assert cv2.imwrite(str(many), np.zeros((4100, 4100), np.uint8))
    half = np.repeat(np.uint8([[0], [255]]), [5, 15], axis=0).repeat(30, axis=1)
    assert cv2.imwrite(str(tmp_path / "other.png"), half)
    for path, message in (
        (tmp_path / "text.png", "Error: text.png: is not an image of a known format"),
        (many, "Error: many.png: has 4100x4100 pixels, above the limit of 16777216"),
    ):
        page.upload("upload", path, message)
        assert page.status().count("\n") == 0
        page.open()
    page.find("#complete").click()
    assert page.wait_for_status("Error").startswith("Error: there is no hole yet: paint")
    page.tab(2)
    page.upload("mask", tmp_path / "other.png", "other.png")
    page.find("#complete").click()
    expected = "Error: coffee.png: its mask other.png: is 30x20 (width x height), the image 600x400; give a mask of "
    expected += "the same size, or stretch it with “stretch the mask”"
    assert page.wait_for_status("other.png") == expected
    assert "Traceback" not in page.driver.page_source


def test_chinese_browsers_get_chinese_labels(server, tmp_path) -> None:
    page = Page(tmp_path, server.address, "zh-CN")
    try:
        page.open()
        assert page.find("#complete").text == "3. 补全"
    finally:
        page.driver.quit()
