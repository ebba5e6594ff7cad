from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.cli import UserError
from utils.text_files import write_text


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before, and longer")
    write_text(str(path), "é\n\udcff")
    assert path.read_bytes() == "é\n\\udcff".encode()
    write_text(str(path), "\udcff", errors="surrogateescape")
    assert path.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_not_written_leaves_the_old_file(tmp_path: Path, monkeypatch, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail(*_) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        write_text(str(path), "after")
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*absent/test.txt: No such file"):
        write_text(str(tmp_path / "absent/test.txt"), "")
