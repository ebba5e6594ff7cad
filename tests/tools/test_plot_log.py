"""Curves from logs of this project and of the earlier ports."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest

from tools.plot_log import main, read_courses, smoothed
from utils.logger import format_line

EARLIER = (
    "2021-10-29 11:19:58,179 INFO Iter: [{}/500000] l1: {} ae: 0.1 wgan_g: -7.7 wgan_d: -59.4 wgan_gp: 0.3 g: 0.2 "
    "d: -56.0 speed: 1.44 batches/s \n"
)


@pytest.fixture
def logs(tmp_path):
    ours, theirs = tmp_path / "train.txt", tmp_path / "earlier.log"
    lines = ["# new run", *(format_line(i, 90, {"l1": 1 / i, "critic_gap": float(i)}, 1.0) for i in range(1, 60))]
    ours.write_text("\n".join(lines) + "\n")
    steps = [(100, "0.5"), (200, "nan"), (300, "0.3"), (200, "0.4"), (300, "0.2")]
    theirs.write_text("Random seed: 1\n" + "".join(EARLIER.format(*step) for step in steps))
    return ours, theirs


def test_courses(logs):
    first, second = read_courses(str(logs[1]))
    assert (first["iteration"], second["iteration"]) == ([100, 200, 300], [200, 300])
    assert first["l1"][0] == 0.5 and math.isnan(first["l1"][1]) and second["l1"] == [0.4, 0.2]
    assert read_courses(str(logs[0]))[0]["critic_gap"] == [float(i) for i in range(1, 60)]


def test_scalars_that_come_and_go_keep_their_places(tmp_path):
    path = tmp_path / "t.txt"
    scalars = [{"l1": 1.0}, {"l1": 2.0, "d": 5.0}, {"d": 6.0}]
    path.write_text("".join(format_line(i + 1, 9, values, 1.0) + "\n" for i, values in enumerate(scalars)))
    (course,) = read_courses(str(path))
    assert np.array_equal(course["d"], [np.nan, 5, 6], equal_nan=True)
    assert np.array_equal(course["l1"], [1, 2, np.nan], equal_nan=True)


def test_smoothing_by_hand():
    found = smoothed(np.array([1.0, 3.0, np.nan, 5.0, 7.0]), 2)
    assert np.array_equal(found, [1, 2, np.nan, 5, 6], equal_nan=True)


def test_drawing(logs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "curves.png"
    assert main([*map(str, logs), "--output", str(output)]) == 0
    assert output.read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out == f"64 lines drawn: {output}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.txt"], "absent.txt: cannot be read: No such file"),
        (["empty.txt"], "empty.txt: holds no line of a training log"),
        (["train.txt", "--smooth", "0"], "--smooth must be at least 1"),
        (["train.txt", "--output", "no/such/folder.png"], "no/such/folder.png: cannot be written: No such file"),
        (["train.txt", "--output", "a.strange"], "a.strange: cannot be written: "),
    ],
)
def test_errors(logs, tmp_path, monkeypatch, capsys, arguments, words):
    if "--output" in arguments:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("nothing\n")
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}") and error.count("\n") == 1


def test_without_matplotlib(logs, monkeypatch, capsys):
    normal = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return normal(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit):
        main([str(logs[0])])
    assert capsys.readouterr().err == "error: matplotlib is not installed: pip install matplotlib\n"
