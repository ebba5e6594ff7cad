from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

# by its path: a script is run, not imported by name
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "make_demo_data.py"
spec = importlib.util.spec_from_file_location("make_demo_data", SCRIPT)
make_demo_data = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_demo_data)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
        assert make_demo_data.main(["--output", str(folder)]) == 0
    return folder


def listed(output: Path, name: str) -> list[str]:
    return (output / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def test_a_few_dozen_images_that_exist_and_fit_training(output: Path) -> None:
    for name, count in (("train", 42), ("val", 16)):
        lines = listed(output, name)
        assert len(lines) == len(set(lines)) == count
        assert {line.split("/")[0] for line in lines} == {name}
        for line in lines:
            image = cv2.imread(str(output / line))
            assert min(image.shape[:2]) >= 190, line
            assert image.std() > 5, line  # no blank tile


def test_no_original_is_in_both_lists(output: Path) -> None:
    train, val = (
        {Path(line).stem.rsplit("_", 1)[0] for line in listed(output, name)} for name in ("train", "val")
    )
    assert not train & val
    assert {"motorcycle_left", "motorcycle_right"} <= train  # nearly the same picture


def test_tiles_are_parts_of_the_original(output: Path) -> None:
    coffee = cv2.imread(str(make_demo_data.image_folder() / "coffee.png"))
    assert coffee.shape == (400, 600, 3)
    np.testing.assert_array_equal(cv2.imread(str(output / "val/coffee_1.png")), coffee[:200, 300:])
    np.testing.assert_array_equal(cv2.imread(str(output / "val/coffee_2.png")), coffee[200:, :300])


def test_a_second_run_gives_the_same_files(output: Path, tmp_path: Path) -> None:
    assert make_demo_data.main(["--output", str(tmp_path)]) == 0
    files = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((output / path).read_bytes() == (tmp_path / path).read_bytes() for path in files)


def test_cut_by_hand() -> None:
    image = np.arange(5 * 4).reshape(5, 4, 1)
    tiles = make_demo_data.cut(image, 2, 2)
    assert [tile[..., 0].tolist() for tile in tiles] == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
        [[8, 9], [12, 13]],
        [[10, 11], [14, 15]],
    ]


def test_missing_images_and_unwritable_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        make_demo_data.main(["--output", str(tmp_path / "file")])
    assert capsys.readouterr().err.startswith("error: ")

    monkeypatch.setattr(make_demo_data, "image_folder", lambda: tmp_path)
    with pytest.raises(SystemExit, match="2"):
        make_demo_data.main(["--output", str(tmp_path / "out")])
    expected = f"error: {tmp_path / 'astronaut.png'} cannot be read: reinstall scikit-image\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "out" / "train.txt").exists()


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(make_demo_data.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="2"):
        make_demo_data.main([])
    assert "scikit-image is not installed: run `make setup`" in capsys.readouterr().err
