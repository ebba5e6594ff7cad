"""What goes to VisualDL; the library itself is optional and stood in for."""

from __future__ import annotations

import sys
import types

import cv2
import numpy as np
import pytest

from tools.to_visualdl import main
from utils.logger import format_line


class Writer:
    written: list = []

    def __init__(self, logdir):
        self.written.append(logdir)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_scalar(self, tag, value, step):
        self.written.append((tag, value, step))

    def add_image(self, tag, img, step):
        self.written.append((tag, img[0, 0].tolist(), step))


@pytest.fixture
def run(tmp_path):
    lines = [format_line(10, 90, {"l1": 0.5, "d": float("nan")}, 1.0), format_line(20, 90, {"l1": 0.25}, 1.0)]
    (tmp_path / "train.txt").write_text("# new run\n" + "\n".join(lines) + "\n")
    (tmp_path / "previews").mkdir()
    cv2.imwrite(str(tmp_path / "previews/preview_00000010.png"), np.full((4, 4, 3), (3, 2, 1), np.uint8))
    (tmp_path / "previews/preview_00000020.png").write_bytes(b"")
    return tmp_path


def test_scalars_and_previews(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "visualdl", types.SimpleNamespace(LogWriter=Writer))
    monkeypatch.setattr(Writer, "written", [])
    assert main([str(run), "--output", "board"]) == 0
    scalars = [("l1", 0.5, 10), ("speed", 1.0, 10), ("l1", 0.25, 20), ("speed", 1.0, 20)]
    assert Writer.written == ["board", *scalars, ("preview", [1, 2, 3], 10)]
    assert capsys.readouterr().out == "2 lines and 2 previews: visualdl --logdir board\n"


def test_errors(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    missing = "visualdl is not installed: pip install visualdl"
    for folder, words in ((run, missing), (run / "no", "cannot be read: No")):
        with pytest.raises(SystemExit):
            main([str(folder)])
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
