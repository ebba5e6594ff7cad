from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.cli import UserError
from utils.paths import image_names, portable_command, portable_path, portable_text, prepare_folder


def test_paths_for_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert portable_path("configs/test.yaml") == "configs/test.yaml"
    assert portable_path(str(tmp_path / "runs/a.npz")) == "runs/a.npz"
    assert portable_path("/data/places2/lists/val.txt") == ".../lists/val.txt"
    assert portable_path("../val.txt") == os.path.join("...", tmp_path.parent.name, "val.txt")
    assert portable_path("..name/val.txt") == "..name/val.txt"
    monkeypatch.setenv("HOME", "/home/somebody")
    assert portable_path("~/photos/val.txt") == ".../photos/val.txt"


def test_commands_for_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["test.py", "--config", str(tmp_path / "a b.yaml"), "--output=/disk/user/out", "seed=1"]
    arguments += ["data_root=/disk/user/images", "lr=1e-4", "/odd=/name"]
    assert portable_command(arguments) == (
        "python test.py --config 'a b.yaml' --output=.../user/out seed=1 data_root=.../user/images lr=1e-4 "
        ".../odd=/name"
    )


def test_names_lose_the_folders_that_all_share() -> None:
    assert image_names(["/d/p/a/1.png", "/d/p/b/1.png", "/d/p/2.png"]) == ["a/1.png", "b/1.png", "2.png"]
    assert image_names(["photos/1.png"]) == ["1.png"]
    assert image_names([os.path.abspath("x/1.png"), "x/y/2.png"]) == ["1.png", "y/2.png"]


def test_paths_in_a_text_can_be_published(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, expected in (
        ("resumed from /data/a b/c d.npz; seed 0", "resumed from .../a b/c d.npz; seed 0"),
        (f"{tmp_path}/a b.png: is empty\n~/x/y/z.png", "a b.png: is empty\n.../y/z.png"),
        ("(data_root: '/data/me/a')", "(data_root: '.../me/a')"),
        ("see /data/me/a, /data/me/b.", "see .../me/a, .../me/b."),
        ("Iter: [1/2] 1.0 batches/s, 10 log10(1 / l2), a/b ../c .../d/e", None),
    ):
        assert portable_text(text) == (expected or text)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the folder .*file/out"):
        prepare_folder(str(tmp_path / "file/out"))
    prepare_folder(str(tmp_path / "new/out"))
    assert list((tmp_path / "new/out").iterdir()) == []
