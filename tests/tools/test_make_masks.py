from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.eval_set import RandomMasks

PROJECT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("make_masks", PROJECT / "tools" / "make_masks.py")
make_masks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_masks)


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    (tmp_path / "c.yaml").write_text("val_data_path: absent.txt\nimage_shape: [32, 40, 3]\nmask_shape: [8, 8]\n")
    return ["--config", str(tmp_path / "c.yaml")]


def test_masks_are_those_of_the_protocol(tmp_path: Path, config: list[str], capsys) -> None:
    """--count needs no list of photographs."""
    folder = tmp_path / "new" / "masks"
    overrides = ["protocol=freeform-medium", "masks_per_image=2", "seed=6"]
    assert make_masks.main([str(folder), *config, "--count", "3", *overrides]) == 0
    assert capsys.readouterr().out == f"6 masks, listed in {folder / 'masks.txt'}\n"
    names = [f"{index:06d}_{number}.png" for index in range(3) for number in range(2)]
    assert (folder / "masks.txt").read_text() == "\n".join(names) + "\n"
    assert sorted(path.name for path in folder.iterdir()) == [*names, "masks.txt"]
    holes = RandomMasks("freeform-medium", (32, 40), (8, 8), (0, 0), (0, 0), 6)
    for k, name in enumerate(names):
        saved = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(saved, 255 * holes.hole(k // 2, k % 2)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the file list absent.txt does not exist"),
        (["--count", "0"], "--count must be a whole number from 1, not 0"),
        (["--count", "1", "protocol=mask_list", "mask_path=x"], "protocol mask_list is of saved masks"),
        (["--count", "1", "protocol=freeform"], "protocol must be one of center"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, config, capsys, arguments, message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        make_masks.main([str(tmp_path / "masks"), *config, *arguments])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "masks").exists()
