from __future__ import annotations

import io
import sys

import pytest

from utils.progress import show_progress, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_few_plain_lines_without_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with show_progress(40, "image") as advance:
        for _ in range(40):
            advance(1)
    assert sys.stderr.getvalue().splitlines() == [f"{count}/40 images" for count in range(4, 41, 4)]


@pytest.mark.parametrize(
    ("total", "step", "lines"), [(3, 2, ["2/3", "3/3"]), (5, 9, ["5/5"]), (1000, 1000, ["1000/1000"])]
)
def test_steps_of_any_size(monkeypatch, total: int, step: int, lines: list[str]) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with show_progress(total, "image") as advance:
        for start in range(0, total, step):
            advance(min(step, total - start))
    assert sys.stderr.getvalue().splitlines() == [f"{line} images" for line in lines]


def test_a_bar_on_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with show_progress(2, "image") as advance:
        advance(1)
        warn("look")
        advance(1)
    shown = sys.stderr.getvalue()
    assert "2/2" in shown
    assert "image/s" in shown or "s/image" in shown
    assert "warning: look\n" in shown
