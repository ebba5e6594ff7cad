from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from utils.cli import UserError
from utils.pyplot import load_pyplot


def test_pictures_go_to_files() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = matplotlib.get_backend()
    try:
        matplotlib.use("svg")
        pyplot = load_pyplot()
        assert pyplot.__name__ == "matplotlib.pyplot" and pyplot.get_backend().lower() == "agg"
    finally:
        matplotlib.use(before)


def test_one_line_says_that_it_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="^matplotlib is not installed: pip install matplotlib$"):
        load_pyplot()


def test_it_is_imported_when_it_is_asked_for() -> None:
    program = "import sys, utils.pyplot; sys.exit('matplotlib' in sys.modules)"
    project = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=project, check=False).returncode == 0
