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

pytestmark = pytest.mark.own_process
PROJECT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("paddle2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
ONNX = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: the optional ONNX export")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[str, Path, subprocess.CompletedProcess]:
    """A checkpoint, the folder of its inference models, and the export's process.

    It is a process of its own, as Paddle Inference changes the last bits of what networks compute after it.
    """
    folder = tmp_path_factory.mktemp("export")
    checkpoint = tiny_checkpoint.write(folder / "run")
    tiny_checkpoint.write(folder / "run", iteration=3)
    line = [sys.executable, str(PROJECT / "tools" / "export.py"), "run", "--output", "models"]
    line += ["--format", "paddle" if MISSING else "both"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return checkpoint, folder / "models", done


def test_it_is_quiet(exported) -> None:
    """Nothing but its own lines: neither Paddle's, paddle2onnx's nor ONNX Runtime's."""
    done = exported[2]
    own = re.compile(
        r"(Paddle Inference|Paddle Inference with oneDNN|ONNX Runtime): \d x \d+x\d+: largest .*|wrote .*"
    )
    assert done.stderr == "" and all(own.fullmatch(line) for line in done.stdout.splitlines()), done.stdout
    assert len(done.stdout.splitlines()) == (7 if MISSING else 10)


def test_what_is_written(exported) -> None:
    checkpoint, folder, _ = exported
    about = json.loads((folder / "about.json").read_text())
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    assert about["checkpoint"] == {"file": "checkpoint_00000007.npz", "sha256": digest, "iteration": 7}
    assert about["terms"] == "those of the images that it was trained on"
    assert about["network"] == {"channels": 4, "dialect": "tf1", "coarse_only": False, "contextual_attention": True}
    assert list(about["outputs"]) == ["completed", "coarse", "offsets"]
    engines = ["Paddle Inference", "Paddle Inference with oneDNN"] + ["ONNX Runtime"] * (not MISSING)
    assert list(about["largest_difference"]) == engines
    assert all(0 < difference <= 1e-5 for difference in about["largest_difference"].values())
    names = {path.name for path in folder.iterdir()}
    programs = names - {"about.json", "completion.pdiparams", "completion.onnx"}
    assert programs in ({"completion.json"}, {"completion.pdmodel"})
    assert ("completion.onnx" in names) == (not MISSING)


@pytest.fixture
def stubbed(tmp_path: Path, monkeypatch) -> list[str]:
    """Arguments of an export whose models are bytes; its folder holds all that earlier ones may leave."""
    monkeypatch.setattr(export, "save_program", lambda _, path: written(path + ".pdmodel", path + ".pdiparams"))
    monkeypatch.setattr(export, "save_onnx", lambda program, path, names: written(path))
    monkeypatch.setattr(export, "import_optional", lambda *_: None)
    monkeypatch.setattr(export, "onnx_session", lambda path: "ONNX")
    monkeypatch.setattr(export, "Predictor", lambda *_: "Paddle")
    monkeypatch.setattr(export, "largest_difference", lambda *_: 1e-6)
    monkeypatch.setattr(export.importlib.metadata, "version", lambda name: "0")
    (tmp_path / "out").mkdir()
    for name in (*EVERYTHING, "notes.txt"):
        (tmp_path / "out" / name).write_bytes(b"earlier")
    return [tiny_checkpoint.write(tmp_path / "run"), "--output", str(tmp_path / "out"), "--format"]


EVERYTHING = {"about.json", "completion.json", "completion.pdmodel", "completion.pdiparams", "completion.onnx"}


def test_the_released_weights_and_their_terms(stubbed: list[str], tmp_path: Path) -> None:
    if not Path(export.resolve_checkpoint("released", "", print)).is_file():
        pytest.skip("this copy holds no released weights")
    export.main(["released", *stubbed[1:], "paddle"])
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert about["checkpoint"]["file"] == "generator.npz" and about["network"]["channels"] == 32
    assert about["terms"].startswith("For non-commercial research and education") and "BSDS500" in about["terms"]


def test_terms_of_converted_weights(stubbed: list[str], tmp_path: Path) -> None:
    """A README that is not of a release says nothing of the weights."""
    checkpoint = tiny_checkpoint.write(tmp_path / "other", source={"program": "pytorch", "files": []})
    (tmp_path / "other/README.md").write_text("## Licence and terms\n\nMIT\n")
    export.main([checkpoint, *stubbed[1:], "paddle"])
    terms = json.loads((tmp_path / "out/about.json").read_text())["terms"]
    assert terms == "those of the weights that it was converted from (pytorch)"


@pytest.mark.parametrize("chosen", ["latest", "nowhere/run", "empty"])
def test_no_such_checkpoint(tmp_path: Path, monkeypatch, chosen: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"^{chosen}: (no such checkpoint$|not a file$|holds no checkpoint: )"):
        export.main([chosen, "--output", "out"])
    assert not (tmp_path / "out").exists()


def written(*paths: str) -> None:
    for path in paths:
        Path(path).write_bytes(b"new")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("formats", "made"),
    [
        ("paddle", {"completion.pdmodel", "completion.pdiparams"}),
        ("onnx", {"completion.onnx"}),
        ("both", {"completion.pdmodel", "completion.pdiparams", "completion.onnx"}),
    ],
)
def test_a_folder_holds_one_export(stubbed: list[str], tmp_path: Path, capsys, formats: str, made: set) -> None:
    export.main([*stubbed, formats])
    found = contents(tmp_path / "out")
    about, notes = json.loads(found.pop("about.json")), found.pop("notes.txt")
    assert found == dict.fromkeys(made, b"new") and notes == b"earlier"
    assert ("ONNX Runtime" in about["largest_difference"]) == (formats != "paddle")
    *lines, last = capsys.readouterr().out.splitlines()
    assert all(str(tmp_path / "out" / name) in last for name in made | {"about.json"})
    removed = {line.split()[1] for line in lines if line.startswith("removed ")}
    assert removed == {str(tmp_path / "out" / name) for name in EVERYTHING - made - {"about.json"}}


@pytest.mark.parametrize("engine", ["Paddle", "ONNX"])
def test_a_model_that_differs_leaves_the_folder_alone(
    stubbed: list[str], tmp_path: Path, monkeypatch, capsys, engine: str
) -> None:
    monkeypatch.setattr(export, "largest_difference", lambda _, program, *size: 2e-4 if program == engine else 0.0)
    before = contents(tmp_path / "out")
    with pytest.raises(SystemExit) as end:
        export.main([*stubbed, "both"])
    assert end.value.code == 1
    error = rf"error: {engine}.*: differs from the network by more than 0.0001; nothing was written\n"
    assert re.fullmatch(error, capsys.readouterr().err)
    assert contents(tmp_path / "out") == before


def test_an_error_leaves_the_folder_alone(stubbed: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(export, "save_onnx", lambda *_: 1 / 0)
    before = contents(tmp_path / "out")
    with pytest.raises(ZeroDivisionError):
        export.main([*stubbed, "onnx"])
    assert contents(tmp_path / "out") == before


def test_what_cannot_be_replaced_is_one_line(stubbed: list[str], tmp_path: Path) -> None:
    (tmp_path / "out/completion.onnx").unlink()
    (tmp_path / "out/completion.onnx").mkdir()
    with pytest.raises(UserError, match=r"cannot write to the folder .*out: "):
        export.main([*stubbed, "onnx"])


@pytest.mark.parametrize("absent", ["paddle2onnx", "onnx", "onnxruntime"])
def test_without_an_optional_package(tmp_path: Path, monkeypatch, absent: str) -> None:
    """Nothing that cannot be compared is made."""
    for name in {"paddle2onnx", "onnx", "onnxruntime"} - {absent}:
        monkeypatch.setitem(sys.modules, name, object())
    monkeypatch.setitem(sys.modules, absent, None)
    needs = "paddle2onnx, onnx and onnxruntime: pip install paddle2onnx==2.1.0 'onnx<=1.17' onnxruntime"
    with pytest.raises(UserError, match=f"--format onnx needs {needs} .*{absent}"):
        export.main(["absent.npz", "--output", str(tmp_path / "out"), "--format", "onnx"])
    assert not (tmp_path / "out").exists()


def scripts() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8"), re.S)


def test_scripts_are_short() -> None:
    assert len(scripts()) == 2
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 32 for text in scripts())


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=ONNX)])
def test_scripts_inpaint_without_the_repository(exported, tmp_path: Path, number: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    hole = np.zeros((37, 45), np.uint8)
    hole[10:30, 12:40] = 255
    cv2.imwrite(str(tmp_path / "in.png"), image)
    cv2.imwrite(str(tmp_path / "mask.png"), hole)
    done = run_script(number, tmp_path, exported[1], "in.png", "mask.png")
    assert done.returncode == 0 and "transparency" not in done.stderr, done.stderr
    assert number == 0 or done.stdout + done.stderr == ""  # importing Paddle gives advice
    result = cv2.imread(str(tmp_path / "out.png"))
    np.testing.assert_array_equal(result[hole == 0], image[hole == 0])

    own = tmp_path / "own.png"
    options = ["--image", "in.png", "--mask", "mask.png", "--output", str(own)]
    command = [sys.executable, str(PROJECT / "test.py"), *options, "--checkpoint", exported[0], "--device", "cpu"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert np.abs(result.astype(int) - cv2.imread(str(own))).max() <= 1


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=ONNX)])
@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        ((40, 40, 3), (40, 48), r"mask\.png is 48x40, in\.png is 40x40"),
        ((40, 40, 3), None, r"cannot read mask\.png"),
        (None, (40, 40), r"cannot read in\.png"),
        ((768, 776, 3), (768, 776), r"in\.png has 776x768 pixels, this script takes at most 589824"),
    ],
)
def test_scripts_refuse_what_they_cannot_do(exported, tmp_path: Path, number: int, image, mask, message: str) -> None:
    for name, shape in (("in.png", image), ("mask.png", mask)):
        if shape:
            cv2.imwrite(str(tmp_path / name), np.zeros(shape, np.uint8))
    done = run_script(number, tmp_path, exported[1], "in.png", "mask.png")
    assert done.returncode == 1 and re.search(message, done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=ONNX)])
def test_scripts_say_that_transparency_is_dropped(exported, tmp_path: Path, number: int) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.full((24, 16, 4), 100, np.uint8))
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((24, 16), np.uint8))
    done = run_script(number, tmp_path, exported[1], "in.png", "mask.png")
    assert done.returncode == 0 and "in.png: its transparency is dropped" in done.stderr
    assert (cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED) == 100).all()


def run_script(number: int, folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    (folder / "inpaint.py").write_text(scripts()[number], encoding="utf-8")
    command = [sys.executable, "inpaint.py", *map(str, arguments), "out.png"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
