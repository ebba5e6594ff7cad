"""The log's line format, and a log that stays unbroken across resumes."""

from __future__ import annotations

import io
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.cli import UserError
from utils.logger import Pace, TextLog, duration, format_line, parse_line

PROJECT = Path(__file__).resolve().parents[2]
SCALARS = {
    "grad_norm_g": 2.5, "d": -16.94878, "g": 0.203349, "wgan_gp": 0.287394, "wgan_d": -19.822716,
    "wgan_g": -25.381075, "ae": 0.141259, "l1": 0.049349,
}  # fmt: skip


def test_line_is_in_the_earlier_format_with_extras_before_the_speed():
    assert format_line(57000, 500000, SCALARS, 58.941) == (
        "Iter: [57000/500000] l1: 0.04935 ae: 0.1413 wgan_g: -25.38 wgan_d: -19.82 "
        "wgan_gp: 0.2874 g: 0.2033 d: -16.95 grad_norm_g: 2.5 speed: 58.94 batches/s"
    )
    assert format_line(1, 2, {"l1": 1.0}, 0.5) == "Iter: [1/2] l1: 1 speed: 0.50 batches/s"


def test_the_time_of_an_iteration_and_what_is_left():
    line = format_line(1000, 100_000, {"l1": 0.5, "lr": 1e-4}, 1.09, 5.5, 0.034)
    assert line == "Iter: [1000/100000] l1: 0.5 lr: 0.0001 speed: 1.09 batches/s, 5.50 s/it, 3% wait, 6d7h left"
    assert parse_line(line) == {"iteration": 1000, "total": 100_000, "l1": 0.5, "lr": 1e-4, "speed": 1.09}
    assert format_line(1, 2, {}, 0.01, 432.1, 0).endswith(", 432 s/it, 0% wait, 7m12s left")
    # the line of a whole run is shorter than it was without them: 230 characters
    names = ["l1", "ae", "wgan_g", "wgan_d", "wgan_gp", "g", "d", "grad_norm_d", "grad_norm_g"]
    scalars = dict.fromkeys(names, -12.34567)
    assert len(format_line(99_900, 100_000, {**scalars, "lr": 0.0001}, 1.09, 5.5, 0.03)) < 215


def test_pace(monkeypatch):
    clock = iter([10.0, 14.0, 24.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    batches = SimpleNamespace(position=6, waited=1.0)
    pace = Pace(batches, 1)
    batches.position, batches.waited = 18, 2.0
    assert pace.line(3, 5, {}) == "Iter: [3/5] speed: 3.00 batches/s, 2.00 s/it, 25% wait, 4s left"
    batches.position = 23
    assert pace.line(4, 5, {}) == "Iter: [4/5] speed: 0.50 batches/s, 10.00 s/it, 0% wait, 10s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (47 * 3600 + 59, "47 h 0 min"),
        (48 * 3600, "2 d 0 h"), (1e5 * 38.0, "43 d 23 h"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_lines_are_read_back():
    values = parse_line(format_line(7, 100, SCALARS, 1.25))
    scalars = {name: float(f"{value:.4g}") for name, value in SCALARS.items()}
    assert values == {"iteration": 7, "total": 100, "speed": 1.25, **scalars}
    assert type(values["iteration"]) is int


def test_lines_of_the_earlier_ports_are_read():
    line = (
        "2021-10-29 11:19:58,179 INFO Iter: [58300/500000] l1: nan ae: nan wgan_g: -7.737179 "
        "wgan_d: -59.471756 wgan_gp: 0.338161 g: nan d: -56.090149 speed: 1.44 batches/s \n"
    )
    values = parse_line(line)
    losses = ["l1", "ae", "wgan_g", "wgan_d", "wgan_gp", "g", "d"]
    assert list(values) == ["iteration", "total", *losses, "speed"]
    assert (values["iteration"], values["d"], values["speed"]) == (58300, -56.090149, 1.44)
    assert math.isnan(values["l1"])


@pytest.mark.parametrize(
    "line", ["", "Random seed: 580", "Iter: 5", "Iter: [a/b] l1: 1", "Iter: [1/2] l1: ?"]
)
def test_other_lines_are_none(line):
    assert parse_line(line) is None


def test_lines_are_written_out_at_once_appended_and_shown(tmp_path, capsys):
    path = str(tmp_path / "run" / "train.txt")
    with TextLog(path) as log:
        log.write("first\n")
        assert Path(path).read_text() == "first\n"
        log.write("照片 \udcff\nthird")
    with TextLog(path) as log:
        log.write("fourth")
    assert Path(path).read_text(encoding="utf-8") == "first\n照片 \\udcff\nthird\nfourth\n"
    assert capsys.readouterr().out == "first\n照片 \\udcff\nthird\nfourth\n"


def test_paths_of_this_machine_are_shortened(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    with TextLog(str(tmp_path / "t.txt")) as log:
        log.write(f"{PROJECT}/configs/a.yaml in {PROJECT}, '{PROJECT}'.")
        log.write("/home/somebody/x=/home/somebody /home/somebody2/y /data/home/somebody/z")
        monkeypatch.setenv("HOME", "/")
        log.write("/a/b")
    lines = (tmp_path / "t.txt").read_text().splitlines()
    assert lines == ["configs/a.yaml in ., '.'.", "~/x=~ /home/somebody2/y /data/home/somebody/z", "/a/b"]


def written(path: Path, *iterations: int, end: str = "") -> None:
    lines = ["seed: 1"] + [format_line(i, 100, {"l1": i / 100}, 1.0) for i in iterations]
    path.write_text("\n".join(lines) + "\n" + end)


def test_resuming_cuts_later_iterations_off(tmp_path):
    path = tmp_path / "t.txt"
    written(path, 10, 20, 30, 40, end="saved\n")
    with TextLog(str(path), resume_at=20) as log:
        log.write(format_line(30, 100, {"l1": 0.9}, 1.0))
    parsed = [parse_line(line) for line in path.read_text().splitlines()]
    assert parsed[0] is None
    assert [(p["iteration"], p["l1"]) for p in parsed[1:]] == [(10, 0.1), (20, 0.2), (30, 0.9)]
    assert os.listdir(tmp_path) == ["t.txt"]


def test_resuming_keeps_a_log_that_ends_in_time_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "t.txt"
    written(path, 10, 20, end="note\n")
    before = path.read_bytes()
    TextLog(str(path), resume_at=20).close()
    assert path.read_bytes() == before
    path.write_bytes(before + b"Iter: [30/1")
    TextLog(str(path), resume_at=20).close()
    assert path.read_bytes() == before
    TextLog(str(tmp_path / "new.txt"), resume_at=20).close()
    assert (tmp_path / "new.txt").read_bytes() == b""


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "t.txt"):
        with pytest.raises(UserError, match=f"^{path}: the log cannot be written: "):
            TextLog(str(path))


def test_a_lost_terminal_does_not_stop_the_log(tmp_path, monkeypatch):
    class Gone(io.StringIO):
        encoding = "ascii"

        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Gone())
    with TextLog(str(tmp_path / "t.txt")) as log:
        log.write("first")
        sys.stdout.close()
        log.write("照片")
    assert (tmp_path / "t.txt").read_text(encoding="utf-8") == "first\n照片\n"


def test_a_device_in_the_logs_place_is_not_read(tmp_path):
    (tmp_path / "t.txt").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left"), TextLog(str(tmp_path / "t.txt"), resume_at=3) as log:
        log.write("line")
