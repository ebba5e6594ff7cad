from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import oracle

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "attention_transfer.py"
spec = importlib.util.spec_from_file_location("attention_transfer", SCRIPT)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def photo(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fuse", [False, True])
def test_is_the_literal_attention_on_levels(fuse: bool) -> None:
    a, b = photo(12, 16, 0), photo(10, 8, 1)
    result, offsets = tool.rebuild(a, b, fuse)
    f, g = (image.transpose(2, 0, 1)[None].astype(float) for image in (a, b))
    features, expected, _ = oracle.contextual_attention(f, g, fuse=fuse)
    assert np.abs(result - np.clip(features[0].transpose(1, 2, 0), 0, 255)).max() <= 0.51
    np.testing.assert_array_equal(offsets, expected[0])


def test_a_picture_finds_itself() -> None:
    """From its own patches every patch comes back from its own place, but for the border, which overlaps less."""
    image = photo(24, 30, 2)
    result, offsets = tool.rebuild(image, image, fuse=False)
    assert (offsets == 0).all()
    np.testing.assert_array_equal(result[1:-1, 1:-1], image[1:-1, 1:-1])


def test_from_files_to_files(tmp_path: Path, capsys) -> None:
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "out.png", "colours.png")]
    for path, image in zip(paths, (photo(33, 27, 3), photo(40, 21, 4))):
        cv2.imwrite(path, image)
    assert tool.main([*paths[:2], "--output", paths[2], "--save-attention", paths[3]]) == 0
    assert cv2.imread(paths[2]).shape == (33, 27, 3)  # odd sides come back as they were
    assert cv2.imread(paths[3]).shape == (33 * 8, 27 * 8 + 200, 3)
    assert "rebuilt from 10x20 pixels" in capsys.readouterr().out
    assert tool.main([*paths[:2], "--output", paths[2], "--max-side", "20", "--scale", "1"]) == 0
    assert max(cv2.imread(paths[2]).shape) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.png", "absent.png"), "absent.png: cannot be read"),
        (("a", "b", "--scale", "0"), "--scale must be from 0.01 to 4, not 0.0"),
        (("a", "b", "--max-side", "1"), "--max-side must be a whole number from 2, not 1"),
    ],
)
def test_one_line_says_what_is_wrong(capsys, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        tool.main([*arguments, "--output", "never.png"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
