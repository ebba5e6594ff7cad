"""tools/export.py from the outside, and the scripts of docs/deploy.md with what it wrote."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import tiny_checkpoint
from tools import export
from utils.cli import UserError

PROJECT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("paddle2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
ONNX = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: the optional ONNX export")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[str, Path]:
    """A checkpoint and the folder of its programs."""
    folder = tmp_path_factory.mktemp("export")
    checkpoint = tiny_checkpoint.write(folder / "run")
    export.main([checkpoint, "--output", str(folder / "programs"), "--format", "paddle" if MISSING else "both"])
    return checkpoint, folder / "programs"


def test_what_is_written(exported) -> None:
    checkpoint, folder = exported
    about = json.loads((folder / "about.json").read_text())
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    assert about["checkpoint"] == {"file": "checkpoint_00000007.npz", "sha256": digest, "iteration": 7}
    assert about["network"] == {"channels": 4, "dialect": "tf1", "coarse_only": False, "contextual_attention": True}
    assert list(about["outputs"]) == ["completed", "coarse", "offsets"]
    engines = ["Paddle Inference", "Paddle Inference with oneDNN"] + ["ONNX Runtime"] * (not MISSING)
    assert list(about["largest_difference"]) == engines
    assert all(0 < difference <= 1e-5 for difference in about["largest_difference"].values())
    names = {path.name for path in folder.iterdir()}
    programs = names - {"about.json", "completion.pdiparams", "completion.onnx"}
    assert programs in ({"completion.json"}, {"completion.pdmodel"})
    assert ("completion.onnx" in names) == (not MISSING)


def test_a_program_that_differs_is_removed(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(export, "save_program", lambda completion, path: written(path))
    monkeypatch.setattr(export, "Predictor", lambda *_: None)
    monkeypatch.setattr(export, "largest_difference", lambda *_: 2e-4)
    with pytest.raises(SystemExit) as end:
        export.main([tiny_checkpoint.write(tmp_path / "run"), "--output", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "error: Paddle Inference: differs from the network by more than 0.0001" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def written(path: str) -> None:
    for suffix in (".json", ".pdiparams"):
        Path(path + suffix).write_bytes(b"")


def test_without_the_optional_package(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    with pytest.raises(UserError, match="--format onnx needs paddle2onnx and onnx: pip install paddle2onnx==2.1.0"):
        export.main(["absent.npz", "--output", str(tmp_path), "--format", "onnx"])


def scripts() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8"), re.S)


def test_scripts_are_short() -> None:
    assert len(scripts()) == 2
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 26 for text in scripts())


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=ONNX)])
def test_scripts_complete_a_picture_without_the_repository(exported, tmp_path: Path, number: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    hole = np.zeros((37, 45), np.uint8)
    hole[10:30, 12:40] = 255
    cv2.imwrite(str(tmp_path / "in.png"), image)
    cv2.imwrite(str(tmp_path / "mask.png"), hole)
    (tmp_path / "complete.py").write_text(scripts()[number], encoding="utf-8")
    command = [sys.executable, "complete.py", str(exported[1]), "in.png", "mask.png", "out.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = cv2.imread(str(tmp_path / "out.png"))
    np.testing.assert_array_equal(result[hole == 0], image[hole == 0])

    own = tmp_path / "own.png"
    options = ["--image", "in.png", "--mask", "mask.png", "--output", str(own), "--engine", "eager"]
    command = [sys.executable, str(PROJECT / "test.py"), *options, "--checkpoint", exported[0], "--device", "cpu"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert np.abs(result.astype(int) - cv2.imread(str(own))).max() <= 1
