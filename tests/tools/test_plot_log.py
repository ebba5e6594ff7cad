"""Curves from logs of this project and of the earlier ports."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from tools.plot_log import draw, main, read_log, read_metrics, smoothed
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


def test_segments(logs):
    first, second = read_log(str(logs[1]))
    assert (first.iterations, second.iterations) == ([100, 200, 300], [200, 300])
    assert np.array_equal(first.scalars["l1"], [(100, 0.5), (200, np.nan), (300, 0.3)], equal_nan=True)
    assert second.scalars["l1"] == [(200, 0.4), (300, 0.2)]
    assert read_log(str(logs[0]))[0].scalars["critic_gap"] == [(i, float(i)) for i in range(1, 60)]


@pytest.fixture
def coming_and_going(tmp_path):
    """d is in the log from the second line on, once not finite; l1 is not in the last line."""
    path = tmp_path / "t.txt"
    scalars = [{"l1": 1.0}, {"l1": 2.0, "d": 5.0}, {"l1": 3.0, "d": np.nan}, {"d": 6.0}]
    path.write_text("".join(format_line(i + 1, 9, values, 1.0) + "\n" for i, values in enumerate(scalars)))
    return path


def test_scalars_that_come_and_go_keep_their_places(coming_and_going):
    (segment,) = read_log(str(coming_and_going))
    assert segment.iterations == [1, 2, 3, 4] and list(segment.scalars) == ["l1", "d"]
    assert np.array_equal(segment.scalars["d"], [(2, 5), (3, np.nan), (4, 6)], equal_nan=True)
    assert segment.scalars["l1"] == [(1, 1), (2, 2), (3, 3)]


def test_only_values_of_the_log_are_counted_as_not_finite(coming_and_going, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures, close = [], pyplot.close
    monkeypatch.setattr(pyplot, "close", figures.append)
    draw({"t.txt": read_log(str(coming_and_going))}, str(tmp_path / "curves.png"), 2)
    l1, d = figures[0].axes
    assert (l1.get_title(), d.get_title()) == ("l1", "d\n1 values are not finite")
    assert l1.lines[0].get_xdata().tolist() == [1, 2, 3] and d.lines[0].get_xdata().tolist() == [2, 3, 4]
    close(figures[0])


def test_smoothing_by_hand():
    found = smoothed(np.array([1.0, 3.0, np.nan, 5.0, 7.0]), 2)
    assert np.array_equal(found, [1, 2, np.nan, 5, 6], equal_nan=True)
    assert smoothed(np.array([1.0, 3.0, 8.0]), 10**12).tolist() == [1, 2, 4]  # more than there are


def test_a_spike_is_forgotten_where_its_window_ends():
    values = np.ones(100_000)
    values[5] = 1e17
    found = smoothed(values, 20)
    assert (found[:5] == 1).all() and (found[5:25] > 1e15).all() and (found[25:] == 1).all()


def test_drawing(logs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "curves.png"
    assert main([*map(str, logs), "--output", str(output)]) == 0
    assert output.read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out == f"64 lines drawn: {output}\n"


def test_the_curves_lie_beside_the_log_unless_told_otherwise(logs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main([str(logs[0])]) == 0
    assert capsys.readouterr().out == f"59 lines drawn: {tmp_path / 'train.png'}\n"
    assert (tmp_path / "train.png").is_file() and not list((tmp_path / "elsewhere").iterdir())


def test_validation_scores_are_drawn_where_a_run_wrote_them(logs, tmp_path, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    table = tmp_path / "metrics.csv"
    assert read_metrics(str(table)) == []
    table.write_text("iteration,psnr,ssim,l1,tv_ratio\n20,15.5,0.3,0.1,0.5\n40,16.5,0.4,nan,0.6\n")
    (segment,) = read_metrics(str(table))
    assert segment.iterations == [20, 40] and segment.scalars["validation psnr"] == [(20, 15.5), (40, 16.5)]
    figures, close = [], pyplot.close
    monkeypatch.setattr(pyplot, "close", figures.append)
    assert main([*map(str, logs)]) == 0
    assert capsys.readouterr().out == f"64 lines drawn: {tmp_path / 'train.png'}\n"
    panels = {axis.get_title(): axis for axis in figures[0].axes}
    assert {"validation psnr", "validation ssim", "validation l1\n1 values are not finite"} <= panels.keys()
    assert [line.get_ydata().tolist() for line in panels["validation psnr"].lines] == [[15.5, 16.5]]  # once, as it is
    close(figures[0])


@pytest.mark.parametrize("text", ["iteration,psnr\n1,two\n", "step,psnr\n1,2\n", "iteration\n1,2\n", "\0"])
def test_a_damaged_table_is_one_line(logs, tmp_path, capsys, text):
    (tmp_path / "metrics.csv").write_text(text)
    if text == "\0":
        (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe\x00\n1")
    with pytest.raises(SystemExit):
        main([str(logs[0])])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "metrics.csv: cannot be read: is not a table of numbers" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.txt"], "absent.txt: cannot be read: No such file"),
        (["empty.txt"], "empty.txt: holds no line of a training log"),
        (["speed.txt"], "speed.txt: its lines hold no value but the speed, so that there is nothing to draw"),
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
    (tmp_path / "speed.txt").write_text("Iter: [1/9] speed: 1.00 batches/s\n")
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
